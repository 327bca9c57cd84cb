//! The same message has one effect.

use correio_guarantees::{Admission, Claim, Fence, Standing};

use super::*;

#[test]
fn a_message_whose_handler_failed_is_not_a_duplicate_when_it_comes_back() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.fail("a");
    let copy = h.confirm(Ok(()));
    h.deliver_envelope(copy);
    assert_eq!(h.running(), ["a"]);
    assert_eq!(h.tally().duplicates, 0);
}

#[test]
fn a_second_delivery_of_a_handled_message_is_acknowledged_and_not_handled() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.done("a");
    let second = h.deliver(&message("a"));
    assert!(h.running().is_empty() && h.acknowledged.contains(&second));
    assert_eq!(h.tally().duplicates, 1);
}

#[test]
fn a_second_copy_while_the_first_is_unsettled_is_acknowledged_at_once_and_the_first_kept() {
    for at_once in [1, 4] {
        let mut h = History::of(independent(at_once, 5));
        let other = h.deliver(&message("other"));
        let first = h.deliver(&message("a"));
        let second = h.deliver(&message("a"));
        assert_eq!(h.acknowledged, BTreeSet::from([second]), "{first} {other}");
        assert_eq!(h.running().len(), usize::from(at_once).min(2));
    }
}

#[test]
fn with_deduplication_off_a_second_copy_is_handled_too() {
    let mut h = History::with(Rules { deduplicate: false, ..rules(independent(4, 5)) });
    h.deliver(&message("a"));
    h.deliver(&message("a"));
    assert_eq!(h.running(), ["a", "a"]);
}

#[test]
fn two_origins_that_both_count_from_one_are_both_handled() {
    let mut h = History::of(independent(4, 5));
    for origin in ["shop", "warehouse"] {
        h.deliver(&Message { origin: ShortText::new(origin).ok(), ..message("1") });
    }
    assert_eq!(h.running(), ["1", "1"]);
}

#[test]
fn messages_without_an_id_are_each_handled_and_counted() {
    let mut h = History::of(independent(4, 5));
    for _ in 0..2 {
        h.deliver(&Message { id: None, ..message("x") });
    }
    assert_eq!(h.running(), ["-", "-"]);
    assert_eq!(h.tally().without_id, 2);
}

#[test]
fn an_id_that_another_consumer_of_the_log_has_claimed_is_asked_for_again_until_its_end_decides() {
    for handled_there in [true, false] {
        let mut h = History::of(independent(1, 5));
        let theirs = claimed_elsewhere(&mut h, "a");
        h.deliver(&message("a"));
        h.deliver(&message("b"));
        assert_eq!(h.running(), ["b"], "the claimed message holds no handler");
        h.done("b");
        h.pass(SECOND);
        assert!(h.running().is_empty() && h.acknowledged.len() == 1);
        if handled_there {
            assert_eq!(h.log.on_handled(&theirs, h.now.at), Standing::Stood);
        } else {
            h.log.on_abandoned(&theirs);
        }
        h.pass(SECOND);
        assert_eq!(h.running().len(), usize::from(!handled_there));
        assert_eq!(h.tally().duplicates, u64::from(handled_there));
    }
}

/// Another consumer with the same log has this message, for as long as its lease.
fn claimed_elsewhere(h: &mut History, id: &str) -> Claim {
    let id = HandledId { subscription: "q".into(), origin: None, id: MessageId::new(id).unwrap() };
    let theirs = Claim { id, fence: Fence(1) };
    assert_eq!(h.log.admit(theirs.clone(), h.pipeline.rules.lease, h.now.at), Admission::Fresh);
    theirs
}

#[test]
fn a_message_whose_other_consumer_died_is_handled_here_when_its_lease_is_over() {
    let mut h = History::of(independent(1, 5));
    let theirs = claimed_elsewhere(&mut h, "a");
    h.deliver(&message("a"));
    for _ in 0..89 {
        h.pass(SECOND);
        assert!(h.running().is_empty(), "it may be at work still");
    }
    h.pass(SECOND);
    assert_eq!(h.running(), ["a"]);
    assert_eq!(
        h.log.on_handled(&theirs, h.now.at),
        Standing::TakenOver,
        "what the other one says late counts for nothing"
    );
    h.done("a");
    assert_eq!((h.tally().handled, h.acknowledged.len()), (1, 1));
}

