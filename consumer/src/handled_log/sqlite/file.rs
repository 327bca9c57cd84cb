//! The file: how it is opened, what its tables are, and how it is noticed that it is another one.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    Connection as _, SqliteConnection, SqlitePool, Transaction,
    pool::PoolConnection,
    sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::in_transaction;
use crate::handled_log::supported;

/// A database file with the one connection that writes handled ids to it.
///
/// One, because SQLite has one writer at a time: a pool's queue is fair, whereas SQLite's own waiting is by sleeping and trying
/// again, and that is left for other processes.
pub(super) struct File {
    writer: SqlitePool,
    state: Arc<State>,
}

impl File {
    pub(super) fn new(path: &Path, on_new_connection: impl Fn() + Send + Sync + 'static) -> Self {
        let state = Arc::new(State { path: path.to_owned(), ..State::default() });
        let (connected, asked) = (Arc::clone(&state), Arc::clone(&state));
        let on_new_connection = Arc::new(on_new_connection);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_DEADLINE)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(move |_, _| {
                connected.on_connected();
                on_new_connection();
                Box::pin(std::future::ready(Ok(())))
            })
            .before_acquire(move |connection, _| {
                // A transaction that SQLite itself has rolled back, because the disk is full, is still open for sqlx.
                let usable = !connection.is_in_transaction() && asked.is_trusted();
                Box::pin(std::future::ready(Ok(usable)))
            })
            .connect_lazy_with(options(path).pragma("cache_size", WRITER_CACHE));
        Self { writer, state }
    }

    /// The connection that writes, with the tables made.
    pub(super) async fn writer(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        if !self.state.has_tables.load(Ordering::Acquire) {
            make_tables(&mut connection).await?;
            self.state.has_tables.store(true, Ordering::Release);
        }
        Ok(connection)
    }

    /// Opens it now, so that what is wrong with it is said now.
    ///
    /// Two processes that make the same file at once: the change to a write-ahead log does not wait for the other one.
    pub(super) async fn open(&self) -> Result<(), sqlx::Error> {
        let deadline = Instant::now() + BUSY_DEADLINE;
        loop {
            match self.writer().await {
                Ok(_) => return Ok(()),
                Err(error) if in_transaction::is_busy(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A transaction on that connection.
    pub(super) async fn begin(&self, how: &'static str) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with(how).await
    }

    /// Something went wrong: the connection is opened anew, as it may be what is wrong.
    pub(super) fn on_error(&self) {
        self.state.doubted.store(true, Ordering::Release);
    }
}

/// For an application's own tables in the same file.
pub(super) fn users_pool(path: &Path) -> SqlitePool {
    SqlitePoolOptions::new().max_connections(4).acquire_timeout(ACQUIRE_DEADLINE).connect_lazy_with(options(path))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_DEADLINE)
}

#[derive(Default)]
struct State {
    path: PathBuf,
    doubted: AtomicBool,
    has_tables: AtomicBool,
    /// Which file the connection has open.
    opened: Mutex<Option<Identity>>,
}

impl State {
    fn on_connected(&self) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = identity(&self.path);
        self.has_tables.store(false, Ordering::Release);
        self.doubted.store(false, Ordering::Release);
    }

    /// A file that was deleted or replaced is still there for who has it open, and all that is written to it is lost.
    fn is_trusted(&self) -> bool {
        let opened = *self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        !self.doubted.load(Ordering::Acquire) && opened == identity(&self.path)
    }
}

type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    // An open file cannot be deleted there.
    path.exists().then_some((0, 0))
}

async fn make_tables(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    if let Some(version) = version(connection).await? {
        return supported(version);
    }
    // Two processes at once: the second one waits here, and finds them made.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn version(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    let (tables,): (i64,) = sqlx::query_as("SELECT count(*) FROM sqlite_schema WHERE name = 'correio_schema'")
        .fetch_one(&mut *connection)
        .await?;
    if tables == 0 {
        return Ok(None);
    }
    let version: Option<(i64,)> =
        sqlx::query_as("SELECT max(version) FROM correio_schema HAVING max(version) IS NOT NULL")
            .fetch_optional(connection)
            .await?;
    Ok(version.map(|(version,)| version))
}

/// `n` grows with each row: the oldest are found without another index. `at` is when it was handled, NULL while it is
/// claimed. Times are microseconds since 1970.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS correio_schema (version INTEGER NOT NULL PRIMARY KEY) STRICT;
    CREATE TABLE IF NOT EXISTS correio_sources (
        source INTEGER PRIMARY KEY,
        subscription TEXT NOT NULL,
        has_origin INTEGER NOT NULL,
        origin TEXT NOT NULL,
        UNIQUE (subscription, has_origin, origin)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS correio_handled (
        n INTEGER PRIMARY KEY,
        source INTEGER NOT NULL,
        id BLOB NOT NULL,
        fence INTEGER,
        lease_until INTEGER NOT NULL,
        at INTEGER,
        UNIQUE (source, id)
    ) STRICT;
    INSERT OR IGNORE INTO correio_schema (version) VALUES (1);
";

/// In kibibytes, hence negative: the pages that ids of now are written to, and the inner ones of a large index.
const WRITER_CACHE: &str = "-32768";
const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);
const BUSY_DEADLINE: Duration = Duration::from_secs(5);
