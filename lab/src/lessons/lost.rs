//! Lost: `fire` does not look whether a message arrives; `send` waits for the broker's answer.

use super::{
    Act, Half, LessonError,
    account::Account,
    command::{CommandLine, Input},
    evidence::{Fired, Sent},
    stage::Stage,
};
use crate::faults::Proxy;

pub(crate) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Half, LessonError> {
    let acts = vec![nobody_there(stage, guarded).await?, swallowed(stage, guarded).await?];
    Ok(Half {
        lesson: "lost",
        guarded,
        setting: how(guarded),
        done: if guarded {
            "returns are kept, the unanswered sent again"
        } else {
            "500 to nobody; 500 swallowed, then the line cut"
        },
        acts,
    })
}

/// Half of the lines go to an address where nobody lives.
async fn nobody_there(stage: &Stage<'_>, guarded: bool) -> Result<Act, LessonError> {
    stage.show.look(if guarded {
        "Overview, Message rates: Unroutable (return) rises; Channels, while it sends: Mode C, for confirms"
    } else {
        "Overview, Message rates: Unroutable (drop) rises; Channels, while it sends: publish on the one without Mode C"
    });
    let mut account = Account::default();
    let to = |queue, first, last| line(stage, guarded, queue).reading(Input::Seq { first, last });
    send(stage, guarded, to("nobody", 1, 500), &mut account).await?;
    send(stage, guarded, to("orders", 501, 1_000), &mut account).await?;
    stage.show.hold().await;
    account.handled(&stage.drain("orders").await?);
    let figures = account.figures();
    stage.result(match guarded {
        false => format!("handled {}, lost {}; the producer said nothing", figures.handled, figures.lost),
        true => format!(
            "handled {}, lost {}; {} “unroutable”, said so and kept in the file, exit status 1",
            figures.handled, figures.lost, figures.told
        ),
    });
    Ok(Act { name: "nobody lives there", figures })
}

/// The proxy lets 500 messages through, swallows 500 and cuts.
async fn swallowed(stage: &Stage<'_>, guarded: bool) -> Result<Act, LessonError> {
    stage.show.look(if guarded {
        "Queues, orders: Ready stops at 500 while 500 go astray, then rises to 1000 or more (some come twice)"
    } else {
        "Queues, orders: Ready ends at 500 or less, although 1000 are sent"
    });
    let proxy = stage.proxy().await?;
    proxy.lose_publishes(500, Some(500));
    let mut account = Account::default();
    let line = line(stage, guarded, "orders").reading(Input::Seq { first: 1_001, last: 2_000 });
    let resent = send(stage, guarded, line.through(proxy.address()), &mut account).await?;
    let swallowed = swallowed_by(proxy).await;
    stage.show.hold().await;
    account.handled(&stage.drain("orders").await?);
    let figures = account.figures();
    let said = match guarded {
        // A cut connection may take with it what had passed the proxy.
        false if figures.lost > swallowed => format!("{swallowed} swallowed, more lost in the cut"),
        false => format!("{swallowed} swallowed"),
        true => format!("{swallowed} swallowed; {resent} had no answer and were sent again under the same ids"),
    };
    stage.result(format!("{said}: handled {}, lost {}", figures.handled, figures.lost));
    Ok(Act { name: "swallowed on the way", figures })
}

fn how(guarded: bool) -> &'static str {
    if guarded { "send" } else { "fire" }
}

fn line(stage: &Stage<'_>, guarded: bool, queue: &str) -> CommandLine {
    let line = CommandLine::producer(&format!("{} --to {queue}", how(guarded)));
    let line = if guarded { line.and(&format!("--unsent {}", unsent(queue))) } else { line };
    line.and("--json").and(stage.pace())
}

fn unsent(queue: &str) -> String {
    format!("unsent-{queue}.ndjson")
}

/// Sends, enters what the producer said, and gives back how many it sent again.
async fn send(stage: &Stage<'_>, guarded: bool, line: CommandLine, account: &mut Account) -> Result<u64, LessonError> {
    stage.command(&line);
    let lines = line.input.lines().unwrap_or_default();
    account.attempted(&lines);
    // 1: some did not make it, which is the lesson.
    let ended = stage.run(&line, &[0, 1]).await?;
    if guarded {
        let queue = if line.args.iter().any(|word| word == "nobody") { "nobody" } else { "orders" };
        let sent = Sent::read(&lines, &ended, &stage.path(unsent(queue)))?;
        account.sent(&sent);
        Ok(sent.resent)
    } else {
        account.fired(Fired::read(&ended)?);
        Ok(0)
    }
}

async fn swallowed_by(proxy: Proxy) -> u64 {
    let swallowed = proxy.counts().publishes_swallowed;
    proxy.stop().await;
    swallowed
}
