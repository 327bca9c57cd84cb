//! Messages from anybody: whatever they carry, they are read, or refused by the name of the header that is wrong.

mod wire;

use bytes::Bytes;
use correio_message::{
    DeadLetter, DecodeError, DecodeFailure, Destination, Envelope, Key, Original, Properties, Route, Value, Voids,
    header,
};
use proptest::prelude::*;
use wire::{config, foreign, number, stranger, text};

const SOURCE: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_message_is_read_or_refused_by_the_name_of_a_header_that_it_has(foreign in foreign()) {
        match foreign.decode() {
            Ok(decoded) => {
                prop_assert_eq!(&decoded.message.payload, &foreign.body);
                prop_assert_eq!(&decoded.original, &Original::of(&foreign));
                for name in decoded.message.headers.keys() {
                    prop_assert!(!header::is_ours(name.as_str()) && !header::is_brokers(name.as_str()), "{}", name);
                }
            }
            Err(error) => {
                let text = error.to_string();
                let headers = &foreign.properties.headers;
                prop_assert!(headers.keys().any(|name| header::is_ours(name.as_str()) && text.contains(name.as_str())));
                prop_assert!(text.len() < 300, "{}", text);
            }
        }
        let _ = (DeadLetter::of(&foreign), foreign.properties.weight());
    }

    #[test]
    fn whatever_is_read_is_bounded(foreign in foreign()) {
        let sequence = match foreign.decode() {
            Ok(decoded) => decoded.message.sequence,
            Err(error) => error.sequence.map(|sequence| *sequence),
        };
        if let Some(sequence) = sequence {
            prop_assert!(sequence.voids.len() <= Voids::MAX);
            prop_assert!(sequence.voids.iter().all(|void| void < sequence.number));
            prop_assert!(sequence.line.stream.len() <= correio_message::Line::MAX_STREAM);
        }
        if let Some(letter) = DeadLetter::of(&foreign) {
            prop_assert!(letter.error.len() < 5_000);
        }
    }

    #[test]
    fn a_stranger_is_read_as_it_is(stranger in stranger()) {
        let decoded = stranger.decode().unwrap();
        let (message, properties) = (decoded.message, &stranger.properties);
        prop_assert_eq!(message.id.map(|id| id.to_text()), properties.message_id.clone().filter(|id| !id.is_empty()));
        prop_assert_eq!(&message.origin, &properties.app_id);
        prop_assert_eq!(&message.message_type, &properties.message_type);
        prop_assert_eq!(&message.content_type, &properties.content_type);
        prop_assert_eq!(&message.content_encoding, &properties.content_encoding);
        prop_assert_eq!(&message.correlation_id, &properties.correlation_id);
        prop_assert_eq!(&message.reply_to, &properties.reply_to);
        prop_assert_eq!(&message.headers, &properties.headers);
        prop_assert_eq!(message.destination.route(), stranger.route);
        // Never guessed.
        prop_assert_eq!((message.key, message.sequence, message.sent_at_us), (None, None, None));
        prop_assert_eq!((decoded.attempt.get(), decoded.first_failed_at_us), (1, None));
        prop_assert_eq!(&decoded.original.user, &properties.user_id);
        prop_assert_eq!(&decoded.original.expiration, &properties.expiration);
    }
}

