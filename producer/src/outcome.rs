//! What is known about a message after sending it.

use std::fmt;

use correio_guarantees::Pronounced;

/// What is known about a message after sending it. Each message that left ends in exactly one.
///
/// Each says how often the message was sent: a second time and more, with the same id, after a channel was lost before
/// it was answered. What never left has no outcome; it comes back as a [`SendError`](crate::SendError).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an unread outcome is an unnoticed loss"]
pub enum Outcome {
    /// Every queue that the message was routed to has accepted it; on a quorum queue that means written to disk
    /// by a majority of its members.
    Confirmed {
        /// How often it was sent. Above 1 a queue may hold it more than once, under one id.
        tries: u32,
    },
    /// No queue matched the route, or there is no such exchange. The broker did not keep the message (of an earlier
    /// sending without an answer, if there was one, nothing is known).
    Unroutable {
        /// The broker's words.
        reason: String,
        /// How often it was sent.
        tries: u32,
    },
    /// At least one queue did not take the message, because it is full for example, or the broker does not allow
    /// it; other queues may have it.
    Refused {
        /// The broker's words, where it gives any.
        reason: String,
        /// How often it was sent.
        tries: u32,
    },
    /// No answer before the deadline, after `tries` sendings with the same id. The broker may or may not have it:
    /// sent again with the same id, it is handled once.
    Unknown {
        /// How often it was sent, as far as is known.
        tries: u32,
    },
}

impl Outcome {
    /// Whether the message is on every queue that it was routed to.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Self::Confirmed { .. })
    }

    pub(crate) fn of(pronounced: Pronounced, tries: u32) -> Self {
        match pronounced {
            Pronounced::Confirmed => Self::Confirmed { tries },
            Pronounced::Unroutable { reason } => Self::Unroutable { reason, tries },
            Pronounced::Refused => Self::Refused { reason: "a queue did not take it (basic.nack)".to_owned(), tries },
            Pronounced::Unknown { tries } => Self::Unknown { tries },
        }
    }

    /// How often the message was sent.
    #[must_use]
    pub fn tries(&self) -> u32 {
        match self {
            Self::Confirmed { tries }
            | Self::Unroutable { tries, .. }
            | Self::Refused { tries, .. }
            | Self::Unknown { tries } => *tries,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed { .. } => f.write_str("confirmed"),
            Self::Unroutable { reason, .. } => write!(f, "unroutable: {reason}"),
            Self::Refused { reason, .. } => write!(f, "refused: {reason}"),
            Self::Unknown { tries } => write!(f, "unknown: no answer after sending it {tries} times"),
        }
    }
}
