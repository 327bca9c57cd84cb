//! Handling pauses while everything fails, and goes on when something succeeds.

use std::time::{Duration, Instant};

/// Tells one message that fails from a time at which all of them do.
///
/// Closed, it only counts: failures in a row, with no success between them. At [`opens_at`](BreakerLimits::opens_at) it opens: nothing
/// is begun for a pause, then one message at a time as a probe. A probe that fails doubles the pause, one that succeeds closes the
/// breaker. What ends neither way (a dead letter that its handler asked for, a duplicate) says nothing.
///
/// While all fail, no message is to blame. So what fails while the breaker is open is [spared](Self::spares): it is tried
/// again, however often it was before. That ends at [`spares_for`](BreakerLimits::spares_for), or a queue of nothing but bad
/// messages would never come to its end.
#[derive(Debug)]
pub struct Breaker {
    limits: BreakerLimits,
    state: State,
}

/// When a breaker does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// So many failures in a row open it, at least 1.
    pub opens_at: u32,
    /// The pause before the first probe, more than nothing.
    pub first_pause: Duration,
    /// The longest pause before a probe, not less than the first.
    pub longest_pause: Duration,
    /// Open for so long, it asks for what is held to be given back.
    pub withdraws_after: Duration,
    /// Open for so long, it spares nothing any more.
    pub spares_for: Duration,
}

impl Default for BreakerLimits {
    /// Opens at 20 failures, probes after 1 s, 2 s, … at most 30 s, withdraws after a minute, spares for 20
    /// minutes: what is held in place is then settled before the broker's 30 minutes for an acknowledgement are over.
    fn default() -> Self {
        Self {
            opens_at: 20,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            withdraws_after: Duration::from_secs(60),
            spares_for: Duration::from_secs(20 * 60),
        }
    }
}

/// How much may be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As much as there is room for.
    Full,
    /// One message, while nothing else is at work.
    Probe,
    /// Nothing.
    Paused,
}

/// What a failure has brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a breaker that withdraws holds messages back"]
pub enum Tripped {
    /// Nothing new.
    No,
    /// The breaker has opened: nothing is begun for this long.
    Opened {
        /// The pause before the first probe.
        pause: Duration,
    },
    /// A probe has failed: nothing is begun for this long.
    Again {
        /// The pause before the next probe.
        pause: Duration,
    },
    /// The same, and it has lasted: what is held is to be given back, and one message at a time taken.
    Withdrawn {
        /// The pause before the next probe.
        pause: Duration,
    },
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { since: Instant, pause: Duration, probe_at: Option<Instant>, is_withdrawn: bool },
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(limits: BreakerLimits) -> Self {
        Self { limits, state: State::Closed { failures: 0 } }
    }

    /// A message was handled; whether that closes the breaker.
    pub fn on_success(&mut self) -> bool {
        let was_open = self.is_open();
        self.state = State::Closed { failures: 0 };
        was_open
    }

    /// An attempt has failed.
    pub fn on_failure(&mut self, now: Instant) -> Tripped {
        let BreakerLimits { opens_at, first_pause, longest_pause, withdraws_after, .. } = self.limits;
        match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if *failures < opens_at {
                    return Tripped::No;
                }
                let probe_at = Some(now + first_pause);
                self.state = State::Open { since: now, pause: first_pause, probe_at, is_withdrawn: false };
                Tripped::Opened { pause: first_pause }
            }
            // It was begun before the breaker opened.
            State::Open { probe_at: Some(_), .. } => Tripped::No,
            State::Open { since, pause, probe_at, is_withdrawn } => {
                *pause = pause.saturating_mul(2).min(longest_pause);
                *probe_at = Some(now + *pause);
                let pause = *pause;
                if !*is_withdrawn && now.saturating_duration_since(*since) >= withdraws_after {
                    *is_withdrawn = true;
                    return Tripped::Withdrawn { pause };
                }
                Tripped::Again { pause }
            }
        }
    }

    /// A pause may be over.
    pub fn on_deadline(&mut self, now: Instant) {
        if let State::Open { probe_at, .. } = &mut self.state
            && probe_at.is_some_and(|at| at <= now)
        {
            *probe_at = None;
        }
    }

    /// When a pause is over.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Closed { .. } => None,
            State::Open { probe_at, .. } => *probe_at,
        }
    }

    /// How much may be begun now.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match &self.state {
            State::Closed { .. } => Pace::Full,
            State::Open { probe_at: None, .. } => Pace::Probe,
            State::Open { probe_at: Some(_), .. } => Pace::Paused,
        }
    }

    /// Whether it is open: everything fails.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether it has been open for so long that no more than a probe is to be held.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        matches!(self.state, State::Open { is_withdrawn: true, .. })
    }

    /// Whether what fails now is tried again, however often it was before.
    #[must_use]
    pub fn spares(&self, now: Instant) -> bool {
        match &self.state {
            State::Closed { .. } => false,
            State::Open { since, .. } => now.saturating_duration_since(*since) < self.limits.spares_for,
        }
    }
}
