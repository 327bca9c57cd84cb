//! `consumer run`.

use std::{path::Path, time::Duration};

use correio_broker_config::{Address, cli::Exit};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    Acknowledgement, Consumer, Ended, Processing, Summary,
    program::{
        args::{Ack, Run},
        failed::Failed,
        handlers::{Broken, Lines, run_commands, write_lines},
        observed::Observed,
        output::{Output, Writing},
        prices::prices,
        probes::Pulse,
        signals,
        status::{Status, in_words},
    },
};

/// Consumes until it is stopped and tells how it went.
pub(crate) async fn run(args: Run, address: Address) -> Result<Exit, Failed> {
    let status = Status::new(args.json);
    let stop = CancellationToken::new();
    let broken = Broken::default();

    let mut builder = args
        .source
        .of(Consumer::builder(address.clone()))
        .processing(processing(&args))
        .acknowledgement(match args.ack {
            Ack::AfterHandling => Acknowledgement::AfterHandling,
            Ack::OnDelivery => Acknowledgement::OnDelivery,
        })
        .deduplication(Box::pin(args.dedup.open(args.remember_for)).await?)
        .handler_deadline(args.handler_deadline)
        .drain_deadline(args.drain_deadline)
        .connect_deadline(CONNECTING);
    if args.no_breaker {
        builder = builder.breaker(None);
    }
    if let Some(count) = args.count {
        builder = builder.stop_after_count(count);
    }
    if let Some(expires) = args.expires {
        builder = builder.expires(expires);
    }
    if let Some(bytes) = args.memory_budget {
        builder = builder.memory_budget(bytes);
    }
    if let Some(bytes) = args.largest_message {
        builder = builder.largest_message(bytes);
    }
    if let Some(idle) = args.idle {
        builder = builder.stop_when_idle(idle);
    }
    let mut writing: Option<Writing> = None;
    builder = match &args.exec {
        Some(command) => run_commands(builder, command.clone(), status.clone()),
        None => {
            let (output, thread) = open(&args.output).map_err(|error| Failed::output(&args.output, &error))?;
            writing = Some(thread);
            let patience = args.handler_deadline * 3 / 4;
            let lines = Lines { output, patience, broken: broken.clone() };
            write_lines(builder, lines, args.json)
        }
    };
    let consumer = builder.build()?;

    let pulse = Pulse::new();
    // Before anything is taken from the queue: a port that is taken is wrong usage.
    let observed = match args.metrics_addr {
        Some(address) => Some(Observed::at(address, consumer.health(), pulse.clone()).await?),
        None => None,
    };
    if let Some(observed) = &observed {
        status.say(&format!("metrics at http://{}/metrics; probes at /livez and /readyz", observed.address()));
    }
    let ended = CancellationToken::new();
    let counts = consumer.counts();
    let following = tokio::spawn({
        let (status, counts, ended) = (status.clone(), counts.clone(), ended.clone());
        let begun = begin(&args, &address);
        async move {
            // Not before: what is sent when this is said finds its queue.
            tokio::select! {
                () = counts.subscribed() => begun.iter().for_each(|line| status.say(line)),
                () = ended.cancelled() => {}
            }
            status.follow(counts, ended).await;
        }
    });
    let consuming = async {
        tokio::select! {
            done = consumer.run(stop.clone()) => done,
            // In the same task, so that it beats only while that one turns.
            never = pulse.beat(), if observed.is_some() => match never {},
        }
    };
    let running = until_broken(consuming, &broken, &stop);
    let summary = signals::stopping(Box::pin(running), &stop, &status).await.flatten();
    ended.cancel();
    // It ends at once, and only draws; a panic in it is no reason to fail.
    let _ = following.await;
    if let Some(writing) = writing {
        writing.join().await;
    }
    if let Some(observed) = observed {
        observed.close().await;
    }
    if let Some(why) = broken.why() {
        status.say(&format!("{why}: stopped; what was not written goes back to the queue"));
    }
    let Some(summary) = summary else {
        status.say(&format!("when it was stopped: {}", in_words(&counts.now())));
        return Ok(Exit::Incomplete);
    };
    let summary = summary?;
    end(&args, &summary, &status);
    Ok(if summary.is_clean() && broken.why().is_none() { Exit::Success } else { Exit::Incomplete })
}

