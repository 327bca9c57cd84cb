//! Each fault of the proxy does its damage exactly, on plain bytes and on a real broker.

use correio_lab::{
    broker::{Login, QueueKind, for_each},
    faults::{Direction, Ending, Proxy, Which},
};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm, options::BasicPublishOptions};
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::plain_client::{PATIENCE, close, confirming_channel, connect};

#[tokio::test]
async fn bytes_pass_and_a_stalled_connection_goes_on_where_it_stopped() {
    let (proxy, echo) = proxy_to_echo().await;
    let mut client = TcpStream::connect(proxy.address()).await.expect("connected");
    assert_eq!(said_back(&mut client, b"one").await.as_deref(), Some(&b"one"[..]));
    proxy.stall(true);
    assert_eq!(said_back(&mut client, b"two").await, None);
    let mut second = TcpStream::connect(proxy.address()).await.expect("accepted although stalled");
    assert_eq!(said_back(&mut second, b"hello").await, None);
    proxy.stall(false);
    assert_eq!(heard(&mut client, 3).await.as_deref(), Some(&b"two"[..]));
    assert_eq!(heard(&mut second, 5).await.as_deref(), Some(&b"hello"[..]));
    proxy.stop().await;
    echo.abort();
}

#[tokio::test]
async fn a_cut_is_a_reset_or_an_end_of_stream_as_asked() {
    let (proxy, echo) = proxy_to_echo().await;
    for (ending, seen) in [(Ending::Reset, Err(ErrorKind::ConnectionReset)), (Ending::Finish, Ok(0))] {
        let mut client = TcpStream::connect(proxy.address()).await.expect("connected");
        assert!(said_back(&mut client, b"one").await.is_some());
        assert_eq!(proxy.cut(ending).await, 1);
        let read = timeout(PATIENCE, client.read(&mut [0; 8])).await.expect("in time");
        assert_eq!(read.map_err(|error| error.kind()), seen);
        assert_eq!(proxy.open(), 0);
    }
    assert_eq!(proxy.counts().cut, 2);
    proxy.stop().await;
    echo.abort();
}

#[tokio::test]
async fn one_connection_can_be_cut_or_delayed_and_the_others_are_not_touched() {
    let (proxy, echo) = proxy_to_echo().await;
    proxy.delay(Which::Number(2), Direction::ClientToBroker, Duration::from_millis(300));
    let mut first = TcpStream::connect(proxy.address()).await.expect("connected");
    assert!(said_back(&mut first, b"one").await.is_some());
    let mut second = TcpStream::connect(proxy.address()).await.expect("connected");
    let started = Instant::now();
    assert_eq!(said_back(&mut second, b"two").await, None, "not yet");
    assert!(heard(&mut second, 3).await.is_some());
    assert!(started.elapsed() >= Duration::from_millis(300));
    let started = Instant::now();
    assert!(said_back(&mut first, b"three").await.is_some());
    assert!(started.elapsed() < Duration::from_millis(250));
    assert!(proxy.cut_number(1, Ending::Reset).await);
    assert!(!proxy.cut_number(1, Ending::Reset).await, "it is gone");
    assert!(first.read(&mut [0; 8]).await.is_err());
    proxy.delay(Which::Number(2), Direction::ClientToBroker, Duration::ZERO);
    assert!(said_back(&mut second, b"four").await.is_some());
    proxy.stop().await;
    echo.abort();
}

#[tokio::test]
async fn a_swallowed_direction_is_deaf_for_ever_and_new_connections_are_not() {
    let (proxy, echo) = proxy_to_echo().await;
    let mut deaf = TcpStream::connect(proxy.address()).await.expect("connected");
    assert!(said_back(&mut deaf, b"one").await.is_some());
    proxy.swallow(Direction::BrokerToClient);
    assert_eq!(said_back(&mut deaf, b"two").await, None);
    proxy.pass();
    assert_eq!(said_back(&mut deaf, b"three").await, None);
    let mut fresh = TcpStream::connect(proxy.address()).await.expect("connected");
    assert!(said_back(&mut fresh, b"four").await.is_some());
    proxy.stop().await;
    echo.abort();
}

#[tokio::test]
async fn refusing_closes_the_port_for_new_connections_only() {
    let (proxy, echo) = proxy_to_echo().await;
    let mut open = TcpStream::connect(proxy.address()).await.expect("connected");
    assert!(said_back(&mut open, b"one").await.is_some());
    proxy.refuse_new(true).await;
    let refused = TcpStream::connect(proxy.address()).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(said_back(&mut open, b"two").await.is_some());
    proxy.refuse_new(false).await;
    assert!(TcpStream::connect(proxy.address()).await.is_ok());
    let address = proxy.address();
    proxy.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "a stopped proxy is gone");
    assert!(!matches!(open.read(&mut [0; 8]).await, Ok(1..)));
    echo.abort();
}

