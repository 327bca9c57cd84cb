//! Ours: a consumer with all that it does by default (deduplication in memory, acknowledgement after handling), and a handler that
//! only says which message it got.

use std::{
    num::{NonZeroU16, NonZeroU64},
    sync::Arc,
};

use bytes::Bytes;
use correio_consumer::{Address, CancellationToken, Consumer, Processing, RetrySchedule};

use super::Seen;
use crate::{
    Error, Load,
    sample::{Ends, Sample},
    usage::Stopwatch,
};

/// By key, in the order sent.
pub(in crate::way) async fn ordered(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    consume(url, queue, load, Processing::ordered_by_key()).await
}

/// In any order.
pub(in crate::way) async fn independent(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    consume(url, queue, load, independent_processing()).await
}

/// As many at once as make the same prefetch.
pub(super) fn independent_processing() -> Processing {
    let at_once = NonZeroU16::new(80).unwrap_or(NonZeroU16::MIN);
    Processing::Independent { at_once, retry: RetrySchedule::default() }
}

async fn consume(url: &str, queue: &str, load: Load, processing: Processing) -> Result<Sample, Error> {
    let seen = Arc::new(Seen::none_of(load.messages));
    let by_handler = Arc::clone(&seen);
    let consumer = Consumer::builder(Address::parse(url)?)
        .queue(queue)
        .processing(processing)
        .on_any(move |payload: Bytes| {
            by_handler.on_message(&payload);
            async { Ok::<_, String>(()) }
        })
        .stop_after_count(NonZeroU64::new(load.messages).ok_or("no messages")?)
        .build()?;
    if usize::from(consumer.prefetch()) != load.window {
        return Err(format!("a prefetch of {}, not {}", consumer.prefetch(), load.window).into());
    }
    let sample = timed(consumer, load).await?;
    Ok(Sample { ends: seen.ends(), ..sample })
}

/// Runs a consumer that stops by itself; what it came to is the caller's to say.
pub(in crate::way) async fn timed(consumer: Consumer, load: Load) -> Result<Sample, Error> {
    let counts = consumer.counts();
    let mut running = tokio::spawn(consumer.run(CancellationToken::new()));
    tokio::select! {
        () = counts.subscribed() => {}
        ended = &mut running => return Err(format!("ended before it subscribed: {:?}", ended??).into()),
    }
    let watch = Stopwatch::start()?;
    let summary = running.await??;
    let sample = Sample::taken(watch, Ends::default())?;
    if summary.counts.handled == load.messages { Ok(sample) } else { Err(format!("{summary:?}").into()) }
}
