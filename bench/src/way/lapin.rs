//! lapin used directly: with confirms, each publish awaited or all polled together; and without.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::Poll,
    time::{SystemTime, UNIX_EPOCH},
};

use correio_producer::fresh_id;
use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    Error, Load,
    sample::{Ends, Sample},
    usage::Stopwatch,
};

/// lapin as its examples use it, with a window: each `basic_publish` is awaited, its confirm is not until the window is full.
pub(super) async fn awaited(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    let (connection, channel) = connect(url).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let payload = load.payload();
    let mut ends = Ends::default();
    let mut confirms: VecDeque<PublisherConfirm> = VecDeque::with_capacity(load.window);
    let watch = Stopwatch::start()?;
    for _ in 0..load.messages {
        let (key, properties) = (ShortString::try_new(queue)?, properties(PERSISTENT)?);
        confirms.push_back(channel.basic_publish(ShortString::default(), key, MANDATORY, &payload, properties).await?);
        if confirms.len() >= load.window
            && let Some(confirm) = confirms.pop_front()
        {
            count(&mut ends, &confirm.await?);
        }
    }
    for confirm in confirms {
        count(&mut ends, &confirm.await?);
    }
    let sample = Sample::taken(watch, ends)?;
    connection.close(200, ShortString::default()).await?;
    Ok(sample)
}

/// lapin at its best: the same task starts publishes without awaiting each, and polls all of them together.
///
/// It is the ceiling: no handing over between tasks, no outcome for each message, no resend.
pub(super) async fn polled_together(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    let (connection, channel) = connect(url).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let payload = load.payload();
    let mut ends = Ends::default();
    let mut under_way = FuturesUnordered::new();
    let watch = Stopwatch::start()?;
    let mut next = 0;
    while next < load.messages || !under_way.is_empty() {
        while next < load.messages && under_way.len() < load.window {
            next += 1;
            let (key, properties) = (ShortString::try_new(queue)?, properties(PERSISTENT)?);
            let (channel, payload) = (&channel, &payload);
            let mut publish = Box::pin(async move {
                channel.basic_publish(ShortString::default(), key, MANDATORY, payload, properties).await?.await
            });
            // The first poll queues the frames.
            match poll_fn(|context| Poll::Ready(publish.as_mut().poll(context))).await {
                Poll::Ready(confirmed) => count(&mut ends, &confirmed?),
                Poll::Pending => under_way.push(publish),
            }
        }
        if let Some(confirmed) = under_way.next().await {
            count(&mut ends, &confirmed?);
        }
    }
    drop(under_way);
    let sample = Sample::taken(watch, ends)?;
    connection.close(200, ShortString::default()).await?;
    Ok(sample)
}

/// lapin's own fire and forget. As with ours, the first message is not timed and the end of the connection is.
pub(super) async fn fire(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    let (connection, channel) = connect(url).await?;
    let payload = load.payload();
    let publish = async || -> Result<(), Error> {
        let (key, properties) = (ShortString::try_new(queue)?, properties(TRANSIENT)?);
        let options = BasicPublishOptions::default();
        channel.basic_publish(ShortString::default(), key, options, &payload, properties).await?;
        Ok(())
    };
    publish().await?;
    let watch = Stopwatch::start()?;
    for _ in 1..load.messages {
        publish().await?;
    }
    connection.close(200, ShortString::default()).await?;
    Sample::taken(watch, Ends { fired: load.messages, ..Ends::default() })
}

async fn connect(url: &str) -> Result<(Connection, Channel), Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

fn count(ends: &mut Ends, confirmation: &Confirmation) {
    match confirmation {
        Confirmation::Ack(None) => ends.confirmed += 1,
        _ => ends.wrong += 1,
    }
}

/// What our producer writes, made the same way: a fresh id, the time.
fn properties(delivery_mode: u8) -> Result<BasicProperties, Error> {
    let us = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    let mut headers = FieldTable::default();
    headers.insert(ShortString::try_new("correio-sent-at-us")?, AMQPValue::LongLongInt(us.try_into()?));
    Ok(BasicProperties::default()
        .with_message_id(ShortString::try_new(fresh_id().as_str())?)
        .with_app_id(ShortString::try_new("bench")?)
        .with_type(ShortString::try_new("bench")?)
        .with_timestamp(us / 1_000_000)
        .with_delivery_mode(delivery_mode)
        .with_headers(headers))
}

const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;
