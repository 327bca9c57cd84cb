//! What has happened, counted: histories in which nothing goes wrong show nothing.

/// Something that a history can contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Confirmed,
    Unroutable,
    Refused,
    Unknown,
    NeverSent,
    Resent,
    Cut,
    /// The channel was ended because a deadline had passed.
    Killed,
    /// The broker closed the channel for the fault of one message.
    ChannelError,
    /// Of the messages on such a channel, the one at fault was found.
    CulpritFound,
    Nack,
    /// A queue was full and another kept the message.
    NackedInPart,
    Return,
    /// A return came with the confirm of another message.
    ReturnWithAStranger,
    AnswerMultiple,
    AnswerOutOfOrder,
    /// The shell saw a confirm before one that had completed earlier.
    SeenOutOfOrder,
    /// The broker fell silent.
    Silence,
    /// The broker read what was on the wire of a connection that the client had lost.
    LateOriginal,
    /// So did it with a message that had ended.
    LateAfterItsEnd,
    /// A message waited because its id was held.
    SameIdWaited,
    /// A confirm of an older channel was reported, or one that had been seen.
    OldAnswer,
    /// Acknowledged, and ended as `Unknown` because its return could still come at its deadline.
    AcknowledgedButUnknown,
    /// Confirmed at last, but the broker had read it before and not taken it, and nobody heard of that.
    RefusalUnheard,
    GivenUp,
}

impl Sight {
    pub(crate) const ALL: [Self; 25] = [
        Self::Confirmed,
        Self::Unroutable,
        Self::Refused,
        Self::Unknown,
        Self::NeverSent,
        Self::Resent,
        Self::Cut,
        Self::Killed,
        Self::ChannelError,
        Self::CulpritFound,
        Self::Nack,
        Self::NackedInPart,
        Self::Return,
        Self::ReturnWithAStranger,
        Self::AnswerMultiple,
        Self::AnswerOutOfOrder,
        Self::SeenOutOfOrder,
        Self::Silence,
        Self::LateOriginal,
        Self::LateAfterItsEnd,
        Self::SameIdWaited,
        Self::OldAnswer,
        Self::AcknowledgedButUnknown,
        Self::RefusalUnheard,
        Self::GivenUp,
    ];
}

/// How often each was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen([u64; Sight::ALL.len()]);

impl Seen {
    pub(crate) fn note(&mut self, sight: Sight) {
        self.0[sight as usize] += 1;
    }

    pub(crate) fn count(&self, sight: Sight) -> u64 {
        self.0[sight as usize]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}
