//! A message is acknowledged when its work is done, remembered and not before.

use super::*;

#[test]
fn a_message_is_acknowledged_only_after_its_handler_succeeded() {
    let mut h = History::of(independent(4, 5));
    let tag = h.deliver(&message("a"));
    assert!(h.acknowledged.is_empty());
    h.done("a");
    assert!(h.acknowledged.contains(&tag));
    assert_eq!(h.tally().handled, 1);
}

#[test]
fn no_acknowledgement_reaches_over_a_message_that_is_still_at_work_or_waits() {
    let mut h = History::of(ordered(4, 16));
    let first = h.deliver(&numbered("a1", "a", 1));
    let parked = h.deliver(&numbered("b2", "b", 2));
    let failed = h.deliver(&message("free"));
    let last = h.deliver(&numbered("c1", "c", 1));
    h.done("a1");
    h.done("c1");
    h.fail("free");
    assert_eq!(h.acknowledged, BTreeSet::from([first, last]));
    assert!(!h.acknowledged.contains(&parked) && !h.acknowledged.contains(&failed));
}

#[test]
fn a_message_is_remembered_before_it_is_acknowledged() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.log_works = false;
    h.done("a");
    h.pass(SECOND * 5);
    assert!(h.acknowledged.is_empty(), "acknowledged without being remembered");
    h.log_works = true;
    h.pass(SECOND);
    assert_eq!(h.acknowledged.len(), 1);
    assert_eq!(h.tally().handled, 1);
}

#[test]
fn nothing_is_begun_while_the_log_is_down_and_everything_is_when_it_is_back() {
    let mut h = History::of(independent(4, 5));
    h.log_works = false;
    for id in ["a", "b"] {
        h.deliver(&message(id));
    }
    assert!(h.running().is_empty());
    h.log_works = true;
    h.pass(SECOND);
    assert_eq!(h.running(), ["a", "b"]);
}

#[test]
fn on_receipt_means_before_handling_and_what_fails_is_parked_without_retry() {
    let acknowledgement = Acknowledgement::OnDelivery;
    let mut h = History::with(Rules { acknowledgement, ..rules(independent(4, 5)) });
    let tag = h.deliver(&message("a"));
    assert!(h.acknowledged.contains(&tag));
    h.fail("a");
    assert_eq!(h.confirm(Ok(())).route.to_string(), "correio.dead/q.dead");
    assert_eq!((h.tally().retried, h.tally().dead), (0, 1));
}

#[test]
fn a_dead_letter_says_how_long_handled_ids_are_remembered_and_nothing_where_they_are_not() {
    for (retention, said) in [(Some(SECOND * 90), Some(90_000_000)), (None, None)] {
        let mut h = History::with(Rules { retention, ..rules(independent(4, 0)) });
        h.deliver(&message("a"));
        h.fail("a");
        let parked = h.confirm(Ok(()));
        assert_eq!(correio_message::DeadLetter::of(&parked).unwrap().remembered_for_us, said);
    }
}

#[test]
fn what_was_acknowledged_on_receipt_is_handled_although_its_channel_is_lost_or_the_consumer_stops() {
    let acknowledgement = Acknowledgement::OnDelivery;
    let mut h = History::with(Rules { acknowledgement, ..rules(independent(1, 5)) });
    for id in ["a", "b", "c"] {
        h.deliver(&message(id));
    }
    h.lose_channel();
    h.done("a");
    h.subscribe();
    h.pipeline.on_stopping();
    h.go_on();
    h.done("b");
    assert!(!h.pipeline.is_drained());
    h.done("c");
    assert!(h.pipeline.is_drained());
    assert_eq!((h.tally().handled, h.tally().lost), (3, 0));
}

#[test]
fn on_receipt_no_more_is_taken_than_the_count_asked_for() {
    let (acknowledgement, stop_after_count) = (Acknowledgement::OnDelivery, NonZeroU64::new(2));
    let mut h = History::with(Rules { acknowledgement, stop_after_count, ..rules(independent(1, 5)) });
    h.deliver(&message("a"));
    h.deliver(&message("a"));
    assert!(h.pipeline.has_room(), "a duplicate is none of the two");
    h.deliver(&message("b"));
    assert!(!h.pipeline.has_room(), "what is taken now is lost");
    h.done("a");
    h.fail("b");
    assert!(!h.pipeline.has_room());
    h.confirm(Ok(()));
    assert!(h.pipeline.has_reached_its_count() && h.pipeline.is_drained() && !h.pipeline.has_room());
    assert_eq!(h.tally().lost, 0);
}
