//! What came back too often is handled alone, and parked when it goes on coming back.

use correio_guarantees::Room;
use correio_message::{DeadLetter, DeadReason, Value, given_back, header};

use super::*;

/// A message as the broker delivers it after so many returns.
fn returned(message: &Message, returns: i64) -> Envelope {
    let mut envelope = message.encode(Durability::Persistent);
    envelope.properties.headers.insert(ShortText::new("x-delivery-count").unwrap(), Value::I64(returns));
    envelope
}

impl History {
    fn deliver_again(&mut self, message: &Message, returns: i64) -> u64 {
        self.tag += 1;
        self.delivered.insert(self.tag);
        let delivery = Delivery { tag: self.tag, redelivered: returns > 0, envelope: returned(message, returns) };
        self.pipeline.on_delivery(delivery, self.now);
        self.go_on();
        self.tag
    }

    fn resubscribe(&mut self, room: Room) {
        assert_eq!(self.pipeline.resubscription(), Some(room));
        self.pipeline.on_resubscribed(room);
        self.go_on();
    }
}

#[test]
fn a_new_subscription_asks_for_one_and_after_an_innocent_message_for_all() {
    let mut history = History::of(independent(4, 1));
    assert_eq!(history.pipeline.prefetch(), 1);
    history.deliver_again(&message("a"), 1);
    assert_eq!((history.running(), history.pipeline.prefetch()), (vec!["a".to_owned()], 16));
    history.resubscribe(Room::Full);
    assert_eq!(history.pipeline.resubscription(), None);
}

#[test]
fn a_suspect_begins_when_nothing_else_is_held_and_nothing_begins_beside_it() {
    let mut history = History::of(independent(4, 1));
    history.deliver(&message("a"));
    history.resubscribe(Room::Full);
    history.deliver_again(&message("s"), 2);
    assert_eq!((history.running(), history.pipeline.has_room()), (vec!["a".to_owned()], false));
    history.deliver_again(&message("t"), 2);
    history.resubscribe(Room::One);
    let copy = history.confirm(Ok(()));
    assert_eq!(copy.properties.headers.get(header::RETURNS), Some(&Value::I64(2)), "a second suspect goes back");
    history.done("a");
    assert_eq!((history.running(), history.pipeline.has_room()), (vec!["s".to_owned()], false));
    assert_eq!(history.tally().suspected, 1);
    history.done("s");
    assert!(history.pipeline.has_room());
    assert_eq!(history.acknowledged, BTreeSet::from([1, 2, 3]));
    assert!(history.given_back.is_empty());
    history.deliver(&message("b"));
    history.resubscribe(Room::Full);
}

#[test]
fn what_was_given_back_is_judged_by_what_it_carries_and_by_what_has_come_since() {
    for (returns, redelivered, is_killer) in [(0, false, false), (1, false, false), (0, true, false), (1, true, true)] {
        let mut history = History::of(independent(4, 1));
        let mut envelope = given_back(&returned(&message("s"), returns), ShortText::new("q").unwrap(), 4);
        envelope.properties.headers.extend(returned(&message("s"), returns).properties.headers);
        history.tag += 1;
        history.delivered.insert(history.tag);
        let delivery = Delivery { tag: history.tag, redelivered, envelope };
        history.pipeline.on_delivery(delivery, history.now);
        history.go_on();
        assert_eq!(history.publishing.len(), usize::from(is_killer));
        assert_eq!((history.running().len(), history.tally().suspected), if is_killer { (0, 0) } else { (1, 1) });
    }
}

#[test]
fn a_suspect_that_has_no_queue_to_go_back_to_as_a_copy_goes_back_itself() {
    let mut history = History::of(independent(4, 1));
    history.deliver(&message("a"));
    history.resubscribe(Room::Full);
    history.deliver_again(&message("s"), 2);
    let tag = history.deliver_again(&message("t"), 2);
    history.resubscribe(Room::One);
    history.confirm(Err("no queue"));
    assert_eq!(history.given_back, [tag]);
    history.done("a");
    assert_eq!(history.running(), ["s"]);
}

#[test]
fn what_is_to_be_parked_as_a_killer_and_was_handled_is_a_duplicate() {
    for processing in [independent(4, 1), ordered(4, 8)] {
        let mut history = History::of(processing);
        history.deliver(&message("k"));
        history.done("k");
        history.log_works = false;
        let tag = history.deliver_again(&message("k"), 8);
        assert!(history.publishing.is_empty(), "judged before the log was asked");
        history.log_works = true;
        history.pass(SECOND);
        assert!(history.publishing.is_empty());
        assert!(history.acknowledged.contains(&tag));
        assert_eq!((history.tally().duplicates, history.tally().dead), (1, 0));
    }
}

#[test]
fn what_came_back_as_a_suspect_again_and_again_is_parked_untouched_without_being_handled() {
    for processing in [independent(4, 1), ordered(4, 8)] {
        let mut history = History::of(processing);
        let tag = history.deliver_again(&message("k"), 8);
        assert!(history.running().is_empty());
        let letter = history.confirm(Ok(()));
        let said = DeadLetter::of(&letter).unwrap();
        assert_eq!((said.reason, &letter.body[..]), (DeadReason::Killer, &b"k"[..]));
        assert!(said.error.contains("8 times"), "{}", said.error);
        assert_eq!(history.acknowledged, BTreeSet::from([tag]));
        history.deliver(&message("b"));
        assert_eq!(history.running(), ["b"]);
    }
}

#[test]
fn in_order_a_suspect_sends_everything_back_and_then_they_are_handed_out_one_by_one() {
    let mut history = History::of(ordered(4, 8));
    assert_eq!(history.pipeline.prefetch(), 24, "an ordinary start asks for all");
    history.deliver_again(&numbered("s", "s", 1), 2);
    history.deliver(&numbered("b", "b", 1));
    assert_eq!((history.closes, history.running()), (1, vec![]));
    history.lose_channel();
    history.subscribe();
    assert_eq!(history.pipeline.prefetch(), 1);
    history.deliver_again(&numbered("s", "s", 1), 3);
    assert_eq!((history.running(), history.pipeline.has_room()), (vec!["s".to_owned()], false));
    history.done("s");
    history.deliver_again(&numbered("b", "b", 1), 1);
    assert_eq!(history.pipeline.resubscription(), None, "what is held would be reordered");
    history.done("b");
    history.resubscribe(Room::Full);
    assert!(history.given_back.is_empty());
}

#[test]
fn a_count_that_the_publisher_wrote_accuses_nobody() {
    let mut history = History::of(independent(4, 1));
    history.deliver_envelope(returned(&message("a"), 1_000));
    assert_eq!(history.running(), ["a"]);
}

#[test]
fn what_this_process_survived_is_no_suspect_when_it_comes_again() {
    let mut history = History::of(independent(4, 1));
    history.deliver(&message("a"));
    for returns in 1..6 {
        history.lose_channel();
        history.end("a", Err(Failure::TimedOut { after: SECOND }));
        history.subscribe();
        history.deliver_again(&message("a"), returns);
        assert_eq!((history.running(), history.tally().suspected), (vec!["a".to_owned()], 0));
    }
}

#[test]
fn a_consumer_that_stops_gives_back_the_suspect_that_waits() {
    let mut history = History::of(independent(4, 1));
    history.deliver(&message("a"));
    let tag = history.deliver_again(&message("s"), 2);
    history.pipeline.on_stopping();
    history.go_on();
    assert_eq!(history.given_back, [tag]);
    history.done("a");
    assert!(history.pipeline.is_drained() && history.running().is_empty());
}
