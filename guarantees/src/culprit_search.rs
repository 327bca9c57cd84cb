//! A channel that the broker closed for the fault of one message took the innocent with it: the one at fault is found by halving.

/// Finds the messages that close their channels.
///
/// What was on a channel that the broker closed is sent again in groups, each half as large as the number of suspects, and
/// the next group begins when all of the last one is answered. A group that closes its channel too is halved again; one
/// that does not leaves the rest under suspicion. When the culprit is found, groups begin with one message and double. So
/// one message at fault among `n` costs at most about log₂ `n` more channels, and where all are at fault, each costs one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CulpritSearch {
    /// How many of a group may be out; without a search there is no limit.
    group: Option<usize>,
    /// So many of the next ones have the culprit among them.
    suspects: usize,
    /// How many of the group are out.
    begun: usize,
}

/// What is known after a channel was closed for one message's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a culprit that is sent again closes the next channel too"]
pub enum Suspicion {
    /// There was one suspect: it is that one.
    Found,
    /// One of several: they are to be sent again.
    Among(usize),
}

impl CulpritSearch {
    /// No search is under way.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The broker closed the channel for the fault of one of its messages. `suspects` of those that were published on it have
    /// no certain end.
    pub fn on_fault(&mut self, suspects: usize) -> Suspicion {
        self.begun = 0;
        self.group = Some((suspects / 2).max(1));
        // Of those behind the one that is found nothing is known.
        self.suspects = if suspects == 1 { 0 } else { suspects };
        if suspects == 1 { Suspicion::Found } else { Suspicion::Among(suspects) }
    }

    /// The channel went for another reason: the group begins again.
    pub fn on_channel_lost(&mut self) {
        self.begun = 0;
    }

    /// Nothing that was published is without an answer: the group was innocent.
    pub fn on_all_answered(&mut self) {
        let Some(group) = self.group.filter(|_| self.begun > 0) else { return };
        self.suspects = self.suspects.saturating_sub(self.begun);
        self.begun = 0;
        self.group = match self.suspects {
            0 => Some(group.saturating_mul(2)).filter(|group| *group <= LARGEST_GROUP),
            suspects => Some((suspects / 2).max(1)),
        };
    }

    /// Whether one more may be published before the group is answered.
    #[must_use]
    pub fn may_publish(&self) -> bool {
        self.group.is_none_or(|group| self.begun < group)
    }

    /// One is published.
    pub fn on_publishing(&mut self) {
        if self.group.is_some() {
            self.begun += 1;
        }
    }
}

/// A search that has come this far without meeting another culprit is over.
const LARGEST_GROUP: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `messages` where those at `bad` close their channel, and says which were found and how many channels it took.
    fn search(messages: usize, bad: &[usize]) -> (Vec<usize>, usize) {
        let mut search = CulpritSearch::new();
        let mut waiting: Vec<usize> = (0..messages).collect();
        let (mut found, mut channels) = (Vec::new(), 1);
        while !waiting.is_empty() {
            let mut out = 0;
            while out < waiting.len() && search.may_publish() {
                search.on_publishing();
                out += 1;
            }
            assert!(out > 0, "it stands still");
            // The worst broker: nothing before the culprit is answered.
            if waiting[..out].iter().any(|message| bad.contains(message)) {
                channels += 1;
                assert!(channels < 100 * messages, "it never ends");
                if search.on_fault(out) == Suspicion::Found {
                    found.push(waiting.remove(0));
                }
            } else {
                waiting.drain(..out);
                search.on_all_answered();
            }
        }
        (found, channels)
    }

    #[test]
    fn one_culprit_among_a_thousand_is_found_with_a_channel_for_each_halving_wherever_it_stands() {
        for culprit in [0, 1, 499, 500, 501, 998, 999] {
            let (found, channels) = search(1_000, &[culprit]);
            assert_eq!(found, [culprit]);
            assert!(channels <= 2 + 10, "{culprit}: {channels}");
        }
    }

    #[test]
    fn where_all_are_at_fault_each_costs_one_channel() {
        let all: Vec<usize> = (0..1_000).collect();
        let (found, channels) = search(1_000, &all);
        assert_eq!(found, all);
        assert!(channels <= 1_000 + 12, "{channels}");
    }

    #[test]
    fn several_culprits_are_found_and_nobody_else() {
        let bad = [3, 4, 250, 251, 252, 700];
        assert_eq!(search(1_000, &bad).0, bad);
        assert_eq!(search(1, &[0]), (vec![0], 2));
    }

    #[test]
    fn a_cut_in_the_middle_of_a_group_accuses_nobody() {
        let mut search = CulpritSearch::new();
        assert_eq!(search.on_fault(2), Suspicion::Among(2));
        search.on_publishing();
        assert!(!search.may_publish());
        search.on_channel_lost();
        assert!(search.may_publish());
    }
}
