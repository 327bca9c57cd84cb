//! Effects and ids in one transaction, on a file: no broker, real handlers, a real database.

use std::num::NonZeroU32;

use correio_guarantees::Admission;
use correio_message::{Destination, Durability, Message, MessageId, ShortText};
use sqlx::Sqlite;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Reply, SqliteLog, Transaction,
    context::{Context, Received},
    handled_log::{
        HandledLog as _,
        in_transaction::{Answer, Connection},
    },
    handler::Handlers,
};

/// A log in a file, beside a table for effects that takes everything.
struct Bench {
    _folder: TempDir,
    log: Arc<SqliteLog>,
    handlers: Handlers,
}

/// Writes its payload, and then ends as the payload says.
async fn obey(message: Message, mut transaction: Transaction<Sqlite>) -> Result<Reply, crate::BoxError> {
    let payload = String::from_utf8_lossy(&message.payload).into_owned();
    let insert = sqlx::query("INSERT INTO effects (payload) VALUES (?)").bind(payload.clone());
    insert.execute(&mut *transaction).await?;
    match payload.split(' ').next().unwrap_or_default() {
        "fail" => Err("no stock".into()),
        "panic" => panic!("on purpose"),
        "hang" => std::future::pending().await,
        "wrong" => {
            Err(sqlx::query("INSERT INTO nowhere VALUES (1)").execute(&mut *transaction).await.unwrap_err().into())
        }
        "keep" => {
            tokio::spawn(async move {
                let _kept = transaction;
                tokio::time::sleep(Duration::from_secs(60)).await;
            });
            Ok(Reply::new("kept"))
        }
        "away" => Err(Box::new(sqlx::Error::PoolTimedOut)),
        "wrapped" => Err(Box::new(Wrapped(busy().await))),
        "transparent" => Err(Box::new(Transparent(busy().await))),
        "deferred" => {
            sqlx::query("INSERT INTO children VALUES (7)").execute(&mut *transaction).await?;
            Ok(Reply::new("too early"))
        }
        "rollback" => {
            sqlx::query("INSERT INTO unique_ones VALUES (1)").execute(&mut *transaction).await?;
            Err(sqlx::query("INSERT INTO unique_ones VALUES (1)").execute(&mut *transaction).await.unwrap_err().into())
        }
        _ => Ok(Reply::new(payload)),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the bookings")]
struct Wrapped(#[source] sqlx::Error);

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Transparent(sqlx::Error);

/// What SQLite says while another has the file.
async fn busy() -> sqlx::Error {
    let folder = tempfile::tempdir().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.path().join("busy.db"))
        .create_if_missing(true)
        .busy_timeout(Duration::ZERO);
    let pool = sqlx::SqlitePool::connect_lazy_with(options);
    let mut first = pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut *first).await.unwrap();
    let mut second = pool.acquire().await;
    match &mut second {
        Ok(second) => sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut **second).await.expect_err("busy"),
        Err(_) => second.expect_err("busy"),
    }
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(SqliteLog::open(folder.path().join("log.db")).await.unwrap());
        sqlx::query("CREATE TABLE effects (payload TEXT)").execute(log.pool()).await.unwrap();
        let mut handlers = Handlers::default();
        handlers.on_any(obey);
        Self { _folder: folder, log, handlers }
    }

    fn piece(&self, id: &str, payload: &str) -> Piece {
        let message = Message::new(Destination::queue("q").unwrap(), payload.to_owned());
        let message = Message { id: MessageId::new(id).ok(), ..message };
        let decoded = message.encode(Durability::Persistent).decode().unwrap();
        let context = Context {
            received: Arc::new(Received { decoded, redelivered: false }),
            attempt: NonZeroU32::MIN,
            late: false,
            subscription: "q".into(),
            stopping: CancellationToken::new(),
            transaction: None,
        };
        let handler = self.handlers.of(None).unwrap();
        Piece { id: (!id.is_empty()).then(|| handled_id(id)), handler, context }
    }

    async fn handle(&self, messages: &[(&str, &str)]) -> Result<Vec<PieceEnd>, LogError> {
        self.handle_within(Duration::from_secs(60), messages).await
    }

    async fn handle_within(&self, long_enough: Duration, messages: &[(&str, &str)]) -> Result<Vec<PieceEnd>, LogError> {
        let pieces = messages.iter().map(|(id, payload)| self.piece(id, payload)).collect();
        let attempts = Attempts::new(Duration::from_millis(300), ShortText::new("q").unwrap());
        super::handle(Arc::clone(&self.log), pieces, attempts, long_enough).await
    }

    /// What was written for good.
    async fn effects(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT payload FROM effects ORDER BY rowid").fetch_all(self.log.pool()).await.unwrap()
    }
}

fn handled_id(id: &str) -> HandledId {
    HandledId { subscription: "q".into(), origin: None, id: MessageId::new(id).unwrap() }
}

