//! Faults on demand: a TCP proxy between a program and a broker, told at run time what to do to the bytes.
//!
//! It knows two grains. Of bytes it can stall, delay, swallow a direction and cut. Of AMQP frames it can lose exactly the
//! publishes from some message on, or exactly the confirms, and count both, so that a lesson's damage is certain and not a matter of
//! timing.
//!
//! ```no_run
//! # async fn example(broker: std::net::SocketAddr) -> std::io::Result<()> {
//! use correio_lab::faults::{Ending, Proxy};
//! let proxy = Proxy::start(broker).await?;
//! // … a producer publishes through proxy.address() …
//! proxy.lose_confirms(true);
//! // … and publishes on: the broker takes everything, the producer hears nothing …
//! proxy.cut(Ending::Reset).await;
//! proxy.pass();
//! proxy.stop().await;
//! # Ok(())
//! # }
//! ```

mod connection;
mod counts;
mod frames;
mod proxy;
mod rules;

pub use counts::Counts;
pub use proxy::Proxy;
pub use rules::{Direction, Ending, Which};
