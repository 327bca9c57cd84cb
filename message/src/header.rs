//! Every header that we write: who writes it, who reads it, its type and its limits.
//!
//! Ours start with `correio-`; whole numbers are read in any width and written as 64 bits; texts are UTF-8.
//! A message without them is a normal message.

/// What the names of ours begin with.
pub const PREFIX: &str = "correio-";

/// UUID of the running producer (or outbox) that numbered the message. Producer → consumer; text, 36 bytes.
/// It comes with [`KEY`] and [`NUMBER`], or none of them does.
pub const SOURCE: &str = "correio-source";
/// Name of the stream, where it is not simply the original route. Producer → consumer; text, ≤ 511 bytes
/// ([`Line::MAX_STREAM`](crate::Line::MAX_STREAM)).
pub const STREAM: &str = "correio-stream";
/// What the message is ordered by. Producer → consumer; text, ≤ 255 bytes.
pub const KEY: &str = "correio-key";
/// Its number on its line, from 1. Producer → consumer; whole number.
pub const NUMBER: &str = "correio-number";
/// Earlier numbers of the line that nobody needs to wait for, such as `3,5-7`. Producer → consumer; text, ≤ 1,000
/// numbers ([`Voids::MAX`](crate::Voids::MAX)), all below [`NUMBER`].
pub const VOID: &str = "correio-void";
/// The message is none: it fills its own number and its void ones, and nobody handles it. Producer → consumer; boolean.
pub const MARKER: &str = "correio-marker";
/// When the message was first sent, in microseconds since 1970. Producer → everyone; whole number.
pub const SENT_AT_US: &str = "correio-sent-at-us";

/// When the sender of a request stops waiting, in microseconds since 1970 by its clock. Producer → consumer; whole number.
/// The message's `expiration` says the same to the broker.
pub const DEADLINE_US: &str = "correio-deadline-us";
/// In an answer, what kind of error it is. Consumer → producer; text, ≤ 255 bytes. It comes with [`ERROR_TEXT`].
pub const ERROR: &str = "correio-error";
/// In an answer, what went wrong. Consumer → producer; text, ≤ 4,096 bytes are written.
pub const ERROR_TEXT: &str = "correio-error-text";

/// Which attempt at handling the next delivery is, from 1 (absent: 1); on a dead letter, how many there were. Consumer →
/// consumer, on copies; whole number, read as 4,294,967,295 past that.
pub const ATTEMPT: &str = "correio-attempt";
/// When handling failed first, in microseconds since 1970. Consumer → everyone, on copies; whole number.
pub const FIRST_FAILED_AT_US: &str = "correio-first-failed-at-us";
/// How often it came back to its queue unsettled before this copy of it was made, as the broker counts a copy anew. Consumer → consumer, on
/// copies that give a suspect back; whole number.
pub const RETURNS: &str = "correio-returns";
/// The exchange the message was first published to, or would have been but for a delay. Consumer → consumer, on copies, and producer →
/// consumer, on what is delayed; text, ≤ 255 bytes.
pub const EXCHANGE: &str = "correio-exchange";
/// The routing key it was first published with. As [`EXCHANGE`], with which it comes.
pub const ROUTING_KEY: &str = "correio-routing-key";
/// The `user_id` that the broker had checked on the original. Consumer → everyone, on copies; text, ≤ 255 bytes. The
/// broker does not check it here: it is worth as much as everyone who may publish to the queue.
pub const USER: &str = "correio-user";
/// The `expiration` of the original, in milliseconds. Consumer → everyone, on copies; text, ≤ 255 bytes.
pub const EXPIRATION: &str = "correio-expiration";

/// Why a dead letter is one: see [`DeadReason`](crate::DeadReason). Consumer → operator; text.
pub const DEAD_REASON: &str = "correio-dead-reason";
/// The last error, in words. Consumer → operator; text, ≤ 4,096 bytes.
pub const DEAD_ERROR: &str = "correio-dead-error";
/// The work queue that the message was taken from, and that a replay goes back to. Consumer → operator; text,
/// ≤ 255 bytes.
pub const DEAD_QUEUE: &str = "correio-dead-queue";
/// When it was parked, in microseconds since 1970. Consumer → operator; whole number.
pub const DEAD_AT_US: &str = "correio-dead-at-us";
/// How long the consumer that parked it remembers handled ids, in microseconds; absent where it does not. Past that time a replay may be
/// a second effect, as nobody knows any more of a first. Consumer → operator; whole number.
pub const RETENTION_US: &str = "correio-retention-us";

/// Not ours but the W3C's: the span that the message was sent in. Producer → everyone, with the feature `trace-context`; text, 55
/// bytes. Copies keep it.
pub const TRACEPARENT: &str = "traceparent";
/// What the tracing systems add to [`TRACEPARENT`]. Producer → everyone, likewise; text, ≤ 4,096 bytes.
pub const TRACESTATE: &str = "tracestate";

/// What tells of a message's way so far: each copy writes these anew and takes none of them over.
pub(crate) const OF_THE_WAY: [&str; 12] = [
    ATTEMPT,
    FIRST_FAILED_AT_US,
    RETURNS,
    EXCHANGE,
    ROUTING_KEY,
    USER,
    EXPIRATION,
    DEAD_REASON,
    DEAD_ERROR,
    DEAD_QUEUE,
    DEAD_AT_US,
    RETENTION_US,
];

/// Whether a header is ours, by its name.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name.starts_with("correio-")
}

/// Whether a header belongs to the broker: `x-…`, and `CC` and `BCC`, which it routes by.
#[must_use]
pub fn is_brokers(name: &str) -> bool {
    name.starts_with("x-") || name == "CC" || name == "BCC"
}
