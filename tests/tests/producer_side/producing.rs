//! Guarantees 1 and 2 on a real broker: what the producer says of a message is true.

use std::time::Duration;

use correio_lab::broker::{Login, Node, QueueKind, for_each};
use correio_producer::{
    Address, Destination, Key, Message, OnHole, Outcome, Producer, ProducerSettings, Route, SendFailure, ShortText,
};
use correio_tests::{
    consuming::until_depth,
    queues::{by_id, exchange_with, fresh, take_all},
};

fn route(exchange: &str, routing_key: &str) -> Destination {
    Destination::Route(Route {
        exchange: ShortText::new(exchange).unwrap(),
        routing_key: ShortText::new(routing_key).unwrap(),
    })
}

fn settings(node: &Node) -> ProducerSettings {
    ProducerSettings::new(Address::parse(&node.amqp_url(Login::Lab)).unwrap(), "tests").unwrap()
}

async fn connect(node: &Node) -> Producer {
    Producer::connect(settings(node)).await.unwrap()
}

const CLOSE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_a_missing_exchange_fail_alone_and_the_good_ones_among_them_are_confirmed() {
    for_each(async |node| {
        let queue = fresh("good");
        node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
        let producer = connect(node).await;
        let mut receipts = Vec::new();
        for number in 0..60 {
            let bad = number % 20 == 7;
            let to = if bad { route("no-such-exchange", "x") } else { route("", &queue) };
            receipts.push((bad, producer.submit(Message::new(to, format!("{number}"))).await.unwrap()));
        }
        for (bad, receipt) in receipts {
            let outcome = receipt.await.unwrap();
            if bad {
                let Outcome::Unroutable { reason, .. } = outcome else { panic!("{outcome}") };
                assert!(reason.starts_with("404") && reason.contains("no-such-exchange"), "{reason}");
            } else {
                assert!(outcome.is_confirmed(), "{outcome}");
            }
        }
        let taken = by_id(&take_all(node, &queue).await);
        assert_eq!(taken.len(), 57);
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_to_write_is_told_so_and_by_name() {
    for_each(async |node| {
        let address = Address::parse(&node.amqp_url(Login::Student)).unwrap();
        let producer = Producer::connect(ProducerSettings::new(address, "tests").unwrap()).await.unwrap();
        let outcome = producer.send(Message::new(Destination::queue("orders").unwrap(), "x")).await.unwrap();
        let Outcome::Refused { reason, .. } = outcome else { panic!("{outcome}") };
        assert!(reason.starts_with("403") && reason.contains("student"), "{reason}");
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_count_from_one_for_each_key_and_what_reached_no_queue_is_declared_void() {
    for_each(async |node| {
        let (queue, exchange) = (fresh("q"), fresh("x"));
        node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
        exchange_with(node, &exchange, &[]).await;
        let producer = Producer::connect(settings(node).on_hole(OnHole::Void)).await.unwrap();
        let to = route(&exchange, &queue);
        let keyed = |key: &str| Message::new(to.clone(), "x").with_key(Key::new(key).unwrap());
        // Nothing is bound yet: number 1 of the key reaches no queue.
        assert!(matches!(producer.send(keyed("a")).await.unwrap(), Outcome::Unroutable { .. }));
        exchange_with(node, &exchange, &[&queue]).await;
        for key in ["a", "b", "a"] {
            assert!(producer.send(keyed(key)).await.unwrap().is_confirmed());
        }
        producer.close(CLOSE).await;
        let mut seen = Vec::new();
        for envelope in take_all(node, &queue).await {
            let sequence = envelope.decode().unwrap().message.sequence.unwrap();
            let voids: Vec<_> = sequence.voids.iter().map(u64::from).collect();
            seen.push((sequence.line.key.to_string(), sequence.number.get(), voids));
        }
        assert_eq!(seen, [("a".into(), 2, vec![1]), ("b".into(), 1, vec![]), ("a".into(), 3, vec![])]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_message_of_an_id_that_is_outstanding_waits_and_both_get_an_answer() {
    for_each(async |node| {
        let queue = fresh("q");
        node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
        let producer = connect(node).await;
        let message = Message::new(route("", &queue), "x").with_id(correio_producer::fresh_id());
        let first = producer.submit(message.clone()).await.unwrap();
        let second = producer.submit(message).await.unwrap();
        assert!(first.await.unwrap().is_confirmed() && second.await.unwrap().is_confirmed());
        assert_eq!(by_id(&take_all(node, &queue).await).into_values().collect::<Vec<_>>(), [2]);
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_left_comes_back_with_its_reason_and_a_closed_producer_takes_nothing() {
    for_each(async |node| {
        let producer = Producer::connect(settings(node).payload_limit(10)).await.unwrap();
        let refused = producer.send(Message::new(route("", "q"), "12345678901")).await.unwrap_err();
        assert_eq!(refused.cause, SendFailure::TooLarge { size: 11, limit: 10 });
        assert_eq!(&refused.message.payload[..], b"12345678901");
        producer.close(CLOSE).await;
        let refused = producer.send(Message::new(route("", "q"), "1")).await.unwrap_err();
        assert_eq!(refused.cause, SendFailure::Closed);
        let refused = producer.fire(Message::new(route("", "q"), "1")).await.unwrap_err();
        assert_eq!(refused.cause, SendFailure::Closed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fire_says_nothing_of_what_no_queue_took_and_close_waits_for_the_rest_to_leave() {
    for_each(async |node| {
        let queue = fresh("q");
        node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
        let producer = connect(node).await;
        for number in 0..1_000 {
            let to = if number % 2 == 0 { route("", &queue) } else { route("", "nobody-lives-here") };
            producer.fire(Message::new(to, "x")).await.unwrap();
        }
        producer.close(CLOSE).await;
        assert_eq!((producer.counts().fired, producer.counts().fire_dropped), (1_000, 0));
        // Nobody answered, so the broker may still be at them.
        until_depth(node, &queue, 500).await;
        assert_eq!(take_all(node, &queue).await.len(), 500, "half of them are gone, and nobody was told");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_lets_what_was_handed_in_come_to_its_outcome() {
    for_each(async |node| {
        let queue = fresh("q");
        node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
        let producer = connect(node).await;
        let mut receipts = Vec::new();
        for _ in 0..500 {
            receipts.push(producer.submit(Message::new(route("", &queue), "x")).await.unwrap());
        }
        producer.close(CLOSE).await;
        for receipt in receipts {
            assert!(receipt.await.unwrap().is_confirmed());
        }
        assert_eq!(take_all(node, &queue).await.len(), 500);
    })
    .await;
}
