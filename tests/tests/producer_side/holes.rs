//! Guarantees 2 and 5 where a numbered message is not on its queue: its key stops until its sender decides, and nobody waits
//! for a number that was declared void.

use std::{num::NonZeroU64, time::Duration};

use correio_lab::{
    broker::{Login, Node, QueueKind, for_each},
    faults::Proxy,
};
use correio_producer::{
    Address, Destination, Envelope, Health, Key, Message, MessageId, OnHole, Outcome, Producer, ProducerSettings,
    Route, SendError, SendFailure, ShortText,
};
use correio_tests::queues::{exchange_with, fresh, take_all};
use tokio::time::{Instant, sleep, timeout};

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(url: &str) -> ProducerSettings {
    ProducerSettings::new(Address::parse(url).unwrap(), "tests").unwrap()
}

fn to(exchange: &str, queue: &str) -> Destination {
    let (exchange, routing_key) = (ShortText::new(exchange).unwrap(), ShortText::new(queue).unwrap());
    Destination::Route(Route { exchange, routing_key })
}

fn keyed(to: &Destination, key: &str, text: &str) -> Message {
    Message::new(to.clone(), text.to_owned()).with_key(Key::new(key).unwrap())
}

/// What stands there: its number, its payload or `marker`, and its voids.
fn place(envelope: &Envelope) -> (u64, String, Vec<u64>) {
    let decoded = envelope.decode().unwrap();
    let sequence = decoded.message.sequence.unwrap();
    let text = if decoded.is_marker { "marker".into() } else { String::from_utf8_lossy(&envelope.body).into_owned() };
    (sequence.number.get(), text, sequence.voids.iter().map(NonZeroU64::get).collect())
}

async fn places(node: &Node, queue: &str) -> Vec<(u64, String, Vec<u64>)> {
    take_all(node, queue).await.iter().map(place).collect()
}

/// A queue and an exchange that does not lead there yet.
async fn unbound(node: &Node) -> (String, String) {
    let (queue, exchange) = (fresh("q"), fresh("x"));
    node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
    exchange_with(node, &exchange, &[]).await;
    (queue, exchange)
}

/// Number 1 of the key `a`, which reaches no queue.
async fn hole(producer: &Producer, to: &Destination) -> MessageId {
    let receipt = producer.submit(keyed(to, "a", "one")).await.unwrap();
    let id = receipt.id().clone();
    assert!(matches!(receipt.await.unwrap(), Outcome::Unroutable { .. }));
    id
}

