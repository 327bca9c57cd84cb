//! Entries in transactions, and what only a log whose clock stands still can show.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use correio_guarantees::{Admission, Fence, HandledId};
use correio_message::{MessageId, ShortText};

use super::*;
use crate::handled_log::in_transaction::InTransaction as _;

/// A log whose clock goes when it is told to.
struct Bench {
    log: SqliteLog,
    now: Arc<AtomicI64>,
    path: PathBuf,
}

impl Bench {
    async fn new(retention: Duration) -> Self {
        let path = std::env::temp_dir().join(format!("correio-{}.db", uuid::Uuid::now_v7()));
        let now = Arc::new(AtomicI64::new(1_000_000_000));
        let clock = Arc::clone(&now);
        let builder = SqliteLog::builder(&path).retention(retention);
        let log = builder.open_with(Box::new(move || clock.load(Ordering::Relaxed))).await.unwrap();
        Self { log, now, path }
    }

    fn pass(&self, time: Duration) {
        self.now.fetch_add(micros(time), Ordering::Relaxed);
    }

    async fn ask(&self, id: &str, fence: u64) -> Admission {
        self.log.admit(&[claim(id, fence)], LEASE).await.unwrap()[0]
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.path.display()));
        }
    }
}

const LEASE: Duration = Duration::from_secs(10);
const RETENTION: Duration = Duration::from_secs(100);

fn id(id: &str) -> HandledId {
    let origin = Some(ShortText::new("shop").unwrap());
    HandledId { id: MessageId::new(id).unwrap(), origin, subscription: "orders".into() }
}

fn claim(text: &str, fence: u64) -> Claim {
    Claim { id: id(text), fence: Fence(fence) }
}

#[tokio::test]
async fn a_lease_and_a_retention_end_when_their_time_is_over_and_not_before() {
    let bench = Bench::new(RETENTION).await;
    let instant = Duration::from_micros(1);
    assert_eq!(bench.ask("1", 1).await, Admission::Fresh);
    bench.pass(LEASE - instant);
    assert_eq!(bench.ask("1", 2).await, Admission::InFlight);
    bench.pass(instant);
    assert_eq!(bench.ask("1", 2).await, Admission::Fresh);
    assert_eq!(bench.log.on_handled(&[claim("1", 2)]).await.unwrap(), [Standing::Stood]);
    bench.pass(RETENTION - instant);
    assert_eq!(bench.log.on_handled(&[claim("1", 2)]).await.unwrap(), [Standing::Stood]);
    assert_eq!(bench.ask("1", 3).await, Admission::AlreadyHandled);
    bench.pass(instant);
    assert_eq!(bench.ask("1", 3).await, Admission::Fresh, "telling it again did not prolong it");
}

#[tokio::test]
async fn what_is_entered_in_a_transaction_is_handled_when_that_is_committed_and_not_when_it_is_rolled_back() {
    let bench = Bench::new(RETENTION).await;
    assert_eq!(bench.ask("claimed", 1).await, Admission::Fresh);
    assert_eq!(bench.log.on_handled(&[claim("handled", 1)]).await.unwrap(), [Standing::Stood]);
    let ids = ["claimed", "new", "handled", "failed"].map(id);
    let entered = [Admission::InFlight, Admission::Fresh, Admission::AlreadyHandled, Admission::Fresh];
    for commit in [false, true] {
        let mut transaction = bench.log.begin().await.unwrap();
        assert_eq!(bench.log.enter(&mut transaction, &ids).await.unwrap(), entered);
        bench.log.take_out(&mut transaction, &ids[3..]).await.unwrap();
        if commit {
            transaction.commit().await.unwrap();
        } else {
            drop(transaction);
        }
    }
    assert_eq!(bench.ask("new", 2).await, Admission::AlreadyHandled);
    assert_eq!(bench.ask("failed", 2).await, Admission::Fresh);
    bench.pass(LEASE);
    let mut transaction = bench.log.begin().await.unwrap();
    assert_eq!(bench.log.enter(&mut transaction, &ids[..1]).await.unwrap(), [Admission::Fresh], "its lease is over");
    transaction.commit().await.unwrap();
    assert_eq!(bench.log.on_handled(&[claim("claimed", 1)]).await.unwrap(), [Standing::TakenOver]);
}

#[tokio::test]
async fn a_source_whose_first_transaction_is_rolled_back_is_not_taken_for_another_one() {
    let bench = Bench::new(RETENTION).await;
    let of = |origin: &str| HandledId { origin: Some(ShortText::new(origin).unwrap()), ..id("1") };
    let mut transaction = bench.log.begin().await.unwrap();
    assert_eq!(bench.log.enter(&mut transaction, &[of("one")]).await.unwrap(), [Admission::Fresh]);
    transaction.rollback().await.unwrap();
    for origin in ["two", "one"] {
        let claim = Claim { id: of(origin), fence: Fence(1) };
        assert_eq!(bench.log.admit(std::slice::from_ref(&claim), LEASE).await.unwrap(), [Admission::Fresh], "{origin}");
        assert_eq!(bench.log.on_handled(std::slice::from_ref(&claim)).await.unwrap(), [Standing::Stood], "{origin}");
        let again = Claim { fence: Fence(2), ..claim };
        assert_eq!(bench.log.admit(&[again], LEASE).await.unwrap(), [Admission::AlreadyHandled], "{origin}");
    }
    let mut transaction = bench.log.begin().await.unwrap();
    assert_eq!(bench.log.enter(&mut transaction, &[of("one")]).await.unwrap(), [Admission::AlreadyHandled]);
    assert_eq!(bench.log.enter(&mut transaction, &[of("three")]).await.unwrap(), [Admission::Fresh]);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_away_is_told_from_a_statement_that_is_wrong() {
    let bench = Bench::new(RETENTION).await;
    let wrong = sqlx::query("SELECT * FROM nowhere").execute(bench.log.pool()).await.unwrap_err();
    assert!(!SqliteLog::is_away(&wrong), "{wrong}");
    sqlx::raw_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (1)")
        .execute(bench.log.pool())
        .await
        .unwrap();
    let twice = sqlx::query("INSERT INTO orders VALUES (1)").execute(bench.log.pool()).await.unwrap_err();
    assert!(!SqliteLog::is_away(&twice), "{twice}");
    assert!(SqliteLog::is_away(&sqlx::Error::PoolTimedOut));
    // 517 is BUSY_SNAPSHOT, 778 is IOERR_WRITE, 2067 is CONSTRAINT_UNIQUE.
    for code in ["5", "517", "6", "7", "8", "13", "778", "14", "15"] {
        assert!(in_transaction::is_code_of_file(code), "{code}");
    }
    for code in ["1", "11", "19", "2067", "20", "26"] {
        assert!(!in_transaction::is_code_of_file(code), "{code}");
    }
}
