//! Several nodes: the dead ones cost an attempt each, and work goes on at another.

use std::{net::Ipv4Addr, time::Duration};

use correio_broker_config::{Address, ConnectError, NodeAddress, ServerVersion};
use correio_lab::broker::{Brokers, Login, NodeOptions, for_each, for_each_own};
use correio_producer::{Destination, Message, Producer, ProducerSettings};
use correio_tests::{consuming::declare, queues::fresh};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::Instant,
};

use crate::reaching::{DEADLINE, connections};

const HOST: &str = "127.0.0.1";

/// A port at which connections are refused, as nobody listens, and which nobody else gets while this is kept.
fn refusing() -> (NodeAddress, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    (NodeAddress::new(HOST, socket.local_addr().unwrap().port()), socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dead_nodes_before_a_good_one_cost_an_attempt_each_and_each_error_names_its_node() {
    for_each(async |node| {
        let (refusing, _kept) = refusing();
        let silent = TcpListener::bind((HOST, 0)).await.unwrap();
        let silent_at = NodeAddress::new(HOST, silent.local_addr().unwrap().port());
        let good = NodeAddress::new(HOST, node.amqp_address().port());
        let (user, password) = (Login::Producer.name(), node.password(Login::Producer));
        let address = Address::new(HOST, refusing.port(), user, password).with_nodes([silent_at.clone(), good.clone()]);

        let quick = Duration::from_secs(3);
        let one_by_one = connections(address.clone(), quick);
        let first = one_by_one.channel().await.unwrap_err();
        assert!(matches!(first, ConnectError::NoBroker { .. }), "{first:?}");
        assert!(first.to_string().contains(&format!("amqp://{user}:***@{refusing}:")), "{first}");
        let second = one_by_one.channel().await.unwrap_err();
        assert!(matches!(second, ConnectError::TimedOut { .. }), "{second:?}");
        assert!(second.to_string().contains(&silent_at.to_string()), "{second}");
        let third = one_by_one.channel().await.unwrap();
        assert_eq!(third.address().nodes(), [good]);
        third.close().await.unwrap();

        let since = Instant::now();
        let found = connections(address.clone(), quick).channel_within(Duration::from_secs(30)).await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
        found.close().await.unwrap();
        let version = ServerVersion::ask(&address, Duration::from_secs(12)).await.unwrap();
        assert_eq!(version.version, node.version());
        drop(silent);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_wrong_at_one_node_is_not_tried_at_the_others() {
    for_each(async |node| {
        let good = NodeAddress::new(HOST, node.amqp_address().port());
        let listening = std::net::TcpListener::bind((HOST, 0)).unwrap();
        listening.set_nonblocking(true).unwrap();
        let other = NodeAddress::new(HOST, listening.local_addr().unwrap().port());
        let address = Address::new(good.host(), good.port(), Login::Producer.name(), "wrong").with_nodes([other]);
        let error = connections(address, DEADLINE).channel_within(DEADLINE).await.unwrap_err();
        assert!(matches!(error, ConnectError::Credentials { .. }), "{error:?}");
        let asked = listening.accept().expect_err("nobody asked there");
        assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_node_is_killed_a_producer_goes_on_at_another_by_itself() {
    for_each_own(NodeOptions::default(), async |first| {
        let brokers = Brokers::from_env().unwrap();
        let second = brokers.named(first.name()).unwrap().start(NodeOptions::default()).await.unwrap();
        let queue = fresh("elsewhere");
        for node in [first, &second] {
            declare(node, correio_broker_config::WorkQueue::shared(queue.clone()).unwrap()).await;
        }
        let (user, password) = (Login::Producer.name(), first.password(Login::Producer));
        let address = Address::new(HOST, first.amqp_address().port(), user, password)
            .with_nodes([NodeAddress::new(HOST, second.amqp_address().port())]);
        let producer = Producer::connect(ProducerSettings::new(address, "tests").unwrap()).await.unwrap();
        let send = async || producer.send(Message::new(Destination::queue(&queue).unwrap(), "hello")).await.unwrap();
        assert!(send().await.is_confirmed());
        assert_eq!((first.queue_depth(&queue).await.unwrap(), second.queue_depth(&queue).await.unwrap()), (1, 0));

        first.kill().await.unwrap();
        assert!(send().await.is_confirmed());
        assert_eq!(second.queue_depth(&queue).await.unwrap(), 1);
        producer.close(DEADLINE).await;
        second.close().await.unwrap();
    })
    .await;
}
