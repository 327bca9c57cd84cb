//! Between our properties and lapin's: nothing is lost either way, and nothing here can fail.

use bytes::Bytes;
use correio_message::{Headers, Properties, ShortText, Value};
use lapin::{
    BasicProperties,
    types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString, ShortString},
};

/// Our properties as lapin publishes them.
#[must_use]
pub fn to_lapin(properties: &Properties) -> BasicProperties {
    let mut wire = BasicProperties::default();
    macro_rules! put {
        ($($field:ident => $with:ident $(, $convert:expr)?;)*) => {
            $(if let Some(value) = &properties.$field {
                wire = wire.$with(put!(@ value $(, $convert)?));
            })*
        };
        (@ $value:ident, $convert:expr) => { $convert($value) };
        (@ $value:ident) => { *$value };
    }
    put! {
        content_type => with_content_type, short_string;
        content_encoding => with_content_encoding, short_string;
        delivery_mode => with_delivery_mode;
        priority => with_priority;
        correlation_id => with_correlation_id, short_string;
        reply_to => with_reply_to, short_string;
        expiration => with_expiration, short_string;
        message_id => with_message_id, short_string;
        timestamp => with_timestamp;
        message_type => with_type, short_string;
        user_id => with_user_id, short_string;
        app_id => with_app_id, short_string;
    }
    if !properties.headers.is_empty() {
        wire = wire.with_headers(table_to_lapin(&properties.headers));
    }
    wire
}

/// lapin's properties as ours. Total: every property that lapin can hold has a place.
///
/// What is not told apart: an empty headers table and none; the deprecated `cluster_id` is left out.
#[must_use]
pub fn from_lapin(wire: &BasicProperties) -> Properties {
    Properties {
        content_type: short_text(wire.content_type()),
        content_encoding: short_text(wire.content_encoding()),
        headers: wire.headers().as_ref().map(table_from_lapin).unwrap_or_default(),
        delivery_mode: *wire.delivery_mode(),
        priority: *wire.priority(),
        correlation_id: short_text(wire.correlation_id()),
        reply_to: short_text(wire.reply_to()),
        expiration: short_text(wire.expiration()),
        message_id: short_text(wire.message_id()),
        timestamp: *wire.timestamp(),
        message_type: short_text(wire.kind()),
        user_id: short_text(wire.user_id()),
        app_id: short_text(wire.app_id()),
    }
}

/// Our text as lapin's: both hold at most 255 bytes.
#[must_use]
pub fn short_string(text: &ShortText) -> ShortString {
    // Not `ShortString::from`, which panics past 255 bytes; a `ShortText` never is.
    ShortString::try_new(text.as_str()).unwrap_or_default()
}

/// lapin's text as ours: both hold at most 255 bytes.
#[must_use]
pub fn text(text: &ShortString) -> ShortText {
    ShortText::new(text.as_str()).unwrap_or_else(|_| unreachable!("a ShortString holds at most 255 bytes"))
}

fn short_text(value: &Option<ShortString>) -> Option<ShortText> {
    value.as_ref().map(text)
}

fn table_to_lapin(headers: &Headers) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(short_string(name), value_to_lapin(value));
    }
    table
}

fn table_from_lapin(table: &FieldTable) -> Headers {
    table.into_iter().map(|(name, value)| (text(name), value_from_lapin(value))).collect()
}

fn value_to_lapin(value: &Value) -> AMQPValue {
    match value {
        Value::Void => AMQPValue::Void,
        Value::Bool(v) => AMQPValue::Boolean(*v),
        Value::I8(v) => AMQPValue::ShortShortInt(*v),
        Value::U8(v) => AMQPValue::ShortShortUInt(*v),
        Value::I16(v) => AMQPValue::ShortInt(*v),
        Value::U16(v) => AMQPValue::ShortUInt(*v),
        Value::I32(v) => AMQPValue::LongInt(*v),
        Value::U32(v) => AMQPValue::LongUInt(*v),
        Value::I64(v) => AMQPValue::LongLongInt(*v),
        Value::F32(v) => AMQPValue::Float(*v),
        Value::F64(v) => AMQPValue::Double(*v),
        Value::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue { scale: *scale, value: *value }),
        Value::Timestamp(v) => AMQPValue::Timestamp(*v),
        Value::Text(v) => AMQPValue::LongString(LongString::from(v.as_ref())),
        Value::Bytes(v) => AMQPValue::ByteArray(ByteArray::from(v.as_ref())),
        Value::List(v) => AMQPValue::FieldArray(FieldArray::from(v.iter().map(value_to_lapin).collect::<Vec<_>>())),
        Value::Table(v) => AMQPValue::FieldTable(table_to_lapin(v)),
    }
}

