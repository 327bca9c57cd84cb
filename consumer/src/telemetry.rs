//! What a consumer tells `tracing`: names and fields, all in one place. Its metrics are listed in `broker-config/src/metrics.rs`.
//!
//! | Kind | Name | Level | Fields | When |
//! |---|---|---|---|---|
//! | span | `process` | debug | see below | around each attempt of a handler |
//! | event | a message was not handled | warn | `message`, `attempt`, `failure` | a handler failed, panicked or missed its deadline |
//! | event | a message was parked as a dead letter | warn | `message`, `reason`, `error` | its copy is confirmed |
//! | event | a message was dropped, as its handler asked | info | `message`, `reason` | |
//! | event | a copy was not confirmed; the original stays unsettled | warn | `message`, `tries`, `cause` | |
//! | event | a request is too late: … | warn | `message` | not begun: past its deadline |
//! | event | an answer was not confirmed | warn | `request`, `tries`, `why` | it is published again |
//! | event | an answer did not arrive: … | warn | `request`, `cause` | |
//! | event | an answer cannot be sent; … | warn | `request`, `why` | an error is sent instead |
//! | event | nowhere to park a message | error | `failure` | the consumer ends |
//! | event | a gap in the order was given up | warn | `gap` | |
//! | event | a line is met in its middle | info | `gap` | the first delivery of a line is not its first message |
//! | event | the subscription was lost and will be renewed | warn | `queue`, `cause` | |
//! | event | the queue was not seen | debug | `error` | a look whether the subscription still stands had no answer |
//! | event | not subscribed, trying again | warn | `queue`, `error`, `pause` | |
//! | event | the consumer has not begun yet, trying again | info | `error`, `pause` | |
//! | event | the broker has not let the consumer in for too long: it ends | error | `queue`, `error` | |
//! | event | what is missing around its queue, one each | warn | `queue` | when it begins |
//! | event | copies cannot be published: everything goes back, in order | warn | `queue` | |
//! | event | its queue was gone and is made anew: what was in it is lost | warn | `own` | |
//! | event | the queues around it were not renewed | warn | `own`, `error` | |
//! | event | its dead letters stay until they expire: … | warn | `queue` | at its end |
//! | event | the channel was lost while stopping: … | warn | `cause` | what is finished now comes again |
//! | event | a message without an id: … | debug | `route` | nobody can deduplicate it |
//! | event | nothing is begun or acknowledged until the log answers | warn | `error`, `pause` | |
//! | event | handled ids were forgotten before their time, … | warn | `more` | a log in memory is full |
//! | event | what a handler needs is away: … | warn | `why` | a database, and its message is not blamed |
//! | event | a claim had run out, … | warn | `message` | the handler took longer than its claim stood |
//! | event | a message is lost: it was acknowledged on receipt | error | `message` | only with `Acknowledgement::OnDelivery` |
//!
//! The span follows OpenTelemetry's conventions for messaging (in development): `otel.name` is `process QUEUE`; `otel.kind` is `consumer`;
//! `messaging.system`, `messaging.operation.name`, `messaging.operation.type`, `messaging.destination.name`
//! (`EXCHANGE:ROUTING_KEY:QUEUE`, of its first publishing), `messaging.rabbitmq.destination.routing_key`,
//! `messaging.consumer.group.name` (the subscription), `messaging.message.id`, `messaging.message.body.size`; `correio.type`,
//! `correio.attempt`; at its end `correio.outcome`, and where it failed `error.type` and `otel.status_code`.
//!
//! It is a debug span, so that who logs at `info` pays for none of this: with OpenTelemetry, let `correio_consumer=debug` through.
//! With the feature `trace-context` it is a child of the span that the message was sent in, so that a trace shows the whole way
//! with all its attempts. The conventions would rather have a link, for those who take many messages in one span; here
//! each has its own.

use std::fmt;
#[cfg(feature = "metrics")]
use std::{sync::Arc, time::Instant};

use correio_guarantees::{Failure, Verdict};
use correio_message::ShortText;
use tracing::{Span, field::Empty};

