//! Every log of handled messages keeps the same promises: `correio_tests::handled_logs` lists them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use correio_consumer::{Admission, HandledLog as _, MemoryLog, PostgresLog, SqliteLog, Standing};
use correio_lab::{postgres::Postgres, small_disk::SmallDisk};
use correio_tests::handled_logs::{self, LONG, Opening, Place, SHORT, ask, clean_up, handled, order, until};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// One log, as there is no other place that shares a process's memory.
#[derive(Default)]
struct Memory(OnceCell<Arc<MemoryLog>>);

impl Place for Memory {
    fn open(&self, retention: Duration) -> Opening<'_> {
        Box::pin(async move {
            let log = self.0.get_or_init(|| async { Arc::new(MemoryLog::new(10_000.try_into().unwrap(), retention)) });
            Arc::clone(log.await) as _
        })
    }
}

struct Folder(TempDir);

impl Place for Folder {
    fn open(&self, retention: Duration) -> Opening<'_> {
        let builder = SqliteLog::builder(self.0.path().join("handled.db")).retention(retention);
        Box::pin(async move { Arc::new(builder.open().await.unwrap()) as _ })
    }
}

/// A schema of its own on a server that all tests share.
struct Schema(String);

impl Place for Schema {
    fn open(&self, retention: Duration) -> Opening<'_> {
        let builder = PostgresLog::builder(self.0.as_str()).retention(retention);
        Box::pin(async move { Arc::new(builder.connect().await.unwrap()) as _ })
    }
}

async fn memory() -> Memory {
    Memory::default()
}

async fn sqlite() -> Folder {
    Folder(tempfile::tempdir().unwrap())
}

async fn postgres() -> Schema {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    static SCHEMAS: AtomicUsize = AtomicUsize::new(0);
    let server = SERVER.get_or_init(|| async { Postgres::start().await.unwrap() }).await;
    schema(server, &format!("place{}", SCHEMAS.fetch_add(1, Ordering::Relaxed))).await
}

async fn schema(server: &Postgres, name: &str) -> Schema {
    let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"))).execute(&pool).await.unwrap();
    pool.close().await;
    Schema(format!("{}?options=-c%20search_path%3D{name}", server.url()))
}

macro_rules! promises {
    ($($place:ident: $($promise:ident)*;)*) => {
        $(mod $place { $(
            #[tokio::test]
            async fn $promise() {
                super::handled_logs::$promise(&super::$place().await).await;
            }
        )* })*
    };
}

macro_rules! in_every_place {
    ($($promise:ident)*) => {
        promises! {
            memory: $($promise)*;
            sqlite: $($promise)* cleaning_up_keeps_what_is_wanted a_log_that_is_opened_again_remembers;
            postgres: $($promise)* cleaning_up_keeps_what_is_wanted a_log_that_is_opened_again_remembers;
        }
    };
}

in_every_place! {
    fresh_once_then_in_flight_then_handled
    a_failed_message_is_fresh_again
    told_twice_is_told_once
    a_lease_that_is_over_is_taken_over
    work_that_was_done_is_remembered
    a_claim_made_again_has_a_new_lease
    groups_and_origins_are_kept_apart
    ids_are_told_apart_as_texts
    a_fence_is_any_number
    each_of_a_batch_has_its_own_answer
    an_id_is_forgotten_after_its_retention
    two_logs_know_the_same
    of_many_at_once_exactly_one_claims_an_id
}

/// What is in the table, whoever asks for it.
const COUNT: &str = "SELECT count(*) FROM correio_handled";

#[tokio::test]
async fn a_file_is_cleaned_up_a_little_at_a_time_from_the_oldest_on() {
    let folder = sqlite().await;
    let log = SqliteLog::builder(folder.0.path().join("handled.db")).retention(SHORT).open().await.unwrap();
    let claims: Vec<_> = (0..2_500).map(|n| order(&n.to_string(), 1)).collect();
    log.on_handled(&claims).await.unwrap();
    let rows = async || sqlx::query_as::<_, (i64,)>(COUNT).fetch_one(log.pool()).await.unwrap().0;
    assert_eq!(ask(&log, &order("claimed", 1)).await, Admission::Fresh);
    let mut seen = vec![rows().await];
    until(async || {
        log.clean_up().await.unwrap();
        let now = rows().await;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        now == 1
    })
    .await;
    assert_eq!(seen, [2_501, 1_501, 501, 1]);
}

