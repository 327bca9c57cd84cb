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
//!     Outcome::Confirmed { .. } => println!("on the queue, on disk"),
//!     other => println!("not there: {other}"),
//! }
//! producer.close(std::time::Duration::from_secs(10)).await;
//! # Ok(()) }
//! ```
//!
//! [`Producer::fire`] goes on without an answer and may lose; [`Producer::send`] waits for the broker's word;
//! [`Producer::submit`] keeps many in flight. Guarantees 1, 2 and 7 of `ARCHITECTURE.md`.
//!
//! # Who receives
//!
//! | Destination | Who gets it | Nobody there |
//! |---|---|---|
//! | [`Destination::queue`] | any one consumer of a work queue, the freest | [`Outcome::Unroutable`], a failure |
//! | [`Destination::mailbox`] | one particular receiver | [`Outcome::Unroutable`], a failure |
//! | [`Destination::topic`] | every group that subscribed to such keys | [`Outcome::Unroutable`]; for events that is normal |
//! | [`Destination::Everyone`] | everyone who listens | the same |
//!
//! [`Destination::wants_somebody`] tells the last two from the others.
//!
//! # Sooner, later, never
//!
//! [`Message::expiring_after`] is for what is worth nothing after a while, [`Message::with_priority`] for what goes before the
//! others, [`Producer::send_after`] for what is to come later. None of them goes with a key: it would break the key's order.
//!
//! # Request and reply
//!
//! ```no_run
//! # use correio_producer::{Destination, Message, Producer, RequestError};
//! # async fn example(producer: &Producer) -> Result<(), Box<dyn std::error::Error>> {
//! let question = Message::new(Destination::queue("quotes")?, "EUR/USD");
//! match producer.request(question, std::time::Duration::from_secs(5)).await {
//!     Ok(reply) => println!("{}", String::from_utf8_lossy(&reply.payload)),
//!     Err(RequestError::NoSuchService { reason }) => println!("nobody lives there: {reason}"),
//!     Err(RequestError::Remote(error)) => println!("the service says {}: {}", error.kind, error.text),
//!     Err(other) => println!("{other}"),
//! }
//! # Ok(()) }
//! ```
//!
//! [`Producer::request`] waits for the reply and not only for the broker. Any number may be in flight, each with its own
//! deadline, which travels with the request. A reply that nobody waits for any more is dropped, and counted in
//! [`Counts::late_replies`].

mod confirms;
mod connecting;
mod counts;
mod delay;
mod error;
mod firing_channel;
mod frame;
mod health;
mod holes;
mod numbering;
mod outcome;
mod outgoing;
mod producer;
#[cfg(feature = "cli")]
pub mod program;
mod publishing_channel;
mod receipt;
mod reply_channel;
#[cfg(feature = "metrics")]
mod reporting;
mod request_error;
mod requests;
mod settings;
mod submission;
mod telemetry;
#[cfg(feature = "trace-context")]
#[doc(hidden)]
pub mod trace_context;

use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "metrics")]
pub use correio_broker_config::metrics;
pub use correio_broker_config::{
    Address, ConnectError, DeclareError, NodeAddress, Role, TlsError, TlsFile, TlsSettings, Topology, WorkQueue,
};
pub use correio_message::{
    DecodeError, Destination, Envelope, Headers, InvalidAddress, InvalidLifetime, Json, Key, Lifetime, MailboxName,
    Message, MessageId, Priority, ReplyError, Route, ShortText, TooLong, TopicKey, Value,
};

pub use counts::Counts;
pub use delay::NotDelayable;
pub use error::{ForwardError, KeyConflict, SendError, SendFailure};
pub use health::{Health, HealthWatch};
pub use holes::{NoSuchHole, OnHole};
pub use outcome::Outcome;
pub use producer::Producer;
pub use receipt::{ForwardReceipt, Receipt};
pub use request_error::RequestError;
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
