//! What a handler can ask for: the payload as a value, the message, the bytes.

use bytes::Bytes;
use correio_message::{Json, Message};
use serde::de::DeserializeOwned;

use crate::handler::BoxError;

/// An argument that can be made from a message.
///
/// A message that it cannot be made from is *unreadable*: trying again would not help, so it is parked
/// as a dead letter at once, its bytes untouched.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made from a message",
    label = "a handler cannot ask for this",
    note = "ask for `Json<{Self}>` if the payload is JSON and `{Self}` implements `serde::Deserialize`; for `Message` or `Bytes` to have it raw"
)]
pub trait FromMessage: Sized {
    /// Makes the argument.
    ///
    /// # Errors
    ///
    /// Why the message cannot be read so.
    fn from_message(message: &Message) -> Result<Self, BoxError>;
}

/// The payload as JSON, whatever the content type says.
impl<T: DeserializeOwned> FromMessage for Json<T> {
    fn from_message(message: &Message) -> Result<Self, BoxError> {
        Json::decode(&message.payload).map_err(Into::into)
    }
}

/// The whole message; nothing of it is copied but its small parts.
impl FromMessage for Message {
    fn from_message(message: &Message) -> Result<Self, BoxError> {
        Ok(message.clone())
    }
}

/// The payload as it is.
impl FromMessage for Bytes {
    fn from_message(message: &Message) -> Result<Self, BoxError> {
        Ok(message.payload.clone())
    }
}
