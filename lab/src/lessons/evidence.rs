//! What the programs really printed, read: nothing here is expected, all of it was said or written by them.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;

use super::{LessonError, running::Ended};
use crate::ledger::Said;

/// A message as a consumer handled it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Handled {
    /// The line that was sent.
    pub(crate) payload: String,
    /// Whether the broker delivered it for a second time.
    pub(crate) redelivered: bool,
}

/// What `producer send --json` said at its end, with what it kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The lines it confirmed.
    pub(crate) confirmed: Vec<String>,
    /// The lines of which it said that they are not confirmed, and why.
    pub(crate) told: Vec<(String, Said)>,
    /// How many times it sent one again.
    pub(crate) resent: u64,
}

/// What `producer fire --json` said at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Fired {
    /// Messages of which it said that they did not leave.
    pub(crate) dropped: u64,
}

/// A dead letter, from `consumer dead-letters list --json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Dead {
    /// The payload, as far as it is shown: all of it here, where payloads are short.
    #[serde(rename = "payload_start")]
    pub(crate) payload: String,
}

impl Handled {
    pub(crate) fn parse(line: &str) -> Result<Self, LessonError> {
        parse("a line of the consumer's output", line)
    }
}

impl Sent {
    /// `lines`: what it was given. `unsent`: the file of `--unsent`, which is there only if something is in it.
    pub(crate) fn read(lines: &str, ended: &Ended, unsent: &Path) -> Result<Self, LessonError> {
        let kept = match fs::read_to_string(unsent) {
            Ok(kept) => kept,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(LessonError::file("read", unsent)(error)),
        };
        Self::of(lines, &ended.stdout, &kept)
    }

    fn of(lines: &str, stdout: &str, kept: &str) -> Result<Self, LessonError> {
        let summary: Summary = parse("the producer's summary", stdout)?;
        let told = kept.lines().map(told).collect::<Result<Vec<_>, _>>()?;
        let without: BTreeSet<&str> = told.iter().map(|(line, _)| line.as_str()).collect();
        let confirmed: Vec<String> = lines.lines().filter(|line| !without.contains(line)).map(str::to_owned).collect();
        if confirmed.len() as u64 != summary.confirmed {
            let why = format!(
                "it says that {} lines are confirmed, and of {} it kept {}",
                summary.confirmed,
                lines.lines().count(),
                told.len()
            );
            return Err(LessonError::Unreadable { what: "the producer's summary".to_owned(), why });
        }
        Ok(Self { confirmed, told, resent: summary.resent })
    }
}

impl Fired {
    pub(crate) fn read(ended: &Ended) -> Result<Self, LessonError> {
        parse("the producer's summary", &ended.stdout)
    }
}

impl Dead {
    pub(crate) fn read(ended: &Ended) -> Result<Vec<Self>, LessonError> {
        ended.stdout.lines().map(|line| parse("a line of the dead letters", line)).collect()
    }
}

#[derive(Deserialize)]
struct Summary {
    confirmed: u64,
    resent: u64,
}

#[derive(Deserialize)]
struct Kept {
    payload: String,
    outcome: String,
}

fn told(line: &str) -> Result<(String, Said), LessonError> {
    let kept: Kept = parse("a line of --unsent", line)?;
    let said = match kept.outcome.split(':').next().unwrap_or_default() {
        "unroutable" => Said::Unroutable,
        "refused" => Said::Refused,
        _ => Said::Unknown,
    };
    Ok((kept.payload, said))
}

fn parse<'t, T: Deserialize<'t>>(what: &str, text: &'t str) -> Result<T, LessonError> {
    serde_json::from_str(text)
        .map_err(|error| LessonError::Unreadable { what: what.to_owned(), why: format!("{error}: {}", text.trim()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = r#"{"sent":3,"confirmed":2,"unroutable":1,"resent":0,"seconds":0.1}"#;

    #[test]
    fn what_the_producer_kept_is_told_and_the_rest_confirmed() {
        let kept = "{\"id\":\"a\",\"outcome\":\"unroutable: 312\",\"payload\":\"2\"}\n";
        let sent = Sent::of("1\n2\n3\n", SUMMARY, kept).unwrap();
        assert_eq!((sent.confirmed.join(" "), sent.told), ("1 3".into(), vec![("2".into(), Said::Unroutable)]));
    }

    #[test]
    fn a_summary_that_contradicts_the_kept_lines_is_not_believed() {
        assert!(Sent::of("1\n2\n3\n", SUMMARY, "").unwrap_err().to_string().contains("2 lines are confirmed"));
    }
}
