//! What a producer has done so far, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::outcome::Outcome;

/// What a producer has done so far. Read at any time with [`Producer::counts`](crate::Producer::counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Messages accepted for `send`, `submit` or `forward`.
    pub accepted: u64,
    /// … that ended [`Confirmed`](Outcome::Confirmed).
    pub confirmed: u64,
    /// … that ended [`Unroutable`](Outcome::Unroutable).
    pub unroutable: u64,
    /// … that ended [`Refused`](Outcome::Refused).
    pub refused: u64,
    /// … that ended [`Unknown`](Outcome::Unknown).
    pub unknown: u64,
    /// … whose turn to be published never came, and that were given back.
    pub not_published: u64,
    /// Second and further sendings of a message, with its same id.
    pub resent: u64,
    /// Messages that `fire` handed to the connection.
    pub fired: u64,
    /// Messages that `fire` could not hand on: no room before the deadline, or the connection went under them.
    pub fire_dropped: u64,
    /// Channels opened after the first.
    pub reconnected: u64,
    /// Channels that ended before the producer did, for whichever reason.
    pub channels_lost: u64,
    /// Requests that waited for a reply; their messages are among the accepted.
    pub requests: u64,
    /// Replies that came to their request in time, errors included.
    pub replies: u64,
    /// Replies that nobody waited for: after the deadline, a second time, or to no request of this producer. They are dropped.
    pub late_replies: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) not_published: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) fired: AtomicU64,
    pub(crate) fire_dropped: AtomicU64,
    pub(crate) reconnected: AtomicU64,
    pub(crate) channels_lost: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) replies: AtomicU64,
    pub(crate) late_replies: AtomicU64,
    confirmed: AtomicU64,
    unroutable: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    #[cfg(feature = "metrics")]
    pub(crate) durations: std::sync::OnceLock<crate::reporting::Durations>,
}

impl Counters {
    /// A message has ended that was accepted then.
    pub(crate) fn on_outcome(&self, outcome: &Outcome, since: Option<Instant>) {
        #[cfg(feature = "metrics")]
        if let Some((durations, since)) = self.durations.get().zip(since) {
            durations.on_outcome(outcome, since.elapsed());
        }
        #[cfg(not(feature = "metrics"))]
        let _ = since;
        one(match outcome {
            Outcome::Confirmed { .. } => &self.confirmed,
            Outcome::Unroutable { .. } => &self.unroutable,
            Outcome::Refused { .. } => &self.refused,
            Outcome::Unknown { .. } => &self.unknown,
        });
    }

    pub(crate) fn read(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            accepted: of(&self.accepted),
            confirmed: of(&self.confirmed),
            unroutable: of(&self.unroutable),
            refused: of(&self.refused),
            unknown: of(&self.unknown),
            not_published: of(&self.not_published),
            resent: of(&self.resent),
            fired: of(&self.fired),
            fire_dropped: of(&self.fire_dropped),
            reconnected: of(&self.reconnected),
            channels_lost: of(&self.channels_lost),
            requests: of(&self.requests),
            replies: of(&self.replies),
            late_replies: of(&self.late_replies),
        }
    }
}

pub(crate) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
