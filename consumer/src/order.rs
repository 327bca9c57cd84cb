//! Which message may start next: any, or by key in the order sent.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use correio_guarantees::{Gap, KeyLanes, Place, Resequencer, ResequencerLimits, Step};
use correio_message::{Key, Message, Sequence};

use crate::{held::Ticket, processing::Processing};

/// The order in which held messages start.
pub(crate) enum Order {
    /// As they come.
    Independent(VecDeque<Ticket>),
    /// Of each key one after another, in the order sent.
    ByKey(Box<ByKey>),
}

pub(crate) struct ByKey {
    resequencer: Resequencer<Item>,
    lanes: KeyLanes<Lane, (Ticket, Place)>,
}

/// What is handled one after another: a key, or a message that has none, alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Key(Key),
    Alone(Ticket),
}

/// A message that may start.
pub(crate) struct Next {
    pub(crate) ticket: Ticket,
    pub(crate) lane: Option<Lane>,
    pub(crate) place: Place,
}

/// A message that is to be parked because it waited behind a gap.
pub(crate) struct Doomed {
    pub(crate) ticket: Ticket,
    pub(crate) reason: String,
}

struct Item {
    ticket: Ticket,
    lane: Lane,
}

impl Order {
    pub(crate) fn new(processing: &Processing) -> Self {
        match processing {
            Processing::Independent { .. } => Self::Independent(VecDeque::new()),
            Processing::OrderedByKey { parked, gap_deadline, gap_policy, .. } => {
                let limits = ResequencerLimits {
                    parked: parked.get().into(),
                    parked_bytes: PARKED_BYTES,
                    gap_deadline: *gap_deadline,
                    first_contact_deadline: FIRST_CONTACT.min(*gap_deadline),
                    lines: LINES,
                };
                Self::ByKey(Box::new(ByKey {
                    resequencer: Resequencer::new(limits, *gap_policy),
                    // How many run at once is counted by the pipeline: a key that waits for its retry holds its lane,
                    // but no handler.
                    lanes: KeyLanes::new(usize::MAX),
                }))
            }
        }
    }

    pub(crate) fn on_delivery(&mut self, ticket: Ticket, message: &Message, bytes: usize, now: Instant) {
        match self {
            Self::Independent(queue) => queue.push_back(ticket),
            Self::ByKey(by_key) => {
                let lane = message.key.clone().map_or(Lane::Alone(ticket), Lane::Key);
                by_key.resequencer.on_delivery(message.sequence.as_ref(), Item { ticket, lane }, bytes, now);
            }
        }
    }

    /// Nobody is to wait for this number: its message is here, and is not going to be handled.
    pub(crate) fn on_filled(&mut self, sequence: &Sequence, now: Instant) {
        if let Self::ByKey(by_key) = self {
            by_key.resequencer.on_unreadable(sequence, now);
        }
    }

    /// A message that was started, or doomed, will not come again.
    pub(crate) fn on_settled(&mut self, sequence: Option<&Sequence>, place: Place) {
        if let Self::ByKey(by_key) = self
            && let Some(sequence) = sequence
            && place == Place::InOrder
        {
            by_key.resequencer.on_settled(&sequence.line, sequence.number);
        }
    }

    /// The next message of this lane may start.
    pub(crate) fn on_lane_free(&mut self, lane: &Lane) {
        if let Self::ByKey(by_key) = self {
            by_key.lanes.on_finished(lane);
        }
    }

    /// The next message to start.
    pub(crate) fn start_next(&mut self) -> Option<Next> {
        match self {
            Self::Independent(queue) => {
                queue.pop_front().map(|ticket| Next { ticket, lane: None, place: Place::Unordered })
            }
            Self::ByKey(by_key) => {
                by_key.lanes.start_next().map(|(lane, (ticket, place))| Next { ticket, lane: Some(lane), place })
            }
        }
    }

    /// Moves what has its turn into the lanes; gives out what is to be parked, and the gaps given up.
    pub(crate) fn advance(&mut self) -> (Vec<Doomed>, Vec<Gap>) {
        let Self::ByKey(by_key) = self else { return (Vec::new(), Vec::new()) };
        let mut doomed = Vec::new();
        for step in by_key.resequencer.take_steps() {
            match step {
                Step::Release { item, place } => by_key.lanes.push(item.lane, (item.ticket, place)),
                Step::DeadLetter { item, reason } => doomed.push(Doomed { ticket: item.ticket, reason }),
            }
        }
        (doomed, by_key.resequencer.take_gaps())
    }

    /// How many messages wait for an earlier one of their line.
    #[cfg(feature = "metrics")]
    pub(crate) fn parked(&self) -> usize {
        match self {
            Self::Independent(_) => 0,
            Self::ByKey(by_key) => by_key.resequencer.parked(),
        }
    }

    pub(crate) fn on_channel_lost(&mut self) {
        match self {
            Self::Independent(queue) => queue.clear(),
            Self::ByKey(by_key) => {
                by_key.lanes.clear();
                by_key.resequencer.on_channel_lost();
            }
        }
    }

    pub(crate) fn on_subscribed(&mut self, now: Instant) {
        if let Self::ByKey(by_key) = self {
            by_key.resequencer.on_subscribed(now);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Independent(_) => None,
            Self::ByKey(by_key) => by_key.resequencer.next_deadline(),
        }
    }

    pub(crate) fn on_deadline(&mut self, now: Instant) {
        if let Self::ByKey(by_key) = self {
            by_key.resequencer.on_deadline(now);
        }
    }
}

/// The most bytes that wait for an earlier message.
const PARKED_BYTES: usize = 64 * 1024 * 1024;
/// How long the first messages of a line wait for those before them, which may have been handled long ago.
const FIRST_CONTACT: Duration = Duration::from_millis(200);
/// How many idle lines are remembered.
const LINES: usize = 100_000;
