//! One message in the window, and where it stands.

use std::time::Instant;

use correio_message::MessageId;

use super::{Answer, Ended, Pronounced};

#[derive(Debug)]
pub(super) struct Entry<M> {
    pub(super) id: MessageId,
    pub(super) message: M,
    pub(super) bytes: usize,
    pub(super) deadline: Instant,
    /// The number of its first sending: its place among those to send again.
    pub(super) order: u64,
    pub(super) tries: u32,
    pub(super) answer: Option<Answer>,
    pub(super) returned: Option<String>,
    /// Without an answer at its deadline.
    pub(super) expired: bool,
    /// Everything that could have brought its return has been seen.
    pub(super) settled: bool,
}

impl<M> Entry<M> {
    pub(super) fn ended(self) -> Ended<M> {
        let Self { id, message, tries, answer, returned, settled, .. } = self;
        let pronounced = match (returned, answer) {
            (Some(reason), _) => Pronounced::Unroutable { reason },
            (None, Some(Answer::Nack)) => Pronounced::Refused,
            (None, Some(Answer::Ack)) if settled => Pronounced::Confirmed,
            (None, _) => Pronounced::Unknown { tries },
        };
        Ended { id, message, tries, pronounced }
    }
}

#[derive(Debug)]
pub(super) enum Slot<M> {
    Held(Entry<M>),
    /// Ended before its return was certain: only the id is kept.
    Reserved(MessageId),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// On the live channel, as this publish.
    Live(u64),
    /// Waiting to be sent again; the number of its first sending.
    Waiting(u64),
}
