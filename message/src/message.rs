//! What an application sends, and what its handler gets.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    address::{InvalidAddress, MailboxName, TopicKey},
    id::MessageId,
    payload::{Json, PayloadError},
    properties::Headers,
    sequence::{Key, Sequence},
    text::{ShortText, TooLong},
    urgency::{InvalidLifetime, Lifetime, Priority},
};

/// A message: a payload with an identity, a destination and a name for what it is.
///
/// What a sender leaves out, the producer fills in where it can: the id (a UUIDv7), the origin, the time. In a
/// received message, `None` means that its sender did not say it; it is never guessed.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What makes two deliveries the same message (`message_id`).
    pub id: Option<MessageId>,
    /// The application that sent it (`app_id`).
    pub origin: Option<ShortText>,
    /// Who is to receive it.
    pub destination: Destination,
    /// What it is, such as `order.placed` (`type`): chooses the handler.
    pub message_type: Option<ShortText>,
    /// The body.
    pub payload: Bytes,
    /// The MIME type of the payload.
    pub content_type: Option<ShortText>,
    /// How the payload is encoded, such as `gzip`.
    pub content_encoding: Option<ShortText>,
    /// Which request or conversation it belongs to.
    pub correlation_id: Option<ShortText>,
    /// Where an answer is to go.
    pub reply_to: Option<ShortText>,
    /// What it is ordered by: messages of one producer with the same key are handled in the order sent. Once there is
    /// a sequence, it is the sequence's key.
    pub key: Option<Key>,
    /// Its place among those with the same key: stamped by the producer, never by the application.
    pub sequence: Option<Sequence>,
    /// When it was first sent, in microseconds since 1970 (UTC); at most `i64::MAX`, the largest that the wire has.
    pub sent_at_us: Option<u64>,
    /// When its sender stops waiting for an answer, in microseconds since 1970 by the sender's clock: past that nobody
    /// begins to work on it, and the broker takes it off its queue: off a work queue into the parking queue.
    pub deadline_us: Option<u64>,
    /// How long it may wait for its handler, counted from when it is handed to the producer: see
    /// [`expiring_after`](Self::expiring_after). Where there is a deadline too, the earlier of both is the broker's, and a
    /// receiver sees the deadline alone.
    pub lifetime: Option<Lifetime>,
    /// Whether it goes before others that wait where it does.
    pub priority: Priority,
    /// In an answer: the request could not be met.
    pub error: Option<ReplyError>,
    /// The sender's own headers: neither `correio-…` nor `x-…`, `CC` or `BCC`, which are neither written nor shown.
    pub headers: Headers,
}

impl Message {
    /// A message with any bytes as payload.
    #[must_use]
    pub fn new(destination: Destination, payload: impl Into<Bytes>) -> Self {
        Self {
            id: None,
            origin: None,
            destination,
            message_type: None,
            payload: payload.into(),
            content_type: None,
            content_encoding: None,
            correlation_id: None,
            reply_to: None,
            key: None,
            sequence: None,
            sent_at_us: None,
            deadline_us: None,
            lifetime: None,
            priority: Priority::Normal,
            error: None,
            headers: Headers::new(),
        }
    }

    /// A message whose payload is a value as JSON.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the value has no JSON form (a map whose keys are not text, say).
    pub fn json<T: serde::Serialize>(destination: Destination, value: &T) -> Result<Self, PayloadError> {
        let mut message = Self::new(destination, Json::<T>::encode(value)?);
        message.content_type = Some(Json::<T>::content_type());
        Ok(message)
    }

    /// The same message under an id that the caller chose, so that it can be sent again as the same message.
    #[must_use]
    pub fn with_id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// The same message, ordered by a key.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// The same message under a type name, which chooses the handler.
    #[must_use]
    pub fn with_type(mut self, name: ShortText) -> Self {
        self.message_type = Some(name);
        self
    }

    /// The same message, worth nothing after a while, counted from when it is handed to the producer.
    ///
    /// Past that a producer does not publish it any more, and gives it back. On its queue the broker takes it off: on a work
    /// queue into the parking queue, as everything that nobody handled, with the reason `broker` and “moved by the broker:
    /// expired”. It counts while the message waits: what a consumer has received, or tries again, is handled. What is sent
    /// again for want of an answer has only what is left of its time. A key does not go with it.
    ///
    /// # Errors
    ///
    /// [`InvalidLifetime`] if it is zero, or over 49.7 days.
    pub fn expiring_after(mut self, lifetime: Duration) -> Result<Self, InvalidLifetime> {
        self.lifetime = Some(Lifetime::new(lifetime)?);
        Ok(self)
    }

