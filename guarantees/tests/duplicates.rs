//! What goes wrong with duplicates: forgotten too early, remembered too early, or taken for another's.

mod support;

use std::collections::BTreeMap;

use correio_guarantees::{Admission, DuplicateDetector, HandledId};
use correio_message::{MessageId, ShortText};
use proptest::{collection::vec, prelude::*};
use support::{at, cases, ticks};

fn handled_id(subscription: &str, origin: Option<&str>, id: &str) -> HandledId {
    HandledId {
        subscription: subscription.into(),
        origin: origin.map(|origin| ShortText::new(origin).unwrap()),
        id: MessageId::new(id).unwrap(),
    }
}

fn order(id: &str) -> HandledId {
    handled_id("orders", Some("shop"), id)
}

#[test]
fn a_message_is_fresh_once_then_in_flight_then_handled() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    assert_eq!(detector.admit(order("1"), at(0)), Admission::Fresh);
    assert_eq!(detector.admit(order("1"), at(1)), Admission::InFlight);
    detector.on_handled(&order("1"), at(2));
    assert_eq!(detector.admit(order("1"), at(3)), Admission::AlreadyHandled);
}

#[test]
fn a_message_whose_handler_failed_is_fresh_when_it_comes_back() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    assert_eq!(detector.admit(order("1"), at(0)), Admission::Fresh);
    detector.on_abandoned(&order("1"));
    assert_eq!(detector.admit(order("1"), at(1)), Admission::Fresh);
}

#[test]
fn what_was_handled_is_not_abandoned_by_a_late_failure() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    detector.on_handled(&order("1"), at(0));
    detector.on_abandoned(&order("1"));
    assert_eq!(detector.admit(order("1"), at(1)), Admission::AlreadyHandled);
}

#[test]
fn two_groups_and_two_origins_with_the_same_ids_do_not_share_their_memory() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    detector.on_handled(&handled_id("orders", Some("shop"), "1"), at(0));
    for other in [
        handled_id("audit", Some("shop"), "1"),
        handled_id("orders", Some("depot"), "1"),
        handled_id("orders", None, "1"),
    ] {
        assert_eq!(detector.admit(other, at(1)), Admission::Fresh);
    }
}

#[test]
fn an_id_is_remembered_to_the_end_of_its_retention_and_not_longer() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    detector.on_handled(&order("1"), at(5));
    assert_eq!(detector.next_deadline(), Some(at(105)));
    assert_eq!(detector.admit(order("1"), at(104)), Admission::AlreadyHandled);
    assert_eq!(detector.admit(order("1"), at(105)), Admission::Fresh);
    assert_eq!(detector.evicted_early(), 0);
}

#[test]
fn without_room_the_oldest_is_forgotten_and_that_is_counted() {
    let mut detector = DuplicateDetector::new(2, ticks(100));
    ["1", "2", "3"].into_iter().for_each(|id| detector.on_handled(&order(id), at(0)));
    assert_eq!((detector.remembered(), detector.evicted_early()), (2, 1));
    assert_eq!(detector.admit(order("1"), at(1)), Admission::Fresh);
    assert_eq!(detector.admit(order("2"), at(1)), Admission::AlreadyHandled);
}

#[derive(Clone, Debug)]
enum Op {
    Admit(usize),
    Handled(usize),
    Abandoned(usize),
    Tick(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0usize..IDS).prop_map(Op::Admit),
        3 => (0usize..IDS).prop_map(Op::Handled),
        1 => (0usize..IDS).prop_map(Op::Abandoned),
        2 => (0u64..6).prop_map(Op::Tick),
    ]
}

/// 2 subscriptions × 2 origins × 2 ids.
const IDS: usize = 8;
const RETENTION: u64 = 12;

fn nth(n: usize) -> HandledId {
    handled_id(["orders", "audit"][n % 2], [None, Some("shop")][n / 2 % 2], ["1", "2"][n / 4])
}

#[derive(Clone, Copy, PartialEq)]
enum Known {
    InFlight,
    /// When, and as the how-manieth.
    Handled(u64, usize),
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn it_answers_as_a_map_would_that_forgets_the_oldest(capacity in 0usize..6, history in vec(op(), 1..60)) {
        let mut detector = DuplicateDetector::new(capacity, ticks(RETENTION));
        let mut known: BTreeMap<usize, Known> = BTreeMap::new();
        let (mut now, mut evicted_early) = (0, 0);
        for (step, op) in history.into_iter().enumerate() {
            match op {
                Op::Admit(id) => {
                    let expected = match known.get(&id) {
                        None => Admission::Fresh,
                        Some(Known::InFlight) => Admission::InFlight,
                        Some(Known::Handled(..)) => Admission::AlreadyHandled,
                    };
                    prop_assert_eq!(detector.admit(nth(id), at(now)), expected);
                    known.entry(id).or_insert(Known::InFlight);
                }
                Op::Handled(id) => {
                    detector.on_handled(&nth(id), at(now));
                    if !matches!(known.get(&id), Some(Known::Handled(..))) {
                        known.insert(id, Known::Handled(now, step));
                    }
                    if handled(&known).len() > capacity {
                        let (_, oldest) = handled(&known)[0];
                        known.remove(&oldest);
                        evicted_early += 1;
                    }
                }
                Op::Abandoned(id) => {
                    detector.on_abandoned(&nth(id));
                    if known.get(&id) == Some(&Known::InFlight) {
                        known.remove(&id);
                    }
                }
                Op::Tick(n) => {
                    now += n;
                    detector.on_deadline(at(now));
                    known.retain(|_, known| !matches!(known, Known::Handled(then, _) if *then + RETENTION <= now));
                }
            }
            prop_assert_eq!(detector.remembered(), handled(&known).len());
            prop_assert_eq!(detector.in_flight(), known.len() - handled(&known).len());
            prop_assert_eq!(detector.evicted_early(), evicted_early);
            let oldest = known.values().filter_map(|known| if let Known::Handled(then, _) = known { Some(*then) } else { None });
            prop_assert_eq!(detector.next_deadline(), oldest.min().map(|then| at(then + RETENTION)));
        }
    }
}

/// What is handled, oldest first.
fn handled(known: &BTreeMap<usize, Known>) -> Vec<(usize, usize)> {
    let handled = known
        .iter()
        .filter_map(|(id, known)| if let Known::Handled(_, step) = known { Some((*step, *id)) } else { None });
    let mut handled: Vec<_> = handled.collect();
    handled.sort_unstable();
    handled
}
