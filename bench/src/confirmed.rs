//! Confirmed publishing: our `submit` beside lapin used plainly, on the same queue with the same properties.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use correio_message::{Destination, Message, Route, ShortText};
use correio_producer::{Address, Outcome, Producer, ProducerSettings, Receipt, fresh_id};
use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{Error, Load};

/// How many messages ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// On the queue.
    pub confirmed: u64,
    /// On no queue.
    pub unroutable: u64,
    /// Said of the wrong message: a good one called unroutable, or the other way round.
    pub wrong: u64,
}

/// Ours: `submit`, many receipts in flight. Every `unroutable_every`-th message goes where nobody lives.
///
/// # Errors
///
/// Whatever the broker refuses.
pub async fn submit(
    url: String,
    queue: String,
    load: Load,
    unroutable_every: Option<u64>,
) -> Result<(f64, Ends), Error> {
    let settings = ProducerSettings::new(Address::parse(&url)?, "bench")?.window(load.window);
    let producer = Producer::connect(settings).await?;
    let to = |key: &str| -> Result<Destination, Error> {
        Ok(Destination::Route(Route { exchange: ShortText::new("")?, routing_key: ShortText::new(key)? }))
    };
    let (there, nowhere) = (to(&queue)?, to("nobody-lives-here")?);
    // Shared, not copied, by each message; lapin borrows it too.
    let payload = Bytes::from(bytes(load.size));
    let kind = ShortText::new("bench")?;
    let mut ends = Ends::default();
    let mut receipts: VecDeque<(bool, Receipt)> = VecDeque::with_capacity(load.window);
    let started = Instant::now();
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
    let rate = load.messages as f64 / started.elapsed().as_secs_f64();
    producer.close(Duration::from_secs(10)).await;
    Ok((rate, ends))
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

/// lapin as its examples use it: the same window, properties and mandatory flag, each `basic_publish` awaited.
///
/// # Errors
///
/// Whatever the broker refuses.
pub async fn plain_lapin(url: String, queue: String, load: Load) -> Result<(f64, Ends), Error> {
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let payload = bytes(load.size);
    let mut ends = Ends::default();
    let mut confirms: VecDeque<PublisherConfirm> = VecDeque::with_capacity(load.window);
    let started = Instant::now();
    for _ in 0..load.messages {
        let confirm = channel
            .basic_publish(
                ShortString::default(),
                ShortString::try_new(queue.as_str())?,
                BasicPublishOptions { mandatory: true, immediate: false },
                &payload,
                properties()?,
            )
            .await?;
        confirms.push_back(confirm);
        if confirms.len() >= load.window
            && let Some(confirm) = confirms.pop_front()
        {
            ends.confirmed += u64::from(matches!(confirm.await?, Confirmation::Ack(None)));
        }
    }
    for confirm in confirms {
        ends.confirmed += u64::from(matches!(confirm.await?, Confirmation::Ack(None)));
    }
    let rate = load.messages as f64 / started.elapsed().as_secs_f64();
    connection.close(200, ShortString::default()).await?;
    Ok((rate, ends))
}

/// lapin at its best: the same task starts publishes without awaiting each, and polls all of them together.
///
/// It is the ceiling: no handing over between tasks, no outcome for each message, no resend.
///
/// # Errors
///
/// Whatever the broker refuses.
pub async fn pipelined_lapin(url: String, queue: String, load: Load) -> Result<(f64, Ends), Error> {
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let payload = bytes(load.size);
    let mut ends = Ends::default();
    let mut under_way = FuturesUnordered::new();
    let started = Instant::now();
    let mut next = 0;
    while next < load.messages || !under_way.is_empty() {
        while next < load.messages && under_way.len() < load.window {
            next += 1;
            let (key, properties) = (ShortString::try_new(queue.as_str())?, properties()?);
            let (channel, payload) = (&channel, &payload);
            let mut publish = Box::pin(async move {
                let options = BasicPublishOptions { mandatory: true, immediate: false };
                channel.basic_publish(ShortString::default(), key, options, payload, properties).await?.await
            });
            // The first poll queues the frames.
            let polled = poll_fn(|context| Poll::Ready(publish.as_mut().poll(context))).await;
            match polled {
                Poll::Ready(confirmed) => ends.confirmed += u64::from(matches!(confirmed?, Confirmation::Ack(None))),
                Poll::Pending => under_way.push(publish),
            }
        }
        if let Some(confirmed) = under_way.next().await {
            ends.confirmed += u64::from(matches!(confirmed?, Confirmation::Ack(None)));
        }
    }
    drop(under_way);
    let rate = load.messages as f64 / started.elapsed().as_secs_f64();
    connection.close(200, ShortString::default()).await?;
    Ok((rate, ends))
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|i| b'a' + (i % 26) as u8).collect()
}

/// What our producer writes, made the same way: a fresh id, the time.
fn properties() -> Result<BasicProperties, Error> {
    let us = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    let mut headers = FieldTable::default();
    headers.insert(ShortString::try_new("correio-sent-at-us")?, AMQPValue::LongLongInt(us.try_into()?));
    Ok(BasicProperties::default()
        .with_message_id(ShortString::try_new(fresh_id().as_str())?)
        .with_app_id(ShortString::try_new("bench")?)
        .with_type(ShortString::try_new("bench")?)
        .with_timestamp(us / 1_000_000)
        .with_delivery_mode(2)
        .with_headers(headers))
}
