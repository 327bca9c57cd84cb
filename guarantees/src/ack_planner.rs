//! Few acknowledgements for many messages, and never one for a message that is not settled.

use std::{
    collections::BTreeSet,
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
/// `multiple` reaches only up to the highest tag below which everything is settled; what is settled above the
/// first unsettled tag is acknowledged singly. Tags restart at 1 on every channel: the shell reports none of an
/// older channel after [`on_channel_opened`](Self::on_channel_opened).
#[derive(Debug)]
pub struct AckPlanner {
    batch: usize,
    linger: Duration,
    /// Delivered, and not told to be settled.
    unsettled: BTreeSet<u64>,
    /// Settled, and not acknowledged.
    to_acknowledge: BTreeSet<u64>,
    /// The highest tag delivered.
    highest: u64,
    /// The lowest tag that was passed over: nobody knows what stands behind it, so no `multiple` covers it.
    passed_over: Option<u64>,
    /// When the oldest of `to_acknowledge` was settled.
    settled_since: Option<Instant>,
}

impl AckPlanner {
    /// Acknowledges when `batch` messages are settled, or when one has been for `linger`.
    #[must_use]
    pub fn new(batch: usize, linger: Duration) -> Self {
        Self {
            batch: batch.max(1),
            linger,
            unsettled: BTreeSet::new(),
            to_acknowledge: BTreeSet::new(),
            highest: 0,
            passed_over: None,
            settled_since: None,
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
            self.to_acknowledge.insert(tag);
            self.settled_since.get_or_insert(now);
        }
    }

    /// The shell has put a nack or reject for this delivery on the channel: it needs no acknowledgement.
    ///
    /// Told after that frame is on its way, because an acknowledgement that overtook it could cover the tag.
    pub fn on_given_back(&mut self, tag: u64) {
        self.unsettled.remove(&tag);
    }

    /// The acknowledgements that are due: all of them when a batch is full or the linger over, else none.
    pub fn take_acks(&mut self, now: Instant) -> Vec<Ack> {
        let full = self.to_acknowledge.len() >= self.batch;
        let over = self.next_deadline().is_some_and(|deadline| deadline <= now);
        if full || over { self.flush() } else { Vec::new() }
    }

    /// All acknowledgements of what is settled, due or not.
    pub fn flush(&mut self) -> Vec<Ack> {
        self.settled_since = None;
        let hole = self.unsettled.first().into_iter().chain(&self.passed_over).min();
        let above = match hole {
            Some(hole) => self.to_acknowledge.split_off(hole),
            None => BTreeSet::new(),
        };
        let below = mem::take(&mut self.to_acknowledge);
        let reached = below.last().map(|tag| Ack { tag: *tag, multiple: below.len() > 1 });
        reached.into_iter().chain(above.into_iter().map(|tag| Ack { tag, multiple: false })).collect()
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
}
