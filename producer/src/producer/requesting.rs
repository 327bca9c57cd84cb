//! Asking and waiting for the reply.

use std::{sync::PoisonError, time::Duration};

use correio_broker_config::{ConnectionSettings, Connections, Purpose};
use correio_message::Message;
use futures_util::FutureExt;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::Producer;
use crate::{
    error::SendFailure,
    outcome::Outcome,
    reply_channel::{Readiness, ReplyChannel},
    request_error::RequestError,
    requests::Ended,
    submission::Patience,
};

impl Producer {
    /// Asks a service and waits for its reply.
    ///
    /// Many requests may be in flight at once; each gets its own reply, matched by the request's id, which becomes its
    /// correlation id too. Replies come to a queue
    /// of this producer's own, which the first request makes and [`close`](Self::close) deletes; it outlives a lost
    /// connection, and so do the requests in flight. The request is sent as by [`send`](Self::send), so that a
    /// service may get it twice under one id; the second reply is dropped and counted.
    ///
    /// The deadline is for all of it: a place among the requests, the reply queue, room in the buffer, the confirm and the
    /// reply. It travels with the request, and past it nobody begins to work on it: by the clock of who would, so that the
    /// clocks must agree better than the deadline is long.
    ///
    /// One id is one request: asked again under an id that was handled, a service answers with the error `already-handled`.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: at once if nobody lives there, the reply's own error if the service could not do it, and by the
    /// deadline whatever happens.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves nothing behind here; the request may be worked on all the same, and its reply is then dropped and
    /// counted as late.
    pub async fn request(&self, mut message: Message, deadline: Duration) -> Result<Message, RequestError> {
        let deadline = deadline.min(LONGEST_REQUEST);
        let until = Instant::now() + deadline;
        let shared = &self.shared;
        let passed = |outcome| RequestError::DeadlinePassed { after: deadline, outcome };
        let _place = timeout_at(until, shared.requests.place()).await.map_err(|_| passed(None))??;
        self.reply_queue_within(until, deadline).await?;

        let id = message.id.get_or_insert_with(crate::fresh_id).clone();
        let (now, left) = (crate::now_us(), until.saturating_duration_since(Instant::now()));
        message.reply_to = Some(shared.reply_queue.name().clone());
        // What any service gives back, ours or another's.
        message.correlation_id = Some(id.to_text());
        message.sent_at_us = Some(now);
        message.deadline_us = Some(now.saturating_add(u64::try_from(left.as_micros()).unwrap_or(u64::MAX)));
        // Before it is sent: no reply can come too early.
        let (_in_flight, mut reply) = shared.requests.begin(&id, until)?;
        let patience = self.patience();
        let patience = Patience { room: patience.room.min(left), expires: Some(until), ..patience };
        let mut receipt = self.submit_with(message, patience).await.map_err(|error| match error.cause {
            SendFailure::Closed => RequestError::Closed,
            _ => RequestError::NotSent(error),
        })?;

        let mut known = None;
        let ended = loop {
            tokio::select! {
                biased; // a reply says more than a confirm
                ended = &mut reply => break ended,
                outcome = &mut receipt, if known.is_none() => match outcome {
                    Ok(outcome) => known = Some(reachable(outcome)?),
                    Err(error) => return Err(match error.cause {
                        // Its own lifetime was shorter.
                        SendFailure::Expired { .. } if Instant::now() < until => RequestError::NotSent(error),
                        SendFailure::NotPublished { .. } | SendFailure::Expired { .. } => passed(None),
                        SendFailure::Closed => RequestError::Closed,
                        _ => RequestError::NotSent(error),
                    }),
                },
            }
        };
        match ended {
            Ok(Ended::Replied(mut reply)) => match reply.error.take() {
                None => Ok(*reply),
                Some(error) => Err(RequestError::Remote(error)),
            },
            Ok(Ended::Unreadable(error)) => Err(RequestError::UnreadableReply(error)),
            Ok(Ended::DeadlinePassed) => {
                let last = known.is_none().then(|| receipt.now_or_never()).flatten().and_then(Result::ok);
                Err(passed(last.map(reachable).transpose()?.or(known)))
            }
            Ok(Ended::Closed) | Err(_) => Err(RequestError::Closed),
        }
    }

    /// Waits until replies can come.
    async fn reply_queue_within(&self, until: Instant, deadline: Duration) -> Result<(), RequestError> {
        let mut readiness = match self.replies_begun() {
            Some(readiness) => readiness,
            None => timeout_at(until, self.open_replies())
                .await
                .map_err(|_| RequestError::DeadlinePassed { after: deadline, outcome: None })?,
        };
        let decided = async {
            let known = readiness.wait_for(|now| !matches!(now, Readiness::Starting(_))).await;
            known.map(|known| known.clone()).map_err(|_| RequestError::Closed)
        };
        let known = match timeout_at(until, decided).await {
            Ok(known) => known?,
            Err(_) => readiness.borrow().clone(),
        };
        match known {
            Readiness::Ready => Ok(()),
            Readiness::Failed(error) | Readiness::Starting(Some(error)) => Err(RequestError::NoReplyQueue(error)),
            Readiness::Starting(None) => Err(RequestError::DeadlinePassed { after: deadline, outcome: None }),
        }
    }

    /// The task that owns the reply queue, unless there is none or it has failed.
    fn replies_begun(&self) -> Option<watch::Receiver<Readiness>> {
        let begun = self.shared.replies.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let has_failed = matches!(*begun.borrow(), Readiness::Failed(_));
        (!has_failed).then_some(begun)
    }

    async fn open_replies(&self) -> watch::Receiver<Readiness> {
        let shared = &self.shared;
        let mut tasks = shared.tasks.lock().await;
        if let Some(begun) = self.replies_begun() {
            return begun;
        }
        let named = ConnectionSettings::new("producer", shared.settings.origin.as_str(), Purpose::Consume);
        let (channel, readiness) = ReplyChannel::new(
            Connections::new(shared.settings.address.clone(), named),
            shared.reply_queue.clone(),
            shared.requests.clone(),
            shared.closing.clone(),
            shared.give_up.clone(),
        );
        // Closed meanwhile, nobody would wait for it: dropped, it says so to who waits for its readiness.
        if !shared.closing.is_cancelled() {
            tasks.retain(|task| !task.is_finished());
            tasks.push(tokio::spawn(channel.run()));
        }
        *shared.replies.lock().unwrap_or_else(PoisonError::into_inner) = Some(readiness.clone());
        readiness
    }
}

/// What is known about a request whose reply may still come; an error if none can.
fn reachable(outcome: Outcome) -> Result<Outcome, RequestError> {
    match outcome {
        Outcome::Unroutable { reason, .. } => Err(RequestError::NoSuchService { reason }),
        Outcome::Refused { reason, .. } => Err(RequestError::Refused { reason }),
        Outcome::Confirmed { .. } | Outcome::Unknown { .. } => Ok(outcome),
    }
}

/// The longest that a message can say that it may live: about 49 days.
const LONGEST_REQUEST: Duration = Duration::from_millis(u32::MAX as u64);
