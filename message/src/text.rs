//! Text that fits an AMQP short string.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

/// Text of at most 255 bytes, as AMQP's short strings are: names of exchanges and queues, routing keys,
/// message ids and types. Cheap to clone.
#[derive(Clone)]
pub struct ShortText(Text);

/// Ours or given.
#[derive(Clone)]
enum Text {
    Constant(&'static str),
    Shared(Arc<str>),
}

/// A text is over 255 bytes, the most an AMQP short string holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text “{start}…” is {length} bytes and AMQP carries at most 255 here: shorten it")]
pub struct TooLong {
    /// How long the text is, in bytes.
    pub length: usize,
    /// How it starts, to be recognised by.
    pub start: String,
}

impl ShortText {
    /// The most bytes a short string holds.
    pub const MAX: usize = 255;

    /// Takes a text over.
    ///
    /// # Errors
    ///
    /// [`TooLong`] past 255 bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TooLong> {
        let text = text.as_ref();
        if text.len() > Self::MAX {
            let start = text.chars().take(32).collect();
            return Err(TooLong { length: text.len(), start });
        }
        Ok(Self(Text::Shared(text.into())))
    }

    /// A name of ours, which costs nothing to make.
    ///
    /// # Panics
    ///
    /// Past 255 bytes: when it is compiled, where it makes a constant.
    #[must_use]
    pub const fn constant(text: &'static str) -> Self {
        assert!(text.len() <= Self::MAX);
        Self(Text::Constant(text))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Constant(text) => text,
            Text::Shared(text) => text,
        }
    }

    /// Whether there is no text at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ShortText {}

impl PartialOrd for ShortText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for ShortText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

// A map of them can be asked by a plain `&str`: order and equality are the text's own.
impl Borrow<str> for ShortText {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ShortText {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for ShortText {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for ShortText {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl FromStr for ShortText {
    type Err = TooLong;

    fn from_str(text: &str) -> Result<Self, TooLong> {
        Self::new(text)
    }
}

impl TryFrom<&str> for ShortText {
    type Error = TooLong;

    fn try_from(text: &str) -> Result<Self, TooLong> {
        Self::new(text)
    }
}

impl TryFrom<String> for ShortText {
    type Error = TooLong;

    fn try_from(text: String) -> Result<Self, TooLong> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_255_bytes_fits_and_of_256_is_refused_with_its_length() {
        assert!(ShortText::new("x".repeat(255)).is_ok());
        assert_eq!(ShortText::new("é".repeat(128)).unwrap_err().length, 256);
    }
}
