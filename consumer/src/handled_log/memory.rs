//! The log in this process's memory.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use correio_guarantees::{Admission, Claim, DuplicateDetector, Standing};

use super::{HandledLog, LogFuture};

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

    fn detector(&self) -> MutexGuard<'_, DuplicateDetector> {
        // The detector is left whole by every call, so a panic elsewhere does not spoil it.
        self.detector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandledLog for MemoryLog {
    fn admit<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> LogFuture<'a, Vec<Admission>> {
        let now = Instant::now();
        let mut detector = self.detector();
        let answers = claims.iter().map(|claim| detector.admit(claim.clone(), lease, now)).collect();
        Box::pin(std::future::ready(Ok(answers)))
    }

    fn on_handled<'a>(&'a self, claims: &'a [Claim]) -> LogFuture<'a, Vec<Standing>> {
        let now = Instant::now();
        let mut detector = self.detector();
        let standings = claims.iter().map(|claim| detector.on_handled(claim, now)).collect();
        Box::pin(std::future::ready(Ok(standings)))
    }

    fn on_abandoned<'a>(&'a self, claims: &'a [Claim]) -> LogFuture<'a, ()> {
        let mut detector = self.detector();
        for claim in claims {
            detector.on_abandoned(claim);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn retention(&self) -> Duration {
        self.retention
    }

    fn forgotten_early(&self) -> u64 {
        self.detector().evicted_early()
    }

    fn clean_up(&self) -> LogFuture<'_, Duration> {
        self.detector().on_deadline(Instant::now());
        Box::pin(std::future::ready(Ok(self.retention / 10)))
    }
}
