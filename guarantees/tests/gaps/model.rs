//! A naive observer of every delivery: which numbers have had their turn, and what waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use correio_guarantees::{Gap, GapCause, GapPolicy, Place, Resequencer, Step};
use proptest::{collection::vec, prelude::*};

use crate::{
    LIMITS, line, number, sequence,
    support::{at, ticks},
};

const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Deliver { key: usize, number: u64, voids: Vec<u64>, bytes: usize },
    DeliverUnordered,
    Unreadable { key: usize, number: u64 },
    Settle(usize),
    Tick(u64),
    LoseChannel,
    Subscribe,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let key = || prop_oneof![3 => Just(0usize), 1 => 1usize..KEYS.len()];
    let voids = prop_oneof![4 => Just(vec![]), 1 => vec(1u64..16, 1..4)];
    prop_oneof![
        30 => (key(), 1u64..16, voids, prop_oneof![9 => 1usize..50, 1 => 3_000usize..6_000])
            .prop_map(|(key, number, voids, bytes)| Op::Deliver { key, number, voids, bytes }),
        1 => Just(Op::DeliverUnordered),
        4 => (key(), 1u64..16).prop_map(|(key, number)| Op::Unreadable { key, number }),
        10 => any::<usize>().prop_map(Op::Settle),
        8 => (1u64..9).prop_map(Op::Tick),
        1 => Just(Op::LoseChannel),
        8 => Just(Op::Subscribe),
    ]
}

/// One delivery with a sequence.
struct Delivered {
    key: usize,
    number: u64,
    bytes: usize,
    since: Instant,
    is_parked: bool,
}

#[derive(Default)]
struct Seen {
    /// Released, dead-lettered, unreadable, void or given up: nobody waits for these.
    filled: BTreeSet<u64>,
    /// Everything below has had its turn at some time.
    high: u64,
    /// Released on a channel that is gone, not settled and not had its turn again.
    again: BTreeSet<u64>,
    unsettled: BTreeSet<u64>,
    doomed: BTreeSet<u64>,
    unreadable: BTreeSet<u64>,
    met: bool,
}

impl Seen {
    /// The lowest number that is waited for.
    fn frontier(&self) -> u64 {
        (1..).find(|n| !self.filled.contains(n)).unwrap_or(u64::MAX)
    }

    fn advance(&mut self) {
        let frontier = self.frontier();
        self.high = self.high.max(frontier);
        self.again.retain(|n| *n >= frontier);
        self.met |= self.unreadable.iter().any(|n| *n < frontier);
    }
}

pub(crate) struct Run {
    resequencer: Resequencer<usize>,
    policy: GapPolicy,
    now: u64,
    subscribed: bool,
    deliveries: Vec<Delivered>,
    lines: BTreeMap<usize, Seen>,
}

impl Run {
    pub(crate) fn new(policy: GapPolicy) -> Self {
        let mut resequencer = Resequencer::new(LIMITS, policy);
        resequencer.on_subscribed(at(0));
        let lines = (0..KEYS.len()).map(|key| (key, Seen::default())).collect();
        Self { resequencer, policy, now: 0, subscribed: true, deliveries: Vec::new(), lines }
    }

