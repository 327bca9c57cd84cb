//! What goes wrong with order: a message before its turn, a gap that is waited for without end, one that is skipped
//! in silence, and a lost channel in the middle of it.

mod model;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeSet, num::NonZeroU64, sync::Arc};

use correio_guarantees::{Gap, GapCause, GapPolicy, Place, Resequencer, ResequencerLimits, Step};
use correio_message::{Key, Line, Sequence, Voids};
use model::{Run, op};
use proptest::{collection::vec, prelude::*};
use support::{at, cases, ticks};
use uuid::Uuid;

const LIMITS: ResequencerLimits = ResequencerLimits {
    parked: 8,
    parked_bytes: 10_000,
    gap_deadline: ticks(20),
    first_contact_deadline: ticks(5),
    lines: 10,
};

fn line(key: &str) -> Line {
    Line { source: Uuid::from_u128(7), stream: Arc::from("correio.queue/flights"), key: Key::new(key).unwrap() }
}

fn number(n: u64) -> NonZeroU64 {
    NonZeroU64::new(n).unwrap()
}

fn sequence(key: &str, n: u64, voids: &[u64]) -> Sequence {
    Sequence { line: line(key), number: number(n), voids: Voids::new(voids.iter().copied().map(number)) }
}

fn subscribed(policy: GapPolicy) -> Resequencer<u64> {
    let mut resequencer = Resequencer::new(LIMITS, policy);
    resequencer.on_subscribed(at(0));
    resequencer
}

/// Delivers these numbers of key `k` at this time; each is its own token.
fn deliver(resequencer: &mut Resequencer<u64>, numbers: impl IntoIterator<Item = u64>, now: u64) {
    for n in numbers {
        resequencer.on_delivery(Some(&sequence("k", n, &[])), n, 1, at(now));
    }
}

/// What was released: in order, and late.
fn released(resequencer: &mut Resequencer<u64>) -> (Vec<u64>, Vec<u64>) {
    let mut released = (Vec::new(), Vec::new());
    for step in resequencer.take_steps() {
        match step {
            Step::Release { item, place: Place::InOrder | Place::Unordered } => released.0.push(item),
            Step::Release { item, place: Place::Late } => released.1.push(item),
            Step::DeadLetter { item, reason } => panic!("{item}: {reason}"),
        }
    }
    released
}

fn gap(first: u64, last: u64, waited: u64, cause: GapCause) -> Gap {
    Gap { line: line("k"), missing: vec![first..=last], waited: ticks(waited), cause }
}

#[test]
fn what_arrives_before_its_turn_waits_for_those_before_it() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1, 3, 4], 0);
    assert_eq!((released(&mut resequencer).0, resequencer.parked()), (vec![1], 2));
    deliver(&mut resequencer, [2], 1);
    assert_eq!((released(&mut resequencer).0, resequencer.parked()), (vec![2, 3, 4], 0));
    assert_eq!((resequencer.take_gaps(), resequencer.next_deadline()), (vec![], None));
}

#[test]
fn a_message_without_a_sequence_waits_for_nobody() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    resequencer.on_delivery(None, 1, 1, at(0));
    assert_eq!(resequencer.take_steps(), [Step::Release { item: 1, place: Place::Unordered }]);
}

#[test]
fn a_gap_is_given_up_at_its_deadline_and_reported_and_what_then_comes_is_late() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1, 4], 3);
    released(&mut resequencer);
    assert_eq!(resequencer.next_deadline(), Some(at(23)));
    resequencer.on_deadline(at(22));
    assert_eq!(resequencer.take_steps(), []);
    resequencer.on_deadline(at(23));
    assert_eq!(released(&mut resequencer).0, [4]);
    assert_eq!(resequencer.take_gaps(), [gap(2, 3, 20, GapCause::Deadline)]);
    deliver(&mut resequencer, [3], 24);
    assert_eq!(released(&mut resequencer).1, [3]);
}

#[test]
fn no_message_waits_longer_than_one_gap_deadline_whatever_is_missing() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1, 8], 0);
    deliver(&mut resequencer, [5], 10);
    resequencer.on_deadline(at(20));
    assert_eq!(released(&mut resequencer).0, [1, 5, 8]);
    let gaps = [gap(2, 4, 20, GapCause::Deadline), gap(6, 7, 20, GapCause::Deadline)];
    assert_eq!(resequencer.take_gaps(), gaps);
}

