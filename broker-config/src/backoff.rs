//! How long to wait before connecting again: growing, jittered, without an end.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Delays between attempts: 100 ms at first, doubling, each with up to as much again of jitter, at most 5 s,
/// so that a broker that comes back is not met by everybody at once. It never ends: who waits sets the deadline.
#[derive(Debug)]
pub struct Backoff {
    schedule: ExponentialBuilder,
    running: ExponentialBackoff,
}

impl Backoff {
    /// A schedule at its start.
    #[must_use]
    pub fn new() -> Self {
        let schedule = ExponentialBuilder::default()
            .with_min_delay(FIRST)
            .with_max_delay(CEILING)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        Self { schedule, running: schedule.build() }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        // The schedule has no end; if it had one, the ceiling would be the answer.
        self.running.next().unwrap_or(CEILING)
    }

    /// Starts again from the shortest delay. Call it after something worked.
    pub fn on_success(&mut self) {
        self.running = self.schedule.build();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.next_delay())
    }
}

const FIRST: Duration = Duration::from_millis(100);
/// Jitter may double a delay, so this is half of the most that a delay can be.
const CEILING: Duration = Duration::from_millis(2_500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_ceiling_with_jitter_and_never_end() {
        let mut backoff = Backoff::new();
        let delays: Vec<_> = backoff.by_ref().take(1_000).collect();
        assert!(delays[0] >= FIRST && delays[0] <= FIRST * 2, "{:?}", delays[0]);
        assert!(delays[10..].iter().all(|d| *d >= CEILING && *d <= CEILING * 2));
        assert!(delays[10..].windows(2).any(|pair| pair[0] != pair[1]), "no jitter");
        backoff.on_success();
        assert!(backoff.next_delay() <= FIRST * 2);
    }
}
