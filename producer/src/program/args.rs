//! What the program is asked for.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand};
use correio_broker_config::cli::BrokerArgs;
use correio_message::Lifetime;

use super::manner::{PriorityName, any_seconds, lifetime};

/// Sends lines as messages through RabbitMQ, and says what became of each.
#[derive(Debug, Parser)]
#[command(name = "producer", version, about, arg_required_else_help = true, after_help = AFTER)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Who receives:
  --to orders         any one consumer of this work queue, the freest             (consumer run --from orders)
  --mailbox ana       this one receiver                                           (consumer run --mailbox ana)
  --topic news.sport  every group that subscribed to such keys                    (consumer run --topic 'news.#' --group g)
  --broadcast         everyone who listens                                        (consumer run --broadcast)
Nobody there is a failure with --to and --mailbox; for events (--topic, --topic-template, --broadcast) it is normal and counted,
unless --require-subscriber.

Examples:
  producer send --to orders --file orders.ndjson --id-field number
  producer send --to flights --key-field origin < flights.ndjson     one airport's flights stay in order
  producer send --topic-template 'flight.{origin}.{destination}' --file flights.ndjson
                                                                     each line under its own key
  echo 'closed today' | producer send --broadcast --require-subscriber
  seq 1000 | producer send --to orders --unsent later.ndjson         what was not confirmed is kept …
  producer send --to orders --again later.ndjson                     … and sent again as the same messages
  echo 'remind me' | producer send --to orders --after 16             comes to the queue 16 seconds later
  echo 'now!' | producer send --to orders --priority high --expires-after 60
                                                                     before the others, and worth nothing in a minute
  seq 1000 | producer fire --to orders                               fast, and nobody tells you what was lost
  seq 1000 | producer request --to prices                            a reply to each line, in the order of the lines

Exit status: 0 every message confirmed, or an event that nobody subscribed to (fire: handed to the connection; request:
replied to), 1 some did not make it, 2 wrong usage or input, 3 no broker, or it does not let this user in.";

const REQUEST: &str = "\
Examples:
  seq 5 | producer request --to prices                     five lines in, five replies out, in the same order
  producer request --to prices --file questions.ndjson --json --deadline 2 --in-flight 500
                                                           {\"line\":1,\"id\":…,\"reply\":…} or {…,\"error\":{\"kind\":…,\"text\":…}}
  echo ping | producer request --mailbox ana               ask one particular receiver

Who replies: a consumer whose handler returns a message, or whose command prints one:
  broker apply --queue prices
  consumer run --from prices --exec './price'

Without --json a reply is one line: one with a line break in it, or that is not UTF-8, needs --json. A request without a
reply prints nothing on standard output; standard error says which line, and why.

Exit status: 0 every line has its reply, 1 some have none, 2 wrong usage or input, 3 no broker, or it does not let this
user in.";

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
    /// Ask a service with each line and print its replies, in the order of the lines.
    ///
    /// Many requests are in flight at once (--in-flight), each until its --deadline, which travels with it: a service does not
    /// work on a request that nobody waits for any more.
    #[command(after_help = REQUEST)]
    Request(RequestArgs),
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

    /// Each message comes to its queue after this delay, and waits in the broker until then: confirmed means that it waits there.
    ///
    /// For a work queue or a mailbox that has this delay: those of its retries, 1, 2, 4, 8 and 16, or what was asked for with
    /// `broker apply --queue NAME --delays 30s,5m`. Not with a key, as what waits is overtaken, and not with --expires-after, as the
    /// broker counts one time for a message.
    #[arg(
        long, value_name = "SECONDS", value_parser = any_seconds,
        conflicts_with_all = ["key_field", "expires_after", "events", "exchange"]
    )]
    pub(crate) after: Option<Duration>,

    /// Nobody there is a failure, for events too.
    #[arg(long, requires = "events")]
    pub(crate) require_subscriber: bool,

    /// Keep each line that was not confirmed in this file, with its id, ready for --again.
    #[arg(long, value_name = "FILE")]
    pub(crate) unsent: Option<PathBuf>,

    /// Send what an earlier run kept with --unsent, under the same ids; with --topic-template each under the key that it had.
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

/// What `request` takes.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("service").required(true).args(["to", "mailbox"]))]
pub(crate) struct RequestArgs {
    /// Ask the service behind this work queue: any one of its consumers replies.
    #[arg(long, value_name = "SERVICE")]
    pub(crate) to: Option<String>,

    /// Ask this one receiver.
    #[arg(long, value_name = "NAME")]
    pub(crate) mailbox: Option<String>,

    /// Read lines from this file instead of standard input: one request a line, JSON or any text.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// What each request is, such as price.asked: chooses the handler at the service.
    #[arg(long = "type", value_name = "NAME")]
    pub(crate) message_type: Option<String>,

    /// How long each line waits for its reply, from when it is read.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) deadline: Duration,

    /// How many requests may be without a reply at once.
    #[arg(long, default_value_t = 100, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) in_flight: u32,

    /// The application's name: goes with each request.
    #[arg(long, value_name = "NAME", default_value = "producer")]
    pub(crate) origin: String,

