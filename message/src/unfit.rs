//! What stands on the wire and no AMQP client of ours can hold as it is.

use crate::{
    decode::DecodeFailure,
    properties::{Envelope, Headers, Value},
    text::ShortText,
};

/// How deep headers may be nested, counted from the table of the headers itself. A table or list deeper than that is read as an
/// array of its bytes, [`Value::Bytes`], and its message refused.
pub const MAX_DEPTH: usize = 32;

/// Stands for each byte of a short text that was not UTF-8 on the wire; a message with one is refused.
pub const SUBSTITUTE: char = '\u{1A}';

/// What is wrong with an envelope as it was received, if anything is.
pub(crate) fn wrong(envelope: &Envelope) -> Option<DecodeFailure> {
    let properties = &envelope.properties;
    let texts = [
        ("exchange", Some(&envelope.route.exchange)),
        ("routing key", Some(&envelope.route.routing_key)),
        ("content_type", properties.content_type.as_ref()),
        ("content_encoding", properties.content_encoding.as_ref()),
        ("correlation_id", properties.correlation_id.as_ref()),
        ("reply_to", properties.reply_to.as_ref()),
        ("expiration", properties.expiration.as_ref()),
        ("message_id", properties.message_id.as_ref()),
        ("type", properties.message_type.as_ref()),
        ("user_id", properties.user_id.as_ref()),
        ("app_id", properties.app_id.as_ref()),
    ];
    let unclear = texts.into_iter().find(|(_, text)| text.is_some_and(is_unclear));
    unclear.map(|(what, _)| DecodeFailure::NotUtf8 { what }).or_else(|| wrong_headers(&properties.headers, 1))
}

fn is_unclear(text: &ShortText) -> bool {
    text.as_str().contains(SUBSTITUTE)
}

fn wrong_headers(headers: &Headers, depth: usize) -> Option<DecodeFailure> {
    if headers.keys().any(is_unclear) {
        return Some(DecodeFailure::NotUtf8 { what: "name of a header" });
    }
    headers.values().find_map(|value| wrong_value(value, depth))
}

fn wrong_value(value: &Value, depth: usize) -> Option<DecodeFailure> {
    match value {
        Value::Bytes(_) if depth >= MAX_DEPTH => Some(DecodeFailure::TooDeep),
        Value::List(values) => values.iter().find_map(|value| wrong_value(value, depth + 1)),
        Value::Table(headers) => wrong_headers(headers, depth + 1),
        _ => None,
    }
}
