//! One line: what comes next on it, and what is parked behind that.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use correio_message::{Line, Sequence};

use super::{Gap, GapCause, GapPolicy, Output, Place, ResequencerLimits, Step};

#[derive(Debug)]
pub(super) struct Row<T> {
    pub(super) line: Line,
    /// Its entry in the machine's clocks.
    pub(super) clock: Option<Instant>,
    /// Its entry in the machine's idle rows.
    pub(super) idle_since: Option<u64>,
    /// The lowest number that was never released, filled or given up.
    next: u64,
    /// Whether a delivery of this line has had its turn.
    met: bool,
    /// Released on a channel that is gone and not settled: their turn comes again, before `next`.
    again: BTreeSet<u64>,
    /// Released or dead-lettered on the live channel and not settled.
    unsettled: BTreeSet<u64>,
    /// Dead-lettered and not settled, and why: when they come again, their fate is the same.
    doomed: BTreeMap<u64, String>,
    slots: BTreeMap<u64, Slot<T>>,
    /// Since when the items in `slots` wait.
    waiting: BTreeSet<(Instant, u64)>,
    bytes: usize,
}

impl<T> Row<T> {
    pub(super) fn new(line: Line) -> Self {
        Self {
            line,
            clock: None,
            idle_since: None,
            next: 1,
            met: false,
            again: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            doomed: BTreeMap::new(),
            slots: BTreeMap::new(),
            waiting: BTreeSet::new(),
            bytes: 0,
        }
    }

    pub(super) fn items(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether forgetting it loses no message and no order among those that are here.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unsettled.is_empty()
    }

    /// When the gap at its head is given up: as soon as one message has waited for it long enough.
    pub(super) fn deadline(&self, limits: &ResequencerLimits) -> Option<Instant> {
        let patience = if self.met { limits.gap_deadline } else { limits.first_contact_deadline };
        self.waiting.first().and_then(|(since, _)| since.checked_add(patience))
    }

    pub(super) fn on_voids(&mut self, sequence: &Sequence, out: &mut Output<T>) {
        if sequence.voids.is_empty() {
            return;
        }
        // A void number says nothing about those that come after the message that carries it.
        for void in sequence.voids.iter().take_while(|void| *void < sequence.number) {
            if void.get() >= self.next {
                self.fill(void.get(), Slot::Void);
            }
        }
        self.run(None, out);
    }

    pub(super) fn on_unreadable(&mut self, number: u64, out: &mut Output<T>) {
        if number >= self.next || self.again.contains(&number) {
            self.fill(number, Slot::Unreadable);
            self.run(None, out);
        }
    }

    pub(super) fn on_item(&mut self, number: u64, item: T, bytes: usize, now: Instant, out: &mut Output<T>) {
        if let Some(reason) = self.doomed.get(&number).cloned() {
            self.unsettled.insert(number);
            out.steps.push(Step::DeadLetter { item, reason });
        } else if number == self.expected() {
            self.pass(number);
            self.release(number, item, None, out);
            self.run(None, out);
        } else if self.is_past(number) || matches!(self.slots.get(&number), Some(Slot::Item { .. })) {
            out.steps.push(Step::Release { item, place: Place::Late });
        } else {
            self.unpark(number);
            self.waiting.insert((now, number));
            self.bytes += bytes;
            self.slots.insert(number, Slot::Item { item, bytes, since: now });
        }
    }

    pub(super) fn on_settled(&mut self, number: u64, out: &mut Output<T>) {
        self.unsettled.remove(&number);
        self.doomed.remove(&number);
        // Its handler went on after the channel was lost: nobody waits for its second delivery.
        if self.again.remove(&number) {
            if let Some(Slot::Item { item, .. }) = self.unpark(number) {
                out.steps.push(Step::Release { item, place: Place::Late });
            }
            self.run(None, out);
        }
    }

    pub(super) fn on_channel_lost(&mut self) {
        let released = mem::take(&mut self.unsettled);
        self.again.extend(released.into_iter().filter(|number| !self.doomed.contains_key(number)));
        for (_, number) in mem::take(&mut self.waiting) {
            self.unpark(number);
        }
    }

    pub(super) fn restart_clock(&mut self, now: Instant) {
        self.waiting = mem::take(&mut self.waiting).into_iter().map(|(_, number)| (now, number)).collect();
        for slot in self.slots.values_mut() {
            if let Slot::Item { since, .. } = slot {
                *since = now;
            }
        }
    }

