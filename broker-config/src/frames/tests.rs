use lapin::types::{AMQPValue, FieldTable};
use proptest::{collection::vec, prelude::*};

use super::*;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1], &length[..], payload, &[0xCE]].concat()
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn header_frame(flags: u16, properties: &[u8]) -> Vec<u8> {
    frame(HEADER, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], &flags.to_be_bytes()[..], properties].concat())
}

fn deliver(routing_key: &[u8]) -> Vec<u8> {
    let arguments = [short(b"tag"), vec![0; 9], short(b"exchange"), short(routing_key)].concat();
    frame(METHOD, &[&[0, 60, 0, 60], &arguments[..]].concat())
}

/// A table or array in another and so on, this many of them.
fn nested(levels: usize, kind: u8) -> Vec<u8> {
    let mut inner = Vec::new();
    for _ in 0..levels {
        let name = if kind == b'F' { short(b"n") } else { Vec::new() };
        inner = [&name, &[kind][..], &long(&inner)].concat();
    }
    inner
}

fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let all = Checked { good: bytes.len(), wanted: 0 };
    assert_eq!(Frames::default().check(&mut bytes), all);
    bytes
}

/// In pieces that end at these places, what is held put in front of the next piece.
fn in_pieces(bytes: &[u8], ends: &[usize]) -> Vec<u8> {
    let (mut frames, mut out, mut held, mut from) = (Frames::default(), Vec::new(), Vec::new(), 0);
    for end in ends.iter().copied().chain([bytes.len()]) {
        held.extend_from_slice(&bytes[from..end.max(from)]);
        from = end.max(from);
        let Checked { good, wanted } = frames.check(&mut held);
        assert_eq!(wanted > 0, good < held.len());
        assert!(wanted == 0 || wanted > held.len() - good, "it waits for what is there");
        out.extend(held.drain(..good));
    }
    out.extend(held);
    out
}

/// The nested values as lapin's parser sees them: how many levels of tables and arrays, and whether bytes stand at the bottom.
fn depth(value: &AMQPValue) -> (usize, bool) {
    match value {
        AMQPValue::FieldTable(table) => {
            table.inner().values().next().map(depth).map_or((1, false), |(d, b)| (d + 1, b))
        }
        AMQPValue::FieldArray(array) => array.as_slice().first().map(depth).map_or((1, false), |(d, b)| (d + 1, b)),
        AMQPValue::ByteArray(_) => (0, true),
        _ => (0, false),
    }
}

fn table_of(frame: &[u8]) -> FieldTable {
    let place = HEAD + 14;
    lapin::types::parsing::parse_field_table(&frame[place..frame.len() - 1]).expect("a table").1
}

#[test]
fn what_is_nested_deeper_than_the_limit_is_bytes_and_what_is_not_stays_as_it_is() {
    for kind in [b'F', b'A'] {
        for levels in [0, 1, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 10_000] {
            let table = [short(b"k"), vec![kind], long(&nested(levels, kind))].concat();
            let before = header_frame(1 << HEADERS, &long(&table));
            let after = checked(before.clone());
            assert_eq!(after == before, levels < MAX_DEPTH - 1, "{levels} levels");
            let seen = depth(&AMQPValue::FieldTable(table_of(&after)));
            let expected = if levels < MAX_DEPTH - 1 { (levels + 2, false) } else { (MAX_DEPTH, true) };
            assert_eq!(seen, expected, "{levels} levels");
            assert_eq!(after.len(), before.len());
        }
    }
}

#[test]
fn a_text_that_is_not_utf8_has_a_substitute_for_each_wrong_byte_wherever_it_stands() {
    let wrong = b"a\xff\xe2\x82z\xe2\x82";
    let right = b"a\x1a\x1a\x1az\x1a\x1a";
    let name_and_void = |name: &[u8]| long(&[&short(name), &b"V"[..]].concat());
    for (of, what) in [
        ((|text| header_frame(1 << 7, &short(text))) as fn(&[u8]) -> Vec<u8>, "message_id"),
        (|text| header_frame(1 << 15 | 1 << 12 | 1 << 2, &[short(b"ok"), vec![2], short(text)].concat()), "the last"),
        (|text| deliver(text), "routing key"),
    ] {
        assert_eq!(checked(of(wrong)), of(right), "{what}");
        let good = of("héllo €".as_bytes());
        assert_eq!(checked(good.clone()), good, "{what}");
    }
    assert_eq!(
        checked(header_frame(1 << HEADERS, &name_and_void(wrong))),
        header_frame(1 << HEADERS, &name_and_void(right))
    );
    // A long string is bytes, and none of its business.
    let value = [short(b"k"), vec![b'S'], long(wrong)].concat();
    let bytes = header_frame(1 << HEADERS, &long(&value));
    assert_eq!(checked(bytes.clone()), bytes);
}

