//! Keys with a hole: a numbered message that is not on its queue for certain, and what becomes of the key behind it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use correio_message::{Key, MessageId, Route};

use crate::{publishing_channel::Held, receipt::Promise};

/// What happens to a key when a message of it ends otherwise than [`Confirmed`](crate::Outcome::Confirmed): its number is
/// a hole, which the key's consumer would wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnHole {
    /// The key stops: its further messages come back ([`SendFailure::KeyStopped`](crate::SendFailure::KeyStopped)) until the
    /// sender chooses [`resend`](crate::Producer::resend) or [`void`](crate::Producer::void). What was on its way already
    /// still comes to its outcome. Until then the producer holds the message, and its room in the buffer:
    /// [`holes`](crate::Producer::holes) says which there are. An event that nobody subscribed to is no hole
    /// ([`Destination::wants_somebody`](crate::Destination::wants_somebody)). What is undecided when the producer closes is void.
    #[default]
    Stop,
    /// The number is declared void at once, and the key goes on: for senders that keep what failed and send it later as
    /// something new.
    Void,
}

/// There is no hole of this id: the message was confirmed, or has no key, or has been decided upon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no key waits for a decision about message {id}: it was confirmed, has no key, is decided already, or the producer is closed"
)]
pub struct NoSuchHole {
    /// The id that was asked for.
    pub id: MessageId,
}

/// What a sender decides about a hole.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) id: MessageId,
    pub(crate) choice: Choice,
}

#[derive(Debug)]
pub(crate) enum Choice {
    /// Send it again under its id and number, and tell here what became of it.
    Resend(Promise),
    /// Nobody is to wait for its number.
    Void,
}

/// Which channel holds the hole of which message: what callers look up.
#[derive(Clone, Debug, Default)]
pub(crate) struct HoleRegistry(Arc<Mutex<BTreeMap<MessageId, usize>>>);

impl HoleRegistry {
    /// `false` if a message of this id has left a hole already, in another line: which of the two were meant could not be told.
    pub(crate) fn on_hole(&self, id: &MessageId, channel: usize) -> bool {
        let mut holes = self.lock();
        let is_new = !holes.contains_key(id);
        if is_new {
            holes.insert(id.clone(), channel);
        }
        is_new
    }

    /// The channel that holds it.
    pub(crate) fn channel_of(&self, id: &MessageId) -> Result<usize, NoSuchHole> {
        self.lock().get(id).copied().ok_or_else(|| NoSuchHole { id: id.clone() })
    }

    /// Each hole is decided once.
    pub(crate) fn take(&self, id: &MessageId) -> Result<usize, NoSuchHole> {
        self.lock().remove(id).ok_or_else(|| NoSuchHole { id: id.clone() })
    }

    pub(crate) fn ids(&self) -> Vec<MessageId> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<MessageId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that is not on its queue, and whose sender has not decided yet.
pub(crate) struct Hole {
    pub(crate) held: Held,
    /// Whether anybody may be waiting for it where it was sent to.
    pub(crate) wants_marker: bool,
}

/// The holes of one channel.
#[derive(Default)]
pub(crate) struct Holes {
    held: BTreeMap<MessageId, Hole>,
    /// By key, the messages that stop it.
    stopped: BTreeMap<Route, BTreeMap<Key, BTreeSet<MessageId>>>,
}

impl Holes {
    /// The key of this message stops.
    pub(crate) fn stop(&mut self, id: MessageId, hole: Hole) {
        if let Some(sequence) = &hole.held.sequence {
            let keys = self.stopped.entry(hole.held.cargo.route()).or_default();
            keys.entry(sequence.line.key.clone()).or_default().insert(id.clone());
        }
        self.held.insert(id, hole);
    }

    /// A message by which the key is stopped.
    pub(crate) fn stopped_by(&self, route: &Route, key: &Key) -> Option<&MessageId> {
        self.stopped.get(route)?.get(key)?.first()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// It is decided: its key goes on if nothing else stops it.
    pub(crate) fn take(&mut self, id: &MessageId) -> Option<Hole> {
        let hole = self.held.remove(id)?;
        let held = &hole.held;
        let route = held.cargo.route();
        if let (Some(keys), Some(sequence)) = (self.stopped.get_mut(&route), &held.sequence) {
            if let Some(ids) = keys.get_mut(&sequence.line.key) {
                ids.remove(id);
                if ids.is_empty() {
                    keys.remove(&sequence.line.key);
                }
            }
            if keys.is_empty() {
                self.stopped.remove(&route);
            }
        }
        Some(hole)
    }

    /// All of them, undecided.
    pub(crate) fn take_all(&mut self) -> BTreeMap<MessageId, Hole> {
        self.stopped.clear();
        std::mem::take(&mut self.held)
    }
}
