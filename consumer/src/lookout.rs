//! Whether a subscription still stands, although nothing comes.
//!
//! A broker tells a consumer that its queue is gone, and sometimes forgets to: RabbitMQ 3.10 subscribes the consumers of a quorum
//! queue that is deleted and made again at once by itself, and then drops what comes for them. Nothing comes any more, on a channel
//! without fault. So a consumer to which nothing comes looks at its queue from time to time. A pure machine: told what came and
//! what was seen, it says when to look, and when to subscribe again.
//!
//! What a passive declare shows (measured on 3.10.8 and 4.3.6): consumers count also when their prefetch is exhausted; those that
//! stand by for a single active one count or not, by version and kind of queue, but there is never none while one is subscribed. What
//! 3.10 drops is held as unacknowledged, up to the prefetch; only what comes after that is seen to wait.

use std::time::{Duration, Instant};

/// What a look at the queue showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is there.
    There {
        /// Its consumers, whosever they are.
        consumers: u32,
        /// Messages that could be delivered.
        ready: u32,
    },
    /// It is not there.
    Gone,
    /// This login may not look.
    Forbidden,
    /// Nobody knows: no answer in time.
    Unanswered,
}

/// Judges a subscription by what comes and by looks at its queue.
#[derive(Debug)]
pub(crate) struct Lookout {
    every: Duration,
    look_at: Option<Instant>,
    /// Looks in succession in which nobody was subscribed.
    deserted: u32,
    /// Looks in succession in which messages were ready and none came.
    passed_over: u32,
    /// How many such looks it takes. Doubles each time that a new subscription brought nothing.
    patience: u32,
}

impl Lookout {
    /// A first look is taken when nothing has come for `every`.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, look_at: None, deserted: 0, passed_over: 0, patience: IN_SUCCESSION }
    }

    pub(crate) fn on_subscribed(&mut self, now: Instant) {
        (self.deserted, self.passed_over) = (0, 0);
        self.look_at = Some(now + self.every);
    }

    pub(crate) fn on_delivery(&mut self, now: Instant) {
        self.patience = IN_SUCCESSION;
        self.on_subscribed(now);
    }

    /// When to look next; `None` when there is no use in it.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// This was seen, while the consumer had nothing in its hands, or something. Says why to subscribe again, if it is time to.
    ///
    /// One look at a queue is not enough: a quorum queue without a leader says that it has no consumer, and a message that is ready
    /// may be on its way.
    pub(crate) fn on_look(&mut self, look: Look, is_empty_handed: bool, now: Instant) -> Option<&'static str> {
        self.look_at = Some(now + self.every);
        match look {
            Look::There { consumers: 1.., ready } => {
                self.deserted = 0;
                // Who has empty hands gets what is ready, unless it stands by for another: then to subscribe again does no harm.
                let is_passed_over = ready > 0 && is_empty_handed;
                self.passed_over = if is_passed_over { self.passed_over + 1 } else { 0 };
            }
            Look::There { consumers: 0, .. } => self.deserted += 1,
            Look::Gone => return Some("the queue is gone, and the broker did not say so"),
            Look::Forbidden => self.look_at = None,
            Look::Unanswered => {}
        }
        if self.deserted >= IN_SUCCESSION {
            return Some("the broker has forgotten the subscription: was the queue deleted and made again?");
        }
        if self.passed_over >= self.patience {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
            return Some("messages are ready, and none comes: was the queue deleted and made again?");
        }
        if self.deserted > 0 {
            self.look_at = Some(now + self.every.min(AGAIN));
        }
        None
    }
}

