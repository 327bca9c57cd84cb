//! Guarantee 5 on a real broker: messages of one source with one key are handled in the order sent, retries and
//! redeliveries included; each cause of disorder is also let through on purpose.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use correio_consumer::{ConsumerBuilder, Context, GapPolicy, Key, Message, Processing};
use correio_lab::{
    broker::{Login, Node, for_each},
    faults::{Ending, Proxy},
};
use correio_message::{DeadLetter, DeadReason, Durability, Envelope, Line, Sequence, Voids};
use correio_tests::{
    consuming::{
        AT_ONCE, PATIENCE, Running, Seen, consumer, consumer_at, forward, message, ordered, producer, shared,
        short_retries, until_depth,
    },
    queues::take_all,
    scale,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

fn by_key(gap_deadline: Duration, gap_policy: GapPolicy) -> Processing {
    Processing::OrderedByKey {
        keys_at_once: AT_ONCE,
        parked: NonZeroU16::new(64).unwrap(),
        gap_deadline,
        gap_policy,
        retry: short_retries(3),
    }
}

fn in_order(node: &Node, queue: &str) -> ConsumerBuilder {
    consumer(node, queue).processing(by_key(Duration::from_secs(30), GapPolicy::Skip))
}

/// The message of this key with this number, as some producer would have numbered it.
fn numbered(queue: &str, key: &str, number: u64) -> Envelope {
    let line = Line { source: Uuid::from_u128(7), stream: "s".into(), key: Key::new(key).unwrap() };
    let number = NonZeroU64::new(number).unwrap();
    let mut message = message(queue, &format!("{key}{number:05}"));
    message.sequence = Some(Sequence { line, number, voids: Voids::default() });
    message.encode(Durability::Persistent)
}

fn expected(key: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{key}{number:05}")).collect()
}

/// What was seen of each key, in its order.
fn per_key(seen: &Seen) -> BTreeMap<char, Vec<String>> {
    let mut keys = BTreeMap::<char, Vec<String>>::new();
    for text in seen.all() {
        keys.entry(text.chars().next().unwrap()).or_default().push(text);
    }
    keys
}

fn note(seen: &Seen) -> impl Fn(Message) -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
    let seen = seen.clone();
    move |message| {
        seen.note(&message);
        std::future::ready(Ok(()))
    }
}

