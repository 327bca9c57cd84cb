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
    time::Instant,
};

use correio_guarantees::{
    Ack, AckPlanner, Admission, Failure, HandledId, Place, RetrySchedule, Retrying, Settlement, Verdict, decide,
};
use correio_message::{DeadReason, Decoded, Envelope, ShortText};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Received},
    counts::Counts,
    error::ConsumeError,
    handler::{AnyHandler, Handlers},
    held::{End, Held, Stage, Ticket},
    order::Order,
    processing::{Acknowledgement, Processing},
    startup::Company,
};

mod logging;
mod settling;
mod stopping;
#[cfg(test)]
mod tests;

pub(crate) use logging::{LogAnswer, LogCall};

/// What a pipeline goes by.
pub(crate) struct Rules {
    pub(crate) queue: ShortText,
    pub(crate) subscription: Arc<str>,
    pub(crate) processing: Processing,
    pub(crate) acknowledgement: Acknowledgement,
    pub(crate) deduplicate: bool,
    pub(crate) company: Company,
    pub(crate) stop_after_count: Option<NonZeroU64>,
    pub(crate) handlers: Arc<Handlers>,
    /// Told to handlers.
    pub(crate) stopping: CancellationToken,
    /// Between 0 and 1: spreads what failed together.
    pub(crate) jitter: fn() -> f64,
}

/// What a pipeline asks for.
pub(crate) enum Effect {
    /// Run this handler and report its end with [`Pipeline::on_result`].
    Handle { ticket: Ticket, handler: Arc<dyn AnyHandler>, context: Context },
    /// Publish this copy and report what became of it with [`Pipeline::on_copy`].
    Publish { ticket: Ticket, copy: Envelope },
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
    held: BTreeMap<Ticket, Held>,
    last_ticket: u64,
    /// The identities of what is held and not settled.
    ids: BTreeMap<HandledId, Ticket>,
    order: Order,
    /// To be handled again, before anything new.
    again: VecDeque<Ticket>,
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
    effects: Vec<Effect>,
    /// Nothing new is begun.
    stopping: bool,
    /// When the last copy that went round is due here again.
    retry_due: Option<Instant>,
}

