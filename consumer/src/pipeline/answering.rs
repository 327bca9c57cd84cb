//! Answers to who asked: on their way until they have arrived, or nobody waits for them any more.

use std::{sync::Arc, time::Duration};

use correio_guarantees::jittered;
use correio_message::{Durability, Envelope};

use super::{Effect, Moment, Pipeline};
use crate::{
    context::Received,
    copies::NotCopied,
    held::{Stage, Ticket},
    reply::Reply,
};

/// An answer on its way.
#[derive(Debug)]
pub(crate) struct Answering {
    request: Arc<Received>,
    envelope: Envelope,
    /// How often it was published without being confirmed.
    tries: u32,
}

impl Pipeline {
    /// Sends an answer, if the message asks for one.
    pub(super) fn answer(&mut self, ticket: Ticket, reply: Reply, now: Moment) -> bool {
        let Some(request) = self.held.get(&ticket).and_then(|held| held.received.clone()) else { return false };
        if request.decoded.message.reply_to.as_ref().is_none_or(|reply_to| reply_to.is_empty()) {
            return false;
        }
        if self.may_not_answer {
            self.counts.unanswered(1);
            return false;
        }
        let Some(envelope) = self.on_the_wire(&request, reply, now) else { return false };
        self.effects.push(Effect::Publish { ticket, copy: Box::new(envelope.clone()) });
        self.answers.insert(ticket, Answering { request, envelope, tries: 0 });
        true
    }

    fn on_the_wire(&self, request: &Received, reply: Reply, now: Moment) -> Option<Envelope> {
        let message = reply.addressed_for(&request.decoded.message, &self.rules.queue, now.unix_us)?;
        Some(message.encode(Durability::Persistent))
    }

    /// What became of an answer.
    pub(super) fn on_answer(&mut self, ticket: Ticket, outcome: Result<(), NotCopied>, now: Moment) {
        let Some(mut answering) = self.answers.remove(&ticket) else { return };
        answering.tries += 1;
        let request = &answering.request.decoded.message;
        let is_waited_for = request.deadline_us.is_none_or(|deadline| deadline > now.unix_us);
        match outcome {
            Ok(()) => self.counts.replied(1),
            Err(NotCopied::Unsendable(why)) if answering.tries == 1 => {
                tracing::warn!(request = %Named(request), why, "an answer cannot be sent; who asked is told that");
                if let Some(envelope) = self.on_the_wire(&answering.request, Reply::error("unsendable", why), now) {
                    self.effects.push(Effect::Publish { ticket, copy: Box::new(envelope.clone()) });
                    self.answers.insert(ticket, Answering { envelope, ..answering });
                    return;
                }
            }
            Err(NotCopied::Unconfirmed(why))
                if answering.tries < MOST_TRIES && is_waited_for && !is_forbidden(&why) =>
            {
                tracing::warn!(request = %Named(request), tries = answering.tries, why, "an answer was not confirmed");
                let pause = FIRST_PAUSE.saturating_mul(1 << (answering.tries - 1));
                self.timers.insert((now.at + jittered(pause, (self.rules.jitter)()), ticket));
                self.answers.insert(ticket, answering);
                return;
            }
            Err(cause) => {
                self.counts.unanswered(1);
                tracing::warn!(request = %Named(request), %cause, "an answer did not arrive: who asked is gone, or out of reach");
                // Each try would cost the channel of all copies.
                self.may_not_answer |= is_forbidden(&cause.to_string());
            }
        }
        if self.held.get(&ticket).is_some_and(|held| matches!(held.stage, Stage::Answering)) {
            self.settle(ticket, now.at);
        }
    }

    /// It is time to publish this answer again.
    pub(super) fn answer_again(&mut self, ticket: Ticket) {
        if let Some(answering) = self.answers.get(&ticket) {
            self.effects.push(Effect::Publish { ticket, copy: Box::new(answering.envelope.clone()) });
        }
    }

    /// There is no more time for answers.
    pub(super) fn give_answers_up(&mut self) {
        self.counts.unanswered(self.answers.len());
        self.answers.clear();
    }
}

/// The exchange for answers is not there, or this user may not write to it.
fn is_forbidden(why: &str) -> bool {
    ["404 ", "403 "].iter().any(|code| why.contains(code))
}

struct Named<'m>(&'m correio_message::Message);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.id {
            Some(id) => id.fmt(f),
            None => f.write_str("without an id"),
        }
    }
}

/// With the pauses about a minute; the request's own deadline may end it before.
const MOST_TRIES: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
