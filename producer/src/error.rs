//! Why a message was not sent at all. It comes back with the reason.

use std::{fmt, time::Duration};

use correio_message::{Envelope, Message, MessageId, Priority};

use crate::delay::NotDelayable;

/// A message never left this process, and here it is back.
#[derive(Debug, thiserror::Error)]
#[error("{} was not sent: {cause}", named(.message.id.as_ref()))]
pub struct SendError {
    /// The message, as it was given, with the id that it got, and the trace context.
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
    /// It has a key, and something that would take it out of that key's order.
    #[error("it has a key and {what}; leave one of them out")]
    KeyWith {
        /// What else it has.
        what: KeyConflict,
    },
    /// It cannot be sent with a delay, or not with this one.
    #[error(transparent)]
    NotDelayable(#[from] NotDelayable),
    /// It was taken, and its lifetime or deadline was over before its turn to be published came.
    #[error(
        "it expired within {waited:?}, before its turn to be published came: the broker is away or slower than what is sent"
    )]
    Expired {
        /// How long it waited.
        waited: Duration,
    },
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

/// What does not go together with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyConflict {
    /// When it expires it leaves a hole in the order.
    Deadline,
    /// The same.
    Lifetime,
    /// It overtakes those before it.
    Priority,
    /// It is overtaken by those behind it.
    Delay,
}

impl KeyConflict {
    /// What of this message does not go with its key.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        message.key.as_ref()?;
        let conflicts = [
            (message.deadline_us.is_some(), Self::Deadline),
            (message.lifetime.is_some(), Self::Lifetime),
            (message.priority != Priority::Normal, Self::Priority),
        ];
        conflicts.into_iter().find_map(|(is_there, conflict)| is_there.then_some(conflict))
    }
}

impl fmt::Display for KeyConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "a deadline: it may expire, and the order by that key would wait for it",
            Self::Lifetime => "a lifetime: it may expire, and the order by that key would wait for it",
            Self::Priority => "a priority: it may overtake what comes before it in the order by that key",
            Self::Delay => "a delay: what comes after it in the order by that key would overtake it",
        })
    }
}

fn named(id: Option<&MessageId>) -> String {
    id.map_or_else(|| "the message".to_owned(), |id| format!("message {id}"))
}
