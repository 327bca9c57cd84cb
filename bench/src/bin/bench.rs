//! `cargo run --release --bin bench`: our speed beside peers, on a private broker, as a table of ratios.

use std::{collections::BTreeMap, env};

use clap::{Parser, Subcommand, ValueEnum};
use correio_bench::{
    Error, Group, Load, Way, child, consumed,
    cpus::Halves,
    disk, half_load, look_up,
    peers::Peers,
    resequencing,
    rounds::Rounds,
    stalled::{self, WARM_UP},
    table::Table,
    verdict,
};
use correio_lab::broker::{Login, Node, NodeOptions, QueueKind};

/// Measures publishing and consuming beside lapin used plainly and a C program on rabbitmq-c, and memory against a broker that
/// stalls.
///
/// The ways take turns, each in a process of its own. Ends with an error when an outcome or a count is wrong; a wanted speed that
/// was not reached is said and is no error.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Messages a run.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Unanswered messages at once, of those that are published.
    #[arg(long, default_value_t = 1000)]
    window: usize,
    /// Runs of each way, after one that does not count.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Messages handled at once, and so remembered in one transaction, where they are remembered on disk.
    #[arg(long, default_value_t = 256)]
    at_once: u16,
    /// Remembered ids among which others are looked up.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(look_up::FEW..))]
    ids: u64,
    /// Messages of each run at half load.
    #[arg(long, default_value_t = 12_000, value_parser = clap::value_parser!(u64).range(100..))]
    half_load_messages: u64,
    /// Messages handed in while the broker is stalled.
    #[arg(long, default_value_t = 1_000_000)]
    stalled_messages: u64,
    /// Let the broker and those who are measured share the processors, rather than have a half each.
    #[arg(long)]
    shared_cpus: bool,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', default_values = ["confirmed", "fire", "consumed", "remembered", "look-up", "half-load", "resequencing", "stalled"])]
    only: Vec<Part>,
    #[command(subcommand)]
    inner: Option<Inner>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Confirmed,
    Fire,
    Consumed,
    Remembered,
    LookUp,
    HalfLoad,
    Resequencing,
    Stalled,
}

/// What this program is when it runs itself.
#[derive(Debug, Subcommand)]
enum Inner {
    /// One way, once.
    #[command(hide = true, name = child::WAY)]
    Way { way: Way, queue: String, messages: u64, size: usize, window: usize },
    /// The process whose memory is measured.
    #[command(hide = true, name = child::STALLED)]
    Stalled { queue: String, messages: u64, size: usize },
    /// The process that looks ids up.
    #[command(hide = true, name = child::LOOK_UP)]
    LookUp { ids: u64 },
    /// The process that knows many keys.
    #[command(hide = true, name = child::RESEQUENCING)]
    Resequencing,
    /// The process that remembers ids in memory.
    #[command(hide = true, name = child::IN_MEMORY)]
    InMemory { ids: u64 },
}

fn main() -> Result<(), Error> {
    let args = Args::parse();
    // Before there are threads.
    let halves = match args.inner {
        None if !args.shared_cpus => {
            Halves::take().inspect_err(|error| println!("all on the same processors: {error}")).ok()
        }
        _ => None,
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(args, halves))
}

async fn run(args: Args, halves: Option<Halves>) -> Result<(), Error> {
    match &args.inner {
        None => measure(&args, halves.as_ref()).await,
        Some(Inner::Way { way, queue, messages, size, window }) => {
            let load = Load { messages: *messages, size: *size, window: *window };
            println!("{}", way.run(&env::var(child::URL)?, queue, load).await?);
            Ok(())
        }
        Some(Inner::LookUp { ids }) => look_up::in_child(*ids).await,
        Some(Inner::Resequencing) => resequencing::in_child(),
        Some(Inner::InMemory { ids }) => look_up::memory_in_child(*ids).await,
        Some(Inner::Stalled { queue, messages, size }) => {
            stalled::in_child(&env::var(child::URL)?, queue, *messages, *size).await
        }
    }
}

