//! One source on two connections, one of them delayed. Guard: the resequencer puts the numbers right.
//!
//! Our own producer sends a source on one channel and cannot do this; the lab's plain client does, as one that fails
//! over, or spreads over a pool, does.

use std::time::Duration;

use super::{Act, LessonError, Stage, act, consumer, flights, origin, queue};
use crate::{
    broker::Login,
    faults::{Direction, Which},
    lessons::plain_client::PlainClient,
};

pub(super) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Act, LessonError> {
    stage.show.look("Connections: two named “lab plain client”; they send the same source's flights");
    let (_, lines, mut account) = flights(701, 1_000);
    let proxy = stage.proxy().await?;
    let url = stage.node.amqp_url_through(Login::Producer, proxy.address());
    let mut client = PlainClient::connect(&url).await?;
    // The second connection's: even numbers come a second after odd ones.
    proxy.delay(Which::Number(2), Direction::ClientToBroker, DELAY);
    stage.show.line("     the lab's plain lapin client sends flights 701 to 1000 alternately on two connections, the second 1 s late");
    client.publish_alternately(queue(guarded), lines.lines().map(|line| (origin(line), line))).await?;
    account.all_confirmed();
    stage.show.hold().await;
    client.close().await;
    proxy.stop().await;
    let run = consumer(guarded).and("--output resequenced.ndjson --json --idle 2");
    stage.command(&run);
    stage.run(&run, &[0]).await?;
    account.handled(&stage.handled("resequenced.ndjson")?);
    account.handled(&stage.drain(queue(guarded)).await?);
    Ok(act(stage, "one source on two connections", guarded.then_some("the resequencer"), &account))
}

const DELAY: Duration = Duration::from_secs(1);
