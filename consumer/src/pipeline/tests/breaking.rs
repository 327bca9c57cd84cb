//! While everything fails, handling pauses and probes, and no message is blamed.

use correio_message::{Attempt, retry};

use super::*;

/// Delivers so many more and fails them all.
fn fail_all(h: &mut History, from: u32, to: u32) {
    for n in from..=to {
        h.deliver(&message(&format!("m{n}")));
    }
    while let Some(id) = h.running().first().cloned() {
        h.fail(&id);
    }
}

fn confirm_all(h: &mut History) -> Vec<Envelope> {
    let mut copies = Vec::new();
    while !h.publishing.is_empty() {
        copies.push(h.confirm(Ok(())));
    }
    copies
}

#[test]
fn after_twenty_failures_in_a_row_nothing_is_begun_for_a_second_and_then_one_at_a_time() {
    let mut h = History::of(independent(4, 5));
    fail_all(&mut h, 1, 19);
    assert_eq!(h.tally().paused, 0);
    fail_all(&mut h, 20, 40);
    assert_eq!(h.tally().paused, 1);
    assert!(h.running().is_empty());
    h.pass(Duration::from_millis(999));
    assert!(h.running().is_empty());
    assert_eq!(h.pipeline.next_deadline(), Some(h.now.at + Duration::from_millis(1)));
    h.pass(Duration::from_millis(1));
    assert_eq!(h.running().len(), 1, "a probe");
    let probe = h.running()[0].clone();
    h.fail(&probe);
    h.pass(Duration::from_millis(1_999));
    assert!(h.running().is_empty(), "the pause has doubled");
    h.pass(Duration::from_millis(1));
    let probe = h.running()[0].clone();
    h.done(&probe);
    assert_eq!(h.running().len(), 4, "it goes on at full speed");
}

#[test]
fn a_success_between_failures_keeps_it_closed_and_the_word_of_a_handler_about_its_message_says_nothing() {
    let mut h = History::of(independent(4, 5));
    for n in 0..100 {
        let id = format!("m{n}");
        h.deliver(&message(&id));
        match n % 19 {
            0 => h.done(&id),
            _ => h.fail(&id),
        }
        confirm_all(&mut h);
    }
    for n in 100..200 {
        let id = format!("m{n}");
        h.deliver(&message(&id));
        match n % 4 {
            0 => h.end(&id, Ok(Verdict::DeadLetter { reason: "no such customer".into() })),
            1 => h.end(&id, Ok(Verdict::Drop { reason: "old".into() })),
            2 => h.end(&id, Err(Failure::Unreadable { error: "not JSON".into() })),
            _ => h.end(&id, Err(Failure::Ruled { error: "no".into(), ruling: correio_guarantees::Ruling::DeadLetter })),
        }
        confirm_all(&mut h);
    }
    assert_eq!(h.tally().paused, 0);
}

#[test]
fn what_fails_for_the_last_time_while_it_is_open_is_not_parked_and_after_twenty_minutes_it_is() {
    let mut h = History::of(independent(4, 1));
    fail_all(&mut h, 1, 20);
    assert_eq!(confirm_all(&mut h).len(), 19, "the twentieth waits here, to be a probe");
    let began = h.now.at;
    let mut parked = 0;
    for n in 0..100 {
        let (queue, said) = (ShortText::new("q.retry.1s").unwrap(), Attempt { number: two(), first_failed_at_us: 1 });
        let last = message(&format!("p{n}")).encode(Durability::Persistent);
        h.deliver_envelope(retry(&last, queue, SECOND, said));
        h.pass(SECOND * 30);
        let probe = h.running()[0].clone();
        h.fail(&probe);
        if h.closes == 1 {
            h.closes = 0;
            h.lose_channel();
            h.subscribe();
            continue;
        }
        let is_parked = confirm_all(&mut h).iter().any(|copy| copy.route.to_string() == "correio.dead/q.dead");
        assert_eq!(is_parked, h.now.at - began >= SECOND * 1_200, "after {:?}", h.now.at - began);
        parked += u32::from(is_parked);
    }
    assert!(parked > 50);
}

fn two() -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(2).unwrap()
}

#[test]
fn where_every_message_fails_at_first_the_second_attempt_of_one_is_the_first_probe() {
    let mut h = History::of(independent(20, 5));
    fail_all(&mut h, 1, 20);
    h.deliver(&message("new"));
    h.pass(SECOND);
    assert_eq!((h.running(), h.running[0].1.attempt()), (vec!["m20".to_owned()], two()));
    h.done("m20");
    assert_eq!(h.running(), ["new"], "it goes on at full speed");
}

