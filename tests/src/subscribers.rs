//! Subscribers with queues of their own, made and served with the rights of the project's user `consumer`.

use std::{collections::BTreeSet, sync::Arc};

use correio_broker_config::{Address, OwnQueue};
use correio_consumer::{Consumer, ConsumerBuilder, Message, Processing, Startup};
use correio_lab::broker::{Login, Node};
use correio_message::{Destination, MailboxName, MessageId, TopicPattern};
use correio_producer::{Producer, ProducerSettings, Receipt};

use tokio::time::timeout;

use crate::consuming::{AT_ONCE, PATIENCE, Running, Seen, short_retries};

/// Whose messages.
#[derive(Clone, Debug)]
pub enum Whose {
    /// One particular receiver's.
    Mailbox(String),
    /// The events that a group wants: its pattern, its name.
    Group(String, String),
    /// Everyone's, for a listener with a name.
    Listener(String),
}

impl Whose {
    /// A consumer of them through this address, with short retries.
    ///
    /// # Panics
    ///
    /// If the address is none.
    pub fn consumer(&self, url: &str) -> ConsumerBuilder {
        let builder = nobodys(url);
        match self {
            Self::Mailbox(name) => builder.mailbox(name),
            Self::Group(pattern, name) => builder.topic(pattern, name),
            Self::Listener(name) => builder.broadcast(name),
        }
    }

    /// The same at the broker itself.
    pub fn at(&self, node: &Node) -> ConsumerBuilder {
        self.consumer(&node.amqp_url(Login::Consumer))
    }

    /// The queue as a value, with the queues around it for [`short_retries`].
    ///
    /// # Panics
    ///
    /// If it has no possible name.
    #[must_use]
    pub fn own(&self) -> OwnQueue {
        let own = match self {
            Self::Mailbox(name) => OwnQueue::mailbox(&MailboxName::new(name).expect("a name")),
            Self::Group(pattern, name) => {
                OwnQueue::group(name, &TopicPattern::new(pattern).expect("a pattern")).expect("a name")
            }
            Self::Listener(name) => OwnQueue::listener(name).expect("a name"),
        };
        own.with_delays(&short_retries(3).delays()).expect("delays")
    }

    /// The name of the queue.
    #[must_use]
    pub fn queue(&self) -> String {
        self.own().name().to_string()
    }

    /// As the programs take it.
    #[must_use]
    pub fn args(&self) -> Vec<&str> {
        match self {
            Self::Mailbox(name) => vec!["--mailbox", name],
            Self::Group(pattern, name) => vec!["--topic", pattern, "--group", name],
            Self::Listener(name) => vec!["--broadcast", "--name", name],
        }
    }
}

/// A consumer that has no source yet, with short retries.
///
/// # Panics
///
/// If the address is none.
pub fn nobodys(url: &str) -> ConsumerBuilder {
    let processing = Processing::Independent { at_once: AT_ONCE, retry: short_retries(3) };
    Consumer::builder(Address::parse(url).expect("an address")).processing(processing)
}

impl Running {
    /// Sets a consumer to work and waits until it has subscribed: its own queue is there and bound. Says how it was found.
    ///
    /// # Panics
    ///
    /// If it cannot begin.
    pub async fn begin(builder: ConsumerBuilder) -> (Startup, Self) {
        let consumer = builder.build().expect("settings that fit together");
        let startup = consumer.check().await.expect("its queue");
        let counts = consumer.counts();
        let running = Self::of(consumer);
        timeout(PATIENCE, counts.subscribed()).await.expect("a subscription in time");
        (startup, running)
    }
}

/// A handler that notes what it sees, of messages whose payload starts like this, and is done.
pub fn note(
    seen: &Seen,
    of: &str,
) -> impl Fn(Message) -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
    let (seen, of): (_, Arc<str>) = (seen.clone(), of.into());
    move |message| {
        if message.payload.starts_with(of.as_bytes()) {
            seen.note(&message);
        }
        std::future::ready(Ok(()))
    }
}

/// A producer with the rights of the project's user, through this address.
///
/// # Panics
///
/// If the broker does not answer.
pub async fn producer_at(url: &str) -> Producer {
    let settings = ProducerSettings::new(Address::parse(url).expect("an address"), "tests").expect("a short origin");
    // What a busy machine needs to bring a killed broker back.
    Producer::connect(settings.confirm_deadline(PATIENCE)).await.expect("connected")
}

/// The same at the broker itself.
///
/// # Panics
///
/// If the broker does not answer.
pub async fn sender(node: &Node) -> Producer {
    producer_at(&node.amqp_url(Login::Producer)).await
}

/// A message whose payload is its id.
///
/// # Panics
///
/// If the payload is no id.
#[must_use]
pub fn letter(to: &Destination, payload: &str) -> Message {
    Message::new(to.clone(), payload.to_owned()).with_id(MessageId::new(payload).expect("an id"))
}

/// Hands messages in whose payloads are their ids.
///
/// # Panics
///
/// If there is no room for one.
pub async fn submit<P: AsRef<str>>(
    producer: &Producer,
    to: &Destination,
    payloads: impl IntoIterator<Item = P>,
) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for payload in payloads {
        receipts.push(producer.submit(letter(to, payload.as_ref())).await.expect("handed in"));
    }
    receipts
}

/// Which of them are confirmed.
pub async fn confirmed(receipts: Vec<Receipt>) -> BTreeSet<String> {
    let mut confirmed = BTreeSet::new();
    for receipt in receipts {
        let id = receipt.id().to_string();
        if receipt.await.is_ok_and(|outcome| outcome.is_confirmed()) {
            confirmed.insert(id);
        }
    }
    confirmed
}

/// Sends messages whose payloads are their ids, each confirmed.
///
/// # Panics
///
/// If one is not confirmed.
pub async fn send_to<P: AsRef<str>>(producer: &Producer, to: &Destination, payloads: impl IntoIterator<Item = P>) {
    for receipt in submit(producer, to, payloads).await {
        let outcome = receipt.await.expect("published");
        assert!(outcome.is_confirmed(), "{to:?}: {outcome}");
    }
}

/// Fails if anything stands in the queues whose names have this in them. A listener's own queue is left out: the other tests of
/// the node broadcast to it too.
///
/// # Panics
///
/// If something stands there, or the broker does not answer.
pub async fn nothing_left_in(node: &Node, part: &str) {
    let hears_others = |name: &str| {
        let around = [".dead", ".retry."];
        name.starts_with("correio.broadcast.") && !around.iter().any(|around| name.contains(around))
    };
    let mut left = queues_with(node, part).await;
    left.retain(|(name, messages)| *messages > 0 && !hears_others(name));
    assert_eq!(left, []);
}

/// The queues whose names have this in them, with the messages that are ready in each: exact, as the listing's own counts of a
/// quorum queue are up to five seconds old.
///
/// # Panics
///
/// If the broker does not answer.
pub async fn queues_with(node: &Node, part: &str) -> Vec<(String, u64)> {
    let listed = node.list_queues().await.expect("the queues");
    let mut found = Vec::new();
    for (name, ..) in listed.into_iter().filter(|(name, ..)| name.contains(part)) {
        // One that is gone since is not there.
        if let Ok(ready) = node.queue_depth(&name).await {
            found.push((name, ready));
        }
    }
    found.sort();
    found
}
