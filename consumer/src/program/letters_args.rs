//! The arguments of `consumer dead-letters`.

use std::{
    num::NonZeroU32,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand, ValueEnum};
use correio_message::{DeadReason, MessageId, ShortText};

use crate::{
    dead_letters::{DeadLetters, LettersFilter},
    program::{
        args::{Source, SourceError, seconds},
        time::parse_rfc3339,
    },
};

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Show what the dead letters of a queue have in common, or each of them, and leave them where they are
    List(List),
    /// Show a letter whole, and leave it where it is
    Show(Show),
    /// Write letters to a file, whole, one JSON object a line, and leave them where they are
    Export(Export),
    /// Send letters to their work queue again, with the same identity
    Replay(Replay),
    /// Remove letters for good
    Purge(Purge),
}

/// Whose dead letters.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    // The work queue: --from orders, not orders.dead.
    #[command(flatten)]
    pub(crate) source: Source,

    /// Those of an ordered group
    #[arg(long)]
    pub(crate) ordered: bool,
}

impl Whose {
    /// Their work queue.
    pub(crate) fn queue(&self) -> Result<ShortText, SourceError> {
        self.source.queue(self.ordered)
    }
}

/// Which of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which letters (all of what is said)")]
pub(crate) struct Wanted {
    /// The one with this id
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<MessageId>,

    /// Those parked for this reason
    #[arg(long, value_enum, value_name = "REASON")]
    reason: Option<Reason>,

    /// Those of this type
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<ShortText>,

    /// Those that this application sent
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<ShortText>,

    /// Those parked then or later, such as 2026-11-24T09:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    after: Option<SystemTime>,

    /// Those parked before then
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<SystemTime>,

    /// Those parked so long ago
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "before")]
    older_than: Option<Duration>,

    /// No more than N of them, the oldest first
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<NonZeroU32>,
}

impl Wanted {
    /// The filter that this is now; with no limit asked for, this one.
    pub(crate) fn filter(&self, now: SystemTime, limit: Option<NonZeroU32>) -> LettersFilter {
        LettersFilter {
            id: self.id.clone(),
            reason: self.reason.map(Into::into),
            message_type: self.message_type.clone(),
            origin: self.origin.clone(),
            after: self.after,
            before: self.before.or_else(|| now.checked_sub(self.older_than?)),
            limit: self.limit.or(limit),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) whose: Whose,

    #[command(flatten)]
    pub(crate) wanted: Wanted,

    /// Each letter in three lines, and not only how many there are of which reason and type
    ///
    /// Looks at no more than 1,000 letters unless --limit says otherwise; without this, at no more than 10,000.
    #[arg(long, conflicts_with = "groups")]
    pub(crate) each: bool,

    /// With --json, one object for each reason and type, and not for each letter
    #[arg(long, requires = "json")]
    pub(crate) groups: bool,

    /// One JSON object a line: each letter, with the start of its payload
    #[arg(long)]
    pub(crate) json: bool,
}

impl List {
    /// Whether single letters are asked for.
    pub(crate) fn is_of_letters(&self) -> bool {
        self.each || self.json && !self.groups
    }

    /// The letters to look at when nobody says how many.
    pub(crate) fn limit(&self) -> NonZeroU32 {
        if self.is_of_letters() { DeadLetters::LIST_DEFAULT } else { GROUPED_DEFAULT }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) whose: Whose,

    #[command(flatten)]
    pub(crate) wanted: Wanted,

    /// As export writes it: one JSON object a line, and every byte of the payload
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The file, which must not be there yet; - is standard output
    ///
    /// One JSON object a line, with payload, or payload_base64 where it is not UTF-8. The file is on the disk when this says so;
    /// until then it is written beside, as .dead-letters-*, which only a kill or a crash leaves there.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) whose: Whose,

    #[command(flatten)]
    pub(crate) wanted: Wanted,

    /// Replace the file, once the new one is whole
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) whose: Whose,

    #[command(flatten)]
    pub(crate) wanted: Wanted,

    /// Say what would be replayed, and to where; nothing is sent
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Send no more than N letters a second
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<NonZeroU32>,

    /// Replay letters too that were parked longer ago than handled messages are remembered
    ///
    /// Of such a letter nobody knows whether it was replayed and handled before, so that it may have a second effect.
    #[arg(long)]
    pub(crate) force: bool,

    /// Say what was done as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    pub(crate) whose: Whose,

    #[command(flatten)]
    pub(crate) wanted: Wanted,

    /// Remove them: without this, it only says what would be removed
    #[arg(long)]
    pub(crate) yes: bool,

    /// Append each letter to FILE, as export writes it, and remove it only when its line is on the disk
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,

    /// Say what was done as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The reasons of dead letters, as they are spelled on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reason {
    Failed,
    Panicked,
    TimedOut,
    Unreadable,
    UnknownType,
    Gap,
    Asked,
    TooLarge,
    Killer,
    Broker,
    Other,
}