fn with(headers: impl IntoIterator<Item = (&'static str, Value)>) -> Envelope {
    let route = Route { exchange: text("correio.queue"), routing_key: text("orders") };
    let headers = headers.into_iter().map(|(name, value)| (text(name), value)).collect();
    Envelope { route, properties: Properties { headers, ..Properties::default() }, body: Bytes::new() }
}

/// A message with a number, and more headers.
fn numbered(more: impl IntoIterator<Item = (&'static str, Value)>) -> Envelope {
    let place =
        [(header::SOURCE, Value::text(SOURCE)), (header::KEY, Value::text("k")), (header::NUMBER, Value::I64(2_000))];
    with(place.into_iter().chain(more))
}

/// What is wrong, after a look at its text: it must name the header.
fn refused(envelope: &Envelope, header: &str) -> DecodeError {
    let error = envelope.decode().unwrap_err();
    assert!(error.to_string().contains(header), "{error}");
    error
}

#[test]
fn a_message_without_any_properties_is_a_message() {
    let decoded = with([]).decode().unwrap();
    assert_eq!(decoded.message.destination, Destination::queue("orders").unwrap());
    assert_eq!((decoded.message.id, decoded.message.sequence), (None, None));
}

#[test]
fn an_empty_id_is_no_id() {
    let mut empty = with([]);
    empty.properties.message_id = Some(text(""));
    assert_eq!(empty.decode().unwrap().message.id, None);
}

#[test]
fn a_key_alone_orders_and_counts_nothing() {
    let message = with([(header::KEY, Value::text("k"))]).decode().unwrap().message;
    assert_eq!((message.key, message.sequence), (Key::new("k").ok(), None));
}

#[test]
fn a_whole_number_is_read_in_any_width() {
    for three in [Value::I8(3), Value::U8(3), Value::I16(3), Value::U16(3), Value::I32(3), Value::U32(3), Value::I64(3)]
    {
        assert_eq!(with([(header::ATTEMPT, three)]).decode().unwrap().attempt.get(), 3);
    }
}

#[test]
fn what_is_not_a_whole_number_is_not_taken_for_one() {
    let not = [Value::text("3"), Value::F64(3.0), Value::Timestamp(3), Value::Bool(true), Value::Void];
    for value in not {
        for header in [header::ATTEMPT, header::SENT_AT_US, header::FIRST_FAILED_AT_US, header::NUMBER] {
            let error = refused(&with([(header, value.clone())]), header);
            assert_eq!(error.cause, DecodeFailure::WrongType { header, expected: "a whole number" });
        }
    }
}

#[test]
fn what_is_not_text_in_utf_8_is_not_taken_for_text() {
    for value in [Value::I64(1), Value::Text(Bytes::from_static(b"\xff")), Value::Bytes(Bytes::from_static(b"a"))] {
        for header in
            [header::SOURCE, header::KEY, header::EXCHANGE, header::ROUTING_KEY, header::USER, header::EXPIRATION]
        {
            let error = refused(&with([(header, value.clone())]), header);
            assert_eq!(error.cause, DecodeFailure::WrongType { header, expected: "text in UTF-8" });
        }
        for header in [header::STREAM, header::VOID] {
            assert!(matches!(
                refused(&numbered([(header, value.clone())]), header).cause,
                DecodeFailure::WrongType { .. }
            ));
        }
    }
}

#[test]
fn a_number_below_the_least_that_makes_sense_is_refused() {
    for (header, value, least) in [
        (header::NUMBER, 0, 1),
        (header::NUMBER, i64::MIN, 1),
        (header::ATTEMPT, 0, 1),
        (header::SENT_AT_US, -1, 0),
        (header::FIRST_FAILED_AT_US, -1, 0),
    ] {
        let error = refused(&with([(header, Value::I64(value))]), header);
        assert_eq!(error.cause, DecodeFailure::OutOfRange { header, value, least });
    }
}

#[test]
fn more_attempts_than_can_be_counted_stay_at_the_most_that_can() {
    for many in [i64::MAX, 1 << 32, 1 << 33, u32::MAX.into()] {
        let decoded = with([(header::ATTEMPT, Value::I64(many))]).decode().unwrap();
        assert_eq!(decoded.attempt.get(), u32::MAX);
    }
}

#[test]
fn a_source_that_is_no_uuid_is_refused() {
    let error = refused(&numbered([(header::SOURCE, Value::text("me"))]), header::SOURCE);
    assert_eq!((error.cause, error.sequence), (DecodeFailure::InvalidSource, None));
}

#[test]
fn a_text_past_its_limit_is_refused_with_both_lengths() {
    for (header, limit) in [
        (header::SOURCE, 255),
        (header::KEY, 255),
        (header::EXCHANGE, 255),
        (header::ROUTING_KEY, 255),
        (header::USER, 255),
        (header::EXPIRATION, 255),
        (header::STREAM, 511),
        (header::VOID, 64 * 1024),
    ] {
        let error = refused(&numbered([(header, Value::text("1".repeat(limit + 1)))]), header);
        assert_eq!(error.cause, DecodeFailure::TooLong { header, length: limit + 1, limit });
    }
}

#[test]
fn a_sequence_of_which_a_part_is_missing_is_refused_by_the_part() {
    for missing in [header::SOURCE, header::KEY, header::NUMBER] {
        let mut partial = numbered([]);
        partial.properties.headers.remove(missing);
        let error = partial.decode().unwrap_err();
        assert_eq!(error.cause, DecodeFailure::PartialSequence { missing });
        assert!(error.to_string().starts_with(&format!("the sequence has no {missing}")), "{error}");
    }
}

#[test]
fn a_hostile_list_of_voids_is_refused_at_once() {
    let ones = "1,".repeat(32 * 1024 - 1) + "1";
    for list in ["1-18446744073709551615", "1-1999", "9-1", "0", "", "3,,5", "-", "all", "99999999999999999999", &ones]
    {
        let error = refused(&numbered([(header::VOID, Value::text(list))]), header::VOID);
        assert_eq!(error.cause, DecodeFailure::InvalidVoids, "{list:.40}");
    }
}

// It would make its reader pass over messages that are still to come.
#[test]
fn a_void_number_that_is_not_earlier_is_refused() {
    for list in ["2000", "1,2001", "1999-2000"] {
        let error = refused(&numbered([(header::VOID, Value::text(list))]), header::VOID);
        assert_eq!(error.cause, DecodeFailure::InvalidVoids, "{list}");
    }
}

#[test]
fn an_unreadable_message_still_tells_its_number_so_that_nobody_waits_for_it() {
    let wrong = [
        (header::ATTEMPT, Value::Void),
        (header::SENT_AT_US, Value::I64(-1)),
        (header::FIRST_FAILED_AT_US, Value::Void),
        (header::USER, Value::Void),
        (header::EXPIRATION, Value::Void),
        (header::VOID, Value::text("all")),
    ];
    for (header, value) in wrong {
        let sequence = refused(&numbered([(header, value)]), header).sequence.unwrap();
        assert_eq!((sequence.number, &*sequence.line.stream), (number(2_000), "correio.queue/orders"), "{header}");
        assert!(sequence.voids.is_empty());
    }
}

#[test]
fn an_unreadable_message_still_tells_which_numbers_are_void() {
    let envelope = numbered([(header::ATTEMPT, Value::Void), (header::VOID, Value::text("7-8"))]);
    let sequence = refused(&envelope, header::ATTEMPT).sequence.unwrap();
    assert_eq!(sequence.voids, Voids::new([7, 8].map(number)));
}

// A number on the wrong stream would fill the place of a message that is still to come there.
#[test]
fn a_number_whose_stream_is_unreadable_is_not_told() {
    let unknown = numbered([(header::EXCHANGE, Value::Void)]);
    assert_eq!(refused(&unknown, header::EXCHANGE).sequence, None);
    let named = numbered([(header::EXCHANGE, Value::Void), (header::STREAM, Value::text("flights"))]);
    let sequence = refused(&named, header::EXCHANGE).sequence.unwrap();
    assert_eq!(&*sequence.line.stream, "flights");
}

#[test]
fn headers_of_a_sequence_that_is_not_there_mean_nothing() {
    let decoded = with([(header::VOID, Value::text("all")), (header::STREAM, Value::Void)]).decode().unwrap();
    assert_eq!(decoded.message.sequence, None);
}

// Anyone can nest a header as deep as a frame is long. lapin itself gives up at an eighth of what this crate stands.
#[test]
fn a_header_nested_a_thousand_deep_is_carried_like_any_other() {
    let nested = (0..1_000).fold(Value::Void, |inner, _| Value::List(vec![inner]));
    let hostile = with([("tenant", nested)]);
    assert_eq!(hostile.decode().unwrap().message.headers, hostile.properties.headers);
    assert_eq!(
        correio_message::replay(&hostile, text("orders")).properties.headers["tenant"],
        hostile.properties.headers["tenant"]
    );
    assert!(hostile.properties.weight() > 1_000);
}
