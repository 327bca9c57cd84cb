//! Every request ends exactly once, and no reply goes to another request.
//!
//! A request waits under its id until the reply that names it, its deadline, or its own end. Whatever comes otherwise is
//! late: the second reply of a redelivered one, one after the deadline, one to a request that nobody made. It is counted
//! and changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use correio_message::MessageId;

/// The requests that wait for their replies.
#[derive(Clone, Debug, Default)]
pub struct PendingReplies {
    deadlines: BTreeMap<MessageId, Instant>,
    in_order: BTreeSet<(Instant, MessageId)>,
    late: u64,
}

/// Whether a request may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a request that did not begin gets no reply"]
pub enum Requested {
    /// It waits from now on.
    Pending,
    /// Another one waits under this id: a reply could be either's. That one goes on waiting.
    SameIdPending,
}

/// Whose a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a late reply belongs to nobody"]
pub enum Matched {
    /// The request of this id has ended with it.
    Matched,
    /// Nobody waits for it.
    Late,
}

impl PendingReplies {
    /// Nothing waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request is about to be sent. Said before, so that no reply can come too early.
    pub fn on_requested(&mut self, id: MessageId, deadline: Instant) -> Requested {
        if self.deadlines.contains_key(&id) {
            return Requested::SameIdPending;
        }
        self.in_order.insert((deadline, id.clone()));
        self.deadlines.insert(id, deadline);
        Requested::Pending
    }

    /// A reply came; `correlation` is the request that it names, if it names one.
    pub fn on_reply(&mut self, correlation: Option<&MessageId>, now: Instant) -> Matched {
        // One that is past its deadline ends by that, whoever is the first to say so.
        match correlation.and_then(|id| Some((id, *self.deadlines.get(id)?))) {
            Some((id, deadline)) if deadline > now => {
                self.remove(id);
                Matched::Matched
            }
            _ => {
                self.late += 1;
                Matched::Late
            }
        }
    }

    /// Nobody waits for this one any more, or it was never sent: its reply will be late. One that has ended already is none
    /// of it.
    pub fn on_abandoned(&mut self, id: &MessageId) {
        self.remove(id);
    }

    /// Time has passed: the requests that end with that, in the order of their deadlines.
    #[must_use = "these requests have ended"]
    pub fn on_deadline(&mut self, now: Instant) -> Vec<MessageId> {
        let mut expired = Vec::new();
        while let Some((deadline, _)) = self.in_order.first()
            && *deadline <= now
            && let Some((_, id)) = self.in_order.pop_first()
        {
            self.deadlines.remove(&id);
            expired.push(id);
        }
        expired
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.in_order.first().map(|(deadline, _)| *deadline)
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    /// How many replies came late.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    fn remove(&mut self, id: &MessageId) {
        if let Some((id, deadline)) = self.deadlines.remove_entry(id) {
            self.in_order.remove(&(deadline, id));
        }
    }
}
