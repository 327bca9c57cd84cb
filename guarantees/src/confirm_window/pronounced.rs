//! The words of the confirm window: what it is told and what it says.

use correio_message::MessageId;

/// How much a window holds. Both numbers count as at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Messages without an answer when a new one is admitted. At most twice as many are held in all, those included whose
    /// answer is known and whose pronouncement waits for others; after a loss all of them are sent again.
    pub messages: usize,
    /// Bytes of all messages held. One message larger than this is let in alone.
    pub bytes: usize,
}

/// Whether a message may be published now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowAdmission {
    /// There is room.
    Now,
    /// There is no room, or older messages wait to be sent again and go first.
    Full,
    /// The same id is still held: which of the two a return is for could not be told.
    SameIdOutstanding,
}

/// What a confirm says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The broker took the message, or returned it first.
    Ack,
    /// At least one queue did not take it.
    Nack,
}

/// One sending of one message. A number over the life of the window, never used twice, also not across channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Publish(pub u64);

/// What is known of a message at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pronounced {
    /// Every queue that the message was routed to has accepted it.
    Confirmed,
    /// No queue matched the route: the broker did not keep it.
    Unroutable {
        /// The broker's words.
        reason: String,
    },
    /// At least one queue did not take it; others may have it.
    Refused,
    /// No certain answer before its deadline. The broker may or may not have it.
    Unknown {
        /// How often it was sent.
        tries: u32,
    },
}

/// A message that leaves the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<M> {
    /// Its id.
    pub id: MessageId,
    /// What the shell kept to send it again.
    pub message: M,
    /// How often it was sent.
    pub tries: u32,
    /// What is known of it.
    pub pronounced: Pronounced,
}

/// What the shell has to do now that time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a channel that is not killed lets late originals land after newer messages"]
pub enum DeadlineAction {
    /// Nothing.
    None,
    /// End the channel, then report [`ConfirmWindow::on_channel_lost`](super::ConfirmWindow::on_channel_lost). Said again until that is reported or the
    /// late answer has come.
    KillChannel,
}