#[cfg(feature = "metrics")]
use crate::reporting::Durations;
use crate::{context::Context, reply::Answer};

/// The span around one attempt of a handler.
pub(crate) fn processing(queue: &ShortText, context: &Context) -> Span {
    let message = context.message();
    // Its arguments are looked at only where somebody wants the span.
    let span = tracing::debug_span!(
        "process",
        "otel.name" = %format_args!("process {queue}"),
        "otel.kind" = "consumer",
        "otel.status_code" = Empty,
        "messaging.system" = "rabbitmq",
        "messaging.operation.name" = "process",
        "messaging.operation.type" = "process",
        "messaging.destination.name" = %Destination(context, queue),
        "messaging.rabbitmq.destination.routing_key" = %context.original().route.routing_key,
        "messaging.consumer.group.name" = context.subscription(),
        "messaging.message.id" = message.id.as_ref().map(tracing::field::display),
        "messaging.message.body.size" = message.payload.len(),
        "correio.type" = message.message_type.as_ref().map(tracing::field::display),
        "correio.attempt" = context.attempt(),
        "correio.outcome" = Empty,
        "error.type" = Empty,
    );
    #[cfg(feature = "trace-context")]
    correio_producer::trace_context::adopt(&span, &message.headers);
    span
}

/// One attempt of a handler, inside its span, until it ends. Dropped without an end it was stopped, or panics.
pub(crate) struct Attempt {
    #[cfg(feature = "metrics")]
    since: Instant,
    #[cfg(feature = "metrics")]
    durations: Arc<Durations>,
    is_over: bool,
}

impl Attempt {
    #[cfg(feature = "metrics")]
    pub(crate) fn begin(durations: &Arc<Durations>) -> Self {
        Self { since: Instant::now(), durations: Arc::clone(durations), is_over: false }
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn begin() -> Self {
        Self { is_over: false }
    }

    pub(crate) fn on_end(mut self, result: &Result<Answer, Failure>) {
        self.end(word(result), result.is_err());
    }

    fn end(&mut self, word: &'static str, is_error: bool) {
        self.is_over = true;
        #[cfg(feature = "metrics")]
        self.durations.on_end(word, self.since.elapsed());
        let span = Span::current();
        span.record("correio.outcome", word);
        if is_error {
            span.record("error.type", word);
            span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_over && std::thread::panicking() {
            self.end(PANICKED, true);
        }
    }
}

/// How an attempt ended, in one word.
fn word(result: &Result<Answer, Failure>) -> &'static str {
    match result {
        Ok(answer) => match answer.verdict {
            Verdict::Done => "done",
            Verdict::Drop { .. } => "drop",
            Verdict::DeadLetter { .. } => "dead_letter",
            Verdict::Retry | Verdict::RetryAfter(_) => "retry",
        },
        Err(Failure::Handler { .. } | Failure::Ruled { .. }) => "failed",
        Err(Failure::TimedOut { .. }) => "timed_out",
        Err(Failure::Panicked { .. }) => PANICKED,
        Err(Failure::Unreadable { .. }) => "unreadable",
        Err(Failure::UnknownType { .. }) => "unknown_type",
    }
}

/// What the conventions call the destination: each part that there is, and one that is said twice once.
struct Destination<'c>(&'c Context, &'c ShortText);

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(context, queue) = self;
        let route = &context.original().route;
        for part in [&route.exchange, &route.routing_key] {
            if !part.is_empty() && part != *queue {
                write!(f, "{part}:")?;
            }
        }
        queue.fmt(f)
    }
}

/// How an attempt may end that its handler chose.
#[cfg(feature = "metrics")]
pub(crate) const CHOSEN: [&str; 4] = ["done", "drop", "dead_letter", "retry"];
/// How else. A message whose type nobody handles does not come to an attempt.
#[cfg(feature = "metrics")]
pub(crate) const FAILED: [&str; 4] = ["failed", "timed_out", PANICKED, "unreadable"];
const PANICKED: &str = "panicked";
