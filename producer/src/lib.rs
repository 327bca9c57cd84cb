//! A producer for RabbitMQ that says truthfully what became of each message.
//!
//! ```no_run
//! use correio_producer::{Address, Destination, Message, Outcome, Producer, ProducerSettings, Role};
//!
//! # #[derive(serde::Serialize)] struct Order { number: u32 }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let address = Address::from_environment(Role::Producer, None)?;
//! let producer = Producer::connect(ProducerSettings::new(address, "shop")?).await?;
//! let message = Message::json(Destination::queue("orders")?, &Order { number: 1 })?;
//! match producer.send(message).await? {
//!     Outcome::Confirmed => println!("on the queue, on disk"),
//!     other => println!("not there: {other}"),
//! }
//! producer.close(std::time::Duration::from_secs(10)).await;
//! # Ok(()) }
//! ```
//!
//! [`Producer::fire`] goes on without an answer and may lose; [`Producer::send`] waits for the broker's word;
//! [`Producer::submit`] keeps many in flight. Guarantees 1, 2 and 7 of `ARCHITECTURE.md`.

mod connecting;
mod counts;
mod error;
mod firing_channel;
mod frame;
mod numbering;
mod outcome;
mod producer;
#[cfg(feature = "cli")]
pub mod program;
mod publishing_channel;
mod receipt;
mod settings;
mod submission;

use std::time::{SystemTime, UNIX_EPOCH};

pub use correio_broker_config::{Address, ConnectError, DeclareError, Role, Topology, WorkQueue};
pub use correio_message::{
    Destination, Envelope, Headers, Json, Key, Message, MessageId, Route, ShortText, TooLong, Value,
};

pub use counts::Counts;
pub use error::{ForwardError, SendError, SendFailure};
pub use outcome::Outcome;
pub use producer::Producer;
pub use receipt::Receipt;
pub use settings::ProducerSettings;

/// A new message id: a UUIDv7, unique and in order of time.
#[must_use]
pub fn fresh_id() -> MessageId {
    MessageId::from(uuid::Uuid::now_v7())
}

/// Now, in microseconds since 1970.
fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros().try_into().unwrap_or(u64::MAX))
}
