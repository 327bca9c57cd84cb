//! The way of a message through a consumer: decode → order → admit → handle → remember → settle.
//!
//! A state machine: it is told what happened (`on_…`), gives out what is to be done ([`Effect`], [`LogCall`],
//! acknowledgements) and does nothing itself. What it promises:
//!
//! - Order comes before admission: a duplicate takes its place in the order too, so that it leaves no false gap. Every
//!   final settlement fills its number.
//! - The claim on an id is taken when handling starts and ends before the message is settled: remembered after the
//!   work, before the acknowledgement; abandoned after a failure.
//! - A message is settled when it was handled and remembered, when it is known to have been, when its handler asked to
//!   drop it, or when a copy of it is confirmed elsewhere; an acknowledgement covers nothing else.
//! - What is held is bounded by the prefetch.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

use correio_guarantees::{Ack, AckPlanner, Breaker, BreakerLimits, HandledId, Place};
use correio_message::{DeadReason, Decoded, Envelope, Message, ShortText};
use tokio_util::sync::CancellationToken;

use crate::{
    budget::Budget,
    context::{Context, Received},
    counts::Counts,
    error::ConsumeError,
    handler::{AnyHandler, Handlers},
    held::{Held, Stage, Ticket},
    order::Order,
    processing::{Acknowledgement, Processing},
    startup::Company,
};

mod answering;
mod breaking;
mod handling;
mod logging;
mod settling;
mod stopping;
mod suspecting;
#[cfg(test)]
mod tests;

pub(crate) use logging::{LogAnswer, LogCall};

/// What a pipeline goes by.
pub(crate) struct Rules {
    pub(crate) queue: ShortText,
    pub(crate) subscription: Arc<str>,
    pub(crate) processing: Processing,
    pub(crate) budget: Budget,
    pub(crate) acknowledgement: Acknowledgement,
    pub(crate) deduplicate: bool,
    /// When handling pauses because everything fails; `None`: never.
    pub(crate) breaker: Option<BreakerLimits>,
    /// Messages are handled in batches, each in one transaction of the log.
    pub(crate) in_transactions: bool,
    /// How long handled ids are remembered, where they are: dead letters say it.
    pub(crate) retention: Option<Duration>,
    pub(crate) company: Company,
    pub(crate) stop_after_count: Option<NonZeroU64>,
    pub(crate) handlers: Arc<Handlers>,
    /// Told to handlers.
    pub(crate) stopping: CancellationToken,
    /// The queue has one active consumer at a time, and others may stand by.
    pub(crate) single_active: bool,
    /// How long a claim on an id stands without its owner.
    pub(crate) lease: Duration,
    /// Between 0 and 1: spreads what failed together.
    pub(crate) jitter: fn() -> f64,
    /// Where the fences of its claims count from: random, so that no other consumer's are the same.
    pub(crate) first_fence: u64,
}

/// What a pipeline asks for.
pub(crate) enum Effect {
    /// Run this handler and report its end with [`Pipeline::on_result`].
    Handle { ticket: Ticket, handler: Arc<dyn AnyHandler>, context: Context },
    /// Publish this copy and report what became of it with [`Pipeline::on_copy`].
    Publish { ticket: Ticket, copy: Box<Envelope> },
    /// Give this delivery back to the queue and say so with [`Pipeline::on_given_back`].
    GiveBack { tag: u64 },
    /// Close the channel: everything on it goes back in order.
    CloseChannel,
    /// End the consumer.
    End(ConsumeError),
}

/// One delivery as the broker made it.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) envelope: Envelope,
}

/// A moment by both clocks: one to measure with, one to write into headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) unix_us: u64,
}

/// The messages that a consumer holds, and what is to happen to them next.
pub(crate) struct Pipeline {
    rules: Rules,
    counts: Counts,
    // In boxes, because a map moves its entries about.
    held: BTreeMap<Ticket, Box<Held>>,
    last_ticket: u64,
    /// The identities of what is held and not settled; of two with the same one, the later.
    ids: BTreeMap<HandledId, Ticket>,
    order: Order,
    /// To be handled again, before anything new.
    again: VecDeque<Ticket>,
    /// Answers on their way, some of them to messages that are not held any more.
    answers: BTreeMap<Ticket, answering::Answering>,
    /// Answers are refused here, each at the price of a channel.
    may_not_answer: bool,
    /// When something that waits is to go on.
    timers: BTreeSet<(Instant, Ticket)>,
    /// How many handlers are at work or about to be.
    busy: usize,
    /// How many messages were begun and are not settled.
    begun: u64,
    /// How many were settled by their handlers' word.
    done: u64,
    acks: AckPlanner,
    /// Settled since acknowledgements were last taken.
    settled: usize,
    log: logging::Waiting,
    breaker: Option<Breaker>,
    /// Whether the next probe is of a message that has not failed.
    probes_new: bool,
    next_fence: u64,
    suspected: suspecting::Suspected,
    effects: Vec<Effect>,
    /// Nothing new is begun.
    stopping: bool,
    /// When the last copy that went round is due here again.
    retry_due: Option<Instant>,
}

