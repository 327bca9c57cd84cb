//! Request and reply on a real broker, as the user that the project gives producers: each request ends in its own reply or in
//! a named error by its deadline. Who replies is a plain client.

use std::{collections::BTreeSet, future::Future, time::Duration};

use correio_broker_config::wire;
use correio_lab::{
    broker::{Login, Node, NodeOptions, QueueKind, for_each, for_each_own},
    faults::{Ending, Proxy},
};
use correio_message::{Exchange, Properties, header};
use correio_producer::{
    Address, Destination, Key, KeyConflict, Message, Outcome, Producer, ProducerSettings, RequestError, SendFailure,
    ShortText, Value,
};
use correio_tests::queues::{fresh, name, plain};
use futures_util::{StreamExt, future::join_all};
use lapin::{
    Channel, Connection,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for nothing to be late by accident.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

/// A service with a queue of its own, played by a plain client.
struct Service {
    to: Destination,
    channel: Channel,
    requests: lapin::Consumer,
    connection: Connection,
}

/// A request as the service gets it.
#[derive(Clone)]
struct Asked {
    properties: Properties,
    body: String,
}

impl Service {
    async fn start(node: &Node) -> Self {
        let queue = fresh("service");
        node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
        let (connection, channel) = plain(node).await;
        let (exchange, key) = (name(Exchange::Queue.as_str()), name(&queue));
        let bound =
            channel.queue_bind(key.clone(), exchange, key.clone(), QueueBindOptions::default(), FieldTable::default());
        bound.await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let requests = channel.basic_consume(key, name(""), options, FieldTable::default()).await.unwrap();
        Self { to: Destination::queue(&queue).unwrap(), channel, requests, connection }
    }

    async fn next(&mut self) -> Asked {
        let delivery = timeout(PATIENCE, self.requests.next()).await.expect("a request").unwrap().unwrap();
        let body = String::from_utf8(delivery.data.clone()).unwrap();
        Asked { properties: wire::from_lapin(&delivery.properties), body }
    }

    async fn take(&mut self, count: usize) -> Vec<Asked> {
        let mut asked = Vec::new();
        while asked.len() < count {
            asked.push(self.next().await);
        }
        asked
    }

    async fn reply(&self, asked: &Asked, body: &str) {
        self.reply_with(asked, body, Properties::default()).await;
    }

    async fn reply_with(&self, asked: &Asked, body: &str, properties: Properties) {
        let reply_to = asked.properties.reply_to.as_ref().expect("somewhere to reply to");
        let properties = Properties { correlation_id: asked.properties.message_id.clone(), ..properties };
        let exchange = name(Exchange::Reply.as_str());
        let options = BasicPublishOptions::default();
        let properties = wire::to_lapin(&properties);
        let published =
            self.channel.basic_publish(exchange, name(reply_to.as_str()), options, body.as_bytes(), properties);
        published.await.unwrap();
    }
}

fn settings(url: &str) -> ProducerSettings {
    ProducerSettings::new(Address::parse(url).unwrap(), "tests").unwrap()
}

async fn connect(node: &Node) -> Producer {
    Producer::connect(settings(&node.amqp_url(Login::Producer))).await.unwrap()
}

fn question(to: &Destination, body: impl Into<String>) -> Message {
    Message::new(to.clone(), body.into())
}

fn header_with(name: &str, value: Value) -> Properties {
    Properties { headers: [(ShortText::new(name).unwrap(), value)].into(), ..Properties::default() }
}

fn text(reply: &Message) -> &str {
    std::str::from_utf8(&reply.payload).unwrap()
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What it came to, and that it took no longer than it may.
async fn within<T>(most: Duration, something: impl Future<Output = T>) -> T {
    timeout(most, something).await.unwrap_or_else(|_| panic!("not over after {most:?}"))
}

async fn is_there(node: &Node, queue: &str) -> bool {
    node.list_queues().await.unwrap().iter().any(|(name, ..)| name == queue)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_hundreds_in_flight_each_request_gets_its_own_reply_although_they_come_in_reverse() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        let asking = join_all((0..500).map(|n| producer.request(question(&to, n.to_string()), LONG)));
        let replying = async {
            let mut asked = service.take(500).await;
            let ids: BTreeSet<_> = asked.iter().map(|a| a.properties.message_id.clone()).collect();
            assert_eq!(ids.len(), 500);
            asked.reverse();
            for asked in &asked {
                service.reply(asked, &format!("reply to {}", asked.body)).await;
            }
        };
        let (replies, ()) = tokio::join!(asking, replying);
        for (n, reply) in replies.into_iter().enumerate() {
            assert_eq!(text(&reply.unwrap()), format!("reply to {n}"));
        }
        let counts = producer.counts();
        assert_eq!((counts.requests, counts.replies, counts.late_replies), (500, 500, 0));
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_where_to_reply_and_until_when_and_so_does_its_expiration() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        let replying = async {
            let asked = service.next().await;
            let properties = &asked.properties;
            assert!(properties.reply_to.as_ref().unwrap().as_str().starts_with("correio.reply."), "{properties:?}");
            let millis: u64 = properties.expiration.as_ref().unwrap().as_str().parse().unwrap();
            assert!((1..=30_000).contains(&millis), "{millis}");
            let number = |name: &str| properties.headers[name].as_integer().unwrap();
            let wait = number(header::DEADLINE_US) - number(header::SENT_AT_US);
            assert!((1..=30_000_000).contains(&wait), "{wait}");
            service.reply(&asked, "yes").await;
        };
        let (reply, ()) = tokio::join!(producer.request(question(&to, "?"), LONG), replying);
        assert_eq!(text(&reply.unwrap()), "yes");
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_reply_is_late_and_so_is_one_after_the_deadline_and_one_to_nobody() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        let replying = async {
            let asked = service.next().await;
            service.reply(&asked, "first").await;
            service.reply(&asked, "second").await;
            asked
        };
        let (reply, asked) = tokio::join!(producer.request(question(&to, "1"), LONG), replying);
        assert_eq!(text(&reply.unwrap()), "first");
        until("the second is counted", async || producer.counts().late_replies == 1).await;

        let (reply, late) = tokio::join!(producer.request(question(&to, "2"), SHORT), service.next());
        let Err(RequestError::DeadlinePassed { after, outcome }) = reply else { panic!("{reply:?}") };
        assert_eq!(
            (after, outcome),
            (SHORT, Some(Outcome::Confirmed { tries: 1 })),
            "it is known that the service has it"
        );
        service.reply(&late, "too late").await;
        let mut foreign = asked;
        foreign.properties.message_id = ShortText::new("nobody's").ok();
        service.reply(&foreign, "to nobody").await;
        foreign.properties.message_id = None;
        service.reply(&foreign, "to nobody at all").await;
        until("they are counted", async || producer.counts().late_replies == 4).await;

        // None of it is taken for the reply to what comes next.
        let replying = async {
            let asked = service.next().await;
            service.reply(&asked, "in time").await;
        };
        let (reply, ()) = tokio::join!(producer.request(question(&to, "3"), LONG), replying);
        assert_eq!(text(&reply.unwrap()), "in time");
        let counts = producer.counts();
        assert_eq!((counts.requests, counts.replies, counts.late_replies), (3, 2, 4));
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nobody_lives_there_is_known_at_once_and_not_at_the_deadline() {
    for_each(async |node| {
        let producer = connect(node).await;
        for nowhere in [
            Destination::queue("nobody-lives-here").unwrap(),
            Destination::mailbox("nobody").unwrap(),
            Destination::topic("no.such.event").unwrap(),
        ] {
            let asking = producer.request(question(&nowhere, "?"), PATIENCE);
            let error = within(PATIENCE / 4, asking).await.unwrap_err();
            let RequestError::NoSuchService { reason } = &error else { panic!("{error}") };
            assert!(reason.starts_with("312"), "{reason}");
        }
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_reply_costs_the_deadline_and_no_more_and_so_does_a_broker_that_does_not() {
    for_each(async |node| {
        let (service, proxy) = (Service::start(node).await, Proxy::start(node.amqp_address()).await.unwrap());
        let url = node.amqp_url_through(Login::Producer, proxy.address());
        let producer = Producer::connect(settings(&url)).await.unwrap();
        let error = within(LONG, producer.request(question(&service.to, "?"), SHORT)).await.unwrap_err();
        assert!(error.to_string().contains("the request is on its queue"), "{error}");
        proxy.stall(true);
        let error = within(LONG, producer.request(question(&service.to, "?"), SHORT)).await.unwrap_err();
        assert!(matches!(error, RequestError::DeadlinePassed { outcome: None, .. }), "{error}");
        proxy.stall(false);
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_service_is_a_value_with_its_kind_and_its_text() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        let replying = async {
            let asked = service.next().await;
            let mut error = header_with(header::ERROR, Value::text("no-stock"));
            error.headers.insert(ShortText::new(header::ERROR_TEXT).unwrap(), Value::text("sold out"));
            service.reply_with(&asked, "", error).await;
        };
        let (reply, ()) = tokio::join!(producer.request(question(&to, "?"), LONG), replying);
        let Err(RequestError::Remote(error)) = reply else { panic!("{reply:?}") };
        assert_eq!((error.kind.as_str(), error.text.as_str()), ("no-stock", "sold out"));
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_cannot_be_read_ends_its_request_with_what_is_wrong_with_it() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        let replying = async {
            let asked = service.next().await;
            service.reply_with(&asked, "?", header_with(header::SENT_AT_US, Value::text("yesterday"))).await;
        };
        let (reply, ()) = tokio::join!(producer.request(question(&to, "?"), LONG), replying);
        let error = reply.unwrap_err();
        assert!(matches!(error, RequestError::UnreadableReply(_)), "{error}");
        assert!(error.to_string().contains(header::SENT_AT_US), "{error}");
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_connection_is_cut_the_requests_in_flight_still_get_their_own_replies() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let url = node.amqp_url_through(Login::Producer, proxy.address());
        let (producer, to) = (Producer::connect(settings(&url)).await.unwrap(), service.to.clone());
        let asking = join_all((0..200).map(|n| producer.request(question(&to, n.to_string()), PATIENCE)));
        let replying = async {
            let asked = service.take(200).await;
            for (n, asked) in asked.iter().enumerate() {
                if n % 50 == 25 {
                    proxy.cut(Ending::Reset).await;
                }
                // Those between a cut and the new subscription wait in the queue, which has outlived it.
                service.reply(asked, &format!("reply to {}", asked.body)).await;
            }
        };
        let (replies, ()) = tokio::join!(asking, replying);
        for (n, reply) in replies.into_iter().enumerate() {
            assert_eq!(text(&reply.unwrap()), format!("reply to {n}"));
        }
        producer.close(CLOSE).await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_outlive_a_killed_broker_and_so_does_the_queue_for_their_replies() {
    for_each_own(NodeOptions::default(), async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        let asking = join_all((0..50).map(|n| producer.request(question(&to, n.to_string()), 2 * PATIENCE)));
        let replying = async {
            let asked = service.take(50).await;
            node.note_declared();
            node.kill().await.unwrap();
            node.restart().await.unwrap();
            (service.connection, service.channel) = plain(node).await;
            for asked in &asked {
                service.reply(asked, &format!("reply to {}", asked.body)).await;
            }
        };
        let (replies, ()) = tokio::join!(asking, replying);
        for (n, reply) in replies.into_iter().enumerate() {
            assert_eq!(text(&reply.unwrap()), format!("reply to {n}"));
        }
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_queue_that_somebody_deleted_is_made_again() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        for n in ["first", "second"] {
            let answering = async {
                // The one that finds no queue yet is not answered: ask again, as anybody would.
                loop {
                    match producer.request(question(&to, n), SHORT * 3).await {
                        Err(RequestError::DeadlinePassed { .. }) => {}
                        other => break other,
                    }
                }
            };
            let mut queue = None;
            let serving = async {
                loop {
                    let asked = service.next().await;
                    queue = asked.properties.reply_to.as_ref().map(ToString::to_string);
                    service.reply(&asked, &asked.body).await;
                }
            };
            let reply = tokio::select! { reply = answering => reply, () = serving => unreachable!("no end") };
            assert_eq!(text(&reply.unwrap()), n);
            node.delete_queue(&queue.unwrap()).await.unwrap();
        }
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_close_the_reply_queue_is_gone_and_what_was_in_flight_has_ended() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        let asking = {
            let (producer, to) = (producer.clone(), to.clone());
            tokio::spawn(async move { producer.request(question(&to, "1"), PATIENCE).await })
        };
        let first = service.next().await;
        let queue = first.properties.reply_to.as_ref().unwrap().to_string();
        assert!(is_there(node, &queue).await);
        // Closing waits for the reply as long as it may, and lets nobody in meanwhile …
        let ((), reply) = tokio::join!(producer.close(PATIENCE), async {
            let refused = producer.request(question(&to, "2"), LONG).await;
            assert!(matches!(refused, Err(RequestError::Closed)), "{refused:?}");
            service.reply(&first, "in time").await;
            asking.await.unwrap()
        });
        assert_eq!(text(&reply.unwrap()), "in time");
        assert!(!is_there(node, &queue).await, "{queue} is left");

        // … and not longer.
        let producer = connect(node).await;
        let (reply, asked) = tokio::join!(producer.request(question(&to, "3"), PATIENCE), async {
            let asked = service.next().await;
            within(LONG, producer.close(Duration::ZERO)).await;
            asked
        });
        assert!(matches!(reply, Err(RequestError::Closed)), "{reply:?}");
        assert!(!is_there(node, asked.properties.reply_to.unwrap().as_str()).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_request_leaves_nothing_pending_and_its_place_is_free() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let url = node.amqp_url(Login::Producer);
        let producer = Producer::connect(settings(&url).requests_at_once(1)).await.unwrap();
        let to = service.to.clone();
        let dropped = tokio::select! {
            reply = producer.request(question(&to, "1"), PATIENCE) => panic!("{reply:?}"),
            asked = service.next() => asked,
        };
        let replying = async {
            let asked = service.next().await;
            service.reply(&dropped, "to whom").await;
            service.reply(&asked, "to you").await;
            asked
        };
        let (reply, _) = tokio::join!(producer.request(question(&to, "2"), LONG), replying);
        assert_eq!(text(&reply.unwrap()), "to you");
        assert_eq!(producer.counts().late_replies, 1);

        // With nothing pending, closing has nothing to wait for; nor has who waits for a place.
        let (reply, waited) = tokio::join!(
            async {
                tokio::select! {
                    biased; // the first one takes the only place
                    reply = producer.request(question(&to, "3"), PATIENCE) => panic!("{reply:?}"),
                    waited = producer.request(question(&to, "4"), SHORT) => waited,
                }
            },
            service.next()
        );
        assert!(matches!(reply, Err(RequestError::DeadlinePassed { outcome: None, .. })), "{reply:?}");
        assert_eq!(waited.body, "3", "the other never left");
        within(PATIENCE / 4, producer.close(PATIENCE)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_have_no_queue_for_replies_is_told_which_right_it_lacks() {
    for_each(async |node| {
        let producer = Producer::connect(settings(&node.amqp_url(Login::Student))).await.unwrap();
        let to = Destination::queue("orders").unwrap();
        // Each caller hears of it, also a later one.
        for error in [
            producer.request(question(&to, "?"), PATIENCE).await.unwrap_err(),
            producer.request(question(&to, "?"), PATIENCE).await.unwrap_err(),
        ] {
            assert!(matches!(error, RequestError::NoReplyQueue(_)), "{error}");
            let words = error.to_string();
            assert!(words.contains("student") && words.contains("the right to configure correio.reply."), "{words}");
        }
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_request_comes_back_with_its_reason() {
    for_each(async |node| {
        let mut service = Service::start(node).await;
        let (producer, to) = (connect(node).await, service.to.clone());
        let keyed = question(&to, "?").with_key(Key::new("k").unwrap());
        let error = producer.request(keyed, LONG).await.unwrap_err();
        let RequestError::NotSent(error) = error else { panic!("{error}") };
        assert_eq!(
            (error.cause, &error.message.payload[..]),
            (SendFailure::KeyWith { what: KeyConflict::Deadline }, &b"?"[..])
        );

        let once = question(&to, "?").with_id(correio_producer::fresh_id());
        let (first, second, ()) =
            tokio::join!(producer.request(once.clone(), LONG), producer.request(once, LONG), async {
                let asked = service.next().await;
                service.reply(&asked, "to the first").await;
            });
        assert_eq!(text(&first.unwrap()), "to the first");
        assert!(matches!(second, Err(RequestError::SameIdPending { .. })), "{second:?}");
        producer.close(CLOSE).await;
        let error = producer.request(question(&to, "?"), LONG).await.unwrap_err();
        assert!(matches!(error, RequestError::Closed), "{error}");
    })
    .await;
}
