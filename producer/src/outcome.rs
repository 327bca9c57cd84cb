//! What is known about a message after sending it.

use std::fmt;

/// What is known about a message after sending it. Each message that left ends in exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an unread outcome is an unnoticed loss"]
pub enum Outcome {
    /// Every queue that the message was routed to has accepted it; on a quorum queue that means written to disk
    /// by a majority of its members.
    Confirmed,
    /// No queue matched the route, or there is no such exchange. The broker did not keep the message (of an earlier
    /// sending without an answer, if there was one, nothing is known).
    Unroutable {
        /// The broker's words.
        reason: String,
    },
    /// At least one queue did not take the message, because it is full for example, or the broker does not allow
    /// it; other queues may have it.
    Refused {
        /// The broker's words, where it gives any.
        reason: String,
    },
    /// No answer before the deadline, after `tries` sendings with the same id. The broker may or may not have it:
    /// sent again with the same id, it is handled once.
    Unknown {
        /// How often it was sent, as far as is known; 0 if its turn never came, and then the broker does not have it.
        tries: u32,
    },
}

impl Outcome {
    /// Whether the message is on every queue that it was routed to.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        *self == Self::Confirmed
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed => f.write_str("confirmed"),
            Self::Unroutable { reason } => write!(f, "unroutable: {reason}"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
            Self::Unknown { tries } => write!(f, "unknown: no answer after sending it {tries} times"),
        }
    }
}
