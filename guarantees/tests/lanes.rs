//! What goes wrong between keys: two of one key at once, one before its turn, one key that starves the others.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use correio_guarantees::KeyLanes;
use proptest::{collection::vec, prelude::*};
use support::cases;

#[test]
fn messages_of_one_key_run_one_after_another_and_other_keys_at_once() {
    let mut lanes = KeyLanes::new(10);
    [("a", 1), ("a", 2), ("b", 3)].into_iter().for_each(|(key, item)| lanes.push(key, item));
    assert_eq!(lanes.start_next(), Some(("a", 1)));
    assert_eq!(lanes.start_next(), Some(("b", 3)));
    assert_eq!(lanes.start_next(), None);
    lanes.on_finished(&"a");
    assert_eq!(lanes.start_next(), Some(("a", 2)));
}

#[test]
fn a_busy_key_takes_turns_with_the_others() {
    let mut lanes = KeyLanes::new(1);
    (1..=5).for_each(|item| lanes.push("busy", item));
    lanes.push("quiet", 6);
    assert_eq!(lanes.start_next(), Some(("busy", 1)));
    lanes.on_finished(&"busy");
    assert_eq!(lanes.start_next(), Some(("quiet", 6)));
}

#[test]
fn what_waited_for_its_own_key_is_overtaken_by_less_than_a_turn() {
    let mut lanes = KeyLanes::new(1);
    let turn = KeyLanes::<&str, u64>::TURN;
    lanes.push("busy".to_owned(), 0);
    lanes.push("busy".to_owned(), 1);
    (2..100).for_each(|item| lanes.push(format!("quiet {item}"), item));
    let started: Vec<_> = std::iter::from_fn(|| {
        let (key, item) = lanes.start_next()?;
        lanes.on_finished(&key);
        Some(item)
    })
    .collect();
    let overtaking = started.iter().take_while(|item| **item != 1).filter(|item| **item > 1).count();
    assert_eq!(overtaking as u64, turn - 1);
}

#[test]
fn after_a_lost_channel_a_running_key_stays_busy_until_it_has_finished() {
    let mut lanes = KeyLanes::new(10);
    [("a", 1), ("a", 2), ("b", 3)].into_iter().for_each(|(key, item)| lanes.push(key, item));
    assert_eq!(lanes.start_next(), Some(("a", 1)));
    assert_eq!(lanes.clear(), [2, 3]);
    assert_eq!((lanes.waiting(), lanes.running()), (0, 1));
    lanes.push("a", 1);
    assert_eq!(lanes.start_next(), None);
    lanes.on_finished(&"a");
    assert_eq!(lanes.start_next(), Some(("a", 1)));
}

#[derive(Clone, Debug)]
enum Op {
    Push(u8),
    Start,
    Finish(usize),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0u8..4).prop_map(Op::Push),
        10 => Just(Op::Start),
        8 => any::<usize>().prop_map(Op::Finish),
        1 => Just(Op::Clear),
    ]
}

/// A naive observer: what waits of each key, and when its turn is.
#[derive(Default)]
struct Observer {
    waiting: BTreeMap<u8, VecDeque<(u64, usize)>>,
    running: BTreeSet<u8>,
    pushed: u64,
}

impl Observer {
    fn push(&mut self, key: u8, item: usize) {
        self.pushed += 1;
        let is_busy = self.running.contains(&key) || self.waiting.get(&key).is_some_and(|items| !items.is_empty());
        let turn = if is_busy { self.pushed + KeyLanes::<u8, usize>::TURN } else { self.pushed };
        self.waiting.entry(key).or_default().push_back((turn, item));
    }

    /// The key that could start and whose turn it is: of two, the one whose item is older.
    fn next(&self, lanes_at_once: usize) -> Option<u8> {
        let free = self.running.len() < lanes_at_once;
        let ready = self.waiting.iter().filter(|(key, _)| free && !self.running.contains(key));
        let turns = ready.filter_map(|(key, items)| Some((*items.front()?, *key)));
        turns.min().map(|(_, key)| key)
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_key_runs_twice_at_once_none_is_overtaken_and_none_starves(
        lanes_at_once in 1usize..4,
        history in vec(op(), 1..60),
    ) {
        let mut lanes = KeyLanes::new(lanes_at_once);
        let mut seen = Observer::default();
        for (item, op) in history.into_iter().enumerate() {
            match op {
                Op::Push(key) => {
                    lanes.push(key, item);
                    seen.push(key, item);
                }
                Op::Start => {
                    let expected = seen.next(lanes_at_once);
                    let first = expected.and_then(|key| Some((key, seen.waiting.get_mut(&key)?.pop_front()?.1)));
                    prop_assert_eq!(lanes.start_next(), first);
                    seen.running.extend(expected);
                }
                Op::Finish(at) => {
                    let key = seen.running.iter().nth(at % seen.running.len().max(1)).copied();
                    if let Some(key) = key {
                        lanes.on_finished(&key);
                        seen.running.remove(&key);
                    }
                    // A key that does not run cannot finish.
                    lanes.on_finished(&99);
                }
                Op::Clear => {
                    let mut cleared = lanes.clear();
                    cleared.sort_unstable();
                    let mut waiting: Vec<_> = std::mem::take(&mut seen.waiting).into_values().flatten().map(|(_, item)| item).collect();
                    waiting.sort_unstable();
                    prop_assert_eq!(cleared, waiting);
                }
            }
            prop_assert_eq!(lanes.waiting(), seen.waiting.values().map(VecDeque::len).sum::<usize>());
            prop_assert_eq!(lanes.running(), seen.running.len());
        }
    }
}
