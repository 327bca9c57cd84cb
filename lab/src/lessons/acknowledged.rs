//! Acknowledged: a consumer dies while it holds 20 messages.

use super::{
    Act, Half, LessonError,
    account::Account,
    command::{CommandLine, Input},
    evidence::Sent,
    held::HeldCommands,
    stage::Stage,
};
use crate::broker::Node;

pub(crate) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Half, LessonError> {
    let mut account = Account::default();
    let send = CommandLine::producer("send --to orders --json --unsent unsent.ndjson")
        .reading(Input::Seq { first: 1, last: HELD });
    let lines = send.input.lines().unwrap_or_default();
    account.attempted(&lines);
    stage.shared_command(&send);
    let ended = stage.run(&send, &[0]).await?;
    account.sent(&Sent::read(&lines, &ended, &stage.path("unsent.ndjson"))?);
    stage.until_ready("orders", HELD).await?;

    stage.show.look(&format!(
        "Queues, orders: Unacked {}, then, when the consumer is dead, Ready {}",
        if guarded { "0 → 20" } else { "stays 0" },
        if guarded { "20" } else { "0" }
    ));
    let run = CommandLine::consumer("run --from orders --concurrency 20").and(setting(guarded));
    let run = run.and(stage.if_watched("--handler-deadline 500", ""));
    let run = run.exec(&format!("echo $$ >> begun; sleep {}; cat >> handled", stage.if_watched("500", "60")));
    stage.command(&run);
    let mut consumer = stage.start(&run)?;
    let held_commands = HeldCommands::new(stage.path("begun"));
    stage.until("20 commands at work", async || Ok(stage.lines("begun")?.len() as u64 == HELD)).await?;
    let unacknowledged = if guarded { HELD } else { 0 };
    let what = format!("the broker to count {unacknowledged} unacknowledged messages");
    stage.until(&what, async || Ok(held_by_consumers(stage.node).await? == unacknowledged)).await?;
    stage.show.hold().await;
    consumer.still_runs()?;
    consumer.kill().await?;
    // The machine is gone, and all that ran on it.
    held_commands.kill();
    account.handled(&stage.written("handled")?);
    stage.until_ready("orders", unacknowledged).await?;
    stage.show.hold().await;
    let rest = stage.drain("orders").await?;
    let redelivered = rest.iter().filter(|handled| handled.redelivered).count();
    account.handled(&rest);
    if guarded {
        stage
            .show
            .look("Queues, orders, Message rates: Redelivered had a peak (the column redelivered is hidden: +/-)");
        stage.show.hold().await;
    }
    let figures = account.figures();
    stage.result(format!(
        "SIGKILL while it holds 20, of which the broker keeps {unacknowledged}; the next consumer gets {redelivered}: handled {}, lost {}",
        figures.handled, figures.lost
    ));
    Ok(Half {
        lesson: "acknowledged",
        guarded,
        setting: if guarded { "after handling" } else { setting(guarded) },
        done: if guarded {
            "the broker kept them until they were handled"
        } else {
            "SIGKILL of the consumer while it held 20"
        },
        acts: vec![Act { name: "a consumer dies", figures }],
    })
}

fn setting(guarded: bool) -> &'static str {
    if guarded { "" } else { "--ack on-delivery" }
}

/// What all consumers together hold, asked of their channels: exact, where a queue's own count is seconds late.
async fn held_by_consumers(node: &Node) -> Result<u64, LessonError> {
    let answer = node.ctl(&["-q", "list_channels", "--no-table-headers", "user", "messages_unacknowledged"]).await?;
    let held = answer.lines().filter_map(|line| line.split_once('\t')).filter(|(user, _)| *user == "consumer");
    Ok(held.filter_map(|(_, held)| held.trim().parse::<u64>().ok()).sum())
}

const HELD: u64 = 20;
