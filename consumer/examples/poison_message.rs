//! cargo run --example poison_message
//!
//! A poison message and its replay. An order of more than 100 pieces cannot be packed: it is tried three times, the second and third
//! time a little later, and then parked in `orders.dead` with its reason, while the other orders are packed. Once the code is repaired,
//! it is replayed under its own identity and packed like any other:
//!
//! ```sh
//! echo '{"number":1,"pieces":3}' | cargo producer send --to orders --type order.placed
//! echo '{"number":2,"pieces":500}' | cargo producer send --to orders --type order.placed
//! cargo run --example poison_message
//! cargo consumer dead-letters list --from orders --each
//! cargo run --example poison_message repaired
//! ```

use std::{num::NonZeroU16, time::Duration};

use correio_consumer::{
    Address, CancellationToken, Consumer, Context, Json, Processing, RetrySchedule, Role, ShortText,
    dead_letters::{DeadLetters, LettersFilter, ReplaySettings},
};

#[derive(serde::Deserialize)]
struct Order {
    number: u64,
    pieces: u64,
}

/// What was deployed first, and failed.
async fn pack(Json(order): Json<Order>, context: Context) -> Result<(), String> {
    if order.pieces > PIECES_IN_A_PARCEL {
        return Err(format!("order {}: no parcel holds {} pieces", order.number, order.pieces));
    }
    println!("order {} is packed on attempt {}", order.number, context.attempt());
    Ok(())
}

async fn pack_in_several(Json(order): Json<Order>, context: Context) -> Result<(), String> {
    let parcels = order.pieces.div_ceil(PIECES_IN_A_PARCEL);
    println!("order {} is packed on attempt {}, in {parcels} parcels", order.number, context.attempt());
    Ok(())
}

const PIECES_IN_A_PARCEL: u64 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let repaired = std::env::args().nth(1).is_some_and(|argument| argument == "repaired");
    let address = Address::from_environment(Role::Consumer, None)?;
    if repaired {
        replay(&address).await?;
    }
    // Retries after 1 and 2 seconds, for which the queue `orders` has delay queues.
    let retry = RetrySchedule::default().with_retries(2);
    let builder = Consumer::builder(address)
        .queue("orders")
        .processing(Processing::Independent { at_once: NonZeroU16::MIN, retry })
        .stop_when_idle(Duration::from_secs(3));
    let builder = if repaired { builder.on("order.placed", pack_in_several) } else { builder.on("order.placed", pack) };
    let summary = builder.build()?.run(CancellationToken::new()).await?;
    println!("{} handled, {} retried, {} dead", summary.counts.handled, summary.counts.retried, summary.counts.dead);
    Ok(())
}

/// As `cargo consumer dead-letters replay --from orders --type order.placed` does.
async fn replay(address: &Address) -> Result<(), Box<dyn std::error::Error>> {
    let letters = DeadLetters::of(address.clone(), ShortText::new("orders")?);
    let orders = LettersFilter { message_type: Some(ShortText::new("order.placed")?), ..LettersFilter::default() };
    for letter in letters.list(&orders).await?.letters {
        println!("dead, {}: {}", letter.reason.as_str(), letter.error);
    }
    let done = letters.replay(&orders, &ReplaySettings::default(), &CancellationToken::new()).await?;
    println!("{} replayed", done.replayed);
    for kept in done.kept {
        println!("kept: {}", kept.why);
    }
    Ok(())
}
