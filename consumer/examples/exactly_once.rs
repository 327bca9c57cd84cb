//! cargo run --example exactly_once
//!
//! Books the orders on the queue `orders` into the table `bookings` of `orders.db`, each exactly once: the booking and the note that
//! the message was handled are in one transaction. Start it twice, kill it in the middle, send an order twice under one id:
//! each is there once.
//!
//! ```sh
//! echo '{"number":1,"pieces":3}' | cargo producer send --to orders --type order.placed
//! ```

use std::time::Duration;

use correio_consumer::{
    Address, CancellationToken, Consumer, Json, Role, SqliteLog, Transaction,
    sqlx::{self, Sqlite},
};

#[derive(serde::Deserialize)]
struct Order {
    number: i64,
    pieces: i64,
}

async fn book(Json(order): Json<Order>, mut transaction: Transaction<Sqlite>) -> Result<(), sqlx::Error> {
    let insert =
        sqlx::query("INSERT INTO bookings (number, pieces) VALUES (?, ?)").bind(order.number).bind(order.pieces);
    insert.execute(&mut *transaction).await?;
    // Committed together with the message's id when this returns, and undone if it returns an error.
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "orders.db".to_owned());
    let log = SqliteLog::open(&file).await?;
    let database = log.pool().clone();
    sqlx::query("CREATE TABLE IF NOT EXISTS bookings (number INTEGER, pieces INTEGER)").execute(&database).await?;
    let consumer = Consumer::builder(Address::from_environment(Role::Consumer, None)?)
        .queue("orders")
        .on("order.placed", book)
        .deduplication(log)
        .stop_when_idle(Duration::from_secs(10))
        .build()?;
    let stop = CancellationToken::new();
    let on_ctrl_c = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_ctrl_c.cancel();
        }
    });
    let summary = consumer.run(stop).await?;
    let booked: i64 = sqlx::query_scalar("SELECT count(*) FROM bookings").fetch_one(&database).await?;
    println!(
        "{} handled, {} duplicates; {booked} bookings in {file}",
        summary.counts.handled, summary.counts.duplicates
    );
    Ok(())
}
