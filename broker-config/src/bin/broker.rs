//! The program `broker`: plans, applies and checks what is to be on a RabbitMQ broker.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use correio_broker_config::{
    ConnectError, ConnectionSettings, Connections, DEFAULT_RETRY_DELAYS, DeclareError, Finding, Item, Purpose, Role,
    Topology, WorkQueue, WorkQueueError, apply, check,
    cli::{BrokerArgs, Exit, init_logging, print_error},
    definitions::definitions_json,
    parse_delay,
};
use serde_json::json;

/// Plans, applies and checks Correio's exchanges and queues on a RabbitMQ broker.
///
/// A work queue never comes alone: `orders` has retry queues (orders.retry.1s …), in which failed messages wait, and
/// a parking queue (orders.dead) for those that nobody could handle. Declaring them is this program's work, so that
/// producers and consumers need no right to do it.
#[derive(Parser)]
#[command(name = "broker", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Print JSON for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print what is to be on the broker. Asks no broker.
    Plan(Which),
    /// Make what is not there yet. Doing it twice is doing it once; nothing is ever changed or deleted.
    Apply(Which),
    /// Say of each item: same, differs (what), missing, or not visible over AMQP. Declares nothing.
    Check(Which),
    /// Print RabbitMQ's definitions.json: the shipped topology and users. Asks no broker.
    Definitions,
}

#[derive(Args)]
struct Which {
    /// One work queue with its company, instead of the shipped `orders` and `flights`.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Handled in order, by one consumer at a time; without it, by many at once.
    #[arg(long, requires = "queue")]
    ordered: bool,
    /// Delays that messages can be sent with, beside those of its retries (1, 2, 4, 8 and 16 s): each is a delay queue.
    #[arg(
        long, value_name = "DELAY,…", requires = "queue", conflicts_with = "ordered", value_delimiter = ',',
        value_parser = parse_delay
    )]
    delays: Vec<Duration>,
}

impl Which {
    fn topology(&self) -> Result<Topology, WorkQueueError> {
        Ok(match &self.queue {
            None => Topology::shipped(),
            Some(name) if self.ordered => Topology::exchanges_only().with(&WorkQueue::ordered(name)?),
            Some(name) => {
                let delays = [&DEFAULT_RETRY_DELAYS, &self.delays[..]].concat();
                Topology::exchanges_only().with(&WorkQueue::shared_with_delays(name, &delays)?)
            }
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Exit {
    let cli = Cli::parse();
    init_logging();
    let which = match &cli.command {
        Command::Definitions => return print(&definitions_json(&Topology::shipped()), Exit::Success),
        Command::Plan(which) | Command::Apply(which) | Command::Check(which) => which,
    };
    let topology = match which.topology() {
        Ok(topology) => topology,
        Err(error) => return failed(&error, Exit::Usage),
    };
    if matches!(cli.command, Command::Plan(_)) {
        return plan(&topology, cli.json);
    }
    let address = match cli.broker.address(Role::Operator) {
        Ok(address) => address,
        Err(error) => return failed(&error, Exit::Usage),
    };
    let connections = Connections::new(address, ConnectionSettings::new("broker", "", Purpose::Admin));
    match connections.server_version().await {
        Ok(server) => {
            let _ = writeln!(io::stderr(), "server: {server}");
            if server.major_minor().is_some_and(|version| version < OLDEST) {
                let _ = writeln!(
                    io::stderr(),
                    "warning: before RabbitMQ 3.10, dead letters can be lost on their way to the parking queue"
                );
            }
        }
        Err(error) => return no_broker(&error),
    }
    let exit = match cli.command {
        Command::Apply(_) => apply_to(&connections, &topology, cli.json).await,
        _ => check_on(&connections, &topology, cli.json).await,
    };
    connections.close().await;
    exit
}

fn plan(topology: &Topology, as_json: bool) -> Exit {
    if as_json {
        return print(&format!("{}\n", json!(topology.items())), Exit::Success);
    }
    let mut lines = String::new();
    for item in topology.items() {
        lines += &format!("{item}\n");
        if let Item::Queue(queue) = &item {
            for (name, value) in queue.arguments() {
                lines += &format!("    {name} = {value}\n");
            }
        }
    }
    print(&lines, Exit::Success)
}

async fn apply_to(connections: &Connections, topology: &Topology, as_json: bool) -> Exit {
    match apply(connections, topology).await {
        Ok(()) if as_json => print(&format!("{}\n", json!({ "applied": topology.items() })), Exit::Success),
        Ok(()) => {
            let lines: String = topology.items().iter().map(|item| format!("there    {item}\n")).collect();
            print(&lines, Exit::Success)
        }
        Err(DeclareError::Connect(error)) => no_broker(&error),
        Err(error) => failed(&error, Exit::Incomplete),
    }
}

async fn check_on(connections: &Connections, topology: &Topology, as_json: bool) -> Exit {
    let checked = match check(connections, topology).await {
        Ok(checked) => checked,
        Err(error) => return no_broker(&error.cause),
    };
    let wrong = checked.iter().any(|c| c.finding.is_wrong());
    let exit = if wrong { Exit::Incomplete } else { Exit::Success };
    if as_json {
        return print(&format!("{}\n", json!(checked)), exit);
    }
    let lines: String = checked.iter().map(|c| format!("{}: {}\n", c.item, c.finding)).collect();
    let count = |finding: fn(&Finding) -> bool| checked.iter().filter(|c| finding(&c.finding)).count();
    let missing = count(|f| *f == Finding::Missing);
    let differing = count(|f| matches!(f, Finding::Differs { .. }));
    let same = count(|f| *f == Finding::Same);
    let mut summary = format!(
        "{same} same, {differing} differ, {missing} missing, {} not visible\n",
        checked.len() - same - differing - missing
    );
    if missing > 0 {
        summary += "`broker apply`, called like this, makes what is missing\n";
    }
    if differing > 0 {
        summary +=
            "what differs cannot be changed over AMQP: delete it when it is empty and apply, or take another name\n";
    }
    print(&(lines + &summary), exit)
}

fn no_broker(error: &ConnectError) -> Exit {
    failed(error, Exit::NoBroker)
}

fn failed(error: &(dyn std::error::Error + 'static), exit: Exit) -> Exit {
    print_error(error);
    exit
}

fn print(text: &str, exit: Exit) -> Exit {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Who closes the pipe has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => failed(&error, Exit::Incomplete),
        _ => exit,
    }
}

/// The first RabbitMQ with at-least-once dead-lettering.
const OLDEST: (u32, u32) = (3, 10);

const EXAMPLES: &str = "\
Examples:
  broker plan                       what the compose file's broker comes with
  broker apply                      make it on another broker
  broker apply --queue invoices     a shared work queue with its retry and parking queues
  broker apply --queue invoices --delays 30s,5m,1d
                                    … and delay queues, for: producer send --to invoices --after 30s
  broker apply --queue ledger --ordered
  broker check --queue invoices     is it there, and as it is to be?
  broker definitions > definitions.json

Exit codes:
  0  all well
  1  something differs, is missing, or could not be declared
  2  wrong usage
  3  no broker there, or none that lets us in

The user needs the right to configure: without --amqp-url and AMQP_URL it is `operator` on localhost.";
