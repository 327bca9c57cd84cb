//! The memory of what was handled: what a second delivery is recognised by.
//!
//! Two steps stand around each handling, a claim and a remembering. Remembering first would lose messages: one
//! whose handler failed would look like a duplicate when it comes back. Remembering after the acknowledgement
//! would repeat work: a crash in between forgets it.

use std::{
    future::Future,
    num::NonZeroUsize,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use correio_guarantees::{Admission, DuplicateDetector, HandledId};

/// Where handled ids are kept. One log may serve several consumers; subscription and origin keep them apart.
///
/// The pipeline calls with whole batches and has at most one call of each kind running, so that a durable log
/// can commit a batch at once.
///
/// A consumer that is dropped gives up the claims it knows of. One whose process dies cannot, so that in a log that outlives
/// the process claims have to run out.
pub trait HandledLog: Send + Sync + 'static {
    /// Asks for each id whether to handle it now. [`Admission::Fresh`] is a claim on it, to be ended by
    /// [`on_handled`](Self::on_handled) or [`on_abandoned`](Self::on_abandoned).
    fn admit<'a>(&'a self, ids: &'a [HandledId]) -> LogFuture<'a, Vec<Admission>>;

    /// The work of these claims is done. When this ends with `Ok`, they are remembered as durably as the log
    /// promises; only then are they acknowledged.
    fn on_handled<'a>(&'a self, ids: &'a [HandledId]) -> LogFuture<'a, ()>;

    /// The work of these claims was not done: the next delivery is fresh again.
    fn on_abandoned<'a>(&'a self, ids: &'a [HandledId]) -> LogFuture<'a, ()>;

    /// How long an id is remembered at least, if nothing pushes it out earlier.
    fn retention(&self) -> Duration;
}

/// What a [`HandledLog`] answers, later.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LogError>> + Send + 'a>>;

/// The log did not answer. The messages concerned stay unsettled and are asked for again.
#[derive(Debug, thiserror::Error)]
#[error("the log of handled messages: {step}: {cause}")]
pub struct LogError {
    /// What was asked of it.
    pub step: &'static str,
    /// Why it could not.
    #[source]
    pub cause: crate::BoxError,
}

/// The log in this process's memory: bounded by count and age, gone with the process.
#[derive(Debug)]
pub struct MemoryLog {
    detector: Mutex<DuplicateDetector>,
    retention: Duration,
}

impl MemoryLog {
    /// Remembers at most `capacity` ids, each for `retention`; past the capacity the oldest goes first.
    #[must_use]
    pub fn new(capacity: NonZeroUsize, retention: Duration) -> Self {
        Self { detector: Mutex::new(DuplicateDetector::new(capacity.get(), retention)), retention }
    }

    fn detector(&self) -> std::sync::MutexGuard<'_, DuplicateDetector> {
        // The detector is left whole by every call, so a panic elsewhere does not spoil it.
        self.detector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandledLog for MemoryLog {
    fn admit<'a>(&'a self, ids: &'a [HandledId]) -> LogFuture<'a, Vec<Admission>> {
        let now = Instant::now();
        let mut detector = self.detector();
        let answers = ids.iter().map(|id| detector.admit(id.clone(), now)).collect();
        Box::pin(std::future::ready(Ok(answers)))
    }

    fn on_handled<'a>(&'a self, ids: &'a [HandledId]) -> LogFuture<'a, ()> {
        let now = Instant::now();
        let mut detector = self.detector();
        for id in ids {
            detector.on_handled(id, now);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn on_abandoned<'a>(&'a self, ids: &'a [HandledId]) -> LogFuture<'a, ()> {
        let mut detector = self.detector();
        for id in ids {
            detector.on_abandoned(id);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn retention(&self) -> Duration {
        self.retention
    }
}
