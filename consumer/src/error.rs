//! Why a consumer ended without having been asked to.

use std::time::Duration;

use correio_broker_config::{ConnectError, DeclareError};

use crate::processing::HALF_OF_CONSUMER_TIMEOUT;

/// Why a consumer ended, or never began. A lost connection is no reason: it subscribes again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// The broker cannot be reached at the start, or refuses the login.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The consumer's own queue cannot be made.
    #[error(transparent)]
    Declare(Box<DeclareError>),
    /// The broker was reached, and a step at the start failed.
    #[error("{step}: {cause}")]
    Startup {
        /// What was tried.
        step: String,
        /// The broker's words, or the deadline that passed.
        cause: String,
    },
    /// There is no such queue.
    #[error("there is no queue {queue} here: make it with `cargo broker apply --queue {queue}`")]
    NoSuchQueue {
        /// Its name.
        queue: String,
    },
    /// The login may not read the queue.
    #[error("the login may not use the queue {queue}: {cause}; give the user read permission on it")]
    Forbidden {
        /// Its name.
        queue: String,
        /// The broker's words.
        cause: String,
    },
    /// Order was asked of a queue that is shared.
    #[error(
        "{queue} is a shared queue (it has the delay queue {delay_queue}), and competing consumers cannot keep an order: use \
         a queue with a single active consumer, made with `cargo broker apply --queue NAME --ordered`, or do without order"
    )]
    QueueIsShared {
        /// Its name.
        queue: String,
        /// The delay queue that tells.
        delay_queue: String,
    },
    /// Without delay queues failed messages are retried in place, and the broker would take them away.
    #[error(
        "{queue} has no delay queue {delay_queue}, so that a message is retried in place and could be held for {held:?} before \
         it is settled, and the broker takes it away after 30 min: make the delay queues with `cargo broker apply --queue \
         {queue}`, or keep the retry delays and the handler deadline of each attempt under {:?} in all",
        HALF_OF_CONSUMER_TIMEOUT
    )]
    HeldTooLong {
        /// Its name.
        queue: String,
        /// The first delay queue that is missing.
        delay_queue: String,
        /// The sum of the times.
        held: Duration,
    },
    /// A message failed for good, and there is no parking queue.
    #[error(
        "message {message} failed for good ({error}) and was given back: {queue} has no parking queue {parking_queue} to put it \
         into; make one with `cargo broker apply --queue {queue}`, or let the handler drop it"
    )]
    NowhereToPark {
        /// The id of the message, or what is known of it.
        message: String,
        /// The last error.
        error: String,
        /// The queue it came from.
        queue: String,
        /// The queue that is missing.
        parking_queue: String,
    },
}

impl ConsumeError {
    /// Whether trying again without changing anything may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connect(error) => !error.is_permanent(),
            _ => false,
        }
    }
}

impl From<DeclareError> for ConsumeError {
    fn from(error: DeclareError) -> Self {
        match error {
            DeclareError::Connect(error) => Self::Connect(error),
            error => Self::Declare(Box::new(error)),
        }
    }
}