    /// The same message with a priority: see [`Priority`] for what a broker makes of it. A key does not go with a high one.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

/// Why a request was not met, as the one who was asked says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {text}")]
pub struct ReplyError {
    /// What kind of error it is, for programs: `failed`, `timed-out`, or a name of the service's own.
    pub kind: ShortText,
    /// What went wrong, for people; at most 4,096 bytes of it are sent.
    pub text: String,
}

/// Who is to receive a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// Any one consumer of this work queue, the freest (anycast): through the exchange `correio.queue`.
    Queue(ShortText),
    /// One particular receiver (unicast): its own queue, through `correio.queue` too.
    Mailbox(MailboxName),
    /// Every group that subscribed to such keys (multicast): through `correio.topic`.
    Topic(TopicKey),
    /// Everyone who listens (broadcast): through `correio.broadcast`.
    Everyone,
    /// An exchange and routing key of the application's own.
    Route(Route),
}

impl Destination {
    /// Any one consumer of this work queue.
    ///
    /// # Errors
    ///
    /// [`TooLong`] past 255 bytes.
    pub fn queue(name: impl AsRef<str>) -> Result<Self, TooLong> {
        ShortText::new(name).map(Self::Queue)
    }

    /// One particular receiver.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] if this cannot be a mailbox's name.
    pub fn mailbox(name: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        MailboxName::new(name).map(Self::Mailbox)
    }

    /// Every group that subscribed to such keys.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] if it is empty, over 255 bytes, or a pattern.
    pub fn topic(key: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        TopicKey::new(key).map(Self::Topic)
    }

    /// Whether somebody is to have it: with an event and a broadcast it is normal that nobody listens.
    #[must_use]
    pub fn wants_somebody(&self) -> bool {
        !matches!(self, Self::Topic(_) | Self::Everyone)
    }

    /// Where a message to here is published.
    #[must_use]
    pub fn route(&self) -> Route {
        match self {
            Self::Queue(name) => Route { exchange: Exchange::Queue.name(), routing_key: name.clone() },
            Self::Mailbox(name) => Route { exchange: Exchange::Queue.name(), routing_key: name.queue() },
            Self::Topic(key) => Route { exchange: Exchange::Topic.name(), routing_key: key.text().clone() },
            Self::Everyone => Route { exchange: Exchange::Broadcast.name(), routing_key: ShortText::constant("") },
            Self::Route(route) => route.clone(),
        }
    }

    /// Who a message with this route was meant for, however its sender spelled it: a route through `correio.queue` is
    /// [`Destination::Mailbox`] if the queue is one, else [`Destination::Queue`].
    #[must_use]
    pub fn of_route(route: &Route) -> Self {
        let Route { exchange, routing_key } = route;
        let named = match Exchange::ALL.into_iter().find(|ours| exchange == ours.as_str()) {
            Some(Exchange::Queue) => {
                Some(MailboxName::of_queue(routing_key).map_or_else(|| Self::Queue(routing_key.clone()), Self::Mailbox))
            }
            Some(Exchange::Topic) => Self::topic(routing_key).ok(),
            // A fanout exchange does not look at the key, and a sender may have written one.
            Some(Exchange::Broadcast) if routing_key.is_empty() => Some(Self::Everyone),
            _ => None,
        };
        named.unwrap_or_else(|| Self::Route(route.clone()))
    }
}

/// An exchange and a routing key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The exchange that a message is published to.
    pub exchange: ShortText,
    /// What the exchange routes by.
    pub routing_key: ShortText,
}

impl Route {
    /// The name of the stream that this route makes when the producer names none.
    #[must_use]
    pub fn stream(&self) -> Arc<str> {
        self.to_string().into()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.exchange, self.routing_key)
    }
}

/// The exchanges that are ours. Nothing is published to the default one, so that permissions can be exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exchange {
    /// Work queues, each by its name (direct).
    Queue,
    /// Delay queues, each by its name (direct).
    Retry,
    /// Parking queues, each by its name (direct).
    Dead,
    /// Answers to requests (direct).
    Reply,
    /// Events by pattern (topic).
    Topic,
    /// To everyone (fanout).
    Broadcast,
}

impl Exchange {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Queue, Self::Retry, Self::Dead, Self::Reply, Self::Topic, Self::Broadcast];

    /// Its name on the broker.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "correio.queue",
            Self::Retry => "correio.retry",
            Self::Dead => "correio.dead",
            Self::Reply => "correio.reply",
            Self::Topic => "correio.topic",
            Self::Broadcast => "correio.broadcast",
        }
    }

    /// Its name on the broker, as a route wants it.
    #[must_use]
    pub fn name(self) -> ShortText {
        ShortText::constant(self.as_str())
    }
}
