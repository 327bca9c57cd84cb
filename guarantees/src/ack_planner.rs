//! Few acknowledgements for many messages, and never one for a message that is not settled.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::{Duration, Instant},
};

/// One acknowledgement to put on the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is not acknowledged comes again"]
pub struct Ack {
    /// The delivery tag.
    pub tag: u64,
    /// Whether it covers all lower tags too.
    pub multiple: bool,
}

/// Plans the acknowledgements of one channel.
///
/// `multiple` reaches only up to the highest tag below which everything is settled. What is settled above the first unsettled
/// tag waits for that one, because each single acknowledgement costs the broker as much as one for a whole batch; when it has
/// waited for the linger, or is more than a few batches, it is acknowledged singly. Tags restart at 1 on every channel: the shell reports none of an
/// older channel after [`on_channel_opened`](Self::on_channel_opened).
#[derive(Debug)]
pub struct AckPlanner {
    batch: usize,
    linger: Duration,
    /// Delivered, and not told to be settled.
    unsettled: BTreeSet<u64>,
    /// Settled, and not acknowledged; since when.
    to_acknowledge: BTreeMap<u64, Instant>,
    /// The highest tag delivered.
    highest: u64,
    /// The lowest tag that was passed over: nobody knows what stands behind it, so no `multiple` covers it.
    passed_over: Option<u64>,
    /// When the oldest of `to_acknowledge` was settled.
    settled_since: Option<Instant>,
    /// When something was acknowledged last.
    last: Option<Instant>,
}

impl AckPlanner {
    /// Acknowledges when `batch` messages with nothing unsettled below them are settled; when four times as many are, wherever
    /// they stand; and when one has been for `linger`.
    #[must_use]
    pub fn new(batch: usize, linger: Duration) -> Self {
        Self {
            batch: batch.max(1),
            linger,
            unsettled: BTreeSet::new(),
            to_acknowledge: BTreeMap::new(),
            highest: 0,
            passed_over: None,
            settled_since: None,
            last: None,
        }
    }

    /// A new channel: what stood on the old one cannot be acknowledged any more and comes again.
    pub fn on_channel_opened(&mut self) {
        *self = Self::new(self.batch, self.linger);
    }

    /// The broker delivered this tag. Told in the order of the tags.
    pub fn on_delivered(&mut self, tag: u64) {
        if tag <= self.highest {
            return;
        }
        if tag > self.highest + 1 && self.passed_over.is_none() {
            self.passed_over = Some(self.highest + 1);
        }
        self.highest = tag;
        self.unsettled.insert(tag);
    }

    /// This delivery is settled and to be acknowledged.
    pub fn on_settled(&mut self, tag: u64, now: Instant) {
        if self.unsettled.remove(&tag) {
            self.to_acknowledge.insert(tag, now);
            self.settled_since.get_or_insert(now);
        }
    }

    /// The shell has put a nack or reject for this delivery on the channel: it needs no acknowledgement.
    ///
    /// Told after that frame is on its way, because an acknowledgement that overtook it could cover the tag.
    pub fn on_given_back(&mut self, tag: u64) {
        self.unsettled.remove(&tag);
    }

    /// The acknowledgements that are due: one for a full batch with nothing unsettled below it; all of them when the linger is
    /// over, or too much waits above what is unsettled; else none.
    pub fn take_acks(&mut self, now: Instant) -> Vec<Ack> {
        let over = self.next_deadline().is_some_and(|deadline| deadline <= now);
        if over || self.to_acknowledge.len() >= MOST_BATCHES * self.batch {
            self.last = Some(now);
            return self.flush();
        }
        let hole = self.hole().unwrap_or(u64::MAX);
        if self.to_acknowledge.len() < self.batch
            || self.to_acknowledge.range(..hole).take(self.batch).count() < self.batch
        {
            return Vec::new();
        }
        let below = self.take_below(hole);
        self.last = Some(now);
        self.settled_since = self.to_acknowledge.values().min().copied();
        below.into_iter().collect()
    }

    /// The same when nothing else is held: what comes alone is acknowledged at once, and what comes in a stream of which each
    /// is done before the next comes is not acknowledged one by one.
    pub fn take_acks_at_rest(&mut self, now: Instant) -> Vec<Ack> {
        let is_alone = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.linger);
        if is_alone && !self.to_acknowledge.is_empty() {
            self.last = Some(now);
            return self.flush();
        }
        self.take_acks(now)
    }

    /// All acknowledgements of what is settled, due or not.
    pub fn flush(&mut self) -> Vec<Ack> {
        self.settled_since = None;
        let below = self.take_below(self.hole().unwrap_or(u64::MAX));
        let above = mem::take(&mut self.to_acknowledge);
        below.into_iter().chain(above.into_keys().map(|tag| Ack { tag, multiple: false })).collect()
    }

    /// When [`take_acks`](Self::take_acks) next has something, if no batch fills before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.settled_since.and_then(|since| since.checked_add(self.linger))
    }

    /// How many deliveries are not settled.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// The lowest tag that may not be covered.
    fn hole(&self) -> Option<u64> {
        self.unsettled.first().copied().into_iter().chain(self.passed_over).min()
    }

    /// One acknowledgement for everything that is settled below this tag.
    fn take_below(&mut self, hole: u64) -> Option<Ack> {
        let above = self.to_acknowledge.split_off(&hole);
        let below = mem::replace(&mut self.to_acknowledge, above);
        below.last_key_value().map(|(tag, _)| Ack { tag: *tag, multiple: below.len() > 1 })
    }
}

/// So many batches may be settled and wait for what is unsettled below them. A consumer's batch is a tenth of its prefetch, so
/// that the broker still has half of that to send ahead.
const MOST_BATCHES: usize = 4;
