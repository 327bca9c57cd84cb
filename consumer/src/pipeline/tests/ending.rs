//! A lost channel, and a stop, lose nothing and acknowledge nothing that is not done.

use super::*;

#[test]
fn what_is_finished_after_its_channel_is_lost_is_remembered_and_acknowledges_nothing_on_the_next_one() {
    let mut h = History::of(independent(2, 5));
    for id in ["a", "b", "c"] {
        h.deliver(&message(id));
    }
    h.lose_channel();
    assert!(!h.pipeline.may_subscribe());
    h.done("a");
    h.fail("b");
    assert!(h.running().is_empty(), "c was begun although it comes again");
    h.subscribe();
    let tags = ["x", "a", "b", "c"].map(|id| h.deliver(&message(id)));
    assert_eq!(h.running(), ["x", "b"]);
    assert_eq!(h.acknowledged, BTreeSet::from([tags[1]]), "the duplicate alone is acknowledged");
    assert_eq!((h.tally().handled, h.tally().duplicates, h.tally().lost_acks), (1, 1, 1));
}

#[test]
fn after_a_lost_channel_order_goes_on_with_what_was_not_handled() {
    let mut h = History::of(ordered(4, 16));
    for n in 1..=3 {
        h.deliver(&numbered(&format!("a{n}"), "a", n));
    }
    h.done("a1");
    h.lose_channel();
    h.done("a2");
    h.subscribe();
    h.deliver(&numbered("a2", "a", 2));
    h.deliver(&numbered("a3", "a", 3));
    assert_eq!(h.running(), ["a3"]);
    assert_eq!((h.tally().gaps, h.tally().out_of_order, h.tally().duplicates), (0, 0, 1));
}

#[test]
fn a_claim_whose_admission_comes_after_the_channel_was_lost_is_given_up() {
    let mut h = History::of(independent(2, 5));
    h.log_works = false;
    h.deliver(&message("a"));
    h.lose_channel();
    h.log_works = true;
    h.pass(SECOND);
    assert!(h.running().is_empty());
    h.subscribe();
    h.deliver(&message("a"));
    assert_eq!(h.running(), ["a"]);
}

#[test]
fn stopping_finishes_what_was_begun_and_gives_the_rest_back() {
    let mut h = History::of(independent(1, 5));
    let tags = ["a", "b"].map(|id| h.deliver(&message(id)));
    h.pipeline.on_stopping();
    h.go_on();
    let late = h.deliver(&message("late"));
    assert_eq!(h.given_back, [tags[1], late]);
    assert!(!h.pipeline.is_drained());
    h.done("a");
    assert!(h.pipeline.is_drained());
    assert_eq!(h.acknowledged, BTreeSet::from([tags[0]]));
    assert_eq!((h.tally().not_started, h.tally().handed_back), (2, 0));
}

#[test]
fn stopping_an_ordered_consumer_gives_nothing_back_one_by_one() {
    let mut h = History::of(ordered(1, 16));
    for n in 1..=3 {
        h.deliver(&numbered(&format!("a{n}"), "a", n));
    }
    h.pipeline.on_stopping();
    h.go_on();
    h.done("a1");
    assert!(h.pipeline.is_drained() && h.running().is_empty());
    h.pipeline.on_drain_over(h.now.at);
    h.go_on();
    assert!(h.given_back.is_empty());
    assert_eq!((h.acknowledged.len(), h.tally().not_started), (1, 2));
}

#[test]
fn no_more_messages_are_begun_than_the_count_asked_for() {
    let stop_after_count = NonZeroU64::new(2);
    let mut h = History::with(Rules { stop_after_count, ..rules(independent(4, 5)) });
    for id in ["a", "b", "c"] {
        h.deliver(&message(id));
    }
    assert_eq!(h.running(), ["a", "b"]);
    h.done("a");
    h.fail("b");
    h.confirm(Ok(()));
    assert_eq!(h.running(), ["c"], "a retry sent round makes room");
    h.done("c");
    assert!(h.pipeline.has_reached_its_count());
}
