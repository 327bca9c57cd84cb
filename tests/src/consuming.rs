//! A consumer inside the test, and what its handlers saw.

use std::{
    num::NonZeroU16,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use correio_broker_config::{Address, ConnectionSettings, Connections, Purpose, Topology, WorkQueue, apply};
use correio_consumer::{
    CancellationToken, ConsumeError, Consumer, ConsumerBuilder, Context, Counts, Health, HealthWatch, Message,
    Processing, Summary, Tally,
};
use correio_lab::broker::{Login, Node};
use correio_message::{Destination, Envelope, MessageId, ShortText};
use correio_producer::{Producer, ProducerSettings};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

/// How long a journey waits for anything. Longer than the three minutes after which RabbitMQ sends a message again that it
/// moves between queues at least once, and whose confirm it missed: on a busy machine a retry comes that late.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// A wait worth a line in the log.
const LONG: Duration = Duration::from_secs(20);

/// Declares a work queue with its company.
///
/// # Panics
///
/// If the broker refuses.
pub async fn declare(node: &Node, queue: WorkQueue) -> String {
    let address = Address::parse(&node.amqp_url(Login::Lab)).expect("an address");
    let connections = Connections::new(address, ConnectionSettings::new("broker", "tests", Purpose::Admin));
    let name = queue.name().to_string();
    apply(&connections, &Topology::exchanges_only().with(&queue)).await.expect("declared");
    connections.close().await;
    node.note_declared();
    name
}

/// A work queue of this test's own whose retries are short: after 200, 400 and 400 ms.
///
/// # Panics
///
/// If the broker refuses.
pub async fn shared(node: &Node, what: &str) -> String {
    let delays = [200, 400].map(Duration::from_millis);
    declare(node, WorkQueue::shared_with_delays(crate::queues::fresh(what), &delays).expect("a name")).await
}

/// An ordered work queue of this test's own.
///
/// # Panics
///
/// If the broker refuses.
pub async fn ordered(node: &Node, what: &str) -> String {
    declare(node, WorkQueue::ordered(crate::queues::fresh(what)).expect("a name")).await
}

/// The retries of [`shared`].
#[must_use]
pub fn short_retries(retries: u32) -> correio_consumer::RetrySchedule {
    let (first, ceiling) = (Duration::from_millis(200), Duration::from_millis(400));
    correio_consumer::RetrySchedule::new(first, ceiling, retries).expect("a schedule")
}

/// A consumer of this queue, as the user that the project gives consumers.
pub fn consumer(node: &Node, queue: &str) -> ConsumerBuilder {
    consumer_at(&node.amqp_url(Login::Consumer), queue)
}

/// A consumer of this queue through that address, with [`short_retries`].
///
/// # Panics
///
/// If the address is none.
pub fn consumer_at(url: &str, queue: &str) -> ConsumerBuilder {
    let processing = Processing::Independent { at_once: AT_ONCE, retry: short_retries(3) };
    Consumer::builder(Address::parse(url).expect("an address")).queue(queue).processing(processing)
}

/// How many messages a [`consumer`] handles at once.
pub const AT_ONCE: NonZeroU16 = NonZeroU16::new(4).expect("not zero");

/// A producer of the test's own.
///
/// # Panics
///
/// If the broker does not answer.
pub async fn producer(node: &Node) -> Producer {
    let address = Address::parse(&node.amqp_url(Login::Lab)).expect("an address");
    Producer::connect(ProducerSettings::new(address, "tests").expect("a short origin")).await.expect("connected")
}

/// Sends messages with these payloads, each confirmed; the payload is the id too.
///
/// # Panics
///
/// If one is not confirmed.
pub async fn send(producer: &Producer, queue: &str, payloads: impl IntoIterator<Item = String>) {
    let mut receipts = Vec::new();
    for payload in payloads {
        receipts.push(producer.submit(message(queue, &payload)).await.expect("handed in"));
    }
    for receipt in receipts {
        let outcome = receipt.await.expect("published");
        assert!(outcome.is_confirmed(), "{outcome}");
    }
}

/// A message whose payload is its id.
///
/// # Panics
///
/// If the payload is no id.
#[must_use]
pub fn message(queue: &str, payload: &str) -> Message {
    let to = Destination::queue(queue).expect("a short name");
    Message::new(to, payload.to_owned()).with_id(MessageId::new(payload).expect("an id"))
}

/// Sends an envelope as it is, confirmed.
///
/// # Panics
///
/// If it is not confirmed.
pub async fn forward(producer: &Producer, envelope: Envelope) {
    let outcome = producer.forward(envelope).await.expect("handed in").await.expect("published");
    assert!(outcome.is_confirmed(), "{outcome}");
}

/// What handlers saw, in their order.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    /// Notes a message.
    pub fn note(&self, message: &Message) {
        self.note_text(String::from_utf8_lossy(&message.payload).into_owned());
    }

    /// Notes a message together with its attempt.
    pub fn note_attempt(&self, message: &Message, context: &Context) {
        self.note_text(format!("{}#{}", String::from_utf8_lossy(&message.payload), context.attempt()));
    }

    /// Notes anything.
    pub fn note_text(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All of it, sorted.
    #[must_use]
    pub fn sorted(&self) -> Vec<String> {
        let mut all = self.all();
        all.sort();
        all
    }

    /// How much it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A consumer at work.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    counts: Counts,
    health: HealthWatch,
    task: JoinHandle<Result<Summary, ConsumeError>>,
}

impl Running {
    /// Sets a consumer to work.
    ///
    /// # Panics
    ///
    /// If its settings do not fit together.
    #[must_use]
    pub fn start(builder: ConsumerBuilder) -> Self {
        Self::of(builder.build().expect("settings that fit together"))
    }

    pub(crate) fn of(consumer: Consumer) -> Self {
        let (stop, counts, health) = (CancellationToken::new(), consumer.counts(), consumer.health());
        let task = tokio::spawn(consumer.run(stop.clone()));
        Self { stop, counts, health, task }
    }

    /// What it has done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.counts.now()
    }

    /// Waits until the counts are as wanted.
    ///
    /// # Panics
    ///
    /// If they do not become so.
    pub async fn until(&self, wanted: impl Fn(&Tally) -> bool) {
        until(|| wanted(&self.counts.now()), || format!("{:?}", self.counts.now())).await;
    }

    /// Waits until its health is as wanted.
    ///
    /// # Panics
    ///
    /// If it does not become so.
    pub async fn until_health(&self, wanted: impl FnMut(&Health) -> bool) -> Health {
        let mut health = self.health.clone();
        let reached = timeout(PATIENCE, health.until(wanted)).await.ok().flatten();
        reached.unwrap_or_else(|| panic!("its health did not come to that: {:?}", self.health.now()))
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Panics
    ///
    /// If it does not end well.
    pub async fn stop(self) -> Summary {
        self.stop.cancel();
        self.ended().await.expect("a good end")
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// What it ended with.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn ended(self) -> Result<Summary, ConsumeError> {
        timeout(PATIENCE, self.task).await.expect("an end in time").expect("no panic")
    }

    /// Ends it where it stands, as SIGKILL would: nothing is settled, nothing closed.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Waits until something is so.
///
/// # Panics
///
/// If it does not become so, with what is so instead.
pub async fn until(wanted: impl Fn() -> bool, instead: impl Fn() -> String) {
    let reached = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let began = Instant::now();
    assert!(timeout(PATIENCE, reached).await.is_ok(), "it did not come to that: {}", instead());
    if began.elapsed() > LONG {
        println!("it came to that after {:?}: {}", began.elapsed(), instead());
    }
}

/// Waits until a queue holds so many ready messages.
///
/// # Panics
///
/// If it does not come to that.
pub async fn until_depth(node: &Node, queue: &str, depth: u64) {
    let reached = async {
        while node.queue_depth(queue).await.expect("a depth") != depth {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, reached).await.is_err() {
        panic!("{queue} holds {}, not {depth}", node.queue_depth(queue).await.expect("a depth"));
    }
}

/// A name as it goes into a property.
///
/// # Panics
///
/// If it is over 255 bytes.
#[must_use]
pub fn short(text: &str) -> ShortText {
    ShortText::new(text).expect("a short text")
}
