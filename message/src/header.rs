//! Every header that is ours: who writes it, who reads it, its type and its limits.
//!
//! They start with `correio-`; whole numbers are read in any width and written as 64 bits; texts are UTF-8.
//! A message without them is a normal message.

/// UUID of the running producer (or outbox) that numbered the message. Producer → consumer; text, 36 bytes.
/// It comes with [`KEY`] and [`NUMBER`], or none of them does.
pub const SOURCE: &str = "correio-source";
/// Name of the stream, where it is not simply the original route. Producer → consumer; text, ≤ 511 bytes.
pub const STREAM: &str = "correio-stream";
/// What the message is ordered by. Producer → consumer; text, ≤ 255 bytes.
pub const KEY: &str = "correio-key";
/// Its number on its line, from 1. Producer → consumer; whole number.
pub const NUMBER: &str = "correio-number";
/// Earlier numbers of the line that nobody needs to wait for, such as `3,5-7`. Producer → consumer; text, ≤ 1,000
/// numbers.
pub const VOID: &str = "correio-void";
/// When the message was first sent, in microseconds since 1970. Producer → everyone; whole number.
pub const SENT_AT_US: &str = "correio-sent-at-us";

/// Which attempt at handling the next delivery is, from 1 (absent: 1). Consumer → consumer, on a retry.
pub const ATTEMPT: &str = "correio-attempt";
/// When handling failed first, in microseconds since 1970. Consumer → everyone, on copies.
pub const FIRST_FAILED_AT_US: &str = "correio-first-failed-at-us";
/// The exchange the message was first published to. Consumer → consumer, on copies; text, ≤ 255 bytes.
pub const EXCHANGE: &str = "correio-exchange";
/// The routing key it was first published with. Consumer → consumer, on copies; text, ≤ 255 bytes.
pub const ROUTING_KEY: &str = "correio-routing-key";
/// The `user_id` that the broker had checked on the original. Consumer → everyone, on copies; text.
pub const USER: &str = "correio-user";
/// The `expiration` of the original, in milliseconds. Consumer → everyone, on copies; text.
pub const EXPIRATION: &str = "correio-expiration";

/// Why a dead letter is one: see [`DeadReason`](crate::DeadReason). Consumer → operator; text.
pub const DEAD_REASON: &str = "correio-dead-reason";
/// The last error, in words. Consumer → operator; text, ≤ 4,096 bytes.
pub const DEAD_ERROR: &str = "correio-dead-error";
/// The work queue that the message was taken from, and that a replay goes back to. Consumer → operator; text.
pub const DEAD_QUEUE: &str = "correio-dead-queue";
/// When it was parked, in microseconds since 1970. Consumer → operator; whole number.
pub const DEAD_AT_US: &str = "correio-dead-at-us";

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
