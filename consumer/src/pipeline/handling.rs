//! The middle of the way: what may begin is admitted, handled, and its end decided.

use std::{sync::Arc, time::Duration};

use correio_guarantees::{
    Admission, Claim, Failure, Fence, GapCause, Pace, Place, RetrySchedule, Retrying, Ruling, Settlement, Verdict,
    decide, jittered, spare,
};
use correio_message::DeadReason;

use super::{Effect, Moment, Pipeline, breaking::Spared};
use crate::{
    context::Context,
    handler::AnyHandler,
    held::{End, Held, Stage, Ticket},
    processing::Acknowledgement,
    reply::{Answer, Reply},
};

impl Pipeline {
    /// Begins whatever may begin now. To be called after anything was reported.
    pub(crate) fn advance(&mut self, now: Moment) {
        self.take_suspect_in(now);
        let (doomed, gaps) = self.order.advance();
        for gap in gaps {
            if gap.cause == GapCause::FirstContact {
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
            let next = match self.pace() {
                Pace::Probe if self.probes_new => self.next_new().or_else(|| self.again.pop_front()),
                _ => self.again.pop_front().or_else(|| self.next_new()),
            };
            let Some(ticket) = next else { return };
            // Every second probe is of a message that has not failed yet: bad ones must not hide it.
            self.probes_new = self.pace() == Pace::Probe && !self.probes_new;
            self.begin(ticket, now);
        }
    }

    fn has_room_to_begin(&self) -> bool {
        let on_receipt = self.rules.acknowledgement == Acknowledgement::OnDelivery;
        let at_once = match self.pace() {
            Pace::Full => usize::from(self.rules.processing.at_once().get()),
            Pace::Probe => 1,
            Pace::Paused => 0,
        };
        (!self.stopping || on_receipt) && self.busy < at_once
    }

    /// The next message that was not begun before.
    fn next_new(&mut self) -> Option<Ticket> {
        while self.may_begin_new() {
            let next = self.order.start_next()?;
            if let Some(held) = self.held.get_mut(&next.ticket) {
                held.lane = next.lane;
                held.place = next.place;
                return Some(next.ticket);
            }
        }
        None
    }

    /// Whether one more, should it succeed, is still within the count asked for.
    fn may_begin_new(&self) -> bool {
        self.rules.stop_after_count.is_none_or(|most| self.done + self.begun < most.get())
    }

    fn begin(&mut self, ticket: Ticket, now: Moment) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        if held.accused.is_some() {
            return self.ask_about(ticket, now);
        }
        if held.received.as_ref().is_some_and(|received| received.decoded.is_marker) {
            self.counts.markers(1);
            return self.settle(ticket, now.at);
        }
        if held.deadline_us().is_some_and(|deadline| deadline <= now.unix_us) {
            if held.first_failed_at_us.is_some() {
                // Its failure must not be forgotten with it.
                let error = "its deadline passed while it waited for its next try".to_owned();
                return self.park(ticket, DeadReason::Failed, error, now);
            }
            self.counts.late_requests(1);
            tracing::warn!(
                message = held.name(),
                "a request is too late: who asked has stopped waiting, or the clocks differ"
            );
            return self.settle(ticket, now.at);
        }
        self.busy += 1;
        if !held.started {
            held.started = true;
            self.begun += 1;
        }
        if self.rules.in_transactions {
            if self.rules.handlers.of(held.message_type()).is_none() {
                return self.handle(ticket, now);
            }
            held.stage = Stage::Admitting;
            return self.log.to_transact.push(ticket);
        }
        match self.new_claim(ticket) {
            Some(claim) => self.log.to_admit.push((ticket, claim)),
            None => self.handle(ticket, now),
        }
    }

    /// A claim that the log is to be asked for; `None` for what has no id.
    pub(super) fn new_claim(&mut self, ticket: Ticket) -> Option<Claim> {
        let held = self.held.get_mut(&ticket)?;
        // A new fence each time: what an earlier claim on it still says must not be taken for this one's word.
        self.next_fence = self.next_fence.wrapping_add(1);
        held.fence = Some(Fence(self.next_fence));
        let claim = held.claim()?;
        held.stage = Stage::Admitting;
        Some(claim)
    }

    pub(super) fn on_admission(&mut self, ticket: Ticket, admission: Admission, now: Moment) {
        match admission {
            Admission::Fresh if self.is_lost(ticket) || !self.may_handle() => {
                self.abandon(ticket);
                self.unbegin(ticket);
            }
            Admission::Fresh if self.held.get(&ticket).is_some_and(|held| held.accused.is_some()) => {
                self.convict(ticket, now);
            }
            Admission::Fresh => self.handle(ticket, now),
            Admission::AlreadyHandled => {
                self.busy -= 1;
                self.counts.duplicates(1);
                // Who asks a second time would wait in vain. A first answer went out before this one.
                let twice = "a request with this id was handled before, and its answer was sent then";
                self.answer(ticket, Reply::error("already-handled", twice), now);
                self.settle(ticket, now.at);
            }
            Admission::InFlight => {
                self.busy -= 1;
                self.ask_again(ticket, now);
            }
        }
    }

