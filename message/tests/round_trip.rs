//! What is sent arrives as it was sent.

mod wire;

use std::time::Duration;

use correio_message::{
    Destination, Durability, Envelope, Exchange, Json, Key, Lifetime, Line, Message, PayloadError, Priority,
    ReplyError, Route, Sequence, Value, Voids, header,
};
use proptest::prelude::*;
use uuid::Uuid;
use wire::{config, message, number, text};

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Persistent), Just(Durability::Transient)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_message_arrives_as_it_was_sent(message in message(), durability in durability()) {
        let sent = message.encode(durability);
        let decoded = sent.decode().unwrap();
        prop_assert_eq!(&decoded.message, &message);
        prop_assert_eq!(decoded.attempt.get(), 1);
        prop_assert_eq!(decoded.first_failed_at_us, None);
        prop_assert_eq!(decoded.original.route, message.destination.route());
        prop_assert_eq!((decoded.original.user, decoded.original.expiration), (None, sent.properties.expiration));
    }

    #[test]
    fn only_the_delivery_mode_tells_what_is_fired_from_what_is_sent(message in message()) {
        let sent = message.encode(Durability::Persistent);
        let mut fired = message.encode(Durability::Transient);
        prop_assert_eq!((sent.properties.delivery_mode, fired.properties.delivery_mode), (Some(2), Some(1)));
        fired.properties.delivery_mode = Some(2);
        prop_assert_eq!(sent, fired);
    }

    #[test]
    fn any_other_client_reads_the_standard_properties(message in message(), durability in durability()) {
        let Envelope { route, properties, body } = message.encode(durability);
        prop_assert_eq!(route, message.destination.route());
        prop_assert_eq!(body, message.payload);
        prop_assert_eq!(properties.message_id, message.id.map(|id| id.to_text()));
        prop_assert_eq!(properties.app_id, message.origin);
        prop_assert_eq!(properties.message_type, message.message_type);
        prop_assert_eq!(properties.content_type, message.content_type);
        prop_assert_eq!(properties.content_encoding, message.content_encoding);
        prop_assert_eq!(properties.correlation_id, message.correlation_id);
        prop_assert_eq!(properties.reply_to, message.reply_to);
        prop_assert_eq!(properties.timestamp, message.sent_at_us.map(|us| us / 1_000_000));
        prop_assert_eq!(properties.priority.is_some_and(|priority| priority > 4), message.priority == Priority::High);
    }
}

fn to_orders() -> Message {
    Message::new(Destination::queue("orders").unwrap(), "x")
}

fn numbered(stream: &str, n: u64, voids: Voids) -> Message {
    let line = Line { source: Uuid::nil(), stream: stream.into(), key: Key::new("k").unwrap() };
    Message { sequence: Some(Sequence { line, number: number(n), voids }), ..to_orders() }
}

#[test]
fn a_message_without_anything_optional_has_no_headers_at_all() {
    assert!(to_orders().encode(Durability::Persistent).properties.headers.is_empty());
}

#[test]
fn the_brokers_headers_and_ours_cannot_be_sent_by_hand() {
    let mut message = to_orders();
    for reserved in ["CC", "BCC", "x-death", "x-anything", header::NUMBER, header::EXCHANGE, "correio-later"] {
        message.headers.insert(text(reserved), Value::text("1"));
    }
    message.headers.insert(text("cc"), Value::text("mine"));
    let headers = message.encode(Durability::Persistent).properties.headers;
    assert_eq!(headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["cc"]);
}

#[test]
fn the_stream_is_written_only_where_the_route_does_not_say_it() {
    let written = |stream| {
        let sent = numbered(stream, 1, Voids::default()).encode(Durability::Persistent);
        sent.properties.headers.contains_key(header::STREAM)
    };
    assert!(!written("correio.queue/orders"));
    assert!(written("flights"));
    assert!(written(""));
}

#[test]
fn the_longest_stream_is_read_and_a_longer_one_is_refused_by_name() {
    let read = |length| numbered(&"s".repeat(length), 1, Voids::default()).encode(Durability::Persistent).decode();
    assert!(read(Line::MAX_STREAM).is_ok());
    assert!(read(Line::MAX_STREAM + 1).unwrap_err().to_string().contains(header::STREAM));
    let longest = Route { exchange: text(&"e".repeat(255)), routing_key: text(&"r".repeat(255)) };
    assert_eq!(longest.stream().len(), Line::MAX_STREAM);
}

#[test]
fn as_many_voids_as_a_message_can_have_arrive() {
    let voids = Voids::new((1..=Voids::MAX as u64).map(|n| number(2 * n)));
    let decoded = numbered("s", u64::MAX >> 1, voids.clone()).encode(Durability::Persistent).decode().unwrap();
    assert_eq!(decoded.message.sequence.unwrap().voids, voids);
}

#[test]
fn a_void_number_that_is_not_earlier_is_not_written() {
    let voids = Voids::new([2, 5, 6].map(number));
    let decoded = numbered("s", 5, voids).encode(Durability::Persistent).decode().unwrap();
    assert_eq!(decoded.message.sequence.unwrap().voids, Voids::new([number(2)]));
}