/// How many looks in succession have to show the same.
const IN_SUCCESSION: u32 = 2;
/// At 15 s each, some quarter of an hour.
const MOST_PATIENCE: u32 = 64;
/// How soon it looks again when it is in doubt.
const AGAIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(15);

    /// A subscription and its clock.
    struct Quiet {
        lookout: Lookout,
        now: Instant,
    }

    impl Quiet {
        fn new() -> Self {
            let now = Instant::now();
            let mut lookout = Lookout::new(EVERY);
            lookout.on_subscribed(now);
            Self { lookout, now }
        }

        /// Waits for the next look, and says how long that was and what followed.
        fn look(&mut self, look: Look, is_empty_handed: bool) -> (u64, bool) {
            let at = self.lookout.next_look().expect("a next look");
            let waited = (at - self.now).as_secs();
            self.now = at;
            (waited, self.lookout.on_look(look, is_empty_handed, at).is_some())
        }
    }

    fn there(consumers: u32, ready: u32) -> Look {
        Look::There { consumers, ready }
    }

    #[test]
    fn what_comes_puts_the_look_off() {
        let mut quiet = Quiet::new();
        for _ in 0..3 {
            quiet.now += EVERY - Duration::from_secs(1);
            quiet.lookout.on_delivery(quiet.now);
            assert_eq!(quiet.lookout.next_look(), Some(quiet.now + EVERY));
        }
    }

    #[test]
    fn a_quiet_queue_with_its_consumer_is_looked_at_again_and_again_and_left_alone() {
        let mut quiet = Quiet::new();
        for _ in 0..1_000 {
            assert_eq!(quiet.look(there(1, 0), true), (15, false));
        }
    }

    #[test]
    fn a_queue_without_a_consumer_is_believed_at_the_second_look_which_comes_soon() {
        for seen in [there(0, 0), there(0, 7)] {
            for is_empty_handed in [true, false] {
                let mut quiet = Quiet::new();
                assert_eq!(quiet.look(seen, is_empty_handed), (15, false));
                assert_eq!(quiet.look(seen, is_empty_handed), (3, true), "{seen:?}");
            }
        }
    }

    #[test]
    fn a_queue_that_is_gone_is_believed_at_once() {
        assert_eq!(Quiet::new().look(Look::Gone, false), (15, true));
    }

    #[test]
    fn a_moment_without_a_leader_ends_nothing() {
        let mut quiet = Quiet::new();
        for _ in 0..100 {
            assert!(!quiet.look(there(0, 0), true).1);
            assert!(!quiet.look(there(1, 0), true).1);
        }
    }

    #[test]
    fn no_answer_is_no_reason_and_who_may_not_look_looks_no_more() {
        let mut quiet = Quiet::new();
        for _ in 0..100 {
            assert_eq!(quiet.look(Look::Unanswered, true), (15, false));
        }
        assert!(!quiet.look(Look::Forbidden, true).1);
        assert_eq!(quiet.lookout.next_look(), None);
        quiet.lookout.on_subscribed(quiet.now);
        assert!(quiet.lookout.next_look().is_some(), "on the next channel it may");
    }

    #[test]
    fn who_is_passed_over_or_stands_by_subscribes_again_and_less_and_less_often_in_vain() {
        let mut quiet = Quiet::new();
        let mut renewals = Vec::new();
        for look in 1..=600_u32 {
            if quiet.look(there(1, 5), true).1 {
                renewals.push(look);
                quiet.lookout.on_subscribed(quiet.now);
            }
        }
        let gaps: Vec<u32> = std::iter::once(0).chain(renewals.clone()).zip(renewals).map(|(a, b)| b - a).collect();
        assert_eq!(gaps, [2, 4, 8, 16, 32, 64, 64, 64, 64, 64, 64, 64, 64]);
        quiet.lookout.on_delivery(quiet.now);
        assert!(!quiet.look(there(1, 5), true).1);
        assert!(quiet.look(there(1, 5), true).1, "what comes ends the caution");
    }

    #[test]
    fn who_has_its_hands_full_is_not_passed_over() {
        let mut quiet = Quiet::new();
        for _ in 0..100 {
            assert_eq!(quiet.look(there(2, 5), false), (15, false));
        }
    }
}
