//! cargo run --example count_orders
//!
//! Counts the orders on the queue `orders` of the broker that `docker compose up -d --wait` or `cargo demo broker` starts,
//! until Ctrl-C or until none has come for ten seconds. Send some from another terminal:
//!
//! ```sh
//! echo '{"number":1,"pieces":3}' | cargo producer send --to orders --type order.placed
//! ```

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use correio_consumer::{Address, CancellationToken, Consumer, Context, Json, Role, Verdict};

#[derive(serde::Deserialize)]
struct Order {
    number: u64,
    pieces: u64,
}

static PIECES: AtomicU64 = AtomicU64::new(0);

async fn count(Json(order): Json<Order>, context: Context) -> Result<Verdict, String> {
    if order.pieces == 0 {
        // Trying again would not help: a person has to look at it.
        return Ok(Verdict::DeadLetter { reason: format!("order {} has no pieces", order.number) });
    }
    let pieces = PIECES.fetch_add(order.pieces, Ordering::Relaxed) + order.pieces;
    println!("order {} on attempt {}: {pieces} pieces in all", order.number, context.attempt());
    Ok(Verdict::Done)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stop = CancellationToken::new();
    let on_ctrl_c = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_ctrl_c.cancel();
        }
    });
    let consumer = Consumer::builder(Address::from_environment(Role::Consumer, None)?)
        .queue("orders")
        .on("order.placed", count)
        .stop_when_idle(Duration::from_secs(10))
        .build()?;
    let summary = consumer.run(stop).await?;
    println!(
        "{} handled, {} duplicates, {} dead",
        summary.counts.handled, summary.counts.duplicates, summary.counts.dead
    );
    Ok(())
}
