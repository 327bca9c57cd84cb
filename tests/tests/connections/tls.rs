//! Is the server who it says? And what two say to each other of whom only one speaks TLS.

use std::time::Duration;

use correio_broker_config::{Address, ConnectError, ServerVersion, Step, TlsError, TlsSettings};
use correio_consumer::Consumer;
use correio_lab::broker::{Login, NodeOptions, for_each_own};
use correio_producer::{Destination, Message, Producer, ProducerSettings};
use correio_tests::consuming::{Running, Seen, send, shared};
use tokio::{
    io::{AsyncReadExt as _, copy},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    authority::Authority,
    reaching::{DEADLINE, address_at, connections, over_tls, reach, refusal, tls_port},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_spoken_to_when_it_is_who_it_says_and_every_other_is_a_clear_error_at_once() {
    let authority = Authority::new("known");
    let stranger = Authority::new("unknown");
    let certificate = authority.issue(&["localhost"]);
    let tls = Some(authority.listener(&certificate, false));
    for_each_own(NodeOptions { tls, ..NodeOptions::default() }, async |node| {
        let trusting = TlsSettings::new().with_ca_file(authority.file());
        let good = over_tls(node).with_tls(trusting.clone());
        let version = ServerVersion::ask(&good, DEADLINE).await.unwrap();
        assert_eq!(version.version, node.version());
        let queue = shared(node, "tls").await;
        let producer = Producer::connect(ProducerSettings::new(good.clone(), "tests").unwrap()).await.unwrap();
        let message = Message::new(Destination::queue(&queue).unwrap(), vec![b'x'; 3_000_000]);
        assert!(producer.send(message).await.unwrap().is_confirmed());
        assert_eq!(node.queue_depth(&queue).await.unwrap(), 1);
        producer.close(DEADLINE).await;

        let unknown = refusal(over_tls(node).with_tls(TlsSettings::new().with_ca_file(stranger.file()))).await;
        assert!(matches!(unknown, TlsError::UnknownAuthority), "{unknown:?}");
        // Nor does this machine know it, which may know nobody.
        let unknown = refusal(over_tls(node).with_tls(TlsSettings::new())).await;
        assert!(matches!(unknown, TlsError::UnknownAuthority | TlsError::NoAuthorities { .. }), "{unknown:?}");

        let by_number = address_at(node, "127.0.0.1", tls_port(node).port());
        let wrong = refusal(by_number.clone().with_tls(trusting.clone())).await;
        let TlsError::WrongName { wanted, presented } = &wrong else { panic!("{wrong:?}") };
        assert!(wanted == "127.0.0.1" && presented.iter().any(|name| name.contains("localhost")), "{wrong}");
        reach(by_number.with_tls(trusting.clone().with_server_name("localhost"))).await.unwrap();
        let wrong = refusal(good.clone().with_tls(trusting.clone().with_server_name("example.org"))).await;
        assert!(matches!(wrong, TlsError::WrongName { .. }), "{wrong:?}");
        let nameless = refusal(good.clone().with_tls(trusting.clone().with_server_name("no name"))).await;
        assert!(matches!(nameless, TlsError::ServerName { .. }), "{nameless:?}");

        let login = reach(good.clone().with_user(Login::Producer.name(), "wrong")).await.unwrap_err();
        assert!(matches!(login, ConnectError::Credentials { .. }) && login.is_permanent(), "{login:?}");

        let file = authority.file().with_file_name("gone.pem");
        let missing = refusal(over_tls(node).with_tls(TlsSettings::new().with_ca_file(&file))).await;
        assert!(missing.to_string().contains(file.to_str().unwrap()), "{missing}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_go_there_and_back_over_tls() {
    let authority = Authority::new("known");
    let certificate = authority.issue(&["localhost"]);
    let tls = Some(authority.listener(&certificate, false));
    for_each_own(NodeOptions { tls, ..NodeOptions::default() }, async |node| {
        let queue = shared(node, "there-and-back").await;
        let to = over_tls(node).with_tls(TlsSettings::new().with_ca_file(authority.file()));
        let from = to.clone().with_user(Login::Consumer.name(), node.password(Login::Consumer));
        let seen = Seen::default();
        let noting = seen.clone();
        let running = Running::start(Consumer::builder(from).queue(&queue).on_any(move |message: Message| {
            noting.note(&message);
            std::future::ready(Ok::<_, String>(()))
        }));
        let producer = Producer::connect(ProducerSettings::new(to, "tests").unwrap()).await.unwrap();
        let payloads: Vec<String> = (0..1000).map(|number| format!("{number:05}")).collect();
        send(&producer, &queue, payloads.clone()).await;
        running.until(|tally| tally.handled == 1000).await;
        assert_eq!(seen.sorted(), payloads);
        running.stop().await;
        producer.close(DEADLINE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_that_has_expired_is_named_as_such() {
    let authority = Authority::new("known");
    let certificate = authority.issue_expired(&["localhost"]);
    let tls = Some(authority.listener(&certificate, false));
    for_each_own(NodeOptions { tls, ..NodeOptions::default() }, async |node| {
        let expired = refusal(over_tls(node).with_tls(TlsSettings::new().with_ca_file(authority.file()))).await;
        assert!(matches!(expired, TlsError::Expired), "{expired:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_the_plain_port_and_plain_amqp_on_that_of_tls_are_told_apart_and_do_not_hang() {
    let authority = Authority::new("known");
    let certificate = authority.issue(&["localhost"]);
    let tls = Some(authority.listener(&certificate, false));
    for_each_own(NodeOptions { tls, ..NodeOptions::default() }, async |node| {
        let settings = TlsSettings::new().with_ca_file(authority.file());
        let plain_port = address_at(node, "localhost", node.amqp_address().port());
        let not_tls = refusal(plain_port.with_tls(settings)).await;
        assert!(matches!(not_tls, TlsError::NotTls), "{not_tls:?}");

        let wanted = refusal(over_tls(node)).await;
        assert!(matches!(wanted, TlsError::Wanted), "{wanted:?}");
        let wanted = ServerVersion::ask(&over_tls(node), DEADLINE).await.unwrap_err();
        assert!(
            matches!(&wanted, ConnectError::Tls { cause, .. } if matches!(**cause, TlsError::Wanted)),
            "{wanted:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_handshake_without_an_answer_ends_at_its_deadline_and_its_socket_with_it() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new("unused");
    let address = Address::new("localhost", silent.local_addr().unwrap().port(), "u", "p")
        .with_tls(TlsSettings::new().with_ca_file(authority.file()));
    let connections = connections(address, Duration::from_millis(700));
    let error = timeout(DEADLINE, connections.channel()).await.expect("it has a deadline").unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { step: Step::Tls, .. }) && !error.is_permanent(), "{error:?}");
    let (mut accepted, _) = silent.accept().await.unwrap();
    let mut hello = Vec::new();
    // Its end, and not only its beginning.
    timeout(DEADLINE, accepted.read_to_end(&mut hello)).await.expect("the socket is shut").unwrap();
    assert_eq!(hello.first(), Some(&22), "a handshake record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_over_tls_that_is_discarded_on_a_frozen_broker_ends_its_socket_at_once() {
    let authority = Authority::new("known");
    let certificate = authority.issue(&["localhost"]);
    let tls = Some(authority.listener(&certificate, false));
    for_each_own(NodeOptions { tls, ..NodeOptions::default() }, async |node| {
        let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = address_at(node, "localhost", between.local_addr().unwrap().port());
        let broker = tls_port(node);
        let passing = tokio::spawn(async move {
            let (mut client, _) = between.accept().await.unwrap();
            let mut broker = TcpStream::connect(broker).await.unwrap();
            let (mut from_client, mut to_client) = client.split();
            let (mut from_broker, mut to_broker) = broker.split();
            // Over when the client's end is.
            tokio::select! {
                read = copy(&mut from_client, &mut to_broker) => read.map(drop),
                _ = copy(&mut from_broker, &mut to_client) => panic!("the broker ended it"),
            }
        });
        let settings = TlsSettings::new().with_ca_file(authority.file());
        let channel = connections(address.with_tls(settings), DEADLINE).channel().await.unwrap();
        node.pause().await.unwrap();
        channel.discard();
        let ended = timeout(Duration::from_secs(5), passing).await;
        node.resume().await.unwrap();
        // Reset or closed: either way it is gone.
        let _ = ended.expect("the socket is shut").unwrap();
    })
    .await;
}
