//! What is worth nothing after a while, and what goes first.

use std::time::Duration;

use correio_lab::{
    broker::{Login, Node, for_each},
    faults::{Ending, Proxy},
};
use correio_message::{DeadLetter, DeadReason};
use correio_producer::{
    Address, Key, KeyConflict, Message, Outcome, Priority, Producer, ProducerSettings, RequestError, SendFailure,
};
use correio_tests::{
    consuming::{Running, Seen, consumer, message, shared, until, until_depth},
    programs::Program,
    queues::{fresh, take_all},
};
use tokio::time::{Instant, sleep, timeout};

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(600);

fn settings(url: &str) -> ProducerSettings {
    ProducerSettings::new(Address::parse(url).unwrap(), "tests").unwrap()
}

async fn connect(node: &Node) -> Producer {
    Producer::connect(settings(&node.amqp_url(Login::Producer))).await.unwrap()
}

fn expiring(queue: &str, payload: &str, lifetime: Duration) -> Message {
    message(queue, payload).expiring_after(lifetime).unwrap()
}

fn millis(envelope: &correio_message::Envelope) -> u64 {
    envelope.properties.expiration.as_ref().unwrap().as_str().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_handles_in_its_lifetime_ends_in_the_parking_queue_with_the_brokers_reason() {
    for_each(async |node| {
        let queue = shared(node, "expires").await;
        let producer = connect(node).await;
        // Long enough to be sent on a busy machine.
        let short = Duration::from_secs(2);
        for sent in [expiring(&queue, "short", short), expiring(&queue, "long", LONG)] {
            assert!(producer.send(sent).await.unwrap().is_confirmed());
        }
        until_depth(node, &format!("{queue}.dead"), 1).await;
        let parked = take_all(node, &format!("{queue}.dead")).await;
        assert_eq!(parked[0].body, "short");
        let letter = DeadLetter::of(&parked[0]).unwrap();
        assert_eq!((letter.reason, letter.queue.as_str()), (DeadReason::Broker, &*queue));
        assert!(letter.error.contains("expired"), "{}", letter.error);
        let decoded = parked[0].decode().unwrap().message;
        assert!(decoded.lifetime.is_some_and(|lifetime| lifetime.as_duration() <= short));
        assert_eq!(take_all(node, &queue).await.len(), 1, "the other waits");
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_the_lifetime_and_the_priority_of_what_it_handles() {
    for_each(async |node| {
        let queue = shared(node, "seen").await;
        let seen = Seen::default();
        let see = seen.clone();
        let running = Running::start(consumer(node, &queue).on_any(move |message: Message| {
            let is_whole =
                message.lifetime.is_some_and(|left| left.as_duration() <= LONG && left.as_duration() > LONG / 2);
            see.note_text(format!("{is_whole} {:?}", message.priority));
            async { Ok::<_, &str>(()) }
        }));
        let producer = connect(node).await;
        let sent = expiring(&queue, "m", LONG).with_priority(Priority::High);
        assert!(producer.send(sent).await.unwrap().is_confirmed());
        running.until(|tally| tally.handled == 1).await;
        assert_eq!(seen.all(), ["true High"]);
        running.stop().await;
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_before_its_turn_comes_back_while_the_broker_is_away() {
    for_each(async |node| {
        let queue = shared(node, "away").await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let url = node.amqp_url_through(Login::Producer, proxy.address());
        let producer = Producer::connect(settings(&url).confirm_deadline(10 * PATIENCE)).await.unwrap();
        proxy.refuse_new(true).await;
        proxy.cut(Ending::Reset).await;
        let mut health = producer.health();
        timeout(PATIENCE, health.until(|health| health.open == 0)).await.unwrap().unwrap();
        let (short, long) = (Duration::from_millis(300), Duration::from_millis(600));
        let began = Instant::now();
        let first = producer.submit(expiring(&queue, "short", short)).await.unwrap();
        let second = producer.submit(expiring(&queue, "long", long)).await.unwrap();
        producer.fire(expiring(&queue, "fired", short)).await.unwrap();
        for (receipt, lifetime) in [(first, short), (second, long)] {
            let error = timeout(PATIENCE, receipt).await.expect("long before the confirm deadline").unwrap_err();
            assert!(matches!(error.cause, SendFailure::Expired { .. }), "{error}");
            assert!(began.elapsed() >= lifetime, "early: {:?}", began.elapsed());
        }
        proxy.refuse_new(false).await;
        assert!(timeout(PATIENCE, producer.send(message(&queue, "n"))).await.unwrap().unwrap().is_confirmed());
        // It had no connection until now.
        until(|| producer.counts().fire_dropped == 1, || format!("{:?}", producer.counts())).await;
        let there: Vec<_> = take_all(node, &queue).await.into_iter().map(|envelope| envelope.body).collect();
        assert_eq!(there, ["n"], "what came back left no trace");
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_expires_before_its_turn_comes_back_and_its_deadline_has_not_passed() {
    for_each(async |node| {
        let queue = shared(node, "asks").await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let url = node.amqp_url_through(Login::Producer, proxy.address());
        let producer = Producer::connect(settings(&url).window(1).confirm_deadline(10 * PATIENCE)).await.unwrap();
        // Makes the queue for replies.
        let nobody = producer.request(message(&fresh("nobody"), "?"), LONG).await.unwrap_err();
        assert!(matches!(nobody, RequestError::NoSuchService { .. }), "{nobody}");
        proxy.lose_confirms(true);
        let before = producer.submit(message(&queue, "takes the only place")).await.unwrap();
        until_depth(node, &queue, 1).await;
        let asked = producer.request(expiring(&queue, "?", Duration::from_millis(300)), LONG);
        match timeout(PATIENCE, asked).await.expect("long before the deadline").unwrap_err() {
            RequestError::NotSent(error) => {
                assert!(matches!(error.cause, SendFailure::Expired { .. }), "{error}");
                assert_eq!(&error.message.payload[..], b"?");
            }
            other => panic!("{other}"),
        }
        drop(before);
        producer.close(Duration::ZERO).await;
        proxy.stop().await;
        assert_eq!(take_all(node, &queue).await.len(), 1, "what came back left no trace");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_has_only_what_is_left_of_its_lifetime() {
    for_each(async |node| {
        let queue = shared(node, "again").await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let producer =
            Producer::connect(settings(&node.amqp_url_through(Login::Producer, proxy.address()))).await.unwrap();
        proxy.lose_confirms(true);
        let receipt = producer.submit(expiring(&queue, "m", LONG)).await.unwrap();
        until_depth(node, &queue, 1).await;
        // By the clock that the lifetime goes by.
        let waits = Duration::from_millis(500);
        sleep(waits).await;
        proxy.lose_confirms(false);
        proxy.cut(Ending::Reset).await;
        let outcome = timeout(PATIENCE, receipt).await.unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Confirmed { tries: 2.. }), "{outcome}");
        let sent = take_all(node, &queue).await;
        let (first, again) = (millis(&sent[0]), millis(&sent[1]));
        assert!(again + 500 <= first, "{first} ms, and again {again} ms");
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_with_neither_a_lifetime_nor_a_priority_and_nothing_is_sent() {
    for_each(async |node| {
        let queue = shared(node, "keyed").await;
        let producer = connect(node).await;
        let keyed = |what: Message| what.with_key(Key::new("k").unwrap());
        for (message, what) in [
            (keyed(expiring(&queue, "m", LONG)), KeyConflict::Lifetime),
            (keyed(message(&queue, "m").with_priority(Priority::High)), KeyConflict::Priority),
            (keyed(Message { deadline_us: Some(1), ..message(&queue, "m") }), KeyConflict::Deadline),
        ] {
            let expected = SendFailure::KeyWith { what };
            assert_eq!(producer.send(message.clone()).await.unwrap_err().cause, expected);
            assert_eq!(producer.try_submit(message.clone()).unwrap_err().cause, expected);
            let error = producer.fire(message.clone()).await.unwrap_err();
            assert_eq!((error.cause, error.message.key), (expected, message.key));
        }
        assert_eq!(producer.counts().accepted, 0);
        let plain = message(&queue, "m").with_priority(Priority::Normal);
        assert!(producer.send(keyed(plain)).await.unwrap().is_confirmed());
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_high_priority_overtakes_all_that_waits_before_4_3_two_to_one_and_before_4_0_nothing() {
    for_each(async |node| {
        let queue = shared(node, "priority").await;
        let producer = connect(node).await;
        for (kind, priority) in [("n", Priority::Normal), ("h", Priority::High)] {
            for number in 0..6 {
                let sent = message(&queue, &format!("{kind}{number}")).with_priority(priority);
                assert!(producer.send(sent).await.unwrap().is_confirmed());
            }
        }
        let order: Vec<_> = take_all(node, &queue)
            .await
            .iter()
            .map(|envelope| String::from_utf8_lossy(&envelope.body).into_owned())
            .collect();
        println!("{}: {}", node.version(), order.join(" "));
        let of = |kind: char| order.iter().filter(|id| id.starts_with(kind)).map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of('h'), ["h0", "h1", "h2", "h3", "h4", "h5"]);
        assert_eq!(of('n'), ["n0", "n1", "n2", "n3", "n4", "n5"]);
        let high_among_first = |most: usize| order[..most].iter().filter(|id| id.starts_with('h')).count();
        let high = [3, 6, 9].map(high_among_first);
        match node.version() {
            version if version.starts_with("3.") => assert_eq!(high, [0, 0, 3], "as sent"),
            version if ["4.0.", "4.1.", "4.2."].iter().any(|before| version.starts_with(before)) => {
                assert_eq!(high, [2, 4, 6], "two to one");
            }
            _ => assert_eq!(high, [3, 6, 6], "all of them first"),
        }
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fired_has_its_lifetime_and_priority_too_and_the_program_has_options_for_both() {
    for_each(async |node| {
        let queue = shared(node, "fired").await;
        let producer = connect(node).await;
        producer.fire(expiring(&queue, "m", LONG).with_priority(Priority::High)).await.unwrap();
        until_depth(node, &queue, 1).await;
        producer.close(CLOSE).await;
        for way in ["send", "fire"] {
            let ran = Program::new("producer")
                .args([way, "--to", &queue, "--expires-after", "600", "--priority", "high"])
                .env("AMQP_URL", node.amqp_url(Login::Producer))
                .stdin("one\n")
                .finish(PATIENCE)
                .await;
            assert_eq!(ran.code, Some(0), "{ran}");
        }
        until_depth(node, &queue, 3).await;
        for envelope in take_all(node, &queue).await {
            assert!((1..=600_000).contains(&millis(&envelope)), "{envelope:?}");
            assert_eq!(envelope.properties.priority, Some(9));
        }
    })
    .await;
}
