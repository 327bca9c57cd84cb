//! Anything that can stand on the wire, for property tests.
#![allow(dead_code, reason = "each test file takes what it needs")]

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::LazyLock,
    time::Duration,
};

use bytes::Bytes;
use correio_message::{
    DeadLetter, DeadReason, Destination, Envelope, Headers, Key, Lifetime, Line, Message, MessageId, Priority,
    Properties, ReplyError, Route, Sequence, ShortText, Value, Voids, header,
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
    test_runner::FileFailurePersistence,
};
use uuid::Uuid;

/// As many cases as `PROPTEST_CASES` says; what failed once is kept beside the test file and tried first.
pub(crate) fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

pub(crate) fn text(text: &str) -> ShortText {
    ShortText::new(text).unwrap()
}

pub(crate) fn number(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap()
}

/// Short strings with what strings are feared for: nothing, not ASCII, NUL, a slash, all 255 bytes.
pub(crate) fn short() -> impl Strategy<Value = ShortText> {
    // Ready made and picked: every field of every case is one of these.
    static TEXTS: LazyLock<Vec<ShortText>> = LazyLock::new(|| {
        let longest = "é".repeat(127) + "!";
        let feared = ["", "ü/ñ", "\0", "x-death", "correio-key", "correio.queue", "#.*", "7", "-1", &longest];
        let plain = ('a'..='j').map(String::from);
        feared.into_iter().map(str::to_owned).chain(plain).map(|s| text(&s)).collect()
    });
    select(&TEXTS[..])
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..6).prop_map(Bytes::from)
}

fn float() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    // Without NaN, which does not equal itself.
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE
}

/// Every type of a field table; text that is not UTF-8 included.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Void),
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::I8),
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        float().prop_map(|n| Value::F32(n as f32)),
        float().prop_map(Value::F64),
        any::<(u8, u32)>().prop_map(|(scale, value)| Value::Decimal { scale, value }),
        any::<u64>().prop_map(Value::Timestamp),
        bytes().prop_map(Value::Text),
        bytes().prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(3, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::List),
            btree_map(short(), inner, 0..3).prop_map(Value::Table),
        ]
    })
}

/// Headers that only the sender understands.
pub(crate) fn own_headers() -> impl Strategy<Value = Headers> {
    let name = select(&["tenant", "traceparent", "cc", "X", "", "correio", "größe"][..]).prop_map(text);
    btree_map(name, value(), 0..3)
}

/// Headers that the broker puts there or acts on.
pub(crate) const BROKERS: [&str; 9] = [
    "x-death",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "x-",
    "CC",
    "BCC",
];

const OURS: [&str; 23] = [
    header::SOURCE,
    header::STREAM,
    header::KEY,
    header::NUMBER,
    header::VOID,
    header::SENT_AT_US,
    header::DEADLINE_US,
    header::ERROR,
    header::ERROR_TEXT,
    header::ATTEMPT,
    header::FIRST_FAILED_AT_US,
    header::RETURNS,
    header::EXCHANGE,
    header::ROUTING_KEY,
    header::USER,
    header::EXPIRATION,
    header::DEAD_REASON,
    header::DEAD_ERROR,
    header::DEAD_QUEUE,
    header::DEAD_AT_US,
    header::RETENTION_US,
    "correio-of-a-later-version",
    "correio-",
];

/// A value that some header of ours or of the broker could have, or nearly could.
fn likely() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => select(
            &[
                "01890a5d-ac96-774b-bcce-b302099a8057",
                "orders",
                "failed",
                "expired",
                "3,5-7",
                "1-18446744073709551615",
                "9-1",
                "",
            ][..]
        )
        .prop_map(Value::text),
        4 => select(&[0, 1, 9, -1, i64::MIN, i64::MAX, 1 << 33][..]).prop_map(Value::I64),
        1 => (1u32..10).prop_map(Value::U32),
        1 => Just(Value::Text(Bytes::from_static(b"not \xff UTF-8"))),
        1 => select(&[256usize, 512, 5_000, 66_000][..]).prop_map(|n| Value::Text(vec![b'7'; n].into())),
    ]
}

