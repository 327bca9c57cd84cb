//! A dead letter whole: all that it says, and every byte that it holds.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use correio_message::{Headers, Properties, Sequence, ShortText, header};
use serde_json::{Map, Value, json};

use crate::{
    dead_letters::Letter,
    program::{
        letters::{shown, shown_lines},
        time::rfc3339,
    },
};

/// A letter for programs. Its payload is `payload`, or `payload_base64` where it is not UTF-8: every byte of it, either way.
pub(crate) fn as_json(letter: &Letter) -> Value {
    let Letter { summary, original, envelope } = letter;
    let mut object = json!({
        "id": summary.id.as_ref().map(|id| id.as_str()),
        "type": text(&summary.message_type),
        "origin": text(&summary.origin),
        "key": key(letter),
        "sequence": sequence(letter).map(|of| json!({
            "source": of.line.source.to_string(), "stream": &*of.line.stream, "number": of.number,
        })),
        "reason": summary.reason.as_str(),
        "error": summary.error,
        "attempts": summary.attempts,
        "first_failed_at": summary.first_failed_at.and_then(rfc3339),
        "at": summary.at.and_then(rfc3339),
        "remembered_for_seconds": summary.remembered_for.map(|time| time.as_secs_f64()),
        "queue": text(&summary.queue),
        "exchange": original.route.exchange.as_str(),
        "routing_key": original.route.routing_key.as_str(),
        "user": text(&original.user),
        "expiration": text(&original.expiration),
        "content_type": text(&envelope.properties.content_type),
        "size": summary.size,
        "properties": properties(&envelope.properties),
        "headers": headers(&envelope.properties.headers),
    });
    match std::str::from_utf8(&envelope.body) {
        Ok(text) => object["payload"] = text.into(),
        Err(_) => object["payload_base64"] = STANDARD.encode(&envelope.body).into(),
    }
    object
}

/// A letter for people: a line for each thing that it says, then the payload. Nothing in it can move a terminal's cursor up.
pub(crate) fn in_words(letter: &Letter) -> String {
    let Letter { summary, original, envelope } = letter;
    let short = |text: &Option<ShortText>| text.as_ref().map(|text| shown(text.as_str()));
    let mut words = String::new();
    let mut say = |what: &str, said: Option<String>| {
        if let Some(said) = said {
            words.push_str(&format!("{:<16}{said}\n", format!("{what}:")));
        }
    };
    say("id", summary.id.as_ref().map(|id| shown(id.as_str())));
    say("type", short(&summary.message_type));
    say("origin", short(&summary.origin));
    say("key", key(letter).map(shown));
    say(
        "sequence",
        sequence(letter).map(|of| shown(&format!("{} of {} in {}", of.number, of.line.source, of.line.stream))),
    );
    say("reason", Some(summary.reason.to_string()));
    say("error", Some(shown_lines(&summary.error, "                ")));
    say("attempts", summary.attempts.map(|attempts| attempts.to_string()));
    say("first failure", summary.first_failed_at.and_then(rfc3339));
    say("parked", summary.at.and_then(rfc3339));
    say("remembered", summary.remembered_for.map(|time| format!("handled ids, for {time:?}")));
    say("queue", short(&summary.queue));
    say("sent to", Some(shown(&original.route.to_string())));
    say("user", short(&original.user));
    say("expiration", original.expiration.as_ref().map(|millis| format!("{} ms", shown(millis.as_str()))));
    for (name, value) in properties(&envelope.properties) {
        if !SAID_ABOVE.contains(&name.as_str()) && !value.is_null() {
            say(&name.replace('_', " "), Some(shown(&plain(&value))));
        }
    }
    for (name, value) in headers(&envelope.properties.headers) {
        say("header", Some(shown(&format!("{name} = {}", plain(&value)))));
    }
    match std::str::from_utf8(&envelope.body) {
        Ok(text) => words.push_str(&format!("payload, {} bytes:\n{}\n", summary.size, shown_lines(text, ""))),
        Err(_) => words.push_str(&format!(
            "payload, {} bytes that are not UTF-8, as base64:\n{}\n",
            summary.size,
            STANDARD.encode(&envelope.body)
        )),
    }
    words
}

/// Told already, from the same property.
const SAID_ABOVE: [&str; 3] = ["message_id", "type", "app_id"];

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(text: &Option<ShortText>) -> Option<&str> {
    text.as_ref().map(ShortText::as_str)
}

fn key(letter: &Letter) -> Option<&str> {
    letter.envelope.properties.headers.get(header::KEY).and_then(correio_message::Value::as_text)
}

/// Its place in the order, as far as it can be read.
fn sequence(letter: &Letter) -> Option<Sequence> {
    match letter.envelope.decode() {
        Ok(decoded) => decoded.message.sequence,
        Err(unreadable) => unreadable.sequence.map(|sequence| *sequence),
    }
}

