//! Ours: `submit` with many receipts in flight, and `fire`.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use correio_message::{Destination, Message, Route, ShortText};
use correio_producer::{Address, Outcome, Producer, ProducerSettings, Receipt};

use crate::{
    Error, Load,
    sample::{Ends, Sample},
    usage::Stopwatch,
};

/// Every `unroutable_every`-th message goes where nobody lives.
pub(super) async fn submit(url: &str, queue: &str, load: Load, unroutable_every: Option<u64>) -> Result<Sample, Error> {
    let producer = connect(url, load).await?;
    let (there, nowhere) = (to(queue)?, to("nobody-lives-here")?);
    // Shared, not copied, by each message; the peers borrow it too.
    let payload = Bytes::from(load.payload());
    let kind = ShortText::new("bench")?;
    let mut ends = Ends::default();
    let mut receipts: VecDeque<(bool, Receipt)> = VecDeque::with_capacity(load.window);
    let watch = Stopwatch::start()?;
    for number in 0..load.messages {
        let lost = unroutable_every.is_some_and(|every| number % every == 0);
        let destination = if lost { nowhere.clone() } else { there.clone() };
        let message = Message::new(destination, payload.clone()).with_type(kind.clone());
        receipts.push_back((lost, producer.submit(message).await?));
        if receipts.len() >= load.window
            && let Some((lost, receipt)) = receipts.pop_front()
        {
            count(&mut ends, lost, &receipt.await?);
        }
    }
    for (lost, receipt) in receipts {
        count(&mut ends, lost, &receipt.await?);
    }
    let sample = Sample::taken(watch, ends)?;
    producer.close(CLOSED).await;
    Ok(sample)
}

fn count(ends: &mut Ends, lost: bool, outcome: &Outcome) {
    match outcome {
        Outcome::Confirmed { .. } => ends.confirmed += 1,
        Outcome::Unroutable { .. } => ends.unroutable += 1,
        _ => {}
    }
    let right = if lost { matches!(outcome, Outcome::Unroutable { .. }) } else { outcome.is_confirmed() };
    ends.wrong += u64::from(!right);
}

/// The first message opens the connection and is not timed; the end of the connection is: the broker has read all by then.
pub(super) async fn fire(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    let producer = connect(url, load).await?;
    let destination = to(queue)?;
    let payload = Bytes::from(load.payload());
    let kind = ShortText::new("bench")?;
    let message = || Message::new(destination.clone(), payload.clone()).with_type(kind.clone());
    producer.fire(message()).await?;
    let until = Instant::now() + CLOSED;
    while producer.counts().fired == 0 {
        if Instant::now() > until {
            return Err("the first message was not fired".into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let watch = Stopwatch::start()?;
    for _ in 1..load.messages {
        producer.fire(message()).await?;
    }
    producer.close(CLOSED).await;
    Sample::taken(watch, Ends { fired: producer.counts().fired, ..Ends::default() })
}

async fn connect(url: &str, load: Load) -> Result<Producer, Error> {
    let settings = ProducerSettings::new(Address::parse(url)?, "bench")?.window(load.window);
    Ok(Producer::connect(settings).await?)
}

/// Straight to a queue, as the peers publish.
pub(crate) fn to(queue: &str) -> Result<Destination, Error> {
    Ok(Destination::Route(Route { exchange: ShortText::new("")?, routing_key: ShortText::new(queue)? }))
}

pub(super) const CLOSED: Duration = Duration::from_secs(30);
