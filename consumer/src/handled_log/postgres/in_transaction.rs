//! Entries in the transactions of handlers.

use correio_guarantees::{Admission, HandledId};
use sqlx::{Transaction, postgres::Postgres};

use super::{PostgresLog, entries, entries::Batch};
use crate::handled_log::in_transaction::{Answer, Connection, InTransaction};

impl InTransaction for PostgresLog {
    type Database = Postgres;

    fn begin(&self) -> Answer<'_, Transaction<'static, Postgres>> {
        Box::pin(self.noting(self.server.begin(self.abandoned_after)))
    }

    fn enter<'a>(&'a self, connection: &'a mut Connection<Self>, ids: &'a [HandledId]) -> Answer<'a, Vec<Admission>> {
        Box::pin(self.noting(async {
            let batch = self.batch_of(ids).await?;
            entries::enter(connection, &batch, self.retention_micros()).await
        }))
    }

    fn take_out<'a>(&'a self, connection: &'a mut Connection<Self>, ids: &'a [HandledId]) -> Answer<'a, ()> {
        Box::pin(self.noting(async {
            let batch = self.batch_of(ids).await?;
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
        Box::pin(async { self.server.connection().await.map(drop) })
    }

    fn abandoned_after(&self) -> Option<std::time::Duration> {
        Some(self.abandoned_after)
    }

    fn is_away(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_code_of_server(&code)),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
            _ => false,
        }
    }

    fn is_away_code(code: &str) -> bool {
        is_code_of_server(code)
    }
}

impl PostgresLog {
    /// Sources get their numbers on another connection: a number that is given in a transaction makes all others wait who
    /// need the same.
    async fn batch_of(&self, ids: &[HandledId]) -> Result<Batch, sqlx::Error> {
        let missing = self.sources.missing(ids.iter());
        if !missing.is_empty() {
            let mut connection = self.server.connection().await?;
            self.number(&mut connection, missing).await?;
        }
        self.rows(ids.iter().map(|id| (id, None)))
    }
}

/// Whether an error with this SQLSTATE is the server's, or other transactions', and not the statement's.
fn is_code_of_server(code: &str) -> bool {
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    const CLASSES: [&str; 5] = [
        "08",  // the connection
        "28",  // the login: no statement can be at fault for it
        "53",  // no memory, disk, connections
        "57P", // shutting down, starting
        "58",  // its disk fails
    ];
    const CODES: [&str; 7] = [
        "40001", // a serialization failure
        "40P01", // a deadlock
        "55P03", // a lock that was not free in time
        "25006", // read-only: a standby, until it takes over
        "25P03", // ended for being idle
        "25P04", // ended for taking too long
        "3D000", // the database is not there
    ];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_told_from_a_statement_that_is_wrong() {
        for code in ["08006", "53100", "53300", "57P01", "57P03", "58030", "40001", "40P01", "28P01", "25P03"] {
            assert!(is_code_of_server(code), "{code}");
        }
        for code in ["23505", "23503", "42P01", "42601", "22P02", "57014", "P0001", "40002", "25P02", "42501"] {
            assert!(!is_code_of_server(code), "{code}");
        }
        assert!(PostgresLog::is_away(&std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()));
        assert!(PostgresLog::is_away(&sqlx::Error::PoolTimedOut));
        assert!(!PostgresLog::is_away(&sqlx::Error::RowNotFound));
    }
}
