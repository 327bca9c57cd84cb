//! Consuming from a queue that is full, each message remembered before it is acknowledged; and a loop that writes as much without a
//! broker.
//!
//! All of them take as many messages at once as the load's window says, and the file is new each time.

use std::{
    num::{NonZeroU16, NonZeroU64},
    sync::Arc,
};

use bytes::Bytes;
use correio_consumer::{
    Address, Consumer, ConsumerBuilder, Deduplication, Processing, RetrySchedule, SqliteLog, Transaction,
    sqlx::{self, Sqlite, SqlitePool},
};

use super::consumed::{Seen, ours::timed};
use crate::{
    Error, Load, disk,
    sample::{Ends, Sample},
    usage::Stopwatch,
};

/// In memory: gone with the process.
pub(super) async fn in_memory(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    read(url, queue, load, Deduplication::default()).await
}

/// In a file.
pub(super) async fn in_sqlite(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    let folder = disk::folder()?;
    read(url, queue, load, SqliteLog::open(folder.path().join("log.db")).await?.into()).await
}

/// In a file, together with what the handler writes.
pub(super) async fn transactional(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    let folder = disk::folder()?;
    let log = SqliteLog::open(folder.path().join("log.db")).await?;
    let database = log.pool().clone();
    sqlx::query(TABLE).execute(&database).await?;
    let consumer = builder(url, queue, load)?
        .deduplication(log)
        .on_any(|payload: Bytes, mut transaction: Transaction<Sqlite>| async move {
            let row = sqlx::query(INSERT).bind(number(&payload)).bind(payload.len() as i64);
            row.execute(&mut *transaction).await.map(|_| ())
        })
        .build()?;
    let sample = timed(consumer, load).await?;
    Ok(Sample { ends: ends(&database).await?, ..sample })
}

/// The rows of that handler alone.
pub(super) async fn plain_inserts(load: Load) -> Result<Sample, Error> {
    let folder = disk::folder()?;
    // For its pool alone: the same settings as the handler's transaction has.
    let log = SqliteLog::open(folder.path().join("log.db")).await?;
    let database = log.pool();
    sqlx::query(TABLE).execute(database).await?;
    let mut connection = database.acquire().await?;
    let watch = Stopwatch::start()?;
    let mut written = 0;
    while written < load.messages {
        let batch = load.messages.min(written + load.window as u64);
        let mut transaction = sqlx::Connection::begin_with(&mut *connection, "BEGIN IMMEDIATE").await?;
        for number in written..batch {
            let row = sqlx::query(INSERT).bind(number.cast_signed()).bind(load.size as i64);
            row.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        written = batch;
    }
    let sample = Sample::taken(watch, Ends::default())?;
    Ok(Sample { ends: ends(database).await?, ..sample })
}

async fn read(url: &str, queue: &str, load: Load, deduplication: Deduplication) -> Result<Sample, Error> {
    let seen = Arc::new(Seen::none_of(load.messages));
    let by_handler = Arc::clone(&seen);
    let consumer = builder(url, queue, load)?
        .deduplication(deduplication)
        .on_any(move |payload: Bytes| {
            by_handler.on_message(&payload);
            async { Ok::<_, String>(()) }
        })
        .build()?;
    let sample = timed(consumer, load).await?;
    Ok(Sample { ends: seen.ends(), ..sample })
}

fn builder(url: &str, queue: &str, load: Load) -> Result<ConsumerBuilder, Error> {
    let at_once = NonZeroU16::new(u16::try_from(load.window)?).ok_or("nothing at once")?;
    let builder = Consumer::builder(Address::parse(url)?)
        .queue(queue)
        .processing(Processing::Independent { at_once, retry: RetrySchedule::default() })
        .stop_after_count(NonZeroU64::new(load.messages).ok_or("no messages")?);
    Ok(builder)
}

/// The number in front of a payload; one that nobody sent if there is none.
fn number(payload: &[u8]) -> i64 {
    payload.first_chunk().map_or(-1, |number| i64::from_be_bytes(*number))
}

/// What the handler has written: a message that was handled twice is wrong.
async fn ends(database: &SqlitePool) -> Result<Ends, Error> {
    let count = "SELECT count(*), count(DISTINCT number) FROM bookings WHERE number >= 0";
    let (rows, messages): (i64, i64) = sqlx::query_as(count).fetch_one(database).await?;
    Ok(Ends { consumed: messages.unsigned_abs(), wrong: (rows - messages).unsigned_abs(), ..Ends::default() })
}

const TABLE: &str = "CREATE TABLE bookings (number INTEGER NOT NULL, pieces INTEGER NOT NULL)";
const INSERT: &str = "INSERT INTO bookings (number, pieces) VALUES (?, ?)";
