//! A private PostgreSQL server, for tests of what is to outlast a crash: started here, killed here, nothing left behind.
//!
//! ```no_run
//! # async fn example() -> Result<(), correio_lab::postgres::PostgresError> {
//! let server = correio_lab::postgres::Postgres::start().await?;
//! // … a client connects to server.url() and commits …
//! server.kill().await?;
//! server.start_again().await?;
//! // What was committed is there, at the same URL.
//! server.close().await
//! # }
//! ```
//!
//! The lab has no database client: it starts and ends servers. Start reading at [`Postgres`].

mod account;
mod data;
mod error;
mod hello;
mod process;
mod programs;
mod server;

pub use error::PostgresError;
pub use programs::PostgresPrograms;
pub use server::Postgres;