#[test]
fn a_numbered_message_goes_under_the_key_of_its_number() {
    let mut message = numbered("s", 1, Voids::default());
    message.key = Some(Key::new("another").unwrap());
    let decoded = message.encode(Durability::Persistent).decode().unwrap();
    assert_eq!(decoded.message.key, Key::new("k").ok());
}

#[test]
fn a_work_queue_is_one_destination_however_its_sender_spells_it() {
    let spelled = Route { exchange: Exchange::Queue.name(), routing_key: text("orders") };
    let message = Message::new(Destination::Route(spelled), "x");
    let decoded = message.encode(Durability::Persistent).decode().unwrap();
    assert_eq!(decoded.message.destination, Destination::queue("orders").unwrap());
}

#[test]
fn each_way_of_addressing_has_its_route() {
    for (destination, route) in [
        (Destination::mailbox("ana").unwrap(), "correio.queue/correio.mailbox.ana"),
        (Destination::topic("flight.ATL.LAX").unwrap(), "correio.topic/flight.ATL.LAX"),
        (Destination::Everyone, "correio.broadcast/"),
    ] {
        assert_eq!(destination.route().to_string(), route);
        assert_eq!(Destination::of_route(&destination.route()), destination);
    }
    let keyed = Route { exchange: Exchange::Broadcast.name(), routing_key: text("why") };
    assert_eq!(Destination::of_route(&keyed), Destination::Route(keyed));
}

#[test]
fn a_deadline_is_the_brokers_expiry_too_counted_from_the_sending() {
    let expiry = |sent_at_us, deadline_us| {
        let message = Message { sent_at_us, deadline_us, ..to_orders() };
        message.encode(Durability::Persistent).properties.expiration.map(|text| text.to_string())
    };
    assert_eq!(expiry(Some(5_000_000), Some(7_000_001)).as_deref(), Some("2001"), "never early");
    assert_eq!(expiry(Some(5), Some(4)).as_deref(), Some("1"), "over already");
    assert_eq!(expiry(Some(0), Some(u64::MAX)).as_deref(), Some("4294967295"), "more is refused by the broker");
    assert_eq!((expiry(None, Some(1)), expiry(Some(1), None)), (None, None));
}

#[test]
fn a_lifetime_is_the_brokers_expiry_and_the_earlier_of_it_and_a_deadline_wins() {
    let expiry = |deadline_us, lifetime| {
        let message = Message { sent_at_us: Some(0), deadline_us, ..to_orders() };
        let sent = message.expiring_after(Duration::from_millis(lifetime)).unwrap().encode(Durability::Persistent);
        (sent.properties.expiration.as_ref().unwrap().to_string(), sent.decode().unwrap().message)
    };
    assert_eq!(expiry(None, 1_500).0, "1500");
    assert_eq!(expiry(None, 1_500).1.lifetime, Lifetime::new(Duration::from_millis(1_500)).ok());
    assert_eq!(expiry(Some(2_000_000), 1_500).0, "1500");
    let (written, received) = expiry(Some(1_000_000), 1_500);
    assert_eq!((&*written, received.deadline_us, received.lifetime), ("1000", Some(1_000_000), None));
}

#[test]
fn a_high_priority_is_what_every_kind_of_queue_takes_for_high_and_a_normal_one_says_nothing() {
    let written = |priority| to_orders().with_priority(priority).encode(Durability::Persistent).properties.priority;
    assert_eq!((written(Priority::Normal), written(Priority::High)), (None, Some(9)));
}

#[test]
fn an_error_in_an_answer_is_clipped_to_what_a_header_can_hold() {
    let error = ReplyError { kind: text("failed"), text: "é".repeat(3_000) };
    let decoded = Message { error: Some(error), ..to_orders() }.encode(Durability::Persistent).decode().unwrap();
    assert_eq!(decoded.message.error.unwrap().text.len(), 4_096);
}

#[test]
fn a_payload_with_a_type_comes_back_as_that_type() {
    let message = Message::json(Destination::queue("orders").unwrap(), &vec![1, 2]).unwrap();
    assert_eq!(message.content_type, Some(text("application/json")));
    assert_eq!(Json::<Vec<u8>>::decode(&message.payload).unwrap(), Json(vec![1, 2]));
}

#[test]
fn a_payload_that_is_not_the_json_asked_for_is_refused_with_the_place() {
    let error = Json::<Vec<u8>>::decode(b"[1, \"two\"]").unwrap_err();
    assert!(matches!(&error, PayloadError::Read(cause) if cause.column() > 0), "{error}");
    assert!(error.to_string().contains("line 1 column"), "{error}");
}

#[test]
fn json_nested_without_end_is_refused_before_it_takes_the_stack() {
    let hostile = "[".repeat(1_000_000);
    assert!(Json::<serde_json::Value>::decode(hostile.as_bytes()).is_err());
}

#[test]
fn a_value_without_a_json_form_is_refused() {
    let no_form = std::collections::BTreeMap::from([((1, 2), 3)]);
    let refused = Message::json(Destination::queue("orders").unwrap(), &no_form);
    assert!(matches!(refused, Err(PayloadError::Write(_))));
}
