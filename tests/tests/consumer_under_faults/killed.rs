//! Consumers and brokers that die again and again.

use correio_lab::{
    broker::{NodeOptions, for_each_own},
    lessons::Choices,
};
use correio_tests::scale;

use crate::journey::{Journey, databases, seed};

#[tokio::test(flavor = "multi_thread")]
async fn each_flight_has_one_effect_although_consumers_die_again_and_again_and_the_broker_too() {
    let flights = scale::of(20_000, 20);
    let (kills, broker_kills) = (scale::of(50, 10), scale::of(5, 5));
    let (server, kinds) = databases().await;
    let seed = seed();
    for_each_own(NodeOptions::default(), async |node| {
        for kind in kinds {
            let database = kind.fresh(&server).await;
            let mut choices = Choices::new(seed, &format!("{kind:?}"));
            let mut journey = Journey::begin(node, &database.effects, &["--fails-once", "\"ATL\""]).await;
            let faults = kills + broker_kills;
            for fault in 1..=faults {
                let before = journey.sent();
                journey.send_until(flights * fault / (faults + 1)).await;
                // In the middle of it, wherever that is.
                journey.until_effects(before + choices.number(journey.sent() - before) - 1).await;
                if fault % (faults / broker_kills) == 0 {
                    node.kill().await.expect("killed");
                    node.restart().await.expect("started again");
                } else {
                    journey.kill_one(&mut choices).await;
                }
            }
            journey.send_until(flights).await;
            let report = journey.end().await;
            println!("{kind:?}: consumers killed {kills} times, the broker {broker_kills} times: {report:?}");
        }
    })
    .await;
}