/// `x-death` with entries that are right, half right and wrong, under a first death that often names one of them.
fn deaths() -> impl Strategy<Value = Headers> {
    let mostly = |name: &'static str| prop_oneof![3 => Just(Value::text(name)), 1 => likely()];
    let keys = prop_oneof![
        1 => vec(likely(), 0..2).prop_map(Value::List),
        1 => Just(Value::List(vec![Value::text("orders")])),
        1 => likely(),
    ];
    let entry = (mostly("orders"), mostly("expired"), likely(), keys, option::of(likely())).prop_map(
        |(queue, reason, exchange, keys, expiration)| {
            let mut table = Headers::from([
                (text("queue"), queue),
                (text("reason"), reason),
                (text("exchange"), exchange),
                (text("routing-keys"), keys),
            ]);
            table.extend(expiration.map(|expiration| (text("original-expiration"), expiration)));
            Value::Table(table)
        },
    );
    (vec(prop_oneof![4 => entry, 1 => value()], 1..3), mostly("orders")).prop_map(|(list, queue)| {
        Headers::from([
            (text("x-death"), Value::List(list)),
            (text("x-first-death-queue"), queue),
            (text("x-first-death-reason"), Value::text("expired")),
        ])
    })
}

fn foreign_headers() -> impl Strategy<Value = Headers> {
    let named = prop_oneof![
        8 => (select(&OURS[..]), prop_oneof![4 => likely(), 1 => value()]),
        2 => (select(&BROKERS[..]), prop_oneof![likely(), value()]),
    ];
    // A whole sequence would otherwise be rare, and one that is right but for its voids rarer still.
    let place = option::of((select(&[1i64, 6, 9, 2_000][..]), option::of(likely())));
    let deaths = option::weighted(0.3, deaths());
    (vec(named, 0..4), place, deaths, own_headers()).prop_map(|(named, place, deaths, mut headers)| {
        headers.extend(deaths.unwrap_or_default());
        if let Some((number, void)) = place {
            headers.insert(text(header::SOURCE), Value::text(Uuid::nil().to_string()));
            headers.insert(text(header::KEY), Value::text("k"));
            headers.insert(text(header::NUMBER), Value::I64(number));
            headers.extend(void.map(|void| (text(header::VOID), void)));
        }
        headers.extend(named.into_iter().map(|(name, value)| (text(name), value)));
        headers
    })
}

pub(crate) fn properties(headers: impl Strategy<Value = Headers>) -> impl Strategy<Value = Properties> {
    let some = || option::of(short());
    let texts = (some(), some(), some(), some(), some(), some(), some(), some(), some());
    let numbers = (any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u64>>());
    (texts, numbers, headers).prop_map(|(texts, (delivery_mode, priority, timestamp), headers)| Properties {
        content_type: texts.0,
        content_encoding: texts.1,
        headers,
        delivery_mode,
        priority,
        correlation_id: texts.2,
        reply_to: texts.3,
        expiration: texts.4,
        message_id: texts.5,
        timestamp,
        message_type: texts.6,
        user_id: texts.7,
        app_id: texts.8,
    })
}

pub(crate) fn route() -> impl Strategy<Value = Route> {
    (short(), short()).prop_map(|(exchange, routing_key)| Route { exchange, routing_key })
}

fn envelope(headers: impl Strategy<Value = Headers>) -> impl Strategy<Value = Envelope> {
    (route(), properties(headers), bytes()).prop_map(|(route, properties, body)| Envelope { route, properties, body })
}

/// What any client of any kind could have published, with our header names and the broker's used rightly or wrongly.
pub(crate) fn foreign() -> impl Strategy<Value = Envelope> {
    envelope(foreign_headers())
}

/// A message with nothing but the properties of the specification.
pub(crate) fn plain() -> impl Strategy<Value = Envelope> {
    envelope(Just(Headers::new()))
}

/// What a client that never heard of us could have published.
pub(crate) fn stranger() -> impl Strategy<Value = Envelope> {
    envelope(own_headers())
}

