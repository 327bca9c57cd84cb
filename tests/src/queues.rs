//! What stands on a queue, read by a plain client.

use std::{collections::BTreeMap, time::Duration};

use correio_broker_config::wire;
use correio_lab::broker::{Login, Node};
use correio_message::{Envelope, Route, ShortText};
use futures_util::StreamExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::{Instant, timeout};

const STEP: Duration = Duration::from_secs(10);
/// So long a delivery of a message that is ready may take.
const NEXT: Duration = Duration::from_secs(1);
/// So many deliveries may be on their way while a queue is emptied.
const AT_ONCE: u16 = 1_000;

/// A plain connection of the lab's own user, which may do everything.
///
/// # Panics
///
/// If the broker does not answer.
pub async fn plain(node: &Node) -> (Connection, Channel) {
    // The client library's task for heartbeats outlives the connection until the next of them.
    let url = format!("{}?heartbeat=4", node.amqp_url(Login::Lab));
    let connecting = Connection::connect(&url, ConnectionProperties::default());
    let connection = timeout(STEP, connecting).await.expect("in time").expect("connected");
    let channel = timeout(STEP, connection.create_channel()).await.expect("in time").expect("a channel");
    (connection, channel)
}

/// Takes everything off a queue, in its order.
///
/// # Panics
///
/// If the broker does not answer.
pub async fn take_all(node: &Node, queue: &str) -> Vec<Envelope> {
    let mut taken = Vec::new();
    take_each(node, queue, |envelope| taken.push(envelope)).await;
    taken
}

/// Takes everything off a queue and shows each message once, in the order of the queue: for more than fits into memory.
///
/// # Panics
///
/// If the broker does not answer.
pub async fn take_each(node: &Node, queue: &str, mut show: impl FnMut(Envelope)) {
    let mut last_taken = Instant::now();
    loop {
        let (ready, taken) = take_what_is_ready(node, queue, &mut show).await;
        if ready == 0 {
            return;
        }
        if taken > 0 {
            last_taken = Instant::now();
        }
        assert!(last_taken.elapsed() < STEP, "{queue} gives none of its {ready} messages");
    }
}

/// How many were ready at a look, and how many of these came: fewer, if some expired.
async fn take_what_is_ready(node: &Node, queue: &str, show: &mut impl FnMut(Envelope)) -> (u32, u32) {
    let (connection, channel) = plain(node).await;
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let looking = channel.queue_declare(name(queue), passive, FieldTable::default());
    let ready = timeout(STEP, looking).await.expect("in time").expect("the queue is there").message_count();
    let mut taken = 0;
    if ready > 0 {
        channel.basic_qos(AT_ONCE, BasicQosOptions::default()).await.expect("a prefetch");
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = channel.basic_consume(name(queue), name(""), options, none);
        let mut deliveries = timeout(STEP, consuming).await.expect("in time").expect("consuming");
        let mut unacknowledged = None;
        while taken < ready
            && let Ok(next) = timeout(NEXT, deliveries.next()).await
        {
            let delivery = next.expect("the queue is there").expect("a delivery");
            show(Envelope {
                route: Route {
                    exchange: ShortText::new(delivery.exchange.as_str()).expect("short"),
                    routing_key: ShortText::new(delivery.routing_key.as_str()).expect("short"),
                },
                properties: wire::from_lapin(&delivery.properties),
                body: delivery.data.into(),
            });
            taken += 1;
            unacknowledged = Some(delivery.delivery_tag);
            if taken % u32::from(AT_ONCE / 4) == 0 {
                acknowledge(&channel, unacknowledged.take()).await;
            }
        }
        acknowledge(&channel, unacknowledged.take()).await;
    }
    // What it was given beyond its count goes back to the queue with it.
    timeout(STEP, connection.close(200, ShortString::default())).await.expect("in time").expect("closed");
    (ready, taken)
}

/// Up to this one, if there is one.
async fn acknowledge(channel: &Channel, tag: Option<u64>) {
    if let Some(tag) = tag {
        channel.basic_ack(tag, BasicAckOptions { multiple: true }).await.expect("acknowledged");
    }
}

/// Waits until a queue has so many consumers, those that stand by included.
///
/// # Panics
///
/// If it does not come to that.
pub async fn until_consumers(node: &Node, queue: &str, wanted: usize) {
    let mut last = None;
    let reached = async {
        while last != Some(wanted) {
            // A passive declare does not do: 3.10 counts only the active one of a queue with a single active consumer.
            let listed = node.ctl(&["-q", "list_consumers", "queue_name"]).await.expect("the consumers");
            last = Some(listed.lines().filter(|line| line.trim() == queue).count());
        }
    };
    assert!(timeout(3 * STEP, reached).await.is_ok(), "{queue} has {last:?} consumers, not {wanted}");
}

/// How often each id stands among these.
#[must_use]
pub fn by_id(taken: &[Envelope]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for envelope in taken {
        let id = envelope.properties.message_id.as_ref().map(ToString::to_string).unwrap_or_default();
        *counts.entry(id).or_default() += 1;
    }
    counts
}

/// A direct exchange of the test's own, with queues bound to it by their names.
///
/// # Panics
///
/// If the broker refuses.
pub async fn exchange_with(node: &Node, exchange: &str, queues: &[&str]) {
    let (connection, channel) = plain(node).await;
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let kind = lapin::ExchangeKind::Direct;
    channel.exchange_declare(name(exchange), kind, options, FieldTable::default()).await.expect("an exchange");
    for queue in queues {
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        channel.queue_declare(name(queue), passive, FieldTable::default()).await.expect("the queue is there");
        channel
            .queue_bind(name(queue), name(exchange), name(queue), QueueBindOptions::default(), FieldTable::default())
            .await
            .expect("bound");
    }
    timeout(STEP, connection.close(200, ShortString::default())).await.expect("in time").expect("closed");
}

/// A name for the client library.
#[must_use]
pub fn name(text: &str) -> ShortString {
    ShortString::try_new(text).expect("a short name")
}

/// A name that no other test uses.
#[must_use]
pub fn fresh(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::now_v7().simple())
}
