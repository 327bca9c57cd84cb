//! A failed message is overtaken while it waits for its retry. Guard: retry in place, its key waits.

use super::{Act, LessonError, Stage, act, consumer, flights, queue, send};

pub(super) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Act, LessonError> {
    stage.show.look(if guarded {
        "Queues, flights: Unacked stays up for a second, nothing goes round through a retry queue"
    } else {
        "Queues: failed flights wait in orders.retry.1s, later ones pass them"
    });
    let mut account = send(stage, guarded, flights(1, 400)).await?;
    // The first flight of each airport fails, once.
    let run =
        consumer(guarded).exec("mkdir first-$CORREIO_KEY 2>/dev/null && exit 1; read -r f; echo \"$f\" >> handled");
    let run = run.and("--idle 1");
    stage.command(&run);
    stage.run(&run, &[0]).await?;
    account.handled(stage.written("handled")?);
    account.handled(stage.drain(queue(guarded)).await?);
    stage.show.hold().await;
    Ok(act(stage, "a failed message is overtaken", guarded.then_some("retry in place"), &account))
}