#[tokio::test]
async fn exactly_the_publishes_after_the_nth_are_lost_and_then_the_connection_is_cut() {
    for_each(async |node| {
        let queue = "lab.publishes-lost";
        node.declare_queue(queue, QueueKind::Quorum).await.expect("declared");
        let proxy = Proxy::start(node.amqp_address()).await.expect("a proxy");
        let url = node.amqp_url_through(Login::Lab, proxy.address());
        let connection = connect(&url).await;
        let channel = confirming_channel(&connection).await;
        proxy.lose_publishes(30, Some(50));
        for number in 0..30 {
            let confirm = publish(&channel, queue, number).await.expect("published");
            assert!(timeout(PATIENCE, confirm).await.expect("in time").expect("an answer").is_ack());
        }
        let mut unanswered = Vec::new();
        for number in 30..200 {
            // From the cut on, publishing may fail: what was written before it is what counts.
            let Ok(confirm) = publish(&channel, queue, number).await else { break };
            unanswered.push(confirm);
        }
        assert!(unanswered.len() >= 50, "{} were written before the cut", unanswered.len());
        for confirm in unanswered {
            let answer = timeout(PATIENCE, confirm).await.expect("in time");
            assert!(!matches!(answer, Ok(Confirmation::Ack(_))), "{answer:?}");
        }
        let counts = proxy.counts();
        assert_eq!((counts.publishes_forwarded, counts.publishes_swallowed, counts.cut), (30, 50, 1));
        wait_for_depth(node, queue, 30).await;
        // The rule ended with the cut.
        let connection = connect(&url).await;
        let channel = confirming_channel(&connection).await;
        let confirm = publish(&channel, queue, 0).await.expect("published");
        assert!(timeout(PATIENCE, confirm).await.expect("in time").expect("an answer").is_ack());
        close(connection).await;
        assert_eq!(node.purge(queue).await.expect("purged"), 31);
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn only_confirms_are_lost_and_everything_else_passes() {
    for_each(async |node| {
        let queue = "lab.confirms-lost";
        node.declare_queue(queue, QueueKind::Quorum).await.expect("declared");
        let proxy = Proxy::start(node.amqp_address()).await.expect("a proxy");
        let connection = connect(&node.amqp_url_through(Login::Lab, proxy.address())).await;
        let channel = confirming_channel(&connection).await;
        proxy.lose_confirms(true);
        let mut confirms = Vec::new();
        for number in 0..20 {
            confirms.push(publish(&channel, queue, number).await.expect("published"));
        }
        wait_for_depth(node, queue, 20).await;
        // A method of another kind is answered, on a channel opened meanwhile.
        let other = timeout(PATIENCE, connection.create_channel()).await.expect("in time").expect("a channel");
        assert!(other.status().connected());
        let counts = proxy.counts();
        assert_eq!((counts.publishes_forwarded, counts.publishes_swallowed, counts.confirms_forwarded), (20, 0, 0));
        assert!(counts.confirms_dropped >= 1);
        assert_eq!(proxy.cut(Ending::Reset).await, 1);
        for confirm in confirms {
            let answer = timeout(PATIENCE, confirm).await.expect("in time");
            assert!(!matches!(answer, Ok(Confirmation::Ack(_))), "{answer:?}");
        }
        node.purge(queue).await.expect("purged");
        proxy.stop().await;
    })
    .await;
}

async fn publish(channel: &Channel, queue: &str, number: u32) -> lapin::Result<PublisherConfirm> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let body = format!("{number:0>5000}");
    channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body.as_bytes(), properties).await
}

async fn wait_for_depth(node: &correio_lab::broker::Node, queue: &str, depth: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = node.queue_depth(queue).await.expect("depth");
        if now == depth {
            return;
        }
        assert!(Instant::now() < deadline, "{now} messages instead of {depth}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn proxy_to_echo() -> (Proxy, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let echo = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (Proxy::start(address).await.expect("a proxy"), echo)
}

/// Says something and waits a moment for it to come back.
async fn said_back(stream: &mut TcpStream, words: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(words).await.expect("written");
    heard(stream, words.len()).await
}

async fn heard(stream: &mut TcpStream, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    timeout(Duration::from_millis(250), stream.read_exact(&mut bytes)).await.ok()?.ok()?;
    Some(bytes)
}
