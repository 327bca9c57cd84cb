//! A consumer for RabbitMQ that acknowledges a message only when its work is done.
//!
//! ```no_run
//! use correio_consumer::{Address, CancellationToken, Consumer, Context, Json, Role, Verdict};
//!
//! #[derive(serde::Deserialize)]
//! struct Order { number: u32 }
//!
//! async fn place(Json(order): Json<Order>, context: Context) -> Result<Verdict, std::io::Error> {
//!     println!("order {} on attempt {}", order.number, context.attempt());
//!     Ok(Verdict::Done)
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let address = Address::from_environment(Role::Consumer, None)?;
//! let consumer = Consumer::builder(address).queue("orders").on("order.placed", place).build()?;
//! let summary = consumer.run(CancellationToken::new()).await?;
//! println!("{} handled", summary.counts.handled);
//! # Ok(()) }
//! ```
//!
//! A message travels **decode → order → admit → handle → remember → settle**: start reading at `pipeline.rs`, a state
//! machine without a clock or a socket. `subscription.rs` is the loop around it, `work.rs` runs handlers and copies,
//! `consumer.rs` subscribes again after a loss. Guarantees 3 to 9 of `ARCHITECTURE.md`.

mod budget;
mod builder;
mod consumer;
mod context;
mod copies;
mod counts;
pub mod dead_letters;
mod error;
mod extract;
#[cfg(all(doctest, feature = "sqlite"))]
mod guarantee_pages;
mod handled_log;
mod handler;
mod health;
mod held;
mod link;
mod lookout;
mod on_error;
mod order;
mod pipeline;
mod processing;
#[cfg(feature = "cli")]
pub mod program;
mod reply;
#[cfg(feature = "metrics")]
mod reporting;
mod startup;
mod subscription;
mod telemetry;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod transaction;
mod work;

pub use bytes::Bytes;
#[cfg(feature = "metrics")]
pub use correio_broker_config::metrics;
pub use correio_broker_config::{
    Address, ConnectError, DeclareError, NodeAddress, Role, TlsError, TlsFile, TlsSettings, Topology, WorkQueue,
};
pub use correio_guarantees::{
    Admission, BreakerLimits, Claim, Failure, Fence, GapPolicy, HandledId, InvalidSchedule, RetrySchedule, Ruling,
    Standing, Verdict,
};
pub use correio_message::{
    DeadReason, Headers, InvalidAddress, Json, Key, Message, MessageId, Original, ReplyError, Sequence, ShortText,
};
/// What a handler writes with in its [`Transaction`].
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sqlx;
pub use tokio_util::sync::CancellationToken;

pub use builder::{BuildError, ConsumerBuilder};
pub use consumer::Consumer;
pub use context::Context;
pub use counts::{Counts, Ended, Summary, Tally};
pub use error::ConsumeError;
pub use extract::FromMessage;
pub use handled_log::{HandledLog, LogError, LogFuture, MemoryLog};
#[cfg(feature = "postgres")]
pub use handled_log::{PostgresLog, PostgresLogBuilder};
#[cfg(feature = "sqlite")]
pub use handled_log::{SqliteLog, SqliteLogBuilder};
pub use handler::{BoxError, Handler, Handling};
pub use health::{Health, HealthWatch};
pub use on_error::{OnError, RuledError};
pub use processing::{Acknowledgement, Deduplication, Processing};
pub use reply::{Answer, IntoAnswer, Reply};
pub use startup::Startup;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use transaction::Transaction;
