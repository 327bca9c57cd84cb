//! What goes wrong with acknowledgements: one that covers a message which is not settled loses it.

mod support;

use std::collections::BTreeMap;

use correio_guarantees::{Ack, AckPlanner};
use proptest::{collection::vec, prelude::*};
use support::{at, cases, ticks};

fn delivered(planner: &mut AckPlanner, tags: impl IntoIterator<Item = u64>) {
    tags.into_iter().for_each(|tag| planner.on_delivered(tag));
}

#[test]
fn a_full_batch_is_acknowledged_at_once_and_in_one() {
    let mut planner = AckPlanner::new(3, ticks(10));
    delivered(&mut planner, 1..=4);
    for tag in 1..=2 {
        planner.on_settled(tag, at(0));
        assert_eq!(planner.take_acks(at(0)), []);
    }
    planner.on_settled(3, at(0));
    assert_eq!(planner.take_acks(at(0)), [Ack { tag: 3, multiple: true }]);
    assert_eq!((planner.next_deadline(), planner.unsettled()), (None, 1));
}

#[test]
fn what_does_not_fill_a_batch_is_acknowledged_when_the_linger_is_over() {
    let mut planner = AckPlanner::new(3, ticks(10));
    delivered(&mut planner, 1..=1);
    planner.on_settled(1, at(5));
    assert_eq!(planner.next_deadline(), Some(at(15)));
    assert_eq!(planner.take_acks(at(14)), []);
    assert_eq!(planner.take_acks(at(15)), [Ack { tag: 1, multiple: false }]);
}

#[test]
fn above_a_message_that_is_parked_or_retrying_acknowledgements_are_single() {
    let mut planner = AckPlanner::new(10, ticks(10));
    delivered(&mut planner, 1..=5);
    [1, 2, 4, 5].into_iter().for_each(|tag| planner.on_settled(tag, at(0)));
    let single = |tag| Ack { tag, multiple: false };
    assert_eq!(planner.flush(), [Ack { tag: 2, multiple: true }, single(4), single(5)]);
}

#[test]
fn what_is_settled_above_a_message_at_work_waits_for_it_and_is_then_covered_in_one() {
    let mut planner = AckPlanner::new(3, ticks(10));
    delivered(&mut planner, 1..=6);
    (2..=5).for_each(|tag| planner.on_settled(tag, at(0)));
    assert_eq!(planner.take_acks(at(9)), []);
    planner.on_settled(1, at(9));
    assert_eq!(planner.take_acks(at(9)), [Ack { tag: 5, multiple: true }]);
}

#[test]
fn a_batch_below_a_message_at_work_is_acknowledged_and_what_is_above_it_keeps_its_time() {
    let mut planner = AckPlanner::new(3, ticks(10));
    delivered(&mut planner, 1..=6);
    planner.on_settled(6, at(1));
    (1..=3).for_each(|tag| planner.on_settled(tag, at(4)));
    assert_eq!(planner.take_acks(at(4)), [Ack { tag: 3, multiple: true }]);
    assert_eq!((planner.take_acks(at(10)), planner.next_deadline()), (vec![], Some(at(11))));
    assert_eq!(planner.take_acks(at(11)), [Ack { tag: 6, multiple: false }]);
}

#[test]
fn what_comes_alone_is_acknowledged_at_once_and_a_stream_in_batches() {
    let mut planner = AckPlanner::new(3, ticks(10));
    delivered(&mut planner, 1..=4);
    planner.on_settled(1, at(0));
    assert_eq!(planner.take_acks_at_rest(at(0)), [Ack { tag: 1, multiple: false }]);
    planner.on_settled(2, at(1));
    assert_eq!(planner.take_acks_at_rest(at(9)), []);
    planner.on_settled(3, at(10));
    assert_eq!(planner.take_acks_at_rest(at(10)), [Ack { tag: 3, multiple: true }]);
    planner.on_settled(4, at(20));
    assert_eq!(planner.take_acks_at_rest(at(20)), [Ack { tag: 4, multiple: false }]);
}

#[test]
fn behind_one_slow_message_no_more_than_four_batches_wait() {
    let mut planner = AckPlanner::new(2, ticks(10));
    delivered(&mut planner, 1..=9);
    (2..=8).for_each(|tag| planner.on_settled(tag, at(0)));
    assert_eq!(planner.take_acks(at(0)), []);
    planner.on_settled(9, at(0));
    assert_eq!(planner.take_acks(at(0)).len(), 8);
}

#[test]
fn a_tag_that_was_passed_over_is_never_covered() {
    let mut planner = AckPlanner::new(10, ticks(10));
    delivered(&mut planner, [1, 2, 4, 5]);
    [1, 2, 4, 5].into_iter().for_each(|tag| planner.on_settled(tag, at(0)));
    let single = |tag| Ack { tag, multiple: false };
    assert_eq!(planner.flush(), [Ack { tag: 2, multiple: true }, single(4), single(5)]);
}

#[test]
fn what_was_settled_on_a_channel_that_is_gone_is_not_acknowledged_on_the_next() {
    let mut planner = AckPlanner::new(10, ticks(10));
    delivered(&mut planner, 1..=2);
    planner.on_settled(1, at(0));
    planner.on_channel_opened();
    assert_eq!((planner.flush(), planner.unsettled(), planner.next_deadline()), (vec![], 0, None));
    delivered(&mut planner, 1..=1);
    planner.on_settled(1, at(1));
    assert_eq!(planner.flush(), [Ack { tag: 1, multiple: false }]);
}

