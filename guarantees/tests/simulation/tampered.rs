//! The true confirm window behind a wrapper that breaks one of its laws.

use std::{collections::BTreeSet, mem, time::Instant};

use correio_guarantees::{
    Answer, ConfirmWindow, DeadlineAction, Ended, Pronounced, Publish, WindowAdmission, WindowLimits,
};
use correio_message::MessageId;

use crate::{faults::Fault, machine::Machine};

pub(crate) struct Tampered {
    fault: Fault,
    window: ConfirmWindow<usize>,
    /// By publish, what was sent.
    sent: Vec<Sent>,
    /// Live publishes without an answer, and those with an ack that have not ended.
    open: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    returned: BTreeSet<MessageId>,
    /// A return that was heard, for the confirm that comes next.
    riding: Option<String>,
    refused: BTreeSet<usize>,
    ended: Vec<Ended<usize>>,
    /// A resend that was passed over.
    passed_over: Option<(Publish, usize)>,
    holds_back: bool,
    /// What is taken off the number of each publish.
    base: u64,
    miscounted: usize,
    last_deadline: Option<Instant>,
}

#[derive(Clone)]
struct Sent {
    id: MessageId,
    number: usize,
    deadline: Instant,
}

impl Tampered {
    pub(crate) fn new(fault: Fault, limits: WindowLimits) -> Self {
        Self {
            fault,
            window: ConfirmWindow::new(limits),
            sent: Vec::new(),
            open: BTreeSet::new(),
            acked: BTreeSet::new(),
            returned: BTreeSet::new(),
            riding: None,
            refused: BTreeSet::new(),
            ended: Vec::new(),
            passed_over: None,
            holds_back: false,
            base: 0,
            miscounted: 0,
            last_deadline: None,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn on_sent(&mut self, publish: Publish, sent: Sent) -> Publish {
        self.last_deadline = self.last_deadline.max(Some(sent.deadline));
        self.sent.push(sent);
        self.open.insert(publish.0);
        Publish(publish.0 - self.base)
    }

    fn tries(&self, number: usize) -> u32 {
        self.sent.iter().filter(|sent| sent.number == number).map(|_| 1).sum()
    }

    fn end(&mut self, publish: u64, pronounced: Pronounced) {
        let Sent { id, number, .. } = self.sent[publish as usize].clone();
        let tries = self.tries(number);
        self.ended.push(Ended { id, message: number, tries, pronounced });
    }

    /// Takes over what the true window has ended.
    fn collect(&mut self) {
        for mut ended in self.window.take_ended() {
            self.acked.retain(|publish| self.sent[*publish as usize].number != ended.message);
            let is_confirmed = ended.pronounced == Pronounced::Confirmed;
            if is_confirmed && (self.refused.remove(&ended.message) || self.has(Fault::CallsTheConfirmedRefused)) {
                ended.pronounced = Pronounced::Refused;
            }
            if self.has(Fault::CountsNoResend) {
                ended.tries = 1;
            }
            if self.has(Fault::EndsAMessageTwice) && ended.pronounced == Pronounced::Refused {
                self.ended.push(ended.clone());
            }
            self.ended.push(ended);
        }
    }

    /// Confirms what has an ack and no return, without waiting for those that `is_waited_for`.
    fn confirm_early(&mut self, is_waited_for: impl Fn(&BTreeSet<u64>, u64) -> bool) {
        self.collect();
        for publish in self.acked.clone() {
            if !is_waited_for(&self.open, publish) {
                self.acked.remove(&publish);
                self.confirm_unreturned(publish);
            }
        }
    }

    fn confirm_unreturned(&mut self, publish: u64) {
        if !self.returned.contains(&self.sent[publish as usize].id) {
            self.end(publish, Pronounced::Confirmed);
        }
    }

    /// Takes one message out of those that wait to be sent again.
    fn withdraw_one_of(&mut self, publishes: &BTreeSet<u64>) -> Option<u64> {
        publishes.iter().copied().find(|publish| self.window.withdraw(&self.sent[*publish as usize].id).is_some())
    }
}

impl Machine for Tampered {
    fn admission(&self, id: &MessageId, bytes: usize) -> WindowAdmission {
        let is_new_first = self.has(Fault::LetsTheNewOvertake) && self.holds_back;
        match self.window.admission(id, bytes) {
            WindowAdmission::SameIdOutstanding if self.has(Fault::AdmitsAnIdTwice) => WindowAdmission::Now,
            WindowAdmission::Full if self.has(Fault::LetsInTooMany) || is_new_first => WindowAdmission::Now,
            admission => admission,
        }
    }

    fn on_publishing(&mut self, id: MessageId, number: usize, bytes: usize, deadline: Instant) -> Publish {
        let publish = self.window.on_publishing(id.clone(), number, bytes, deadline);
        self.on_sent(publish, Sent { id, number, deadline })
    }

    fn on_answered(&mut self, publish: Publish, answer: Answer) {
        let mut publish = Publish(publish.0 + self.base);
        let Some(Sent { id, number, .. }) = self.sent.get(publish.0 as usize).cloned() else { return };
        let was_open = self.open.remove(&publish.0);
        if was_open && answer == Answer::Ack {
            self.acked.insert(publish.0);
        }
        match (self.fault, answer) {
            (Fault::TakesAReturnForItsConfirms, _) => {
                if let Some(reason) = self.riding.take() {
                    self.window.on_returned(&id, reason);
                }
                self.window.on_answered(publish, answer);
            }
            (Fault::CallsTheRefusedConfirmed, Answer::Nack) => self.window.on_answered(publish, Answer::Ack),
            (Fault::ResendsTheRefused, Answer::Nack) => {
                self.refused.insert(number);
                self.window.on_answered(publish, Answer::Ack);
            }
            (Fault::HearsOldChannels, _) => {
                if !was_open {
                    let live = |live: &&u64| self.sent[**live as usize].number == number;
                    publish = self.open.iter().find(live).map_or(publish, |live| Publish(*live));
                }
                self.window.on_answered(publish, answer);
            }
            _ => self.window.on_answered(publish, answer),
        }
        match self.fault {
            Fault::ConfirmsAtTheAnswer => self.confirm_early(|_, _| false),
            Fault::WaitsForOlderOnly => self.confirm_early(|open, publish| open.first().is_some_and(|o| *o < publish)),
            _ => {}
        }
    }

    fn on_returned(&mut self, id: &MessageId, reason: String) {
        self.returned.insert(id.clone());
        self.miscounted = usize::from(self.has(Fault::LosesCountAtAReturn));
        match self.fault {
            Fault::IgnoresReturns => {}
            Fault::TakesAReturnForItsConfirms => self.riding = Some(reason),
            _ => self.window.on_returned(id, reason),
        }
    }

    fn on_channel_lost(&mut self) {
        let (open, acked) = (mem::take(&mut self.open), mem::take(&mut self.acked));
        if self.has(Fault::ConfirmsWhatTheLossLeftOpen) {
            for publish in acked {
                self.confirm_unreturned(publish);
            }
        }
        self.window.on_channel_lost();
        self.returned.clear();
        self.refused.clear();
        self.riding = None;
        self.holds_back = self.window.resends_waiting() > 0;
        match self.fault {
            Fault::ForgetsAMessageOnLoss => {
                self.withdraw_one_of(&open);
            }
            Fault::SaysUnknownOnLoss => {
                if let Some(publish) = self.withdraw_one_of(&open) {
                    let tries = self.tries(self.sent[publish as usize].number);
                    self.end(publish, Pronounced::Unknown { tries });
                }
            }
            Fault::RestartsPublishNumbers => self.base = self.sent.len() as u64,
            _ => {}
        }
    }

    fn next_resend(&mut self) -> Option<(Publish, usize)> {
        if let Some(passed_over) = self.passed_over.take() {
            return Some(passed_over);
        }
        if self.has(Fault::LetsTheNewOvertake) && self.holds_back {
            return None;
        }
        let mut next = self.resend()?;
        if self.has(Fault::ResendsOutOfOrder)
            && let Some(second) = self.resend()
        {
            self.passed_over = Some(mem::replace(&mut next, second));
        }
        Some(next)
    }

    fn first_waiting(&self) -> Option<MessageId> {
        self.window.first_waiting().cloned()
    }

    fn withdraw(&mut self, id: &MessageId) -> Option<usize> {
        if self.has(Fault::WithdrawsAnInnocent) {
            let others: Vec<_> = self.sent.iter().map(|sent| sent.id.clone()).filter(|other| other != id).collect();
            if let Some(innocent) =
                others.iter().find_map(|other| self.window.withdraw(other).map(|(number, _)| number))
            {
                return Some(innocent);
            }
        }
        self.window.withdraw(id).map(|(number, _)| number)
    }

    fn resends_waiting(&self) -> usize {
        self.window.resends_waiting()
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.fault {
            Fault::SleepsThroughDeadlines => None,
            Fault::WantsToBeWokenForNothing => self.window.next_deadline().or(self.last_deadline),
            _ => self.window.next_deadline(),
        }
    }

    fn on_deadline(&mut self, now: Instant) -> DeadlineAction {
        let action = self.window.on_deadline(now);
        self.collect();
        match self.fault {
            Fault::NeverKills => DeadlineAction::None,
            Fault::KillsForNothing => DeadlineAction::KillChannel,
            Fault::EndsWithoutKilling => {
                let is_late = |publish: &&u64| self.sent[**publish as usize].deadline <= now;
                for publish in self.open.iter().filter(is_late).copied().collect::<Vec<_>>() {
                    self.open.remove(&publish);
                    let tries = self.tries(self.sent[publish as usize].number);
                    self.end(publish, Pronounced::Unknown { tries });
                }
                DeadlineAction::None
            }
            _ => action,
        }
    }

    fn take_ended(&mut self) -> Vec<Ended<usize>> {
        self.collect();
        // What is new has gone out by now.
        self.holds_back &= self.window.unanswered() == 0;
        mem::take(&mut self.ended)
    }

    fn unanswered(&self) -> usize {
        self.window.unanswered()
    }

    fn held(&self) -> usize {
        self.window.held().saturating_sub(self.miscounted)
    }

    fn held_bytes(&self) -> usize {
        self.window.held_bytes()
    }

    fn is_idle(&self) -> bool {
        self.window.is_idle() && self.ended.is_empty()
    }

    fn is_current(&self, publish: Publish) -> bool {
        self.window.is_current(Publish(publish.0 + self.base))
    }
}

impl Tampered {
    fn resend(&mut self) -> Option<(Publish, usize)> {
        let (publish, &number) = self.window.next_resend()?;
        let sent = self.sent.iter().find(|sent| sent.number == number)?.clone();
        Some((self.on_sent(publish, sent), number))
    }
}
