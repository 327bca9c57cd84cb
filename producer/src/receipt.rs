//! The promise of an outcome.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use correio_message::MessageId;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    error::{ForwardError, SendError},
    outcome::Outcome,
    submission::{Answer, Cargo},
    telemetry::Publishing,
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
    pub(crate) answer: oneshot::Receiver<Answer>,
}

/// The other end: who waits for the outcome, and since when.
#[derive(Debug)]
pub(crate) struct Promise {
    answer: oneshot::Sender<Answer>,
    span: Publishing,
    /// When the message was accepted.
    pub(crate) since: Option<Instant>,
}

impl Pending {
    /// Both ends.
    pub(crate) fn new(id: MessageId, span: Publishing) -> (Promise, Self) {
        let (tell, answer) = oneshot::channel();
        (Promise { answer: tell, span, since: None }, Self { id, answer })
    }
}

impl Promise {
    /// Its message was accepted then.
    pub(crate) fn made(self, since: Instant) -> Self {
        Self { since: Some(since), ..self }
    }

    /// Tells what became of it; given back if nobody wants to know.
    pub(crate) fn send(self, answer: Answer) -> Result<(), Answer> {
        match &answer {
            Ok(outcome) => self.span.on_outcome(outcome),
            Err(never_left) => self.span.on_failure(&never_left.cause),
        }
        // It ends before its sender hears of it.
        drop(self.span);
        self.answer.send(answer)
    }
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
