//! What a producer tells `tracing`: names and fields, all in one place. Its metrics are listed in `broker-config/src/metrics.rs`.
//!
//! | Kind | Name | Level | Fields | When |
//! |---|---|---|---|---|
//! | span | `publish` | debug | see below | from accepting a message to its outcome; of `fire`, until it is handed on |
//! | event | the broker cannot be reached, trying again | warn | `error`, `pause` | |
//! | event | the broker has let this program in no more for too long: … | error | `error` | what waits comes back |
//! | event | the publishing channel ended | warn, debug | `fault`, `held` | debug: for a message's fault, or asked to |
//! | event | the broker reads nothing from this connection for now | warn | `reason` | `connection.blocked` |
//! | event | the channel of fire ended; what was on it is lost | warn | `fault` | |
//! | event | no queue for replies yet, trying again | warn | `error`, `pause` | |
//! | event | the subscription to replies was lost and will be renewed | warn | `queue`, `cause` | |
//! | event | not subscribed to replies, trying again | warn | `error` | |
//! | event | … for too long: replies do not come | error | `error` | requests end with it |
//! | event | a reply that nobody waits for | debug | `correlation` | |
//!
//! What did not close politely, or is left to expire, is told at debug. `correio_broker_config` tells at info that there is no
//! connection yet, and at warn that a queue was gone and is made anew (`own`, `queue`).
//!
//! The span follows OpenTelemetry's conventions for messaging (in development): `otel.name` is `publish EXCHANGE:ROUTING_KEY`, without
//! the routing key where there may be any number of them; `otel.kind` is `producer`; `messaging.system`,
//! `messaging.operation.name`, `messaging.operation.type`, `messaging.destination.name`,
//! `messaging.rabbitmq.destination.routing_key`, `messaging.message.id`, `messaging.message.body.size`; at its end
//! `correio.outcome`, `correio.tries`, and where it failed `error.type` and `otel.status_code`.
//!
//! It is a debug span, so that who logs at `info` pays for none of this: with OpenTelemetry, let `correio_producer=debug` through.
//! With the feature `trace-context` each message carries the context of its span, or, where that is not let through, of the
//! span it was handed in from.

use std::fmt;

use correio_message::{Envelope, Exchange, Message, MessageId, Route};
use tracing::{Span, field::Empty};

use crate::{error::SendFailure, outcome::Outcome};

macro_rules! publish_span {
    ($operation:expr, $id:expr, $route:expr, $size:expr) => {
        // Its arguments are looked at only where somebody wants the span.
        tracing::debug_span!(
            "publish",
            "otel.name" = %Named($operation, &$route),
            "otel.kind" = "producer",
            "otel.status_code" = Empty,
            "messaging.system" = "rabbitmq",
            "messaging.operation.name" = $operation,
            "messaging.operation.type" = "send",
            "messaging.destination.name" = %Destination(&$route),
            "messaging.rabbitmq.destination.routing_key" = %$route.routing_key,
            "messaging.message.id" = %$id,
            "messaging.message.body.size" = $size,
            "correio.outcome" = Empty,
            "correio.tries" = Empty,
            "error.type" = Empty,
        )
    };
}

/// The span of one message, until its outcome. Takes no room to speak of where nobody listens.
#[derive(Clone, Debug)]
pub(crate) struct Publishing(Option<Box<Span>>);

impl Publishing {
    /// A message is handed in. What follows its way follows it with the headers that are put in here.
    pub(crate) fn of_message(operation: &'static str, id: &MessageId, message: &mut Message) -> Self {
        let span = publish_span!(operation, id, message.destination.route(), message.payload.len());
        #[cfg(feature = "trace-context")]
        crate::trace_context::carry(&span, &mut message.headers);
        Self::of(span)
    }

    /// A copy is handed in. It keeps the context of its original.
    pub(crate) fn of_copy(id: &MessageId, envelope: &Envelope) -> Self {
        let span = publish_span!("publish", id, &envelope.route, envelope.body.len());
        #[cfg(feature = "trace-context")]
        crate::trace_context::adopt(&span, &envelope.properties.headers);
        Self::of(span)
    }

    /// Of a message that has had its span.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    fn of(span: Span) -> Self {
        Self((!span.is_disabled()).then(|| Box::new(span)))
    }

    pub(crate) fn on_outcome(&self, outcome: &Outcome) {
        let Some(span) = &self.0 else { return };
        let word = match outcome {
            Outcome::Confirmed { .. } => "confirmed",
            Outcome::Unroutable { .. } => "unroutable",
            Outcome::Refused { .. } => "refused",
            Outcome::Unknown { .. } => "unknown",
        };
        span.record("correio.outcome", word);
        span.record("correio.tries", outcome.tries());
        if !outcome.is_confirmed() {
            failed(span, word);
        }
    }

    /// It did not leave.
    pub(crate) fn on_failure(&self, cause: &SendFailure) {
        let Some(span) = &self.0 else { return };
        failed(
            span,
            match cause {
                SendFailure::TooLarge { .. } | SendFailure::HeadersTooLarge { .. } => "too_large",
                SendFailure::KeyWith { .. } | SendFailure::NotDelayable(_) => "not_sendable",
                SendFailure::Expired { .. } => "expired",
                SendFailure::NotPublished { .. } => "not_published",
                SendFailure::KeyStopped { .. } => "key_stopped",
                SendFailure::Full | SendFailure::NoRoom { .. } => "no_room",
                SendFailure::Closed => "closed",
            },
        );
    }
}

fn failed(span: &Span, kind: &'static str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}

/// What the conventions call the destination: both parts, or the one there is.
struct Destination<'r>(&'r Route);

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route { exchange, routing_key } = self.0;
        match (exchange.is_empty(), routing_key.is_empty()) {
            (true, true) => f.write_str("amq.default"),
            (true, false) => routing_key.fmt(f),
            (false, true) => exchange.fmt(f),
            (false, false) => write!(f, "{exchange}:{routing_key}"),
        }
    }
}

/// The name of a span, of which there should not be one for each event or answer.
struct Named<'r>(&'static str, &'r Route);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(operation, route) = self;
        let many = [Exchange::Topic, Exchange::Reply].into_iter().any(|ours| route.exchange == ours.as_str());
        if many { write!(f, "{operation} {}", route.exchange) } else { write!(f, "{operation} {}", Destination(route)) }
    }
}
