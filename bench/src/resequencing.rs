//! What restoring the order costs, without a broker: the machine alone, as the consumer drives it.
//!
//! Each message is delivered, its steps are taken, and what was released is settled. The keys take turns. In random order, the messages
//! of each window are shuffled, so that most of them wait for an earlier one.

use std::{
    collections::BTreeMap,
    fmt,
    hint::black_box,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

use correio_guarantees::{GapPolicy, Resequencer, ResequencerLimits, Step};
use correio_message::{Key, Line, Sequence, Voids};
use uuid::Uuid;

use crate::{
    Error,
    child::{RESEQUENCING, itself},
    consumed::scattered,
    rounds::Spread,
    usage::{Stopwatch, resident},
    verdict::{Bound, line},
};

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Nanoseconds a message, run by run.
    in_order: Vec<f64>,
    in_random_order: Vec<f64>,
    /// Resident memory for each key among a million of them.
    bytes_a_key: u64,
}

impl Found {
    /// Whether it is fast enough.
    pub fn verdicts(&self) -> impl Iterator<Item = String> {
        [
            (&self.in_order, 500.0, KEYS, "in order"),
            (&self.in_random_order, 2_000.0, FEW_KEYS, "in random order within a window of 1000"),
        ]
        .into_iter()
        .filter_map(|(runs, wanted, keys, how)| {
            let Spread { least, median, greatest } = Spread::of(runs.clone())?;
            let figure = format!("{median:.0} ({least:.0}–{greatest:.0})");
            let of = format!("nanoseconds of CPU a message in the resequencer, {keys} keys, {how}");
            Some(line(Bound::AtMost(wanted).is_met(median), &figure, &format!("at most {wanted:.0}"), &of))
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "resequencer: {} bytes of memory for each of {MANY_KEYS} keys", self.bytes_a_key)
    }
}

/// Runs it: the memory in a process of its own.
///
/// # Errors
///
/// When the child fails, or a message was not released once.
pub async fn measure(messages: u64, runs: usize) -> Result<Found, Error> {
    let ordered: Vec<_> = (0..messages).collect();
    let mut shuffled = ordered.clone();
    for window in shuffled.chunks_mut(WINDOW) {
        window.sort_by_key(|number| scattered(*number));
    }
    let (in_order, in_random_order) = (0..runs)
        .map(|_| Ok((timed(&ordered, KEYS)?, timed(&shuffled, FEW_KEYS)?)))
        .collect::<Result<Vec<_>, Error>>()?
        .into_iter()
        .unzip();
    let output = itself(&[RESEQUENCING])?.output().await?;
    let bytes: u64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    Ok(Found { in_order, in_random_order, bytes_a_key: bytes / MANY_KEYS })
}

/// Says how much memory a million keys take that are known and idle.
///
/// # Errors
///
/// Where there is no `/proc`.
pub fn in_child() -> Result<(), Error> {
    let mut machine = machine(MANY_KEYS);
    let (before, _) = resident()?;
    let now = Instant::now();
    machine.on_subscribed(now);
    for number in 0..MANY_KEYS {
        // Each line holds its texts itself, as it does when it comes from the wire.
        let sequence = sequence(&format!("key-{number}"), 1)?;
        machine.on_delivery(Some(&sequence), number, 1_024, now);
        drop(machine.take_steps());
        machine.on_settled(&sequence.line, sequence.number);
    }
    let (after, _) = resident()?;
    assert_eq!(black_box(&machine).lines() as u64, MANY_KEYS);
    println!("{}", after.saturating_sub(before));
    Ok(())
}

/// CPU nanoseconds a message: message `n` is the next of its key, whatever is delivered first.
fn timed(numbers: &[u64], keys: u64) -> Result<f64, Error> {
    let mut lines = BTreeMap::new();
    let deliveries: Vec<Sequence> = numbers
        .iter()
        .map(|number| {
            let key = number % keys;
            let line: &Sequence = match lines.entry(key) {
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(sequence(&format!("key-{key}"), 1)?),
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            };
            let number = NonZeroU64::new(number / keys + 1).ok_or("numbers count from 1")?;
            Ok(Sequence { number, ..line.clone() })
        })
        .collect::<Result<_, Error>>()?;
    let mut machine = machine(keys);
    let mut released = 0_u64;
    let now = Instant::now();
    let watch = Stopwatch::start()?;
    machine.on_subscribed(now);
    for (ticket, sequence) in deliveries.iter().enumerate() {
        machine.on_delivery(Some(sequence), ticket, 1_024, now);
        for step in machine.take_steps() {
            let Step::Release { item, .. } = step else { return Err("a message was not released".into()) };
            released += 1;
            let sequence: &Sequence = &deliveries[item];
            machine.on_settled(&sequence.line, sequence.number);
        }
    }
    let (_, took) = watch.seconds()?;
    if released != numbers.len() as u64 || !machine.take_gaps().is_empty() {
        return Err(format!("{released} of {} were released", numbers.len()).into());
    }
    Ok(took * 1e9 / numbers.len() as f64)
}

fn machine<T>(lines: u64) -> Resequencer<T> {
    let limits = ResequencerLimits {
        // One line may hold half of it.
        parked: 2 * WINDOW,
        parked_bytes: usize::MAX,
        gap_deadline: Duration::from_secs(3_600),
        first_contact_deadline: Duration::from_secs(3_600),
        lines: usize::try_from(lines).unwrap_or(usize::MAX),
    };
    Resequencer::new(limits, GapPolicy::Skip)
}

fn sequence(key: &str, number: u64) -> Result<Sequence, Error> {
    let line = Line { key: Key::new(key)?, source: Uuid::from_u128(7), stream: Arc::from("correio.queue/orders") };
    let number = NonZeroU64::new(number).ok_or("numbers count from 1")?;
    Ok(Sequence { line, number, voids: Voids::default() })
}

const KEYS: u64 = 1_000;
/// So few that a window holds many messages of each.
const FEW_KEYS: u64 = 10;
const MANY_KEYS: u64 = 1_000_000;
const WINDOW: usize = 1_000;
