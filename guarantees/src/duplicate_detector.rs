//! The same message has one effect: a pair of brackets around the handler.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use correio_message::{MessageId, ShortText};

/// What makes two deliveries one piece of work: who works, whose message it is, and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandledId {
    // First, because it is what tells two of them apart soonest.
    /// The message's own id.
    pub id: MessageId,
    /// The sending application: two of them may count from 1.
    pub origin: Option<ShortText>,
    /// The queue or group: two groups each handle the message.
    pub subscription: Arc<str>,
}

/// Whether to handle a message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a message that is `Fresh` stays claimed until it is handled or abandoned"]
pub enum Admission {
    /// Handle it: it is claimed until `on_handled` or `on_abandoned`.
    Fresh,
    /// Its first delivery is being handled.
    InFlight,
    /// It was handled before.
    AlreadyHandled,
}

/// Remembers what was handled, the latest `capacity` of it, each for `retention`.
#[derive(Debug)]
pub struct DuplicateDetector {
    capacity: usize,
    retention: Duration,
    known: BTreeMap<HandledId, State>,
    /// What was handled and when, oldest first.
    handled: VecDeque<(Instant, HandledId)>,
    evicted_early: u64,
}

impl DuplicateDetector {
    /// Remembers nothing yet. The retention has to exceed the longest retry and replay.
    #[must_use]
    pub fn new(capacity: usize, retention: Duration) -> Self {
        Self { capacity, retention, known: BTreeMap::new(), handled: VecDeque::new(), evicted_early: 0 }
    }

    /// Asks whether to handle this id now. `Fresh` claims it until [`on_handled`](Self::on_handled) or
    /// [`on_abandoned`](Self::on_abandoned), so it is asked when handling starts and not before.
    pub fn admit(&mut self, id: HandledId, now: Instant) -> Admission {
        self.on_deadline(now);
        match self.known.get(&id) {
            Some(State::InFlight) => Admission::InFlight,
            Some(State::Handled) => Admission::AlreadyHandled,
            None => {
                self.known.insert(id, State::InFlight);
                Admission::Fresh
            }
        }
    }

    /// The handler's work is done and safe. Told before the message is acknowledged.
    ///
    /// Without a claim it is remembered all the same: the work was done.
    pub fn on_handled(&mut self, id: &HandledId, now: Instant) {
        self.on_deadline(now);
        if self.known.insert(id.clone(), State::Handled) == Some(State::Handled) {
            return;
        }
        self.handled.push_back((now, id.clone()));
        while self.handled.len() > self.capacity {
            self.forget_oldest();
            self.evicted_early += 1;
        }
    }

    /// The handler did not succeed. The next delivery of this id is `Fresh` again.
    pub fn on_abandoned(&mut self, id: &HandledId) {
        if self.known.get(id) == Some(&State::InFlight) {
            self.known.remove(id);
        }
    }

    /// When the oldest is forgotten.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.handled.front().and_then(|(handled, _)| handled.checked_add(self.retention))
    }

    /// Forgets what is older than the retention.
    pub fn on_deadline(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.forget_oldest();
        }
    }

    /// How many handled ids are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.handled.len()
    }

    /// How many ids are claimed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.known.len() - self.handled.len()
    }

    /// How many ids were forgotten before their retention was over, because there was no room: each may be handled
    /// twice.
    #[must_use]
    pub fn evicted_early(&self) -> u64 {
        self.evicted_early
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.handled.pop_front() {
            self.known.remove(&id);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    Handled,
}
