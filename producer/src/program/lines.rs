//! From a line to a message.

use correio_message::{InvalidAddress, Key, Message, MessageId, ShortText, TooLong};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::target::Target;

/// What every line of a run becomes.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) target: Target,
    pub(crate) message_type: Option<ShortText>,
    pub(crate) key_field: Option<String>,
    pub(crate) id_field: Option<String>,
}

/// A line that cannot become a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("it is not a JSON object, and its field “{field}” is asked for: {why}. It reads: {start}")]
    NotAnObject { field: String, why: String, start: String },
    #[error("it has no field “{field}”. It reads: {start}")]
    NoField { field: String, start: String },
    #[error("its field “{field}” is {found}, and text or a number is wanted")]
    NotScalar { field: String, found: &'static str },
    #[error("its field “{field}” cannot be a message id: {why}")]
    InvalidId { field: String, why: String },
    #[error("its field “{field}” cannot be a key: {why}")]
    InvalidKey { field: String, why: TooLong },
    #[error("its field “{field}” is empty, and a word of the topic's key is wanted")]
    EmptyWord { field: String },
    #[error("its field “{field}” is “{value}”: in the topic's key its dot would make two words of one")]
    TwoWords { field: String, value: String },
    #[error("its fields make no topic's key: {why}")]
    InvalidTopic { why: InvalidAddress },
    #[error("it is over {limit} bytes, the most that a message may carry: split it, or send a reference to it")]
    TooLong { limit: usize },
}

impl Shape {
    /// The message of one line.
    pub(crate) fn message(&self, line: &[u8]) -> Result<Message, LineError> {
        let (to, object) = match &self.target {
            Target::One(to) if self.key_field.is_none() && self.id_field.is_none() => (to.clone(), Value::Null),
            Target::One(to) => (to.clone(), self.object(line)?),
            Target::ByLine(template) => {
                let object = self.object(line)?;
                (template.fill(&object, line)?, object)
            }
        };
        let mut message = Message::new(to, line.to_vec());
        message.message_type.clone_from(&self.message_type);
        message.content_type = content_type(line);
        if let Some(field) = &self.key_field {
            let text = scalar(&object, field, line)?;
            let key = Key::new(text).map_err(|why| LineError::InvalidKey { field: field.clone(), why })?;
            message.key = Some(key);
        }
        if let Some(field) = &self.id_field {
            let text = scalar(&object, field, line)?;
            let invalid = |why: correio_message::InvalidMessageId| LineError::InvalidId {
                field: field.clone(),
                why: why.to_string(),
            };
            message.id = Some(MessageId::new(text).map_err(invalid)?);
        }
        Ok(message)
    }

    fn object(&self, line: &[u8]) -> Result<Value, LineError> {
        let field = || self.asked_field().unwrap_or_default().to_owned();
        match serde_json::from_slice::<Value>(line) {
            Ok(object @ Value::Object(_)) => Ok(object),
            Ok(other) => {
                let why = format!("it is {}", kind(&other));
                Err(LineError::NotAnObject { field: field(), why, start: start(line) })
            }
            Err(error) => Err(LineError::NotAnObject { field: field(), why: error.to_string(), start: start(line) }),
        }
    }
}

impl Shape {
    /// Some field that is asked for.
    fn asked_field(&self) -> Option<&str> {
        let of_template = match &self.target {
            Target::One(_) => None,
            Target::ByLine(template) => template.a_field(),
        };
        of_template.or(self.key_field.as_deref()).or(self.id_field.as_deref())
    }
}

/// Reads the next line without its end, at most `limit` bytes of it; `None` at the end of the input.
pub(crate) async fn next_line<R: AsyncBufRead + Unpin>(
    input: &mut R,
    limit: usize,
) -> std::io::Result<Option<Result<Vec<u8>, LineError>>> {
    let mut line = Vec::new();
    // Two bytes more than may be: the end of the line, and one to see that it is too long.
    let read = input.take(limit as u64 + 2).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if line.len() > limit {
        return Ok(Some(Err(LineError::TooLong { limit })));
    }
    Ok(Some(Ok(line)))
}

/// A field that is one word or number.
pub(crate) fn scalar(object: &Value, field: &str, line: &[u8]) -> Result<String, LineError> {
    match object.get(field) {
        None => Err(LineError::NoField { field: field.to_owned(), start: start(line) }),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(other) => Err(LineError::NotScalar { field: field.to_owned(), found: kind(other) }),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn start(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut start: String = text.chars().take(60).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

fn content_type(line: &[u8]) -> Option<ShortText> {
    let json =
        matches!(line.first(), Some(b'{' | b'[')) && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
    let name = match (json, std::str::from_utf8(line)) {
        (true, _) => "application/json",
        (false, Ok(_)) => "text/plain",
        (false, Err(_)) => "application/octet-stream",
    };
    ShortText::new(name).ok()
}

#[cfg(test)]
mod tests {
    use correio_message::Destination;

    use super::*;

    fn shape(key: Option<&str>, id: Option<&str>) -> Shape {
        Shape {
            target: Target::One(Destination::queue("orders").unwrap()),
            message_type: None,
            key_field: key.map(str::to_owned),
            id_field: id.map(str::to_owned),
        }
    }

    #[test]
    fn the_named_fields_become_key_and_id() {
        let message = shape(Some("origin"), Some("n")).message(br#"{"n":7,"origin":"DTW"}"#).unwrap();
        assert_eq!(message.key.unwrap().as_str(), "DTW");
        assert_eq!(message.id.unwrap().as_str(), "7");
        assert_eq!(message.content_type.unwrap().as_str(), "application/json");
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_line_is_named() {
        let of = |line: &str| shape(Some("origin"), Some("n")).message(line.as_bytes()).unwrap_err().to_string();
        assert!(of("hello").contains("not a JSON object"), "{}", of("hello"));
        assert!(of("[1]").contains("a list"));
        assert!(of(r#"{"n":1}"#).contains("no field “origin”"));
        assert!(of(r#"{"origin":null,"n":1}"#).contains("null"));
        assert!(of(r#"{"origin":"a","n":""}"#).contains("empty"));
        let long = format!(r#"{{"origin":"a","n":"{}"}}"#, "x".repeat(256));
        assert!(of(&long).contains("255"), "{}", of(&long));
    }

    #[test]
    fn text_needs_no_json_and_bytes_need_no_text() {
        assert_eq!(shape(None, None).message(b"hello").unwrap().content_type.unwrap().as_str(), "text/plain");
        let bytes = shape(None, None).message(&[0xff, 0xfe]).unwrap();
        assert_eq!(bytes.content_type.unwrap().as_str(), "application/octet-stream");
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_refused_without_being_held() {
        let mut input = tokio::io::BufReader::new(&b"12345\r\n123456\n1"[..]);
        assert_eq!(next_line(&mut input, 5).await.unwrap().unwrap().unwrap(), b"12345");
        assert!(next_line(&mut input, 5).await.unwrap().unwrap().is_err());
    }
}
