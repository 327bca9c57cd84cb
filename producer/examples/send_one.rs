//! cargo run --example send_one
//!
//! Sends one order to the queue `orders` of the broker that `docker compose up -d --wait` or `cargo demo broker` starts, and
//! says what became of it.

use std::time::Duration;

use correio_producer::{Address, Destination, Message, Outcome, Producer, ProducerSettings, Role, ShortText};

#[derive(serde::Serialize)]
struct Order {
    number: u64,
    pieces: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = Address::from_environment(Role::Producer, None)?;
    let producer = Producer::connect(ProducerSettings::new(address, "shop")?).await?;
    let order = Order { number: 1, pieces: 3 };
    let message = Message::json(Destination::queue("orders")?, &order)?.with_type(ShortText::new("order.placed")?);
    match producer.send(message).await? {
        Outcome::Confirmed { .. } => println!("order {} is on the queue, and on disk", order.number),
        Outcome::Unroutable { reason, .. } => println!("no such queue: {reason}"),
        Outcome::Refused { reason, .. } => println!("a queue did not take it: {reason}"),
        Outcome::Unknown { tries } => println!("no answer after sending it {tries} times: send it again with its id"),
    }
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}