/// Runs until the end, or, once the output has failed, for the moment that what was written needs to be settled.
/// `None`: ended where it stood; what was not settled goes back.
async fn until_broken<T>(running: impl Future<Output = T>, broken: &Broken, stop: &CancellationToken) -> Option<T> {
    tokio::pin!(running);
    tokio::select! {
        done = &mut running => return Some(done),
        () = broken.failed() => stop.cancel(),
    }
    timeout(SETTLING, running).await.ok()
}

fn processing(args: &Run) -> Processing {
    let at_once = args.concurrency;
    if !args.ordered {
        let defaults = Processing::independent();
        return Processing::Independent { at_once, retry: defaults.retry().with_retries(args.retries) };
    }
    match Processing::ordered_by_key() {
        Processing::OrderedByKey { parked, gap_deadline, gap_policy, retry, .. } => Processing::OrderedByKey {
            keys_at_once: at_once,
            parked,
            gap_deadline: args.gap_deadline.unwrap_or(gap_deadline),
            gap_policy,
            retry: retry.with_retries(args.retries),
        },
        other => other,
    }
}

fn open(path: &Path) -> std::io::Result<(Output, Writing)> {
    if path == Path::new("-") { Output::stdout() } else { Output::file(path) }
}

/// What it says when it begins.
fn begin(args: &Run, address: &Address) -> Vec<String> {
    let order = if args.ordered { ", in order by key" } else { "" };
    let to = match &args.exec {
        Some(command) => format!("to `{command}`"),
        None if args.output == Path::new("-") => "to standard output".to_owned(),
        None => format!("to {}", args.output.display()),
    };
    let user = address.user();
    let from = args.source.in_words();
    let mut lines =
        vec![format!("consuming {from}{order}, {to}, as user {user}; Ctrl-C finishes what was begun and stops")];
    lines.extend(prices(args).into_iter().map(|price| format!("  {price}")));
    lines
}

fn end(args: &Run, summary: &Summary, status: &Status) {
    if args.json {
        let queue = args.source.queue(args.ordered).ok().map(|queue| queue.to_string());
        let told =
            json!({ "queue": queue, "ended": summary.ended, "counts": summary.counts, "missing": summary.startup });
        status.say(&json!({ "summary": told }).to_string());
        return;
    }
    let why = match summary.ended {
        Ended::Stopped => "stopped",
        Ended::CountReached => "stopped, the count is reached",
        Ended::Idle => "stopped, nothing more came",
    };
    status.say(&format!("{why}: {}", in_words(&summary.counts)));
    if summary.counts.dead > 0 {
        let ordered = if args.ordered && args.source.topic.is_some() { " --ordered" } else { "" };
        status.say(&format!("the dead letters: `consumer dead-letters list {}{ordered}`", args.source));
    }
}

/// How long a consumer whose output has failed may go on settling.
const SETTLING: Duration = Duration::from_secs(1);
/// How long the first connection is tried for: somebody waits for the answer.
const CONNECTING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::program::args::{Cli, Command};

    #[tokio::test]
    async fn order_with_acknowledgement_on_receipt_is_wrong_usage_and_asks_no_broker() {
        let words = ["consumer", "run", "--from", "q", "--exec", "true", "--ordered", "--ack", "on-delivery"];
        let Command::Run(args) = Cli::parse_from(words).command else { panic!("not run") };
        let nobody = Address::new("localhost", 1, "consumer", "consumer");
        let failed = run(*args, nobody).await.expect_err("refused");
        assert_eq!(failed.exit(), Exit::Usage, "{failed}");
        assert!(failed.to_string().contains("do without order"), "{failed}");
    }
}
