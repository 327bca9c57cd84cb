//! The promise of an outcome.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use correio_message::MessageId;

use crate::{
    error::{ForwardError, SendError},
    outcome::Outcome,
    submission::{Answer, Cargo},
};

/// A message is on its way; await this to learn what became of it.
///
/// Many receipts may be held at once: that is what makes sending fast. Dropping one loses the outcome, not the
/// message.
///
/// # Errors
///
/// [`SendError`] if its turn never came: the message was never published, and here it is back.
///
/// # Cancel safety
///
/// Cancel safe: polled again, it goes on waiting.
#[derive(Debug)]
#[must_use = "an unread outcome is an unnoticed loss"]
pub struct Receipt(pub(crate) Pending);

/// As a [`Receipt`], of an envelope that was forwarded.
#[derive(Debug)]
#[must_use = "an unread outcome is an unnoticed loss"]
pub struct ForwardReceipt(pub(crate) Pending);

/// What both receipts wait for.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) id: MessageId,
    pub(crate) answer: tokio::sync::oneshot::Receiver<Answer>,
}

impl Receipt {
    /// The id under which the message was sent.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.0.id
    }
}

impl ForwardReceipt {
    /// The id under which the envelope was sent.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.0.id
    }
}

impl Future for Receipt {
    type Output = Result<Outcome, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0
            .poll(cx)
            .map_err(|never_left| SendError { message: never_left.cargo.into_message(), cause: never_left.cause })
    }
}

impl Future for ForwardReceipt {
    type Output = Result<Outcome, ForwardError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map_err(|never_left| match never_left.cargo {
            Cargo::Envelope(envelope) => ForwardError { envelope, cause: never_left.cause },
            Cargo::Message(_) | Cargo::Delayed(_) => unreachable!("an envelope was put in"),
        })
    }
}

impl Pending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        // Its sender goes without an answer only when its task was torn down, and the message may have left before.
        Pin::new(&mut self.answer).poll(cx).map(|answer| answer.unwrap_or(Ok(Outcome::Unknown { tries: 1 })))
    }
}