fn words(ends: &[PieceEnd]) -> Vec<&'static str> {
    let word = |end: &PieceEnd| match end {
        PieceEnd::Ended(Ok(_)) => "handled",
        PieceEnd::Ended(Err(_)) => "failed",
        PieceEnd::AlreadyHandled => "duplicate",
        PieceEnd::InFlight => "in flight",
        PieceEnd::Away(_) => "away",
        PieceEnd::NotBegun => "not begun",
    };
    ends.iter().map(word).collect()
}

#[tokio::test]
async fn effect_and_id_are_committed_together_and_a_second_delivery_has_no_second_effect() {
    let bench = Bench::new().await;
    assert_eq!(words(&bench.handle(&[("1", "a"), ("2", "b")]).await.unwrap()), ["handled", "handled"]);
    assert_eq!(words(&bench.handle(&[("2", "b"), ("3", "c")]).await.unwrap()), ["duplicate", "handled"]);
    assert_eq!(bench.effects().await, ["a", "b", "c"]);
}

#[tokio::test]
async fn of_a_batch_that_one_message_fails_in_the_others_stand_and_its_own_effect_does_not() {
    for failing in ["fail", "panic", "hang", "wrong"] {
        let bench = Bench::new().await;
        let ends = bench.handle(&[("1", "a"), ("2", failing), ("3", "c")]).await.unwrap();
        assert_eq!(words(&ends), ["handled", "failed", "handled"], "{failing}");
        assert_eq!(bench.effects().await, ["a", "c"], "{failing}");
        // It is not a duplicate when it comes back.
        assert_eq!(words(&bench.handle(&[("1", "a"), ("2", "b")]).await.unwrap()), ["duplicate", "handled"]);
        assert_eq!(bench.effects().await, ["a", "c", "b"]);
    }
}

#[tokio::test]
async fn a_transaction_that_is_long_enough_leaves_the_rest_to_the_next_one_and_each_has_at_least_one() {
    let bench = Bench::new().await;
    let messages = [("1", "a"), ("2", "b"), ("3", "c")];
    let ends = bench.handle_within(Duration::ZERO, &messages).await.unwrap();
    assert_eq!(words(&ends), ["handled", "not begun", "not begun"]);
    let ends = bench.handle_within(Duration::ZERO, &messages).await.unwrap();
    assert_eq!(words(&ends), ["duplicate", "handled", "not begun"]);
    assert_eq!(bench.effects().await, ["a", "b"]);
}

#[tokio::test]
async fn a_handler_that_keeps_its_transaction_fails_alone_and_the_others_are_handled_with_the_next() {
    let bench = Bench::new().await;
    let ends = bench.handle(&[("1", "a"), ("2", "keep"), ("3", "c")]).await.unwrap();
    assert_eq!(words(&ends), ["not begun", "failed", "not begun"]);
    drop(ends);
}

#[tokio::test]
async fn what_a_handler_needs_and_is_away_is_no_fault_of_its_message_and_its_neighbours_are_handled() {
    // However the handler hands the error on.
    for away in ["away", "wrapped", "transparent"] {
        let bench = Bench::new().await;
        let ends = bench.handle(&[("1", "a"), ("2", away), ("3", "fail")]).await.unwrap();
        assert_eq!(words(&ends), ["handled", "away", "failed"], "{away}");
        assert_eq!(words(&bench.handle(&[("2", "b")]).await.unwrap()), ["handled"]);
        assert_eq!(bench.effects().await, ["a", "b"]);
    }
}

