//! What handlers need is away for longer than the retries take: handling pauses, and nothing is parked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use correio_consumer::{BreakerLimits, Message, Processing, RetrySchedule, Tally};
use correio_lab::broker::{Node, for_each};
use correio_message::{Envelope, Key};
use correio_tests::{
    consuming::{AT_ONCE, Running, Seen, consumer, message, ordered, producer, shared, short_retries, until},
    queues::take_all,
};

/// What handlers need.
#[derive(Clone, Default)]
struct Warehouse {
    is_there: Arc<AtomicBool>,
    asked_in_vain: Arc<AtomicUsize>,
}

/// How it went while the warehouse was away, and what was handled once it came back.
struct Went {
    tally: Tally,
    asked_in_vain: usize,
    handled: Seen,
    parked: Vec<Envelope>,
}

const MESSAGES: usize = 100;
const KEYS: usize = 10;

/// The warehouse is away until `enough` says so, of messages that are tried four times within about a second.
async fn away_until(
    node: &Node,
    is_ordered: bool,
    breaker: Option<BreakerLimits>,
    enough: impl Fn(&Tally, usize) -> bool,
) -> Went {
    let retry = short_retries(3);
    let (queue, processing) = if is_ordered {
        (ordered(node, "breaking").await, in_order(retry))
    } else {
        (shared(node, "breaking").await, Processing::Independent { at_once: AT_ONCE, retry })
    };
    let producer = producer(node).await;
    for n in 0..MESSAGES {
        let key = Key::new(format!("k{}", n % KEYS)).unwrap();
        let outcome = producer.send(message(&queue, &format!("{n:03}")).with_key(key)).await.unwrap();
        assert!(outcome.is_confirmed());
    }
    let (warehouse, handled) = (Warehouse::default(), Seen::default());
    let (inside, seen) = (warehouse.clone(), handled.clone());
    let running = Running::start(consumer(node, &queue).processing(processing).breaker(breaker).on_any(
        move |message: Message| {
            let is_there = inside.is_there.load(Ordering::SeqCst);
            if is_there {
                seen.note(&message);
            } else {
                inside.asked_in_vain.fetch_add(1, Ordering::SeqCst);
            }
            async move { if is_there { Ok(()) } else { Err("the warehouse is away") } }
        },
    ));
    let asked = || warehouse.asked_in_vain.load(Ordering::SeqCst);
    until(|| enough(&running.tally(), asked()), || format!("{:?}", running.tally())).await;
    warehouse.is_there.store(true, Ordering::SeqCst);
    running.until(|tally| tally.handled + tally.dead == MESSAGES as u64).await;
    let asked_in_vain = asked();
    let tally = running.stop().await.counts;
    Went { tally, asked_in_vain, handled, parked: take_all(node, &format!("{queue}.dead")).await }
}

fn in_order(retry: RetrySchedule) -> Processing {
    match Processing::ordered_by_key() {
        Processing::OrderedByKey { keys_at_once, parked, gap_deadline, gap_policy, .. } => {
            Processing::OrderedByKey { keys_at_once, parked, gap_deadline, gap_policy, retry }
        }
        other => other,
    }
}

fn all() -> Vec<String> {
    (0..MESSAGES).map(|n| format!("{n:03}")).collect()
}

/// Short pauses, so that it has withdrawn within seconds.
fn short() -> BreakerLimits {
    BreakerLimits {
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_millis(400),
        withdraws_after: Duration::from_millis(1_500),
        ..BreakerLimits::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_handlers_need_is_away_for_longer_than_the_retries_take_and_nothing_is_parked() {
    for_each(async |node| {
        for is_ordered in [false, true] {
            let limits = BreakerLimits::default();
            let went =
                away_until(node, is_ordered, Some(limits), |tally, asked| tally.paused == 1 && asked >= 22).await;
            assert_eq!(went.handled.sorted(), all(), "ordered: {is_ordered}: {:?}", went.tally);
            assert_eq!((went.parked.len(), went.tally.paused, went.tally.resubscribed), (0, 1, 0));
            // The 20 that opened it, those that were at work then, and the probes.
            assert!(went.asked_in_vain <= 20 + 16 + 4, "{} attempts", went.asked_in_vain);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pause_closes_the_channel_and_the_probe_alone_is_held_until_all_goes_on_in_order() {
    for_each(async |node| {
        for is_ordered in [false, true] {
            // It has withdrawn, and has tried again after that.
            let last = std::cell::Cell::new(None);
            let went = away_until(node, is_ordered, Some(short()), |tally, asked| {
                if tally.resubscribed == 1 && last.get().is_none() {
                    last.set(Some(asked + 3));
                }
                last.get().is_some_and(|enough| asked >= enough)
            })
            .await;
            assert_eq!(went.handled.sorted(), all(), "ordered: {is_ordered}: {:?}", went.tally);
            assert_eq!((went.parked.len(), went.tally.paused, went.tally.resubscribed), (0, 1, 1), "{:?}", went.tally);
            if is_ordered {
                let seen = went.handled.all();
                for key in 0..KEYS {
                    let of_key = |n: &&String| n.parse::<usize>().is_ok_and(|n| n % KEYS == key);
                    let of_key: Vec<_> = seen.iter().filter(of_key).collect();
                    assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_on_purpose_without_the_breaker_everything_is_parked() {
    for_each(async |node| {
        let went = away_until(node, false, None, |tally, _| tally.dead == MESSAGES as u64).await;
        assert_eq!((went.parked.len(), went.handled.len()), (MESSAGES, 0));
    })
    .await;
}
