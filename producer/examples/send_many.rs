//! cargo run --example send_many
//!
//! Sends 10,000 orders to the queue `orders` with many in flight at once, each customer's in order, and counts what became
//! of them. Kill or restart the broker meanwhile: what was unanswered is sent again under the same ids.

use std::{collections::VecDeque, time::Duration};

use correio_producer::{
    Address, Destination, Key, Message, Outcome, Producer, ProducerSettings, Receipt, Role, ShortText,
};

#[derive(serde::Serialize)]
struct Order {
    number: u64,
    customer: u64,
    pieces: u64,
}

#[derive(Debug, Default)]
struct Count {
    confirmed: u64,
    not_confirmed: u64,
}

impl Count {
    async fn read(&mut self, receipt: Receipt) {
        let id = receipt.id().clone();
        match receipt.await {
            Ok(Outcome::Confirmed { .. }) => self.confirmed += 1,
            Ok(other) => {
                println!("{id}: {other}");
                self.not_confirmed += 1;
            }
            Err(never_left) => {
                println!("{never_left}");
                self.not_confirmed += 1;
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = Address::from_environment(Role::Producer, None)?;
    let producer = Producer::connect(ProducerSettings::new(address, "shop")?).await?;
    let (queue, placed) = (Destination::queue("orders")?, ShortText::new("order.placed")?);
    let mut count = Count::default();
    let mut in_flight = VecDeque::new();
    for number in 1..=10_000 {
        let order = Order { number, customer: number % 100, pieces: 1 };
        let message = Message::json(queue.clone(), &order)?
            .with_type(placed.clone())
            .with_key(Key::new(order.customer.to_string())?);
        in_flight.push_back(producer.submit(message).await?);
        // Read the oldest once a window of them is under way, so that memory stays bounded.
        if in_flight.len() >= 1_000
            && let Some(receipt) = in_flight.pop_front()
        {
            count.read(receipt).await;
        }
    }
    for receipt in in_flight {
        count.read(receipt).await;
    }
    println!("{} confirmed, {} not", count.confirmed, count.not_confirmed);
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}
