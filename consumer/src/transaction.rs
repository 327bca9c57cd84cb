//! The transaction that a handler shares with the log of handled messages.

use std::{
    any::Any,
    error::Error,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex as StdMutex, PoisonError},
};

use sqlx::{Database, error::DatabaseError};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};

use crate::handler::BoxError;

/// The open transaction in which this message is remembered as handled: what a handler writes in it is there exactly once.
///
/// A handler asks for it as its last argument, and uses it as sqlx's own: `query.execute(&mut *transaction)`. The consumer
/// commits when the handler returned `Ok(())`, a [`Reply`](crate::Reply), [`Verdict::Done`](crate::Verdict::Done) or
/// [`Verdict::Drop`](crate::Verdict::Drop), and only then acknowledges the message; after an error, a panic, a missed deadline or
/// another verdict all that the handler wrote is undone. Messages that are there together share one commit, with a
/// savepoint each, so that one that fails does not undo the others: they are handled one after another, and what one wrote the
/// next one sees.
///
/// Needs a log in the same database: [`SqliteLog`](crate::SqliteLog) for `Transaction<Sqlite>`,
/// [`PostgresLog`](crate::PostgresLog) for `Transaction<Postgres>`; without it the consumer is not built.
///
/// It has to be dropped before the handler ends, and neither `COMMIT` nor `ROLLBACK` are the handler's to say. What it does
/// outside of this transaction (another connection, a web service) is at least once, as ever.
pub struct Transaction<DB: Database>(Taken<DB>);

impl<DB: Database> Deref for Transaction<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.0
    }
}

impl<DB: Database> DerefMut for Transaction<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.0
    }
}

impl<DB: Database> std::fmt::Debug for Transaction<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction<{}>", DB::NAME)
    }
}

/// A transaction that somebody uses.
pub(crate) type Taken<DB> =
    OwnedMappedMutexGuard<Option<sqlx::Transaction<'static, DB>>, sqlx::Transaction<'static, DB>>;

/// A transaction between the handlers that use it in turn.
pub(crate) struct Slot<DB: Database> {
    /// `None` when its batch is over.
    transaction: Arc<Mutex<Option<sqlx::Transaction<'static, DB>>>>,
    is_away: fn(&sqlx::Error) -> bool,
    is_away_code: fn(&str) -> bool,
    /// What a handler met that is the database's fault and not its message's.
    away: StdMutex<Option<String>>,
}

impl<DB: Database> Slot<DB> {
    pub(crate) fn new(
        transaction: sqlx::Transaction<'static, DB>,
        is_away: fn(&sqlx::Error) -> bool,
        is_away_code: fn(&str) -> bool,
    ) -> Self {
        Self { transaction: Arc::new(Mutex::new(Some(transaction))), is_away, is_away_code, away: StdMutex::new(None) }
    }

    /// The transaction, to use it; `None` while somebody else does.
    pub(crate) fn take(&self) -> Option<Taken<DB>> {
        let transaction = Arc::clone(&self.transaction).try_lock_owned().ok()?;
        OwnedMutexGuard::try_map(transaction, Option::as_mut).ok()
    }

    /// The transaction, to end it: nobody gets it from here any more. `None` while somebody uses it.
    pub(crate) fn take_out(&self) -> Option<sqlx::Transaction<'static, DB>> {
        self.transaction.try_lock().ok()?.take()
    }

    /// What the last handler met that is the database's fault.
    pub(crate) fn away(&self) -> Option<String> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_away(&self, error: &(dyn Error + 'static)) -> bool {
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            return (self.is_away)(error);
        }
        // An error that passes sqlx's on as its own (`transparent`) shows only what is below it.
        error
            .downcast_ref::<Box<dyn DatabaseError>>()
            .and_then(|error| error.code())
            .is_some_and(|code| (self.is_away_code)(&code))
    }
}

/// A slot whose database is forgotten, so that it stands in any context.
pub(crate) trait AnySlot: Send + Sync {
    fn as_any(&self) -> &dyn Any;

    /// Takes notice of a handler's error.
    fn on_error(&self, error: &(dyn Error + 'static));
}

impl<DB: Database> AnySlot for Slot<DB> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn on_error(&self, error: &(dyn Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            if self.is_away(error) {
                let why = crate::handler::with_sources(error);
                *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                return;
            }
            next = error.source();
        }
    }
}

/// The transaction of this context.
pub(crate) fn of<DB: Database>(slot: Option<&Arc<dyn AnySlot>>) -> Result<Transaction<DB>, BoxError> {
    let slot = slot.and_then(|slot| slot.as_any().downcast_ref::<Slot<DB>>());
    // A consumer whose log has no such transactions is not built.
    let slot = slot.ok_or_else(|| format!("no transaction of {} here", DB::NAME))?;
    let taken = slot.take().ok_or("the transaction is in use: an earlier handler has not given it back")?;
    Ok(Transaction(taken))
}
