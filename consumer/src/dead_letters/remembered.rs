//! Whether it would still be noticed that a letter was handled before.
//!
//! A letter may be out twice: a replay that was killed after its copy was confirmed leaves it parked. The second copy has no second
//! effect as long as the log of handled ids knows of the first, and that is not for ever.

use std::time::{Duration, SystemTime};

use super::DeadLetterSummary;

/// Whether the log of handled ids can still tell that a copy of a letter was handled: now, not when the next copy is handled, so keep
/// the retention well above the longest backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// The letter was parked a shorter time ago than ids are remembered.
    Still,
    /// It was parked longer ago: a copy that was handled since may be forgotten.
    MaybeNot {
        /// How long ago it was parked.
        parked: Duration,
        /// How long ids are remembered.
        remembered_for: Duration,
    },
    /// The letter does not say when it was parked or how long ids are remembered.
    NotSaid,
}

impl Remembered {
    /// Judges a letter at this time. A letter that is parked in the future, by another clock, is parked just now.
    #[must_use]
    pub fn of(letter: &DeadLetterSummary, now: SystemTime) -> Self {
        let (Some(at), Some(remembered_for)) = (letter.at, letter.remembered_for) else { return Self::NotSaid };
        let parked = now.duration_since(at).unwrap_or_default();
        if parked > remembered_for { Self::MaybeNot { parked, remembered_for } } else { Self::Still }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::summary::tests::summary, *};

    /// Parked at second 1,000, where ids are remembered for 60 seconds.
    fn letter() -> DeadLetterSummary {
        DeadLetterSummary { remembered_for: Some(Duration::from_secs(60)), ..summary("a-1", 1_000) }
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn a_letter_is_remembered_for_as_long_as_it_says_and_not_a_moment_longer() {
        assert_eq!(Remembered::of(&letter(), at(1_000_000)), Remembered::Still);
        assert_eq!(Remembered::of(&letter(), at(1_060_000)), Remembered::Still);
        assert_eq!(
            Remembered::of(&letter(), at(1_060_001)),
            Remembered::MaybeNot { parked: Duration::from_millis(60_001), remembered_for: Duration::from_secs(60) }
        );
    }

    #[test]
    fn a_letter_from_a_clock_that_is_ahead_is_parked_just_now() {
        assert_eq!(Remembered::of(&letter(), at(0)), Remembered::Still);
    }

    #[test]
    fn a_letter_that_says_nothing_is_not_judged() {
        let late = at(u64::MAX / 2_000);
        assert_eq!(Remembered::of(&DeadLetterSummary { remembered_for: None, ..letter() }, late), Remembered::NotSaid);
        assert_eq!(Remembered::of(&DeadLetterSummary { at: None, ..letter() }, late), Remembered::NotSaid);
    }
}