#[test]
fn behind_a_gap_messages_can_be_dead_lettered_instead_and_then_it_goes_on() {
    let mut resequencer = subscribed(GapPolicy::DeadLetter);
    deliver(&mut resequencer, [1, 3, 4, 6], 0);
    deliver(&mut resequencer, [], 0);
    resequencer.take_steps();
    resequencer.on_deadline(at(20));
    let dead: Vec<_> = resequencer
        .take_steps()
        .into_iter()
        .map(|step| match step {
            Step::DeadLetter { item, reason } if reason.contains("did not come within 20ms") => item,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(dead, [3, 4, 6]);
    deliver(&mut resequencer, [7], 21);
    assert_eq!(released(&mut resequencer).0, [7]);
}

#[test]
fn a_dead_letter_that_could_not_be_settled_is_a_dead_letter_again() {
    let mut resequencer = subscribed(GapPolicy::DeadLetter);
    deliver(&mut resequencer, [1, 3], 0);
    resequencer.on_settled(&line("k"), number(1));
    resequencer.on_deadline(at(20));
    resequencer.take_steps();
    resequencer.on_channel_lost();
    resequencer.on_subscribed(at(30));
    deliver(&mut resequencer, [3, 4], 31);
    let steps = resequencer.take_steps();
    assert!(matches!(&steps[..], [Step::DeadLetter { item: 3, .. }, Step::Release { item: 4, .. }]), "{steps:?}");
}

#[test]
fn a_line_met_in_its_middle_starts_at_the_lowest_that_came_within_a_short_time() {
    let mut resequencer = subscribed(GapPolicy::DeadLetter);
    deliver(&mut resequencer, [9], 0);
    deliver(&mut resequencer, [8], 3);
    assert_eq!(resequencer.next_deadline(), Some(at(5)));
    resequencer.on_deadline(at(5));
    assert_eq!(released(&mut resequencer).0, [8, 9]);
    assert_eq!(resequencer.take_gaps(), [gap(1, 7, 5, GapCause::FirstContact)]);
}

#[test]
fn a_declared_hole_is_waited_for_by_nobody_and_is_no_gap() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1], 0);
    resequencer.on_delivery(Some(&sequence("k", 4, &[2, 3])), 4, 1, at(0));
    assert_eq!((released(&mut resequencer).0, resequencer.take_gaps()), (vec![1, 4], vec![]));
    let mut first_contact = subscribed(GapPolicy::Skip);
    first_contact.on_delivery(Some(&sequence("k", 4, &[1, 2, 3])), 4, 1, at(0));
    assert_eq!((released(&mut first_contact).0, first_contact.take_gaps()), (vec![4], vec![]));
}

#[test]
fn a_declared_hole_that_is_delivered_after_all_is_late_and_not_dropped() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1], 0);
    resequencer.on_delivery(Some(&sequence("k", 3, &[2])), 3, 1, at(0));
    deliver(&mut resequencer, [2], 1);
    assert_eq!(released(&mut resequencer), (vec![1, 3], vec![2]));
}

#[test]
fn an_unreadable_message_leaves_no_gap() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1, 3], 0);
    resequencer.on_unreadable(&sequence("k", 2, &[]), at(0));
    assert_eq!((released(&mut resequencer).0, resequencer.take_gaps()), (vec![1, 3], vec![]));
}

#[test]
fn a_copy_of_a_parked_message_is_released_at_once_as_late() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1, 3, 3], 0);
    assert_eq!(released(&mut resequencer), (vec![1], vec![3]));
    deliver(&mut resequencer, [2], 0);
    assert_eq!(released(&mut resequencer), (vec![2, 3], vec![]));
}

#[test]
fn one_key_holds_at_most_half_of_what_may_be_parked() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1, 3, 5, 6, 7], 0);
    assert_eq!((resequencer.parked(), resequencer.take_gaps()), (4, vec![]));
    deliver(&mut resequencer, [8], 1);
    assert_eq!(released(&mut resequencer).0, [1, 3]);
    assert_eq!(resequencer.take_gaps(), [gap(2, 2, 1, GapCause::Room)]);
    assert_eq!(resequencer.parked(), 4);
}

#[test]
fn when_all_room_is_gone_the_gap_that_ends_first_is_given_up() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    for (nth, key) in ["a", "b", "c", "d", "e", "f", "g", "h", "i"].into_iter().enumerate() {
        let now = nth as u64;
        resequencer.on_delivery(Some(&sequence(key, 1, &[])), 0, 1, at(now));
        resequencer.on_delivery(Some(&sequence(key, 3, &[])), now, 1, at(now));
    }
    let gaps = resequencer.take_gaps();
    assert_eq!((resequencer.parked(), gaps.len(), &gaps[0].line), (8, 1, &line("a")));
}

#[test]
fn after_a_lost_channel_what_was_released_and_not_settled_takes_its_turn_again() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1, 2, 3, 5], 0);
    resequencer.on_settled(&line("k"), number(2));
    resequencer.take_steps();
    resequencer.on_channel_lost();
    assert_eq!((resequencer.parked(), resequencer.next_deadline()), (0, None));
    resequencer.on_subscribed(at(50));
    deliver(&mut resequencer, [5, 4, 3, 1], 50);
    assert_eq!(released(&mut resequencer), (vec![1, 3, 4, 5], vec![]));
    assert_eq!(resequencer.take_gaps(), []);
}

