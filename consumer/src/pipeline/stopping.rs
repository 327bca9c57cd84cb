//! How a pipeline ends: asked to, or because its channel is gone.

use std::time::Instant;

use super::{Effect, Pipeline};
use crate::{
    held::{Held, Stage, Ticket},
    processing::Acknowledgement,
};

impl Pipeline {
    /// Nothing new is begun. What has not been begun goes back: unordered now, ordered with its channel.
    ///
    /// What was acknowledged on receipt has no way back and is handled still.
    pub(crate) fn on_stopping(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.rules.stopping.cancel();
        if self.rules.acknowledgement == Acknowledgement::OnDelivery {
            return;
        }
        self.ask_for_nothing_more();
        self.leave_suspects();
        let not_at_work = |stage: &Stage| matches!(stage, Stage::Ordering | Stage::Waiting);
        let idle = self.tickets(|pipeline, ticket| pipeline.held.get(&ticket).is_some_and(|h| not_at_work(&h.stage)));
        self.again.clear();
        if !self.rules.processing.is_ordered() {
            self.order.on_channel_lost();
            for ticket in idle {
                self.give_back(ticket);
            }
        }
    }

    /// Whether everything that was begun has ended.
    pub(crate) fn is_drained(&self) -> bool {
        let begun = |stage: &Stage| !matches!(stage, Stage::Ordering | Stage::Waiting);
        match self.rules.acknowledgement {
            Acknowledgement::OnDelivery => self.held.is_empty() && self.answers.is_empty(),
            Acknowledgement::AfterHandling => {
                self.answers.is_empty() && !self.held.values().any(|held| begun(&held.stage))
            }
        }
    }

    /// The time for draining is over, and no handler is at work any more: the rest goes back.
    pub(crate) fn on_drain_over(&mut self, now: Instant) {
        self.give_answers_up();
        for ticket in self.tickets(|_, _| true) {
            let Some(held) = self.held.get(&ticket) else { continue };
            if matches!(held.stage, Stage::Answering) {
                // The work is done; given back, it would be done again.
                self.settle(ticket, now);
                continue;
            }
            if matches!(held.stage, Stage::Handling) {
                self.busy -= 1;
                self.abandon(ticket);
            }
            let (tag, started) = (self.held.get(&ticket).and_then(|held| held.tag), self.is_begun(ticket));
            if tag.is_some() && self.rules.processing.is_ordered() {
                // The closing of the channel gives it back, in order.
                if started {
                    self.counts.handed_back(1);
                } else {
                    self.counts.not_started(1);
                }
                self.forget(ticket);
            } else {
                self.give_back(ticket);
            }
        }
    }

    /// A handler was stopped before its end, because the time for draining or for the lost channel is over.
    pub(crate) fn on_aborted(&mut self, ticket: Ticket) {
        if !self.held.contains_key(&ticket) {
            return;
        }
        self.busy -= 1;
        self.abandon(ticket);
        if self.is_lost(ticket) {
            self.forget(ticket);
        } else if let Some(held) = self.held.get_mut(&ticket) {
            held.stage = Stage::Waiting;
            self.give_back(ticket);
        }
    }

    /// The channel is gone: what was not begun on it is discarded, because the broker delivers it again. What is at
    /// work goes on, and its end is remembered; nothing is acknowledged for it.
    pub(crate) fn on_channel_lost(&mut self) {
        self.counts.lost_acks(std::mem::take(&mut self.settled));
        self.acks.on_channel_opened();
        self.on_suspects_lost();
        let answers = &self.answers;
        self.effects.retain(|effect| match effect {
            Effect::Handle { .. } | Effect::End(_) => true,
            // An answer is owed whatever becomes of the message.
            Effect::Publish { ticket, .. } => answers.contains_key(ticket),
            Effect::GiveBack { .. } | Effect::CloseChannel => false,
        });
        if self.rules.acknowledgement == Acknowledgement::OnDelivery {
            return;
        }
        self.order.on_channel_lost();
        self.again.clear();
        let to_come_again = |held: &mut Box<Held>| held.tag = None;
        self.held.values_mut().for_each(to_come_again);
        self.ask_for_nothing_more();
        let answers = &self.answers;
        self.timers.retain(|(_, ticket)| answers.contains_key(ticket));
        for ticket in self.tickets(|_, _| true) {
            let Some(held) = self.held.get(&ticket) else { continue };
            if !matches!(held.stage, Stage::Admitting | Stage::Handling | Stage::Remembering(_)) {
                self.forget(ticket);
            }
        }
    }

    /// Whether nothing of an earlier channel is at work any more, so that its messages may come again.
    pub(crate) fn may_subscribe(&self) -> bool {
        self.rules.acknowledgement == Acknowledgement::OnDelivery || self.held.is_empty()
    }

    /// A delivery that came after the stop.
    pub(super) fn return_unstarted(&mut self, tag: u64) {
        self.counts.not_started(1);
        // Ordered, it goes back with the channel.
        if !self.rules.processing.is_ordered() {
            self.effects.push(Effect::GiveBack { tag });
        }
    }

    fn is_begun(&self, ticket: Ticket) -> bool {
        self.held.get(&ticket).is_some_and(|held| held.started || matches!(held.stage, Stage::Copying(_)))
    }

    fn tickets(&self, which: impl Fn(&Self, Ticket) -> bool) -> Vec<Ticket> {
        self.held.keys().copied().filter(|ticket| which(self, *ticket)).collect()
    }
}