    /// Print each reply, or why there is none, as a JSON object on one line. A reply that is not UTF-8 is given as
    /// reply_base64.
    #[arg(long)]
    pub(crate) json: bool,

    /// Which broker.
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// Who receives.
#[derive(Clone, Debug, Default, Args)]
#[command(
    group = ArgGroup::new("destination")
        .required(true)
        .args(["to", "mailbox", "topic", "topic_template", "broadcast", "exchange"]),
    group = ArgGroup::new("events").args(["topic", "topic_template", "broadcast"])
)]
pub(crate) struct DestinationArgs {
    /// Send to this work queue: any one of its consumers handles the message.
    #[arg(long, value_name = "QUEUE", help_heading = "Who receives")]
    pub(crate) to: Option<String>,

    /// Send to one particular receiver, by the name of its mailbox.
    #[arg(long, value_name = "NAME", help_heading = "Who receives")]
    pub(crate) mailbox: Option<String>,

    /// Send as an event under this key, words between dots: to every group that subscribed to such keys.
    #[arg(long, value_name = "KEY", help_heading = "Who receives")]
    pub(crate) topic: Option<String>,

    /// Send as an event, each line under a key of its own: {field} is the value of this field of the line's JSON object.
    ///
    /// A value is one word: text or a number, not empty and without a dot. With --key-field, order is kept
    /// within each key of the topic.
    #[arg(long, value_name = "TEMPLATE", help_heading = "Who receives")]
    pub(crate) topic_template: Option<String>,

    /// Send to everyone who listens.
    #[arg(long, help_heading = "Who receives")]
    pub(crate) broadcast: bool,

    /// Send to an exchange of your own, with --routing-key.
    #[arg(long, value_name = "NAME", requires = "routing_key", help_heading = "Who receives")]
    pub(crate) exchange: Option<String>,

    /// What the exchange routes by.
    #[arg(long, value_name = "KEY", requires = "exchange", help_heading = "Who receives")]
    pub(crate) routing_key: Option<String>,
}

/// Where lines come from, what they become and where they go.
#[derive(Debug, Args)]
pub(crate) struct LineArgs {
    /// Who receives.
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,

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

    /// Each message is worth nothing after so long: the broker moves what still waits then to the parking queue of its work
    /// queue, and what has not left this program is not sent. Not with a key: its order would wait for what expired.
    #[arg(long, value_name = "SECONDS", value_parser = lifetime, conflicts_with = "key_field")]
    pub(crate) expires_after: Option<Lifetime>,

    /// `high` goes before what is normal where both wait: on a work queue of RabbitMQ 4.3 always, of 4.0 to 4.2 two to one; an
    /// older one ignores it. Not with a key: it would overtake.
    #[arg(long, value_name = "PRIORITY", conflicts_with = "key_field")]
    pub(crate) priority: Option<PriorityName>,

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
            vec!["producer", "send", "--to", "a", "--mailbox", "b"],
            vec!["producer", "send", "--topic", "a", "--broadcast"],
            vec!["producer", "send", "--to", "a", "--require-subscriber"],
            vec!["producer", "fire", "--topic", "a", "--require-subscriber"],
            vec!["producer", "send", "--to", "a", "--key-field", "k", "--after", "1"],
            vec!["producer", "send", "--to", "a", "--key-field", "k", "--expires-after", "1"],
            vec!["producer", "send", "--to", "a", "--key-field", "k", "--priority", "high"],
            vec!["producer", "fire", "--to", "a", "--key-field", "k", "--priority", "high"],
            vec!["producer", "send", "--to", "a", "--after", "1", "--expires-after", "1"],
            vec!["producer", "send", "--topic", "a", "--after", "1"],
            vec!["producer", "send", "--topic-template", "a.{b}", "--after", "1"],
            vec!["producer", "send", "--broadcast", "--after", "1"],
            vec!["producer", "send", "--exchange", "a", "--routing-key", "b", "--after", "1"],
            vec!["producer", "send", "--to", "a", "--expires-after", "0"],
            vec!["producer", "send", "--to", "a", "--expires-after", "4294968"],
            vec!["producer", "send", "--to", "a", "--priority", "7"],
            vec!["producer", "fire", "--to", "a", "--after", "1"],
            vec!["producer", "request"],
            vec!["producer", "request", "--to", "a", "--mailbox", "b"],
        ] {
            assert!(Cli::try_parse_from(&wrong).is_err(), "{wrong:?}");
        }
        for right in [
            &["producer", "send", "--exchange", "b", "--routing-key", ""][..],
            &["producer", "send", "--broadcast", "--require-subscriber"],
            &["producer", "send", "--topic-template", "a.{b}", "--require-subscriber"],
            &["producer", "send", "--to", "a", "--priority", "high", "--expires-after", "0.5"],
            &["producer", "send", "--mailbox", "a", "--priority", "high", "--after", "2592000"],
            &["producer", "request", "--mailbox", "ana"],
        ] {
            assert!(Cli::try_parse_from(right).is_ok(), "{right:?}");
        }
    }
}
