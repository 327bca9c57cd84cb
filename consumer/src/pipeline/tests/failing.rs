//! What fails is retried, then parked; nothing is acknowledged before its copy is confirmed.

use super::*;

#[test]
fn what_is_larger_than_the_budget_allows_is_parked_untouched_with_the_numbers_and_the_way_out() {
    for processing in [independent(4, 1), ordered(4, 8)] {
        let mut history =
            History::with(Rules { budget: Budget { prefetch: 64, largest: 500, bytes: 32_000 }, ..rules(processing) });
        let large = Message { payload: vec![b'x'; 501].into(), ..numbered("large", "k", 1) };
        history.deliver(&large);
        let letter = history.confirm(Ok(()));
        let said = correio_message::DeadLetter::of(&letter).unwrap();
        assert_eq!((said.reason, &letter.body), (DeadReason::TooLarge, &large.payload));
        for named in ["takes 500", "64 of them", "32000", "--largest-message"] {
            assert!(said.error.contains(named), "{named}: {}", said.error);
        }
        history.deliver(&numbered("next", "k", 2));
        assert_eq!(history.running(), ["next"], "nobody waits for it");
    }
}

#[test]
fn the_original_is_acknowledged_only_after_the_retry_copy_is_confirmed() {
    let mut h = History::of(independent(4, 5));
    let tag = h.deliver(&message("a"));
    h.fail("a");
    assert!(h.acknowledged.is_empty());
    let copy = h.confirm(Ok(()));
    assert!(h.acknowledged.contains(&tag));
    assert_eq!(copy.route.to_string(), "correio.retry/q.retry.1s");
    assert_eq!(copy.decode().unwrap().attempt.get(), 2);
    assert_eq!(copy.properties.expiration, ShortText::new("1000").ok());
}

#[test]
fn a_copy_that_is_not_confirmed_is_published_again_with_growing_pauses_and_at_last_its_message_given_back() {
    let mut h = History::of(independent(4, 5));
    let tag = h.deliver(&message("a"));
    h.fail("a");
    let mut pauses = 0;
    while h.given_back.is_empty() {
        h.confirm(Err("unknown"));
        assert!(h.publishing.is_empty(), "published again at once: a hot loop");
        if h.given_back.is_empty() {
            h.pass(Duration::from_millis(999));
            assert!(h.publishing.is_empty(), "published again within a second");
            pauses += 1;
            h.pass(SECOND * 64);
        }
    }
    assert!(pauses >= 5);
    assert_eq!(h.given_back, [tag]);
    assert!(h.acknowledged.is_empty());
    assert_eq!(h.tally().handed_back, 1);
}

#[test]
fn without_its_delay_queue_a_message_is_retried_in_place_with_the_same_attempts_and_delays() {
    let mut h = History::of(independent(4, 1));
    h.deliver(&message("a"));
    h.fail("a");
    h.confirm(Err("no queue"));
    h.pass(Duration::from_millis(999));
    assert!(h.running().is_empty() && h.acknowledged.is_empty());
    h.pass(Duration::from_millis(1));
    assert_eq!((h.running.len(), h.running[0].1.attempt().get()), (1, 2));
    h.fail("a");
    assert_eq!(h.confirm(Ok(())).route.to_string(), "correio.dead/q.dead");
    assert_eq!((h.tally().retried, h.tally().dead), (1, 1));
}

#[test]
fn when_the_parking_queue_is_gone_the_consumer_tries_for_a_while_and_then_ends() {
    let mut h = History::of(independent(4, 0));
    let tag = h.deliver(&message("a"));
    h.fail("a");
    let began = h.now.at;
    while h.ended.is_none() {
        h.confirm(Err("no queue"));
        assert!(h.publishing.is_empty());
        h.pass(SECOND * 64);
    }
    assert!(h.now.at - began > SECOND * 60);
    assert_eq!(h.given_back, [tag]);
}

#[test]
fn an_ordered_message_whose_copy_cannot_be_published_goes_back_with_its_channel() {
    let mut h = History::of(Processing::OrderedByKey {
        keys_at_once: NonZeroU16::MIN,
        parked: NonZeroU16::MIN,
        gap_deadline: SECOND,
        gap_policy: GapPolicy::Skip,
        retry: RetrySchedule::none(),
    });
    h.deliver(&numbered("a", "k", 1));
    h.fail("a");
    while h.closes == 0 {
        h.confirm(Err("refused"));
        h.pass(SECOND * 64);
    }
    assert!(h.given_back.is_empty() && h.acknowledged.is_empty());
}

