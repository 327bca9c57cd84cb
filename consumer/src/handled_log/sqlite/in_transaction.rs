//! Entries in the transactions of handlers, on the connection that writes.

use correio_guarantees::{Admission, HandledId};
use sqlx::{SqliteConnection, Transaction, sqlite::Sqlite};

use super::{BEGIN_FULL, SqliteLog, entries, entries::Batch};
use crate::handled_log::{
    in_transaction::{Answer, Connection, InTransaction},
    stored::{Source, source},
};

impl InTransaction for SqliteLog {
    type Database = Sqlite;

    fn begin(&self) -> Answer<'_, Transaction<'static, Sqlite>> {
        Box::pin(self.noting(self.begin_numbered()))
    }

    fn enter<'a>(&'a self, connection: &'a mut Connection<Self>, ids: &'a [HandledId]) -> Answer<'a, Vec<Admission>> {
        Box::pin(self.noting(async {
            let batch = self.batch_inside(connection, ids).await?;
            entries::enter(connection, &batch, self.horizon()).await
        }))
    }

    fn take_out<'a>(&'a self, connection: &'a mut Connection<Self>, ids: &'a [HandledId]) -> Answer<'a, ()> {
        Box::pin(self.noting(async {
            let batch = self.batch_inside(connection, ids).await?;
            entries::take_out(connection, &batch).await
        }))
    }

    fn run<'a>(connection: &'a mut Connection<Self>, statements: &'static str) -> Answer<'a, ()> {
        Box::pin(async move {
            sqlx::raw_sql(statements).execute(connection).await?;
            Ok(())
        })
    }

    fn is_there(&self) -> Answer<'_, ()> {
        Box::pin(async { sqlx::query("SELECT 1").execute(&self.users).await.map(drop) })
    }

    fn is_away(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_code_of_file(&code)),
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
            _ => false,
        }
    }

    fn is_away_code(code: &str) -> bool {
        is_code_of_file(code)
    }
}

impl SqliteLog {
    async fn begin_numbered(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        let mut connection = self.file.writer().await?;
        let wanted = std::mem::take(&mut *self.wanted());
        for source in wanted {
            let number = entries::number(&mut connection, &source).await?;
            self.sources.learn(source, number);
        }
        drop(connection);
        self.file.begin(BEGIN_FULL).await
    }

    /// A source that has no number yet gets one as a part of the transaction. It is not remembered, as the transaction may be
    /// rolled back and the number become another's; the next transaction begins with giving it one for good.
    async fn batch_inside(&self, connection: &mut SqliteConnection, ids: &[HandledId]) -> Result<Batch, sqlx::Error> {
        let mut inside = Vec::new();
        for source in self.sources.missing(ids.iter()) {
            let number = entries::number(connection, &source).await?;
            inside.push((source.clone(), number));
            self.wanted().insert(source);
        }
        let number = |id: &HandledId| self.sources.number(id).or_else(|| number_in(&inside, id));
        Batch::new(ids.iter().map(|id| (id, None)), number).ok_or(sqlx::Error::RowNotFound)
    }

    async fn noting<T>(&self, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        answer.await.inspect_err(|_| self.on_error())
    }
}

fn number_in(inside: &[(Source, i64)], id: &HandledId) -> Option<i64> {
    let wanted = source(id);
    inside.iter().find(|(source, _)| *source == wanted).map(|(_, number)| *number)
}

/// Another process has the file. Waiting for it was bounded.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().and_then(|code| primary(&code)).is_some_and(|code| matches!(code, BUSY | LOCKED))
}

pub(super) fn is_code_of_file(code: &str) -> bool {
    let Some(code) = primary(code) else { return false };
    matches!(code, BUSY | LOCKED | NOMEM | READONLY | IOERR | FULL | CANTOPEN | PROTOCOL)
}

/// An extended code has its primary one in its low byte.
fn primary(code: &str) -> Option<i32> {
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

// https://www.sqlite.org/rescode.html
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NOMEM: i32 = 7;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const PROTOCOL: i32 = 15;