#[test]
fn what_was_not_taken_before_the_channel_was_lost_is_not_given_out_after_it() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1], 0);
    resequencer.on_delivery(None, 2, 1, at(0));
    resequencer.on_channel_lost();
    assert_eq!(resequencer.take_steps(), []);
    resequencer.on_subscribed(at(1));
    deliver(&mut resequencer, [1], 1);
    assert_eq!(released(&mut resequencer).0, [1]);
}

#[test]
fn a_handler_that_ends_after_its_channel_fills_its_number() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    deliver(&mut resequencer, [1, 2], 0);
    resequencer.take_steps();
    resequencer.on_channel_lost();
    resequencer.on_settled(&line("k"), number(1));
    resequencer.on_subscribed(at(1));
    deliver(&mut resequencer, [2, 1], 2);
    assert_eq!(released(&mut resequencer), (vec![2], vec![1]));
}

#[test]
fn time_runs_only_while_subscribed() {
    let mut resequencer = Resequencer::new(LIMITS, GapPolicy::Skip);
    deliver(&mut resequencer, [1, 3], 0);
    resequencer.on_deadline(at(1_000));
    assert_eq!((resequencer.parked(), resequencer.next_deadline()), (1, None));
    resequencer.on_subscribed(at(2_000));
    assert_eq!(resequencer.next_deadline(), Some(at(2_020)));
}

#[test]
fn only_so_many_idle_lines_are_remembered_and_none_that_is_in_use() {
    let mut resequencer = subscribed(GapPolicy::Skip);
    resequencer.on_delivery(Some(&sequence("used", 1, &[])), 0, 1, at(0));
    for key in 0..1_000 {
        let key = key.to_string();
        resequencer.on_delivery(Some(&sequence(&key, 1, &[])), 1, 1, at(0));
        resequencer.on_unreadable(&sequence(&format!("{key} unread"), 5, &[]), at(0));
        resequencer.on_settled(&line(&key), number(1));
    }
    assert_eq!(resequencer.lines(), LIMITS.lines + 1);
    resequencer.take_steps();
    resequencer.on_delivery(Some(&sequence("used", 2, &[])), 2, 1, at(0));
    assert_eq!(released(&mut resequencer).0, [2]);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_arrival_of_a_whole_line_is_released_in_the_order_sent(order in Just((1..=30).collect::<Vec<u64>>()).prop_shuffle()) {
        let limits = ResequencerLimits { parked: 60, ..LIMITS };
        let mut resequencer = Resequencer::new(limits, GapPolicy::DeadLetter);
        resequencer.on_subscribed(at(0));
        deliver(&mut resequencer, order, 0);
        prop_assert_eq!(released(&mut resequencer), ((1..=30).collect(), vec![]));
        prop_assert_eq!((resequencer.parked(), resequencer.parked_bytes(), resequencer.take_gaps()), (0, 0, vec![]));
    }

    #[test]
    fn whatever_arrives_nothing_vanishes_nothing_overtakes_and_every_gap_is_reported(
        dead_letter in any::<bool>(),
        history in vec(op(), 1..60),
    ) {
        let mut run = Run::new(if dead_letter { GapPolicy::DeadLetter } else { GapPolicy::Skip });
        for op in history {
            run.step(op);
        }
    }

    /// The broker as it is: it keeps the order, holds back what is not settled and delivers it again, in order.
    #[test]
    fn lost_channels_and_redeliveries_skip_nothing_and_repeat_only_what_was_not_settled(
        losses in vec((1usize..25, vec(any::<bool>(), 40)), 1..5),
    ) {
        let mut resequencer = Resequencer::new(LIMITS, GapPolicy::Skip);
        let mut settled = BTreeSet::new();
        let mut now = 0;
        for (deliveries, settling) in losses {
            now += 100;
            resequencer.on_subscribed(at(now));
            let queue = (1..=40).filter(|n| !settled.contains(n)).take(deliveries);
            deliver(&mut resequencer, queue.clone().collect::<Vec<_>>(), now);
            resequencer.on_deadline(at(now + 99));
            prop_assert_eq!(released(&mut resequencer), (queue.clone().collect(), vec![]));
            for n in queue.collect::<Vec<_>>().into_iter().filter(|n| settling[*n as usize - 1]) {
                resequencer.on_settled(&line("k"), number(n));
                settled.insert(n);
            }
            resequencer.on_channel_lost();
        }
        prop_assert_eq!(resequencer.take_gaps(), []);
    }
}
