//! cargo run --example request
//!
//! Asks the service behind the queue `orders` 100 times, all at once, and prints each reply beside its question. Somebody has to
//! reply: `cargo consumer run --from orders --exec 'tr a-z A-Z'` does, and without anybody each request ends at its deadline.

use std::time::Duration;

use correio_producer::{Address, Destination, Message, Producer, ProducerSettings, RequestError, Role};
use futures_util::{StreamExt, stream::FuturesUnordered};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = Address::from_environment(Role::Producer, None)?;
    let producer = Producer::connect(ProducerSettings::new(address, "shop")?).await?;
    let service = Destination::queue("orders")?;
    let mut in_flight = FuturesUnordered::new();
    for number in 1..=100 {
        let (producer, question) = (&producer, Message::new(service.clone(), format!("how much is order {number}?")));
        in_flight.push(async move { (number, producer.request(question, Duration::from_secs(10)).await) });
    }
    let mut replied = 0;
    while let Some((number, reply)) = in_flight.next().await {
        match reply {
            Ok(reply) => {
                replied += 1;
                println!("{number}: {}", String::from_utf8_lossy(&reply.payload).trim_end());
            }
            Err(RequestError::NoSuchService { .. }) => println!("{number}: there is no queue orders"),
            Err(RequestError::Remote(error)) => println!("{number}: it could not be done, {error}"),
            Err(other) => println!("{number}: {other}"),
        }
    }
    drop(in_flight);
    println!("{replied} of 100 have a reply");
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}
