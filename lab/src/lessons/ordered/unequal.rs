//! Three consumers of unequal speed share a queue. Guard: a single active consumer, the others stand by.

use std::time::Duration;

use super::{Act, LessonError, Stage, act, consumer, flights, queue, send};
use crate::broker::Node;

pub(super) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Act, LessonError> {
    stage.show.look(&format!(
        "Queues, {}, Consumers: Active is {} of the three",
        queue(guarded),
        if guarded { "● for one" } else { "● for each" }
    ));
    let mut speeds = ["0", "0.01", "0.04"];
    stage.choices().shuffle(&mut speeds);
    let mut consumers = Vec::new();
    for (number, speed) in speeds.iter().enumerate() {
        let run = consumer(guarded).exec(&format!("sleep {speed}; read -r f; echo \"$f\" >> unequal"));
        if number == 0 {
            stage.command(&run);
            stage.show.line(format!("     … and two more of these with sleep {} and sleep {}", speeds[1], speeds[2]));
        }
        consumers.push(stage.start(&run)?);
    }
    stage.until("three consumers on the queue", async || Ok(on_queue(stage.node, queue(guarded)).await? == 3)).await?;
    stage.show.hold().await;
    let mut account = send(stage, guarded, flights(501, 700)).await?;
    let sent = account.figures().sent;
    stage.until("200 flights handled", async || Ok(stage.lines("unequal")?.len() as u64 >= sent)).await?;
    for consumer in &consumers {
        consumer.stop();
    }
    for consumer in consumers {
        consumer.end(STOPS).await?.with(&[0])?;
    }
    account.handled(&stage.written("unequal")?);
    account.handled(&stage.drain(queue(guarded)).await?);
    Ok(act(stage, "three consumers of unequal speed", guarded.then_some("a single active consumer"), &account))
}

/// How many consumers the queue has, those that stand by included.
async fn on_queue(node: &Node, queue: &str) -> Result<usize, LessonError> {
    let answer = node.ctl(&["-q", "list_consumers", "--no-table-headers", "queue_name"]).await?;
    Ok(answer.lines().filter(|line| line.trim() == queue).count())
}

const STOPS: Duration = Duration::from_secs(40);
