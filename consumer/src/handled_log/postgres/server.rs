//! The server: connections to it, its tables, and how it is noticed that it was away.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    Connection as _, PgConnection, PgPool, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, Postgres},
};
use tokio::time::timeout;

use super::PostgresLog;
use crate::handled_log::{in_transaction::InTransaction as _, supported};

/// A database, with connections for the log's own calls and others for the transactions of handlers: who has one of
/// these open can still ask the log.
pub(super) struct Server {
    options: PgConnectOptions,
    calls: PgPool,
    users: PgPool,
    has_tables: AtomicBool,
    away: Arc<Away>,
}

/// When the server was last found to be away: connections from before that are not used again.
#[derive(Default)]
struct Away(Mutex<Option<Instant>>);

impl Server {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("correio"),
        };
        let away = Arc::new(Away::default());
        Self {
            calls: pool(4, FOR_CALLS, &away).connect_lazy_with(options.clone()),
            users: pool(16, FOR_USERS, &away).connect_lazy_with(options.clone()),
            options,
            has_tables: AtomicBool::new(false),
            away,
        }
    }

    /// Connects once without a pool, which would hide why it is not possible.
    pub(super) async fn open(&self) -> Result<(), sqlx::Error> {
        let mut connection = in_time(CONNECT_DEADLINE, PgConnection::connect_with(&self.options)).await?;
        make_tables(&mut connection).await?;
        connection.close().await
    }

    /// A connection for a call of the log.
    pub(super) async fn connection(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let mut connection = self.calls.acquire().await?;
        if !self.has_tables.load(Ordering::Acquire) {
            make_tables(&mut connection).await?;
            self.has_tables.store(true, Ordering::Release);
        }
        Ok(connection)
    }

    /// A transaction for handlers, which the server ends when it is idle for so long.
    pub(super) async fn begin(&self, abandoned_after: Duration) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        // Zero would be no limit at all.
        let limit = abandoned_after.as_millis().clamp(1, u128::from(i32::MAX.unsigned_abs()));
        // A statement that goes on although its consumer has given it up would hold what the transaction holds.
        let begin = format!(
            "BEGIN; SET LOCAL idle_in_transaction_session_timeout = {limit}; SET LOCAL statement_timeout = {limit}"
        );
        self.users.begin_with(sqlx::AssertSqlSafe(begin)).await
    }

    pub(super) fn users(&self) -> &PgPool {
        &self.users
    }

    pub(super) fn on_error(&self, error: &sqlx::Error) {
        self.has_tables.store(false, Ordering::Release);
        if PostgresLog::is_away(error) && !is_contention(error) {
            *self.away.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }
}

impl Away {
    fn since(&self, age: Duration) -> bool {
        let away = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_some_and(|away| away.elapsed() <= age)
    }
}

fn pool(most: u32, settings: &'static str, away: &Arc<Away>) -> PgPoolOptions {
    let away = Arc::clone(away);
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(CONNECT_DEADLINE)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(settings).execute(connection).await?;
                Ok(())
            })
        })
        .before_acquire(move |connection, about| {
            let suspect = away.since(about.age);
            Box::pin(async move {
                if suspect {
                    return Err(silent());
                }
                // A firewall may have forgotten it.
                if about.idle_for > IDLE {
                    in_time(PING_DEADLINE, connection.ping()).await?;
                }
                Ok(true)
            })
        })
        // sqlx asks the server for a sign of life whenever a connection is given back, and would wait for it for ever: a server
        // that vanished would keep all connections from the pool.
        .after_release(|connection, _| {
            Box::pin(async move { in_time(PING_DEADLINE, connection.ping()).await.map(|()| true) })
        })
}

/// What `answer` comes to, or an error in so long.
pub(super) async fn in_time<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(deadline, answer).await.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server does not answer").into()
}

/// The server is there, and busy with others.
fn is_contention(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return matches!(error, sqlx::Error::PoolTimedOut) };
    error.code().is_some_and(|code| code.starts_with("40") || code.starts_with("55"))
}

async fn make_tables(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Who may not make tables can use those that are there.
    if let Some(version) = version(connection).await? {
        return supported(version);
    }
    let mut transaction = connection.begin().await?;
    // Of two processes at once the second one waits here: `IF NOT EXISTS` alone would let both try.
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MAKING_TABLES).execute(&mut *transaction).await?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn version(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let (exists,): (bool,) =
        sqlx::query_as("SELECT to_regclass('correio_schema') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(None);
    }
    let (version,) = sqlx::query_as("SELECT max(version) FROM correio_schema").fetch_one(connection).await?;
    Ok(version)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("host", &self.options.get_host())
            .field("port", &self.options.get_port())
            .field("database", &self.options.get_database())
            .field("user", &self.options.get_username())
            .finish_non_exhaustive()
    }
}

/// `n` grows with each row: the oldest are found without another index. `at` is when it was handled, NULL while it is
/// claimed. Times are microseconds since 1970. Texts are bytes, as they may contain what PostgreSQL's text may not.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS correio_sources (
        source BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        subscription BYTEA NOT NULL,
        has_origin BOOLEAN NOT NULL,
        origin BYTEA NOT NULL,
        UNIQUE (subscription, has_origin, origin)
    );
    CREATE TABLE IF NOT EXISTS correio_handled (
        n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        source BIGINT NOT NULL,
        fence BIGINT,
        lease_until BIGINT NOT NULL,
        at BIGINT,
        id BYTEA NOT NULL,
        UNIQUE (source, id)
    );
    CREATE TABLE IF NOT EXISTS correio_schema (version BIGINT PRIMARY KEY);
    INSERT INTO correio_schema (version) VALUES (1) ON CONFLICT DO NOTHING;
";

/// The server gives up before the caller does. Its plans are made while the table is small, and used when it is large: never
/// by reading all of it.
const FOR_CALLS: &str = "
    SET statement_timeout = 8000;
    SET lock_timeout = 5000;
    SET idle_in_transaction_session_timeout = 10000;
    SET enable_seqscan = off;
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";
/// A statement of a handler may take long, and waits for others in bounded time. A client that vanished is noticed.
const FOR_USERS: &str = "
    SET lock_timeout = 10000;
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";
/// Any number that is the same in all processes.
const MAKING_TABLES: i64 = 0x636f_7272_6569_6f31;
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(10);
const PING_DEADLINE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);
