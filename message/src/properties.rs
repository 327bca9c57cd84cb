//! A message as it stands on the wire, in types of our own: any AMQP 0-9-1 client's message fits.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    message::{Message, Route},
    text::ShortText,
};

/// A message as it stands on the wire: where it was published, its properties, its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The exchange and routing key it was, or will be, published with.
    pub route: Route,
    /// Its AMQP properties.
    pub properties: Properties,
    /// Its body, untouched.
    pub body: Bytes,
}

/// The basic properties of AMQP 0-9-1 (section 1.8 of the generated reference).
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are the specification's own")]
pub struct Properties {
    pub content_type: Option<ShortText>,
    pub content_encoding: Option<ShortText>,
    pub headers: Headers,
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<ShortText>,
    pub reply_to: Option<ShortText>,
    pub expiration: Option<ShortText>,
    pub message_id: Option<ShortText>,
    pub timestamp: Option<u64>,
    pub message_type: Option<ShortText>,
    pub user_id: Option<ShortText>,
    pub app_id: Option<ShortText>,
}

/// Headers by name, in order of name.
pub type Headers = BTreeMap<ShortText, Value>;

/// The value of one header: the types of RabbitMQ's field tables.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is the field type of its name")]
pub enum Value {
    Void,
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal {
        scale: u8,
        value: u32,
    },
    /// Seconds since 1970.
    Timestamp(u64),
    /// A long string: usually, but not always, UTF-8.
    Text(Bytes),
    Bytes(Bytes),
    List(Vec<Value>),
    Table(Headers),
}

impl Value {
    /// A text header.
    #[must_use]
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Bytes::copy_from_slice(text.as_ref().as_bytes()))
    }

    /// The text, if this is one and is UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The whole number, whatever width its sender chose.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(n) => Some(n.into()),
            Self::U8(n) => Some(n.into()),
            Self::I16(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::I32(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::I64(n) => Some(n),
            _ => None,
        }
    }
}

impl Properties {
    /// Roughly how much room the properties take, in bytes: for budgets, not for the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        let texts = [
            &self.content_type,
            &self.content_encoding,
            &self.correlation_id,
            &self.reply_to,
            &self.expiration,
            &self.message_id,
            &self.message_type,
            &self.user_id,
            &self.app_id,
        ];
        let fixed = 64;
        fixed + texts.into_iter().flatten().map(|t| t.as_str().len()).sum::<usize>() + headers_weight(&self.headers)
    }
}

impl Message {
    /// Roughly how many bytes the application's headers take.
    #[must_use]
    pub fn headers_weight(&self) -> usize {
        headers_weight(&self.headers)
    }
}

pub(crate) fn headers_weight(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| 16 + name.as_str().len() + value_weight(value)).sum()
}

fn value_weight(value: &Value) -> usize {
    match value {
        Value::Text(bytes) | Value::Bytes(bytes) => bytes.len(),
        Value::List(values) => values.iter().map(|v| 16 + value_weight(v)).sum(),
        Value::Table(headers) => headers_weight(headers),
        _ => 8,
    }
}