#[test]
fn without_retries_left_a_message_is_parked_with_its_reason_and_then_acknowledged() {
    let mut h = History::of(independent(4, 0));
    let tag = h.deliver(&message("a"));
    h.fail("a");
    assert!(h.acknowledged.is_empty());
    let letter = h.confirm(Ok(()));
    assert_eq!(letter.route.to_string(), "correio.dead/q.dead");
    assert_eq!(correio_message::DeadLetter::of(&letter).unwrap().error, "no stock");
    assert!(h.acknowledged.contains(&tag));
    assert_eq!(h.tally().dead, 1);
}

#[test]
fn a_replayed_dead_letter_is_not_taken_for_a_duplicate() {
    let mut h = History::of(independent(4, 0));
    h.deliver(&message("a"));
    h.fail("a");
    let letter = h.confirm(Ok(()));
    h.deliver_envelope(correio_message::replay(&letter, ShortText::new("q").unwrap()));
    assert_eq!(h.running(), ["a"]);
}

#[test]
fn what_cannot_be_read_and_what_nobody_handles_is_parked_at_once_untouched() {
    let mut h = History::of(independent(4, 5));
    let mut unreadable = message("a").encode(Durability::Persistent);
    unreadable.properties.headers.insert(ShortText::new(header::ATTEMPT).unwrap(), correio_message::Value::text("x"));
    h.deliver_envelope(unreadable);
    let letter = h.confirm(Ok(()));
    assert_eq!(correio_message::DeadLetter::of(&letter).unwrap().reason, DeadReason::Unreadable);
    assert_eq!(letter.body, "a");
    h.deliver(&Message { message_type: ShortText::new("strange").ok(), ..message("b") });
    let letter = h.confirm(Ok(()));
    assert_eq!(correio_message::DeadLetter::of(&letter).unwrap().reason, DeadReason::UnknownType);
    assert!(h.running().is_empty());
    assert_eq!(h.acknowledged.len(), 2);
}

#[test]
fn with_no_parking_queue_the_message_is_given_back_and_the_consumer_ends() {
    let mut rules = rules(independent(4, 0));
    rules.company.can_park = false;
    let mut h = History::with(rules);
    let tag = h.deliver(&message("a"));
    h.fail("a");
    assert_eq!(h.given_back, [tag]);
    assert!(
        h.ended.as_ref().is_some_and(|end| end.to_string().contains("message a") && end.to_string().contains("q.dead"))
    );
}

#[test]
fn a_dropped_message_is_acknowledged_and_counted() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.end("a", Ok(Verdict::Drop { reason: "old".into() }));
    assert_eq!((h.acknowledged.len(), h.tally().dropped, h.tally().handled), (1, 1, 0));
}

#[test]
fn a_letter_that_is_more_than_a_copy_can_carry_is_parked_without_the_applications_headers_and_says_so() {
    let mut h = History::of(independent(4, 0));
    let mut heavy = message("a");
    heavy.headers.insert(ShortText::new("big").unwrap(), correio_message::Value::text("x".repeat(200_000)));
    heavy.headers.insert(ShortText::new("small").unwrap(), correio_message::Value::text("y"));
    let tag = h.deliver(&heavy);
    h.fail("a");
    h.confirm(Err("too large"));
    assert!(h.acknowledged.is_empty());
    let letter = h.confirm(Ok(()));
    assert!(h.acknowledged.contains(&tag));
    let said = correio_message::DeadLetter::of(&letter).unwrap();
    assert!(said.error.starts_with("no stock (its own 2 headers, about 200"), "{}", said.error);
    assert_eq!((said.reason, &letter.body), (DeadReason::Failed, &heavy.payload));
    assert!(letter.properties.headers.keys().all(|name| name.as_str().starts_with(header::PREFIX)));
    assert_eq!(letter.properties.message_id, heavy.encode(Durability::Persistent).properties.message_id);
}

#[test]
fn a_message_that_is_more_than_a_retry_copy_can_carry_is_retried_in_place() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.fail("a");
    h.confirm(Err("too large"));
    assert!(h.publishing.is_empty() && h.running().is_empty());
    h.pass(SECOND);
    assert_eq!((h.running.len(), h.running[0].1.attempt().get()), (1, 2));
}
