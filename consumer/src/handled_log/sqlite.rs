//! The log in a file: SQLite.

mod entries;
mod file;
mod in_transaction;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use correio_guarantees::{Admission, Claim, Standing};
use sqlx::{Connection as _, SqliteConnection, SqlitePool};

use super::{
    HandledLog, LogError, LogFuture, cleaning, micros,
    stored::{Source, Sources},
};
use entries::{Batch, Horizon};
use file::File;

/// The log in a file: it outlives the process, and serves several processes on one machine.
///
/// What was handled is on the disk (`synchronous=FULL`) before its message is acknowledged, and survives a power cut. A
/// claim survives the death of the process, and not always that of the machine: the message is then fresh again, which it would
/// be anyway when the lease is over.
///
/// Each batch costs one wait for the disk, and one writer writes at a time: a handler's open transaction makes claims wait, of
/// all processes that share the file. Leases and retention go by this machine's clock. The file has to be on a local
/// disk: SQLite's write-ahead log does not work over a network file system.
///
/// It grows with what is handled within the retention, about 90 bytes an id, and keeps its size when ids are removed: the room is
/// used again. One that is deleted or replaced while it is open is opened anew; what only the old one knew is forgotten.
pub struct SqliteLog {
    path: PathBuf,
    retention: Duration,
    file: File,
    users: SqlitePool,
    sources: Arc<Sources>,
    /// Those that a transaction met without a number that is committed: they get one before the next.
    wanted: Mutex<HashSet<Source>>,
    clock: Clock,
}

/// How a [`SqliteLog`] is to be.
#[derive(Clone, Debug)]
pub struct SqliteLogBuilder {
    path: PathBuf,
    retention: Duration,
}

impl SqliteLog {
    /// Opens a log in this file and makes the file and the tables if they are not there; each id is remembered for seven days.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the file cannot be opened or written, is no SQLite database, or has tables of a newer version.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: at most a file with empty tables is left.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, LogError> {
        Self::builder(path).open().await
    }

    /// Opens a log with other settings.
    #[must_use]
    pub fn builder(path: impl AsRef<Path>) -> SqliteLogBuilder {
        SqliteLogBuilder { path: path.as_ref().to_owned(), retention: super::DURABLE_RETENTION }
    }

    /// Connections to the same file, for an application's own tables. Who writes through them waits while a handler's transaction
    /// is open, and the log waits for who writes through them: at most five seconds each.
    #[must_use]
    pub fn pool(&self) -> &SqlitePool {
        &self.users
    }

    async fn admit_now(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Admission>, sqlx::Error> {
        let mut connection = self.file.writer().await?;
        let batch = self.batch(&mut connection, claims).await?;
        let mut transaction = connection.begin_with(BEGIN_NORMAL).await?;
        let horizon = self.horizon();
        let until = horizon.now.saturating_add(micros(lease));
        let answers = entries::admit(&mut transaction, &batch, until, horizon).await?;
        transaction.commit().await?;
        Ok(answers)
    }

    async fn remember(&self, claims: &[Claim]) -> Result<Vec<Standing>, sqlx::Error> {
        let mut connection = self.file.writer().await?;
        let batch = self.batch(&mut connection, claims).await?;
        let mut transaction = connection.begin_with(BEGIN_FULL).await?;
        let standings = entries::remember(&mut transaction, &batch, self.horizon()).await?;
        transaction.commit().await?;
        Ok(standings)
    }

    async fn abandon(&self, claims: &[Claim]) -> Result<(), sqlx::Error> {
        let mut connection = self.file.writer().await?;
        let batch = self.batch(&mut connection, claims).await?;
        let mut transaction = connection.begin_with(BEGIN_NORMAL).await?;
        entries::abandon(&mut transaction, &batch).await?;
        transaction.commit().await
    }

    async fn remove_oldest(&self) -> Result<Duration, sqlx::Error> {
        let mut connection = self.file.writer().await?;
        let horizon = self.horizon();
        // Nothing is written, and nobody kept waiting, when nothing is old.
        if !entries::is_oldest_past(&mut connection, horizon).await? {
            return Ok(cleaning::pause(0, self.retention));
        }
        let mut transaction = connection.begin_with(BEGIN_NORMAL).await?;
        let removed = entries::remove_oldest(&mut transaction, horizon).await?;
        transaction.commit().await?;
        Ok(cleaning::pause(removed, self.retention))
    }

    async fn batch(&self, connection: &mut SqliteConnection, claims: &[Claim]) -> Result<Batch, sqlx::Error> {
        for source in self.sources.missing(claims.iter().map(|claim| &claim.id)) {
            let number = entries::number(connection, &source).await?;
            self.sources.learn(source, number);
        }
        let rows = claims.iter().map(|claim| (&claim.id, Some(claim.fence)));
        Batch::new(rows, |id| self.sources.number(id)).ok_or(sqlx::Error::RowNotFound)
    }

    fn horizon(&self) -> Horizon {
        let now = (self.clock)();
        Horizon { now, past: now.saturating_sub(micros(self.retention)) }
    }

    async fn noted<T>(
        &self,
        step: &'static str,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, LogError> {
        answer.await.map_err(|error| {
            self.on_error();
            LogError { step, cause: error.into() }
        })
    }

    fn wanted(&self) -> MutexGuard<'_, HashSet<Source>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_error(&self) {
        self.file.on_error();
        self.sources.forget();
    }
}

impl SqliteLogBuilder {
    /// How long an id is remembered at least. It has to exceed the longest retry and replay.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Opens the log.
    ///
    /// # Errors
    ///
    /// As [`SqliteLog::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`SqliteLog::open`].
    pub async fn open(self) -> Result<SqliteLog, LogError> {
        self.open_with(Box::new(system_clock)).await
    }

    async fn open_with(self, clock: Clock) -> Result<SqliteLog, LogError> {
        let sources = Arc::new(Sources::default());
        let of_connection = Arc::clone(&sources);
        let log = SqliteLog {
            file: File::new(&self.path, move || of_connection.forget()),
            users: file::users_pool(&self.path),
            path: self.path,
            retention: self.retention,
            sources,
            wanted: Mutex::default(),
            clock,
        };
        log.file.open().await.map_err(|error| LogError {
            step: "opening it",
            cause: format!("{}: {error}", log.path.display()).into(),
        })?;
        Ok(log)
    }
}

impl HandledLog for SqliteLog {
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

impl fmt::Debug for SqliteLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLog")
            .field("path", &self.path)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// Microseconds since 1970.
type Clock = Box<dyn Fn() -> i64 + Send + Sync>;

fn system_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

// The first is for claims: the process may die, and the file knows them.
const BEGIN_NORMAL: &str = "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE";
const BEGIN_FULL: &str = "PRAGMA synchronous = FULL; BEGIN IMMEDIATE";
