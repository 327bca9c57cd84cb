//! What the program is asked for.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand};
use correio_broker_config::cli::BrokerArgs;

/// Sends lines as messages through RabbitMQ, and says what became of each.
#[derive(Debug, Parser)]
#[command(name = "producer", version, about, arg_required_else_help = true, after_help = AFTER)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Examples:
  producer send --to orders --file orders.ndjson --id-field number
  producer send --to flights --key-field origin < flights.ndjson     one airport's flights stay in order
  seq 1000 | producer send --to orders --unsent later.ndjson         what was not confirmed is kept …
  producer send --to orders --again later.ndjson                     … and sent again as the same messages
  seq 1000 | producer fire --to orders                               fast, and nobody tells you what was lost

Exit status: 0 every message confirmed (fire: handed to the connection), 1 some did not make it,
2 wrong usage or input, 3 no broker, or it does not let this user in.";

/// How to send.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send each line and wait for the broker's confirm: at least once.
    ///
    /// Many lines are in flight at once (--window). After a lost connection what was unanswered is sent again under
    /// the same id, so that a consumer handles it once.
    #[command(after_help = AFTER)]
    Send(SendArgs),
    /// Hand each line to the connection and go on: at most once, and nobody tells what was lost.
    ///
    /// The price of not waiting: a line for a queue that does not exist, or one under way when the connection is
    /// cut, is gone without a word.
    #[command(after_help = AFTER)]
    Fire(FireArgs),
}

/// What `send` takes.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// What both ways take.
    #[command(flatten)]
    pub(crate) line: LineArgs,

    /// How many messages may be unanswered at once.
    #[arg(long, default_value_t = 1_000, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) window: u32,

    /// How long a message may go without an answer, resends included: then it counts as unknown.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) confirm_deadline: Duration,

    /// Keep each line that was not confirmed in this file, with its id, ready for --again.
    #[arg(long, value_name = "FILE")]
    pub(crate) unsent: Option<PathBuf>,

    /// Send what an earlier run kept with --unsent, under the same ids.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "key_field", "id_field", "message_type"])]
    pub(crate) again: Option<PathBuf>,
}

/// What `fire` takes.
#[derive(Debug, Args)]
pub(crate) struct FireArgs {
    /// What both ways take.
    #[command(flatten)]
    pub(crate) line: LineArgs,
}

/// Where lines come from, what they become and where they go.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("destination").required(true).args(["to", "exchange"]))]
pub(crate) struct LineArgs {
    /// Send to this work queue: any one of its consumers handles the message.
    #[arg(long, value_name = "QUEUE")]
    pub(crate) to: Option<String>,

    /// Send to an exchange of your own, with --routing-key.
    #[arg(long, value_name = "NAME", requires = "routing_key")]
    pub(crate) exchange: Option<String>,

    /// What the exchange routes by.
    #[arg(long, value_name = "KEY", requires = "exchange")]
    pub(crate) routing_key: Option<String>,

    /// Read lines from this file instead of standard input: one message a line, JSON or any text.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// What each message is, such as order.placed: chooses the handler at the consumer.
    #[arg(long = "type", value_name = "NAME")]
    pub(crate) message_type: Option<String>,

    /// The JSON field that orders: lines with the same value are handled in the order sent.
    #[arg(long, value_name = "NAME")]
    pub(crate) key_field: Option<String>,

    /// The JSON field that identifies: a line sent twice is handled once. Without it each line gets an id.
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,

    /// At most so many messages a second.
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<NonZeroU32>,

    /// The application's name: goes with each message, and ids are unique within it.
    #[arg(long, value_name = "NAME", default_value = "producer")]
    pub(crate) origin: String,

    /// Print the summary as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    /// Which broker.
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|e| e.to_string()).and_then(|d| {
        if d.is_zero() || d > Duration::from_secs(86_400) {
            return Err("between just above 0 and 86,400 seconds".to_owned());
        }
        Ok(d)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_destination_is_asked_for_and_only_one() {
        for wrong in [
            vec!["producer", "send"],
            vec!["producer", "send", "--to", "a", "--exchange", "b", "--routing-key", "c"],
            vec!["producer", "send", "--exchange", "b"],
            vec!["producer", "send", "--to", "a", "--confirm-deadline", "0"],
        ] {
            assert!(Cli::try_parse_from(&wrong).is_err(), "{wrong:?}");
        }
        assert!(Cli::try_parse_from(["producer", "send", "--exchange", "b", "--routing-key", ""]).is_ok());
    }
}
