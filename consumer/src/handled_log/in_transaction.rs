//! What a log in a database can do inside a transaction that a batch of handlers shares with it.

use std::{future::Future, pin::Pin, time::Duration};

use correio_guarantees::{Admission, HandledId};
use sqlx::{Database, Transaction};

/// A log whose entries can be made in the transactions of handlers: the entry and the effect are there together or not at
/// all.
pub(crate) trait InTransaction: Send + Sync + 'static {
    type Database: Database;

    /// Begins a transaction, in bounded time. One that is left alone (its process was stopped in its tracks, its network is
    /// gone) is ended by the server where there is one, and what is written in it later fails.
    fn begin(&self) -> Answer<'_, Transaction<'static, Self::Database>>;

    /// Enters these messages as handled, as a part of the transaction that is open on this connection, and says of each
    /// whether that was to be: [`Fresh`](Admission::Fresh), entered now; [`AlreadyHandled`](Admission::AlreadyHandled);
    /// [`InFlight`](Admission::InFlight), when another consumer has a claim on it that has not run out, or has it in an
    /// open transaction. Waits for nobody's transaction where the database can tell. The ids differ from each other.
    fn enter<'a>(&'a self, connection: &'a mut Connection<Self>, ids: &'a [HandledId]) -> Answer<'a, Vec<Admission>>;

    /// Takes entries of this transaction out again: these were not handled.
    fn take_out<'a>(&'a self, connection: &'a mut Connection<Self>, ids: &'a [HandledId]) -> Answer<'a, ()>;

    /// Runs statements without parameters and results, such as `SAVEPOINT message`.
    fn run<'a>(connection: &'a mut Connection<Self>, statements: &'static str) -> Answer<'a, ()>;

    /// Whether the database answers, apart from the transaction that is open.
    fn is_there(&self) -> Answer<'_, ()>;

    /// How long a transaction may be idle before the server ends it; `None` where nobody does.
    fn abandoned_after(&self) -> Option<Duration> {
        None
    }

    /// Whether an error is not the statement's, but the database's: away, shutting down, its disk full, its connections
    /// used up. Trying the same again later may work.
    fn is_away(error: &sqlx::Error) -> bool;

    /// The same of a code that the database answered with.
    fn is_away_code(code: &str) -> bool;
}

pub(crate) type Connection<L> = <<L as InTransaction>::Database as Database>::Connection;

pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'a>>;