#[tokio::test]
async fn a_servers_table_is_cleaned_up_a_little_at_a_time_from_the_oldest_on() {
    let schema = postgres().await;
    let log = PostgresLog::builder(schema.0.as_str()).retention(SHORT).connect().await.unwrap();
    let claims: Vec<_> = (0..2_500).map(|n| order(&n.to_string(), 1)).collect();
    log.on_handled(&claims).await.unwrap();
    let rows = async || sqlx::query_as::<_, (i64,)>(COUNT).fetch_one(log.pool()).await.unwrap().0;
    assert_eq!(ask(&log, &order("claimed", 1)).await, Admission::Fresh);
    let mut seen = vec![rows().await];
    until(async || {
        log.clean_up().await.unwrap();
        let now = rows().await;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        now == 1
    })
    .await;
    assert_eq!(seen, [2_501, 1_501, 501, 1]);
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let folder = sqlite().await;
    let path = folder.0.path().join("handled.db");
    let log = SqliteLog::open(&path).await.unwrap();
    sqlx::query("INSERT INTO correio_schema (version) VALUES (2)").execute(log.pool()).await.unwrap();
    let refused = SqliteLog::open(&path).await.unwrap_err().to_string();
    assert!(refused.contains("version 2") && refused.contains("handled.db"), "{refused}");
    let schema = postgres().await;
    let log = PostgresLog::connect(schema.0.as_str()).await.unwrap();
    sqlx::query("INSERT INTO correio_schema (version) VALUES (2)").execute(log.pool()).await.unwrap();
    let refused = PostgresLog::connect(schema.0.as_str()).await.unwrap_err().to_string();
    assert!(refused.contains("version 2"), "{refused}");
}

#[tokio::test]
async fn many_who_open_a_new_log_at_once_all_get_it() {
    let (folder, schema) = (sqlite().await, postgres().await);
    let opened = (0..8).map(|_| async { (folder.open(LONG).await, schema.open(LONG).await) });
    for (file, server) in futures_util::future::join_all(opened).await {
        assert_eq!(ask(&*file, &order("1", 1)).await, Admission::Fresh);
        assert_eq!(ask(&*server, &order("1", 1)).await, Admission::Fresh);
    }
}

#[tokio::test]
async fn a_log_whose_disk_is_full_fails_and_works_again_when_there_is_room() {
    let disk = SmallDisk::of(4 * 1024 * 1024).await.unwrap();
    let log = SqliteLog::open(disk.path().join("handled.db")).await.unwrap();
    assert_eq!(handled(&log, &order("before", 1)).await, Standing::Stood);
    disk.fill().unwrap();
    // Pages that the file has already can be written over, so it takes some.
    let many: Vec<_> = (0..10_000).map(|n| order(&format!("{n:0100}"), 1)).collect();
    let failed = log.on_handled(&many).await.unwrap_err().to_string();
    assert!(failed.contains("remembering") && failed.contains("full"), "{failed}");
    disk.free().unwrap();
    assert_eq!(handled(&log, &order("after", 1)).await, Standing::Stood);
    let asked = [order("before", 2), order("after", 2), many[0].clone()];
    assert_eq!(
        log.admit(&asked, LONG).await.unwrap(),
        [Admission::AlreadyHandled, Admission::AlreadyHandled, Admission::Fresh]
    );
    disk.close().await.unwrap();
}

#[tokio::test]
async fn a_log_whose_file_is_gone_fails_or_begins_anew_and_never_writes_to_a_deleted_file() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let log = SqliteLog::open(inner.join("handled.db")).await.unwrap();
    assert_eq!(handled(&log, &order("1", 1)).await, Standing::Stood);
    std::fs::remove_dir_all(&inner).unwrap();
    let failed = log.on_handled(&[order("2", 1)]).await.unwrap_err().to_string();
    assert!(failed.contains("open"), "{failed}");
    std::fs::create_dir(&inner).unwrap();
    assert_eq!(handled(&log, &order("2", 1)).await, Standing::Stood);
    let again = SqliteLog::open(inner.join("handled.db")).await.unwrap();
    assert_eq!(ask(&again, &order("2", 2)).await, Admission::AlreadyHandled);
    clean_up(&log).await;
}

#[tokio::test]
async fn a_log_whose_server_is_killed_fails_and_works_again_when_it_is_back_with_all_that_was_handled() {
    let server = Postgres::start().await.unwrap();
    let log = PostgresLog::connect(server.url()).await.unwrap();
    assert_eq!(handled(&log, &order("before", 1)).await, Standing::Stood);
    server.kill().await.unwrap();
    let failed = log.on_handled(&[order("during", 1)]).await.unwrap_err();
    assert_eq!(failed.step, "remembering");
    server.start_again().await.unwrap();
    until(async || log.on_handled(&[order("during", 1)]).await.is_ok()).await;
    assert_eq!(ask(&log, &order("before", 2)).await, Admission::AlreadyHandled);
    server.close().await.unwrap();
}

#[tokio::test]
async fn a_password_is_never_shown() {
    let url = "postgres://correio:sesame@127.0.0.1:1/correio";
    let builder = PostgresLog::builder(url);
    let failed = builder.clone().connect().await.unwrap_err();
    let schema = postgres().await;
    let log = PostgresLog::connect(schema.0.replace("correio@", "correio:sesame@")).await.unwrap();
    for shown in [format!("{builder:?}"), format!("{failed:?}"), failed.to_string(), format!("{log:?}")] {
        assert!(!shown.contains("sesame"), "{shown}");
    }
    let failed = PostgresLog::connect("postgres://correio:sesame@127.0.0.1:port/correio").await.unwrap_err();
    assert!(!format!("{failed:?}{failed}").contains("sesame"), "{failed:?}");
}