    /// Another consumer with the same log is at this message: its end decides.
    pub(super) fn ask_again(&mut self, ticket: Ticket, now: Moment) {
        if self.is_lost(ticket) {
            self.forget(ticket);
        } else if let Some(held) = self.held.get_mut(&ticket) {
            held.stage = Stage::Waiting;
            self.timers.insert((now.at + ASK_AGAIN, ticket));
        }
    }

    /// A message that was to begin does not.
    pub(super) fn unbegin(&mut self, ticket: Ticket) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        self.busy -= 1;
        if held.first_failed_at_us.is_none() {
            // No handler has seen it.
            self.begun -= u64::from(std::mem::take(&mut held.started));
        }
        self.give_back(ticket);
    }

    /// A message that waits for its admission is not handled any more once the consumer stops.
    pub(super) fn may_handle(&self) -> bool {
        !self.stopping || self.rules.acknowledgement == Acknowledgement::OnDelivery
    }

    fn handle(&mut self, ticket: Ticket, now: Moment) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        held.stage = Stage::Handling;
        let Some(held) = self.held.get(&ticket) else { return };
        match self.work_for(held) {
            Some((handler, context)) => self.effects.push(Effect::Handle { ticket, handler, context }),
            None => {
                let name = held.message_type().map(ToString::to_string).unwrap_or_default();
                self.on_result(ticket, Err(Failure::UnknownType { name }), now);
            }
        }
    }

    /// Its handler, and what that is told; `None` when nobody handles its type.
    pub(super) fn work_for(&self, held: &Held) -> Option<(Arc<dyn AnyHandler>, Context)> {
        let handler = self.rules.handlers.of(held.message_type())?;
        let context = Context {
            received: Arc::clone(held.received.as_ref()?),
            attempt: held.attempt,
            late: held.place == Place::Late,
            subscription: Arc::clone(&self.rules.subscription),
            stopping: self.rules.stopping.clone(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            transaction: None,
        };
        Some((handler, context))
    }

    /// A handler has ended.
    pub(crate) fn on_result(&mut self, ticket: Ticket, result: Result<Answer, Failure>, now: Moment) {
        let Some(held) = self.held.get_mut(&ticket) else { return };
        self.busy -= 1;
        let (result, reply) = match result {
            Ok(Answer { verdict, reply }) => (Ok(verdict), reply),
            Err(failure) => (Err(failure), None),
        };
        let error = result.as_ref().err().map(ToString::to_string);
        if let Err(failure) = &result {
            tracing::warn!(message = held.name(), attempt = held.attempt, %failure, "a message was not handled");
        }
        let result = match result {
            Err(Failure::Ruled { error, ruling: Ruling::Drop }) => Ok(Verdict::Drop { reason: error }),
            other => other,
        };
        let spared = self.note(&result, now);
        let Some(held) = self.held.get_mut(&ticket) else { return };
        if !matches!(result, Ok(Verdict::Done | Verdict::Drop { .. })) {
            held.first_failed_at_us.get_or_insert(now.unix_us);
            let attempt = held.attempt;
            self.abandon(ticket);
            if self.is_lost(ticket) {
                // It comes again, on the next channel.
                self.forget(ticket);
                return;
            }
            let (schedule, retrying) = (self.schedule(), self.retrying());
            let settlement = match spared {
                Some(Spared::Here(pause)) => spare(attempt, &schedule, Retrying::InPlace, pause),
                Some(Spared::Anywhere(pause)) => spare(attempt, &schedule, retrying, pause),
                None => decide(result, attempt, &schedule, retrying),
            };
            self.on_settlement(ticket, self.within_deadline(ticket, settlement, error, now), now);
        } else {
            let end = match result {
                Ok(Verdict::Drop { reason }) => End::Dropped { reason },
                _ => End::Handled { reply },
            };
            self.remember(ticket, end, now);
        }
    }

    fn on_settlement(&mut self, ticket: Ticket, settlement: Settlement, now: Moment) {
        match settlement {
            Settlement::Acknowledge => self.remember(ticket, End::Handled { reply: None }, now),
            Settlement::Drop { reason } => self.remember(ticket, End::Dropped { reason }, now),
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

    /// A request that would be tried again when nobody waits for it any more has failed now.
    fn within_deadline(
        &self,
        ticket: Ticket,
        settlement: Settlement,
        error: Option<String>,
        now: Moment,
    ) -> Settlement {
        let (Settlement::RetryLater { delay, .. } | Settlement::RetryInPlace { delay, .. }) = &settlement else {
            return settlement;
        };
        let again = jittered(*delay, 1.0);
        let again_at_us = now.unix_us.saturating_add(again.as_micros().try_into().unwrap_or(u64::MAX));
        match self.held.get(&ticket).and_then(|held| held.deadline_us()) {
            Some(deadline) if deadline <= again_at_us => {
                let error = error.unwrap_or_else(|| "its handler asked for another try".to_owned());
                Settlement::DeadLetter {
                    reason: DeadReason::Failed,
                    error: format!("{error} (the next try would be past the request's deadline)"),
                }
            }
            _ => settlement,
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
}

/// When the log is asked again about an id that another consumer has claimed.
const ASK_AGAIN: Duration = Duration::from_millis(500);
