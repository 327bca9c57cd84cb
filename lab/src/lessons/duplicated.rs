//! Duplicated: the confirms get lost, so the producer sends again what has arrived.

use super::{
    Act, Half, LessonError,
    account::Account,
    command::{CommandLine, Input},
    evidence::Sent,
    stage::Stage,
};
use crate::faults::Ending;

pub(crate) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Half, LessonError> {
    let mut account = Account::default();
    let proxy = stage.proxy().await?;
    // Not all at once: the first, which goes alone, is confirmed, and there is time to lose the confirms of the rest.
    let send = CommandLine::producer("send --to orders --rate 200 --json --unsent unsent.ndjson");
    let send = send.reading(Input::Seq { first: 1, last: SENT }).through(proxy.address());
    stage.shared_command(&send);
    stage.show.look("Overview, Message rates: Publish goes on past 500; Queues, orders: Ready ends above the 500 sent");
    let lines = send.input.lines().unwrap_or_default();
    account.attempted(&lines);
    let producer = stage.start(&send)?;
    stage.until("messages through the proxy", async || Ok(proxy.counts().publishes_forwarded >= 2)).await?;
    proxy.lose_confirms(true);
    stage.until("500 messages through the proxy", async || Ok(proxy.counts().publishes_forwarded >= SENT)).await?;
    // On the queue, all of them: what is sent again from here on is there twice.
    stage.until_ready("orders", SENT).await?;
    proxy.lose_confirms(false);
    proxy.cut(Ending::Reset).await;
    let ended = producer.end(PRODUCER_ENDS).await?.with(&[0])?;
    let sent = Sent::read(&lines, &ended, &stage.path("unsent.ndjson"))?;
    account.sent(&sent);
    proxy.stop().await;
    let on_queue = stage.node.queue_depth("orders").await?;
    stage.show.hold().await;

    let run = CommandLine::consumer("run --from orders --output handled.ndjson --json --idle 2").and(setting(guarded));
    stage.command(&run);
    stage.run(&run, &[0]).await?;
    account.handled(&stage.handled("handled.ndjson")?);
    account.handled(&stage.drain("orders").await?);
    let figures = account.figures();
    stage.result(format!(
        "{} sent, {} sent again, {on_queue} on the queue: handled {}, doubled {}",
        figures.sent, sent.resent, figures.handled, figures.doubled
    ));
    Ok(Half {
        lesson: "duplicated",
        guarded,
        setting: if guarded { "dedup in memory" } else { setting(guarded) },
        done: if guarded { "the second copy of an id is not handled" } else { "confirms dropped, then the line cut" },
        acts: vec![Act { name: "confirms get lost", figures }],
    })
}

fn setting(guarded: bool) -> &'static str {
    if guarded { "" } else { "--dedup off" }
}

const SENT: u64 = 500;
const PRODUCER_ENDS: std::time::Duration = std::time::Duration::from_secs(60);
