//! When to try again, and when to stop.

use std::{num::NonZeroU32, time::Duration};

/// When to try again, and when to stop. Asking twice gives the same answer.
///
/// The delay doubles from `first` and never exceeds `ceiling`. Every delay is the name of a delay queue, so it is
/// a whole number of milliseconds, as a queue's time to live is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule {
    first: Duration,
    ceiling: Duration,
    retries: u32,
}

/// Delays that no delay queue can keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSchedule {
    /// A retry at once is a hot loop.
    #[error("the first retry delay is {first:?}: give at least 1 ms")]
    TooShort {
        /// What was given.
        first: Duration,
    },
    /// Nothing is left between the two.
    #[error("the retry ceiling {ceiling:?} is below the first delay {first:?}")]
    CeilingBelowFirst {
        /// The first delay.
        first: Duration,
        /// The ceiling.
        ceiling: Duration,
    },
    /// Past what a queue's time to live holds.
    #[error("the retry ceiling is {ceiling:?}: give at most {:?}", RetrySchedule::LONGEST_DELAY)]
    TooLong {
        /// The ceiling.
        ceiling: Duration,
    },
    /// A queue's time to live counts milliseconds.
    #[error("the retry delay {delay:?} is not a whole number of milliseconds")]
    NotWholeMilliseconds {
        /// What was given.
        delay: Duration,
    },
}

impl RetrySchedule {
    /// The longest delay: 30 days, of the 49 that a queue's time to live can express.
    pub const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// A schedule of `retries` retries, the first after `first`, each later one after twice the delay before it
    /// and at most `ceiling`.
    ///
    /// # Errors
    ///
    /// [`InvalidSchedule`] if a delay could not be the name of a queue.
    pub fn new(first: Duration, ceiling: Duration, retries: u32) -> Result<Self, InvalidSchedule> {
        if first < Duration::from_millis(1) {
            return Err(InvalidSchedule::TooShort { first });
        }
        if ceiling < first {
            return Err(InvalidSchedule::CeilingBelowFirst { first, ceiling });
        }
        if ceiling > Self::LONGEST_DELAY {
            return Err(InvalidSchedule::TooLong { ceiling });
        }
        if let Some(delay) = [first, ceiling].into_iter().find(|delay| delay.subsec_nanos() % 1_000_000 != 0) {
            return Err(InvalidSchedule::NotWholeMilliseconds { delay });
        }
        Ok(Self { first, ceiling, retries })
    }

    /// No retry at all: what fails is a dead letter at once.
    #[must_use]
    pub fn none() -> Self {
        Self::default().with_retries(0)
    }

    /// The same delays with another number of retries.
    #[must_use]
    pub fn with_retries(&self, retries: u32) -> Self {
        Self { retries, ..self.clone() }
    }

    /// How long to wait before retry number `retry` (the first is 1); `None` when no retry is left.
    #[must_use]
    pub fn delay_before(&self, retry: NonZeroU32) -> Option<Duration> {
        (retry.get() <= self.retries).then(|| self.delay(retry.get() - 1))
    }

    /// The shortest delay of this schedule that is not below `wanted`, or its longest when all are; `None` when it
    /// has no retries.
    #[must_use]
    pub fn delay_at_least(&self, wanted: Duration) -> Option<Duration> {
        let delays = self.delays();
        delays.iter().find(|delay| **delay >= wanted).or(delays.last()).copied()
    }

    /// How many retries there are.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The distinct delays, shortest first: one delay queue each.
    #[must_use]
    pub fn delays(&self) -> Vec<Duration> {
        let mut delays: Vec<_> = (0..self.retries.min(Self::DOUBLINGS)).map(|n| self.delay(n)).collect();
        delays.dedup();
        delays
    }

    /// The most that the waiting can add up to, the [jitter](jittered) included.
    #[must_use]
    pub fn longest_total(&self) -> Duration {
        let doubling = self.retries.min(Self::DOUBLINGS);
        let sum: Duration = (0..doubling).map(|n| self.delay(n)).sum();
        let total = sum.saturating_add(self.ceiling.saturating_mul(self.retries - doubling));
        jittered(total, 1.0)
    }

    /// After so many doublings even 1 ms has passed the longest ceiling.
    const DOUBLINGS: u32 = 32;

    fn delay(&self, doublings: u32) -> Duration {
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.ceiling)
    }
}

impl Default for RetrySchedule {
    /// After 1, 2, 4, 8 and 16 seconds.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), ceiling: Duration::from_secs(16), retries: 5 }
    }
}

/// A delay spread by the caller's random `unit` between 0 and 1, so that what failed together does not come back
/// together: never early, and late by at most a fifth of the delay.
#[must_use]
pub fn jittered(delay: Duration, unit: f64) -> Duration {
    let most = delay / 5;
    // Also what is not a number becomes one; rounding must not pass the fifth.
    let unit = if unit > 0.0 { unit.min(1.0) } else { 0.0 };
    let extra = Duration::try_from_secs_f64(most.as_secs_f64() * unit).unwrap_or(most).min(most);
    delay.saturating_add(extra)
}
