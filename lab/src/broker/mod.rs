//! A private RabbitMQ node: started here, killed here, nothing left behind.
//!
//! The lab never reads `AMQP_URL` and never touches a broker that it did not start: its faults need a node that may
//! be killed. A test takes the broker, or the brokers, that the environment names:
//!
//! ```no_run
//! # async fn example() {
//! // Once on each broker named in CORREIO_BROKERS, on the node that all tests of this process share.
//! correio_lab::broker::for_each(async |node| {
//!     node.declare_queue("orders", correio_lab::broker::QueueKind::Quorum).await.expect("declared");
//!     assert_eq!(node.queue_depth("orders").await.expect("depth"), 0);
//! })
//! .await;
//! # }
//! ```
//!
//! Start reading at [`Node`].

mod container;
mod debian;
mod discover;
mod error;
mod foreground;
mod hello;
mod named;
mod node;
mod node_faults;
mod node_files;
pub(crate) mod place;
mod ports;
mod process;
mod queues;
pub(crate) mod run;
mod server;
mod tls_listener;
mod watchdog;

pub use error::LabError;
pub use foreground::{BrokerArgs, run_in_foreground};
pub use named::{Broker, Brokers, for_each, for_each_own, for_each_own_in_turn, shared_node};
pub use node::{Login, Node, NodeOptions};
pub(crate) use ports::free_port;
pub use queues::QueueKind;
pub use server::Server;
pub(crate) use server::find;
pub use tls_listener::TlsListener;
pub(crate) use watchdog::{MARK, ONLY_WHILE_WATCHED, Watchdog};
