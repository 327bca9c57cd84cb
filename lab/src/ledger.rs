//! The ledger that judges: what was attempted, what was said about it, what was seen, and whether that fits together.
//!
//! As Jepsen's total-queue checker does, it knows nothing of brokers. It is told each event by whoever saw it, in any order;
//! after a final drain [`Ledger::judge`] compares. It keeps every id of a run: a run's size bounds it.

mod report;

pub use report::Report;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    time::{Duration, Instant},
};

/// What a producer was told about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// It is on its queue.
    Confirmed,
    /// No queue was there for it.
    Unroutable,
    /// A queue did not take it; others may have.
    Refused,
    /// Nobody knows. A timeout is not a failure.
    Unknown,
    /// It never left.
    NotSent,
}

/// Everything that is known of one run.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    attempts: BTreeMap<String, Attempt>,
    /// In the order in which they were handled.
    sights: Vec<Sight>,
    dead: BTreeSet<String>,
    confirms: Rhythm,
    deliveries: Rhythm,
}

#[derive(Clone, Debug)]
struct Attempt {
    place: Option<(String, u64)>,
    said: Option<Said>,
    /// Its queue may have been deleted with it.
    may_be_deleted: bool,
}

impl Attempt {
    fn at(place: Option<(String, u64)>) -> Self {
        Self { place, said: None, may_be_deleted: false }
    }
}

#[derive(Clone, Debug)]
struct Sight {
    id: String,
    redelivered: Option<bool>,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// A message is about to be sent. With a key, `number` is its place among the messages of that key; two sources that send with
    /// one key have no order between them, so they need keys of their own here. Sending it again changes nothing.
    pub fn attempted(&mut self, id: &str, key: Option<&str>, number: u64) {
        let place = key.map(|key| (key.to_owned(), number));
        self.attempts.entry(id.to_owned()).or_insert(Attempt::at(place));
    }

    /// The producer was told this about a message. Once confirmed stays confirmed: that is the promise which is judged.
    pub fn said(&mut self, id: &str, said: Said, at: Instant) {
        if said == Said::Confirmed {
            self.confirms.beat(at);
        }
        let attempt = self.attempts.entry(id.to_owned()).or_insert(Attempt::at(None));
        if attempt.said != Some(Said::Confirmed) {
            attempt.said = Some(said);
        }
    }

    /// A handler finished a message. `redelivered` is the broker's flag.
    pub fn handled(&mut self, id: &str, redelivered: bool, at: Instant) {
        self.deliveries.beat(at);
        self.sights.push(Sight { id: id.to_owned(), redelivered: Some(redelivered) });
    }

    /// The queue was deleted just now with what was on it. What was attempted by then and is never seen is gone with it, not lost;
    /// what is attempted later must be on its successor.
    pub fn queue_deleted(&mut self) {
        self.attempts.values_mut().for_each(|attempt| attempt.may_be_deleted = true);
    }

    /// A message lies among the dead letters: set aside, not lost.
    pub fn dead(&mut self, id: &str) {
        self.dead.insert(id.to_owned());
    }

    /// Takes the output of a program for what was handled: one line each, in the order of the file. `id_of` finds the id in a line, or
    /// says that it has none. Such a file has neither flags nor times. Gives back how many lines had an id.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line is longer than a mebibyte.
    pub fn handled_in_file(&mut self, path: &Path, id_of: impl Fn(&str) -> Option<String>) -> io::Result<usize> {
        let mut lines = BufReader::new(File::open(path)?);
        let mut found = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = io::Read::take(&mut lines, LONGEST_LINE).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(found);
            }
            if read as u64 == LONGEST_LINE {
                let what = format!("a line of {} is longer than {LONGEST_LINE} bytes", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            if let Some(id) = id_of(String::from_utf8_lossy(&line).trim_end()) {
                self.sights.push(Sight { id, redelivered: None });
                found += 1;
            }
        }
    }

    /// Compares, as if everything that will ever be seen has been seen.
    pub fn judge(&self) -> Report {
        let mut report = Report {
            attempted: self.attempts.len() as u64,
            dead: self.dead.len() as u64,
            longest_without_confirm: self.confirms.longest,
            longest_without_delivery: self.deliveries.longest,
            ..Report::default()
        };
        let handled: BTreeSet<&str> = self.sights.iter().map(|sight| sight.id.as_str()).collect();
        report.handled = handled.len() as u64;
        for (id, attempt) in &self.attempts {
            let seen = handled.contains(id.as_str()) || self.dead.contains(id);
            let said = attempt.said.unwrap_or(Said::Unknown);
            if said == Said::Confirmed && !seen && attempt.may_be_deleted {
                report.confirmed += 1;
                report.deleted += 1;
            } else {
                report.count(said, seen);
            }
        }
        let seen = handled.iter().copied().chain(self.dead.iter().map(String::as_str)).collect::<BTreeSet<_>>();
        report.unexpected = seen.iter().filter(|id| !self.attempts.contains_key(**id)).count() as u64;
        self.compare_orders(&mut report);
        report
    }

