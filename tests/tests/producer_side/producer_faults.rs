//! Guarantees 2, 7 and 9 under faults: cut connections, a killed broker, silence.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use correio_lab::{
    broker::{Login, Node, NodeOptions, QueueKind, for_each, for_each_own},
    faults::{Direction, Ending, Proxy},
};
use correio_producer::{
    Address, ConnectError, Destination, Health, Key, Message, Outcome, Producer, ProducerSettings, Receipt, Route,
    SendFailure, ShortText,
};
use correio_tests::{
    queues::{by_id, fresh, take_all},
    scale,
};
use tokio::time::{Instant, sleep, timeout};

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

fn to(queue: &str) -> Destination {
    Destination::Route(Route { exchange: ShortText::new("").unwrap(), routing_key: ShortText::new(queue).unwrap() })
}

fn through(node: &Node, proxy: &Proxy) -> ProducerSettings {
    let url = node.amqp_url_through(Login::Lab, proxy.address());
    ProducerSettings::new(Address::parse(&url).unwrap(), "tests").unwrap()
}

async fn queue(node: &Node) -> String {
    let queue = fresh("q");
    node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
    queue
}

async fn submit(producer: &Producer, queue: &str, count: u64) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for number in 0..count {
        receipts.push(producer.submit(Message::new(to(queue), format!("{number}"))).await.unwrap());
    }
    receipts
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_confirms_are_lost_and_the_connection_is_cut_all_is_sent_again_under_the_same_ids() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let producer = Producer::connect(through(node, &proxy)).await.unwrap();
        proxy.lose_confirms(true);
        let receipts = submit(&producer, &queue, 300).await;
        until("all are on the queue", async || node.queue_depth(&queue).await.unwrap() >= 300).await;
        proxy.lose_confirms(false);
        proxy.cut(Ending::Reset).await;
        let mut ids = BTreeSet::new();
        for receipt in receipts {
            ids.insert(receipt.id().to_string());
            assert!(timeout(PATIENCE, receipt).await.unwrap().unwrap().is_confirmed());
        }
        let taken = by_id(&take_all(node, &queue).await);
        assert_eq!(taken.keys().cloned().collect::<BTreeSet<_>>(), ids, "each is there, under its own id");
        assert!(taken.values().all(|copies| *copies == 2), "each came twice: that is what deduplication is for");
        assert_eq!(producer.counts().resent, 300);
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_swallowed_on_the_way_are_sent_again_and_with_fire_they_are_gone() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let producer = Producer::connect(through(node, &proxy)).await.unwrap();
        proxy.lose_publishes(100, Some(200));
        for receipt in submit(&producer, &queue, 500).await {
            assert!(timeout(PATIENCE, receipt).await.unwrap().unwrap().is_confirmed());
        }
        assert!(proxy.counts().publishes_swallowed >= 200, "{:?}: the fault did nothing", proxy.counts());
        assert_eq!(by_id(&take_all(node, &queue).await).len(), 500);

        // The same with the guarantee off.
        proxy.lose_publishes(100, Some(200));
        for number in 0..500 {
            producer.fire(Message::new(to(&queue), format!("{number}"))).await.unwrap();
        }
        producer.close(CLOSE).await;
        let arrived = take_all(node, &queue).await.len();
        assert!(arrived <= 300, "{arrived} of 500 arrived: nothing was lost, so nothing is shown");
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_again_and_again_each_message_has_one_true_outcome_and_each_key_its_order() {
    for_each(async |node| cut_again_and_again(node, 1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_several_channels_too_each_message_has_one_true_outcome_and_each_key_its_order() {
    for_each(async |node| cut_again_and_again(node, 4).await).await;
}

async fn cut_again_and_again(node: &Node, channels: usize) {
    let (count, cuts) = (scale::of(50_000, 10), scale::of(50, 10));
    let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
    let settings = through(node, &proxy).window(200).channels(channels);
    let producer = Producer::connect(settings).await.unwrap();
    assert_eq!(proxy.open(), channels, "each channel has a connection of its own");
    let sending = async {
        let mut receipts = Vec::new();
        for number in 0..count {
            let key = Key::new(format!("k{}", number % 7)).unwrap();
            let message = Message::new(to(&queue), format!("{number}")).with_key(key);
            receipts.push(producer.submit(message).await.unwrap());
        }
        let mut confirmed = BTreeSet::new();
        for receipt in receipts {
            let id = receipt.id().to_string();
            assert!(timeout(PATIENCE, receipt).await.unwrap().unwrap().is_confirmed());
            confirmed.insert(id);
        }
        confirmed
    };
    let cutting = async {
        let share = count / (cuts + 1);
        for cut in 1..=cuts {
            until("so much was confirmed", async || producer.counts().confirmed >= cut * share).await;
            proxy.cut(if cut % 2 == 0 { Ending::Reset } else { Ending::Finish }).await;
        }
    };
    let (confirmed, ()) = tokio::join!(sending, cutting);
    assert!(producer.counts().reconnected > 0);
    producer.close(CLOSE).await;
    proxy.stop().await;

    let taken = take_all(node, &queue).await;
    let there: BTreeSet<_> = by_id(&taken).into_keys().collect();
    assert_eq!(there, confirmed, "confirmed is on the queue, and nothing else is");
    let mut last = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for envelope in taken {
        let message = envelope.decode().unwrap().message;
        if !seen.insert(message.id.clone()) {
            continue;
        }
        let sequence = message.sequence.unwrap();
        let number = sequence.number.get();
        let before = last.insert(sequence.line.key.clone(), number).unwrap_or(0);
        assert_eq!(
            number,
            before + 1,
            "key {}: after its copies are dropped, each follows the one before",
            sequence.line.key
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_a_broker_killed_under_load() {
    let kills = scale::of(5, 5).max(1);
    for_each_own(NodeOptions::default(), async |node| {
        let queue = queue(node).await;
        node.settle_before_kill().await;
        let address = Address::parse(&node.amqp_url(Login::Lab)).unwrap();
        let producer = Producer::connect(ProducerSettings::new(address, "tests").unwrap().confirm_deadline(PATIENCE))
            .await
            .unwrap();
        let mut confirmed = BTreeSet::new();
        for _ in 0..kills {
            let receipts = submit(&producer, &queue, 2_000).await;
            node.kill_at_once().await.unwrap();
            node.restart().await.unwrap();
            for receipt in receipts {
                let id = receipt.id().to_string();
                if timeout(2 * PATIENCE, receipt).await.unwrap().unwrap().is_confirmed() {
                    confirmed.insert(id);
                }
            }
        }
        assert!(!confirmed.is_empty());
        producer.close(CLOSE).await;
        let there: BTreeSet<_> = by_id(&take_all(node, &queue).await).into_keys().collect();
        let lost: Vec<_> = confirmed.difference(&there).collect();
        assert!(lost.is_empty(), "{} of {} confirmed messages are lost: {lost:?}", lost.len(), confirmed.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_falls_silent_ends_in_unknown_by_the_deadline_and_what_comes_later_is_confirmed() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let deadline = Duration::from_secs(2);
        let producer = Producer::connect(through(node, &proxy).confirm_deadline(deadline)).await.unwrap();
        assert!(producer.send(Message::new(to(&queue), "w")).await.unwrap().is_confirmed());
        proxy.swallow(Direction::BrokerToClient);
        let silent = producer.submit(Message::new(to(&queue), "x")).await.unwrap();
        let outcome = timeout(PATIENCE, silent).await.unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Unknown { tries: 1.. }), "{outcome}");
        // The silent channel was ended: a new connection answers.
        let later = producer.send(Message::new(to(&queue), "y")).await.unwrap();
        assert!(later.is_confirmed());
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_a_message_comes_back_by_the_deadline_and_the_buffer_stays_within_its_bytes() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let settings = through(node, &proxy).buffer_bytes(100_000).room_deadline(Duration::from_millis(300));
        let producer = Producer::connect(settings.confirm_deadline(PATIENCE)).await.unwrap();
        proxy.stall(true);
        let mut receipts = Vec::new();
        let refused = loop {
            match producer.submit(Message::new(to(&queue), vec![b'x'; 1_000])).await {
                Ok(receipt) => receipts.push(receipt),
                Err(refused) => break refused,
            }
            assert!(receipts.len() < 100, "100 messages of 1,000 bytes cannot fit, held twice");
        };
        assert!(matches!(refused.cause, SendFailure::NoRoom { .. }), "{refused}");
        assert_eq!(refused.message.payload.len(), 1_000);
        proxy.stall(false);
        for receipt in receipts {
            assert!(timeout(PATIENCE, receipt).await.unwrap().unwrap().is_confirmed());
        }
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_gives_up_on_a_silent_broker_in_bounded_time_and_says_unknown() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let producer = Producer::connect(through(node, &proxy)).await.unwrap();
        producer.health().until(Health::is_good).await.unwrap();
        proxy.stall(true);
        let receipts = submit(&producer, &queue, 10).await;
        timeout(PATIENCE, producer.close(Duration::from_secs(1))).await.unwrap();
        for receipt in receipts {
            assert!(matches!(timeout(CLOSE, receipt).await.unwrap(), Ok(Outcome::Unknown { .. })));
        }
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_a_broker_and_one_that_stays_silent_are_told_apart_within_the_deadline() {
    for_each(async |node| {
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        proxy.stall(true);
        let settings = through(node, &proxy).connect_deadline(Duration::from_secs(1));
        let silent = timeout(PATIENCE, Producer::connect(settings.clone())).await.unwrap().unwrap_err();
        assert!(matches!(silent, ConnectError::TimedOut { .. }), "{silent}");
        proxy.refuse_new(true).await;
        let gone = timeout(PATIENCE, Producer::connect(settings)).await.unwrap().unwrap_err();
        assert!(matches!(gone, ConnectError::NoBroker { .. }), "{gone}");
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_never_confirms_is_met_with_growing_pauses_and_no_connection_is_left_over() {
    for_each(async |node| {
        let (queue, proxy) = (queue(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let settings = through(node, &proxy).confirm_deadline(Duration::from_secs(1));
        let producer = Producer::connect(settings).await.unwrap();
        proxy.lose_confirms(true);
        // Deadlines pass one after another, for some seconds.
        let mut receipts = Vec::new();
        for number in 0..300 {
            receipts.push(producer.submit(Message::new(to(&queue), format!("{number}"))).await.unwrap());
            sleep(Duration::from_millis(10)).await;
        }
        for receipt in receipts {
            match timeout(PATIENCE, receipt).await.unwrap() {
                Ok(outcome) => assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome}"),
                // Between two channels nothing is published.
                Err(error) => assert!(matches!(error.cause, SendFailure::NotPublished { .. }), "{error}"),
            }
        }
        let connections = proxy.counts().connections;
        assert!(connections <= 12, "{connections} connections in a few seconds: each sends all of the window again");
        until("only one is open", async || proxy.open() <= 1).await;
        producer.close(CLOSE).await;
        until("none is open", async || proxy.open() == 0).await;
        proxy.stop().await;
    })
    .await;
}
