//! What makes two deliveries the same message.

use std::fmt;

use uuid::Uuid;

use crate::text::{ShortText, TooLong};

/// The identity of a message: what `message_id` says on the wire.
///
/// Ours are UUIDv7; from others any non-empty text of at most 255 bytes. A resend, a retry and a replay keep
/// it, so that the consumer can tell the second copy from a second message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(ShortText);

/// A text that cannot be a message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessageId {
    /// Nothing cannot tell two messages apart.
    #[error("the message id is empty: leave it out to get one, or give at least one character")]
    Empty,
    /// Past what AMQP carries.
    #[error("message id: {0}")]
    TooLong(#[from] TooLong),
}

impl MessageId {
    /// Takes over the id that an application chose.
    ///
    /// # Errors
    ///
    /// [`InvalidMessageId`] if the text is empty or over 255 bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidMessageId> {
        let text = ShortText::new(text)?;
        if text.is_empty() {
            return Err(InvalidMessageId::Empty);
        }
        Ok(Self(text))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The id as it goes into a property.
    #[must_use]
    pub fn to_text(&self) -> ShortText {
        self.0.clone()
    }

    pub(crate) fn from_wire(text: &ShortText) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.clone()))
    }
}

impl From<Uuid> for MessageId {
    fn from(uuid: Uuid) -> Self {
        let mut buffer = Uuid::encode_buffer();
        let text: &str = uuid.hyphenated().encode_lower(&mut buffer);
        // 36 bytes always fit.
        Self(ShortText::new(text).unwrap_or_else(|_| unreachable!("a UUID is 36 bytes")))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