    /// Walks through what was handled, in its order: what comes again is a duplicate, what comes after a later one of its key an inversion.
    fn compare_orders(&self, report: &mut Report) {
        let mut seen = BTreeSet::new();
        let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
        for sight in &self.sights {
            if !seen.insert(sight.id.as_str()) {
                match sight.redelivered {
                    Some(true) => report.duplicated_redelivered += 1,
                    Some(false) => report.duplicated_first += 1,
                    None => report.duplicated_unflagged += 1,
                }
                continue;
            }
            let place = self.attempts.get(&sight.id).and_then(|attempt| attempt.place.as_ref());
            let Some((key, number)) = place else { continue };
            let highest = reached.entry(key).or_default();
            if *number < *highest && sight.redelivered != Some(true) {
                *report.inversions.entry(key.clone()).or_default() += 1;
            }
            *highest = (*highest).max(*number);
        }
    }
}

/// The longest pause between two events of a kind. They may be told out of order: only steps forward count.
#[derive(Clone, Copy, Debug, Default)]
struct Rhythm {
    last: Option<Instant>,
    longest: Option<Duration>,
}

impl Rhythm {
    fn beat(&mut self, at: Instant) {
        if let Some(pause) = self.last.and_then(|last| at.checked_duration_since(last)) {
            self.longest = self.longest.max(Some(pause));
        }
        self.last = self.last.max(Some(at));
    }
}