#[test]
fn a_message_that_was_taken_over_is_acknowledged_only_when_its_new_owner_has_handled_it() {
    for handled_there in [true, false] {
        let mut h = History::of(independent(1, 5));
        h.deliver(&message("a"));
        // Its handler takes longer than the claim stands; another consumer asks.
        h.now.at += h.pipeline.rules.lease;
        let theirs = claimed_elsewhere(&mut h, "a");
        h.done("a");
        assert_eq!((h.tally().handled, h.tally().taken_over), (0, 1));
        h.pass(SECOND);
        assert!(h.acknowledged.is_empty() && h.running().is_empty());
        if handled_there {
            assert_eq!(h.log.on_handled(&theirs, h.now.at), Standing::Stood);
        } else {
            h.log.on_abandoned(&theirs);
        }
        h.pass(SECOND);
        assert_eq!(
            (h.acknowledged.len(), h.running().len()),
            (usize::from(handled_there), usize::from(!handled_there))
        );
    }
}

#[test]
fn a_second_copy_that_was_numbered_anew_leaves_no_gap_on_its_line() {
    let mut h = History::of(ordered(4, 16));
    h.deliver(&numbered("a", "k", 1));
    h.deliver(&numbered("a", "k", 2));
    h.deliver(&numbered("b", "k", 3));
    h.done("a");
    assert_eq!(h.running(), ["b"]);
    assert_eq!((h.tally().duplicates, h.tally().gaps), (1, 0));
}

#[test]
fn a_copy_that_overtakes_its_own_confirm_is_handled_and_not_taken_for_a_duplicate() {
    let mut ordered_without_retries = ordered(4, 16);
    if let Processing::OrderedByKey { retry, .. } = &mut ordered_without_retries {
        *retry = RetrySchedule::none();
    }
    for (processing, acknowledgement) in [
        (independent(4, 5), Acknowledgement::AfterHandling),
        (independent(4, 0), Acknowledgement::AfterHandling),
        (ordered_without_retries, Acknowledgement::AfterHandling),
        (independent(4, 0), Acknowledgement::OnDelivery),
    ] {
        let mut h = History::with(Rules { acknowledgement, ..rules(processing) });
        let original = h.deliver(&numbered("a", "k", 1));
        h.fail("a");
        let (_, copy) = h.publishing[0].clone();
        let again = match correio_message::DeadLetter::of(&copy) {
            Some(_) => correio_message::replay(&copy, ShortText::new("q").unwrap()),
            None => copy,
        };
        let second = h.deliver_envelope(again);
        assert_eq!(h.tally().duplicates, 0);
        h.confirm(Ok(()));
        assert!(h.acknowledged.contains(&original));
        assert_eq!(h.running(), ["a"], "both are gone");
        h.done("a");
        assert!(h.acknowledged.contains(&second));
        assert_eq!((h.tally().handled, h.tally().duplicates), (1, 0));
    }
}

#[test]
fn a_copy_that_overtakes_its_own_confirm_and_its_original_have_one_effect_whatever_becomes_of_the_confirm() {
    for handled_before_the_original_goes_on in [true, false] {
        for cause in ["unknown", "no queue"] {
            let mut h = History::of(independent(4, 5));
            let original = h.deliver(&message("a"));
            h.fail("a");
            let copy = h.publishing[0].1.clone();
            let second = h.deliver_envelope(copy.clone());
            assert_eq!(h.running(), ["a"]);
            if handled_before_the_original_goes_on {
                h.done("a");
            }
            // No queue: it is tried again in place. Unknown: it is published again, at last given back, and comes again.
            let mut original_now = original;
            while h.given_back.is_empty() && !h.publishing.is_empty() {
                h.confirm(Err(cause));
                h.pass(SECOND * 64);
            }
            if let [given_back] = h.given_back[..] {
                assert_eq!(given_back, original);
                original_now = h.deliver(&message("a"));
            }
            if !handled_before_the_original_goes_on {
                assert_eq!(h.running(), ["a"], "{cause}: two at work");
                h.done("a");
            }
            h.pass(SECOND);
            assert!(h.running().is_empty(), "{cause}: handled twice");
            assert_eq!(h.acknowledged, BTreeSet::from([second, original_now]), "{cause}");
            assert_eq!((h.tally().handled, h.tally().duplicates), (1, 1), "{cause}");
        }
    }
}

#[test]
fn a_copy_that_overtakes_its_own_confirm_and_fails_too_leaves_its_message_with_the_broker() {
    let mut h = History::of(independent(4, 5));
    let original = h.deliver(&message("a"));
    h.fail("a");
    let copy = h.publishing[0].1.clone();
    let second = h.deliver_envelope(copy);
    h.fail("a");
    let third = h.publishing[1].1.clone();
    h.confirm(Ok(()));
    assert_eq!(h.acknowledged, BTreeSet::from([original]));
    h.deliver_envelope(third);
    h.confirm(Ok(()));
    assert_eq!(h.acknowledged, BTreeSet::from([original, second]));
    assert_eq!((h.running(), h.running[0].1.attempt().get()), (vec!["a".to_owned()], 3));
}