impl Pipeline {
    pub(crate) fn new(rules: Rules, counts: Counts) -> Self {
        let batch = usize::from(rules.processing.prefetch() / 10).clamp(1, 100);
        Self {
            order: Order::new(&rules.processing),
            acks: AckPlanner::new(batch, ACK_LINGER),
            rules,
            counts,
            held: BTreeMap::new(),
            last_ticket: 0,
            ids: BTreeMap::new(),
            again: VecDeque::new(),
            timers: BTreeSet::new(),
            busy: 0,
            begun: 0,
            done: 0,
            settled: 0,
            log: logging::Waiting::default(),
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
    }

    /// A message was delivered: it is read and takes its place in the order.
    pub(crate) fn on_delivery(&mut self, delivery: Delivery, now: Moment) {
        let Delivery { tag, redelivered, envelope } = delivery;
        self.counts.received(1);
        self.acks.on_delivered(tag);
        if self.stopping {
            self.return_unstarted(tag);
            return;
        }
        let owed = match self.rules.acknowledgement {
            Acknowledgement::AfterHandling => Some(tag),
            Acknowledgement::OnDelivery => {
                self.acks.on_settled(tag, now.at);
                self.settled += 1;
                None
            }
        };
        match envelope.decode() {
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
        let id = message.id.clone().filter(|_| self.rules.deduplicate).map(|id| HandledId {
            subscription: Arc::clone(&self.rules.subscription),
            origin: message.origin.clone(),
            id,
        });
        if self.rules.deduplicate && id.is_none() {
            self.counts.without_id(1);
            tracing::debug!(route = %envelope.route, "a message without an id: a second copy of it would be handled too");
        }
        let first = id.as_ref().and_then(|id| self.ids.get(id)).filter(|first| !self.is_lost(**first));
        if let Some(first) = first.and_then(|first| self.held.get(first)) {
            // The first is unsettled on this channel, so the broker still holds it: this is its sender's second copy.
            self.counts.duplicates(1);
            if let Some(sequence) = &message.sequence
                && first.sequence().is_none_or(|of_first| of_first.number != sequence.number)
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
            lane: None,
            place: Place::Unordered,
            stage: Stage::Ordering,
            started: false,
        };
        self.held.insert(ticket, held);
        ticket
    }

    /// Begins whatever may begin now. To be called after anything was reported.
    pub(crate) fn advance(&mut self, now: Moment) {
        let (doomed, gaps) = self.order.advance();
        for gap in gaps {
            if gap.cause == correio_guarantees::GapCause::FirstContact {
                tracing::info!(%gap, "a line is met in its middle");
            } else {
                let missing = gap.missing.iter().map(|range| range.end() - range.start() + 1).sum::<u64>();
                self.counts.gaps(usize::try_from(missing).unwrap_or(usize::MAX));
                tracing::warn!(%gap, "a gap in the order was given up");
            }
        }
        for doomed in doomed {
            if let Some(held) = self.held.get_mut(&doomed.ticket) {
                held.place = Place::InOrder;
                self.park(doomed.ticket, DeadReason::Gap, doomed.reason, now);
            }
        }
        while self.has_room_to_begin() {
            if let Some(ticket) = self.again.pop_front() {
                self.begin(ticket, now);
                continue;
            }
            if !self.may_begin_new() {
                return;
            }
            let Some(next) = self.order.start_next() else { return };
            let Some(held) = self.held.get_mut(&next.ticket) else { continue };
            held.lane = next.lane;
            held.place = next.place;
            self.begin(next.ticket, now);
        }
    }

    fn has_room_to_begin(&self) -> bool {
        let on_receipt = self.rules.acknowledgement == Acknowledgement::OnDelivery;
        (!self.stopping || on_receipt) && self.busy < usize::from(self.rules.processing.at_once().get())
    }

    /// Whether one more, should it succeed, is still within the count asked for.
    fn may_begin_new(&self) -> bool {
        self.rules.stop_after_count.is_none_or(|most| self.done + self.begun < most.get())
    }

    fn begin(&mut self, ticket: Ticket, now: Moment) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        self.busy += 1;
        if !held.started {
            held.started = true;
            self.begun += 1;
        }
        match held.id.clone() {
            Some(id) => {
                held.stage = Stage::Admitting;
                self.log.to_admit.push((ticket, id));
            }
            None => self.handle(ticket, now),
        }
    }

    fn on_admission(&mut self, ticket: Ticket, admission: Admission, now: Moment) {
        match admission {
            Admission::Fresh if self.is_lost(ticket) || !self.may_handle() => {
                self.busy -= 1;
                self.abandon(ticket);
                self.give_back(ticket);
            }
            Admission::Fresh => self.handle(ticket, now),
            Admission::AlreadyHandled => {
                self.busy -= 1;
                self.counts.duplicates(1);
                self.settle(ticket, now.at);
            }
            Admission::InFlight => {
                // Another consumer with the same log is at it: its end decides.
                self.busy -= 1;
                if self.is_lost(ticket) {
                    self.forget(ticket);
                } else if let Some(held) = self.held.get_mut(&ticket) {
                    held.stage = Stage::Waiting;
                    self.timers.insert((now.at + ASK_AGAIN, ticket));
                }
            }
        }
    }

    /// A message that waits for its admission is not handled any more once the consumer stops.
    fn may_handle(&self) -> bool {
        !self.stopping || self.rules.acknowledgement == Acknowledgement::OnDelivery
    }

    fn handle(&mut self, ticket: Ticket, now: Moment) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        let Some(received) = held.received.clone() else { return };
        held.stage = Stage::Handling;
        let name = received.decoded.message.message_type.as_ref();
        match self.rules.handlers.of(name) {
            Some(handler) => {
                let context = Context {
                    attempt: held.attempt,
                    late: held.place == Place::Late,
                    subscription: Arc::clone(&self.rules.subscription),
                    stopping: self.rules.stopping.clone(),
                    received,
                };
                self.effects.push(Effect::Handle { ticket, handler, context });
            }
            None => {
                let name = name.map(ToString::to_string).unwrap_or_default();
                self.on_result(ticket, Err(Failure::UnknownType { name }), now);
            }
        }
    }

