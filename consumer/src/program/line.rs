//! A message as one line of output.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use correio_message::Message;
use serde::Serialize;

use crate::{BoxError, Context, FromMessage};

/// A payload that makes one line as it is: UTF-8 without a line break.
///
/// Any other payload is *unreadable* for a plain output: trying again would not help, so it is parked at once.
pub(crate) struct PlainLine(Bytes);

impl PlainLine {
    /// The line, its end included.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.0.len() + 1);
        line.extend_from_slice(&self.0);
        line.push(b'\n');
        line
    }
}

impl FromMessage for PlainLine {
    fn from_message(message: &Message) -> Result<Self, BoxError> {
        if std::str::from_utf8(&message.payload).is_err() {
            return Err(NotOneLine { found: "bytes that are not UTF-8" }.into());
        }
        if message.payload.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Err(NotOneLine { found: "a line break" }.into());
        }
        Ok(Self(message.payload.clone()))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the payload contains {found} and is no single line: run with --json, then replay it")]
struct NotOneLine {
    found: &'static str,
}

/// The message as a line of JSON, its end included. It has a line for every payload.
pub(crate) fn json_line(context: &Context) -> Vec<u8> {
    let message = context.message();
    let text = std::str::from_utf8(&message.payload).ok();
    let told = Told {
        id: context.id().map(|id| id.as_str()),
        message_type: message.message_type.as_ref().map(|t| t.as_str()),
        key: context.key().map(|key| key.as_str()),
        origin: context.origin(),
        attempt: context.attempt().get(),
        redelivered: context.redelivered(),
        payload: text,
        payload_base64: text.is_none().then(|| STANDARD.encode(&message.payload)),
    };
    told.line()
}

#[derive(Serialize)]
struct Told<'m> {
    id: Option<&'m str>,
    #[serde(rename = "type")]
    message_type: Option<&'m str>,
    key: Option<&'m str>,
    origin: Option<&'m str>,
    attempt: u32,
    redelivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl Told<'_> {
    fn line(&self) -> Vec<u8> {
        // Texts, numbers and options: nothing in it can fail to be JSON.
        let mut line = serde_json::to_vec(self).unwrap_or_else(|_| unreachable!("plain fields are JSON"));
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use correio_message::Destination;

    use super::*;

    fn plain(payload: &'static [u8]) -> Result<Vec<u8>, String> {
        let message = Message::new(Destination::queue("orders").unwrap(), payload);
        PlainLine::from_message(&message).map(|line| line.bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_payload_of_one_line_is_that_line() {
        assert_eq!(plain(b"{\"n\":1}").unwrap(), b"{\"n\":1}\n");
        assert_eq!(plain(b"").unwrap(), b"\n");
    }

    #[test]
    fn a_payload_that_is_no_single_line_names_the_way_out() {
        for payload in [&b"a\nb"[..], b"a\n", b"a\rb", b"\xff"] {
            assert!(plain(payload).unwrap_err().contains("--json"));
        }
    }

    #[test]
    fn json_tells_bytes_that_are_no_text_as_base64() {
        let told = Told {
            id: Some("a"),
            message_type: None,
            key: None,
            origin: None,
            attempt: 1,
            redelivered: false,
            payload: None,
            payload_base64: Some(STANDARD.encode(b"\xff")),
        };
        let line = String::from_utf8(told.line()).unwrap();
        assert_eq!(
            line,
            "{\"id\":\"a\",\"type\":null,\"key\":null,\"origin\":null,\"attempt\":1,\"redelivered\":false,\
             \"payload_base64\":\"/w==\"}\n"
        );
    }
}
