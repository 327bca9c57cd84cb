//! What goes wrong with replies: they come twice, too late, to nobody, or they end another's request.

mod support;

use std::collections::BTreeMap;

use correio_guarantees::{Matched, PendingReplies, Requested};
use correio_message::MessageId;
use proptest::{collection::vec, prelude::*};
use support::{at, cases};

fn id(n: usize) -> MessageId {
    MessageId::new(n.to_string()).unwrap()
}

#[test]
fn a_request_ends_with_its_reply_and_a_second_one_is_late() {
    let mut pending = PendingReplies::new();
    assert_eq!(pending.on_requested(id(1), at(10)), Requested::Pending);
    assert_eq!(pending.on_reply(Some(&id(1)), at(1)), Matched::Matched);
    assert_eq!(pending.on_reply(Some(&id(1)), at(2)), Matched::Late);
    assert!(pending.on_deadline(at(20)).is_empty(), "it has ended already");
    assert_eq!((pending.len(), pending.late(), pending.next_deadline()), (0, 1, None));
}

#[test]
fn at_its_deadline_a_request_ends_even_if_the_reply_is_heard_before_the_clock() {
    let mut pending = PendingReplies::new();
    assert_eq!(pending.on_requested(id(1), at(10)), Requested::Pending);
    assert_eq!(pending.on_reply(Some(&id(1)), at(10)), Matched::Late);
    assert_eq!(pending.on_deadline(at(10)), [id(1)]);
    assert_eq!(pending.on_reply(Some(&id(1)), at(11)), Matched::Late);
    assert_eq!(pending.late(), 2);
}

#[test]
fn a_reply_that_names_no_request_and_one_that_names_another_end_nothing() {
    let mut pending = PendingReplies::new();
    assert_eq!(pending.on_requested(id(1), at(10)), Requested::Pending);
    assert_eq!(pending.on_reply(None, at(1)), Matched::Late);
    assert_eq!(pending.on_reply(Some(&id(2)), at(1)), Matched::Late);
    assert_eq!(pending.len(), 1);
}

#[test]
fn a_second_request_of_an_id_does_not_take_the_place_of_the_first() {
    let mut pending = PendingReplies::new();
    assert_eq!(pending.on_requested(id(1), at(10)), Requested::Pending);
    assert_eq!(pending.on_requested(id(1), at(99)), Requested::SameIdPending);
    assert_eq!(pending.next_deadline(), Some(at(10)));
}

#[derive(Clone, Debug)]
enum Op {
    Request(usize, u64),
    Reply(Option<usize>),
    Abandon(usize),
    Tick(u64),
    Deadline,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..IDS, 0u64..12).prop_map(|(id, wait)| Op::Request(id, wait)),
        6 => prop::option::weighted(0.9, 0..IDS).prop_map(Op::Reply),
        2 => (0..IDS).prop_map(Op::Abandon),
        3 => (0u64..6).prop_map(Op::Tick),
        3 => Just(Op::Deadline),
    ]
}

const IDS: usize = 6;

/// How the requests of one history ended.
#[derive(Debug, Default, PartialEq)]
struct Ends {
    answered: usize,
    expired: usize,
    abandoned: usize,
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_request_ends_exactly_once_and_by_nothing_of_anothers(history in vec(op(), 1..80)) {
        let mut pending = PendingReplies::new();
        // A naive list of who waits, and until when.
        let mut waiting: BTreeMap<usize, u64> = BTreeMap::new();
        let mut ends = Ends::default();
        let (mut now, mut begun, mut late) = (0, 0, 0);
        for op in history {
            match op {
                Op::Request(n, wait) => {
                    let expected = match waiting.get(&n) {
                        Some(_) => Requested::SameIdPending,
                        None => {
                            waiting.insert(n, now + wait);
                            begun += 1;
                            Requested::Pending
                        }
                    };
                    prop_assert_eq!(pending.on_requested(id(n), at(now + wait)), expected);
                }
                Op::Reply(n) => {
                    let is_in_time = n.is_some_and(|n| waiting.get(&n).is_some_and(|until| *until > now));
                    let expected = if is_in_time { Matched::Matched } else { Matched::Late };
                    prop_assert_eq!(pending.on_reply(n.map(id).as_ref(), at(now)), expected);
                    match n.filter(|_| is_in_time) {
                        Some(n) => {
                            waiting.remove(&n);
                            ends.answered += 1;
                        }
                        None => late += 1,
                    }
                }
                Op::Abandon(n) => {
                    pending.on_abandoned(&id(n));
                    ends.abandoned += usize::from(waiting.remove(&n).is_some());
                }
                Op::Tick(n) => now += n,
                Op::Deadline => {
                    let mut expected: Vec<_> =
                        waiting.iter().filter(|(_, until)| **until <= now).map(|(n, until)| (*until, id(*n))).collect();
                    expected.sort();
                    waiting.retain(|_, until| *until > now);
                    ends.expired += expected.len();
                    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
                    prop_assert_eq!(pending.on_deadline(at(now)), expected);
                }
            }
            prop_assert_eq!(pending.len(), waiting.len());
            prop_assert_eq!(pending.is_empty(), waiting.is_empty());
            prop_assert_eq!(pending.late(), late);
            prop_assert_eq!(pending.next_deadline(), waiting.values().min().map(|until| at(*until)));
            prop_assert_eq!(begun, ends.answered + ends.expired + ends.abandoned + waiting.len());
        }
        ends.expired += pending.on_deadline(at(now + 1_000)).len();
        prop_assert_eq!(begun, ends.answered + ends.expired + ends.abandoned);
        prop_assert!(pending.is_empty());
    }
}