#[tokio::test]
async fn what_cannot_be_committed_is_found_among_those_it_was_handled_with() {
    let bench = Bench::new().await;
    sqlx::raw_sql(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY);
         CREATE TABLE children (id INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    .execute(bench.log.pool())
    .await
    .unwrap();
    let ends = bench.handle(&[("1", "a"), ("2", "deferred"), ("3", "c")]).await.unwrap();
    assert_eq!(words(&ends), ["handled", "failed", "handled"]);
    assert_eq!(bench.effects().await, ["a", "c"]);
    assert_eq!(words(&bench.handle(&[("2", "b")]).await.unwrap()), ["handled"]);
}

#[tokio::test]
async fn a_handler_that_ends_the_transaction_fails_alone() {
    let bench = Bench::new().await;
    sqlx::query("CREATE TABLE unique_ones (id INTEGER UNIQUE ON CONFLICT ROLLBACK)")
        .execute(bench.log.pool())
        .await
        .unwrap();
    let ends = bench.handle(&[("1", "a"), ("2", "rollback"), ("3", "c")]).await.unwrap();
    assert_eq!(words(&ends), ["not begun", "failed", "not begun"]);
    assert!(bench.effects().await.is_empty());
    assert_eq!(words(&bench.handle(&[("1", "a"), ("3", "c")]).await.unwrap()), ["handled", "handled"]);
}

#[tokio::test]
async fn a_context_that_outlives_its_batch_keeps_no_transaction_open() {
    let bench = Bench::new().await;
    let piece = bench.piece("1", "rollback");
    let pieces = vec![piece.clone()];
    let slot = Arc::new(std::sync::Mutex::new(None));
    let mut handlers = Handlers::default();
    let kept = slot.clone();
    handlers.on_any(move |_: Message, context: Context| {
        // The batch is undone after this, and the context is still somewhere.
        *kept.lock().unwrap() = Some(context);
        async { Err::<(), _>("no stock") }
    });
    let pieces = pieces.into_iter().map(|piece| Piece { handler: handlers.of(None).unwrap(), ..piece }).collect();
    let attempts = Attempts::new(Duration::from_millis(300), ShortText::new("q").unwrap());
    // Dropped in the middle.
    let handling = super::handle(Arc::clone(&bench.log), pieces, attempts, Duration::ZERO);
    assert_eq!(words(&handling.await.unwrap()), ["failed"]);
    assert!(slot.lock().unwrap().is_some());
    assert_eq!(words(&bench.handle(&[("3", "c")]).await.unwrap()), ["handled"]);
}

#[tokio::test]
async fn a_message_that_another_consumer_has_claimed_is_left_to_it() {
    let bench = Bench::new().await;
    let theirs = correio_guarantees::Claim { id: handled_id("2"), fence: correio_guarantees::Fence(7) };
    let admitted = bench.log.admit(std::slice::from_ref(&theirs), Duration::from_secs(60)).await.unwrap();
    assert_eq!(admitted, [Admission::Fresh]);
    assert_eq!(words(&bench.handle(&[("1", "a"), ("2", "b")]).await.unwrap()), ["handled", "in flight"]);
    bench.log.on_abandoned(&[theirs]).await.unwrap();
    assert_eq!(words(&bench.handle(&[("2", "b")]).await.unwrap()), ["handled"]);
    assert_eq!(bench.effects().await, ["a", "b"]);
}

#[tokio::test]
async fn a_message_without_an_id_has_its_effect_each_time() {
    let bench = Bench::new().await;
    for _ in 0..2 {
        assert_eq!(words(&bench.handle(&[("", "a"), ("1", "b")]).await.unwrap())[0], "handled");
    }
    assert_eq!(bench.effects().await, ["a", "b", "a"]);
}

#[tokio::test]
async fn a_batch_that_is_dropped_in_the_middle_leaves_nothing_behind_and_blocks_nobody() {
    let bench = Bench::new().await;
    let hanging = bench.handle(&[("1", "a"), ("2", "hang")]);
    let _ = tokio::time::timeout(Duration::from_millis(50), hanging).await.expect_err("it hangs");
    assert_eq!(words(&bench.handle(&[("1", "a")]).await.unwrap()), ["handled"]);
    assert_eq!(bench.effects().await, ["a"]);
}

/// A log whose database keeps what a message did, and whose answer to that is lost.
struct AnswerLost(Arc<SqliteLog>);

impl InTransaction for AnswerLost {
    type Database = Sqlite;

    fn begin(&self) -> Answer<'_, sqlx::Transaction<'static, Sqlite>> {
        self.0.begin()
    }

    fn enter<'a>(&'a self, connection: &'a mut Connection<Self>, ids: &'a [HandledId]) -> Answer<'a, Vec<Admission>> {
        self.0.enter(connection, ids)
    }

    fn take_out<'a>(&'a self, connection: &'a mut Connection<Self>, ids: &'a [HandledId]) -> Answer<'a, ()> {
        self.0.take_out(connection, ids)
    }

    fn run<'a>(connection: &'a mut Connection<Self>, statements: &'static str) -> Answer<'a, ()> {
        Box::pin(async move {
            SqliteLog::run(connection, statements).await?;
            if statements.starts_with("RELEASE") {
                return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
            }
            Ok(())
        })
    }

    fn is_there(&self) -> Answer<'_, ()> {
        self.0.is_there()
    }

    fn is_away(error: &sqlx::Error) -> bool {
        SqliteLog::is_away(error)
    }

    fn is_away_code(code: &str) -> bool {
        SqliteLog::is_away_code(code)
    }
}

#[tokio::test]
async fn an_effect_of_which_nobody_knows_whether_it_is_kept_is_never_committed_without_its_id() {
    let bench = Bench::new().await;
    let log = Arc::new(AnswerLost(Arc::clone(&bench.log)));
    let attempts = Attempts::new(Duration::from_millis(300), ShortText::new("q").unwrap());
    let pieces = vec![bench.piece("1", "a"), bench.piece("2", "b")];
    let error = super::handle(log, pieces, attempts, Duration::from_secs(60)).await.expect_err("nobody knows");
    assert!(error.to_string().contains("keeping what a message did"), "{error}");
    assert!(bench.effects().await.is_empty());
    assert_eq!(words(&bench.handle(&[("1", "a"), ("2", "b")]).await.unwrap()), ["handled", "handled"]);
    assert_eq!(bench.effects().await, ["a", "b"]);
}
