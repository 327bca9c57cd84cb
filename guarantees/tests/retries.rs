//! What goes wrong with retries: at once, for ever, too early, or never again.

mod support;

use std::{num::NonZeroU32, time::Duration};

use correio_guarantees::{Failure, InvalidSchedule, RetrySchedule, Retrying, Settlement, Verdict, decide, jittered};
use correio_message::DeadReason;
use proptest::prelude::*;
use support::{cases, ticks};

fn nth(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn failed() -> Result<Verdict, Failure> {
    Err(Failure::Handler { error: "no stock".into() })
}

#[test]
fn the_default_retries_after_1_2_4_8_and_16_seconds_and_then_stops() {
    let schedule = RetrySchedule::default();
    let delays: Vec<_> = (1..=6).map(|retry| schedule.delay_before(nth(retry))).collect();
    assert_eq!(delays, [Some(1), Some(2), Some(4), Some(8), Some(16), None].map(|delay| delay.map(seconds)));
    assert_eq!(schedule.longest_total(), seconds(31).mul_f64(1.2));
}

#[test]
fn there_is_one_delay_queue_for_each_distinct_delay() {
    let schedule = RetrySchedule::new(seconds(1), seconds(3), 100).unwrap();
    assert_eq!(schedule.delays(), [1, 2, 3].map(seconds));
    assert_eq!(RetrySchedule::none().delays(), []);
    assert_eq!(schedule.with_retries(u32::MAX).delays().len(), 3);
}

#[test]
fn a_schedule_that_no_delay_queue_can_keep_is_refused_with_the_numbers() {
    let new = |first, ceiling| RetrySchedule::new(first, ceiling, 1).unwrap_err();
    assert_eq!(new(Duration::ZERO, seconds(1)), InvalidSchedule::TooShort { first: Duration::ZERO });
    let below = InvalidSchedule::CeilingBelowFirst { first: seconds(2), ceiling: seconds(1) };
    assert_eq!(new(seconds(2), seconds(1)), below);
    assert!(matches!(new(seconds(1), Duration::MAX), InvalidSchedule::TooLong { .. }));
    let odd = Duration::from_micros(1_500);
    assert_eq!(new(odd, seconds(1)), InvalidSchedule::NotWholeMilliseconds { delay: odd });
}

#[test]
fn a_handler_that_keeps_failing_is_dead_lettered_with_its_last_error() {
    let schedule = RetrySchedule::default().with_retries(1);
    let first = decide(failed(), nth(1), &schedule, Retrying::ThroughDelayQueues);
    assert_eq!(first, Settlement::RetryLater { delay: seconds(1), attempt: nth(2) });
    let second = decide(failed(), nth(2), &schedule, Retrying::ThroughDelayQueues);
    assert_eq!(second, Settlement::DeadLetter { reason: DeadReason::Failed, error: "no stock".into() });
}

#[test]
fn what_cannot_be_read_and_what_nobody_handles_is_never_retried() {
    let failures = [
        (Failure::Unreadable { error: "not JSON".into() }, DeadReason::Unreadable),
        (Failure::UnknownType { name: "order".into() }, DeadReason::UnknownType),
    ];
    for (failure, reason) in failures {
        let error = failure.to_string();
        let settlement = decide(Err(failure), nth(1), &RetrySchedule::default(), Retrying::InPlace);
        assert_eq!(settlement, Settlement::DeadLetter { reason, error });
    }
}

#[test]
fn a_panic_and_a_timeout_are_failures_and_keep_their_names() {
    let failures = [
        (Failure::Panicked { message: "oh".into() }, DeadReason::Panicked),
        (Failure::TimedOut { after: seconds(3) }, DeadReason::TimedOut),
    ];
    for (failure, expected) in failures {
        let settlement = decide(Err(failure.clone()), nth(1), &RetrySchedule::default(), Retrying::InPlace);
        assert_eq!(settlement, Settlement::RetryInPlace { delay: seconds(1), attempt: nth(2) });
        let last = decide(Err(failure), nth(1), &RetrySchedule::none(), Retrying::InPlace);
        assert!(matches!(last, Settlement::DeadLetter { reason, .. } if reason == expected));
    }
}

#[test]
fn retry_after_takes_the_shortest_delay_that_is_not_below_it_or_the_longest() {
    let after = |wanted| {
        let verdict = Ok(Verdict::RetryAfter(wanted));
        decide(verdict, nth(1), &RetrySchedule::default(), Retrying::ThroughDelayQueues)
    };
    for (wanted, delay) in [(0, 1), (3, 4), (4, 4), (99, 16)] {
        assert_eq!(after(seconds(wanted)), Settlement::RetryLater { delay: seconds(delay), attempt: nth(2) });
    }
}

#[test]
fn a_verdict_is_followed() {
    let verdict = |verdict| decide(Ok(verdict), nth(1), &RetrySchedule::default(), Retrying::InPlace);
    assert_eq!(verdict(().into()), Settlement::Acknowledge);
    assert_eq!(verdict(Verdict::Drop { reason: "old".into() }), Settlement::Drop { reason: "old".into() });
    let asked = Settlement::DeadLetter { reason: DeadReason::Asked, error: "fraud".into() };
    assert_eq!(verdict(Verdict::DeadLetter { reason: "fraud".into() }), asked);
}

fn schedule() -> impl Strategy<Value = RetrySchedule> {
    (1u64..5_000, 0u64..5_000_000, 0u32..50)
        .prop_map(|(first, more, retries)| RetrySchedule::new(ticks(first), ticks(first + more), retries).unwrap())
}

fn result() -> impl Strategy<Value = Result<Verdict, Failure>> {
    prop_oneof![
        Just(Ok(Verdict::Retry)),
        (0u64..20_000_000).prop_map(|wanted| Ok(Verdict::RetryAfter(ticks(wanted)))),
        Just(failed()),
        Just(Err(Failure::Panicked { message: "oh".into() })),
        Just(Err(Failure::TimedOut { after: ticks(1) })),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn delays_double_from_the_first_to_the_ceiling_and_end_after_the_last_retry(schedule in schedule()) {
        let all: Vec<_> = (1..=schedule.retries()).filter_map(|retry| schedule.delay_before(nth(retry))).collect();
        prop_assert_eq!(all.len(), schedule.retries() as usize);
        prop_assert_eq!(schedule.delay_before(nth(schedule.retries() + 1)), None);
        for pair in all.windows(2) {
            let last = all.last().copied().unwrap_or_default();
            prop_assert!(pair[1] == pair[0] * 2 || (pair[1] == last && pair[1] < pair[0] * 2), "{:?}", all);
        }
        let mut distinct = all.clone();
        distinct.dedup();
        prop_assert_eq!(schedule.delays(), distinct);
        let longest: Duration = all.iter().map(|delay| jittered(*delay, 1.0)).sum();
        prop_assert!(schedule.longest_total() >= longest);
    }

    #[test]
    fn jitter_is_never_early_and_late_by_a_fifth_at_most(delay in 0u64..u64::MAX / 2_000_000, unit in any::<f64>()) {
        let delay = Duration::from_micros(delay);
        let spread = jittered(delay, unit);
        prop_assert!(spread >= delay && spread <= delay + delay / 5);
    }

    #[test]
    fn every_failure_is_retried_on_a_queue_that_exists_until_the_schedule_ends(
        results in proptest::collection::vec(result(), 60),
        schedule in schedule(),
        in_place in any::<bool>(),
    ) {
        let retrying = if in_place { Retrying::InPlace } else { Retrying::ThroughDelayQueues };
        let mut attempt = nth(1);
        for result in results {
            let ended = attempt;
            let (delay, next) = match decide(result, attempt, &schedule, retrying) {
                Settlement::RetryLater { delay, attempt } if !in_place => (delay, attempt),
                Settlement::RetryInPlace { delay, attempt } if in_place => (delay, attempt),
                Settlement::DeadLetter { error, .. } => {
                    prop_assert_eq!(attempt.get(), schedule.retries() + 1);
                    prop_assert!(!error.is_empty());
                    return Ok(());
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(schedule.delays().contains(&delay));
            prop_assert_eq!(next.get(), ended.get() + 1);
            attempt = next;
        }
        prop_assert!(false, "it never ends");
    }
}
