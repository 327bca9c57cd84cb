//! Payloads with a type.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::text::ShortText;

/// A payload that is a value as JSON: what a sender gives, and what a handler asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A payload cannot be written as, or read as, the type asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The value has no JSON form.
    #[error("the value cannot be written as JSON: {0}")]
    Write(#[source] serde_json::Error),
    /// The payload is not the JSON that the type wants; the place in it is named.
    #[error("the payload is not the JSON asked for: {0}")]
    Read(#[source] serde_json::Error),
}

impl<T> Json<T> {
    /// `application/json`.
    #[must_use]
    pub fn content_type() -> ShortText {
        ShortText::new("application/json").unwrap_or_else(|_| unreachable!("a short constant"))
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Write`] if the value has no JSON form.
    pub fn encode(value: &T) -> Result<Bytes, PayloadError>
    where
        T: Serialize,
    {
        serde_json::to_vec(value).map(Bytes::from).map_err(PayloadError::Write)
    }

    /// Reads a value, whatever the content type says: foreign senders often leave it out.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Read`] if the payload is not such JSON, nested past 128 levels included.
    pub fn decode(payload: &[u8]) -> Result<Self, PayloadError>
    where
        T: DeserializeOwned,
    {
        serde_json::from_slice(payload).map(Json).map_err(PayloadError::Read)
    }
}