    pub(crate) fn step(&mut self, op: Op) {
        let parked_before = (self.resequencer.parked(), self.resequencer.parked_bytes());
        let mut arrived = None;
        let mut may_lack_room = false;
        match op {
            Op::Deliver { key, number, voids, bytes } if self.subscribed => {
                self.fill_voids(key, number, &voids);
                arrived = Some(self.deliver(key, number, &voids, bytes));
                let incoming = bytes + 64 * voids.len();
                may_lack_room =
                    parked_before.0 >= LIMITS.parked / 2 || parked_before.1 + incoming > LIMITS.parked_bytes / 2;
            }
            Op::DeliverUnordered => {
                self.resequencer.on_delivery(None, usize::MAX, 1, at(self.now));
                let unordered = Step::Release { item: usize::MAX, place: Place::Unordered };
                assert_eq!(self.resequencer.take_steps(), [unordered]);
            }
            Op::Unreadable { key, number } if self.subscribed => {
                may_lack_room = parked_before.1 + 64 > LIMITS.parked_bytes / 2;
                self.resequencer.on_unreadable(&sequence(KEYS[key], number, &[]), at(self.now));
                let waits = self.parked(key).any(|delivered| delivered.number == number);
                let seen = self.seen(key);
                if !waits && (number >= seen.high || seen.again.contains(&number)) {
                    seen.filled.insert(number);
                    seen.unreadable.insert(number);
                }
            }
            Op::Settle(nth) => self.settle(nth),
            Op::Tick(n) => {
                self.now += n;
                self.resequencer.on_deadline(at(self.now));
            }
            Op::LoseChannel => self.lose_channel(),
            Op::Subscribe => {
                self.subscribed = true;
                self.resequencer.on_subscribed(at(self.now));
            }
            Op::Deliver { .. } | Op::Unreadable { .. } => {}
        }
        let gaps = self.resequencer.take_gaps();
        for gap in &gaps {
            self.on_gap(gap, may_lack_room);
        }
        let steps = self.resequencer.take_steps();
        for step in steps {
            self.on_step(step, &gaps, arrived);
        }
        if let Some((token, true)) = arrived {
            assert!(!self.deliveries[token].is_parked, "what is late waits for nobody");
        }
        self.check();
    }

    fn seen(&mut self, key: usize) -> &mut Seen {
        self.lines.entry(key).or_default()
    }

    fn parked(&self, key: usize) -> impl Iterator<Item = &Delivered> {
        self.deliveries.iter().filter(move |delivered| delivered.is_parked && delivered.key == key)
    }

    fn fill_voids(&mut self, key: usize, number: u64, voids: &[u64]) {
        let waiting: BTreeSet<_> = self.parked(key).map(|delivered| delivered.number).collect();
        let seen = self.seen(key);
        let open = |void: &&u64| **void < number && **void >= seen.high.max(1) && !waiting.contains(void);
        let open: Vec<_> = voids.iter().filter(open).copied().collect();
        seen.filled.extend(open);
    }

    /// Hands a delivery over; says its token and whether it has to be released as late.
    fn deliver(&mut self, key: usize, number: u64, voids: &[u64], bytes: usize) -> (usize, bool) {
        // What was parked and is now due because of the voids has its turn before this delivery.
        let mut filled = self.lines[&key].filled.clone();
        filled.extend(self.parked(key).map(|delivered| delivered.number));
        let due = (1..).find(|n| !filled.contains(n)).unwrap_or(u64::MAX);
        let is_copy = self.parked(key).any(|delivered| delivered.number == number);
        let seen = self.seen(key);
        let past = number < seen.high.max(due) && !(seen.again.contains(&number) && number >= due);
        let late = (past || is_copy) && !seen.doomed.contains(&number);
        if !late && !seen.doomed.contains(&number) {
            // A readable copy takes the place of what was only declared or unreadable.
            seen.filled.remove(&number);
            seen.unreadable.remove(&number);
        }
        let token = self.deliveries.len();
        self.deliveries.push(Delivered { key, number, bytes, since: at(self.now), is_parked: true });
        self.resequencer.on_delivery(Some(&sequence(KEYS[key], number, voids)), token, bytes, at(self.now));
        (token, late)
    }

    fn settle(&mut self, nth: usize) {
        let open: Vec<_> = self
            .lines
            .iter()
            .flat_map(|(key, seen)| seen.unsettled.union(&seen.again).chain(&seen.doomed).map(|n| (*key, *n)))
            .collect();
        if open.is_empty() {
            return;
        }
        let (key, n) = open[nth % open.len()];
        self.resequencer.on_settled(&line(KEYS[key]), number(n));
        let seen = self.seen(key);
        seen.unsettled.remove(&n);
        seen.doomed.remove(&n);
        seen.again.remove(&n);
        seen.filled.insert(n);
    }

    fn lose_channel(&mut self) {
        self.resequencer.on_channel_lost();
        self.subscribed = false;
        for delivered in &mut self.deliveries {
            delivered.is_parked = false;
        }
        for seen in self.lines.values_mut() {
            for n in std::mem::take(&mut seen.unsettled) {
                if !seen.doomed.contains(&n) {
                    seen.filled.remove(&n);
                    seen.again.insert(n);
                }
            }
        }
    }

