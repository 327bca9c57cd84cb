//! Which of the messages was it, for whose fault the broker closed the channel? They are sent again one at a time,
//! until the one at fault is alone on its channel.

use correio_message::MessageId;

use crate::machine::Machine;

#[derive(Debug, Default)]
pub(crate) struct CulpritSearch {
    /// So many of the next publishes go one at a time.
    one_at_a_time: usize,
    /// The message that was published while nothing else was unanswered, and nothing since.
    alone: Option<MessageId>,
}

impl CulpritSearch {
    pub(crate) fn may_publish(&self, unanswered: usize) -> bool {
        self.one_at_a_time == 0 || unanswered == 0
    }

    pub(crate) fn on_publishing(&mut self, id: &MessageId, quiet: bool) {
        self.one_at_a_time = self.one_at_a_time.saturating_sub(1);
        self.alone = quiet.then(|| id.clone());
    }

    /// The channel is gone for the fault of one message: it, if it is known now.
    pub(crate) fn on_fault_of_one<W: Machine>(&mut self, window: &mut W) -> Option<usize> {
        let culprit = self.alone.take().and_then(|id| window.withdraw(&id));
        if culprit.is_none() {
            self.one_at_a_time = window.resends_waiting();
        }
        culprit
    }

    /// The channel is gone for another reason.
    pub(crate) fn on_lost(&mut self) {
        self.alone = None;
    }
}
