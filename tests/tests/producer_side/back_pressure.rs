//! Guarantee 9: what the broker does not take waits in bounded room, and who sends hears of it.

use std::time::Duration;

use correio_lab::{
    broker::{Login, Node, NodeOptions, QueueKind, for_each, for_each_own},
    faults::{Direction, Ending, Proxy},
};
use correio_producer::{
    Address, Destination, Health, HealthWatch, Key, Message, Outcome, Producer, ProducerSettings, Route, SendFailure,
    ShortText, metrics,
};
use correio_tests::{
    consuming,
    queues::{fresh, take_all},
    recorded::Recorded,
};
use tokio::time::{sleep, timeout};

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

fn to(queue: &str) -> Destination {
    Destination::Route(Route { exchange: ShortText::new("").unwrap(), routing_key: ShortText::new(queue).unwrap() })
}

async fn queue(node: &Node) -> String {
    let queue = fresh("q");
    node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
    queue
}

fn at(url: &str) -> ProducerSettings {
    ProducerSettings::new(Address::parse(url).unwrap(), "tests").unwrap().confirm_deadline(PATIENCE)
}

async fn until(health: &mut HealthWatch, wanted: impl FnMut(&Health) -> bool) {
    let has_come = matches!(timeout(PATIENCE, health.until(wanted)).await, Ok(Some(_)));
    assert!(has_come, "it is {:?}", health.now());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_published_by_its_deadline_comes_back_and_is_nowhere() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let settings = at(&node.amqp_url_through(Login::Lab, proxy.address()));
        let producer = Producer::connect(settings.window(1).confirm_deadline(Duration::from_secs(2))).await.unwrap();
        until(&mut producer.health(), Health::is_good).await;
        proxy.swallow(Direction::BrokerToClient);
        let first = producer.submit(Message::new(to(&queue), "first")).await.unwrap();
        let second = producer.submit(Message::new(to(&queue), "second")).await.unwrap();
        // The one place is taken until the deadline of both.
        assert!(matches!(timeout(PATIENCE, first).await.unwrap().unwrap(), Outcome::Unknown { tries: 1.. }));
        let id = second.id().clone();
        let back = timeout(PATIENCE, second).await.unwrap().expect_err("it was never published");
        assert!(matches!(back.cause, SendFailure::NotPublished { .. }), "{back}");
        assert_eq!((&back.message.payload[..], back.message.id), (&b"second"[..], Some(id)));
        assert_eq!(producer.counts().not_published, 1);
        producer.close(CLOSE).await;
        proxy.stop().await;
        let there = take_all(node, &queue).await;
        assert!(there.iter().all(|envelope| &envelope.body[..] == b"first"), "not sent, and yet on the queue");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_message_that_was_never_published_comes_back_what_its_key_had_behind_it() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let settings = at(&node.amqp_url_through(Login::Lab, proxy.address()));
        let deadline = Duration::from_secs(3);
        let producer = Producer::connect(settings.window(1).confirm_deadline(deadline)).await.unwrap();
        until(&mut producer.health(), Health::is_good).await;
        proxy.swallow(Direction::BrokerToClient);
        let keyed = |key: &str| Message::new(to(&queue), key.to_owned()).with_key(Key::new(key).unwrap());
        let in_the_way = producer.submit(Message::new(to(&queue), "x")).await.unwrap();
        let first = producer.submit(keyed("a")).await.unwrap();
        sleep(deadline / 3).await;
        let second = producer.submit(keyed("a")).await.unwrap();
        let mut waited = Vec::new();
        for receipt in [first, second] {
            let back = timeout(PATIENCE, receipt).await.unwrap().expect_err("it was never published");
            let SendFailure::NotPublished { waited: so_long } = back.cause else { panic!("{back}") };
            waited.push(so_long);
        }
        assert_eq!(waited[0], waited[1], "the second before its own deadline, for the sake of the first");
        assert!(matches!(timeout(PATIENCE, in_the_way).await.unwrap().unwrap(), Outcome::Unknown { .. }));
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn try_submit_says_at_once_that_there_is_no_room_and_takes_what_there_is_room_for() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let settings = at(&node.amqp_url_through(Login::Lab, proxy.address()));
        let producer = Producer::connect(settings.buffer_bytes(100_000)).await.unwrap();
        proxy.stall(true);
        let mut receipts = Vec::new();
        let full = loop {
            match producer.try_submit(Message::new(to(&queue), vec![b'x'; 1_000])) {
                Ok(receipt) => receipts.push(receipt),
                Err(full) => break full,
            }
            assert!(receipts.len() < 100, "100 messages of 1,000 bytes cannot fit, held twice");
        };
        assert_eq!((&full.cause, full.message.payload.len()), (&SendFailure::Full, 1_000));
        assert!(!receipts.is_empty());
        proxy.stall(false);
        for receipt in receipts {
            assert!(timeout(PATIENCE, receipt).await.unwrap().unwrap().is_confirmed());
        }
        assert!(producer.try_submit(Message::new(to(&queue), "room again")).unwrap().await.unwrap().is_confirmed());
        producer.close(CLOSE).await;
        let closed = producer.try_submit(Message::new(to(&queue), "x")).expect_err("closed");
        assert_eq!(closed.cause, SendFailure::Closed);
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_is_seen_what_is_sent_under_it_waits_and_is_confirmed_when_it_is_over() {
    // An alarm holds up everybody who publishes there.
    for_each_own(NodeOptions::default(), async |node| {
        let queue = queue(node).await;
        let recorded = Recorded::default();
        let listening = recorded.listen();
        let producer = Producer::connect(at(&node.amqp_url(Login::Lab)).channels(2)).await.unwrap();
        drop(listening);
        let mut health = producer.health();
        until(&mut health, Health::is_good).await;
        node.memory_alarm(true).await.unwrap();
        // The broker tells a connection of its alarm when that publishes.
        let receipts: Vec<_> =
            (0..20).map(|n| producer.try_submit(Message::new(to(&queue), format!("{n}"))).unwrap()).collect();
        until(&mut health, |health| *health == Health { channels: 2, open: 2, blocked: 2 }).await;
        assert_eq!(producer.counts().confirmed, 0);
        let (blocked, outstanding) = (metrics::CHANNELS_BLOCKED.name, metrics::OUTSTANDING.name);
        let seen = || (recorded.gauge(blocked, &[]), recorded.gauge(outstanding, &[]));
        consuming::until(|| seen() == (2.0, 20.0), || format!("{:?}", seen())).await;
        node.memory_alarm(false).await.unwrap();
        for receipt in receipts {
            assert!(timeout(PATIENCE, receipt).await.unwrap().unwrap().is_confirmed());
        }
        until(&mut health, Health::is_good).await;
        assert_eq!((producer.counts().reconnected, take_all(node, &queue).await.len()), (0, 20));
        producer.close(CLOSE).await;
        assert_eq!(health.now(), Health { channels: 2, open: 0, blocked: 0 }, "none is left");
        assert_eq!(seen(), (0.0, 0.0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_the_broker_is_away_is_seen_and_that_it_is_back() {
    for_each(async |node| {
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let producer = Producer::connect(at(&node.amqp_url_through(Login::Lab, proxy.address()))).await.unwrap();
        let mut health = producer.health();
        until(&mut health, Health::is_good).await;
        proxy.refuse_new(true).await;
        proxy.cut(Ending::Reset).await;
        until(&mut health, |health| *health == Health { channels: 1, open: 0, blocked: 0 }).await;
        proxy.refuse_new(false).await;
        until(&mut health, Health::is_good).await;
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_at_fault_among_hundreds_costs_a_channel_for_each_halving_and_the_others_nothing() {
    for_each(async |node| {
        let queue = queue(node).await;
        let nowhere = ShortText::new("no-such-exchange").unwrap();
        let bad = Destination::Route(Route { exchange: nowhere, routing_key: ShortText::new("x").unwrap() });
        // Near the front, the broker closes the channel while the others are still being published on it.
        for culprit in [5, 700] {
            let producer = Producer::connect(at(&node.amqp_url(Login::Lab))).await.unwrap();
            let mut receipts = Vec::new();
            for number in 0..1_000 {
                let is_bad = number == culprit;
                let to = if is_bad { bad.clone() } else { to(&queue) };
                receipts.push((is_bad, producer.submit(Message::new(to, format!("{number}"))).await.unwrap()));
            }
            for (is_bad, receipt) in receipts {
                let outcome = timeout(PATIENCE, receipt).await.unwrap().unwrap();
                assert_eq!(matches!(outcome, Outcome::Unroutable { .. }), is_bad, "{outcome}");
                assert!(is_bad || outcome.is_confirmed(), "{outcome}");
            }
            let reconnected = producer.counts().reconnected;
            assert!((1..=12).contains(&reconnected), "{reconnected} channels for one message at fault");
            producer.close(CLOSE).await;
        }
    })
    .await;
}