fn sequence(key: Key) -> impl Strategy<Value = Sequence> {
    let place = prop_oneof![1u64..20, 1u64..=i64::MAX as u64];
    let voids = prop_oneof![
        3 => Just(Vec::new()),
        3 => vec(1u64..20, 0..8),
        1 => Just((1..=1_000).collect()),
        1 => vec(any::<u64>(), 0..8),
    ];
    let stream = option::of(prop_oneof![
        3 => short().prop_map(|s| s.to_string()),
        1 => Just("s".repeat(Line::MAX_STREAM)),
    ]);
    // A stream that is not named is the destination's: `message` puts it there.
    (any::<u128>(), stream, place, voids).prop_map(move |(source, stream, n, voids)| Sequence {
        line: Line {
            source: Uuid::from_u128(source),
            stream: stream.unwrap_or_else(|| UNNAMED.into()).into(),
            key: key.clone(),
        },
        number: number(n),
        voids: Voids::new(voids.into_iter().filter(|void| *void < n).filter_map(NonZeroU64::new)),
    })
}

const UNNAMED: &str = "\u{1}";

/// Any message that we can send, with every field.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    let some = || option::of(short());
    let destination = prop_oneof![
        short().prop_map(|name| Destination::of_route(&Destination::Queue(name).route())),
        short().prop_filter_map("a name of a mailbox", |name| Destination::mailbox(name).ok()),
        short().prop_filter_map("a key of a topic", |key| Destination::topic(key).ok()),
        Just(Destination::Everyone),
        route().prop_map(|route| Destination::of_route(&route)),
    ];
    let error = option::of((short(), short()).prop_map(|(kind, text)| ReplyError { kind, text: text.to_string() }));
    let id = option::of(prop_oneof![
        short().prop_filter_map("an id has at least one byte", |id| MessageId::new(id).ok()),
        any::<u128>().prop_map(|n| MessageId::from(Uuid::from_u128(n))),
    ]);
    let texts = (some(), some(), some(), some(), some(), some());
    let place = option::of(short()).prop_flat_map(|key| match key {
        Some(key) => {
            let key = Key::new(key).unwrap();
            (Just(Some(key.clone())), option::of(sequence(key)).boxed())
        }
        None => (Just(None), Just(None).boxed()),
    });
    let moment = || option::of(0..=i64::MAX as u64);
    // With a deadline there is no lifetime to see at the other end.
    let lifetime = || (1..=u32::MAX).prop_map(|millis| Lifetime::new(Duration::from_millis(millis.into())).unwrap());
    let end = prop_oneof![
        2 => moment().prop_map(|deadline_us| (deadline_us, None)),
        1 => lifetime().prop_map(|lifetime| (None, Some(lifetime))),
    ];
    let priority = prop_oneof![Just(Priority::Normal), Just(Priority::High)];
    (id, destination, texts, bytes(), place, (moment(), end, priority, error), own_headers()).prop_map(
        |(id, destination, texts, payload, (key, mut sequence), (sent_at_us, end, priority, error), headers)| {
            if let Some(sequence) = sequence.as_mut().filter(|sequence| &*sequence.line.stream == UNNAMED) {
                sequence.line.stream = destination.route().stream();
            }
            Message {
                id,
                origin: texts.0,
                destination,
                message_type: texts.1,
                payload,
                content_type: texts.2,
                content_encoding: texts.3,
                correlation_id: texts.4,
                reply_to: texts.5,
                key,
                sequence,
                sent_at_us,
                deadline_us: end.0,
                lifetime: end.1,
                priority,
                error,
                headers,
            }
        },
    )
}

pub(crate) const REASONS: [DeadReason; 9] = [
    DeadReason::Failed,
    DeadReason::Panicked,
    DeadReason::TimedOut,
    DeadReason::Unreadable,
    DeadReason::UnknownType,
    DeadReason::Gap,
    DeadReason::Asked,
    DeadReason::Broker,
    DeadReason::Other,
];

/// Any letter with an error that fits.
pub(crate) fn letter() -> impl Strategy<Value = DeadLetter> {
    let at = || 0..=i64::MAX as u64;
    (select(&REASONS[..]), short(), short(), at(), 1u32.., option::of(at()), option::of(at())).prop_map(
        |(reason, error, queue, at_us, attempts, first_failed_at_us, remembered_for_us)| DeadLetter {
            reason,
            error: error.to_string(),
            queue,
            at_us,
            attempts: NonZeroU32::new(attempts).unwrap(),
            first_failed_at_us,
            remembered_for_us,
        },
    )
}
