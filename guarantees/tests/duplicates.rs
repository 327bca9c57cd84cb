//! What goes wrong with duplicates: forgotten too early, remembered too early, or taken for another's.

mod support;

use std::collections::BTreeMap;

use correio_guarantees::{Admission, Claim, DuplicateDetector, Fence, HandledId, Standing};
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

/// The first claim on an order.
fn order(id: &str) -> Claim {
    claim(handled_id("orders", Some("shop"), id), 1)
}

fn claim(id: HandledId, fence: u64) -> Claim {
    Claim { id, fence: Fence(fence) }
}

/// As long as the model's retention, so that leases end in its histories.
const LEASE: u64 = 12;

fn ask(detector: &mut DuplicateDetector, id: &str, fence: u64, now: u64) -> Admission {
    detector.admit(Claim { fence: Fence(fence), ..order(id) }, ticks(LEASE), at(now))
}

fn handled_now(detector: &mut DuplicateDetector, claim: &Claim, now: u64) {
    assert_eq!(detector.on_handled(claim, at(now)), Standing::Stood);
}

#[test]
fn a_message_is_fresh_once_then_in_flight_then_handled() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    assert_eq!(ask(&mut detector, "1", 1, 0), Admission::Fresh);
    assert_eq!(ask(&mut detector, "1", 2, 1), Admission::InFlight);
    handled_now(&mut detector, &order("1"), 2);
    assert_eq!(ask(&mut detector, "1", 2, 3), Admission::AlreadyHandled);
}

#[test]
fn a_message_whose_handler_failed_is_fresh_when_it_comes_back() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    assert_eq!(ask(&mut detector, "1", 1, 0), Admission::Fresh);
    detector.on_abandoned(&order("1"));
    assert_eq!(ask(&mut detector, "1", 2, 1), Admission::Fresh);
}

#[test]
fn what_was_handled_is_not_abandoned_by_a_late_failure() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    handled_now(&mut detector, &order("1"), 0);
    detector.on_abandoned(&order("1"));
    assert_eq!(ask(&mut detector, "1", 2, 1), Admission::AlreadyHandled);
}

#[test]
fn a_claim_made_again_because_its_answer_was_lost_is_the_same_claim() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    assert_eq!(ask(&mut detector, "1", 1, 0), Admission::Fresh);
    assert_eq!(ask(&mut detector, "1", 1, 1), Admission::Fresh);
    handled_now(&mut detector, &order("1"), 2);
    handled_now(&mut detector, &order("1"), 3);
    assert_eq!(detector.remembered(), 1);
}

#[test]
fn a_claim_whose_owner_is_silent_past_its_lease_is_taken_over_and_what_it_says_late_counts_for_nothing() {
    let mut detector = DuplicateDetector::new(10, ticks(1_000));
    assert_eq!(ask(&mut detector, "1", 1, 0), Admission::Fresh);
    assert_eq!(ask(&mut detector, "1", 2, LEASE - 1), Admission::InFlight);
    assert_eq!(ask(&mut detector, "1", 2, LEASE), Admission::Fresh);
    // The first one wakes up.
    detector.on_abandoned(&order("1"));
    assert_eq!(ask(&mut detector, "1", 3, LEASE + 1), Admission::InFlight, "its failure frees nothing");
    assert_eq!(detector.on_handled(&order("1"), at(LEASE + 1)), Standing::TakenOver);
    assert_eq!(detector.remembered(), 0, "its success is not the new owner's");
    let second = Claim { fence: Fence(2), ..order("1") };
    handled_now(&mut detector, &second, LEASE + 2);
    assert_eq!(detector.on_handled(&order("1"), at(LEASE + 3)), Standing::TakenOver);
}

#[test]
fn work_that_is_done_past_its_lease_is_remembered_when_nobody_took_it_over() {
    let mut detector = DuplicateDetector::new(10, ticks(1_000));
    assert_eq!(ask(&mut detector, "1", 1, 0), Admission::Fresh);
    handled_now(&mut detector, &order("1"), 5 * LEASE);
    assert_eq!(ask(&mut detector, "1", 2, 5 * LEASE), Admission::AlreadyHandled);
}

#[test]
fn two_groups_and_two_origins_with_the_same_ids_do_not_share_their_memory() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    handled_now(&mut detector, &order("1"), 0);
    for other in [
        handled_id("audit", Some("shop"), "1"),
        handled_id("orders", Some("depot"), "1"),
        handled_id("orders", None, "1"),
    ] {
        assert_eq!(detector.admit(claim(other, 2), ticks(LEASE), at(1)), Admission::Fresh);
    }
}

