//! What stands on a queue, read by a plain client.

use std::{collections::BTreeMap, time::Duration};

use correio_broker_config::wire;
use correio_lab::broker::{Login, Node};
use correio_message::{Envelope, Route, ShortText};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;

const STEP: Duration = Duration::from_secs(10);

/// A plain connection of the lab's own user, which may do everything.
///
/// # Panics
///
/// If the broker does not answer.
pub async fn plain(node: &Node) -> (Connection, Channel) {
    let url = node.amqp_url(Login::Lab);
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
    let (connection, channel) = plain(node).await;
    let mut taken = Vec::new();
    loop {
        let getting = channel.basic_get(name(queue), BasicGetOptions { no_ack: false });
        let Some(got) = timeout(STEP, getting).await.expect("in time").expect("an answer") else { break };
        let delivery = got.delivery;
        taken.push(Envelope {
            route: Route {
                exchange: ShortText::new(delivery.exchange.as_str()).expect("short"),
                routing_key: ShortText::new(delivery.routing_key.as_str()).expect("short"),
            },
            properties: wire::from_lapin(&delivery.properties),
            body: delivery.data.clone().into(),
        });
        delivery.acker.ack(BasicAckOptions::default()).await.expect("acked");
    }
    timeout(STEP, connection.close(200, ShortString::default())).await.expect("in time").expect("closed");
    taken
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
