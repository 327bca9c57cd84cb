//! What the shell asks of a confirm window: the true one answers, and so does each that is broken on purpose.

use std::time::Instant;

use correio_guarantees::{Answer, ConfirmWindow, DeadlineAction, Ended, Publish, WindowAdmission};
use correio_message::MessageId;

/// The methods of [`ConfirmWindow`], over message numbers.
pub(crate) trait Machine {
    fn admission(&self, id: &MessageId, bytes: usize) -> WindowAdmission;
    fn on_publishing(&mut self, id: MessageId, number: usize, bytes: usize, deadline: Instant) -> Publish;
    fn on_answered(&mut self, publish: Publish, answer: Answer);
    fn on_returned(&mut self, id: &MessageId, reason: String);
    fn on_channel_lost(&mut self);
    fn next_resend(&mut self) -> Option<(Publish, usize)>;
    fn first_waiting(&self) -> Option<MessageId>;
    fn withdraw(&mut self, id: &MessageId) -> Option<usize>;
    fn resends_waiting(&self) -> usize;
    fn next_deadline(&self) -> Option<Instant>;
    fn on_deadline(&mut self, now: Instant) -> DeadlineAction;
    fn take_ended(&mut self) -> Vec<Ended<usize>>;
    fn unanswered(&self) -> usize;
    fn held(&self) -> usize;
    fn held_bytes(&self) -> usize;
    fn is_idle(&self) -> bool;
    fn is_current(&self, publish: Publish) -> bool;
}

impl Machine for ConfirmWindow<usize> {
    fn admission(&self, id: &MessageId, bytes: usize) -> WindowAdmission {
        self.admission(id, bytes)
    }

    fn on_publishing(&mut self, id: MessageId, number: usize, bytes: usize, deadline: Instant) -> Publish {
        self.on_publishing(id, number, bytes, deadline)
    }

    fn on_answered(&mut self, publish: Publish, answer: Answer) {
        self.on_answered(publish, answer);
    }

    fn on_returned(&mut self, id: &MessageId, reason: String) {
        self.on_returned(id, reason);
    }

    fn on_channel_lost(&mut self) {
        self.on_channel_lost();
    }

    fn next_resend(&mut self) -> Option<(Publish, usize)> {
        self.next_resend().map(|(publish, number)| (publish, *number))
    }

    fn first_waiting(&self) -> Option<MessageId> {
        self.first_waiting().cloned()
    }

    fn withdraw(&mut self, id: &MessageId) -> Option<usize> {
        self.withdraw(id).map(|(number, _)| number)
    }

    fn resends_waiting(&self) -> usize {
        self.resends_waiting()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline()
    }

    fn on_deadline(&mut self, now: Instant) -> DeadlineAction {
        self.on_deadline(now)
    }

    fn take_ended(&mut self) -> Vec<Ended<usize>> {
        self.take_ended()
    }

    fn unanswered(&self) -> usize {
        self.unanswered()
    }

    fn held(&self) -> usize {
        self.held()
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes()
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn is_current(&self, publish: Publish) -> bool {
        self.is_current(publish)
    }
}
