//! Passwords that are wrong, that change in their file, that the broker takes back.

use std::{path::Path, time::Duration};

use correio_broker_config::{Address, ConnectError};
use correio_consumer::{CancellationToken, ConsumeError, Consumer, Processing};
use correio_lab::broker::{Login, Node, NodeOptions, for_each_own};
use correio_producer::{Destination, Message, Producer, ProducerSettings};
use correio_tests::consuming::{AT_ONCE, Running, Seen, shared, short_retries};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::reaching::{DEADLINE, connections, reach};

/// A user of the test's own, who may do everything, with its address.
async fn user(node: &Node, name: &str, password: &str) -> Address {
    node.ctl(&["add_user", name, password]).await.unwrap();
    node.ctl(&["set_permissions", "-p", "/", name, ".*", ".*", ".*"]).await.unwrap();
    let port = node.amqp_address().port();
    Address::new("127.0.0.1", port, name, password)
}

async fn change_password(node: &Node, name: &str, password: &str) {
    node.ctl(&["change_password", name, password]).await.unwrap();
}

async fn cut(node: &Node) {
    node.ctl(&["close_all_connections", "by the test"]).await.unwrap();
}

fn consumer(address: Address, queue: &str) -> correio_consumer::ConsumerBuilder {
    let processing = Processing::Independent { at_once: AT_ONCE, retry: short_retries(1) };
    Consumer::builder(address).queue(queue).processing(processing)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changed_in_its_file_while_running_is_used_after_the_next_loss() {
    for_each_own(NodeOptions::default(), async |node| {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "the first\n").unwrap();
        let address = user(node, "changing", "the first").await.with_password_file(&file);
        let queue = shared(node, "password").await;
        let seen = Seen::default();
        let noting = seen.clone();
        let running =
            Running::start(consumer(address.clone(), &queue).on_any(move |message: correio_consumer::Message| {
                noting.note(&message);
                std::future::ready(Ok::<_, String>(()))
            }));
        let producer = Producer::connect(ProducerSettings::new(address.clone(), "tests").unwrap()).await.unwrap();
        let send = async || producer.send(Message::new(Destination::queue(&queue).unwrap(), "hello")).await.unwrap();
        assert!(send().await.is_confirmed());
        running.until(|tally| tally.handled == 1).await;

        // The broker first: what comes back before the file has the new one too is refused, and may try again.
        change_password(node, "changing", "the second").await;
        cut(node).await;
        let refused = connections(address, DEADLINE).channel().await.unwrap_err();
        assert!(matches!(refused, ConnectError::Credentials { .. }), "{refused:?}");
        std::fs::write(&file, "the second\n").unwrap();
        assert!(send().await.is_confirmed());
        running.until(|tally| tally.handled == 2 && tally.resubscribed >= 1).await;
        running.stop().await;
        producer.close(DEADLINE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_the_broker_takes_back_ends_a_running_consumer_with_that_reason_and_not_at_once() {
    for_each_own(NodeOptions::default(), async |node| {
        let address = user(node, "outcast", "the first").await;
        let queue = shared(node, "outcast").await;
        let handler = |_: correio_consumer::Message| std::future::ready(Ok::<_, String>(()));
        let consumer = consumer(address, &queue).on_any(handler).build().unwrap();
        let counts = consumer.counts();
        let running = tokio::spawn(consumer.run(CancellationToken::new()));
        let until = Instant::now() + DEADLINE;
        while node.queue_consumers(&queue).await.unwrap() == 0 {
            assert!(Instant::now() < until, "{:?}", counts.now());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        change_password(node, "outcast", "another").await;
        cut(node).await;
        let since = Instant::now();
        let ended = timeout(Duration::from_secs(180), running).await.expect("it does not try for ever").unwrap();
        let Err(ConsumeError::Connect(error)) = &ended else { panic!("{ended:?}") };
        assert!(matches!(error, ConnectError::Credentials { user, .. } if user == "outcast"), "{error:?}");
        assert!(
            since.elapsed() > Duration::from_secs(10),
            "a broker that restarts is given time: {:?}",
            since.elapsed()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_that_is_not_there_or_empty_is_named_and_the_broker_is_not_asked() {
    // Port 1: were anybody asked, the error would be another.
    let address = Address::new("127.0.0.1", 1, "u", "unused");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("password");
    let refused = async |file: &Path| {
        let error = reach(address.clone().with_password_file(file)).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(file.to_str().unwrap()), "{error}");
        assert!(matches!(error, ConnectError::PasswordFile { .. }), "{error:?}");
    };
    refused(&file).await;
    std::fs::write(&file, "\n").unwrap();
    refused(&file).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_an_error_at_once() {
    for_each_own(NodeOptions::default(), async |node| {
        let port = node.amqp_address().port();
        let error = reach(Address::new("127.0.0.1", port, Login::Producer.name(), "wr0ng")).await.unwrap_err();
        assert!(matches!(error, ConnectError::Credentials { .. }), "{error:?}");
        assert!(!error.to_string().contains("wr0ng"), "{error}");
    })
    .await;
}
