//! The ends of a message: remembered and acknowledged, sent round, parked, given back.

use std::{
    collections::btree_map::Entry,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use correio_guarantees::{Place, jittered};
use correio_message::{Attempt, DeadLetter, DeadReason, DecodeError, Decoded, Envelope, dead_letter, lightened, retry};

use super::{Effect, Moment, Pipeline};
use crate::{
    budget::Budget,
    context::Received,
    copies::NotCopied,
    error::ConsumeError,
    held::{Copy, Copying, End, Stage, Ticket},
    processing::Acknowledgement,
    reply::Reply,
};

impl Pipeline {
    /// The work is done: the log is told before the broker.
    pub(super) fn remember(&mut self, ticket: Ticket, end: End, now: Moment) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        match held.claim() {
            Some(claim) => {
                held.stage = Stage::Remembering(end);
                self.log.to_remember.push((ticket, claim));
            }
            None => self.finish(ticket, end, now),
        }
    }

    /// The work is done and remembered.
    pub(super) fn finish(&mut self, ticket: Ticket, end: End, now: Moment) {
        let lost = self.is_lost(ticket);
        let Some(held) = self.held.get(&ticket) else { return };
        let reply = match end {
            End::Handled { reply } => {
                self.counts.handled(1);
                if held.place == Place::Late {
                    self.counts.out_of_order(1);
                }
                // Who asked is told that it is done, if there is nothing else to say.
                reply.unwrap_or_else(|| Reply::new(""))
            }
            End::Dropped { reason } => {
                self.counts.dropped(1);
                tracing::info!(message = held.name(), reason, "a message was dropped, as its handler asked");
                Reply::error("dropped", reason)
            }
        };
        if lost {
            self.counts.lost_acks(1);
        }
        self.done += 1;
        let is_answering = self.answer(ticket, reply, now);
        match self.held.get_mut(&ticket) {
            // It is acknowledged when its answer has arrived.
            Some(held) if is_answering && !lost => held.stage = Stage::Answering,
            _ => self.settle(ticket, now.at),
        }
    }

    /// Nothing is owed for this message any more: it is acknowledged, its number filled, its lane free.
    pub(super) fn settle(&mut self, ticket: Ticket, now: Instant) {
        let Some(held) = self.held.get(&ticket) else { return };
        self.order.on_settled(held.sequence(), held.place);
        let tag = held.tag;
        self.forget(ticket);
        self.acknowledge(tag, now);
    }

    pub(super) fn acknowledge(&mut self, tag: Option<u64>, now: Instant) {
        if let Some(tag) = tag {
            self.acks.on_settled(tag, now);
            self.settled += 1;
        }
    }

    /// The message is not held any more, however that came.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        let Some(held) = self.held.remove(&ticket) else { return };
        if held.started {
            self.begun -= 1;
        }
        // The later of two with one id has the entry.
        if let Some(id) = held.id
            && let Entry::Occupied(entry) = self.ids.entry(id)
            && *entry.get() == ticket
        {
            entry.remove();
        }
        if let Some(lane) = &held.lane {
            self.order.on_lane_free(lane);
        }
    }

    /// The claim on the message's id ends without its work being done.
    pub(super) fn abandon(&mut self, ticket: Ticket) {
        if let Some(claim) = self.held.get(&ticket).and_then(|held| held.claim()) {
            self.log.to_abandon.push(claim);
        }
    }

    /// Its channel is gone: whatever becomes of it here, the broker delivers it again.
    pub(super) fn is_lost(&self, ticket: Ticket) -> bool {
        self.rules.acknowledgement == Acknowledgement::AfterHandling
            && self.held.get(&ticket).is_some_and(|held| held.tag.is_none())
    }

    /// A copy goes through the delay queue; once it is confirmed, the original is acknowledged.
    pub(super) fn send_round(&mut self, ticket: Ticket, delay: Duration, attempt: NonZeroU32, now: Moment) {
        let Some(queue) = self.rules.company.delay_queue(delay) else {
            // Asked for by nobody: the delays are the schedule's, and each has its queue or none is used.
            return self.wait_in_place(ticket, delay, attempt, now);
        };
        let Some(held) = self.held.get(&ticket) else { return };
        // Never early: the jitter is on top of the delay, and the copy's own expiry.
        let wait = jittered(delay, (self.rules.jitter)());
        let said = Attempt { number: attempt, first_failed_at_us: held.first_failed_at_us.unwrap_or(now.unix_us) };
        let envelope = retry(&held.envelope, queue, wait, said);
        self.copy(ticket, Copy::Retry { envelope, due: now.at + wait, delay, attempt });
    }

    /// The message keeps its place, and its key waits; it holds no handler meanwhile.
    pub(super) fn wait_in_place(&mut self, ticket: Ticket, delay: Duration, attempt: NonZeroU32, now: Moment) {
        if self.stopping {
            return self.give_back(ticket);
        }
        let Some(held) = self.held.get_mut(&ticket) else { return };
        held.attempt = attempt;
        held.stage = Stage::Waiting;
        self.timers.insert((now.at + jittered(delay, (self.rules.jitter)()), ticket));
    }

    /// A copy goes to the parking queue; once it is confirmed, the original is acknowledged.
    pub(super) fn park(&mut self, ticket: Ticket, reason: DeadReason, error: String, now: Moment) {
        let Some(held) = self.held.get(&ticket) else { return };
        if !self.rules.company.can_park {
            return self.end_for_want_of_a_parking_queue(ticket, error);
        }
        let letter = DeadLetter {
            reason,
            error,
            queue: self.rules.queue.clone(),
            at_us: now.unix_us,
            attempts: held.attempt,
            first_failed_at_us: held.first_failed_at_us,
            remembered_for_us: self.rules.retention.map(|kept| kept.as_micros().try_into().unwrap_or(u64::MAX)),
        };
        let envelope = dead_letter(&held.envelope, self.rules.company.parking.clone(), &letter);
        self.copy(ticket, Copy::DeadLetter { envelope, reason, error: letter.error });
    }

    /// Parks what is larger than the memory budget has room for, as it is.
    pub(super) fn park_oversized(
        &mut self,
        owed: Option<u64>,
        redelivered: bool,
        envelope: Envelope,
        decoded: Result<Decoded, DecodeError>,
        now: Moment,
    ) {
        let bytes = envelope.body.len() + envelope.properties.weight();
        let Budget { largest, prefetch, bytes: budget } = self.rules.budget;
        let sequence = match &decoded {
            Ok(decoded) => decoded.message.sequence.clone(),
            Err(error) => error.sequence.as_deref().cloned(),
        };
        let received = decoded.ok().map(|decoded| Arc::new(Received { decoded, redelivered }));
        let ticket = self.hold(owed, envelope, received, None);
        if let Some(sequence) = &sequence {
            self.order.on_filled(sequence, now.at);
        }
        let error = format!(
            "it has {bytes} bytes and this consumer takes {largest}, as {prefetch} of them may be held within a memory budget of \
             {budget}: raise --memory-budget, or set --largest-message, which cuts the prefetch"
        );
        self.park(ticket, DeadReason::TooLarge, error, now);
    }

    pub(super) fn copy(&mut self, ticket: Ticket, copy: Copy) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        let envelope: Envelope = copy.envelope().clone();
        held.stage = Stage::Copying(Box::new(Copying { copy, tries: 0 }));
        self.effects.push(Effect::Publish { ticket, copy: Box::new(envelope) });
    }

    /// What became of a copy: on its queue, or why that is not known.
    pub(crate) fn on_copy(&mut self, ticket: Ticket, outcome: Result<(), NotCopied>, now: Moment) {
        if self.answers.contains_key(&ticket) {
            return self.on_answer(ticket, outcome, now);
        }
        // Its channel may be gone: the original comes again, and deduplication knows the copy by its id.
        let Some(held) = self.held.get_mut(&ticket) else { return };
        let name = held.name();
        let Stage::Copying(copying) = &mut held.stage else { return };
        let Copying { copy, tries } = &mut **copying;
        match outcome {
            Ok(()) => {
                let mut failed = None;
                match copy {
                    Copy::Retry { due, .. } => {
                        let due = (*due).max(now.at);
                        self.retry_due = Some(self.retry_due.map_or(due, |other| other.max(due)));
                    }
                    Copy::GivenBack { .. } => self.counts.not_started(1),
                    Copy::DeadLetter { reason, error, .. } => {
                        tracing::warn!(message = name, %reason, error, "a message was parked as a dead letter");
                        self.counts.dead(1);
                        self.done += 1;
                        failed = Some(Reply::error(reason.as_str(), std::mem::take(error)));
                    }
                }
                if let Some(failed) = failed {
                    self.answer(ticket, failed, now);
                }
                // The letter is safe: not a second one for want of an answer.
                self.settle(ticket, now.at);
            }
            Err(cause) => {
                *tries += 1;
                let tries = *tries;
                self.counts.unconfirmed_copies(1);
                tracing::warn!(message = name, tries, %cause, "a copy was not confirmed; the original stays unsettled");
                match (copy, cause) {
                    (Copy::Retry { delay, attempt, .. }, NotCopied::NoQueue(_) | NotCopied::Unsendable(_)) => {
                        // The broker has no copy: the queue is gone, or was never seen because the login may not look; or the message is
                        // more than a copy can carry.
                        let (delay, attempt) = (*delay, *attempt);
                        self.wait_in_place(ticket, delay, attempt, now);
                    }
                    (Copy::GivenBack { .. }, NotCopied::NoQueue(_)) => self.give_back(ticket),
                    (Copy::DeadLetter { envelope, .. }, NotCopied::Unsendable(_))
                        if let Some(light) = lightened(envelope) =>
                    {
                        envelope.clone_from(&light);
                        self.effects.push(Effect::Publish { ticket, copy: Box::new(light) });
                    }
                    _ if tries < MOST_TRIES => {
                        let wait = FIRST_PAUSE.saturating_mul(1 << (tries - 1));
                        let due = now.at + jittered(wait, (self.rules.jitter)());
                        self.timers.insert((due, ticket));
                    }
                    (Copy::DeadLetter { error, .. }, NotCopied::NoQueue(_)) => {
                        let error = std::mem::take(error);
                        self.end_for_want_of_a_parking_queue(ticket, error);
                    }
                    // One message given back would be overtaken by those behind it; with the channel all go back.
                    _ if self.rules.processing.is_ordered() && !self.stopping => {
                        self.effects.push(Effect::CloseChannel);
                    }
                    _ => self.give_back(ticket),
                }
            }
        }
    }

    /// Going on would hand this message out for ever: it is given back, and an operator has to make the queue.
    fn end_for_want_of_a_parking_queue(&mut self, ticket: Ticket, error: String) {
        let Some(held) = self.held.get(&ticket) else { return };
        let failure = ConsumeError::NowhereToPark {
            message: held.name(),
            error,
            queue: self.rules.queue.to_string(),
            parking_queue: self.rules.company.parking.to_string(),
        };
        tracing::error!(%failure, "nowhere to park a message");
        // Acknowledged on receipt, it cannot come again.
        if self.rules.acknowledgement == Acknowledgement::AfterHandling {
            self.effects.push(Effect::End(failure));
        }
        self.give_back(ticket);
    }

    /// The message is not done with here. Unordered, it is given back now; ordered, with its channel, because the
    /// broker keeps the order only then.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        match held.tag {
            Some(_) if self.rules.processing.is_ordered() => {
                held.stage = Stage::Waiting;
                return;
            }
            Some(tag) => {
                if held.started || matches!(held.stage, Stage::Copying(_)) {
                    self.counts.handed_back(1);
                } else {
                    self.counts.not_started(1);
                }
                self.effects.push(Effect::GiveBack { tag });
            }
            None if self.rules.acknowledgement == Acknowledgement::OnDelivery => {
                tracing::error!(message = held.name(), "a message is lost: it was acknowledged on receipt");
                self.counts.lost(1);
            }
            // Its channel is gone, and it comes again.
            None => {}
        }
        self.forget(ticket);
    }

    /// The frame that gives this delivery back is on its way.
    pub(crate) fn on_given_back(&mut self, tag: u64) {
        self.acks.on_given_back(tag);
    }
}

/// How often a copy is published before its message is given back: with the pauses about a minute.
const MOST_TRIES: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
