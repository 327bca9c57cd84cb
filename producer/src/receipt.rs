//! The promise of an outcome.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use correio_message::MessageId;
use tokio::sync::oneshot;

use crate::outcome::Outcome;

/// A message is on its way; await this to learn what became of it.
///
/// Many receipts may be held at once: that is what makes sending fast. Dropping one loses the outcome, not the
/// message.
///
/// # Cancel safety
///
/// Cancel safe: polled again, it goes on waiting.
#[derive(Debug)]
#[must_use = "an unread outcome is an unnoticed loss"]
pub struct Receipt {
    pub(crate) id: MessageId,
    pub(crate) outcome: oneshot::Receiver<Outcome>,
}

impl Receipt {
    /// The id under which the message was sent.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.id
    }
}

impl Future for Receipt {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        // The sender goes without an answer only when its task was torn down, and the message may have left before.
        Pin::new(&mut self.outcome).poll(cx).map(|answer| answer.unwrap_or(Outcome::Unknown { tries: 1 }))
    }
}
