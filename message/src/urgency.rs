//! How long a message is worth something, and what goes first.

use std::{num::NonZeroU32, time::Duration};

use crate::text::ShortText;

/// How long a message is worth something: whole milliseconds, from one to 49.7 days, the longest that every RabbitMQ takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(NonZeroU32);

/// A time that no message can be told to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message cannot expire after {asked:?}: it must be from just above 0 to {:?}", Lifetime::MAX.as_duration())]
pub struct InvalidLifetime {
    /// What was asked for.
    pub asked: Duration,
}

impl Lifetime {
    /// The longest.
    pub const MAX: Self = Self(NonZeroU32::MAX);

    /// A lifetime, rounded up to the millisecond.
    ///
    /// # Errors
    ///
    /// [`InvalidLifetime`] if it is zero, or longer than every RabbitMQ takes.
    pub fn new(asked: Duration) -> Result<Self, InvalidLifetime> {
        let millis = u32::try_from(asked.as_nanos().div_ceil(1_000_000)).ok().and_then(NonZeroU32::new);
        millis.map(Self).ok_or(InvalidLifetime { asked })
    }

    /// What is left of a time: at least a millisecond, as a message without an expiry would live for ever.
    #[must_use]
    pub fn left(time: Duration) -> Self {
        let millis = time.as_nanos().div_ceil(1_000_000);
        Self(u32::try_from(millis).map_or(NonZeroU32::MAX, |millis| NonZeroU32::new(millis).unwrap_or(NonZeroU32::MIN)))
    }

    /// Read from a message's `expiration`; `None` if that is no number, or none of these.
    pub(crate) fn from_wire(expiration: &str) -> Option<Self> {
        // `parse` takes a sign, and the broker does not.
        expiration.bytes().all(|byte| byte.is_ascii_digit()).then(|| expiration.parse().ok().map(Self))?
    }

    /// As time.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0.get() as u64)
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u32 {
        self.0.get()
    }

    /// As it stands in a message's `expiration`: anything but a decimal number closes the channel.
    #[must_use]
    pub fn to_text(self) -> ShortText {
        ShortText::new(self.0.to_string()).unwrap_or_else(|_| unreachable!("a number is short"))
    }
}

/// What goes first where messages wait.
///
/// On a work queue, which is a quorum queue, RabbitMQ 4.3 and later hands out what is high before all that is normal: under a steady
/// load of high ones the normal ones starve. 4.0 to 4.2 hand out two high ones for each normal one. 3.10 to 3.13 ignore it:
/// messages come as they were sent. What a consumer has received already, up to its prefetch, is not overtaken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// As everything else: the message says nothing of it.
    #[default]
    Normal,
    /// Before what is normal. It is written as 9, the highest of AMQP, so that a classic queue of one's own with
    /// `x-max-priority` has it before everything else, too.
    High,
}

impl Priority {
    pub(crate) fn to_wire(self) -> Option<u8> {
        match self {
            Self::Normal => None,
            Self::High => Some(HIGHEST),
        }
    }

    /// As a quorum queue takes it, whoever wrote it: high from 5 on.
    pub(crate) fn from_wire(priority: Option<u8>) -> Self {
        if priority.is_some_and(|priority| priority >= HIGH_FROM) { Self::High } else { Self::Normal }
    }
}

/// AMQP 0-9-1 has 0 to 9.
const HIGHEST: u8 = 9;
/// What RabbitMQ's quorum queues call high.
const HIGH_FROM: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_whole_milliseconds_that_every_broker_takes_and_never_shorter_than_asked() {
        let millis = |asked| Lifetime::new(asked).map(Lifetime::as_millis);
        assert_eq!(millis(Duration::from_nanos(1)), Ok(1));
        assert_eq!(millis(Duration::from_micros(1_500_001)), Ok(1_501));
        assert_eq!(millis(Lifetime::MAX.as_duration()), Ok(u32::MAX));
        for asked in [Duration::ZERO, Lifetime::MAX.as_duration() + Duration::from_nanos(1), Duration::MAX] {
            assert_eq!(millis(asked), Err(InvalidLifetime { asked }));
        }
    }

    #[test]
    fn what_is_left_is_never_nothing_and_never_for_ever() {
        let left = |time| Lifetime::left(time).as_millis();
        assert_eq!([left(Duration::ZERO), left(Duration::from_micros(1_001)), left(Duration::MAX)], [1, 2, u32::MAX]);
    }

    #[test]
    fn an_expiration_of_another_client_is_read_if_it_is_one() {
        let read = |text| Lifetime::from_wire(text).map(Lifetime::as_millis);
        assert_eq!([read("60000"), read("007")], [Some(60_000), Some(7)]);
        for other in ["", "0", "-1", "+1", "1.5", "soon", "4294967296"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_priority_is_high_where_the_broker_takes_it_for_high() {
        let read: Vec<_> = [None, Some(0), Some(4), Some(5), Some(9), Some(255)].map(Priority::from_wire).into();
        let (normal, high) = (Priority::Normal, Priority::High);
        assert_eq!(read, [normal, normal, normal, high, high, high]);
        assert_eq!([normal, high].map(|priority| Priority::from_wire(priority.to_wire())), [normal, high]);
    }
}
