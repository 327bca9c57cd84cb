//! The place of a message among those that share its key.

use std::{fmt, num::NonZeroU64, sync::Arc};

use uuid::Uuid;

use crate::text::{ShortText, TooLong};

/// What orders: messages of one source with one key on one stream are handled in the order sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(ShortText);

impl Key {
    /// Takes a key over.
    ///
    /// # Errors
    ///
    /// [`TooLong`] past 255 bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TooLong> {
        ShortText::new(text).map(Self)
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The key as it goes into a header.
    #[must_use]
    pub fn to_text(&self) -> ShortText {
        self.0.clone()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One row of numbers 1, 2, 3 …: a source, a stream and a key. Two lines have no order between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// One running producer, or one outbox.
    pub source: Uuid,
    /// Exchange and routing key as `exchange/routing-key`, or the name that the producer gave.
    pub stream: Arc<str>,
    /// The key that orders.
    pub key: Key,
}

/// The place of one message: a [`Line`] and the number on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The row of numbers.
    pub line: Line,
    /// Counts from 1, without a hole that is not declared.
    pub number: NonZeroU64,
    /// Earlier numbers of the same line that nobody needs to wait for, because their messages ended without
    /// being on the queue.
    pub voids: Voids,
}

/// Numbers of a line that were given out and whose messages never came to be on the queue.
///
/// Sorted, each once; on the wire `3,5-7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voids(Vec<NonZeroU64>);

/// A text that is not a list of void numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of numbers such as 3,5-7 (at most {} of them)", Voids::MAX)]
pub struct InvalidVoids;

impl Voids {
    /// How many numbers one message can declare void; the rest go on the next.
    pub const MAX: usize = 1_000;

    /// Takes numbers over, in any order.
    #[must_use]
    pub fn new(numbers: impl IntoIterator<Item = NonZeroU64>) -> Self {
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers)
    }

    /// Whether nothing is void.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU64> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn to_wire(&self) -> String {
        let mut text = String::new();
        let mut rest = self.0.as_slice();
        while let Some(first) = rest.first() {
            let run = rest.iter().zip(first.get()..).take_while(|(n, expected)| n.get() == *expected).count();
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&first.to_string());
            if run > 1 {
                text.push('-');
                text.push_str(&rest[run - 1].to_string());
            }
            rest = &rest[run..];
        }
        text
    }

    pub(crate) fn from_wire(text: &str) -> Result<Self, InvalidVoids> {
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: NonZeroU64 = first.parse().map_err(|_| InvalidVoids)?;
            let last: NonZeroU64 = last.parse().map_err(|_| InvalidVoids)?;
            // The span is checked before it is walked: a foreign `1-18446744073709551615` must not be.
            let span = last.get().checked_sub(first.get()).ok_or(InvalidVoids)?;
            if span >= (Self::MAX - numbers.len().min(Self::MAX)) as u64 {
                return Err(InvalidVoids);
            }
            numbers.extend((first.get()..=last.get()).filter_map(NonZeroU64::new));
        }
        Ok(Self::new(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voids(numbers: &[u64]) -> Voids {
        Voids::new(numbers.iter().filter_map(|n| NonZeroU64::new(*n)))
    }

    #[test]
    fn voids_are_written_as_ranges_and_read_back() {
        assert_eq!(voids(&[7, 3, 5, 6]).to_wire(), "3,5-7");
        assert_eq!(Voids::from_wire("3,5-7").unwrap(), voids(&[3, 5, 6, 7]));
    }

    #[test]
    fn a_hostile_range_is_refused_without_being_walked() {
        for text in ["1-18446744073709551615", "5-3", "0", "", "1,,2", "a", "1-2000", "1-1000,2000-2001"] {
            assert_eq!(Voids::from_wire(text), Err(InvalidVoids), "{text}");
        }
        assert!(Voids::from_wire("1-1000").is_ok());
    }
}