    /// A handler has ended.
    pub(crate) fn on_result(&mut self, ticket: Ticket, result: Result<Verdict, Failure>, now: Moment) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        self.busy -= 1;
        if let Err(failure) = &result {
            tracing::warn!(message = held.name(), attempt = held.attempt, %failure, "a message was not handled");
        }
        if !matches!(result, Ok(Verdict::Done | Verdict::Drop { .. })) {
            held.first_failed_at_us.get_or_insert(now.unix_us);
            let attempt = held.attempt;
            self.abandon(ticket);
            if self.is_lost(ticket) {
                // It comes again, on the next channel.
                self.forget(ticket);
                return;
            }
            let settlement = decide(result, attempt, &self.schedule(), self.retrying());
            self.on_settlement(ticket, settlement, now);
        } else {
            let end = match result {
                Ok(Verdict::Drop { reason }) => End::Dropped { reason },
                _ => End::Handled,
            };
            self.remember(ticket, end, now.at);
        }
    }

    fn on_settlement(&mut self, ticket: Ticket, settlement: Settlement, now: Moment) {
        match settlement {
            Settlement::Acknowledge => self.remember(ticket, End::Handled, now.at),
            Settlement::Drop { reason } => self.remember(ticket, End::Dropped { reason }, now.at),
            Settlement::RetryLater { delay, attempt } => {
                self.counts.retried(1);
                self.send_round(ticket, delay, attempt, now);
            }
            Settlement::RetryInPlace { delay, attempt } => {
                self.counts.retried(1);
                self.wait_in_place(ticket, delay, attempt, now);
            }
            Settlement::DeadLetter { reason, error } => self.park(ticket, reason, error, now),
        }
    }

    fn schedule(&self) -> RetrySchedule {
        match self.rules.acknowledgement {
            Acknowledgement::AfterHandling => self.rules.processing.retry().clone(),
            // The broker does not have it any more: nothing would bring it back after a crash while it waits.
            Acknowledgement::OnDelivery => RetrySchedule::none(),
        }
    }

    fn retrying(&self) -> Retrying {
        if self.rules.processing.is_ordered() || self.rules.company.delays.is_empty() {
            Retrying::InPlace
        } else {
            Retrying::ThroughDelayQueues
        }
    }

    /// Something that waited may go on.
    pub(crate) fn on_deadline(&mut self, now: Moment) {
        while let Some((due, ticket)) = self.timers.first().copied()
            && due <= now.at
        {
            self.timers.pop_first();
            self.on_timer(ticket);
        }
        if !self.stopping {
            self.order.on_deadline(now.at);
        }
    }

    fn on_timer(&mut self, ticket: Ticket) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        match &mut held.stage {
            Stage::Waiting => self.again.push_back(ticket),
            Stage::Copying { copy, again_at, .. } => {
                *again_at = None;
                let copy = copy.envelope().clone();
                self.effects.push(Effect::Publish { ticket, copy });
            }
            Stage::Ordering | Stage::Admitting | Stage::Handling | Stage::Remembering(_) => {}
        }
    }

    /// When [`on_deadline`](Self::on_deadline), the log or the acknowledgements want attention next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let gaps = self.order.next_deadline().filter(|_| !self.stopping);
        let timers = self.timers.first().map(|(due, _)| *due);
        [timers, gaps, self.acks.next_deadline(), self.log.next_deadline()].into_iter().flatten().min()
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The acknowledgements that are due, and how many messages they stand for; `all`: due or not.
    pub(crate) fn take_acks(&mut self, now: Instant, all: bool) -> (Vec<Ack>, usize) {
        let acks = if all { self.acks.flush() } else { self.acks.take_acks(now) };
        let covered = if acks.is_empty() { 0 } else { std::mem::take(&mut self.settled) };
        (acks, covered)
    }

    /// Whether one more delivery fits.
    pub(crate) fn has_room(&self) -> bool {
        self.held.len() < usize::from(self.rules.processing.prefetch())
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
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
const ACK_LINGER: std::time::Duration = std::time::Duration::from_millis(20);
/// When the log is asked again about an id that another consumer has claimed.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(500);
