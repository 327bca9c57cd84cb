//! What the broker says of a message that it moved itself: `x-death` and its companions.
//!
//! `x-death` is a list of tables, the latest death first, one for each queue and reason; `x-first-death-queue` and
//! `x-first-death-reason` name the earliest of them (RabbitMQ, Dead Letter Exchanges). `x-last-death-…` exist from
//! 3.13 on. All of it is read as far as it makes sense: before 4.0 any client can send such headers.

use crate::{
    message::Route,
    properties::{Headers, Value},
    text::ShortText,
};

/// Why a message left a queue, and which.
pub(crate) struct Death<'h> {
    pub(crate) queue: &'h str,
    pub(crate) reason: &'h str,
}

/// The death that brought the message to where it is.
///
/// Not the first one: that may be the end of a retry's wait in its delay queue.
pub(crate) fn latest(headers: &Headers) -> Option<Death<'_>> {
    named(headers, "x-last-death-queue", "x-last-death-reason")
        .or_else(|| tables(headers).next().and_then(|t| named(t, "queue", "reason")))
        .or_else(|| named(headers, "x-first-death-queue", "x-first-death-reason"))
}

/// How the message was published before its first death, and the expiry it had then, if that was its end.
pub(crate) fn published(headers: &Headers) -> Option<(Route, Option<ShortText>)> {
    let first = named(headers, "x-first-death-queue", "x-first-death-reason")?;
    // By name and not by place: a queue it died in again has moved to the front.
    let table = tables(headers).find(|table| {
        named(table, "queue", "reason").is_some_and(|d| d.queue == first.queue && d.reason == first.reason)
    })?;
    let Value::List(routing_keys) = table.get("routing-keys")? else { return None };
    let route = Route {
        exchange: ShortText::new(table.get("exchange")?.as_text()?).ok()?,
        // The first is the message's own; those of CC follow.
        routing_key: ShortText::new(routing_keys.first()?.as_text()?).ok()?,
    };
    let expiration = table.get("original-expiration").and_then(Value::as_text);
    Some((route, expiration.and_then(|text| ShortText::new(text).ok())))
}

fn named<'h>(headers: &'h Headers, queue: &str, reason: &str) -> Option<Death<'h>> {
    let text = |name: &str| headers.get(name).and_then(Value::as_text);
    Some(Death { queue: text(queue)?, reason: text(reason)? })
}

fn tables(headers: &Headers) -> impl Iterator<Item = &Headers> {
    let list = match headers.get("x-death") {
        Some(Value::List(list)) => list.as_slice(),
        _ => &[],
    };
    list.iter().filter_map(|value| match value {
        Value::Table(table) => Some(table),
        _ => None,
    })
}
