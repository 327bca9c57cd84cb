//! Messages of one line are released in the order sent, and nothing waits without bound for one that does not come.
//!
//! A number is *filled* when its message is released, unreadable or declared void. What arrives before its turn is
//! parked. A gap is given up when its time or the room for what waits behind it is over: that is reported, once, and
//! a number that comes after all is released as [`Place::Late`], never dropped. What was released on a channel that
//! is gone and not settled takes its turn again when the broker delivers it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use correio_message::{Line, Sequence};

mod gap;
mod row;

pub use gap::{Gap, GapCause};

use row::Row;

/// What happens to the messages behind a gap that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapPolicy {
    /// Go on without the missing ones.
    Skip,
    /// Dead-letter what is parked behind it, up to the next gap, and go on after that.
    DeadLetter,
}

/// What a resequencer may hold, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResequencerLimits {
    /// Messages parked in all; one line may hold half of them (at least one).
    pub parked: usize,
    /// Bytes parked in all; one line may hold half of them. Numbers filled ahead of their turn count a little too.
    pub parked_bytes: usize,
    /// How long a message waits for those before it.
    pub gap_deadline: Duration,
    /// How long the first messages of a line wait when they do not start at 1: what came before may have been
    /// handled long ago.
    pub first_contact_deadline: Duration,
    /// How many lines are remembered on which nothing waits and nothing is unsettled. One that is forgotten is met
    /// as a new one.
    pub lines: usize,
}

/// How a released message stands to the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is its turn: everything before it was released, filled or given up.
    InOrder,
    /// Its number was given up, or is that of a message that is parked or was released before. Whether it was
    /// handled is for the duplicate detector to say.
    Late,
    /// It has no sequence.
    Unordered,
}

/// What the shell does with a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Hand it on.
    Release {
        /// The delivery.
        item: T,
        /// How it stands to the order.
        place: Place,
    },
    /// Park it with the dead letters.
    DeadLetter {
        /// The delivery.
        item: T,
        /// Why, in words.
        reason: String,
    },
}

/// Restores the order of every line. `T` is the shell's token for a delivery.
#[derive(Debug)]
pub struct Resequencer<T> {
    limits: ResequencerLimits,
    policy: GapPolicy,
    /// The number by which a line's row is known here.
    names: BTreeMap<Line, u64>,
    rows: BTreeMap<u64, Row<T>>,
    next_row: u64,
    /// When the head gap of a row is given up.
    clocks: BTreeSet<(Instant, u64)>,
    /// The rows that may be forgotten, longest idle first.
    idle: BTreeSet<(u64, u64)>,
    idle_stamp: u64,
    parked: usize,
    parked_bytes: usize,
    subscribed: bool,
    out: Output<T>,
}

impl<T> Resequencer<T> {
    /// Knows no line yet.
    #[must_use]
    pub fn new(limits: ResequencerLimits, policy: GapPolicy) -> Self {
        Self {
            limits,
            policy,
            names: BTreeMap::new(),
            rows: BTreeMap::new(),
            next_row: 0,
            clocks: BTreeSet::new(),
            idle: BTreeSet::new(),
            idle_stamp: 0,
            parked: 0,
            parked_bytes: 0,
            subscribed: false,
            out: Output { steps: Vec::new(), gaps: Vec::new() },
        }
    }

    /// A message was delivered. What happens to it, and to others because of it, is in
    /// [`take_steps`](Self::take_steps).
    pub fn on_delivery(&mut self, sequence: Option<&Sequence>, item: T, bytes: usize, now: Instant) {
        let Some(sequence) = sequence else {
            self.out.steps.push(Step::Release { item, place: Place::Unordered });
            return;
        };
        let row = self.row_of(&sequence.line);
        self.change(row, |row, out| {
            row.on_voids(sequence, out);
            row.on_item(sequence.number.get(), item, bytes, now, out);
        });
        self.make_room(row, now);
        self.forget_lines();
    }

    /// A message was delivered that cannot be read, except for its sequence: its number is filled. What happens to
    /// the message is the shell's to decide.
    pub fn on_unreadable(&mut self, sequence: &Sequence, now: Instant) {
        let row = self.row_of(&sequence.line);
        self.change(row, |row, out| {
            row.on_voids(sequence, out);
            row.on_unreadable(sequence.number.get(), out);
        });
        self.make_room(row, now);
        self.forget_lines();
    }

    /// A message that was released `InOrder`, or dead-lettered, is settled for good: it will not come again.
    ///
    /// Not told of one that was released as `Late`: the first of its number may still be at work.
    pub fn on_settled(&mut self, line: &Line, number: NonZeroU64) {
        if let Some(row) = self.names.get(line).copied() {
            self.change(row, |row, out| row.on_settled(number.get(), out));
            self.forget_lines();
        }
    }