    fn on_gap(&mut self, gap: &Gap, may_lack_room: bool) {
        let key = KEYS.iter().position(|key| gap.line == line(key)).unwrap();
        let oldest = self.parked(key).map(|delivered| delivered.since).min();
        let waited = oldest.map(|since| at(self.now) - since);
        let seen = self.seen(key);
        match gap.cause {
            GapCause::FirstContact => assert!(!seen.met && (may_lack_room || waited >= Some(ticks(5)))),
            GapCause::Deadline => assert!(waited >= Some(ticks(20)), "{gap} too early"),
            GapCause::Room => assert!(may_lack_room, "{gap} while there was room"),
        }
        assert!(!gap.missing.is_empty());
        for missing in gap.missing.iter().cloned().flatten() {
            assert!(seen.filled.insert(missing), "{gap}: {missing} was not missing");
            seen.again.remove(&missing);
        }
        seen.met = true;
    }

    fn on_step(&mut self, step: Step<usize>, gaps: &[Gap], arrived: Option<(usize, bool)>) {
        let (token, place) = match step {
            Step::Release { item, place } => (item, Some(place)),
            Step::DeadLetter { item, .. } => (item, None),
        };
        let Delivered { key, number, is_parked, .. } = self.deliveries[token];
        assert!(is_parked, "{number} was given out twice");
        self.deliveries[token].is_parked = false;
        let policy = self.policy;
        let behind_gap = |gap: &&Gap| {
            let last = gap.missing.last().map_or(0, |range| *range.end());
            gap.line == line(KEYS[key]) && gap.cause != GapCause::FirstContact && last < number
        };
        let gap = gaps.iter().find(behind_gap);
        let directly = gap.and_then(|gap| gap.missing.last()).is_some_and(|range| *range.end() + 1 == number);
        let seen = self.seen(key);
        match place {
            Some(Place::InOrder) => {
                assert!(!(policy == GapPolicy::DeadLetter && directly), "{number} stands behind a gap");
                assert_eq!(seen.frontier(), number, "{number} before its turn");
                seen.filled.insert(number);
                seen.unsettled.insert(number);
                seen.met = true;
            }
            Some(Place::Late) => {
                let settled = seen.filled.contains(&number);
                assert!(arrived == Some((token, true)) || (arrived.is_none() && settled), "{number} is not late");
            }
            Some(Place::Unordered) => panic!("{number} has a sequence"),
            None => {
                let again = seen.doomed.contains(&number);
                assert!(again || (policy == GapPolicy::DeadLetter && gap.is_some()), "{number} dead for no reason");
                assert!(again || seen.frontier() == number, "{number} dead before its turn");
                seen.filled.insert(number);
                seen.unsettled.insert(number);
                seen.doomed.insert(number);
            }
        }
        seen.advance();
    }

    fn check(&mut self) {
        for key in 0..KEYS.len() {
            self.seen(key).advance();
            let frontier = self.lines[&key].frontier();
            assert!(self.parked(key).all(|delivered| delivered.number > frontier), "one waits for nobody");
            assert!(self.parked(key).count() <= LIMITS.parked / 2);
            let bytes: usize = self.parked(key).map(|delivered| delivered.bytes).sum();
            assert!(bytes <= LIMITS.parked_bytes / 2);
        }
        let parked: Vec<_> = self.deliveries.iter().filter(|delivered| delivered.is_parked).collect();
        assert_eq!(self.resequencer.parked(), parked.len(), "one has vanished");
        assert!(parked.len() <= LIMITS.parked);
        let bytes: usize = parked.iter().map(|delivered| delivered.bytes).sum();
        let counted = self.resequencer.parked_bytes();
        assert!(bytes <= counted && counted <= LIMITS.parked_bytes);
        let patience = |key| if self.lines[&key].met { LIMITS.gap_deadline } else { LIMITS.first_contact_deadline };
        let deadline = parked.iter().map(|delivered| delivered.since + patience(delivered.key)).min();
        assert_eq!(self.resequencer.next_deadline(), deadline.filter(|_| self.subscribed));
    }
}
