//! The same message has one effect: a pair of brackets around the handler.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
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
#[must_use = "a message that is `Fresh` stays claimed until it is handled or abandoned, or its lease is over"]
pub enum Admission {
    /// Handle it: it is claimed until `on_handled` or `on_abandoned`, and after its lease until somebody takes it over.
    Fresh,
    /// Its first delivery is being handled.
    InFlight,
    /// It was handled before.
    AlreadyHandled,
}

/// The right to handle a message, and to say that it was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The message.
    pub id: HandledId,
    /// Which claim on it this is.
    pub fence: Fence,
}

/// What tells a claim from every other on the same message: who takes one over has another. Chosen by who claims, so that
/// claiming twice with the same one, because the first answer was lost, is claiming once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// Whether a claim still stood when its end was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a claim that was taken over has ended nothing"]
pub enum Standing {
    /// It did, or nobody else had one: the id is remembered as handled.
    Stood,
    /// Its lease was over and somebody else has claimed the id, or has handled it: nothing was remembered.
    TakenOver,
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
    ///
    /// A claim whose owner says nothing for as long as its lease is taken over by who asks next.
    pub fn admit(&mut self, claim: Claim, lease: Duration, now: Instant) -> Admission {
        self.on_deadline(now);
        let claimed = State::InFlight { fence: claim.fence, until: now.checked_add(lease) };
        match self.known.entry(claim.id) {
            Entry::Vacant(entry) => drop(entry.insert(claimed)),
            Entry::Occupied(mut entry) => match entry.get() {
                State::Handled(_) => return Admission::AlreadyHandled,
                State::InFlight { fence, until } if *fence != claim.fence && until.is_none_or(|until| now < until) => {
                    return Admission::InFlight;
                }
                State::InFlight { .. } => drop(entry.insert(claimed)),
            },
        }
        Admission::Fresh
    }

    /// The handler's work is done and safe. Told before the message is acknowledged; telling it twice changes nothing.
    ///
    /// Without anybody's claim it is remembered all the same: the work was done.
    pub fn on_handled(&mut self, claim: &Claim, now: Instant) -> Standing {
        self.on_deadline(now);
        match self.known.get_mut(&claim.id) {
            Some(State::Handled(by)) if *by == claim.fence => return Standing::Stood,
            Some(State::Handled(_)) => return Standing::TakenOver,
            Some(State::InFlight { fence, .. }) if *fence != claim.fence => return Standing::TakenOver,
            Some(state) => *state = State::Handled(claim.fence),
            None => drop(self.known.insert(claim.id.clone(), State::Handled(claim.fence))),
        }
        self.handled.push_back((now, claim.id.clone()));
        while self.handled.len() > self.capacity {
            self.forget_oldest();
            self.evicted_early += 1;
        }
        Standing::Stood
    }

    /// The handler did not succeed. The next delivery of this id is `Fresh` again, unless somebody else has claimed it.
    pub fn on_abandoned(&mut self, claim: &Claim) {
        if matches!(self.known.get(&claim.id), Some(State::InFlight { fence, .. }) if *fence == claim.fence) {
            self.known.remove(&claim.id);
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
    /// `until`: the end of its lease; `None` past what a clock can express.
    InFlight {
        fence: Fence,
        until: Option<Instant>,
    },
    Handled(Fence),
}
