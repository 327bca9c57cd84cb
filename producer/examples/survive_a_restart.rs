//! cargo run --example survive_a_restart
//!
//! Sends an order every ten milliseconds to the queue `orders` of the broker that `docker compose up -d --wait` or `cargo demo
//! broker` starts, until Ctrl-C. Restart the broker meanwhile, or kill it (`docker compose kill broker`, then `up -d` again): no
//! order that was taken is lost, and nothing here has to notice that the connection was another one.

use std::{pin::pin, time::Duration};

use correio_producer::{Address, Destination, Health, Message, Producer, ProducerSettings, Role};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    signal::ctrl_c,
    time::{MissedTickBehavior, interval},
};

#[derive(serde::Serialize)]
struct Order {
    number: u64,
    pieces: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = Address::from_environment(Role::Producer, None)?;
    // Longer than the broker is ever away. Until then what is unanswered is kept, and sent again with the same id.
    let settings = ProducerSettings::new(address, "shop")?.confirm_deadline(Duration::from_secs(300));
    let producer = Producer::connect(settings).await?;
    let queue = Destination::queue("orders")?;
    let (mut health, mut is_there) = (producer.health(), true);
    health.until(Health::is_good).await;

    let mut enough = pin!(ctrl_c());
    let mut beat = interval(Duration::from_millis(10));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut number, mut confirmed, mut in_flight) = (0, 0, FuturesUnordered::new());
    loop {
        tokio::select! {
            _ = &mut enough => break,
            Some(now) = health.until(|now| now.is_good() != is_there) => {
                is_there = now.is_good();
                println!("{}", if is_there { "the broker is back" } else { "the broker is away: orders wait for it" });
            }
            _ = beat.tick() => {
                number += 1;
                in_flight.push(producer.submit(Message::json(queue.clone(), &Order { number, pieces: 1 })?).await?);
            }
            Some(outcome) = in_flight.next() => match outcome? {
                outcome if outcome.is_confirmed() => {
                    confirmed += 1;
                    if confirmed % 100 == 0 {
                        println!("{confirmed} orders are on the queue");
                    }
                }
                other => println!("{other}"),
            },
        }
    }
    while let Some(outcome) = in_flight.next().await {
        match outcome? {
            outcome if outcome.is_confirmed() => confirmed += 1,
            other => println!("{other}"),
        }
    }
    // A consumer handles each of them once: it knows them by their ids.
    println!("{confirmed} of {number} orders are on the queue; {} were sent twice", producer.counts().resent);
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}
