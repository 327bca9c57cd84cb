//! Messages of a key are handled in the order sent.

use super::*;

#[test]
fn messages_of_a_key_are_handled_in_the_order_sent_however_they_arrive() {
    let mut h = History::of(ordered(4, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.done("a1");
    h.deliver(&numbered("a3", "a", 3));
    h.deliver(&numbered("a2", "a", 2));
    assert_eq!(h.running(), ["a2"]);
    h.done("a2");
    assert_eq!(h.running(), ["a3"]);
}

#[test]
fn a_failed_message_keeps_its_place_and_only_its_key_waits_without_holding_a_handler() {
    let mut h = History::of(ordered(1, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.deliver(&numbered("a2", "a", 2));
    h.deliver(&numbered("b1", "b", 1));
    h.fail("a1");
    assert_eq!(h.running(), ["b1"]);
    h.done("b1");
    assert!(h.running().is_empty(), "a2 overtook a1");
    h.pass(SECOND);
    assert_eq!(h.running(), ["a1"]);
    assert_eq!(h.running[0].1.attempt().get(), 2);
    h.done("a1");
    assert_eq!(h.running(), ["a2"]);
    assert!(h.publishing.is_empty());
}

#[test]
fn a_duplicate_a_dead_letter_and_an_unreadable_message_leave_no_gap() {
    let mut h = History::of(ordered(4, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.done("a1");
    h.deliver(&numbered("a1", "a", 1));
    h.deliver(&numbered("a2", "a", 2));
    h.end("a2", Ok(Verdict::DeadLetter { reason: "no".into() }));
    h.confirm(Ok(()));
    let mut unreadable = numbered("a3", "a", 3).encode(Durability::Persistent);
    unreadable.properties.headers.insert(ShortText::new(header::ATTEMPT).unwrap(), correio_message::Value::text("x"));
    h.deliver_envelope(unreadable);
    h.confirm(Ok(()));
    h.deliver(&numbered("a4", "a", 4));
    assert_eq!(h.running(), ["a4"]);
    assert_eq!((h.tally().gaps, h.tally().duplicates), (0, 1));
}

#[test]
fn a_marker_fills_its_numbers_when_its_turn_comes_and_is_acknowledged_no_sooner() {
    let mut h = History::of(ordered(4, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.deliver(&numbered("a4", "a", 4));
    let mut sequence = numbered("a3", "a", 3).sequence.unwrap();
    sequence.voids = Voids::new([NonZeroU64::new(2).unwrap()]);
    let route = Destination::queue("q").unwrap().route();
    let marker = h.deliver_envelope(Envelope::marker(route, &MessageId::new("m").unwrap(), &sequence));
    // Were it acknowledged now, a consumer that takes over would wait for 2 and 3 in vain.
    assert!(!h.acknowledged.contains(&marker));
    h.done("a1");
    assert_eq!(h.running(), ["a4"]);
    h.done("a4");
    h.pass(SECOND);
    assert!(h.acknowledged.contains(&marker));
    let tally = h.tally();
    assert_eq!((tally.markers, tally.handled, tally.gaps, tally.without_id), (1, 2, 0, 0));
}

#[test]
fn a_gap_is_waited_for_then_given_up_and_counted_and_what_comes_late_is_handled_and_counted() {
    let mut h = History::of(ordered(4, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.done("a1");
    h.deliver(&numbered("a3", "a", 3));
    h.pass(SECOND * 9);
    assert!(h.running().is_empty());
    h.pass(SECOND);
    assert_eq!(h.running(), ["a3"]);
    h.done("a3");
    h.deliver(&numbered("a2", "a", 2));
    h.done("a2");
    assert_eq!((h.tally().gaps, h.tally().out_of_order, h.tally().handled), (1, 1, 3));
}

#[test]
fn without_order_a_retried_message_is_overtaken() {
    let mut h = History::of(independent(1, 5));
    h.deliver(&numbered("a1", "a", 1));
    h.deliver(&numbered("a2", "a", 2));
    h.fail("a1");
    assert_eq!(h.running(), ["a2"]);
}

#[test]
fn the_prefetch_always_exceeds_what_may_be_parked() {
    for (keys, parked) in [(1, 1), (1, 60_000), (16, 256), (60_000, 60_000)] {
        assert!(ordered(keys, parked).prefetch() > parked);
    }
    // And so a consumer that is full of waiting messages still gets the one that they wait for.
    let mut h = History::of(ordered(1, 4));
    h.deliver(&numbered("a1", "a", 1));
    h.done("a1");
    for n in 3..=4 {
        h.deliver(&numbered(&format!("a{n}"), "a", n));
    }
    assert!(h.pipeline.has_room());
    h.deliver(&numbered("a2", "a", 2));
    assert_eq!(h.running(), ["a2"]);
}
