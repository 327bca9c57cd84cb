//! A breaker opens when everything fails, probes ever more rarely, and closes with the first success.

mod support;

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use correio_guarantees::{Breaker, BreakerLimits, Pace, RetrySchedule, Retrying, Settlement, Tripped, spare};
use proptest::prelude::*;
use support::{at, cases};

const SECOND: Duration = Duration::from_secs(1);

fn opened(now: Instant) -> Breaker {
    let mut breaker = Breaker::new(BreakerLimits::default());
    while breaker.on_failure(now) == Tripped::No {}
    breaker
}

/// Fails the probe that is due next; when that was.
fn fail_probe(breaker: &mut Breaker) -> (Instant, Tripped) {
    let due = breaker.next_deadline().expect("a pause");
    breaker.on_deadline(due);
    assert_eq!(breaker.pace(), Pace::Probe);
    (due, breaker.on_failure(due))
}

#[test]
fn pauses_double_up_to_the_longest_and_it_withdraws_once_after_a_minute() {
    let begun = at(0);
    let mut breaker = opened(begun);
    let mut ends = Vec::new();
    for _ in 0..9 {
        let (due, tripped) = fail_probe(&mut breaker);
        ends.push((due - begun, tripped));
    }
    let again = |pause| Tripped::Again { pause: SECOND * pause };
    let expected = [
        (1, again(2)),
        (3, again(4)),
        (7, again(8)),
        (15, again(16)),
        (31, again(30)),
        (61, Tripped::Withdrawn { pause: SECOND * 30 }),
        (91, again(30)),
        (121, again(30)),
        (151, again(30)),
    ];
    assert_eq!(ends, expected.map(|(seconds, tripped)| (SECOND * seconds, tripped)));
    assert!(breaker.is_withdrawn());
    assert!(breaker.on_success() && !breaker.is_withdrawn() && breaker.pace() == Pace::Full);
}

#[test]
fn what_was_begun_before_it_opened_lengthens_no_pause_and_its_success_closes_it() {
    let begun = at(0);
    let mut breaker = opened(begun);
    for _ in 0..100 {
        assert_eq!(breaker.on_failure(begun + SECOND / 2), Tripped::No);
    }
    assert_eq!(breaker.next_deadline(), Some(begun + SECOND));
    assert!(breaker.on_success());
    assert_eq!((breaker.pace(), breaker.next_deadline()), (Pace::Full, None));
}

#[test]
fn a_spared_message_waits_as_its_schedule_says_and_its_last_attempt_is_not_its_end() {
    let schedule = RetrySchedule::new(SECOND, SECOND * 4, 3).unwrap();
    let number = |n| NonZeroU32::new(n).unwrap();
    let of = |attempt, retrying| spare(number(attempt), &schedule, retrying, SECOND * 9);
    let later = |attempt, delay| Settlement::RetryLater { delay: SECOND * delay, attempt: number(attempt) };
    assert_eq!(of(1, Retrying::ThroughDelayQueues), later(2, 1));
    assert_eq!(of(3, Retrying::ThroughDelayQueues), later(4, 4));
    assert_eq!(of(4, Retrying::ThroughDelayQueues), later(5, 4));
    let here = |attempt, delay| Settlement::RetryInPlace { delay: SECOND * delay, attempt: number(attempt) };
    assert_eq!(of(4, Retrying::InPlace), here(5, 4));
    let none = RetrySchedule::none();
    assert_eq!(spare(number(1), &none, Retrying::ThroughDelayQueues, SECOND * 9), here(2, 9));
}

proptest! {
    #![proptest_config(cases())]

    /// Attempts end in any order, a probe at a time while it is open.
    #[test]
    fn it_is_open_from_the_twentieth_failure_in_a_row_to_the_next_success_and_begins_little_meanwhile(
        ends in prop::collection::vec((prop::bool::weighted(0.08), 0_u64..40_000), 1..600)
    ) {
        let mut now = at(0);
        let mut breaker = Breaker::new(BreakerLimits::default());
        let (mut in_a_row, mut open_since, mut probes) = (0, None, 0_u32);
        for (is_good, wait) in ends {
            now += Duration::from_millis(wait);
            breaker.on_deadline(now);
            let pace = breaker.pace();
            prop_assert_eq!(pace == Pace::Full, in_a_row < 20);
            prop_assert_eq!(breaker.next_deadline().is_some(), pace == Pace::Paused);
            if pace == Pace::Paused {
                prop_assert!(breaker.next_deadline() > Some(now), "a deadline that is over wakes for ever");
                continue;
            }
            probes += u32::from(pace == Pace::Probe);
            if is_good {
                prop_assert_eq!(breaker.on_success(), in_a_row >= 20);
                (in_a_row, open_since, probes) = (0, None, 0);
                continue;
            }
            let _ = breaker.on_failure(now);
            in_a_row += 1;
            if in_a_row == 20 {
                open_since = Some(now);
            }
            if let Some(since) = open_since {
                let open_for: Duration = now - since;
                prop_assert!(u64::from(probes) <= 5 + open_for.as_secs() / 30, "{} probes in {:?}", probes, open_for);
                prop_assert_eq!(breaker.spares(now), open_for < Duration::from_secs(1_200));
            }
        }
    }
}
