//! One publishing channel as a naive observer knows it: what it holds, and where each message stands.

use correio_guarantees::Publish;

use crate::numbers::Numbers;

/// The messages that are published with confirms, on one channel after another. Each publishing channel has a lane of
/// its own.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Published and not ended.
    pub(crate) held: Numbers,
    /// Of these, published on the live channel.
    pub(crate) live: Numbers,
    /// Of these, without an answer that the shell has seen.
    pub(crate) unanswered: Numbers,
    /// The youngest that was published on the live channel.
    pub(crate) youngest: Option<usize>,
    pub(crate) highest: Option<Publish>,
}

impl Lane {
    /// Published on an earlier channel, and to be sent again.
    pub(crate) fn waiting(&self) -> Numbers {
        self.held.without(self.live)
    }

    pub(crate) fn on_sent(&mut self, number: usize, publish: Publish) {
        self.held.insert(number);
        self.live.insert(number);
        self.unanswered.insert(number);
        self.youngest = Some(number);
        self.highest = Some(publish);
    }

    pub(crate) fn on_ended(&mut self, number: usize) {
        self.held.remove(number);
        self.live.remove(number);
        self.unanswered.remove(number);
    }

    pub(crate) fn on_channel_lost(&mut self) {
        self.live = Numbers::default();
        self.unanswered = Numbers::default();
        self.youngest = None;
    }
}
