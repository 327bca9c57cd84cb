//! A bound on how fast letters are replayed.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// So many a second, evenly, and no burst at the start.
///
/// Who comes late may catch up on a tenth of a second: in any span of time there are at most as many as belong to that span and that
/// tenth, and one.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    every: Duration,
    /// When the next one is due.
    due: Option<Instant>,
}

impl Pace {
    pub(super) fn per_second(rate: NonZeroU32) -> Self {
        // Rounded up: never faster than asked.
        Self { every: Duration::from_nanos(1_000_000_000_u64.div_ceil(rate.get().into())), due: None }
    }

    /// When the next one may begin, if not now.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.due.filter(|due| *due > now)
    }

    /// One has begun.
    pub(super) fn on_begun(&mut self, now: Instant) {
        let earliest = now.checked_sub(CATCHING_UP).unwrap_or(now);
        self.due = Some(self.due.map_or(now, |due| due.max(earliest)) + self.every);
    }
}

const CATCHING_UP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: u32) -> Pace {
        Pace::per_second(NonZeroU32::new(rate).unwrap())
    }

    /// When each begins, for one who looks again `late` after each is due.
    fn begins(rate: u32, count: usize, late: impl Fn(usize) -> Duration) -> Vec<Duration> {
        let mut pace = pace(rate);
        let start = Instant::now();
        let mut now = start;
        (0..count)
            .map(|n| {
                if let Some(due) = pace.next_deadline(now) {
                    now = due + late(n);
                }
                pace.on_begun(now);
                now - start
            })
            .collect()
    }

    #[test]
    fn they_begin_evenly_and_the_first_at_once() {
        let millis: Vec<_> = begins(4, 4, |_| Duration::ZERO).iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [0, 250, 500, 750]);
    }

    #[test]
    fn no_span_of_time_has_more_than_its_share_and_that_of_a_tenth_of_a_second() {
        for rate in [1, 7, 100, 3_000] {
            for late in [0, 1, 30, 99, 2_000] {
                let begun = begins(rate, 500, |n| Duration::from_millis(if n % 50 == 0 { late } else { 0 }));
                for (first, from) in begun.iter().enumerate() {
                    for (last, to) in begun.iter().enumerate().skip(first) {
                        let share = f64::from(rate) * ((*to - *from).as_secs_f64() + 0.1) + 1.0;
                        assert!((last - first + 1) as f64 <= share + 1e-6, "{rate}/s, {from:?} to {to:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn who_looks_only_every_millisecond_still_keeps_the_rate() {
        let begun = begins(3_000, 3_000, |_| Duration::from_millis(1));
        assert!(begun.last().unwrap() < &Duration::from_millis(1_100), "{:?}", begun.last());
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut pace = pace(10);
        let start = Instant::now();
        pace.on_begun(start);
        let later = start + Duration::from_secs(60);
        pace.on_begun(later);
        assert_eq!(pace.next_deadline(later), None, "one that was due within the last tenth of a second");
        pace.on_begun(later);
        assert_eq!(pace.next_deadline(later), Some(later + Duration::from_millis(100)));
    }
}
