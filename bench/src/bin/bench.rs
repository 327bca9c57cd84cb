//! `cargo run --release --bin bench`: our speed beside peers, on a private broker, as a table of ratios.

use clap::Parser;
use correio_bench::{
    Error, Load, confirmed,
    table::{Row, Table},
};
use correio_lab::broker::{Login, Node, NodeOptions, QueueKind};

/// Measures confirmed publishing to a quorum queue beside lapin used plainly; the ways run in turn.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Messages a run.
    #[arg(long, default_value_t = 50_000)]
    messages: u64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Unanswered messages at once.
    #[arg(long, default_value_t = 1000)]
    window: usize,
    /// Runs of each way, after one that does not count.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

const QUEUE: &str = "bench";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let load = Load { messages: args.messages, size: args.size, window: args.window };
    let node = Node::start(NodeOptions::default()).await?;
    node.declare_queue(QUEUE, QueueKind::Quorum).await?;
    let url = node.amqp_url(Login::Lab);
    println!(
        "RabbitMQ {}: {} messages of {} bytes a run, persistent, quorum queue, mandatory, window {}; {} runs each, in turn",
        node.version(),
        load.messages,
        load.size,
        load.window,
        args.runs
    );
    let mut plain = Row { name: "lapin, each basic_publish awaited", rates: Vec::new() };
    let mut ceiling = Row { name: "lapin, publishes polled together in one task", rates: Vec::new() };
    let mut ours = Row { name: "correio submit", rates: Vec::new() };
    let mut tenth = Row { name: "correio submit, 10 % unroutable", rates: Vec::new() };
    let mut wrong = 0;
    for run in 0..=args.runs {
        let (plain_rate, plain_ends) = confirmed::plain_lapin(url.clone(), QUEUE.to_owned(), load).await?;
        node.purge(QUEUE).await?;
        let (ceiling_rate, ceiling_ends) = confirmed::pipelined_lapin(url.clone(), QUEUE.to_owned(), load).await?;
        node.purge(QUEUE).await?;
        let (our_rate, our_ends) = confirmed::submit(url.clone(), QUEUE.to_owned(), load, None).await?;
        let on_queue = node.purge(QUEUE).await?;
        let (tenth_rate, tenth_ends) = confirmed::submit(url.clone(), QUEUE.to_owned(), load, Some(10)).await?;
        let routable = node.purge(QUEUE).await?;
        wrong += our_ends.wrong + tenth_ends.wrong;
        if plain_ends.confirmed != load.messages
            || ceiling_ends.confirmed != load.messages
            || our_ends.confirmed != on_queue
            || tenth_ends.confirmed != routable
        {
            return Err(
                format!("counts differ: {plain_ends:?} {our_ends:?} {on_queue} {tenth_ends:?} {routable}").into()
            );
        }
        // The first warms up the broker and is not counted.
        if run > 0 {
            plain.rates.push(plain_rate);
            ceiling.rates.push(ceiling_rate);
            ours.rates.push(our_rate);
            tenth.rates.push(tenth_rate);
        }
    }
    println!("{}", Table(vec![plain, ceiling, ours, tenth]));
    println!("outcomes said of the wrong message: {wrong} of {}", 2 * load.messages * (args.runs as u64 + 1));
    node.close().await?;
    if wrong > 0 { Err("outcomes were paired wrongly".into()) } else { Ok(()) }
}
