//! The log in a server that many machines share: PostgreSQL.

mod entries;
mod in_transaction;
mod server;
mod url;

use std::{fmt, time::Duration};

use correio_guarantees::{Admission, Claim, HandledId, Standing};
use sqlx::{PgPool, pool::PoolConnection, postgres::Postgres};

use super::{
    HandledLog, LogError, LogFuture, cleaning, micros,
    stored::{Source, Sources},
};
use entries::Batch;
use server::Server;

/// The log in PostgreSQL (12 or later): it serves consumers on many machines.
///
/// What was handled is committed as durably as the server commits (`synchronous_commit`, at least `on`) before its message is
/// acknowledged. A claim is not waited for (`off`): one that a crashed server forgets makes the message fresh again, which it
/// would be anyway when the lease is over. Leases and retention go by the server's clock, so that machines need not agree.
///
/// Each batch costs one round trip. Whoever asks for a message that is in another's open transaction is told that it is in
/// flight, and does not wait. For this a transaction holds an advisory lock for each of its messages: with very many consumers
/// and large batches `max_locks_per_transaction` of the server may have to grow.
///
/// Connections are made as libpq does: what the URL leaves out comes from `PGHOST`, `PGUSER`, `PGPASSWORD`, the password file and
/// the like. After the server was away the log works again by itself.
pub struct PostgresLog {
    retention: Duration,
    abandoned_after: Duration,
    server: Server,
    sources: Sources,
}

/// How a [`PostgresLog`] is to be.
#[derive(Clone)]
pub struct PostgresLogBuilder {
    url: String,
    retention: Duration,
    abandoned_after: Duration,
}

impl PostgresLog {
    /// Connects, and makes the tables if they are not there; each id is remembered for seven days.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the URL is none or has a parameter that is not known, the server is not reached in five seconds or refuses,
    /// or its tables have a newer version.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: at most empty tables are left.
    pub async fn connect(url: impl Into<String>) -> Result<Self, LogError> {
        Self::builder(url).connect().await
    }

    /// Connects with other settings.
    #[must_use]
    pub fn builder(url: impl Into<String>) -> PostgresLogBuilder {
        PostgresLogBuilder {
            url: url.into(),
            retention: super::DURABLE_RETENTION,
            abandoned_after: Duration::from_secs(90),
        }
    }

    /// Connections to the same database, for an application's own tables. Handlers' transactions are taken from them too.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.server.users()
    }

    async fn admit_now(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Admission>, sqlx::Error> {
        let mut connection = self.server.connection().await?;
        let batch = self.batch(&mut connection, claims).await?;
        entries::admit(&mut connection, &batch, micros(lease), self.retention_micros()).await
    }

    async fn remember(&self, claims: &[Claim]) -> Result<Vec<Standing>, sqlx::Error> {
        let mut connection = self.server.connection().await?;
        let batch = self.batch(&mut connection, claims).await?;
        entries::remember(&mut connection, &batch, self.retention_micros()).await
    }

    async fn abandon(&self, claims: &[Claim]) -> Result<(), sqlx::Error> {
        let mut connection = self.server.connection().await?;
        let batch = self.batch(&mut connection, claims).await?;
        entries::abandon(&mut connection, &batch).await
    }

    async fn remove_oldest(&self) -> Result<Duration, sqlx::Error> {
        let mut connection = self.server.connection().await?;
        let removed = entries::remove_oldest(&mut connection, self.retention_micros()).await?;
        Ok(cleaning::pause(removed, self.retention))
    }

    async fn batch(&self, connection: &mut PoolConnection<Postgres>, claims: &[Claim]) -> Result<Batch, sqlx::Error> {
        let missing = self.sources.missing(claims.iter().map(|claim| &claim.id));
        self.number(connection, missing).await?;
        self.rows(claims.iter().map(|claim| (&claim.id, Some(claim.fence))))
    }

    async fn number(
        &self,
        connection: &mut PoolConnection<Postgres>,
        missing: impl IntoIterator<Item = Source>,
    ) -> Result<(), sqlx::Error> {
        for source in missing {
            let number = entries::number(connection, &source).await?;
            self.sources.learn(source, number);
        }
        Ok(())
    }

    fn rows<'a>(
        &self,
        ids: impl Iterator<Item = (&'a HandledId, Option<correio_guarantees::Fence>)>,
    ) -> Result<Batch, sqlx::Error> {
        // Another task may have met an error meanwhile, and the numbers are forgotten: asked again it works.
        Batch::new(ids, |id| self.sources.number(id)).ok_or(sqlx::Error::RowNotFound)
    }

    fn retention_micros(&self) -> i64 {
        micros(self.retention)
    }

    async fn noted<T>(
        &self,
        step: &'static str,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, LogError> {
        self.noting(answer).await.map_err(|error| LogError { step, cause: error.into() })
    }

    /// In bounded time; after an error nothing is taken for granted.
    async fn noting<T>(&self, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        server::in_time(server::CALL_DEADLINE, answer).await.inspect_err(|error| {
            self.sources.forget();
            self.server.on_error(error);
        })
    }
}

impl PostgresLogBuilder {
    /// How long an id is remembered at least. It has to exceed the longest retry and replay.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// How long a handlers' transaction may be idle before the server ends it: its consumer is taken for dead, and what it
    /// commits late fails. 90 seconds, unless told otherwise; it has to exceed the handler deadline.
    #[must_use]
    pub fn abandoned_after(mut self, abandoned_after: Duration) -> Self {
        self.abandoned_after = abandoned_after;
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// As [`PostgresLog::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`PostgresLog::connect`].
    pub async fn connect(self) -> Result<PostgresLog, LogError> {
        let opened = async {
            let server = Server::new(url::options(&self.url)?);
            server::in_time(server::CALL_DEADLINE, server.open()).await?;
            Ok::<_, sqlx::Error>(server)
        };
        let server = opened.await.map_err(|error| LogError { step: "connecting", cause: error.into() })?;
        Ok(PostgresLog {
            retention: self.retention,
            abandoned_after: self.abandoned_after,
            server,
            sources: Sources::default(),
        })
    }
}

impl HandledLog for PostgresLog {
    fn admit<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> LogFuture<'a, Vec<Admission>> {
        Box::pin(self.noted("claiming", self.admit_now(claims, lease)))
    }

    fn on_handled<'a>(&'a self, claims: &'a [Claim]) -> LogFuture<'a, Vec<Standing>> {
        Box::pin(self.noted("remembering", self.remember(claims)))
    }

    fn on_abandoned<'a>(&'a self, claims: &'a [Claim]) -> LogFuture<'a, ()> {
        Box::pin(self.noted("giving a claim up", self.abandon(claims)))
    }

    fn retention(&self) -> Duration {
        self.retention
    }

    fn clean_up(&self) -> LogFuture<'_, Duration> {
        Box::pin(self.noted("removing what is old", self.remove_oldest()))
    }
}

impl fmt::Debug for PostgresLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the pools: sqlx shows the password.
        f.debug_struct("PostgresLog")
            .field("server", &self.server)
            .field("retention", &self.retention)
            .field("abandoned_after", &self.abandoned_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PostgresLogBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLogBuilder")
            .field("url", &"***")
            .field("retention", &self.retention)
            .field("abandoned_after", &self.abandoned_after)
            .finish()
    }
}
