//! One way through the letters of a parking queue: each is looked at once, and what stays is given back at the end.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{DeadLettersError, Letter, LettersFilter, parking::Parking};
use crate::processing::HALF_OF_CONSUMER_TIMEOUT;

/// Why no more letters were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookEnd {
    /// All that were there at the start were seen.
    #[default]
    AllSeen,
    /// As many as were asked for.
    AtLimit,
    /// It was told to stop.
    Stopped,
    /// Letters that stay were held for 15 minutes: the broker takes them away after 30, and counts that as a delivery.
    HeldLong,
    /// The broker gave no answer about a letter's copy.
    NoAnswer,
}

/// The letters of a parking queue, one after the other.
pub(super) struct Walk {
    parking: Parking,
    filter: LettersFilter,
    stop: CancellationToken,
    /// How many of those that were there at the start are still to be looked at; not known before the first.
    left: Option<u32>,
    /// How many wanted ones were handed out.
    pub(super) wanted: u32,
    /// How many were not wanted.
    pub(super) passed_over: u32,
    /// The letters that stay.
    held: Vec<u64>,
    /// Since when the oldest of them is kept from everybody else.
    held_since: Option<Instant>,
    pub(super) end: LookEnd,
}

/// A wanted letter, and by what it is removed or held.
pub(super) struct Taken {
    pub(super) tag: u64,
    pub(super) letter: Letter,
}

impl Walk {
    pub(super) fn new(parking: Parking, filter: LettersFilter, stop: CancellationToken) -> Self {
        Self {
            parking,
            filter,
            stop,
            left: None,
            wanted: 0,
            passed_over: 0,
            held: Vec::new(),
            held_since: None,
            end: LookEnd::AllSeen,
        }
    }

    /// The next wanted letter, to be removed or held; `None` at the end, which [`Walk::end`] tells.
    pub(super) async fn next(&mut self) -> Result<Option<Taken>, DeadLettersError> {
        loop {
            if let Some(end) = self.ends() {
                self.end = end;
                return Ok(None);
            }
            let Some(parked) = self.parking.next().await? else {
                self.end = LookEnd::AllSeen;
                self.left = Some(0);
                return Ok(None);
            };
            // What is parked after the first look is left: a letter that dies again would be seen for ever.
            self.left = Some(self.left.map_or(parked.behind, |left| left - 1));
            let letter = Letter::of(parked.envelope);
            if self.filter.wants(&letter.summary) {
                self.wanted += 1;
                return Ok(Some(Taken { tag: parked.tag, letter }));
            }
            self.passed_over += 1;
            self.hold(parked.tag);
        }
    }

    fn ends(&self) -> Option<LookEnd> {
        if self.left == Some(0) {
            Some(LookEnd::AllSeen)
        } else if self.stop.is_cancelled() {
            Some(LookEnd::Stopped)
        } else if self.filter.limit.is_some_and(|limit| limit.get() <= self.wanted) {
            Some(LookEnd::AtLimit)
        } else if self.held_since.is_some_and(|since| since.elapsed() >= HELD_AT_MOST) {
            Some(LookEnd::HeldLong)
        } else {
            None
        }
    }

    /// How many of those that were there at the start were not looked at.
    pub(super) fn left(&self) -> u32 {
        self.left.unwrap_or_default()
    }

    /// A letter stays: it is given back at the end. Sooner, it would be the next one again.
    pub(super) fn hold(&mut self, tag: u64) {
        self.held.push(tag);
        self.held_since.get_or_insert_with(Instant::now);
    }

    /// Takes a letter off the queue for good.
    pub(super) async fn remove(&self, tag: u64) -> Result<(), DeadLettersError> {
        self.parking.remove(tag).await
    }

    /// Gives every held letter back, in order. Every other one is removed by then.
    pub(super) async fn give_back(&mut self) -> Result<(), DeadLettersError> {
        self.held.sort_unstable();
        self.parking.give_back(&self.held).await
    }

    /// Waits until the broker has read all that was said to it.
    pub(super) async fn close(self) -> Result<(), DeadLettersError> {
        self.parking.close().await
    }
}

const HELD_AT_MOST: Duration = HALF_OF_CONSUMER_TIMEOUT;
