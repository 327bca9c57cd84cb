//! Which dead letters are meant.

use std::{num::NonZeroU32, time::SystemTime};

use correio_message::{DeadReason, MessageId, ShortText};

use super::DeadLetterSummary;

/// Which dead letters to list, export, replay or remove: those that are all of what is said here. The default takes
/// every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LettersFilter {
    /// With this id.
    pub id: Option<MessageId>,
    /// Parked for this reason.
    pub reason: Option<DeadReason>,
    /// Of this type.
    pub message_type: Option<ShortText>,
    /// Sent by this application.
    pub origin: Option<ShortText>,
    /// Parked then or later. A letter that does not say when it was parked is not wanted.
    pub after: Option<SystemTime>,
    /// Parked before then. A letter that does not say when it was parked is not wanted.
    pub before: Option<SystemTime>,
    /// Of these no more than so many, the oldest first as far as the broker keeps their order.
    pub limit: Option<NonZeroU32>,
}

impl LettersFilter {
    /// Whether it is all of what is said here, the limit aside.
    #[must_use]
    pub fn wants(&self, letter: &DeadLetterSummary) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, said: Option<&T>) -> bool {
            wanted.as_ref().is_none_or(|wanted| said == Some(wanted))
        }
        is(&self.id, letter.id.as_ref())
            && is(&self.reason, Some(&letter.reason))
            && is(&self.message_type, letter.message_type.as_ref())
            && is(&self.origin, letter.origin.as_ref())
            && self.after.is_none_or(|after| letter.at.is_some_and(|at| at >= after))
            && self.before.is_none_or(|before| letter.at.is_some_and(|at| at < before))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::summary::tests::summary, *};

    #[test]
    fn a_filter_that_says_nothing_takes_every_letter() {
        assert!(LettersFilter::default().wants(&summary("a-1", 5)));
    }

    #[test]
    fn a_letter_is_wanted_only_if_all_that_is_said_is_true_of_it() {
        let text = |text| ShortText::new(text).ok();
        let at = |second| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let all = LettersFilter {
            id: MessageId::new("a-1").ok(),
            reason: Some(DeadReason::Failed),
            message_type: text("order.placed"),
            origin: text("shop"),
            after: at(5),
            before: at(6),
            limit: None,
        };
        let letter = summary("a-1", 5);
        assert!(all.wants(&letter));
        for wrong in [
            LettersFilter { id: MessageId::new("a-2").ok(), ..all.clone() },
            LettersFilter { reason: Some(DeadReason::Gap), ..all.clone() },
            LettersFilter { message_type: text("order.sent"), ..all.clone() },
            LettersFilter { origin: text("office"), ..all.clone() },
            LettersFilter { after: at(6), ..all.clone() },
            LettersFilter { before: at(5), ..all.clone() },
        ] {
            assert!(!wrong.wants(&letter), "{wrong:?}");
        }
    }

    #[test]
    fn a_letter_without_a_time_is_in_no_span_of_time() {
        let letter = DeadLetterSummary { at: None, ..summary("a-1", 5) };
        let epoch = Some(SystemTime::UNIX_EPOCH);
        assert!(!LettersFilter { after: epoch, ..LettersFilter::default() }.wants(&letter));
        assert!(!LettersFilter { before: epoch, ..LettersFilter::default() }.wants(&letter));
    }
}
