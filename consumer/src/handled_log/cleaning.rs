//! How a durable log forgets: the oldest first, little at a time.

use std::time::Duration;

/// How many rows one step removes at most: some milliseconds of work, during which others wait.
pub(super) const STEP: i64 = 1_000;

/// How long to wait before the next step.
pub(super) fn pause(removed: u64, retention: Duration) -> Duration {
    if removed >= STEP.unsigned_abs() { BETWEEN_STEPS } else { (retention / 100).clamp(SHORTEST, LONGEST) }
}

/// Faster than messages are handled, so that what piled up gets less.
const BETWEEN_STEPS: Duration = Duration::from_millis(20);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_comes_soon_when_there_may_be_more_and_in_time_otherwise() {
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        assert_eq!(pause(1_000, week), Duration::from_millis(20));
        assert_eq!(pause(999, week), Duration::from_secs(600));
        assert_eq!(pause(0, Duration::from_secs(600)), Duration::from_secs(6));
        assert_eq!(pause(0, Duration::from_millis(10)), Duration::from_secs(1));
    }
}