async fn measure(args: &Args, halves: Option<&Halves>) -> Result<(), Error> {
    let load = Load { messages: args.messages, size: args.size, window: args.window };
    let mut ways = ways(args);
    let peers = Peers::ready(&mut ways).await;
    let node = Node::start(NodeOptions::default()).await?;
    node.declare_queue(CONFIRMED_QUEUE, QueueKind::Quorum).await?;
    node.declare_queue(FIRED_QUEUE, QueueKind::Classic).await?;
    node.declare_queue(CONSUMED_QUEUE, QueueKind::Quorum).await?;
    let Load { messages, size, window } = load;
    println!(
        "RabbitMQ {}: {messages} messages of {size} bytes a run, {} runs each, in turn.",
        node.version(),
        args.runs
    );
    match halves {
        Some(_) => println!("The broker has one half of the processors, those who are measured the other."),
        None => println!("The broker and those who are measured share the processors."),
    }
    println!("Confirmed: persistent, mandatory, quorum queue, window {window}. Fired: transient, classic queue.");
    println!("Consumed: quorum queue, {} keys, prefetch {}.", consumed::KEYS, consumed::PREFETCH);
    println!("Remembered: from the same queue, {} at once; on {}.\n", args.at_once, disk::filesystem()?);
    let rounds = rounds(&node, args, &ways, (&peers, halves), load).await?;
    if !ways.is_empty() {
        println!("{}", Table(&rounds));
    }
    let mut verdicts = verdict::verdicts(&rounds);
    if args.only.contains(&Part::LookUp) {
        let found = look_up::measure(args.ids).await?;
        println!("{found}");
        verdicts.extend(found.verdicts());
    }
    if args.only.contains(&Part::HalfLoad) {
        let found = half_load::measure(&node, args.half_load_messages, args.runs).await?;
        println!("{found}");
        verdicts.extend(found.verdict());
    }
    if args.only.contains(&Part::Resequencing) {
        let found = resequencing::measure(RESEQUENCED, args.runs).await?;
        println!("{found}");
        verdicts.extend(found.verdicts());
    }
    if args.only.contains(&Part::Stalled) {
        let peak = stalled::measure(&node, CONFIRMED_QUEUE, args.stalled_messages, size).await?;
        let there = node.purge(CONFIRMED_QUEUE).await?;
        if peak.wrong > 0 || there != WARM_UP {
            return Err(format!("stalled: {} wrong outcomes; {there} on the queue, not {WARM_UP}", peak.wrong).into());
        }
        verdicts.push(peak.verdict());
    }
    println!("What is wanted, and whether it was reached here and now (it fails nothing):\n{}", verdicts.join("\n"));
    node.close().await?;
    Ok(())
}

/// What is to run.
fn ways(args: &Args) -> Vec<Way> {
    let runs = |way: &Way| {
        args.only.contains(&match way.group() {
            Group::Confirmed => Part::Confirmed,
            Group::Fire => Part::Fire,
            Group::Consumed => Part::Consumed,
            Group::Remembered => Part::Remembered,
        })
    };
    Way::value_variants().iter().copied().filter(runs).collect()
}

/// Every way in turn, round after round, each checked against what stands on its queue.
async fn rounds(
    node: &Node,
    args: &Args,
    ways: &[Way],
    who: (&Peers, Option<&Halves>),
    load: Load,
) -> Result<Rounds, Error> {
    let url = node.amqp_url(Login::Lab);
    let mut rounds = Rounds::default();
    if ways.is_empty() {
        return Ok(rounds);
    }
    let (mut checked, mut came_again) = (0, 0);
    for number in 0..=args.runs {
        let mut round = BTreeMap::new();
        // To and fro, so that nobody always comes after the same neighbour.
        let mut turns = ways.to_vec();
        if number % 2 == 1 {
            turns.reverse();
        }
        for way in turns {
            let (queue, load) = match way.group() {
                Group::Confirmed => (CONFIRMED_QUEUE, load),
                Group::Fire => (FIRED_QUEUE, load),
                Group::Consumed => (CONSUMED_QUEUE, Load { window: consumed::PREFETCH.into(), ..load }),
                Group::Remembered => (CONSUMED_QUEUE, Load { window: args.at_once.into(), ..load }),
            };
            if way.consumes() {
                consumed::fill(&url, queue, load).await?;
                let depth = node.queue_depth(queue).await?;
                if depth != load.messages {
                    return Err(format!("before {}: {depth} on the queue, not {}", way.name(), load.messages).into());
                }
            }
            let sample = child::run(way, who, &url, queue, load).await?;
            let on_queue = node.purge(queue).await?;
            let expected = way.expected(load);
            // A channel of a quorum queue forgets acknowledgements that it has not passed on when it is closed: they come again.
            let again = if way.consumes() { on_queue.min(load.window as u64) } else { 0 };
            came_again += again;
            if sample.ends != expected || on_queue - again != expected.on_queue() {
                let found = format!("{:?}, and {on_queue} on the queue; not {expected:?}", sample.ends);
                return Err(format!("{}: {found}", way.name()).into());
            }
            checked += expected.messages();
            round.insert(way, sample);
        }
        // The first warms up the broker and is not counted.
        if number > 0 {
            rounds.0.push(round);
        }
    }
    println!("outcomes said of the wrong message, or messages read twice: 0 of {checked}; every count as on the queue");
    if came_again > 0 {
        println!("acknowledged, and on their queue again when their channel was closed: {came_again}");
    }
    Ok(rounds)
}

/// Messages of each run of the resequencer.
const RESEQUENCED: u64 = 1_000_000;
const CONFIRMED_QUEUE: &str = "bench.confirmed";
const FIRED_QUEUE: &str = "bench.fired";
const CONSUMED_QUEUE: &str = "bench.consumed";