#[test]
fn it_does_not_matter_where_what_comes_is_split() {
    let table = [short(b"k\xff"), vec![b'A'], long(&nested(MAX_DEPTH, b'A'))].concat();
    let bytes = [
        deliver(b"\xff"),
        header_frame(1 << HEADERS | 1 << 7, &[long(&table), short(b"id")].concat()),
        frame(BODY, &[0xff; 40]),
        frame(HEARTBEAT, b""),
        deliver(b"good"),
    ]
    .concat();
    let whole = checked(bytes.clone());
    for first in 0..bytes.len() {
        assert_eq!(in_pieces(&bytes, &[first]), whole, "split at {first}");
        assert_eq!(in_pieces(&bytes, &[first, (first + 3).min(bytes.len())]), whole, "split at {first} and behind");
    }
    assert_eq!(in_pieces(&bytes, &(0..bytes.len()).collect::<Vec<_>>()), whole, "byte by byte");
}

#[test]
fn what_is_no_frame_of_amqp_passes_at_once() {
    for bytes in
        [&b"AMQP\0\0\x09\x01"[..], b"HTTP/1.1 400 Bad Request\r\n", b"no", &[METHOD, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]]
    {
        assert_eq!(checked(bytes.to_vec()), bytes);
    }
}

/// A value with its tag, as a broker writes it.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let tagged = |tag: u8, bytes: Vec<u8>| [&[tag], &bytes[..]].concat();
    let fixed = prop::sample::select(vec![
        (b't', 1),
        (b'b', 1),
        (b'B', 1),
        (b's', 2),
        (b'u', 2),
        (b'U', 2),
        (b'I', 4),
        (b'i', 4),
        (b'f', 4),
        (b'D', 5),
        (b'l', 8),
        (b'L', 8),
        (b'd', 8),
        (b'T', 8),
        (b'V', 0_usize),
    ]);
    let leaf = prop_oneof![
        fixed.prop_map(move |(tag, size)| tagged(tag, vec![0xff; size])),
        (prop::sample::select(vec![b'S', b'x']), vec(any::<u8>(), 0..20))
            .prop_map(move |(tag, bytes)| tagged(tag, long(&bytes))),
    ];
    leaf.prop_recursive(6, 24, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(move |values| tagged(b'A', long(&values.concat()))),
            vec(("[a-zé]{0,8}", inner), 0..4).prop_map(move |entries| {
                let entries = entries.into_iter().flat_map(|(name, value)| [short(name.as_bytes()), value]);
                tagged(b'F', long(&entries.collect::<Vec<_>>().concat()))
            }),
        ]
    })
}

proptest! {
    /// Whatever is well-formed and not too deep passes unchanged.
    #[test]
    fn good_headers_are_not_touched(value in value(), id in "[a-z€]{0,20}") {
        let table = long(&[short(b"k"), value].concat());
        let bytes = header_frame(1 << HEADERS | 1 << 7, &[table, short(id.as_bytes())].concat());
        prop_assert_eq!(checked(bytes.clone()), bytes);
    }

    /// Garbage neither panics nor loses or adds a byte, and of a frame with good borders the borders stay.
    #[test]
    fn garbage_passes_with_its_length(kind in 0_u8..10, bytes in vec(any::<u8>(), 0..200), ends in vec(0_usize..200, 0..4)) {
        prop_assert_eq!(in_pieces(&bytes, &[]).len(), bytes.len());
        let framed = [frame(kind, &bytes), deliver(b"good")].concat();
        let mut ends: Vec<_> = ends.into_iter().map(|end| end.min(framed.len())).collect();
        ends.sort_unstable();
        let after = in_pieces(&framed, &ends);
        prop_assert_eq!(after.len(), framed.len());
        prop_assert_eq!(&after[..HEAD], &framed[..HEAD]);
        prop_assert!(after.ends_with(&deliver(b"good")));
    }
}