impl From<Reason> for DeadReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Failed => Self::Failed,
            Reason::Panicked => Self::Panicked,
            Reason::TimedOut => Self::TimedOut,
            Reason::Unreadable => Self::Unreadable,
            Reason::UnknownType => Self::UnknownType,
            Reason::Gap => Self::Gap,
            Reason::Asked => Self::Asked,
            Reason::TooLarge => Self::TooLarge,
            Reason::Killer => Self::Killer,
            Reason::Broker => Self::Broker,
            Reason::Other => Self::Other,
        }
    }
}

fn id(text: &str) -> Result<MessageId, String> {
    MessageId::new(text).map_err(|e| e.to_string())
}

fn time(text: &str) -> Result<SystemTime, String> {
    parse_rfc3339(text).ok_or_else(|| format!("“{text}” is not a time in UTC such as 2026-11-24T09:00:00Z"))
}

/// So many letters are grouped in a few seconds.
const GROUPED_DEFAULT: NonZeroU32 = NonZeroU32::new(10_000).unwrap();

pub(crate) const DEAD_LETTERS_EXAMPLES: &str = "\
A message that keeps failing is parked in QUEUE.dead with its reason.

Examples:
  consumer dead-letters list --from orders
      how many there are of which reason and type; with --each, every one
  consumer dead-letters show --from orders --id 0197a2c4-...
      all that one letter says, with its whole payload
  consumer dead-letters export dead.ndjson --from orders --reason unreadable
      whole letters, one JSON object a line; they stay where they are
  consumer dead-letters replay --from orders --type order.placed --dry-run
      what would be sent again, and to where
  consumer dead-letters replay --from orders --after 2026-11-24T09:00:00Z --rate 50
      send what has failed since then again, 50 a second
  consumer dead-letters purge --from orders --older-than 604800 --export old.ndjson --yes
      keep what is older than a week in a file, and remove it

A replay refuses letters that were parked longer ago than handled messages are remembered: --force.

Exit codes: 0 done, 1 some wanted letters were left, 2 wrong usage, 3 no broker";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::program::args::{Cli, Command};

    fn parsed(words: &str) -> DeadLettersCommand {
        let words = std::iter::once("consumer").chain(words.split(' '));
        let Command::DeadLetters { what } = Cli::parse_from(words).command else { panic!("not dead letters") };
        *what
    }

    #[test]
    fn what_cannot_go_together_is_refused() {
        for wrong in [
            "list",
            "list --from orders --mailbox ana",
            "list --mailbox ana --group g",
            "list --from orders --groups",
            "list --from orders --json --groups --each",
            "list --from orders --limit 0",
            "list --from orders --after yesterday",
            "list --from orders --before 2026-11-24T09:00:00Z --older-than 5",
            "show",
            "export --from orders",
            "replay --from orders --reason boredom",
            "replay --from orders --rate 0",
        ] {
            let args = ["consumer", "dead-letters"].into_iter().chain(wrong.split(' '));
            assert!(Cli::try_parse_from(args).is_err(), "{wrong}");
        }
        let long = "x".repeat(256);
        assert!(Cli::try_parse_from(["consumer", "dead-letters", "replay", "--from", "q", "--id", &long]).is_err());
    }

    #[test]
    fn json_is_of_letters_as_it_always_was_and_groups_are_asked_for() {
        for (words, of_letters, limit) in [
            ("dead-letters list --from q", false, 10_000),
            ("dead-letters list --from q --each", true, 1_000),
            ("dead-letters list --from q --json", true, 1_000),
            ("dead-letters list --from q --json --each", true, 1_000),
            ("dead-letters list --from q --json --groups", false, 10_000),
        ] {
            let DeadLettersCommand::List(list) = parsed(words) else { panic!("not list") };
            assert_eq!((list.is_of_letters(), list.limit().get()), (of_letters, limit), "{words}");
        }
    }

    #[test]
    fn all_that_is_said_of_letters_is_in_the_filter() {
        let words = "dead-letters purge --from q --id a --reason gap --type t --origin o --after 1970-01-01T00:00:01Z \
                     --older-than 10 --limit 3";
        let DeadLettersCommand::Purge(purge) = parsed(words) else { panic!("not purge") };
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let wanted = LettersFilter {
            id: MessageId::new("a").ok(),
            reason: Some(DeadReason::Gap),
            message_type: ShortText::new("t").ok(),
            origin: ShortText::new("o").ok(),
            after: Some(at(1)),
            before: Some(at(90)),
            limit: NonZeroU32::new(3),
        };
        assert_eq!(purge.wanted.filter(at(100), NonZeroU32::new(7)), wanted);
    }

    #[test]
    fn every_reason_is_asked_for_by_its_name_on_the_wire() {
        for reason in Reason::value_variants() {
            let name = reason.to_possible_value().unwrap();
            assert_eq!(name.get_name(), DeadReason::from(*reason).as_str());
        }
    }
}
