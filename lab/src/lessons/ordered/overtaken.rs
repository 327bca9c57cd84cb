//! A failed message is overtaken while it waits for its retry. Guard: retry in place, its key waits.

use super::{Act, LessonError, Stage, act, consumer, flights, queue, send};

pub(super) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Act, LessonError> {
    stage.show.look(if guarded {
        "Queues, flights: Ready 500; soon after, Unacked: failed flights wait here, and their keys with them"
    } else {
        "Queues, orders: Ready 500; soon after, orders.retry.1s: failed flights wait there, later ones pass"
    });
    let mut account = send(stage, guarded, flights(1, 500)).await?;
    stage.show.hold().await;
    // The first flight of each airport fails, once.
    let run = consumer(guarded).and("--idle 2");
    let run = run.exec("mkdir first-$CORREIO_KEY 2>/dev/null && exit 1; read -r f; echo \"$f\" >> handled");
    stage.command(&run);
    stage.run(&run, &[0]).await?;
    account.handled(&stage.written("handled")?);
    account.handled(&stage.drain(queue(guarded)).await?);
    Ok(act(stage, "a failed message is overtaken", guarded.then_some("retry in place"), &account))
}