fn value_from_lapin(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Void => Value::Void,
        AMQPValue::Boolean(v) => Value::Bool(*v),
        AMQPValue::ShortShortInt(v) => Value::I8(*v),
        AMQPValue::ShortShortUInt(v) => Value::U8(*v),
        AMQPValue::ShortInt(v) => Value::I16(*v),
        AMQPValue::ShortUInt(v) => Value::U16(*v),
        AMQPValue::LongInt(v) => Value::I32(*v),
        AMQPValue::LongUInt(v) => Value::U32(*v),
        AMQPValue::LongLongInt(v) => Value::I64(*v),
        AMQPValue::Float(v) => Value::F32(*v),
        AMQPValue::Double(v) => Value::F64(*v),
        AMQPValue::DecimalValue(v) => Value::Decimal { scale: v.scale, value: v.value },
        AMQPValue::Timestamp(v) => Value::Timestamp(*v),
        // Short strings do not stand in RabbitMQ's tables; should lapin ever make one, it is text.
        AMQPValue::ShortString(v) => Value::text(v.as_str()),
        AMQPValue::LongString(v) => Value::Text(Bytes::copy_from_slice(v.as_bytes())),
        AMQPValue::ByteArray(v) => Value::Bytes(Bytes::copy_from_slice(v.as_slice())),
        AMQPValue::FieldArray(v) => Value::List(v.as_slice().iter().map(value_from_lapin).collect()),
        AMQPValue::FieldTable(v) => Value::Table(table_from_lapin(v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str) -> ShortText {
        ShortText::new(text).unwrap()
    }

    #[test]
    fn every_property_and_every_header_type_survives_both_ways() {
        let leaves = vec![
            Value::Void,
            Value::Bool(true),
            Value::I8(i8::MIN),
            Value::U8(u8::MAX),
            Value::I16(i16::MIN),
            Value::U16(u16::MAX),
            Value::I32(i32::MIN),
            Value::U32(u32::MAX),
            Value::I64(i64::MIN),
            Value::F32(1.5),
            Value::F64(-2.5e300),
            Value::Decimal { scale: 2, value: 314 },
            Value::Timestamp(u64::MAX),
            Value::Text(Bytes::from_static(b"not UTF-8: \xff")),
            Value::Bytes(Bytes::from_static(b"\0\x01")),
        ];
        let mut headers: Headers =
            leaves.iter().enumerate().map(|(n, value)| (short(&format!("h{n}")), value.clone())).collect();
        headers.insert(short("list"), Value::List(leaves));
        headers.insert(short("table"), Value::Table(headers.clone()));
        let name = |n: &str| Some(short(n));
        let properties = Properties {
            content_type: name("a"),
            content_encoding: name("b"),
            headers,
            delivery_mode: Some(2),
            priority: Some(9),
            correlation_id: name("c"),
            reply_to: name("d"),
            expiration: name("5"),
            message_id: name(&"é".repeat(127)),
            timestamp: Some(1),
            message_type: name("f"),
            user_id: name("g"),
            app_id: name("h"),
        };
        assert_eq!(from_lapin(&to_lapin(&properties)), properties);
    }

    #[test]
    fn a_message_without_any_property_stays_without() {
        assert_eq!(to_lapin(&Properties::default()), BasicProperties::default());
        assert_eq!(from_lapin(&BasicProperties::default()), Properties::default());
    }
}
