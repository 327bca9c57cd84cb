//! One message that a consumer holds, and where on its way it is.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use correio_guarantees::{Claim, Fence, HandledId, Place};
use correio_message::{DeadReason, Envelope, Sequence, ShortText};

use crate::{context::Received, order::Lane, reply::Reply};

/// The name of a held message, never given twice.
///
/// Not the delivery tag: tags restart at 1 on every channel, so a late answer from an old one could name a new message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// A message between its delivery and its settling.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its tag on the live channel; `None` when nothing is owed for it there: acknowledged on receipt, or its channel is gone.
    pub(crate) tag: Option<u64>,
    /// As it arrived: what copies are built from.
    pub(crate) envelope: Arc<Envelope>,
    /// As it was read; `None` when it cannot be read.
    pub(crate) received: Option<Arc<Received>>,
    /// Its identity; `None` without an id, or with deduplication off.
    pub(crate) id: Option<HandledId>,
    /// What its claim on that is told by, once it has asked for one.
    pub(crate) fence: Option<Fence>,
    /// Which attempt the current or next one is.
    pub(crate) attempt: NonZeroU32,
    /// When handling failed first, in microseconds since 1970.
    pub(crate) first_failed_at_us: Option<u64>,
    /// The lane that it keeps busy.
    pub(crate) lane: Option<Lane>,
    /// How it stands to the order.
    pub(crate) place: Place,
    /// Where it is.
    pub(crate) stage: Stage,
    /// Whether a handler has begun with it.
    pub(crate) started: bool,
    /// How often it came back to its queue, if it is to be parked for that.
    pub(crate) accused: Option<u32>,
}

/// Where on its way a message is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Waiting for its turn.
    Ordering,
    /// The log is asked whether to handle it.
    Admitting,
    /// Its handler is at work.
    Handling,
    /// Waiting to be handled again, or for the log to be asked again.
    Waiting,
    /// The log is told of its end.
    Remembering(End),
    /// Its copy is being published, or waits to be published again.
    Copying(Box<Copying>),
    /// The work is done and remembered, and its answer is on its way to who asked.
    Answering,
}

/// A copy on its way.
#[derive(Debug)]
pub(crate) struct Copying {
    pub(crate) copy: Copy,
    /// How often it was published without being confirmed.
    pub(crate) tries: u32,
}

/// How a message that is not copied ends.
#[derive(Debug)]
pub(crate) enum End {
    /// Its handler succeeded, and this is the answer to who asked.
    Handled { reply: Option<Reply> },
    /// Its handler asked to forget it.
    Dropped { reason: String },
}

/// A copy that is to be on its queue before the original is acknowledged.
#[derive(Clone, Debug)]
pub(crate) enum Copy {
    /// For the delay queue, from which it is due here again at `due`.
    Retry { envelope: Envelope, due: Instant, delay: Duration, attempt: NonZeroU32 },
    /// For its own queue, whence it came, to be taken at another time.
    GivenBack { envelope: Envelope },
    /// For the parking queue.
    DeadLetter { envelope: Envelope, reason: DeadReason, error: String },
}

impl Copy {
    pub(crate) fn envelope(&self) -> &Envelope {
        match self {
            Self::Retry { envelope, .. } | Self::GivenBack { envelope } | Self::DeadLetter { envelope, .. } => envelope,
        }
    }
}

impl Held {
    /// Its claim, if it has asked for one.
    pub(crate) fn claim(&self) -> Option<Claim> {
        Some(Claim { id: self.id.clone()?, fence: self.fence? })
    }

    /// When who asked stops waiting, in microseconds since 1970.
    pub(crate) fn deadline_us(&self) -> Option<u64> {
        self.received.as_ref().and_then(|received| received.decoded.message.deadline_us)
    }

    pub(crate) fn message_type(&self) -> Option<&ShortText> {
        self.received.as_ref().and_then(|received| received.decoded.message.message_type.as_ref())
    }

    pub(crate) fn sequence(&self) -> Option<&Sequence> {
        self.received.as_ref().and_then(|received| received.decoded.message.sequence.as_ref())
    }

    /// What it is called in a report.
    pub(crate) fn name(&self) -> String {
        match &self.envelope.properties.message_id {
            Some(id) if !id.is_empty() => id.to_string(),
            _ => format!("without an id, on route {}", self.envelope.route),
        }
    }
}
