//! Synchronous: the same work asked for one at a time, asked for with many under way, and sent. Then the worker is away.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use super::{
    Comparison, LessonError,
    command::{CommandLine, Input},
    running::{Ended, Running},
    stage::Stage,
};

pub(crate) async fn run(stage: &Stage<'_>) -> Result<Comparison, LessonError> {
    let heading = ["way", "work", "sender held", "a second", "done after", "worker away: sender held", "and then"];
    let mut shown = Comparison::new("synchronous", &heading);
    let worker = CommandLine::consumer("run --from orders --output handled.txt");
    stage.command(&worker);
    stage.show.look("Queues: orders, and for each requester a queue correio.reply… of its own while it runs");
    let at_work = stage.start(&worker)?;
    stage.until("the worker", async || Ok(stage.node.queue_consumers("orders").await? == 1)).await?;
    let mut ways = Vec::new();
    for way in &WAYS {
        ways.push(timed(stage, &mut shown, way).await?);
    }
    stage.show.hold().await;
    at_work.stop();
    at_work.end(ENDS).await?.with(&[0])?;
    stage.until("the worker to be gone", async || Ok(stage.node.queue_consumers("orders").await? == 0)).await?;

    let away = while_away(stage, &mut shown, &worker).await?;
    for (way, (timed, away)) in WAYS.iter().zip(ways.into_iter().zip(away)) {
        let mut row = vec![way.name.to_owned(), WORK.to_string()];
        row.extend([
            seconds(timed.held),
            format!("{:.0}", WORK as f64 / timed.held.as_secs_f64()),
            seconds(timed.done),
        ]);
        row.extend([seconds(away.held), away.then]);
        shown.rows.push(row);
    }
    Ok(shown)
}

/// A way of having work done.
struct Way {
    name: &'static str,
    words: &'static str,
    /// Whether the sender waits for the work.
    asks: bool,
}

struct Timed {
    /// From the start of the sender to its end.
    held: Duration,
    /// From the start of the sender until all of the work was done.
    done: Duration,
}

struct Away {
    held: Duration,
    then: String,
}

/// All of the work, in one way, with the worker there.
async fn timed(stage: &Stage<'_>, shown: &mut Comparison, way: &Way) -> Result<Timed, LessonError> {
    let line = CommandLine::producer(way.words).reading(Input::Seq { first: 1, last: WORK });
    stage.command(&line);
    let before = stage.lines("handled.txt")?.len();
    let started = Instant::now();
    let ended = stage.run(&line, &[0]).await?;
    let held = started.elapsed();
    stage.until("all of the work", async || Ok(stage.lines("handled.txt")?.len() - before >= WORK as usize)).await?;
    let done = started.elapsed();
    let worked = stage.lines("handled.txt")?.split_off(before);
    let different: BTreeSet<_> = worked.iter().collect();
    shown.holds(way.name, worked.len() == WORK as usize && different.len() == worked.len(), || {
        format!("{} of {WORK} pieces of work were done, {} different ones", worked.len(), different.len())
    });
    if way.asks {
        let answers = ended.stdout.lines().count();
        shown.holds(way.name, answers == WORK as usize, || format!("{answers} answers to {WORK} requests"));
    }
    stage.result(format!("the sender was held for {}, the work was done after {}", seconds(held), seconds(done)));
    Ok(Timed { held, done })
}

/// Less work, in each way at once, while nobody works; then the worker comes back.
async fn while_away(stage: &Stage<'_>, shown: &mut Comparison, worker: &CommandLine) -> Result<Vec<Away>, LessonError> {
    stage.show.line(format!("     Now the worker is away for {}.", seconds(AWAY)));
    let before = stage.lines("handled.txt")?.len();
    let gone = Instant::now();
    let lines: Vec<_> = WAYS
        .iter()
        .enumerate()
        .map(|(n, way)| {
            // Numbers of its own, to tell the pieces of work apart.
            let first = WORK + 1 + n as u64 * SOME;
            CommandLine::producer(way.words).reading(Input::Seq { first, last: first + SOME - 1 })
        })
        .collect();
    let hasty = CommandLine::producer("request --to orders --deadline 2").reading(Input::Seq { first: 1, last: 10 });
    lines.iter().chain([&hasty]).for_each(|line| stage.command(line));
    let mut senders = lines.iter().map(|line| stage.start(line)).collect::<Result<Vec<Running>, _>>()?;
    let hasty = stage.start(&hasty)?;

    // Who sends goes on at once, and who does not want to wait so long is told.
    let sender = senders.pop().unwrap_or_else(|| unreachable!("there are three ways"));
    let sent = ended(sender, gone, 0).await?;
    let (given_up, told) = ended(hasty, gone, 1).await?;
    stage.result(format!(
        "with --deadline 2: held for {}, {} answers: {}",
        seconds(given_up),
        told.stdout.lines().count(),
        told.stderr.lines().next_back().unwrap_or_default().trim()
    ));
    stage.show.look("Queues, orders: Ready, and Consumers 0");
    stage.show.hold().await;
    sleep_until((gone + AWAY).into()).await;
    for (asking, way) in senders.iter_mut().zip(&WAYS) {
        let waits = asking.still_runs();
        shown.holds(way.name, waits.is_ok(), || "it did not wait for the worker".to_owned());
    }
    let back = stage.start(worker)?;
    let mut ways = Vec::new();
    for (asking, way) in senders.into_iter().zip(&WAYS) {
        let (held, ended) = ended(asking, gone, 0).await?;
        let answers = ended.stdout.lines().count();
        shown.holds(way.name, answers as u64 == SOME, || format!("{answers} answers to {SOME} requests"));
        ways.push(Away { held, then: format!("{answers} of {SOME} answered") });
    }
    let all = 3 * SOME as usize;
    stage.until("the work of all three", async || Ok(stage.lines("handled.txt")?.len() - before >= all)).await?;
    ways.push(Away { held: sent.0, then: format!("done when the worker came back, {} late", seconds(AWAY)) });
    back.stop();
    back.end(ENDS).await?.with(&[0])?;
    let worked = stage.lines("handled.txt")?.split_off(before);
    let different: BTreeSet<_> = worked.iter().collect();
    // None of the hasty one's: they were too late, and nobody works for somebody who has gone.
    shown.holds("send", worked.len() == all && different.len() == all, || {
        format!(
            "{} pieces of work were done when the worker was back, {} different, of {all}",
            worked.len(),
            different.len()
        )
    });
    // What expired is parked with the broker's reason.
    stage.node.purge("orders.dead").await?;
    Ok(ways)
}

async fn ended(running: Running, since: Instant, code: i32) -> Result<(Duration, Ended), LessonError> {
    let ended = running.end(ENDS).await?.with(&[code])?;
    Ok((since.elapsed(), ended))
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

const WAYS: [Way; 3] = [
    Way { name: "request, one at a time", words: "request --to orders --in-flight 1 --deadline 20", asks: true },
    Way { name: "request, many under way", words: "request --to orders --in-flight 100 --deadline 20", asks: true },
    Way { name: "send", words: "send --to orders", asks: false },
];
const WORK: u64 = 1_000;
const SOME: u64 = 50;
const AWAY: Duration = Duration::from_secs(5);
const ENDS: Duration = Duration::from_secs(60);