#[derive(Clone, Debug)]
enum Op {
    /// The next tag, after passing over so many.
    Deliver(u64),
    Settle(usize),
    GiveBack(usize),
    Tick(u64),
    Flush,
    OpenChannel,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => Just(Op::Deliver(0)),
        1 => (1u64..3).prop_map(Op::Deliver),
        40 => any::<usize>().prop_map(Op::Settle),
        4 => any::<usize>().prop_map(Op::GiveBack),
        15 => (0u64..4).prop_map(Op::Tick),
        2 => Just(Op::Flush),
        1 => Just(Op::OpenChannel),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Tag {
    PassedOver,
    Unsettled,
    /// Since this tick.
    Settled(u64),
    GivenBack,
    Acknowledged,
}

const BATCH: usize = 4;
const LINGER: u64 = 5;

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_settled_is_acknowledged_once_and_in_time_and_nothing_else_ever(history in vec(op(), 1..60)) {
        let mut planner = AckPlanner::new(BATCH, ticks(LINGER));
        let mut tags = BTreeMap::new();
        let mut now = 0;
        for op in history {
            let unsettled: Vec<u64> = of(&tags, |tag| tag == Tag::Unsettled);
            match op {
                Op::Deliver(passed_over) => {
                    let next = tags.len() as u64 + 1;
                    tags.extend((next..next + passed_over).map(|tag| (tag, Tag::PassedOver)));
                    tags.insert(next + passed_over, Tag::Unsettled);
                    planner.on_delivered(next + passed_over);
                }
                Op::Settle(at_index) if !unsettled.is_empty() => {
                    let tag = unsettled[at_index % unsettled.len()];
                    tags.insert(tag, Tag::Settled(now));
                    planner.on_settled(tag, at(now));
                }
                Op::GiveBack(at_index) if !unsettled.is_empty() => {
                    let tag = unsettled[at_index % unsettled.len()];
                    tags.insert(tag, Tag::GivenBack);
                    planner.on_given_back(tag);
                }
                Op::Tick(n) => {
                    now += n;
                    let settled = of(&tags, |tag| matches!(tag, Tag::Settled(_))).len();
                    let in_a_row = below_all_unsettled(&tags);
                    let lingered = !of(&tags, |tag| matches!(tag, Tag::Settled(since) if since + LINGER <= now)).is_empty();
                    let acks = planner.take_acks(at(now));
                    let all = settled >= 4 * BATCH || lingered;
                    prop_assert_eq!(!acks.is_empty(), in_a_row >= BATCH || all);
                    if !all {
                        prop_assert!(acks.len() <= 1);
                    }
                    acknowledge(&mut tags, acks);
                    prop_assert_eq!(below_all_unsettled(&tags) >= BATCH, false);
                    if all {
                        prop_assert_eq!(of(&tags, |tag| matches!(tag, Tag::Settled(_))), Vec::<u64>::new());
                    }
                }
                Op::Flush => {
                    acknowledge(&mut tags, planner.flush());
                    prop_assert_eq!(of(&tags, |tag| matches!(tag, Tag::Settled(_))), Vec::<u64>::new());
                }
                Op::OpenChannel => {
                    tags.clear();
                    planner.on_channel_opened();
                }
                Op::Settle(_) | Op::GiveBack(_) => {}
            }
            prop_assert_eq!(planner.unsettled(), of(&tags, |tag| tag == Tag::Unsettled).len());
            let oldest = tags.values().filter_map(|tag| if let Tag::Settled(since) = tag { Some(*since) } else { None });
            prop_assert_eq!(planner.next_deadline(), oldest.min().map(|since| at(since + LINGER)));
        }
    }
}

fn of(tags: &BTreeMap<u64, Tag>, which: impl Fn(Tag) -> bool) -> Vec<u64> {
    tags.iter().filter(|(_, tag)| which(**tag)).map(|(number, _)| *number).collect()
}

/// How many are settled with nothing below them that no `multiple` may cover.
fn below_all_unsettled(tags: &BTreeMap<u64, Tag>) -> usize {
    let covered = tags.values().take_while(|tag| !matches!(tag, Tag::Unsettled | Tag::PassedOver));
    covered.filter(|tag| matches!(tag, Tag::Settled(_))).count()
}

/// The broker: an acknowledgement names a tag that is out, and `multiple` takes all below it.
fn acknowledge(tags: &mut BTreeMap<u64, Tag>, acks: Vec<Ack>) {
    for ack in acks {
        assert!(matches!(tags[&ack.tag], Tag::Settled(_)), "{ack:?} names a tag that is {:?}", tags[&ack.tag]);
        let lowest = if ack.multiple { 0 } else { ack.tag };
        for (number, tag) in tags.range_mut(lowest..=ack.tag) {
            match tag {
                Tag::Unsettled | Tag::PassedOver => panic!("{ack:?} covers {number}, which is {tag:?}"),
                Tag::Settled(_) => *tag = Tag::Acknowledged,
                Tag::GivenBack | Tag::Acknowledged => {}
            }
        }
    }
}
