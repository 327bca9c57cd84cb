//! One thing on the broker, as programs and errors name it.

use std::fmt;

use correio_message::Exchange;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::{exchange::kind_of, queue::Queue, topology::Binding};

/// One thing that is to be on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An exchange.
    Exchange(Exchange),
    /// A queue with its arguments.
    Queue(Queue),
    /// A binding.
    Binding(Binding),
    /// Policies and operator policies, which could change how a queue behaves.
    Policies,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(exchange) => write!(f, "exchange {} ({})", exchange.as_str(), kind_of(*exchange)),
            Self::Queue(queue) => write!(f, "queue {}", queue.name()),
            Self::Binding(Binding { route, queue }) => write!(f, "binding {route} → {queue}"),
            Self::Policies => f.write_str("policies"),
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Item", 4)?;
        match self {
            Self::Exchange(exchange) => {
                fields.serialize_field("item", "exchange")?;
                fields.serialize_field("name", exchange.as_str())?;
                fields.serialize_field("kind", kind_of(*exchange).as_str())?;
            }
            Self::Queue(queue) => {
                fields.serialize_field("item", "queue")?;
                fields.serialize_field("name", queue.name().as_str())?;
                fields.serialize_field("arguments", &queue.arguments())?;
            }
            Self::Binding(Binding { route, queue }) => {
                fields.serialize_field("item", "binding")?;
                fields.serialize_field("exchange", route.exchange.as_str())?;
                fields.serialize_field("routing_key", route.routing_key.as_str())?;
                fields.serialize_field("queue", queue.as_str())?;
            }
            Self::Policies => fields.serialize_field("item", "policies")?,
        }
        fields.end()
    }
}
