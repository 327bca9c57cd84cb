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

/// A naive observer: what waits of each key, and when the key was last served or began to wait.
#[derive(Default)]
struct Observer {
    waiting: BTreeMap<u8, VecDeque<usize>>,
    running: BTreeSet<u8>,
    ready_since: BTreeMap<u8, usize>,
    step: usize,
}

impl Observer {
    fn note_ready(&mut self) {
        self.step += 1;
        for (key, items) in &self.waiting {
            if items.is_empty() || self.running.contains(key) {
                self.ready_since.remove(key);
            } else {
                self.ready_since.entry(*key).or_insert(self.step);
            }
        }
    }

    /// The key that could start and has waited longest.
    fn next(&self, lanes_at_once: usize) -> Option<u8> {
        let free = self.running.len() < lanes_at_once;
        self.ready_since.iter().filter(|_| free).min_by_key(|(_, since)| **since).map(|(key, _)| *key)
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
                    seen.waiting.entry(key).or_default().push_back(item);
                }
                Op::Start => {
                    let expected = seen.next(lanes_at_once);
                    let first = expected.and_then(|key| Some((key, seen.waiting.get_mut(&key)?.pop_front()?)));
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
                    let mut waiting: Vec<_> = std::mem::take(&mut seen.waiting).into_values().flatten().collect();
                    waiting.sort_unstable();
                    prop_assert_eq!(cleared, waiting);
                    seen.ready_since.clear();
                }
            }
            seen.note_ready();
            prop_assert_eq!(lanes.waiting(), seen.waiting.values().map(VecDeque::len).sum::<usize>());
            prop_assert_eq!(lanes.running(), seen.running.len());
        }
    }
}
