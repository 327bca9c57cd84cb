//! The arguments of the program, and what its help teaches.

use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use correio_broker_config::{OwnQueue, OwnQueueError, cli::BrokerArgs};
use correio_message::{MailboxName, ShortText, TopicPattern};

use crate::{
    ConsumerBuilder, Processing,
    program::{
        dedup::Dedup,
        letters_args::{DEAD_LETTERS_EXAMPLES, DeadLettersCommand},
    },
};

/// Takes messages from a RabbitMQ queue and acknowledges each only when its work is done.
#[derive(Debug, Parser)]
#[command(name = "consumer", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Handle messages: print them, or run a command for each
    Run(Box<Run>),
    /// Look at, export, replay or remove messages that kept failing
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    DeadLetters {
        #[command(subcommand)]
        what: Box<DeadLettersCommand>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) source: Source,

    /// How long a mailbox, group or listener may be away before its queue is deleted with all that is in it (a week)
    ///
    /// The broker refuses another time than the one that the queue was made with.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "from")]
    pub(crate) expires: Option<Duration>,

    /// Append each payload and a newline to FILE (- is standard output), written before it is acknowledged
    #[arg(long, value_name = "FILE", default_value = "-", conflicts_with = "exec")]
    pub(crate) output: PathBuf,

    /// Run a shell command for each message: payload on its stdin; exit status 0 acknowledges, others retry
    ///
    /// To a request it answers with what the command prints; else that goes to standard output.
    /// It sees CORREIO_ID, CORREIO_TYPE, CORREIO_KEY, CORREIO_ORIGIN and CORREIO_ATTEMPT in its environment; what it
    /// says last on stderr becomes the error of a failed message, and goes to who asked.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,

    /// Print each message as a JSON object on one line, and the counts as JSON on stderr
    ///
    /// A payload that is not UTF-8 is given as payload_base64. Without this, a payload with a line break in it, or
    /// one that is not UTF-8, cannot be a line: it is parked as a dead letter, unreadable.
    #[arg(long)]
    pub(crate) json: bool,

    /// Keep the order of messages with the same key (the queue must have a single active consumer)
    #[arg(long)]
    pub(crate) ordered: bool,

    /// How many messages, or with --ordered keys, are handled at once
    #[arg(long, value_name = "N", default_value_t = Processing::default().at_once())]
    pub(crate) concurrency: NonZeroU16,

    /// When the broker is told that a message is done with
    #[arg(long, value_enum, default_value_t = Ack::AfterHandling)]
    pub(crate) ack: Ack,

    /// Where handled messages are remembered, so that a second copy is not handled again: memory, sqlite:FILE,
    /// postgres://USER@HOST/DATABASE or off
    ///
    /// memory: in this process, for an hour and 100,000 messages. sqlite:FILE: across crashes, shared by the consumers on this
    /// machine. postgres://…: shared by consumers on any machine; the password from PGPASSWORD or PGPASSFILE. off: what comes
    /// twice is handled twice.
    #[arg(long, env = "CORREIO_DEDUP", hide_env_values = true, value_name = "WHERE", default_value = "memory")]
    pub(crate) dedup: Dedup,

    /// How long handled messages are remembered: longer than a message is retried or waits for its replay (an hour in memory,
    /// else a week)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) remember_for: Option<Duration>,

    /// How often a failed message is tried again (after 1, 2, 4, 8, 16, 16 … seconds) before it is parked
    #[arg(long, value_name = "N", default_value_t = Processing::default().retry().retries())]
    pub(crate) retries: u32,

    /// Go on at full speed while every message fails, rather than pause and probe
    #[arg(long)]
    pub(crate) no_breaker: bool,

    /// Stop when nothing has come for so long, and nothing is being retried
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) idle: Option<Duration>,

    /// Stop after N messages were handled or parked
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<NonZeroU64>,

    /// How long messages wait for an earlier one of their key that is missing (10)
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "ordered")]
    pub(crate) gap_deadline: Option<Duration>,

    /// How long handling one message may take before it counts as failed
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    pub(crate) handler_deadline: Duration,

    /// The most memory for messages that are held, such as 512M (1G); it sets the largest message, or the prefetch
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory_budget: Option<NonZeroUsize>,

    /// The largest message taken, such as 1M; a larger one is parked (the memory budget divided by the prefetch)
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) largest_message: Option<NonZeroUsize>,

    /// How long stopping may take; what is not finished then goes back to the queue
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    pub(crate) drain_deadline: Duration,

    /// Serve metrics for Prometheus and two probes over HTTP: /metrics, /livez, and /readyz (ready is: subscribed)
    ///
    /// Whoever reaches the port reads them: give an address of this machine, 127.0.0.1:9100 say, and 0.0.0.0 only
    /// where the network is your own. Port 0 takes a free one and says which.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics_addr: Option<SocketAddr>,
}

