//! Dead letters: looking at them without harm, and giving them another life.
//!
//! The dead letters of the work queue `orders` wait in its parking queue `orders.dead`. [`DeadLetters::list`] and
//! [`DeadLetters::look`] read them and give every one back: a hundred looks leave a letter where it is.
//! [`DeadLetters::replay`] publishes a copy of each that is wanted to its work queue, under the same identity, and takes
//! the letter off the parking queue only after the broker confirmed the copy. [`DeadLetters::purge`] takes letters off
//! for good. Which of them is said by one [`LettersFilter`].

mod filter;
mod groups;
mod letter;
mod look;
mod pace;
mod parking;
mod purge;
mod remembered;
mod replay;
mod summary;
mod walk;

use std::time::Duration;

use correio_broker_config::{Address, ConnectError};
use correio_message::{ShortText, TooLong};

pub use filter::LettersFilter;
pub use groups::{DeadLetterGroup, DeadLetterGroups};
pub use letter::Letter;
pub use look::{Listing, Look, Looked};
pub use purge::{Purge, Purged};
pub use remembered::Remembered;
pub use replay::{Forgotten, Kept, ReplayPlan, ReplaySettings, Replayed};
pub use summary::DeadLetterSummary;
pub use walk::LookEnd;

use parking::Parking;

/// The dead letters of one work queue.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    address: Address,
    queue: ShortText,
}

impl DeadLetters {
    /// The dead letters of the work queue `queue` on this broker. Nothing is connected yet.
    #[must_use]
    pub fn of(address: Address, queue: ShortText) -> Self {
        Self { address, queue }
    }

    /// The work queue.
    #[must_use]
    pub fn queue(&self) -> &ShortText {
        &self.queue
    }

    async fn parking(&self) -> Result<Parking, DeadLettersError> {
        Parking::open(&self.address, &self.queue).await
    }
}

/// Why dead letters could not be read, replayed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLettersError {
    /// There is no broker, or it lets nobody in under this name.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The same, for the connection that publishes the copies.
    #[error("the connection that publishes the copies: {0}")]
    ConnectToPublish(#[source] ConnectError),
    /// The work queue has no parking queue.
    #[error(
        "there is no queue {parking}, where the dead letters of {queue} would wait: give the name of a work queue \
         (without .dead), or make what it lacks with `cargo broker apply --queue {queue}`"
    )]
    NoParkingQueue {
        /// The work queue.
        queue: ShortText,
        /// The queue that is not there.
        parking: ShortText,
    },
    /// The broker knows the user and does not let it do this.
    #[error("{step}: the broker does not allow it: {reason}; give the user read access to the queue, or use another")]
    NotAllowed {
        /// What was asked.
        step: &'static str,
        /// The broker's words.
        reason: String,
    },
    /// No answer in time.
    #[error("{step}: no answer from the broker within {after:?}")]
    TimedOut {
        /// What was asked.
        step: &'static str,
        /// How long it waited.
        after: Duration,
    },
    /// The broker, or the connection to it, ended the work.
    #[error("{step}: {reason}")]
    Broker {
        /// What was asked.
        step: &'static str,
        /// The broker's or the client's words.
        reason: String,
    },
    /// A replay was cut short. Nothing is lost: a letter whose copy was confirmed may still be parked, and a second
    /// replay of it is a duplicate with the same id.
    #[error("the replay was cut short after {} of them: {cause}; no letter is lost, replay again", .done.replayed)]
    CutShort {
        /// What was done until then.
        done: Box<Replayed>,
        /// What ended it.
        #[source]
        cause: Box<DeadLettersError>,
    },
    /// The parking queue's name would be over 255 bytes.
    #[error("the name of the parking queue: {0}")]
    NameTooLong(#[from] TooLong),
}
