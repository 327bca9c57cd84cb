//! What is sent with a delay waits in the broker: it comes never early, once, as a first attempt, through a broker's death too.

use std::time::Duration;

use correio_broker_config::WorkQueue;
use correio_lab::broker::{Login, Node, NodeOptions, for_each, for_each_own};
use correio_message::header;
use correio_producer::{
    Address, Destination, Key, KeyConflict, Message, NotDelayable, Outcome, Producer, ProducerSettings, Route,
    SendFailure, ShortText,
};
use correio_tests::{
    consuming::{Running, Seen, consumer, declare, message, shared, until, until_depth},
    programs::{Program, Ran},
    queues::{fresh, take_all, until_consumers},
};
use tokio::time::Instant;

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// As the user that the project gives producers.
async fn connect(node: &Node) -> Producer {
    let address = Address::parse(&node.amqp_url(Login::Producer)).unwrap();
    Producer::connect(ProducerSettings::new(address, "tests").unwrap()).await.unwrap()
}

async fn with_delays(node: &Node, what: &str, delays: &[Duration]) -> String {
    declare(node, WorkQueue::shared_with_delays(fresh(what), delays).unwrap()).await
}

/// A consumer that notes what came, how it was addressed and which attempt it is, and fails the first so many times.
fn noting(node: &Node, queue: &str, seen: &Seen, fails: u32) -> Running {
    let see = seen.clone();
    Running::start(consumer(node, queue).on_any(move |message: Message, context: correio_consumer::Context| {
        let id = message.id.as_ref().unwrap();
        let body = String::from_utf8_lossy(&message.payload);
        see.note_text(format!("{id} {body} {}#{}", message.destination.route(), context.attempt()));
        let fails = context.attempt().get() <= fails;
        async move { if fails { Err("not yet") } else { Ok(()) } }
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_comes_never_early_and_then_once_as_its_first_attempt_with_its_own_route() {
    for_each(async |node| {
        let delay = Duration::from_millis(1_500);
        let queue = with_delays(node, "later", &[delay]).await;
        let seen = Seen::default();
        let running = noting(node, &queue, &seen, 0);
        let producer = connect(node).await;
        let began = Instant::now();
        let outcome = producer.send_after(message(&queue, "m"), delay).await.unwrap();
        assert!(outcome.is_confirmed(), "{outcome}");
        // One that has no delay, sent behind it, tells that this way is open.
        assert!(producer.send(message(&queue, "now")).await.unwrap().is_confirmed());
        until(|| seen.len() == 2, || format!("{:?}", seen.all())).await;
        assert!(began.elapsed() >= delay, "early: {:?}", began.elapsed());
        let route = format!("correio.queue/{queue}");
        assert_eq!(seen.sorted(), [format!("m m {route}#1"), format!("now now {route}#1")]);
        // Once: what comes behind it is there, and nothing else.
        assert!(producer.send_after(message(&queue, "n"), delay).await.unwrap().is_confirmed());
        until(|| seen.len() == 3, || format!("{:?}", seen.all())).await;
        assert_eq!(running.stop().await.counts.duplicates, 0);
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_means_that_it_waits_durable_in_the_delay_queue_and_what_it_says_of_itself() {
    for_each(async |node| {
        let delay = Duration::from_secs(3_600);
        let queue = with_delays(node, "waits", &[delay]).await;
        let producer = connect(node).await;
        assert!(producer.send_after(message(&queue, "m"), delay).await.unwrap().is_confirmed());
        let waiting = take_all(node, &format!("{queue}.retry.60m")).await;
        let [envelope] = &waiting[..] else { panic!("{waiting:?}") };
        let properties = &envelope.properties;
        assert_eq!((properties.delivery_mode, properties.expiration.as_ref().unwrap().as_str()), (Some(2), "3600000"));
        assert_eq!(properties.headers[header::EXCHANGE].as_text(), Some("correio.queue"));
        assert_eq!(properties.headers[header::ROUTING_KEY].as_text(), Some(&*queue));
        assert!(!properties.headers.contains_key(header::ATTEMPT));
        assert_eq!(node.queue_depth(&queue).await.unwrap(), 0);
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_that_fails_is_retried_as_any_other() {
    for_each(async |node| {
        let queue = shared(node, "fails").await;
        let seen = Seen::default();
        let running = noting(node, &queue, &seen, 2);
        let producer = connect(node).await;
        let delay = Duration::from_millis(200);
        assert!(producer.send_after(message(&queue, "m"), delay).await.unwrap().is_confirmed());
        running.until(|tally| tally.handled == 1).await;
        let route = format!("m m correio.queue/{queue}");
        assert_eq!(seen.all(), [1, 2, 3].map(|attempt| format!("{route}#{attempt}")));
        running.stop().await;
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_while_a_message_waits_brings_it_all_the_same() {
    for_each_own(NodeOptions::default(), async |node| {
        let delay = Duration::from_secs(8);
        let queue = with_delays(node, "killed", &[delay]).await;
        node.settle_before_kill().await;
        let producer = connect(node).await;
        let began = Instant::now();
        let mut receipts = Vec::new();
        for number in 0..20 {
            receipts.push(producer.submit_after(message(&queue, &number.to_string()), delay).await.unwrap());
        }
        for receipt in receipts {
            assert!(receipt.await.unwrap().is_confirmed());
        }
        producer.close(CLOSE).await;
        node.kill_at_once().await.unwrap();
        node.restart().await.unwrap();
        let seen = Seen::default();
        let running = noting(node, &queue, &seen, 0);
        running.until(|tally| tally.handled == 20).await;
        assert!(began.elapsed() >= delay, "early: {:?}", began.elapsed());
        let mut expected: Vec<_> = (0..20).map(|n| format!("{n} {n} correio.queue/{queue}#1")).collect();
        expected.sort();
        assert_eq!(seen.sorted(), expected);
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_that_the_queue_was_not_made_with_is_unroutable_and_says_how_to_make_it() {
    for_each(async |node| {
        let queue = shared(node, "no-such-delay").await;
        let producer = connect(node).await;
        let outcome = producer.send_after(message(&queue, "m"), Duration::from_secs(7)).await.unwrap();
        let Outcome::Unroutable { reason, .. } = &outcome else { panic!("{outcome}") };
        let command = format!("broker apply --queue {queue} --delays 7s");
        assert!(reason.starts_with("312") && reason.contains(&command), "{reason}");
        assert!(reason.contains("1s, 2s, 4s, 8s, 16s"), "{reason}");
        let ana = Message::new(Destination::mailbox(fresh("ana")).unwrap(), "m");
        let outcome = producer.send_after(ana, Duration::from_secs(1)).await.unwrap();
        assert!(outcome.to_string().contains("has not been made"), "{outcome}");
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_has_the_delays_of_its_owner() {
    for_each(async |node| {
        let name = fresh("ana");
        let seen = Seen::default();
        let see = seen.clone();
        let address = Address::parse(&node.amqp_url(Login::Consumer)).unwrap();
        let ana = correio_consumer::Consumer::builder(address).mailbox(&name).on_any(move |message: Message| {
            see.note_text(message.destination.route().to_string());
            async { Ok::<_, &str>(()) }
        });
        let running = Running::start(ana);
        let producer = connect(node).await;
        let delay = Duration::from_secs(1);
        until_consumers(node, &format!("correio.mailbox.{name}"), 1).await;
        let (began, to) = (Instant::now(), Destination::mailbox(&name).unwrap());
        assert!(producer.send_after(Message::new(to, "m"), delay).await.unwrap().is_confirmed());
        running.until(|tally| tally.handled == 1).await;
        assert!(began.elapsed() >= delay, "early: {:?}", began.elapsed());
        assert_eq!(seen.all(), [format!("correio.queue/correio.mailbox.{name}")]);
        running.stop().await;
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delayed_comes_back_with_its_reason_and_nothing_is_sent() {
    for_each(async |node| {
        let queue = shared(node, "refused").await;
        let producer = connect(node).await;
        let delay = Duration::from_millis(200);
        let to = |to| Message::new(to, "m");
        let own = Route { exchange: ShortText::new("mine").unwrap(), routing_key: ShortText::new("k").unwrap() };
        let is_for = |to: &Destination| SendFailure::NotDelayable(NotDelayable::Destination { to: to.route() });
        let (topic, everyone, own) =
            (Destination::topic("a.b").unwrap(), Destination::Everyone, Destination::Route(own));
        for (message, expected) in [
            (to(topic.clone()), is_for(&topic)),
            (to(everyone.clone()), is_for(&everyone)),
            (to(own.clone()), is_for(&own)),
            (message(&queue, "m").with_key(Key::new("k").unwrap()), SendFailure::KeyWith { what: KeyConflict::Delay }),
            (message(&queue, "m").expiring_after(delay).unwrap(), SendFailure::NotDelayable(NotDelayable::Expiry)),
        ] {
            let error = producer.send_after(message.clone(), delay).await.unwrap_err();
            assert_eq!((&error.cause, &error.message.payload), (&expected, &message.payload));
        }
        let error = producer.send_after(message(&queue, "m"), Duration::from_micros(500)).await.unwrap_err();
        assert!(matches!(error.cause, SendFailure::NotDelayable(NotDelayable::Delay { .. })), "{error}");
        assert_eq!(producer.counts().accepted, 0);
        producer.close(CLOSE).await;
        assert!(producer.send_after(message(&queue, "m"), delay).await.is_err_and(|e| e.cause == SendFailure::Closed));
    })
    .await;
}

async fn run(program: &str, node: &Node, login: Login, args: &[&str], input: &str) -> Ran {
    let program = Program::new(program).args(args.iter().copied()).env("AMQP_URL", node.amqp_url(login));
    program.stdin(input).finish(PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_delays_each_line_and_names_the_command_that_makes_a_delay() {
    for_each(async |node| {
        let queue = fresh("program");
        let ran = run("broker", node, Login::Lab, &["apply", "--queue", &queue], "").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        let send = ["send", "--to", &queue, "--after", "0.7"];
        let ran = run("producer", node, Login::Producer, &send, "one\ntwo\n").await;
        assert_eq!(ran.code, Some(1), "{ran}");
        let command = format!("broker apply --queue {queue} --delays 700ms");
        assert!(ran.stderr.contains(&command), "{ran}");

        let words: Vec<_> = command.split(' ').skip(1).collect();
        let ran = run("broker", node, Login::Lab, &words, "").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(ran.stdout.contains(&format!("{queue}.retry.16s")), "beside those of the retries: {ran}");
        let ran = run("producer", node, Login::Producer, &send, "one\ntwo\n").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        until_depth(node, &queue, 2).await;
        let bodies: Vec<_> = take_all(node, &queue).await.into_iter().map(|envelope| envelope.body).collect();
        assert_eq!(bodies, ["one", "two"]);
    })
    .await;
}
