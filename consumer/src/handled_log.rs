//! The memory of what was handled: what a second delivery is recognised by.
//!
//! Two steps stand around each handling, a claim and a remembering. Remembering first would lose messages: one
//! whose handler failed would look like a duplicate when it comes back. Remembering after the acknowledgement
//! would repeat work: a crash in between forgets it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use correio_guarantees::{Admission, Claim, Failure, HandledId, Standing};

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod batch;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod cleaning;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod in_transaction;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod stored;

pub use memory::MemoryLog;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresLog, PostgresLogBuilder};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteLog, SqliteLogBuilder};

use crate::{context::Context, handler::AnyHandler, reply::Answer, work::Attempts};

/// Where handled ids are kept. One log may serve several consumers, in several processes; subscription and origin keep
/// what they handle apart.
///
/// The pipeline calls with whole batches and has at most one call running, so that a durable log can commit a batch at
/// once. A call that ended with an error, or was given up, may be made again with the same arguments: it must then come to the
/// same.
///
/// A consumer that is dropped gives up the claims it knows of. One whose process dies cannot: its claims run out by
/// their lease, and who asks next takes them over.
pub trait HandledLog: Send + Sync + 'static {
    /// Asks for each of these claims whether it is to be: whether to handle the message now. One that is
    /// [`Fresh`](Admission::Fresh) is to be ended by [`on_handled`](Self::on_handled) or
    /// [`on_abandoned`](Self::on_abandoned) within the lease; after that it may be taken over. The ids of one call differ from
    /// each other; a claim that is there already, by its fence, is fresh.
    fn admit<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> LogFuture<'a, Vec<Admission>>;

    /// The work of these claims is done. When this ends with `Ok`, those that [stood](Standing::Stood) are remembered as
    /// durably as the log promises; only then are they acknowledged. Nothing is remembered for one that was taken over.
    fn on_handled<'a>(&'a self, claims: &'a [Claim]) -> LogFuture<'a, Vec<Standing>>;

    /// The work of these claims was not done: the next delivery is fresh again. One that was taken over stays with who has
    /// it now.
    fn on_abandoned<'a>(&'a self, claims: &'a [Claim]) -> LogFuture<'a, ()>;

    /// How long an id is remembered at least, if nothing pushes it out earlier.
    fn retention(&self) -> Duration;

    /// How many ids were forgotten before their retention was over, because there was no room: each may be handled twice.
    fn forgotten_early(&self) -> u64 {
        0
    }

    /// Removes some of what is older than the retention, in a step that is small enough not to be felt, and says how
    /// long to wait before the next one.
    fn clean_up(&self) -> LogFuture<'_, Duration> {
        Box::pin(std::future::ready(Ok(Duration::from_secs(60 * 60))))
    }
}

/// What handles messages in transactions of the database in which they are remembered, too.
pub(crate) trait Transactions: Send + Sync + 'static {
    /// The database's name.
    fn database(&self) -> &'static str;

    /// How long a handler may leave its transaction idle before it is taken from it.
    fn abandoned_after(&self) -> Option<Duration>;

    /// Handles a batch in one transaction, one message after another. When it ends with an error nothing has
    /// happened, or nobody knows: the log tells when the batch is tried again.
    fn run(self: Arc<Self>, batch: Vec<Piece>, attempts: Attempts) -> LogFuture<'static, Vec<PieceEnd>>;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl<L: in_transaction::InTransaction> Transactions for L {
    fn database(&self) -> &'static str {
        <L::Database as sqlx::Database>::NAME
    }

    fn abandoned_after(&self) -> Option<Duration> {
        in_transaction::InTransaction::abandoned_after(self)
    }

    fn run(self: Arc<Self>, batch: Vec<Piece>, attempts: Attempts) -> LogFuture<'static, Vec<PieceEnd>> {
        Box::pin(batch::handle(self, batch, attempts, batch::LONG_ENOUGH))
    }
}

/// A message that is to be handled in a transaction.
#[derive(Clone)]
#[cfg_attr(not(any(feature = "sqlite", feature = "postgres")), expect(dead_code, reason = "no log has transactions"))]
pub(crate) struct Piece {
    /// `None`: nobody can tell a second copy of it.
    pub(crate) id: Option<HandledId>,
    pub(crate) handler: Arc<dyn AnyHandler>,
    pub(crate) context: Context,
}

/// What became of it.
#[cfg_attr(not(any(feature = "sqlite", feature = "postgres")), expect(dead_code, reason = "no log has transactions"))]
#[derive(Debug)]
pub(crate) enum PieceEnd {
    /// Handled, effect and id committed; or failed, its effect undone.
    Ended(Result<Answer, Failure>),
    AlreadyHandled,
    InFlight,
    /// What its handler needed was away, and the transaction is not: no fault of the message.
    Away(String),
    /// The transaction was long enough without it.
    NotBegun,
}

/// What a [`HandledLog`] answers, later.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LogError>> + Send + 'a>>;

/// The log did not answer. The messages concerned stay unsettled and are asked for again.
#[derive(Debug, thiserror::Error)]
#[error("the log of handled messages: {step}: {cause}")]
pub struct LogError {
    /// What was asked of it.
    pub step: &'static str,
    /// Why it could not.
    #[source]
    pub cause: crate::BoxError,
}

/// How long a durable log remembers unless it is told otherwise: a weekend and a few days of repair.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const DURABLE_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Tables of a later version are left alone.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn supported(version: i64) -> Result<(), sqlx::Error> {
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    let refusal: crate::BoxError = format!(
        "its tables have version {version} and this program knows version {SCHEMA_VERSION}: use a newer Correio, or another \
         database"
    )
    .into();
    Err(sqlx::Error::Configuration(refusal))
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
const SCHEMA_VERSION: i64 = 1;
