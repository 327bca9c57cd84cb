//! A queue as a value: what a guarantee needs of it is a declare argument, spelled in types.

use std::{collections::BTreeMap, fmt, time::Duration};

use correio_message::{Route, ShortText};

/// A durable quorum queue with its declare arguments, all of which RabbitMQ 3.10, 4.0 and 4.3 accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    name: ShortText,
    delivery_limit: u32,
    dead_letter: Option<(Route, DeadLettering)>,
    single_active_consumer: bool,
    message_ttl: Option<Duration>,
    expires: Option<Duration>,
    max_length: Option<u32>,
}

/// What happens to a message on its way to the dead-letter exchange when the broker stops meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLettering {
    /// It may be lost.
    AtMostOnce,
    /// It stays in its queue until its target has it. The queue refuses what it has no room for
    /// (`reject-publish`), because RabbitMQ silently falls back to at-most-once otherwise.
    AtLeastOnce,
}

/// The value of a declare argument.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Argument {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl Queue {
    /// A quorum queue that gives up on a message after `delivery_limit` failed deliveries.
    ///
    /// The limit is no option: without one, 3.10 requeues for ever and 4.x gives up after 20. Zero is taken as 1.
    #[must_use]
    pub fn quorum(name: ShortText, delivery_limit: u32) -> Self {
        Self {
            name,
            delivery_limit: delivery_limit.max(1),
            dead_letter: None,
            single_active_consumer: false,
            message_ttl: None,
            expires: None,
            max_length: None,
        }
    }

    /// Where expired, rejected and given-up messages go.
    #[must_use]
    pub fn dead_letter_to(mut self, route: Route, how: DeadLettering) -> Self {
        self.dead_letter = Some((route, how));
        self
    }

    /// Only one consumer at a time gets messages; the others stand by.
    #[must_use]
    pub fn single_active_consumer(mut self) -> Self {
        self.single_active_consumer = true;
        self
    }

    /// A message that has waited this long at the queue's head expires.
    #[must_use]
    pub fn message_ttl(mut self, ttl: Duration) -> Self {
        self.message_ttl = Some(ttl);
        self
    }

    /// The queue deletes itself after this long without a consumer.
    #[must_use]
    pub fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(after);
        self
    }

    /// The queue refuses messages past this many (a nack to who waits for confirms).
    #[must_use]
    pub fn max_length(mut self, messages: u32) -> Self {
        self.max_length = Some(messages);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ShortText {
        &self.name
    }

    /// Where its dead letters go.
    #[must_use]
    pub fn dead_letters_go_to(&self) -> Option<&Route> {
        self.dead_letter.as_ref().map(|(route, _)| route)
    }

    /// Whether it has a single active consumer.
    #[must_use]
    pub fn has_single_active_consumer(&self) -> bool {
        self.single_active_consumer
    }

    /// Its declare arguments by name.
    #[must_use]
    pub fn arguments(&self) -> BTreeMap<&'static str, Argument> {
        let text = |text: &str| Argument::Text(text.to_owned());
        let mut arguments = BTreeMap::from([
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", Argument::Number(self.delivery_limit.into())),
        ]);
        if let Some((route, how)) = &self.dead_letter {
            arguments.insert("x-dead-letter-exchange", text(route.exchange.as_str()));
            arguments.insert("x-dead-letter-routing-key", text(route.routing_key.as_str()));
            if *how == DeadLettering::AtLeastOnce {
                arguments.insert("x-dead-letter-strategy", text("at-least-once"));
                arguments.insert("x-overflow", text("reject-publish"));
            }
        }
        if self.single_active_consumer {
            arguments.insert("x-single-active-consumer", Argument::Flag(true));
        }
        if let Some(ttl) = self.message_ttl {
            arguments.insert("x-message-ttl", milliseconds(ttl));
        }
        if let Some(after) = self.expires {
            arguments.insert("x-expires", milliseconds(after));
        }
        if let Some(most) = self.max_length {
            arguments.insert("x-max-length", Argument::Number(most.into()));
            arguments.insert("x-overflow", text("reject-publish"));
        }
        arguments
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

fn milliseconds(duration: Duration) -> Argument {
    Argument::Number(duration.as_millis().clamp(1, LONGEST_MILLISECONDS) as i64)
}

/// RabbitMQ refuses longer times.
const LONGEST_MILLISECONDS: u128 = u32::MAX as u128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_once_dead_lettering_never_comes_without_reject_publish() {
        let name = ShortText::new("q").unwrap();
        let route = Route { exchange: name.clone(), routing_key: name.clone() };
        let at_least = Queue::quorum(name.clone(), 5).dead_letter_to(route.clone(), DeadLettering::AtLeastOnce);
        assert_eq!(at_least.arguments()["x-overflow"], Argument::Text("reject-publish".to_owned()));
        let at_most = Queue::quorum(name, 5).dead_letter_to(route, DeadLettering::AtMostOnce);
        assert!(!at_most.arguments().contains_key("x-dead-letter-strategy"));
    }

    #[test]
    fn no_queue_is_without_a_positive_delivery_limit() {
        let queue = Queue::quorum(ShortText::new("q").unwrap(), 0);
        assert_eq!(queue.arguments()["x-delivery-limit"], Argument::Number(1));
    }
}
