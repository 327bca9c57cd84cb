//! What a handler is told beside the payload.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

use correio_message::{Decoded, Key, Message, MessageId, Original, Sequence, ShortText};
use tokio_util::sync::CancellationToken;

/// What is known about a delivery, for its handler. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub(crate) received: Arc<Received>,
    pub(crate) attempt: NonZeroU32,
    pub(crate) late: bool,
    pub(crate) subscription: Arc<str>,
    pub(crate) stopping: CancellationToken,
    /// The transaction that the message is remembered in.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) transaction: Option<Arc<dyn crate::transaction::AnySlot>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("received", &self.received)
            .field("attempt", &self.attempt)
            .field("late", &self.late)
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

/// A decoded delivery, shared between the pipeline and its handler.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) decoded: Decoded,
    pub(crate) redelivered: bool,
}

impl Context {
    /// The whole message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.received.decoded.message
    }

    /// What makes two deliveries the same message. `None`: its sender gave it none, and nobody can tell a
    /// second copy of it from a second message.
    #[must_use]
    pub fn id(&self) -> Option<&MessageId> {
        self.message().id.as_ref()
    }

    /// The application that sent it, as it says itself.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.message().origin.as_ref().map(ShortText::as_str)
    }

    /// What it is ordered by.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.message().key.as_ref()
    }

    /// Its place among those with the same key.
    #[must_use]
    pub fn sequence(&self) -> Option<&Sequence> {
        self.message().sequence.as_ref()
    }

    /// When it was first sent, by its sender's clock.
    #[must_use]
    pub fn sent_at(&self) -> Option<SystemTime> {
        self.message().sent_at_us.map(|us| SystemTime::UNIX_EPOCH + Duration::from_micros(us))
    }

    /// Whether its sender waits for an answer: what the handler returns as a [`Reply`](crate::Reply), or just that it is done.
    #[must_use]
    pub fn wants_reply(&self) -> bool {
        self.message().reply_to.as_ref().is_some_and(|reply_to| !reply_to.is_empty())
    }

    /// When its sender stops waiting for the answer, by the sender's clock.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(self.message().deadline_us?))
    }

    /// Which attempt at handling it this is, from 1; counted across restarts where it went through delay queues.
    #[must_use]
    pub fn attempt(&self) -> NonZeroU32 {
        self.attempt
    }

    /// Whether the broker has delivered it before. `false` does not mean that it is new: a sender's own second
    /// copy says `false` as well.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.received.redelivered
    }

    /// Whether it came after its place in the order had been given up.
    #[must_use]
    pub fn late(&self) -> bool {
        self.late
    }

    /// How it was first published: route, checked user, expiry; retries and replays do not change it.
    #[must_use]
    pub fn original(&self) -> &Original {
        &self.received.decoded.original
    }

    /// What this consumer is subscribed to: the queue, or the name given to the builder.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// Cancelled when the consumer begins to stop. The handler may go on until the drain deadline; one that
    /// waits for something long can end early with an error: its message is retried, here or by another consumer.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }
}