impl Pipeline {
    pub(crate) fn new(rules: Rules, counts: Counts) -> Self {
        let next_fence = rules.first_fence;
        let breaker = rules.breaker.map(Breaker::new);
        let batch = usize::from(rules.budget.prefetch / 10).clamp(1, 100);
        Self {
            order: Order::new(&rules.processing),
            acks: AckPlanner::new(batch, ACK_LINGER),
            suspected: suspecting::Suspected::new(&rules.processing, rules.acknowledgement, rules.single_active),
            rules,
            counts,
            held: BTreeMap::new(),
            last_ticket: 0,
            ids: BTreeMap::new(),
            again: VecDeque::new(),
            answers: BTreeMap::new(),
            may_not_answer: false,
            timers: BTreeSet::new(),
            busy: 0,
            begun: 0,
            done: 0,
            settled: 0,
            log: logging::Waiting::default(),
            breaker,
            probes_new: false,
            next_fence,
            effects: Vec::new(),
            stopping: false,
            retry_due: None,
        }
    }

    /// A new channel is subscribed: its tags count from 1, and the clocks of gaps run.
    pub(crate) fn on_subscribed(&mut self, now: Instant) {
        self.acks.on_channel_opened();
        self.settled = 0;
        self.order.on_subscribed(now);
        self.on_room();
    }

    /// A message was delivered.
    pub(crate) fn on_delivery(&mut self, delivery: Delivery, now: Moment) {
        self.counts.received(1);
        self.acks.on_delivered(delivery.tag);
        if self.stopping {
            self.return_unstarted(delivery.tag);
            return;
        }
        if let Some(delivery) = self.look_at(delivery, now) {
            self.take_in(delivery, now);
        }
    }

    /// A message is read and takes its place in the order.
    fn take_in(&mut self, delivery: Delivery, now: Moment) {
        let Delivery { tag, redelivered, envelope } = delivery;
        let owed = match self.rules.acknowledgement {
            Acknowledgement::AfterHandling => Some(tag),
            Acknowledgement::OnDelivery => {
                self.acks.on_settled(tag, now.at);
                self.settled += 1;
                None
            }
        };
        let bytes = envelope.body.len() + envelope.properties.weight();
        let decoded = envelope.decode();
        if bytes > self.rules.budget.largest {
            return self.park_oversized(owed, redelivered, envelope, decoded, now);
        }
        match decoded {
            // It takes its turn as a message does: acknowledged before those in front of it, it would be gone when they come again.
            Ok(decoded) if decoded.is_marker => {
                let received = Arc::new(Received { decoded, redelivered });
                let ticket = self.hold(owed, envelope, Some(Arc::clone(&received)), None);
                self.order.on_delivery(ticket, &received.decoded.message, 0, now.at);
            }
            Ok(decoded) => self.on_readable(owed, redelivered, envelope, decoded, now),
            Err(error) => {
                let ticket = self.hold(owed, envelope, None, None);
                if let Some(sequence) = &error.sequence {
                    self.order.on_filled(sequence, now.at);
                }
                self.park(ticket, DeadReason::Unreadable, error.to_string(), now);
            }
        }
    }

    fn on_readable(&mut self, owed: Option<u64>, redelivered: bool, envelope: Envelope, decoded: Decoded, now: Moment) {
        let message = &decoded.message;
        let id = self.handled_id(message);
        if self.rules.deduplicate && id.is_none() {
            self.counts.without_id(1);
            tracing::debug!(route = %envelope.route, "a message without an id: a second copy of it would be handled too");
        }
        if let Some(first) = id.as_ref().and_then(|id| self.kept_first(id)) {
            // The first is unsettled on this channel, so the broker still holds it: this is its sender's second copy.
            self.counts.duplicates(1);
            if let Some(sequence) = &message.sequence
                && first
                    .sequence()
                    .is_none_or(|of_first| (&of_first.line, of_first.number) != (&sequence.line, sequence.number))
            {
                self.order.on_filled(sequence, now.at);
            }
            self.acknowledge(owed, now.at);
            return;
        }
        let bytes = envelope.body.len() + envelope.properties.weight();
        let received = Arc::new(Received { decoded, redelivered });
        let ticket = self.hold(owed, envelope, Some(Arc::clone(&received)), id);
        self.order.on_delivery(ticket, &received.decoded.message, bytes, now.at);
    }

    /// What it is remembered by; `None` without an id, or with deduplication off.
    fn handled_id(&self, message: &Message) -> Option<HandledId> {
        let id = message.id.clone().filter(|_| self.rules.deduplicate)?;
        Some(HandledId { subscription: Arc::clone(&self.rules.subscription), origin: message.origin.clone(), id })
    }