fn stopped_by(result: Result<Outcome, SendError>) -> MessageId {
    match result.expect_err("its key is stopped").cause {
        SendFailure::KeyStopped { by } => by,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_hole_stops_until_its_message_is_sent_again_and_other_keys_go_on() {
    for_each(async |node| {
        let (queue, exchange) = unbound(node).await;
        let (to, producer) =
            (to(&exchange, &queue), Producer::connect(settings(&node.amqp_url(Login::Lab))).await.unwrap());
        let id = hole(&producer, &to).await;
        exchange_with(node, &exchange, &[&queue]).await;
        let refused = producer.send(keyed(&to, "a", "too early")).await;
        assert_eq!(refused.as_ref().unwrap_err().message.payload, "too early");
        assert_eq!(stopped_by(refused), id);
        assert!(producer.send(keyed(&to, "b", "other")).await.unwrap().is_confirmed());
        // Another stream of the same key is another line.
        assert!(producer.send(keyed(&self::to("", &queue), "a", "elsewhere")).await.unwrap().is_confirmed());

        let again = producer.resend(&id).await.unwrap();
        let after = producer.submit(keyed(&to, "a", "two")).await.unwrap();
        assert!(again.await.unwrap().is_confirmed() && after.await.unwrap().is_confirmed());
        assert_eq!(producer.resend(&id).await.unwrap_err().id, id, "decided");
        assert!(producer.void(&id).await.is_err());
        producer.close(CLOSE).await;
        let there: Vec<_> = places(node, &queue).await.into_iter().map(|(number, text, _)| (number, text)).collect();
        let wanted = [(1, "other"), (1, "elsewhere"), (1, "one"), (2, "two")];
        assert_eq!(there, wanted.map(|(number, text)| (number, text.to_owned())));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_void_number_travels_on_the_next_message_of_its_key() {
    for_each(async |node| {
        let (queue, exchange) = unbound(node).await;
        let (to, producer) =
            (to(&exchange, &queue), Producer::connect(settings(&node.amqp_url(Login::Lab))).await.unwrap());
        let id = hole(&producer, &to).await;
        exchange_with(node, &exchange, &[&queue]).await;
        producer.void(&id).await.unwrap();
        assert!(producer.send(keyed(&to, "a", "two")).await.unwrap().is_confirmed());
        producer.close(CLOSE).await;
        assert_eq!(places(node, &queue).await, [(2, "two".to_owned(), vec![1])], "and no marker says it again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_key_gets_a_marker_and_one_without_a_decision_when_its_producer_closes() {
    for_each(async |node| {
        for on_hole in [OnHole::Void, OnHole::Stop] {
            let queue = fresh("q");
            node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
            let proxy = Proxy::start(node.amqp_address()).await.unwrap();
            let url = node.amqp_url_through(Login::Lab, proxy.address());
            let settings = settings(&url).confirm_deadline(Duration::from_secs(2)).on_hole(on_hole);
            let producer = Producer::connect(settings).await.unwrap();
            producer.health().until(Health::is_good).await.unwrap();
            let to = to("", &queue);
            assert!(producer.send(keyed(&to, "a", "one")).await.unwrap().is_confirmed());
            // Number 2 never arrives, however often it is sent.
            proxy.lose_publishes(0, None);
            let lost = producer.submit(keyed(&to, "a", "two")).await.unwrap();
            assert!(matches!(timeout(PATIENCE, lost).await.unwrap().unwrap(), Outcome::Unknown { tries: 1.. }));
            proxy.pass();
            let wanted = vec![(1, "one".to_owned(), vec![]), (2, "marker".to_owned(), vec![])];
            assert_eq!(producer.holes().len(), usize::from(on_hole == OnHole::Stop));
            if on_hole == OnHole::Void {
                let until = Instant::now() + PATIENCE;
                while node.queue_depth(&queue).await.unwrap() < 2 {
                    assert!(Instant::now() < until, "no marker came");
                    sleep(Duration::from_millis(20)).await;
                }
            }
            producer.close(CLOSE).await;
            proxy.stop().await;
            assert_eq!(places(node, &queue).await, wanted, "{on_hole:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_declares_what_is_void_at_once() {
    for_each(async |node| {
        let (open, full, exchange) = (fresh("open"), fresh("full"), fresh("x"));
        node.declare_queue(&open, QueueKind::Quorum).await.unwrap();
        node.declare_queue(&full, QueueKind::FullAfterOne).await.unwrap();
        exchange_with(node, &exchange, &[&full]).await;
        let producer = Producer::connect(settings(&node.amqp_url(Login::Lab))).await.unwrap();
        let to = to(&exchange, &full);
        let refused = loop {
            let receipt = producer.submit(keyed(&to, "a", "x")).await.unwrap();
            let id = receipt.id().clone();
            if !receipt.await.unwrap().is_confirmed() {
                break id;
            }
        };
        let before = take_all(node, &full).await.len() as u64;
        producer.void(&refused).await.unwrap();
        producer.close(CLOSE).await;
        let there = places(node, &full).await;
        assert_eq!(there, [(before + 1, "marker".to_owned(), vec![])]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_counts_for_what_is_handed_in_after_it() {
    for_each(async |node| {
        let (queue, exchange) = unbound(node).await;
        let settings = settings(&node.amqp_url(Login::Lab)).window(1);
        let (to, producer) = (to(&exchange, &queue), Producer::connect(settings).await.unwrap());
        let first = producer.submit(keyed(&to, "a", "one")).await.unwrap();
        let second = producer.submit(keyed(&to, "a", "two")).await.unwrap();
        let mut others = Vec::new();
        for _ in 0..200 {
            others.push(producer.submit(Message::new(self::to("", &queue), "other")).await.unwrap());
        }
        let third = producer.submit(keyed(&to, "a", "three")).await.unwrap();
        let id = first.id().clone();
        assert!(matches!(first.await.unwrap(), Outcome::Unroutable { .. }));
        // The second is back already; were the third let through now, a second one that is sent again would come behind it.
        producer.void(&id).await.unwrap();
        assert_eq!(stopped_by(second.await), id);
        assert_eq!(stopped_by(third.await), id);
        let fourth = producer.send(keyed(&to, "a", "four")).await.unwrap();
        assert!(matches!(fourth, Outcome::Unroutable { .. }), "published: {fourth}");
        for other in others {
            assert!(other.await.unwrap().is_confirmed());
        }
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_on_two_lines_leaves_one_hole_to_decide_about_and_no_key_stops_for_ever() {
    for_each(async |node| {
        let (queue, exchange) = unbound(node).await;
        let producer = Producer::connect(settings(&node.amqp_url(Login::Lab))).await.unwrap();
        let (here, there) = (to(&exchange, &queue), to(&exchange, "elsewhere"));
        let id = hole(&producer, &here).await;
        let twin = keyed(&there, "a", "twin").with_id(id.clone());
        assert!(matches!(producer.send(twin).await.unwrap(), Outcome::Unroutable { .. }));
        assert_eq!(producer.holes(), std::slice::from_ref(&id));
        let next = producer.send(keyed(&there, "a", "next")).await.unwrap();
        assert!(matches!(next, Outcome::Unroutable { .. }), "its number was void at once");
        exchange_with(node, &exchange, &[&queue]).await;
        assert!(producer.resend(&id).await.unwrap().await.unwrap().is_confirmed());
        assert!(producer.send(keyed(&here, "a", "two")).await.unwrap().is_confirmed());
        producer.close(CLOSE).await;
        assert_eq!(places(node, &queue).await.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_subscribed_to_stops_no_key() {
    for_each(async |node| {
        let producer = Producer::connect(settings(&node.amqp_url(Login::Producer))).await.unwrap();
        let event = Destination::topic(fresh("nobody.cares")).unwrap();
        for _ in 0..2 {
            let outcome = producer.send(keyed(&event, "a", "x")).await.unwrap();
            assert!(matches!(outcome, Outcome::Unroutable { .. }), "{outcome}");
        }
        assert_eq!(producer.holes(), []);
        producer.close(CLOSE).await;
    })
    .await;
}
