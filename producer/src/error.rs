//! Why a message was not sent at all. It comes back with the reason.

use std::time::Duration;

use correio_message::{Envelope, Message, MessageId};

/// A message never left this process, and here it is back.
#[derive(Debug, thiserror::Error)]
#[error("{} was not sent: {cause}", named(.message.id.as_ref()))]
pub struct SendError {
    /// The message, as it was given, with the id that it got.
    pub message: Box<Message>,
    /// Why it was not sent.
    #[source]
    pub cause: SendFailure,
}

/// A ready-made envelope never left this process, and here it is back.
#[derive(Debug, thiserror::Error)]
#[error("a copy was not sent: {cause}")]
pub struct ForwardError {
    /// The envelope, as it was given, with the id that it got.
    pub envelope: Box<Envelope>,
    /// Why it was not sent.
    #[source]
    pub cause: SendFailure,
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendFailure {
    /// The payload is over the limit; RabbitMQ refuses more than 16 MiB from 4.0 on.
    #[error("its payload is {size} bytes and the limit is {limit}: send a reference to it, or split it")]
    TooLarge {
        /// Bytes of the payload.
        size: usize,
        /// The producer's limit.
        limit: usize,
    },
    /// Properties and headers together must fit into one AMQP frame.
    #[error("its headers take about {size} bytes and the limit is {limit}: move them into the payload")]
    HeadersTooLarge {
        /// Bytes of the properties, roughly.
        size: usize,
        /// The producer's limit.
        limit: usize,
    },
    /// A message that can expire and a key do not go together: an expired one would leave a hole in the key's order.
    #[error(
        "it has a deadline and a key: it may expire, and the order by that key would wait for it; leave one of them out"
    )]
    KeyWithDeadline,
    /// It was taken, and its turn to be published did not come before its deadline: the broker was away, or slower than what
    /// is sent.
    #[error("its turn to be published did not come within {waited:?}: the broker is away or slower than what is sent")]
    NotPublished {
        /// How long it waited.
        waited: Duration,
    },
    /// An earlier message of its key is not on its queue, and its sender has not decided yet what becomes of it
    /// ([`OnHole::Stop`](crate::OnHole::Stop)).
    #[error(
        "its key is stopped by message {by}, which is not on its queue: decide about that with Producer::resend or Producer::void"
    )]
    KeyStopped {
        /// The id to decide about.
        by: MessageId,
    },
    /// There is no room in the buffer now ([`Producer::try_submit`](crate::Producer::try_submit)).
    #[error("no room in the send buffer now: the broker is away or slower than what is sent")]
    Full,
    /// The buffer was full all the time: the broker is away or slower than the senders.
    #[error("no room in the send buffer within {waited:?}: the broker is away or slower than what is sent")]
    NoRoom {
        /// How long it waited for room.
        waited: Duration,
    },
    /// The producer was closed, or its broker has refused it for too long after a loss (wrong credentials or certificate).
    #[error("the producer is closed")]
    Closed,
}

fn named(id: Option<&MessageId>) -> String {
    id.map_or_else(|| "the message".to_owned(), |id| format!("message {id}"))
}