/// The properties as they stand in the parking queue, by the specification's names; the headers apart.
fn properties(of: &Properties) -> Map<String, Value> {
    let told = json!({
        "content_type": text(&of.content_type),
        "content_encoding": text(&of.content_encoding),
        "delivery_mode": of.delivery_mode,
        "priority": of.priority,
        "correlation_id": text(&of.correlation_id),
        "reply_to": text(&of.reply_to),
        "expiration": text(&of.expiration),
        "message_id": text(&of.message_id),
        "timestamp": of.timestamp,
        "type": text(&of.message_type),
        "user_id": text(&of.user_id),
        "app_id": text(&of.app_id),
    });
    match told {
        Value::Object(told) => told,
        _ => unreachable!("it is written as one"),
    }
}

/// Headers by their names. What JSON has no value for is an object that says what it is.
fn headers(of: &Headers) -> Map<String, Value> {
    of.iter().map(|(name, value)| (name.to_string(), of_header(value))).collect()
}

fn of_header(value: &correio_message::Value) -> Value {
    use correio_message::Value as Header;
    match value {
        Header::Void => Value::Null,
        Header::Bool(value) => (*value).into(),
        Header::F32(value) => number(f64::from(*value)),
        Header::F64(value) => number(*value),
        Header::Decimal { scale, value } => json!({ "decimal": { "scale": scale, "value": value } }),
        Header::Timestamp(seconds) => json!({ "timestamp": seconds }),
        Header::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({ "text_base64": STANDARD.encode(bytes) }),
        },
        Header::Bytes(bytes) => json!({ "bytes_base64": STANDARD.encode(bytes) }),
        Header::List(values) => values.iter().map(of_header).collect(),
        Header::Table(table) => Value::Object(headers(table)),
        whole => whole.as_integer().into(),
    }
}

fn number(value: f64) -> Value {
    // JSON has no infinity and nothing that is not a number.
    if value.is_finite() { value.into() } else { json!({ "number": value.to_string() }) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use correio_message::{Envelope, Route, Value as Header};

    use super::*;

    fn short(text: &str) -> ShortText {
        ShortText::new(text).unwrap()
    }

    fn foreign(body: &'static [u8], headers: impl IntoIterator<Item = (&'static str, Header)>) -> Letter {
        let route = Route { exchange: short("amq.topic"), routing_key: short("a.b") };
        let headers = headers.into_iter().map(|(name, value)| (short(name), value)).collect();
        let properties = Properties { headers, priority: Some(4), ..Properties::default() };
        Letter::of(Envelope { route, properties, body: Bytes::from_static(body) })
    }

    #[test]
    fn every_byte_of_a_payload_is_told_as_text_or_as_base64() {
        let told = as_json(&foreign("tab\t, é, \0".as_bytes(), []));
        assert_eq!((&told["payload"], &told["payload_base64"]), (&json!("tab\t, é, \0"), &Value::Null));
        let every: &'static [u8] = Box::leak((0..=255).collect::<Box<[u8]>>());
        let told = as_json(&foreign(every, []));
        assert_eq!(told["payload"], Value::Null);
        assert_eq!(STANDARD.decode(told["payload_base64"].as_str().unwrap()).unwrap(), every);
    }

    #[test]
    fn a_header_of_any_type_is_told() {
        let told = as_json(&foreign(
            b"",
            [
                ("void", Header::Void),
                ("yes", Header::Bool(true)),
                ("small", Header::I8(-8)),
                ("large", Header::I64(i64::MIN)),
                ("half", Header::F32(0.5)),
                ("endless", Header::F64(f64::INFINITY)),
                ("price", Header::Decimal { scale: 2, value: 314 }),
                ("when", Header::Timestamp(5)),
                ("text", Header::text("é")),
                ("not text", Header::Text(Bytes::from_static(b"\xff"))),
                ("bytes", Header::Bytes(Bytes::from_static(b"\0"))),
                (
                    "list",
                    Header::List(vec![Header::U8(1), Header::Table(Headers::from([(short("in"), Header::U32(2))]))]),
                ),
            ],
        ));
        assert_eq!(
            told["headers"],
            json!({
                "void": null, "yes": true, "small": -8, "large": i64::MIN, "half": 0.5, "endless": { "number": "inf" },
                "price": { "decimal": { "scale": 2, "value": 314 } }, "when": { "timestamp": 5 }, "text": "é",
                "not text": { "text_base64": "/w==" }, "bytes": { "bytes_base64": "AA==" }, "list": [1, { "in": 2 }],
            })
        );
        assert_eq!((&told["properties"]["priority"], &told["exchange"]), (&json!(4), &json!("amq.topic")));
    }

    #[test]
    fn a_letter_in_words_keeps_the_lines_of_its_payload_and_cannot_move_the_cursor() {
        let words = in_words(&foreign(b"{\n\t\"n\": 1\x1b[2J\n}", [("note", Header::text("a\nb"))]));
        assert!(words.contains("header:         note = a\\nb\n"), "{words}");
        assert!(words.contains("priority:       4\n"), "{words}");
        assert!(words.ends_with("payload, 15 bytes:\n{\n\t\"n\": 1\\u{1b}[2J\n}\n"), "{words}");
        assert!(in_words(&foreign(b"\xff", [])).ends_with("1 bytes that are not UTF-8, as base64:\n/w==\n"));
    }
}