    /// The first delivery of this id, if the broker keeps it until it is handled.
    ///
    /// One whose copy is being published is acknowledged as soon as the copy is confirmed, and the copy may be here
    /// before its confirm: the two of them are each other's only hope, so both are held, and the log keeps them single.
    fn kept_first(&self, id: &HandledId) -> Option<&Held> {
        let first = self.ids.get(id).filter(|first| !self.is_lost(**first))?;
        self.held.get(first).map(|first| &**first).filter(|first| !matches!(first.stage, Stage::Copying(_)))
    }

    fn hold(
        &mut self,
        tag: Option<u64>,
        envelope: Envelope,
        received: Option<Arc<Received>>,
        id: Option<HandledId>,
    ) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        if let Some(id) = &id {
            self.ids.insert(id.clone(), ticket);
        }
        let decoded = received.as_ref().map(|received| &received.decoded);
        let held = Held {
            tag,
            attempt: decoded.map_or(std::num::NonZeroU32::MIN, |decoded| decoded.attempt),
            first_failed_at_us: decoded.and_then(|decoded| decoded.first_failed_at_us),
            envelope: Arc::new(envelope),
            received,
            id,
            fence: None,
            lane: None,
            place: Place::Unordered,
            stage: Stage::Ordering,
            started: false,
            accused: None,
        };
        self.held.insert(ticket, Box::new(held));
        ticket
    }

    /// Something that waited may go on.
    pub(crate) fn on_deadline(&mut self, now: Moment) {
        while let Some((due, ticket)) = self.timers.first().copied()
            && due <= now.at
        {
            self.timers.pop_first();
            self.on_timer(ticket);
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.on_deadline(now.at);
        }
        if !self.stopping {
            self.order.on_deadline(now.at);
        }
    }

    fn on_timer(&mut self, ticket: Ticket) {
        let Some(held) = self.held.get(&ticket).filter(|held| !matches!(held.stage, Stage::Answering)) else {
            return self.answer_again(ticket);
        };
        match &held.stage {
            Stage::Waiting => self.again.push_back(ticket),
            Stage::Copying(copying) => {
                let copy = copying.copy.envelope().clone();
                self.effects.push(Effect::Publish { ticket, copy: Box::new(copy) });
            }
            Stage::Ordering | Stage::Admitting | Stage::Handling | Stage::Remembering(_) | Stage::Answering => {}
        }
    }

    /// When [`on_deadline`](Self::on_deadline), the log or the acknowledgements want attention next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let gaps = self.order.next_deadline().filter(|_| !self.stopping);
        let timers = self.timers.first().map(|(due, _)| *due);
        let breaker = self.breaker.as_ref().and_then(Breaker::next_deadline);
        [timers, gaps, breaker, self.acks.next_deadline(), self.log.next_deadline()].into_iter().flatten().min()
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The acknowledgements that are due, and how many messages they stand for; `all`: due or not.
    pub(crate) fn take_acks(&mut self, now: Instant, all: bool) -> (Vec<Ack>, usize) {
        let acks = match (all, self.held.is_empty()) {
            (true, _) => self.acks.flush(),
            (false, true) => self.acks.take_acks_at_rest(now),
            (false, false) => self.acks.take_acks(now),
        };
        let covered = if acks.is_empty() { 0 } else { std::mem::take(&mut self.settled) };
        (acks, covered)
    }

    /// Whether one more delivery fits. What is acknowledged on receipt cannot go back, so that no more of it is taken
    /// than may be handled.
    pub(crate) fn has_room(&self) -> bool {
        let held = self.held.len() + self.answers.keys().filter(|ticket| !self.held.contains_key(ticket)).count();
        let on_receipt = self.rules.acknowledgement == Acknowledgement::OnDelivery;
        let most = self.rules.stop_after_count.filter(|_| on_receipt);
        held < usize::from(self.rules.budget.prefetch)
            && !self.has_suspect()
            && most.is_none_or(|most| most.get().saturating_sub(self.done) > held as u64)
    }

    /// How many messages are held.
    #[cfg(feature = "metrics")]
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// … of which so many wait for an earlier one of their key.
    #[cfg(feature = "metrics")]
    pub(crate) fn parked(&self) -> usize {
        self.order.parked()
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.suspected.is_empty()
    }

    /// So many acknowledgements are not known to have reached the broker.
    pub(crate) fn count_lost_acks(&self, messages: usize) {
        self.counts.lost_acks(messages);
    }

    /// When the last copy that this consumer sent round is due here again.
    pub(crate) fn retry_due(&self) -> Option<Instant> {
        self.retry_due
    }

    /// Whether as many messages as asked for are settled.
    pub(crate) fn has_reached_its_count(&self) -> bool {
        self.rules.stop_after_count.is_some_and(|most| self.done >= most.get())
    }
}

/// How long a settled message waits for others to be acknowledged with.
const ACK_LINGER: Duration = Duration::from_millis(20);