/// Notes what is done, and fails at the second message of the key `a` the first time.
fn failing_once(
    seen: &Seen,
) -> impl Fn(Message, Context) -> std::future::Ready<Result<(), &'static str>> + Send + Sync + 'static {
    let seen = seen.clone();
    move |message, context| {
        if message.payload == "a00002" && context.attempt().get() == 1 {
            return std::future::ready(Err("not yet"));
        }
        seen.note(&message);
        std::future::ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_not_overtaken_by_the_next_of_its_key_but_other_keys_go_on() {
    for_each(async |node| {
        let queue = ordered(node, "failing").await;
        let sender = producer(node).await;
        for key in ["a", "b"] {
            for number in 1..=4 {
                forward(&sender, numbered(&queue, key, number)).await;
            }
        }
        let seen = Seen::default();
        let running = Running::start(in_order(node, &queue).on_any(failing_once(&seen)));
        running.until(|tally| tally.handled == 8).await;
        let counts = running.stop().await.counts;
        assert_eq!(per_key(&seen)[&'a'], expected("a", 1..=4));
        assert_eq!(per_key(&seen)[&'b'], expected("b", 1..=4));
        assert_eq!(seen.all().last().unwrap(), "a00004", "the other key waited too");
        assert_eq!((counts.retried, counts.out_of_order, counts.gaps), (1, 0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_on_purpose_without_order_a_failed_message_is_overtaken() {
    for_each(async |node| {
        let queue = shared(node, "overtaken").await;
        let sender = producer(node).await;
        for number in 1..=4 {
            forward(&sender, numbered(&queue, "a", number)).await;
        }
        let seen = Seen::default();
        let one = Processing::Independent { at_once: NonZeroU16::MIN, retry: short_retries(3) };
        let running = Running::start(consumer(node, &queue).processing(one).on_any(failing_once(&seen)));
        running.until(|tally| tally.handled == 4).await;
        running.stop().await;
        assert_eq!(seen.all(), ["a00001", "a00003", "a00004", "a00002"]);
    })
    .await;
}

/// One source whose second connection was slow: 1, then 5 to 2, then 6.
async fn sent_out_of_order(node: &Node, queue: &str) {
    let sender = producer(node).await;
    for number in [1, 5, 4, 3, 2, 6] {
        forward(&sender, numbered(queue, "a", number)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_fills_the_numbers_that_came_to_nothing_and_reaches_no_handler() {
    for_each(async |node| {
        let queue = ordered(node, "marked").await;
        let sender = producer(node).await;
        for number in [1, 4] {
            forward(&sender, numbered(&queue, "a", number)).await;
        }
        let seen = Seen::default();
        // Longer than anybody waits: without the marker number 4 would not be handled.
        let patient = by_key(2 * PATIENCE, GapPolicy::Skip);
        let running = Running::start(consumer(node, &queue).processing(patient).on_any(failing_once(&seen)));
        running.until(|tally| tally.handled == 1 && tally.received == 2).await;
        let third = numbered(&queue, "a", 3);
        let mut sequence = third.decode().unwrap().message.sequence.unwrap();
        sequence.voids = Voids::new([NonZeroU64::new(2).unwrap()]);
        let id = correio_producer::fresh_id();
        forward(&sender, Envelope::marker(third.route, &id, &sequence)).await;
        running.until(|tally| tally.handled == 2).await;
        let counts = running.stop().await.counts;
        assert_eq!(per_key(&seen)[&'a'], expected("a", [1, 4]));
        assert_eq!((counts.markers, counts.gaps, counts.dead, counts.without_id), (1, 0, 0, 0));
        assert_eq!(node.queue_depth(&queue).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_arrive_out_of_order_are_handled_in_the_order_sent() {
    for_each(async |node| {
        let queue = ordered(node, "resequenced").await;
        let seen = Seen::default();
        let running = Running::start(in_order(node, &queue).on_any(note(&seen)));
        sent_out_of_order(node, &queue).await;
        running.until(|tally| tally.handled == 6).await;
        assert_eq!(running.stop().await.counts.gaps, 0);
        assert_eq!(seen.all(), expected("a", 1..=6));
        until_depth(node, &queue, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_on_purpose_without_order_they_are_handled_as_they_arrive() {
    for_each(async |node| {
        let queue = shared(node, "as-they-come").await;
        let seen = Seen::default();
        let one = Processing::Independent { at_once: NonZeroU16::MIN, retry: short_retries(3) };
        let running = Running::start(consumer(node, &queue).processing(one).on_any(note(&seen)));
        sent_out_of_order(node, &queue).await;
        running.until(|tally| tally.handled == 6).await;
        running.stop().await;
        assert_eq!(seen.all(), expected("a", [1, 5, 4, 3, 2, 6]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_number_is_waited_for_and_then_skipped_or_parked_behind_as_the_policy_says() {
    for_each(async |node| {
        for policy in [GapPolicy::Skip, GapPolicy::DeadLetter] {
            let queue = ordered(node, "gap").await;
            let seen = Seen::default();
            let processing = by_key(Duration::from_millis(500), policy);
            let running = Running::start(consumer(node, &queue).processing(processing).on_any(note(&seen)));
            let sender = producer(node).await;
            for number in [1, 3, 4] {
                forward(&sender, numbered(&queue, "a", number)).await;
            }
            running.until(|tally| tally.handled + tally.dead == 3).await;
            // Number 2 was only late.
            forward(&sender, numbered(&queue, "a", 2)).await;
            forward(&sender, numbered(&queue, "a", 5)).await;
            running.until(|tally| tally.handled + tally.dead == 5).await;
            let counts = running.stop().await.counts;
            assert_eq!((counts.gaps, counts.out_of_order), (1, 1));
            let parked = take_all(node, &format!("{queue}.dead")).await;
            if policy == GapPolicy::Skip {
                assert_eq!(seen.all(), expected("a", [1, 3, 4, 2, 5]));
                assert!(parked.is_empty());
            } else {
                assert_eq!(seen.all(), expected("a", [1, 2, 5]));
                let reasons: Vec<_> = parked.iter().map(|letter| DeadLetter::of(letter).unwrap().reason).collect();
                assert_eq!(reasons, [DeadReason::Gap; 2]);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_full_of_waiting_messages_still_gets_the_one_that_they_wait_for() {
    for_each(async |node| {
        let queue = ordered(node, "full").await;
        let seen = Seen::default();
        let processing = Processing::OrderedByKey {
            keys_at_once: NonZeroU16::MIN,
            parked: NonZeroU16::new(40).unwrap(),
            gap_deadline: Duration::from_secs(30),
            gap_policy: GapPolicy::Skip,
            retry: short_retries(1),
        };
        let sender = producer(node).await;
        forward(&sender, numbered(&queue, "a", 1)).await;
        forward(&sender, numbered(&queue, "b", 1)).await;
        let running = Running::start(consumer(node, &queue).processing(processing).on_any(note(&seen)));
        running.until(|tally| tally.handled == 2).await;
        // As many as may be parked, each key its half, before the two that they wait for.
        for number in (2..=22).rev() {
            forward(&sender, numbered(&queue, "a", number)).await;
            forward(&sender, numbered(&queue, "b", number)).await;
        }
        running.until(|tally| tally.handled == 44).await;
        assert_eq!(running.stop().await.counts.gaps, 0);
        assert_eq!(per_key(&seen)[&'a'], expected("a", 1..=22));
        assert_eq!(per_key(&seen)[&'b'], expected("b", 1..=22));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stops_leaves_the_rest_in_order_for_the_next() {
    for_each(async |node| {
        let queue = ordered(node, "handed-on").await;
        let sender = producer(node).await;
        for number in 1..=40 {
            forward(&sender, numbered(&queue, "a", number)).await;
        }
        let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(10)));
        let (see, pass) = (seen.clone(), Arc::clone(&gate));
        let first =
            in_order(node, &queue).drain_deadline(Duration::from_millis(500)).on_any(move |message: Message| {
                let (see, pass) = (see.clone(), Arc::clone(&pass));
                async move {
                    pass.acquire().await.map_err(|e| e.to_string())?.forget();
                    see.note(&message);
                    Ok::<_, String>(())
                }
            });
        let first = Running::start(first);
        first.until(|tally| tally.handled == 10 && tally.received == 40).await;
        let counts = first.stop().await.counts;
        assert_eq!((counts.handled, counts.handed_back, counts.not_started), (10, 1, 29));
        // The next knows nothing of the first: what the broker hands out has to be in order by itself.
        let second = Running::start(in_order(node, &queue).on_any(note(&seen)));
        second.until(|tally| tally.handled == 30).await;
        let counts = second.stop().await.counts;
        assert_eq!((counts.gaps, counts.out_of_order), (0, 0));
        assert_eq!(seen.all(), expected("a", 1..=40));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_active_consumer_is_killed_the_next_goes_on_in_order_and_repeats_only_what_was_not_acknowledged() {
    for_each(async |node| {
        let count = scale::of(2_000, 5);
        let queue = ordered(node, "takeover").await;
        let sender = producer(node).await;
        let mut receipts = Vec::new();
        for number in 1..=count {
            let key = Key::new(["a", "b", "c"][number as usize % 3]).unwrap();
            let message = message(&queue, &format!("{key}{number:05}")).with_key(key);
            receipts.push(sender.submit(message).await.unwrap());
        }
        for receipt in receipts {
            assert!(receipt.await.unwrap().is_confirmed());
        }
        let (first_saw, second_saw) = (Seen::default(), Seen::default());
        let first = Running::start(in_order(node, &queue).on_any(slowly(&first_saw)));
        first.until(|tally| tally.handled > 20).await;
        let second = Running::start(in_order(node, &queue).on_any(note(&second_saw)));
        first.until(|tally| tally.handled > count / 4).await;
        assert!(second_saw.is_empty(), "two consumers were active at once");
        first.kill().await;
        let rest = count - first_saw.len() as u64;
        second.until(|tally| tally.handled >= rest).await;
        until_depth(node, &queue, 0).await;
        let counts = second.stop().await.counts;
        assert_eq!((counts.gaps, counts.out_of_order), (0, 0));
        // What the first did and could not acknowledge, the second did again: two processes, two memories.
        let repeated = first_saw.len() as u64 + counts.handled - count;
        assert!(repeated <= 100, "{repeated} repeated");
        for (key, seen) in per_key(&second_saw) {
            assert!(seen.is_sorted(), "key {key}: {seen:?}");
        }
        let mut all: Vec<_> = first_saw.all().into_iter().chain(second_saw.all()).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len() as u64, count);
    })
    .await;
}

fn slowly(
    seen: &Seen,
) -> impl Fn(Message) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync + 'static {
    let seen = seen.clone();
    move |message| {
        let seen = seen.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            seen.note(&message);
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_keeps_the_order_and_repeats_nothing() {
    for_each(async |node| {
        let count = scale::of(2_000, 5);
        let queue = ordered(node, "cut").await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let seen = Seen::default();
        let url = node.amqp_url_through(Login::Consumer, proxy.address());
        let processing = by_key(Duration::from_secs(30), GapPolicy::Skip);
        let running = Running::start(consumer_at(&url, &queue).processing(processing).on_any(slowly(&seen)));
        let sender = producer(node).await;
        for number in 1..=count / 2 {
            forward(&sender, numbered(&queue, "a", number)).await;
            forward(&sender, numbered(&queue, "b", number)).await;
            if number % (count / 6) == 0 {
                running.until(|tally| tally.resubscribed + 1 == number / (count / 6)).await;
                assert!(proxy.cut(Ending::Reset).await > 0);
            }
        }
        running.until(|tally| tally.handled == count).await;
        until_depth(node, &queue, 0).await;
        let counts = running.stop().await.counts;
        assert!(counts.resubscribed >= 1);
        assert_eq!((counts.gaps, counts.out_of_order), (0, 0));
        for key in ["a", "b"] {
            assert_eq!(per_key(&seen)[&key.chars().next().unwrap()], expected(key, 1..=count / 2));
        }
        proxy.stop().await;
    })
    .await;
}
