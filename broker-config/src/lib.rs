//! The shape of the broker as a value, and the supervised connection to it.
//!
//! - [`Topology`] says which exchanges, queues and bindings are to be there; a [`WorkQueue`] expands to a queue with
//!   its retry and parking queues.
//! - [`Address`] says where the broker is and as whom, and prints no password.
//! - [`Connections`] leases channels on supervised connections; [`Backoff`] says when to try again;
//!   [`ConnectError`] and [`ReplyCause`] say what went wrong and what to do.

mod address;
mod address_error;
mod address_source;
mod amqp_query;
mod amqp_url;
mod backoff;
mod check;
#[cfg(feature = "cli")]
pub mod cli;
mod connect_error;
mod connection;
mod declare;
pub mod definitions;
mod delay;
mod dial;
mod exchange;
mod frames;
mod item;
#[cfg(feature = "metrics")]
pub mod metrics;
mod node_address;
mod own_queue;
mod password;
mod patience;
mod percent;
mod queue;
mod reactor;
mod reply;
mod server_version;
mod tls;
#[cfg(feature = "tls")]
mod tls_client;
mod tls_error;
mod topology;
mod transport;
mod upkeep;
#[doc(hidden)]
pub mod wire;
mod work_queue;

pub use address::Address;
pub use address_error::AddressError;
pub use address_source::{Role, Source};
pub use amqp_url::UrlError;
pub use backoff::Backoff;
pub use check::{CheckError, Checked, Finding, check};
pub use connect_error::{ConnectError, Step};
pub use connection::{ConnectionSettings, Connections, LeasedChannel, Purpose, host_name};
pub use declare::{DeclareError, apply};
pub use delay::{InvalidDelay, delay_name, parse_delay};
pub use exchange::{ExchangeKind, kind_of};
pub use item::Item;
pub use node_address::NodeAddress;
pub use own_queue::{OwnQueue, OwnQueueError};
pub use patience::Patience;
pub use queue::{Argument, DeadLettering, Queue};
pub use reply::{ReplyCause, ReplyScope};
pub use server_version::ServerVersion;
pub use tls::TlsSettings;
pub use tls_error::{TlsError, TlsFile};
pub use topology::{Binding, Topology};
pub use upkeep::{Presence, delete, delete_all_but_letters, ensure, renew};
pub use work_queue::{
    DEFAULT_RETRY_DELAYS, RetryQueue, WorkQueue, WorkQueueError, WorkQueueKind, longest_wait, parking_queue_name,
    retry_queue_name,
};
