//! A consumer that tests kill, stop in its tracks and starve: it writes each message's id and payload into the table `effects`, in
//! the transaction in which the message is remembered. The table takes everything, so that a second effect would be seen.

use std::{num::NonZeroU16, time::Duration};

use clap::Parser;
use correio_consumer::{
    Address, CancellationToken, Consumer, ConsumerBuilder, Context, Deduplication, Message, PostgresLog, Processing,
    RetrySchedule, Role, SqliteLog, Transaction,
};
use sqlx::{Postgres, Sqlite};

/// Handles messages exactly once, until SIGTERM.
#[derive(Debug, Parser)]
struct Args {
    /// `postgres://…`, or a file.
    #[arg(long)]
    database: String,
    /// The work queue.
    #[arg(long)]
    from: String,
    /// How many messages share a commit.
    #[arg(long, default_value = "16")]
    batch: NonZeroU16,
    /// After how many milliseconds in an open transaction the server ends it.
    #[arg(long, default_value_t = 60_000)]
    abandoned_after: u64,
    /// How often a message that failed is tried again: with 0, one that is blamed is parked.
    #[arg(long, default_value_t = 3)]
    retries: u32,
    /// Messages whose payload contains this fail on their first attempt.
    #[arg(long)]
    fails_once: Option<String>,
    /// Messages whose payload contains this fail always.
    #[arg(long)]
    fails: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let args = Args::parse();
    let retry = RetrySchedule::new(Duration::from_millis(200), Duration::from_millis(400), args.retries)?;
    let builder = Consumer::builder(Address::from_environment(Role::Consumer, None)?)
        .queue(&args.from)
        .processing(Processing::Independent { at_once: args.batch, retry })
        .drain_deadline(Duration::from_secs(10));
    let fails = Fails { once: args.fails_once, always: args.fails };
    let builder = if args.database.starts_with("postgres:") {
        let abandoned_after = Duration::from_millis(args.abandoned_after);
        let builder = builder.handler_deadline(abandoned_after / 2);
        let log = PostgresLog::builder(&args.database).abandoned_after(abandoned_after).connect().await?;
        in_postgres(builder, fails).deduplication(Deduplication::from(log))
    } else {
        in_sqlite(builder, fails).deduplication(SqliteLog::open(&args.database).await?)
    };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        stopped.cancel();
    });
    let summary = builder.build()?.run(stop).await?;
    println!("{}", serde_json::to_string(&summary.counts)?);
    Ok(())
}

#[derive(Clone)]
struct Fails {
    once: Option<String>,
    always: Option<String>,
}

impl Fails {
    /// Told after the effect was written: it has to be undone.
    fn told(&self, payload: &str, context: &Context) -> Result<(), sqlx::Error> {
        let names = |what: &Option<String>| what.as_ref().is_some_and(|what| payload.contains(what));
        if names(&self.always) || names(&self.once) && context.attempt().get() == 1 {
            return Err(sqlx::Error::RowNotFound);
        }
        Ok(())
    }
}

fn in_sqlite(builder: ConsumerBuilder, fails: Fails) -> ConsumerBuilder {
    builder.on_any(move |message: Message, context: Context, mut transaction: Transaction<Sqlite>| {
        let fails = fails.clone();
        async move {
            let (id, payload) = told(&message);
            let insert = sqlx::query("INSERT INTO effects (id, payload) VALUES (?, ?)").bind(id).bind(&payload);
            insert.execute(&mut *transaction).await?;
            fails.told(&payload, &context)
        }
    })
}

fn in_postgres(builder: ConsumerBuilder, fails: Fails) -> ConsumerBuilder {
    builder.on_any(move |message: Message, context: Context, mut transaction: Transaction<Postgres>| {
        let fails = fails.clone();
        async move {
            let (id, payload) = told(&message);
            let insert = sqlx::query("INSERT INTO effects (id, payload) VALUES ($1, $2)").bind(id).bind(&payload);
            insert.execute(&mut *transaction).await?;
            fails.told(&payload, &context)
        }
    })
}

fn told(message: &Message) -> (String, String) {
    let id = message.id.as_ref().map(ToString::to_string).unwrap_or_default();
    (id, String::from_utf8_lossy(&message.payload).into_owned())
}
