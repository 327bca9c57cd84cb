//! Dead letters by what they have in common: what a thousand letters say in three lines.

use std::{cmp::Reverse, collections::BTreeMap, time::SystemTime};

use correio_message::{DeadReason, MessageId, ShortText};

use super::DeadLetterSummary;

/// The letters with one reason and one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterGroup {
    /// Why they were parked.
    pub reason: DeadReason,
    /// Their type, if they have one.
    pub message_type: Option<ShortText>,
    /// How many there are.
    pub count: u64,
    /// When the first of them failed first, as far as they say it.
    pub oldest_failure: Option<SystemTime>,
    /// When the last of them was parked, as far as they say it.
    pub latest_failure: Option<SystemTime>,
    /// The id of the first that was seen, if it has one.
    pub example: Option<MessageId>,
    /// The error of the same letter.
    pub error: String,
}

/// Letters being grouped, one after the other.
///
/// ```
/// # use correio_consumer::dead_letters::{DeadLetterGroups, DeadLetterSummary};
/// # fn example(letters: &[DeadLetterSummary]) {
/// let mut groups = DeadLetterGroups::default();
/// letters.iter().for_each(|letter| groups.add(letter));
/// for group in groups.largest_first() {
///     println!("{} {}", group.count, group.reason);
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterGroups {
    groups: BTreeMap<(DeadReason, Option<ShortText>), DeadLetterGroup>,
    ungrouped: u64,
}

impl DeadLetterGroups {
    /// How many groups there can be: types are the senders' own, and each message may have another.
    pub const MOST: usize = 1_000;

    /// Counts one letter.
    pub fn add(&mut self, letter: &DeadLetterSummary) {
        let of = (letter.reason, letter.message_type.clone());
        if self.groups.len() == Self::MOST && !self.groups.contains_key(&of) {
            self.ungrouped += 1;
            return;
        }
        let (reason, message_type) = of.clone();
        let group = self.groups.entry(of).or_insert_with(|| DeadLetterGroup {
            reason,
            message_type,
            count: 0,
            oldest_failure: None,
            latest_failure: None,
            example: letter.id.clone(),
            error: letter.error.clone(),
        });
        group.count += 1;
        group.oldest_failure = [group.oldest_failure, letter.first_failed_at.or(letter.at)].into_iter().flatten().min();
        group.latest_failure = group.latest_failure.max(letter.at);
    }

    /// How many letters are in none of the groups, because there are [`DeadLetterGroups::MOST`] without theirs.
    #[must_use]
    pub fn ungrouped(&self) -> u64 {
        self.ungrouped
    }

    /// The groups, the one with the most letters first.
    #[must_use]
    pub fn largest_first(self) -> Vec<DeadLetterGroup> {
        let mut groups: Vec<_> = self.groups.into_values().collect();
        groups.sort_by_key(|group| Reverse(group.count));
        groups
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::summary::tests::summary, *};

    fn grouped(letters: impl IntoIterator<Item = DeadLetterSummary>) -> DeadLetterGroups {
        let mut groups = DeadLetterGroups::default();
        letters.into_iter().for_each(|letter| groups.add(&letter));
        groups
    }

    fn at(second: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second))
    }

    #[test]
    fn letters_with_one_reason_and_one_type_are_a_group_and_the_largest_comes_first() {
        let of_no_type = DeadLetterSummary { message_type: None, ..summary("c", 1) };
        let gap = DeadLetterSummary { reason: DeadReason::Gap, ..summary("d", 1) };
        let groups = grouped([of_no_type, gap.clone(), summary("a", 1), gap, summary("b", 1), summary("a", 1)]);
        let told: Vec<_> = groups.largest_first().into_iter().map(|g| (g.count, g.reason, g.message_type)).collect();
        let order = ShortText::new("order.placed").ok();
        assert_eq!(
            told,
            [(3, DeadReason::Failed, order.clone()), (2, DeadReason::Gap, order), (1, DeadReason::Failed, None)]
        );
    }

    #[test]
    fn a_group_tells_its_first_failure_its_last_and_one_of_its_letters() {
        let early = DeadLetterSummary { first_failed_at: at(3), ..summary("early", 20) };
        let timeless = DeadLetterSummary { at: None, first_failed_at: None, ..summary("timeless", 0) };
        let group = grouped([summary("first", 10), early, timeless, summary("last", 30)]).largest_first().remove(0);
        assert_eq!((group.count, group.oldest_failure, group.latest_failure), (4, at(3), at(30)));
        assert_eq!((group.example, group.error.as_str()), (MessageId::new("first").ok(), "no stock"));
    }

    #[test]
    fn there_is_a_bound_on_groups_and_what_is_in_none_is_counted() {
        let of_type =
            |n: usize| DeadLetterSummary { message_type: ShortText::new(n.to_string()).ok(), ..summary("a", 1) };
        let groups = grouped((0..DeadLetterGroups::MOST + 2).chain([0]).map(of_type));
        assert_eq!(groups.ungrouped(), 2);
        let groups = groups.largest_first();
        assert_eq!((groups.len(), groups[0].count), (DeadLetterGroups::MOST, 2));
    }
}
