//! The broker takes a subscription away, or forgets it, or one of two connections is cut: the consumer subscribes again when its
//! handlers have ended, and no other notices.

use std::{
    num::NonZeroU16,
    time::{Duration, Instant},
};

use correio_consumer::{CancellationToken, Health, Message, Processing, RetrySchedule};
use correio_lab::{
    broker::{Login, Node, NodeOptions, for_each, for_each_own},
    faults::{Ending, Proxy},
};
use correio_tests::{
    consuming::{Running, Seen, consumer, consumer_at, ordered, producer, send, shared, until_depth},
    queues::{name, plain},
};
use lapin::{
    options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

/// Notes each message when it is done; those that begin with `hangs` are when the gate is open.
fn until_open(
    seen: &Seen,
    gate: &CancellationToken,
) -> impl Fn(Message) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync + 'static {
    let (seen, gate) = (seen.clone(), gate.clone());
    move |message| {
        let (seen, gate) = (seen.clone(), gate.clone());
        Box::pin(async move {
            if message.payload.starts_with(b"hangs") {
                gate.cancelled().await;
            }
            seen.note(&message);
            Ok(())
        })
    }
}

fn texts<const N: usize>(texts: [&str; N]) -> [String; N] {
    texts.map(str::to_owned)
}

/// RabbitMQ up to 4.2 closes the channel, 4.3 cancels the consumer.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_held_for_too_long_comes_again_when_its_handler_has_ended_and_disturbs_no_other_consumer() {
    for_each_own(NodeOptions::default(), async |node| {
        let impatient = "application:set_env(rabbit, consumer_timeout, 1000), \
                         application:set_env(rabbit, channel_tick_interval, 300).";
        node.ctl(&["eval", impatient]).await.unwrap();
        let (slow, other) = (shared(node, "slow").await, shared(node, "other").await);
        let (seen, other_saw, gate) = (Seen::default(), Seen::default(), CancellationToken::new());
        let running = Running::start(consumer(node, &slow).on_any(until_open(&seen, &gate)));
        let undisturbed = Running::start(consumer(node, &other).on_any(until_open(&other_saw, &gate)));
        let sender = producer(node).await;
        send(&sender, &other, texts(["before"])).await;
        send(&sender, &slow, texts(["a", "hangs", "b"])).await;
        running.until(|tally| tally.handled == 2).await;
        let Health::Away { why, .. } = running.until_health(|health| !health.is_subscribed()).await else {
            unreachable!("nobody asked it to stop")
        };
        assert!(why.contains("acknowledgement") || why.contains("ended the subscription"), "{why}");

        // It is back on the queue, and nobody fetches it while its handler is at work: longer than the pause before subscribing.
        until_depth(node, &slow, 1).await;
        send(&sender, &slow, texts(["c"])).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!((running.tally().resubscribed, node.queue_depth(&slow).await.unwrap()), (0, 2));
        send(&sender, &other, texts(["after"])).await;
        undisturbed.until(|tally| tally.handled == 2).await;

        gate.cancel();
        running.until_health(Health::is_subscribed).await;
        running.until(|tally| tally.handled == 4).await;
        until_depth(node, &slow, 0).await;
        let summary = running.stop().await;
        assert_eq!(seen.sorted(), ["a", "b", "c", "hangs"], "each once");
        assert!(
            summary.is_clean() && summary.counts.duplicates >= 1 && summary.counts.resubscribed >= 1,
            "{summary:?}"
        );
        assert_eq!(undisturbed.stop().await.counts.resubscribed, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_and_made_again_at_once_is_consumed_again_and_what_was_at_work_is_finished() {
    for_each(async |node| {
        for is_ordered in [false, true] {
            let queue = if is_ordered { ordered(node, "at-once").await } else { shared(node, "at-once").await };
            let (seen, gate) = (Seen::default(), CancellationToken::new());
            let builder = consumer(node, &queue).on_any(until_open(&seen, &gate));
            let builder = if is_ordered { builder.processing(Processing::ordered_by_key()) } else { builder };
            let running = Running::start(builder.look_after(SOON));
            let sender = producer(node).await;
            send(&sender, &queue, texts(["a", "hangs"])).await;
            running.until(|tally| tally.handled == 1 && tally.received == 2).await;
            delete_and_make_again(node, &queue, is_ordered).await;
            gate.cancel();
            // More than a prefetch, which is what RabbitMQ 3.10 drops without a sign.
            let more: Vec<String> = (1..=500).map(|n| format!("more{n:03}")).collect();
            send(&sender, &queue, more.clone()).await;
            running.until(|tally| tally.handled == 502).await;
            let counts = running.stop().await.counts;
            assert!(counts.resubscribed >= 1, "{counts:?}");
            assert_eq!(seen.sorted(), [texts(["a", "hangs"]).to_vec(), more].concat());
        }
    })
    .await;
}

/// On one channel, so that RabbitMQ 3.10 comes to telling the consumer only when the queue is there again.
async fn delete_and_make_again(node: &Node, queue: &str, has_single_active_consumer: bool) {
    let (connection, channel) = plain(node).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(has_single_active_consumer));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_delete(name(queue), QueueDeleteOptions::default()).await.unwrap();
    channel.queue_declare(name(queue), durable, arguments).await.unwrap();
    let bound = channel.queue_bind(
        name(queue),
        "correio.queue".into(),
        name(queue),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_connection_is_cut_again_and_again_disturbs_no_other_of_its_process() {
    for_each(async |node| {
        let (cut, other) = (shared(node, "cut").await, shared(node, "uncut").await);
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let (seen, other_saw, gate) = (Seen::default(), Seen::default(), CancellationToken::new());
        let through = node.amqp_url_through(Login::Consumer, proxy.address());
        let running = Running::start(consumer_at(&through, &cut).on_any(until_open(&seen, &gate)));
        let undisturbed = Running::start(consumer(node, &other).on_any(until_open(&other_saw, &gate)));
        let sender = producer(node).await;
        for round in 1..=3 {
            let text = [format!("m{round}")];
            send(&sender, &cut, text.clone()).await;
            send(&sender, &other, text).await;
            running.until(|tally| tally.handled >= round).await;
            undisturbed.until(|tally| tally.handled >= round).await;
            assert!(proxy.cut(Ending::Reset).await > 0);
            running.until(|tally| tally.resubscribed >= round).await;
        }
        running.stop().await;
        let counts = undisturbed.stop().await.counts;
        assert_eq!((counts.resubscribed, counts.lost_acks, other_saw.len()), (0, 0, 3));
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_stands_is_looked_at_and_left_alone_whether_it_is_served_or_stands_by() {
    for_each(async |node| {
        let (queue, seen, gate) = (ordered(node, "quiet").await, Seen::default(), CancellationToken::new());
        let begin = || {
            let in_order = consumer(node, &queue).processing(Processing::ordered_by_key());
            Running::start(in_order.look_after(SOON).on_any(until_open(&seen, &gate)))
        };
        let (first, second) = (begin(), begin());
        for running in [&first, &second] {
            running.until_health(Health::is_subscribed).await;
        }
        let began = Instant::now();
        while began.elapsed() < SOON * 20 {
            tokio::time::sleep(SOON).await;
        }
        send(&producer(node).await, &queue, texts(["a"])).await;
        correio_tests::consuming::until(|| seen.len() == 1, || format!("{:?}", seen.all())).await;
        for running in [first, second] {
            assert_eq!(running.stop().await.counts.resubscribed, 0);
        }
    })
    .await;
}

/// As one that the broker has forgotten would be: messages are ready, it has room, and none comes.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_passed_over_while_messages_are_ready_subscribes_again() {
    for_each(async |node| {
        // A queue with a single active consumer, of which these two do not know.
        let (queue, seen, gate) = (ordered(node, "passed-over").await, Seen::default(), CancellationToken::new());
        let begin = || {
            let one = Processing::Independent { at_once: NonZeroU16::MIN, retry: RetrySchedule::none() };
            Running::start(consumer(node, &queue).processing(one).look_after(SOON).on_any(until_open(&seen, &gate)))
        };
        let active = begin();
        active.until_health(Health::is_subscribed).await;
        let count = 300;
        send(&producer(node).await, &queue, (1..=count).map(|n| format!("hangs{n}"))).await;
        active.until(|tally| tally.received >= 1).await;
        let standing_by = begin();
        standing_by.until(|tally| tally.resubscribed >= 2).await;
        assert_eq!(active.tally().resubscribed, 0, "its hands are full");
        gate.cancel();
        correio_tests::consuming::until(|| seen.len() == count, || format!("{} of {count}", seen.len())).await;
        for running in [standing_by, active] {
            assert!(running.stop().await.is_clean());
        }
    })
    .await;
}

const SOON: Duration = Duration::from_millis(30);