/// Whose messages.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["from", "mailbox", "topic", "broadcast"]))]
pub(crate) struct Source {
    /// A work queue: its consumers share its messages
    #[arg(long, value_name = "QUEUE")]
    pub(crate) from: Option<ShortText>,

    /// The mailbox of one particular receiver, made where it is not there
    #[arg(long, value_name = "NAME")]
    pub(crate) mailbox: Option<String>,

    /// Events whose key matches PATTERN (* is one word, # any number of them), for a group
    #[arg(long, value_name = "PATTERN", requires = "group")]
    pub(crate) topic: Option<String>,

    /// The group that gets each such event once; its members share them
    // `requires` alone asks for nothing once a source is there that --topic cannot go with.
    #[arg(long, value_name = "NAME", requires = "topic", conflicts_with_all = ["from", "mailbox", "broadcast"])]
    pub(crate) group: Option<String>,

    /// Every broadcast
    #[arg(long)]
    pub(crate) broadcast: bool,

    /// Listen under this name, whose queue keeps what comes while nobody is here
    #[arg(long, value_name = "NAME", requires = "broadcast", conflicts_with_all = ["from", "mailbox", "topic"])]
    pub(crate) name: Option<String>,
}

impl Source {
    /// Tells the builder where to take messages from.
    pub(crate) fn of(&self, builder: ConsumerBuilder) -> ConsumerBuilder {
        match self {
            Self { from: Some(queue), .. } => builder.queue(queue.as_str()),
            Self { mailbox: Some(name), .. } => builder.mailbox(name),
            Self { topic: Some(pattern), group, .. } => builder.topic(pattern, group.as_deref().unwrap_or_default()),
            Self { name: Some(name), .. } => builder.broadcast(name),
            _ => builder.broadcast_while_here(),
        }
    }

    /// As a person would say it.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self { from: Some(queue), .. } => queue.to_string(),
            Self { mailbox: Some(name), .. } => format!("the mailbox {name}"),
            Self { topic: Some(pattern), group, .. } => {
                format!("{pattern} for the group {}", group.as_deref().unwrap_or_default())
            }
            Self { name: Some(name), .. } => format!("every broadcast as {name}"),
            _ => "every broadcast while this runs".to_owned(),
        }
    }

    /// The queue that this is, with or without order by key; of a listener without a name there is none to find again.
    pub(crate) fn queue(&self, ordered: bool) -> Result<ShortText, SourceError> {
        let own = match self {
            Self { from: Some(queue), .. } => return Ok(queue.clone()),
            Self { mailbox: Some(name), .. } => {
                OwnQueue::mailbox(&MailboxName::new(name).map_err(OwnQueueError::from)?)
            }
            Self { topic: Some(pattern), group, .. } => {
                let pattern = TopicPattern::new(pattern).map_err(OwnQueueError::from)?;
                OwnQueue::group(group.as_deref().unwrap_or_default(), &pattern)?
            }
            Self { name: Some(name), .. } => OwnQueue::listener(name)?,
            _ => return Err(SourceError::NoName),
        };
        Ok(if ordered { own.ordered() } else { own }.name().clone())
    }
}

/// Why this names no queue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Own(#[from] OwnQueueError),
    #[error("a listener without a name leaves nothing behind that could be found again: give --name")]
    NoName,
}

