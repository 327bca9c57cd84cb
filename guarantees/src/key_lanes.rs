//! Messages with one key are handled one after another, different keys at once.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

/// A lane a key: in each at most one item runs, in the order pushed. Over all keys the oldest item starts first; one that had to
/// wait for another of its key lets fewer than [`TURN`](Self::TURN) younger ones go before it, so that keys take turns.
///
/// No more than that: what waits behind everything else keeps all that is done meanwhile from being acknowledged in one.
#[derive(Debug)]
pub struct KeyLanes<K, T> {
    lanes_at_once: usize,
    lanes: BTreeMap<K, Lane<T>>,
    /// The keys that could start, each once, in the order of their turns.
    ready: BTreeMap<Turn, K>,
    /// How many items were pushed.
    pushed: u64,
    waiting: usize,
    running: usize,
}

impl<K: Ord + Clone, T> KeyLanes<K, T> {
    /// An item that had to wait for its own key has the turn of one that came so much later.
    pub const TURN: u64 = 16;

    /// No lanes yet; at most `lanes_at_once` of them run at a time (at least one does).
    #[must_use]
    pub fn new(lanes_at_once: usize) -> Self {
        Self {
            lanes_at_once: lanes_at_once.max(1),
            lanes: BTreeMap::new(),
            ready: BTreeMap::new(),
            pushed: 0,
            waiting: 0,
            running: 0,
        }
    }

    /// Puts an item at the end of its key's lane.
    pub fn push(&mut self, key: K, item: T) {
        self.waiting += 1;
        self.pushed += 1;
        let age = self.pushed;
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.waiting.push_back((Turn { at: age + Self::TURN, age }, item));
            // After `clear` a running lane stands empty; it comes into `ready` when it has finished.
            return;
        }
        let turn = Turn { at: age, age };
        self.lanes.insert(key.clone(), Lane { waiting: VecDeque::from([(turn, item)]), running: false });
        self.ready.insert(turn, key);
    }

    /// The next item to handle; its key stays busy until [`on_finished`](Self::on_finished). `None` when nothing
    /// can start now.
    pub fn start_next(&mut self) -> Option<(K, T)> {
        if self.running >= self.lanes_at_once {
            return None;
        }
        let (_, key) = self.ready.pop_first()?;
        let lane = self.lanes.get_mut(&key)?;
        let (_, item) = lane.waiting.pop_front()?;
        lane.running = true;
        self.waiting -= 1;
        self.running += 1;
        Some((key, item))
    }

    /// The item that ran for this key has ended, one way or the other.
    pub fn on_finished(&mut self, key: &K) {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.running) else {
            return;
        };
        lane.running = false;
        self.running -= 1;
        match lane.waiting.front() {
            Some((turn, _)) => drop(self.ready.insert(*turn, key.clone())),
            None => drop(self.lanes.remove(key)),
        }
    }

    /// Takes out everything that waits, as after a lost channel. What runs goes on until it has finished.
    pub fn clear(&mut self) -> Vec<T> {
        self.ready.clear();
        self.waiting = 0;
        let mut cleared = Vec::new();
        self.lanes.retain(|_, lane| {
            cleared.extend(mem::take(&mut lane.waiting).into_iter().map(|(_, item)| item));
            lane.running
        });
        cleared
    }

    /// How many items have not started.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many items run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<(Turn, T)>,
    running: bool,
}

/// When an item starts, among those that could: the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    at: u64,
    /// The number of its push: no two are the same.
    age: u64,
}