    /// Stops waiting for what is missing before the first number that is here.
    pub(super) fn give_up_head(&mut self, cause: GapCause, policy: GapPolicy, now: Instant, out: &mut Output<T>) {
        let waited = self.waiting.first().map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(*since));
        let mut missing = Vec::new();
        self.skip_to_first_slot(&mut missing);
        let cause = if self.met { cause } else { GapCause::FirstContact };
        // A void ahead does not say that what follows it is still to come: the line starts at its first delivery.
        while !self.met && self.pass_void() {
            if !self.slots.contains_key(&self.expected()) {
                self.skip_to_first_slot(&mut missing);
            }
        }
        self.met = true;
        let gap = Gap { line: self.line.clone(), missing, waited, cause };
        let dead = policy == GapPolicy::DeadLetter && cause != GapCause::FirstContact;
        let reason = dead.then(|| gap.to_string());
        out.gaps.push(gap);
        self.run(reason.as_deref(), out);
    }
}

impl<T> Row<T> {
    fn expected(&self) -> u64 {
        self.again.first().copied().unwrap_or(self.next)
    }

    fn is_past(&self, number: u64) -> bool {
        number < self.next && !self.again.contains(&number)
    }

    /// The number has had its turn.
    fn pass(&mut self, number: u64) {
        if !self.again.remove(&number) {
            self.next = number.saturating_add(1);
        }
    }

    fn pass_void(&mut self) -> bool {
        let number = self.expected();
        let void = matches!(self.slots.get(&number), Some(Slot::Void));
        if void {
            self.unpark(number);
            self.pass(number);
        }
        void
    }

    /// Gives everything out whose turn it is.
    fn run(&mut self, dead: Option<&str>, out: &mut Output<T>) {
        while !self.slots.is_empty() {
            let number = self.expected();
            match self.unpark(number) {
                None => return,
                Some(Slot::Void) => self.pass(number),
                Some(Slot::Unreadable) => {
                    self.met = true;
                    self.pass(number);
                }
                Some(Slot::Item { item, .. }) => {
                    self.pass(number);
                    self.release(number, item, dead, out);
                }
            }
        }
    }

    fn release(&mut self, number: u64, item: T, dead: Option<&str>, out: &mut Output<T>) {
        self.met = true;
        self.unsettled.insert(number);
        out.steps.push(match dead {
            None => Step::Release { item, place: Place::InOrder },
            Some(reason) => {
                self.doomed.insert(number, reason.to_owned());
                Step::DeadLetter { item, reason: reason.to_owned() }
            }
        });
    }

    /// An item that is parked keeps its place; what was delivered counts for more than what was only declared.
    fn fill(&mut self, number: u64, slot: Slot<T>) {
        match self.slots.get_mut(&number) {
            None => {
                self.bytes += FILLED_BYTES;
                self.slots.insert(number, slot);
            }
            Some(void @ Slot::Void) => *void = slot,
            Some(Slot::Item { .. } | Slot::Unreadable) => {}
        }
    }

    fn unpark(&mut self, number: u64) -> Option<Slot<T>> {
        let slot = self.slots.remove(&number)?;
        self.bytes -= match &slot {
            Slot::Item { bytes, since, .. } => {
                self.waiting.remove(&(*since, number));
                *bytes
            }
            Slot::Unreadable | Slot::Void => FILLED_BYTES,
        };
        Some(slot)
    }

    fn skip_to_first_slot(&mut self, missing: &mut Vec<RangeInclusive<u64>>) {
        let Some(here) = self.slots.keys().next().copied() else { return };
        let later = self.again.split_off(&here);
        for number in mem::replace(&mut self.again, later) {
            match missing.last_mut() {
                Some(range) if *range.end() + 1 == number => *range = *range.start()..=number,
                _ => missing.push(number..=number),
            }
        }
        if here > self.next {
            missing.push(self.next..=here - 1);
            self.next = here;
        }
    }
}

#[derive(Debug)]
enum Slot<T> {
    Item { item: T, bytes: usize, since: Instant },
    Unreadable,
    Void,
}

/// What a number that is filled ahead of its turn counts towards the bytes parked.
const FILLED_BYTES: usize = 64;