/// As it is spelled on the command line.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { from: Some(queue), .. } => write!(f, "--from {queue}"),
            Self { mailbox: Some(name), .. } => write!(f, "--mailbox {name}"),
            Self { topic: Some(pattern), group, .. } => {
                write!(f, "--topic '{pattern}' --group {}", group.as_deref().unwrap_or_default())
            }
            Self { name: Some(name), .. } => write!(f, "--broadcast --name {name}"),
            _ => f.write_str("--broadcast"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ack {
    /// After it was handled: a crash repeats messages, and loses none
    AfterHandling,
    /// On receipt: faster, and a crash loses what is held here; not with --ordered
    OnDelivery,
}

/// A number of bytes, with a suffix for powers of 1,024.
fn bytes(text: &str) -> Result<NonZeroUsize, String> {
    let wrong = || format!("“{text}” is not a number of bytes such as 500000, 64K, 16M or 1G");
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let unit = match unit {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number = digits.parse::<usize>().map_err(|_| wrong())?;
    number.checked_mul(unit).and_then(NonZeroUsize::new).ok_or_else(wrong)
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("“{text}” is not a number of seconds such as 5 or 0.5, at most 1000000");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.001..=1e6).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}

const EXIT_CODES: &str = "\
Exit codes:
  0  stopped when asked to, everything taken was handled
  1  some messages were dead-lettered or handed back
  2  wrong usage: arguments, or a queue that is not there or not made for them
  3  no broker, or it does not let this user in";

const RUN_EXAMPLES: &str = "\
Examples:
  consumer run --from orders
      print every message of the queue `orders` as a line; Ctrl-C finishes what was begun and stops
  consumer run --from orders --output orders.txt --idle 5
      append them to a file; stop when nothing has come for 5 seconds
  consumer run --from orders --exec 'python3 handle.py'
      a worker in any language: reads the payload from stdin, exit status 0 means done
  consumer run --from flights --ordered --json
      one JSON object a line, messages with the same key in the order sent
  consumer run --from orders --ack on-delivery
      at most once: what a crash takes with it is lost
  consumer run --from prices --exec './price'
      a service: `producer request --to prices` gets what ./price prints
  consumer run --mailbox ana
      what is sent to ana and nobody else; kept for a week while she is away
  consumer run --topic 'flight.*.LAX' --group west
      each such event once for the group `west`, whose members share them
  consumer run --from orders --metrics-addr 127.0.0.1:9100
      metrics for Prometheus at /metrics, probes at /livez and /readyz
  consumer run --broadcast
      everything that is sent to everyone while this runs; with --name, what came in between too

Two consumers of one queue share its messages; with --ordered one works and the others stand by.
The first Ctrl-C (or SIGTERM) finishes what was begun, a second one stops at once: nothing is lost,
unfinished messages go back to the queue. When the output cannot be written (disk full, reader gone, or
not read for 3/4 of the handler deadline) it stops in the same way.

Exit codes:
  0  stopped when asked to, everything taken was handled
  1  some messages were dead-lettered or handed back
  2  wrong usage: arguments, or a queue that is not there or not made for them
  3  no broker, or it does not let this user in";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_go_together_is_refused() {
        for wrong in [
            "run",
            "run --from orders --exec true --output x",
            "run --from orders --gap-deadline 5",
            "run --from orders --idle 0",
            "run --from orders --idle never",
            "run --from orders --idle -1",
            "run --from orders --count 0",
            "run --from orders --concurrency 0",
            "run --from orders --metrics-addr 9100",
            "run --from orders --metrics-addr 127.0.0.1:70000",
            "run --from orders --ack sometimes",
            "run --from orders --name ana",
            "run --mailbox ana --name ana",
            "run --broadcast --group g",
            "run --from orders --mailbox ana",
            "run --topic x",
            "run --group x",
            "run --name x",
            "run --from orders --expires 60",
        ] {
            let args = std::iter::once("consumer").chain(wrong.split(' '));
            assert!(Cli::try_parse_from(args).is_err(), "{wrong}");
        }
        let long = "x".repeat(256);
        assert!(Cli::try_parse_from(["consumer", "run", "--from", &long]).is_err());
    }

    #[test]
    fn each_source_is_spelled_as_it_was_given_and_has_its_queue() {
        for (source, queue) in [
            ("--from orders", "orders"),
            ("--mailbox ana", "correio.mailbox.ana"),
            ("--topic flight.#.LAX --group west", "correio.group.west.[flight.#.LAX]"),
            ("--broadcast --name ana", "correio.broadcast.ana"),
        ] {
            let words = format!("consumer run {source}");
            let Command::Run(run) = Cli::parse_from(words.split(' ')).command else { panic!("not run") };
            assert_eq!(run.source.to_string().replace('\'', ""), source);
            assert_eq!(run.source.queue(false).unwrap(), queue);
        }
        let nameless = Cli::parse_from(["consumer", "run", "--broadcast"]).command;
        let Command::Run(run) = nameless else { panic!("not run") };
        assert!(run.source.queue(false).unwrap_err().to_string().contains("--name"));
    }
}
