//! The place of a message among those that share its key.

use std::{collections::BTreeSet, fmt, num::NonZeroU64, sync::Arc};

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
    // First, because it is what tells two of them apart soonest.
    /// The key that orders.
    pub key: Key,
    /// One running producer, or one outbox.
    pub source: Uuid,
    /// Exchange and routing key as `exchange/routing-key`, or the name that the producer gave: at most
    /// [`Line::MAX_STREAM`] bytes, past which a reader refuses the message.
    pub stream: Arc<str>,
}

impl Line {
    /// The most bytes of a stream's name. Every route fits: two short strings and the `/` between them.
    pub const MAX_STREAM: usize = 2 * ShortText::MAX + 1;
}

/// The place of one message: a [`Line`] and the number on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The row of numbers.
    pub line: Line,
    /// Counts from 1, without a hole that is not declared; at most `i64::MAX`, the largest that the wire has.
    pub number: NonZeroU64,
    /// Earlier numbers of the same line that nobody needs to wait for, because their messages ended without
    /// being on the queue. A number that is not earlier than this message's own says nothing, and is not written.
    pub voids: Voids,
}

/// Numbers of a line that were given out and whose messages never came to be on the queue.
///
/// Sorted, each once, and never more than [`Voids::MAX`], so that whatever is written can be read; on the wire `3,5-7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voids(Vec<NonZeroU64>);

/// A text that is not a list of void numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of earlier numbers such as 3,5-7 (at most {} of them)", Voids::MAX)]
pub struct InvalidVoids;

impl Voids {
    /// How many numbers one message can declare void; the rest go on the next ([`Voids::take_first`]).
    pub const MAX: usize = 1_000;

    /// Takes numbers over, in any order.
    ///
    /// # Panics
    ///
    /// With more than [`Voids::MAX`] different numbers: to leave some out in silence would make consumers wait for
    /// messages that do not exist. [`Voids::take_first`] never panics.
    #[must_use]
    pub fn new(numbers: impl IntoIterator<Item = NonZeroU64>) -> Self {
        let mut distinct = BTreeSet::new();
        for number in numbers {
            distinct.insert(number);
            assert!(distinct.len() <= Self::MAX, "one message can declare at most {} numbers void", Self::MAX);
        }
        Self(distinct.into_iter().collect())
    }

    /// Takes the lowest numbers out of a set, as many as one message can declare, and leaves the rest for the next.
    #[must_use = "the numbers are no longer in the set"]
    pub fn take_first(numbers: &mut BTreeSet<NonZeroU64>) -> Self {
        Self(std::iter::from_fn(|| numbers.pop_first()).take(Self::MAX).collect())
    }

    /// How many numbers there are: at most [`Voids::MAX`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
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

    /// The numbers below `number`, as a header says them; empty if there are none.
    pub(crate) fn to_wire(&self, number: NonZeroU64) -> String {
        let mut text = String::new();
        let mut rest = &self.0[..self.0.partition_point(|void| *void < number)];
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

    /// Reads a header of the message with this number.
    pub(crate) fn from_wire(text: &str, number: NonZeroU64) -> Result<Self, InvalidVoids> {
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: NonZeroU64 = first.parse().map_err(|_| InvalidVoids)?;
            let last: NonZeroU64 = last.parse().map_err(|_| InvalidVoids)?;
            // A later number would have its real message passed over when it comes.
            if last >= number {
                return Err(InvalidVoids);
            }
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

    const LAST: NonZeroU64 = NonZeroU64::MAX;

    fn voids(numbers: impl IntoIterator<Item = u64>) -> Voids {
        Voids::new(numbers.into_iter().filter_map(NonZeroU64::new))
    }

    #[test]
    fn voids_are_written_as_ranges_and_read_back() {
        assert_eq!(voids([7, 3, 5, 6]).to_wire(LAST), "3,5-7");
        assert_eq!(Voids::from_wire("3,5-7", LAST).unwrap(), voids([3, 5, 6, 7]));
    }

    #[test]
    fn a_hostile_range_is_refused_without_being_walked() {
        for text in ["1-18446744073709551615", "5-3", "0", "", "1,,2", "a", "1-2000", "1-1000,2000-2001"] {
            assert_eq!(Voids::from_wire(text, LAST), Err(InvalidVoids), "{text}");
        }
        assert!(Voids::from_wire("1-1000", LAST).is_ok());
    }

    #[test]
    fn only_earlier_numbers_are_written_and_only_such_are_read() {
        let number = NonZeroU64::new(6).unwrap();
        assert_eq!(voids([3, 5, 6, 7]).to_wire(number), "3,5");
        assert!(Voids::from_wire("3-5", number).is_ok());
        assert_eq!(Voids::from_wire("3-6", number), Err(InvalidVoids));
    }

    #[test]
    fn the_most_voids_that_there_can_be_are_written_and_read_back() {
        // Every other number: no ranges, and the longest text.
        let numbers = (0..Voids::MAX as u64).map(|n| i64::MAX as u64 - 1 - 2 * n);
        let most = voids(numbers);
        assert_eq!(Voids::from_wire(&most.to_wire(LAST), LAST).unwrap(), most);
    }

    #[test]
    fn a_set_gives_its_lowest_numbers_and_keeps_the_rest() {
        let mut set: BTreeSet<_> = (1..=1_500).filter_map(NonZeroU64::new).collect();
        assert_eq!(Voids::take_first(&mut set), voids(1..=1_000));
        assert_eq!(set.first().map(|n| n.get()), Some(1_001));
        assert_eq!(Voids::take_first(&mut set).len(), 500);
        assert!(Voids::take_first(&mut set).is_empty());
    }

    #[test]
    fn the_same_number_counts_once() {
        assert_eq!(voids((1..=1_000).chain(1..=1_000)).len(), Voids::MAX);
    }

    #[test]
    #[should_panic(expected = "at most 1000 numbers void")]
    fn more_voids_than_a_message_holds_are_refused_loudly() {
        let _ = voids(1..=1_001);
    }
}
