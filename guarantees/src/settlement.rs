//! What happens to a message whose handling has ended.

use std::{num::NonZeroU32, time::Duration};

use correio_message::DeadReason;

use crate::RetrySchedule;

/// What a handler asks for. What then happens is a [`Settlement`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The work is done.
    Done,
    /// Try again, after the schedule's next delay.
    Retry,
    /// Try again, not before this much time, or the schedule's longest delay, if that is shorter.
    RetryAfter(Duration),
    /// Park it: no retry would help.
    DeadLetter {
        /// Why.
        reason: String,
    },
    /// Forget it: it is not worth parking.
    Drop {
        /// Why.
        reason: String,
    },
}

impl From<()> for Verdict {
    fn from((): ()) -> Self {
        Self::Done
    }
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The handler gave an error.
    #[error("{error}")]
    Handler {
        /// The error and its causes.
        error: String,
    },
    /// The handler gave an error, and said what is to become of the message.
    #[error("{error}")]
    Ruled {
        /// The error and its causes.
        error: String,
        /// What is to become of the message.
        ruling: Ruling,
    },
    /// The handler panicked.
    #[error("the handler panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The handler did not end before its deadline.
    #[error("the handler did not end within {after:?}")]
    TimedOut {
        /// How long it was given.
        after: Duration,
    },
    /// The message, or its payload, could not be read.
    #[error("{error}")]
    Unreadable {
        /// What is wrong with it.
        error: String,
    },
    /// No handler is registered for its type.
    #[error("no handler is registered for the type {name:?}")]
    UnknownType {
        /// The type.
        name: String,
    },
}

impl Failure {
    /// Whether the message is not to be tried again, whatever its schedule says.
    #[must_use]
    pub fn rules_out_a_retry(&self) -> bool {
        match self {
            Self::Ruled { ruling, .. } => matches!(ruling, Ruling::DeadLetter | Ruling::Drop),
            Self::Unreadable { .. } | Self::UnknownType { .. } => true,
            Self::Handler { .. } | Self::Panicked { .. } | Self::TimedOut { .. } => false,
        }
    }
}

/// What an error says is to become of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Tried again, as after [`Verdict::RetryAfter`].
    RetryAfter(Duration),
    /// Parked at once: no retry would help.
    DeadLetter,
    /// Forgotten.
    Drop,
}

/// Where a message waits for its retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retrying {
    /// A copy goes round through a delay queue, and others overtake it.
    ThroughDelayQueues,
    /// It keeps its place, and its key waits.
    InPlace,
}

/// What happens to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a message that is not settled comes again"]
pub enum Settlement {
    /// It is acknowledged.
    Acknowledge,
    /// A copy is published to a delay queue and confirmed, then the original is acknowledged.
    RetryLater {
        /// A delay of the schedule: the name of a queue.
        delay: Duration,
        /// The number of the attempt that comes.
        attempt: NonZeroU32,
    },
    /// It is handled again, here and after this delay; nothing is acknowledged.
    RetryInPlace {
        /// A delay of the schedule.
        delay: Duration,
        /// The number of the attempt that comes.
        attempt: NonZeroU32,
    },
    /// A copy is published to the parking queue and confirmed, then the original is acknowledged.
    DeadLetter {
        /// What kind of end this is.
        reason: DeadReason,
        /// What went wrong last, in words.
        error: String,
    },
    /// It is acknowledged without having been handled.
    Drop {
        /// Why.
        reason: String,
    },
}

/// Decides what happens to a message after attempt number `attempt` (the first is 1).
///
/// A failed, panicked or timed-out handler is tried again until the schedule ends, then the message is
/// dead-lettered with the last error. What cannot be read, and what nobody handles, would be the same the next
/// time: a dead letter at once.
pub fn decide(
    result: Result<Verdict, Failure>,
    attempt: NonZeroU32,
    schedule: &RetrySchedule,
    retrying: Retrying,
) -> Settlement {
    let (wanted, reason, error) = match result {
        Ok(Verdict::Done) => return Settlement::Acknowledge,
        Ok(Verdict::Drop { reason }) => return Settlement::Drop { reason },
        Ok(Verdict::DeadLetter { reason }) => {
            return Settlement::DeadLetter { reason: DeadReason::Asked, error: reason };
        }
        Ok(Verdict::Retry) => (None, DeadReason::Failed, String::from(RETRIES_OVER)),
        Ok(Verdict::RetryAfter(wanted)) => (Some(wanted), DeadReason::Failed, String::from(RETRIES_OVER)),
        Err(failure) => {
            let error = failure.to_string();
            match failure {
                Failure::Handler { .. } => (None, DeadReason::Failed, error),
                Failure::Ruled { ruling: Ruling::RetryAfter(wanted), .. } => (Some(wanted), DeadReason::Failed, error),
                Failure::Ruled { ruling: Ruling::DeadLetter, .. } => {
                    return Settlement::DeadLetter { reason: DeadReason::Asked, error };
                }
                Failure::Ruled { ruling: Ruling::Drop, .. } => return Settlement::Drop { reason: error },
                Failure::Panicked { .. } => (None, DeadReason::Panicked, error),
                Failure::TimedOut { .. } => (None, DeadReason::TimedOut, error),
                Failure::Unreadable { .. } => {
                    return Settlement::DeadLetter { reason: DeadReason::Unreadable, error };
                }
                Failure::UnknownType { .. } => {
                    return Settlement::DeadLetter { reason: DeadReason::UnknownType, error };
                }
            }
        }
    };
    let Some(scheduled) = schedule.delay_before(attempt) else {
        return Settlement::DeadLetter { reason, error };
    };
    let delay = wanted.and_then(|wanted| schedule.delay_at_least(wanted)).unwrap_or(scheduled);
    let attempt = attempt.saturating_add(1);
    match retrying {
        Retrying::ThroughDelayQueues => Settlement::RetryLater { delay, attempt },
        Retrying::InPlace => Settlement::RetryInPlace { delay, attempt },
    }
}

/// Decides what happens to a message that failed while everything does: it is tried again, after attempt number `attempt` as after any,
/// and after its last one with the schedule's longest delay; in place after `pause` when that has none.
pub fn spare(attempt: NonZeroU32, schedule: &RetrySchedule, retrying: Retrying, pause: Duration) -> Settlement {
    let delay = NonZeroU32::new(attempt.get().min(schedule.retries())).and_then(|retry| schedule.delay_before(retry));
    let attempt = attempt.saturating_add(1);
    match (delay, retrying) {
        (Some(delay), Retrying::ThroughDelayQueues) => Settlement::RetryLater { delay, attempt },
        (delay, _) => Settlement::RetryInPlace { delay: delay.unwrap_or(pause), attempt },
    }
}

const RETRIES_OVER: &str = "its handler asked for another retry, and none is left";
