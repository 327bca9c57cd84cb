//! Messages with one key are handled one after another, different keys at once.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

/// A lane a key: in each at most one item runs, in the order pushed; keys take turns.
#[derive(Debug)]
pub struct KeyLanes<K, T> {
    lanes_at_once: usize,
    lanes: BTreeMap<K, Lane<T>>,
    /// The keys that could start, longest-waiting first; each once.
    ready: VecDeque<K>,
    waiting: usize,
    running: usize,
}

impl<K: Ord + Clone, T> KeyLanes<K, T> {
    /// No lanes yet; at most `lanes_at_once` of them run at a time (at least one does).
    #[must_use]
    pub fn new(lanes_at_once: usize) -> Self {
        Self {
            lanes_at_once: lanes_at_once.max(1),
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
            running: 0,
        }
    }

    /// Puts an item at the end of its key's lane.
    pub fn push(&mut self, key: K, item: T) {
        self.waiting += 1;
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.waiting.push_back(item);
            // After `clear` a running lane stands empty; it comes into `ready` when it has finished.
            return;
        }
        self.lanes.insert(key.clone(), Lane { waiting: VecDeque::from([item]), running: false });
        self.ready.push_back(key);
    }

    /// The next item to handle; its key stays busy until [`on_finished`](Self::on_finished). `None` when nothing
    /// can start now.
    pub fn start_next(&mut self) -> Option<(K, T)> {
        if self.running >= self.lanes_at_once {
            return None;
        }
        let key = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&key)?;
        let item = lane.waiting.pop_front()?;
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
        if lane.waiting.is_empty() {
            self.lanes.remove(key);
        } else {
            self.ready.push_back(key.clone());
        }
    }

    /// Takes out everything that waits, as after a lost channel. What runs goes on until it has finished.
    pub fn clear(&mut self) -> Vec<T> {
        self.ready.clear();
        self.waiting = 0;
        let mut cleared = Vec::new();
        self.lanes.retain(|_, lane| {
            cleared.extend(mem::take(&mut lane.waiting));
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
    waiting: VecDeque<T>,
    running: bool,
}