#[test]
fn an_id_is_remembered_to_the_end_of_its_retention_and_not_longer() {
    let mut detector = DuplicateDetector::new(10, ticks(100));
    handled_now(&mut detector, &order("1"), 5);
    assert_eq!(detector.next_deadline(), Some(at(105)));
    assert_eq!(ask(&mut detector, "1", 2, 104), Admission::AlreadyHandled);
    assert_eq!(ask(&mut detector, "1", 2, 105), Admission::Fresh);
    assert_eq!(detector.evicted_early(), 0);
}

#[test]
fn without_room_the_oldest_is_forgotten_and_that_is_counted() {
    let mut detector = DuplicateDetector::new(2, ticks(100));
    ["1", "2", "3"].into_iter().for_each(|id| handled_now(&mut detector, &order(id), 0));
    assert_eq!((detector.remembered(), detector.evicted_early()), (2, 1));
    assert_eq!(ask(&mut detector, "1", 2, 1), Admission::Fresh);
    assert_eq!(ask(&mut detector, "2", 2, 1), Admission::AlreadyHandled);
}

#[derive(Clone, Debug)]
enum Op {
    Admit(usize, u64),
    Handled(usize, u64),
    Abandoned(usize, u64),
    Tick(u64),
}

fn op() -> impl Strategy<Value = Op> {
    // Three who claim, so that they meet.
    let fence = || 0u64..3;
    prop_oneof![
        4 => (0usize..IDS, fence()).prop_map(|(id, fence)| Op::Admit(id, fence)),
        3 => (0usize..IDS, fence()).prop_map(|(id, fence)| Op::Handled(id, fence)),
        1 => (0usize..IDS, fence()).prop_map(|(id, fence)| Op::Abandoned(id, fence)),
        2 => (0u64..6).prop_map(Op::Tick),
    ]
}

/// 2 subscriptions × 2 origins × 2 ids.
const IDS: usize = 8;
const RETENTION: u64 = 12;

fn nth(n: usize, fence: u64) -> Claim {
    claim(handled_id(["orders", "audit"][n % 2], [None, Some("shop")][n / 2 % 2], ["1", "2"][n / 4]), fence)
}

#[derive(Clone, Copy, PartialEq)]
enum Known {
    /// By whom, and until when.
    InFlight(u64, u64),
    /// When, as the how-manieth, and by whom.
    Handled(u64, usize, u64),
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
                Op::Admit(id, fence) => {
                    let expected = match known.get(&id) {
                        Some(Known::Handled(..)) => Admission::AlreadyHandled,
                        Some(Known::InFlight(by, until)) if *by != fence && now < *until => Admission::InFlight,
                        _ => Admission::Fresh,
                    };
                    prop_assert_eq!(detector.admit(nth(id, fence), ticks(LEASE), at(now)), expected);
                    if expected == Admission::Fresh {
                        known.insert(id, Known::InFlight(fence, now + LEASE));
                    }
                }
                Op::Handled(id, fence) => {
                    let others = match known.get(&id) {
                        Some(Known::InFlight(by, _) | Known::Handled(_, _, by)) => *by != fence,
                        None => false,
                    };
                    let expected = if others { Standing::TakenOver } else { Standing::Stood };
                    prop_assert_eq!(detector.on_handled(&nth(id, fence), at(now)), expected);
                    if !others && !matches!(known.get(&id), Some(Known::Handled(..))) {
                        known.insert(id, Known::Handled(now, step, fence));
                    }
                    if handled(&known).len() > capacity {
                        let (_, oldest) = handled(&known)[0];
                        known.remove(&oldest);
                        evicted_early += 1;
                    }
                }
                Op::Abandoned(id, fence) => {
                    detector.on_abandoned(&nth(id, fence));
                    if matches!(known.get(&id), Some(Known::InFlight(by, _)) if *by == fence) {
                        known.remove(&id);
                    }
                }
                Op::Tick(n) => {
                    now += n;
                    detector.on_deadline(at(now));
                    known.retain(|_, known| !matches!(known, Known::Handled(then, ..) if *then + RETENTION <= now));
                }
            }
            prop_assert_eq!(detector.remembered(), handled(&known).len());
            prop_assert_eq!(detector.in_flight(), known.len() - handled(&known).len());
            prop_assert_eq!(detector.evicted_early(), evicted_early);
            let oldest = known.values().filter_map(|known| if let Known::Handled(then, ..) = known { Some(*then) } else { None });
            prop_assert_eq!(detector.next_deadline(), oldest.min().map(|then| at(then + RETENTION)));
        }
    }
}

/// What is handled, oldest first.
fn handled(known: &BTreeMap<usize, Known>) -> Vec<(usize, usize)> {
    let handled = known
        .iter()
        .filter_map(|(id, known)| if let Known::Handled(_, step, _) = known { Some((*step, *id)) } else { None });
    let mut handled: Vec<_> = handled.collect();
    handled.sort_unstable();
    handled
}