const LONGEST_LINE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages `a0`, `a1` … of key `a`, all confirmed, none seen yet.
    fn confirmed(count: u64) -> Ledger {
        let (mut ledger, now) = (Ledger::new(), Instant::now());
        for number in 0..count {
            ledger.attempted(&format!("a{number}"), Some("a"), number + 1);
            ledger.said(&format!("a{number}"), Said::Confirmed, now);
        }
        ledger
    }

    fn see(ledger: &mut Ledger, ids: &[&str]) {
        for id in ids {
            ledger.handled(id, false, Instant::now());
        }
    }

    #[test]
    fn a_run_without_damage_is_clean() {
        let mut ledger = confirmed(3);
        see(&mut ledger, &["a0", "a1", "a2"]);
        let report = ledger.judge();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.attempted, report.confirmed, report.handled), (3, 3, 3));
    }

    #[test]
    fn a_confirmed_message_that_nobody_saw_is_lost_and_a_dead_one_is_not() {
        let mut ledger = confirmed(3);
        see(&mut ledger, &["a0"]);
        ledger.dead("a1");
        let report = ledger.judge();
        assert_eq!((report.lost, report.dead, report.handled), (1, 1, 1));
        assert!(!report.is_clean());
    }

    #[test]
    fn what_was_confirmed_before_its_queue_was_deleted_is_not_lost_and_what_came_later_is() {
        let mut ledger = confirmed(3);
        ledger.attempted("early", None, 0);
        ledger.queue_deleted();
        ledger.attempted("late", None, 0);
        for id in ["early", "late"] {
            ledger.said(id, Said::Confirmed, Instant::now());
        }
        see(&mut ledger, &["a0"]);
        let report = ledger.judge();
        assert_eq!((report.confirmed, report.deleted, report.lost), (5, 3, 1), "a1, a2 and early; late");
        assert!(!report.is_clean());
    }

    #[test]
    fn only_a_confirmed_message_can_be_lost() {
        let (mut ledger, now) = (Ledger::new(), Instant::now());
        for (id, said) in [("u", Said::Unroutable), ("r", Said::Refused), ("k", Said::Unknown), ("n", Said::NotSent)] {
            ledger.attempted(id, None, 0);
            ledger.said(id, said, now);
        }
        ledger.attempted("silent", None, 0);
        let report = ledger.judge();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.unroutable, report.refused, report.unknown, report.not_sent), (1, 1, 2, 1));
    }

    #[test]
    fn an_unknown_message_that_is_seen_is_recovered() {
        let mut ledger = Ledger::new();
        ledger.attempted("k", None, 0);
        ledger.said("k", Said::Unknown, Instant::now());
        see(&mut ledger, &["k"]);
        let report = ledger.judge();
        assert_eq!((report.unknown, report.recovered), (1, 1));
        assert!(report.is_clean());
    }

    #[test]
    fn a_message_that_was_said_not_to_be_there_and_is_seen_contradicts() {
        let mut ledger = Ledger::new();
        for (id, said) in [("u", Said::Unroutable), ("n", Said::NotSent), ("r", Said::Refused)] {
            ledger.attempted(id, None, 0);
            ledger.said(id, said, Instant::now());
        }
        see(&mut ledger, &["u", "n", "r"]);
        // A refused one may be on another queue.
        assert_eq!(ledger.judge().contradicted, 2);
        assert!(!ledger.judge().is_clean());
    }

    #[test]
    fn a_message_that_nobody_attempted_is_unexpected() {
        let mut ledger = confirmed(1);
        see(&mut ledger, &["a0", "b0"]);
        ledger.dead("b1");
        assert_eq!(ledger.judge().unexpected, 2);
        assert!(!ledger.judge().is_clean());
    }

    #[test]
    fn duplicates_are_split_by_the_broker_flag_and_do_not_count_as_handled_twice() {
        let (mut ledger, now) = (confirmed(1), Instant::now());
        for redelivered in [false, false, true, true, true] {
            ledger.handled("a0", redelivered, now);
        }
        let report = ledger.judge();
        assert_eq!((report.handled, report.duplicated_first, report.duplicated_redelivered), (1, 1, 3));
        assert_eq!(report.duplicated(), 4);
        assert!(!report.is_clean());
    }

    #[test]
    fn an_overtaken_message_is_an_inversion_of_its_key_alone() {
        let mut ledger = confirmed(4);
        ledger.attempted("b0", Some("b"), 1);
        ledger.said("b0", Said::Confirmed, Instant::now());
        see(&mut ledger, &["a0", "a3", "b0", "a1", "a2"]);
        let report = ledger.judge();
        assert_eq!(report.inversions, BTreeMap::from([("a".to_owned(), 2)]));
        assert!(!report.is_clean());
    }

    #[test]
    fn redelivered_messages_and_duplicates_are_not_inversions() {
        let (mut ledger, now) = (confirmed(3), Instant::now());
        see(&mut ledger, &["a0", "a2"]);
        ledger.handled("a1", true, now);
        ledger.handled("a0", false, now);
        assert!(ledger.judge().inversions.is_empty());
    }

    #[test]
    fn what_was_confirmed_once_stays_confirmed_and_is_lost_if_unseen() {
        let mut ledger = confirmed(1);
        ledger.said("a0", Said::Unknown, Instant::now());
        assert_eq!((ledger.judge().confirmed, ledger.judge().lost), (1, 1));
        let mut ledger = Ledger::new();
        ledger.attempted("k", None, 0);
        ledger.said("k", Said::Unknown, Instant::now());
        ledger.said("k", Said::Confirmed, Instant::now());
        assert_eq!((ledger.judge().confirmed, ledger.judge().unknown), (1, 0));
    }

    #[test]
    fn the_longest_pauses_are_between_confirms_and_between_deliveries() {
        let (mut ledger, start) = (Ledger::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (id, seconds) in [("a", 0), ("b", 1), ("c", 8), ("d", 9)] {
            ledger.said(id, Said::Confirmed, at(seconds));
        }
        for (id, seconds) in [("a", 2), ("b", 5), ("c", 4)] {
            ledger.handled(id, false, at(seconds));
        }
        let report = ledger.judge();
        assert_eq!(report.longest_without_confirm, Some(Duration::from_secs(7)));
        assert_eq!(report.longest_without_delivery, Some(Duration::from_secs(3)));
    }

    #[test]
    fn the_output_of_a_program_counts_as_handled_in_its_order() {
        let mut ledger = confirmed(3);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "id=a0\nid=a2\nnothing\nid=a1\nid=a1\n").expect("written");
        let read = ledger.handled_in_file(file.path(), |line| line.strip_prefix("id=").map(str::to_owned));
        assert_eq!(read.expect("read"), 4);
        let report = ledger.judge();
        assert_eq!((report.handled, report.lost, report.duplicated_unflagged), (3, 0, 1));
        assert_eq!(report.inversions.values().sum::<u64>(), 1);
    }

    #[test]
    fn a_row_stands_under_its_heading() {
        let mut ledger = confirmed(2);
        see(&mut ledger, &["a1", "a0"]);
        let row = ledger.judge().to_string();
        assert_eq!(row.chars().count(), Report::HEADING.chars().count(), "\n{}\n{row}", Report::HEADING);
        let columns: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(columns, ["2", "2", "0", "0", "0", "2", "0", "0", "0", "0", "1", "0", "0"]);
    }
}