#[test]
fn an_ordered_queue_pauses_too_and_its_keys_keep_their_order() {
    let mut h = History::of(ordered(4, 200));
    for number in 1..=3 {
        for key in 0..8 {
            h.deliver(&numbered(&format!("{key}-{number}"), &format!("k{key}"), number));
        }
    }
    let mut failures = 0;
    while h.tally().paused == 0 {
        let Some(id) = h.running().first().cloned() else {
            h.pass(SECOND);
            continue;
        };
        assert!(id.ends_with("-1"), "{id} was begun before the first of its key was handled");
        h.fail(&id);
        failures += 1;
    }
    assert_eq!(failures, 20);
    h.pass(SECOND * 30);
    let mut handled: Vec<String> = Vec::new();
    while let Some(id) = h.running().first().cloned() {
        h.done(&id);
        handled.push(id);
        h.pass(SECOND * 30);
    }
    assert_eq!(handled.len(), 24);
    for key in 0..8 {
        let of_key: Vec<_> = handled.iter().filter(|id| id.starts_with(&format!("{key}-"))).collect();
        assert_eq!(of_key, [&format!("{key}-1"), &format!("{key}-2"), &format!("{key}-3")]);
    }
    assert_eq!(h.tally().dead, 0);
}

#[test]
fn every_second_probe_is_of_what_has_not_failed_yet_so_that_bad_messages_do_not_hide_good_ones() {
    let mut h = History::of(ordered(20, 200));
    for key in 0..20 {
        h.deliver(&numbered(&format!("bad-{key}"), &format!("bad-{key}"), 1));
    }
    for key in 0..20 {
        h.fail(&format!("bad-{key}"));
    }
    assert_eq!(h.tally().paused, 1);
    h.deliver(&numbered("good", "good", 1));
    h.pass(SECOND * 2);
    let bad = h.running()[0].clone();
    assert!(bad.starts_with("bad"));
    h.fail(&bad);
    h.pass(SECOND * 2);
    assert_eq!(h.running(), ["good"]);
    h.done("good");
    assert_eq!(h.running().len(), 20);
}

#[test]
fn after_a_minute_of_it_everything_goes_back_and_only_the_probe_is_taken() {
    for processing in [independent(4, 5), ordered(4, 200)] {
        let ordered = processing.is_ordered();
        let prefetch = processing.prefetch();
        let mut h = History::of(processing);
        let name = |n: u32| numbered(&format!("m{n}"), &format!("k{n}"), 1);
        for n in 0..30 {
            h.deliver(&name(n));
        }
        let mut passed = 0;
        while h.closes == 0 {
            match h.running().first().cloned() {
                Some(id) => h.fail(&id),
                None => {
                    confirm_all(&mut h);
                    h.pass(SECOND);
                    passed += 1;
                    h.deliver(&name(30 + passed));
                }
            }
        }
        assert!((61..=62).contains(&passed), "{passed}");
        h.lose_channel();
        assert!(h.pipeline.is_empty());
        assert_eq!(h.pipeline.prefetch(), 1, "ordered: {ordered}");
        h.subscribe();
        assert_eq!(h.pipeline.resubscription(), None);
        h.deliver(&name(1_000));
        assert!(h.running().is_empty());
        h.pass(SECOND * 30);
        h.fail("m1000");
        confirm_all(&mut h);
        assert_eq!((h.closes, h.pipeline.resubscription()), (1, None), "it goes back once");
        h.deliver(&name(1_001));
        h.pass(SECOND * 30);
        let probe = h.running()[0].clone();
        h.done(&probe);
        if ordered {
            h.pass(SECOND * 30);
            h.done("m1000");
        }
        assert_eq!(h.pipeline.prefetch(), prefetch);
        assert_eq!(h.pipeline.resubscription(), Some(correio_guarantees::Room::Full));
        assert_eq!(h.tally().dead, 0);
    }
}

#[test]
fn what_was_acknowledged_on_receipt_is_held_through_the_pause_and_has_its_last_chance_at_the_end() {
    let acknowledgement = Acknowledgement::OnDelivery;
    let mut h = History::with(Rules { acknowledgement, ..rules(independent(4, 5)) });
    fail_all(&mut h, 1, 24);
    assert_eq!((h.tally().paused, h.publishing.len()), (1, 19), "parked, as nothing brings them back");
    h.pipeline.on_stopping();
    h.go_on();
    h.pass(SECOND * 2);
    assert!(!h.running().is_empty());
    while let Some(id) = h.running().first().cloned() {
        h.done(&id);
    }
    confirm_all(&mut h);
    assert_eq!((h.tally().handled, h.tally().dead, h.tally().lost), (5, 19, 0));
    assert_eq!(h.closes, 0);
}

#[test]
fn without_it_everything_uses_its_retries_up() {
    let mut h = History::with(Rules { breaker: None, ..rules(independent(4, 0)) });
    fail_all(&mut h, 1, 60);
    assert_eq!(confirm_all(&mut h).len(), 60, "letters");
    assert_eq!((h.tally().dead, h.tally().paused), (60, 0));
}