    /// The channel is gone: what is parked, and what was not taken, is discarded, because the broker delivers it
    /// again. Each line waits for the lowest number that was released and not settled.
    pub fn on_channel_lost(&mut self) {
        self.subscribed = false;
        self.out.steps.clear();
        let rows: Vec<_> = self.rows.keys().copied().collect();
        for row in rows {
            self.change(row, |row, _| row.on_channel_lost());
        }
        self.forget_lines();
    }

    /// Deliveries come again. Time runs for gaps only from here to the next lost channel.
    pub fn on_subscribed(&mut self, now: Instant) {
        if mem::replace(&mut self.subscribed, true) {
            return;
        }
        // What was delivered before this was told has not waited yet.
        let rows: Vec<_> = self.clocks.iter().map(|(_, row)| *row).collect();
        for row in rows {
            self.change(row, |row, _| row.restart_clock(now));
        }
    }

    /// What to do since this was last asked, in this order.
    pub fn take_steps(&mut self) -> Vec<Step<T>> {
        mem::take(&mut self.out.steps)
    }

    /// The gaps given up since this was last asked.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        mem::take(&mut self.out.gaps)
    }

    /// How many messages are parked.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// How many bytes are parked, the numbers filled ahead of their turn included.
    #[must_use]
    pub fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// How many lines are known.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.rows.len()
    }

    /// When the next gap is given up.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.clocks.first().filter(|_| self.subscribed).map(|(deadline, _)| *deadline)
    }

    /// Time has passed: gives up each gap behind which a message has waited long enough.
    pub fn on_deadline(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            if let Some((_, row)) = self.clocks.first().copied() {
                self.give_up(row, GapCause::Deadline, now);
            }
        }
        self.forget_lines();
    }
}

impl<T> Resequencer<T> {
    fn row_of(&mut self, line: &Line) -> u64 {
        if let Some(row) = self.names.get(line) {
            return *row;
        }
        self.next_row += 1;
        self.names.insert(line.clone(), self.next_row);
        self.rows.insert(self.next_row, Row::new(line.clone()));
        self.next_row
    }

    /// Changes a row, then brings in line what is counted and indexed over all rows.
    fn change(&mut self, name: u64, change: impl FnOnce(&mut Row<T>, &mut Output<T>)) {
        let Some(row) = self.rows.get_mut(&name) else { return };
        self.parked -= row.items();
        self.parked_bytes -= row.bytes();
        change(row, &mut self.out);
        self.parked += row.items();
        self.parked_bytes += row.bytes();

        let clock = row.deadline(&self.limits);
        if clock != row.clock {
            if let Some(old) = mem::replace(&mut row.clock, clock) {
                self.clocks.remove(&(old, name));
            }
            self.clocks.extend(clock.map(|clock| (clock, name)));
        }
        match (row.is_idle(), row.idle_since) {
            (true, None) => {
                self.idle_stamp += 1;
                row.idle_since = Some(self.idle_stamp);
                self.idle.insert((self.idle_stamp, name));
            }
            (false, Some(stamp)) => {
                row.idle_since = None;
                self.idle.remove(&(stamp, name));
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn give_up(&mut self, row: u64, cause: GapCause, now: Instant) {
        let policy = self.policy;
        self.change(row, |row, out| row.give_up_head(cause, policy, now, out));
    }

    /// Gives up gaps until what is parked fits, first those of a line that holds more than its half, then the one
    /// whose time is over first.
    fn make_room(&mut self, name: u64, now: Instant) {
        let most = (self.limits.parked / 2).max(1);
        let most_bytes = (self.limits.parked_bytes / 2).max(1);
        while self.rows.get(&name).is_some_and(|row| row.items() > most || row.bytes() > most_bytes) {
            self.give_up(name, GapCause::Room, now);
        }
        while self.parked > self.limits.parked || self.parked_bytes > self.limits.parked_bytes {
            // Without a clock only filled numbers are held, and the last of them came with this line.
            let fullest = self.clocks.first().map_or(name, |(_, row)| *row);
            self.give_up(fullest, GapCause::Room, now);
        }
    }

    fn forget_lines(&mut self) {
        while self.idle.len() > self.limits.lines.max(1) {
            let Some((_, name)) = self.idle.pop_first() else { return };
            if let Some(row) = self.rows.remove(&name) {
                self.parked_bytes -= row.bytes();
                self.names.remove(&row.line);
            }
        }
    }
}

/// What has been decided and not been taken.
#[derive(Debug)]
struct Output<T> {
    steps: Vec<Step<T>>,
    gaps: Vec<Gap>,
}
