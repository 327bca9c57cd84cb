//! Who asks: a plain client with the rights of the project's user `producer`, and a queue of its own for the answers.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use correio_broker_config::wire;
use correio_lab::broker::{Login, Node};
use correio_message::{Destination, Durability, Envelope, Message, MessageId, ReplyError, Route, ShortText};
use futures_util::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use crate::queues::{fresh, name};

/// A connection with a queue for answers.
#[derive(Debug)]
pub struct Requester {
    connection: Connection,
    channel: Channel,
    queue: String,
    answers: Consumer,
}

/// An answer, as far as a test looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it answers to.
    pub to: String,
    /// What it says, or what went wrong.
    pub says: Result<String, ReplyError>,
}

/// The first answer to each request.
pub type Answers = BTreeMap<String, Result<String, ReplyError>>;

impl Requester {
    /// Connects and makes the queue.
    ///
    /// # Panics
    ///
    /// If the broker refuses.
    pub async fn connect(node: &Node) -> Self {
        let url = node.amqp_url(Login::Producer);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        let queue = format!("correio.reply.{}", fresh("x"));
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name(&queue), options, arguments).await.expect("declared");
        let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(name(&queue), name("correio.reply"), name(&queue), bind, none).await.expect("bound");
        let (consume, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let answers = channel.basic_consume(name(&queue), name(""), consume, none).await.expect("consuming");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        node.note_declared();
        Self { connection, channel, queue, answers }
    }

    /// A request with this id and body, and so much time for its answer, counted from now.
    ///
    /// # Panics
    ///
    /// If the id is none.
    #[must_use]
    pub fn request(&self, to: &Destination, id: &str, body: &str, time: Duration) -> Message {
        let mut message = Message::new(to.clone(), body.to_owned()).with_id(MessageId::new(id).expect("an id"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        message.reply_to = ShortText::new(&self.queue).ok();
        message.correlation_id = ShortText::new(format!("c-{id}")).ok();
        message.deadline_us = u64::try_from((now + time).as_micros()).ok();
        message.sent_at_us = u64::try_from(now.as_micros()).ok();
        message
    }

    /// Asks, and waits until the request is confirmed.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub async fn ask(&self, request: &Message) {
        self.publish(&request.encode(Durability::Persistent)).await;
    }

    /// Publishes an envelope as it is, confirmed.
    ///
    /// # Panics
    ///
    /// If it is not confirmed, or returned.
    pub async fn publish(&self, envelope: &Envelope) {
        let Route { exchange, routing_key } = &envelope.route;
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = wire::to_lapin(&envelope.properties);
        let confirm = self
            .channel
            .basic_publish(name(exchange.as_str()), name(routing_key.as_str()), options, &envelope.body, properties)
            .await
            .expect("published")
            .await
            .expect("an answer");
        assert!(confirm.is_ack() && confirm.take_message().is_none(), "a request was not taken");
    }

    /// The next answer.
    ///
    /// # Panics
    ///
    /// If none comes in time.
    pub async fn answer(&mut self) -> Answer {
        let next = timeout(PATIENCE, self.answers.next()).await.expect("an answer in time");
        let delivery = next.expect("a live queue").expect("a delivery");
        delivery.ack(BasicAckOptions::default()).await.expect("acknowledged");
        let envelope = Envelope {
            route: Route {
                exchange: ShortText::new(delivery.exchange.as_str()).expect("short"),
                routing_key: ShortText::new(delivery.routing_key.as_str()).expect("short"),
            },
            properties: wire::from_lapin(&delivery.properties),
            body: delivery.data.into(),
        };
        let message = envelope.decode().expect("an answer that can be read").message;
        let says = match message.error {
            Some(error) => Err(error),
            None => Ok(String::from_utf8_lossy(&message.payload).into_owned()),
        };
        Answer { to: message.correlation_id.expect("a correlation").to_string(), says }
    }

    /// Takes answers until so many requests have one; of each the first is kept. Says how many further ones came.
    ///
    /// # Panics
    ///
    /// If they do not come in time.
    pub async fn gather(&mut self, answers: &mut Answers, count: usize) -> usize {
        let mut further = 0;
        while answers.len() < count {
            let Answer { to, says } = self.answer().await;
            match answers.entry(to) {
                Entry::Occupied(_) => further += 1,
                Entry::Vacant(first) => {
                    first.insert(says);
                }
            }
        }
        further
    }

    /// The answers to so many requests.
    ///
    /// # Panics
    ///
    /// If they do not come in time, or one comes twice.
    pub async fn answers(&mut self, count: usize) -> Answers {
        let mut answers = Answers::new();
        assert_eq!(self.gather(&mut answers, count).await, 0, "a request was answered twice");
        answers
    }

    /// The queue for its answers.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Looks for a moment that no further answer has come.
    ///
    /// # Panics
    ///
    /// If one has.
    pub async fn nothing_more(&mut self) {
        let more = timeout(Duration::from_millis(200), self.answers.next()).await;
        assert!(more.is_err(), "a further answer: {more:?}");
    }

    /// Goes away with the queue: nobody can be answered there.
    ///
    /// # Panics
    ///
    /// If the broker does not answer.
    pub async fn leave(self) {
        self.channel.queue_delete(name(&self.queue), QueueDeleteOptions::default()).await.expect("deleted");
        self.connection.close(200, name("")).await.expect("closed");
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
