//! Consumers that are stopped in their tracks, for longer than anybody waits for them, and then go on.

use std::time::Duration;

use correio_lab::{
    broker::{NodeOptions, for_each_own},
    lessons::Choices,
};
use correio_tests::scale;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::journey::{Journey, databases, seed};

/// Past the time after which PostgreSQL ends an open transaction here (2 s), and in full past the broker's patience with a
/// silent connection (two heartbeats of 10 s), too.
fn pause() -> Duration {
    Duration::from_secs(scale::of(25, 5))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_wakes_up_after_others_took_over_writes_nothing_more() {
    let flights = scale::of(20_000, 20);
    let pauses = scale::of(10, 5);
    let (server, kinds) = databases().await;
    let seed = seed();
    for_each_own(NodeOptions::default(), async |node| {
        for kind in kinds {
            let database = kind.fresh(&server).await;
            let mut choices = Choices::new(seed, &format!("{kind:?}"));
            let mut journey = Journey::begin(node, &database.effects, &["--abandoned-after", "2000"]).await;
            for paused in 1..=pauses {
                let before = journey.sent();
                journey.send_until(flights * paused / (pauses + 1)).await;
                journey.until_effects(before + choices.number(journey.sent() - before) - 1).await;
                let chosen = journey.chosen(&mut choices);
                journey.signal(chosen, Signal::SIGSTOP);
                // Not a hope: this is how long it is away.
                sleep(pause()).await;
                journey.signal(chosen, Signal::SIGCONT);
            }
            journey.send_until(flights).await;
            println!("{kind:?}: stopped in its tracks {pauses} times: {:?}", journey.end().await);
        }
    })
    .await;
}
