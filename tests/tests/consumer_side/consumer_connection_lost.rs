//! Guarantee 7 for consumers on a real broker: cut and silent connections, a killed broker, a deleted queue lose nothing,
//! repeat nothing that is remembered, and end nothing.

use std::time::Duration;

use correio_broker_config::WorkQueue;
use correio_consumer::{Context, Message};
use correio_lab::{
    broker::{Login, NodeOptions, for_each, for_each_own},
    faults::{Ending, Proxy},
};
use correio_tests::{
    consuming::{Running, Seen, consumer, consumer_at, declare, producer, send, shared, until, until_depth},
    scale,
};

fn numbers(count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("m{n:05}")).collect()
}

/// Notes what is done; one in twenty fails at its first attempt.
fn some_fail_once(
    seen: &Seen,
) -> impl Fn(Message, Context) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync + 'static
{
    let seen = seen.clone();
    move |message, context| {
        let seen = seen.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if message.payload.ends_with(b"7") && message.payload[4] % 2 == 0 && context.attempt().get() == 1 {
                return Err("not yet".to_owned());
            }
            seen.note(&message);
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cutting_every_connection_again_and_again_loses_nothing_and_repeats_nothing() {
    for_each(async |node| {
        let count = scale::of(5_000, 5);
        let queue = shared(node, "cuts").await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let url = node.amqp_url_through(Login::Consumer, proxy.address());
        let seen = Seen::default();
        let running = Running::start(consumer_at(&url, &queue).on_any(some_fail_once(&seen)));
        send(&producer(node).await, &queue, numbers(count)).await;
        for part in 1..=4 {
            running.until(|tally| tally.handled >= count * part / 5).await;
            assert!(proxy.cut(Ending::Reset).await > 0);
        }
        until(|| seen.len() as u64 >= count, || format!("{} of {count}", seen.len())).await;
        until_depth(node, &queue, 0).await;
        let counts = running.stop().await.counts;
        assert!(counts.resubscribed >= 4, "{counts:?}");
        assert_eq!((counts.dead, seen.sorted()), (0, numbers(count)));
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_noticed_by_its_heartbeat_and_replaced() {
    for_each(async |node| {
        let queue = shared(node, "silent").await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let url = format!("{}?heartbeat=2", node.amqp_url_through(Login::Consumer, proxy.address()));
        let seen = Seen::default();
        let running = Running::start(consumer_at(&url, &queue).on_any(some_fail_once(&seen)));
        let sender = producer(node).await;
        send(&sender, &queue, ["first1".to_owned()]).await;
        running.until(|tally| tally.handled == 1).await;
        let before = proxy.counts().connections;
        proxy.stall(true);
        until(|| proxy.counts().connections > before, || "the silence was not noticed".to_owned()).await;
        proxy.pass();
        send(&sender, &queue, ["second1".to_owned()]).await;
        running.until(|tally| tally.handled == 2).await;
        assert!(running.stop().await.counts.resubscribed >= 1);
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_while_the_consumer_begins_does_not_end_it() {
    for_each(async |node| {
        let queue = shared(node, "begins").await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let seen = Seen::default();
        let builder = consumer_at(&node.amqp_url_through(Login::Consumer, proxy.address()), &queue);
        let running = Running::start(builder.on_any(some_fail_once(&seen)));
        for connection in 1..=4 {
            until(|| proxy.counts().connections >= connection, || format!("no connection {connection}")).await;
            proxy.cut(Ending::Reset).await;
        }
        send(&producer(node).await, &queue, ["first1".to_owned()]).await;
        running.until(|tally| tally.handled == 1).await;
        running.stop().await;
        proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_restarted_hands_out_the_rest_and_nothing_is_lost() {
    for_each_own(NodeOptions::default(), async |node| {
        let count = scale::of(5_000, 5);
        let queue = shared(node, "killed").await;
        send(&producer(node).await, &queue, numbers(count)).await;
        let seen = Seen::default();
        node.settle_before_kill().await;
        let running = Running::start(consumer(node, &queue).on_any(some_fail_once(&seen)));
        running.until(|tally| tally.handled >= count / 4).await;
        node.kill_at_once().await.unwrap();
        node.restart().await.unwrap();
        until(|| seen.len() as u64 >= count, || format!("{} of {count}", seen.len())).await;
        until_depth(node, &queue, 0).await;
        let counts = running.stop().await.counts;
        assert!(counts.resubscribed >= 1, "{counts:?}");
        assert_eq!(seen.sorted(), numbers(count));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_ends_neither_its_consumer_nor_another_and_is_consumed_again_when_it_is_back() {
    for_each(async |node| {
        let (doomed, other) = (shared(node, "doomed").await, shared(node, "other").await);
        let (seen, other_saw) = (Seen::default(), Seen::default());
        let running = Running::start(consumer(node, &doomed).on_any(some_fail_once(&seen)));
        let undisturbed = Running::start(consumer(node, &other).on_any(some_fail_once(&other_saw)));
        let sender = producer(node).await;
        send(&sender, &doomed, ["first1".to_owned()]).await;
        send(&sender, &other, ["first1".to_owned()]).await;
        running.until(|tally| tally.handled == 1).await;
        undisturbed.until(|tally| tally.handled == 1).await;

        node.delete_queue(&doomed).await.unwrap();
        send(&sender, &other, ["second1".to_owned()]).await;
        undisturbed.until(|tally| tally.handled == 2).await;
        running.until_health(|health| !health.is_subscribed()).await;
        let delays = [200, 400].map(Duration::from_millis);
        declare(node, WorkQueue::shared_with_delays(&doomed, &delays).unwrap()).await;
        send(&sender, &doomed, ["second1".to_owned()]).await;
        running.until(|tally| tally.handled == 2).await;
        assert!(running.stop().await.counts.resubscribed >= 1);
        assert_eq!(undisturbed.stop().await.counts.resubscribed, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_while_the_broker_is_away_ends_in_time() {
    for_each(async |node| {
        let queue = shared(node, "away").await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let url = node.amqp_url_through(Login::Consumer, proxy.address());
        let seen = Seen::default();
        let running = Running::start(consumer_at(&url, &queue).on_any(some_fail_once(&seen)));
        send(&producer(node).await, &queue, ["first1".to_owned()]).await;
        running.until(|tally| tally.handled == 1).await;
        proxy.refuse_new(true).await;
        proxy.cut(Ending::Reset).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = std::time::Instant::now();
        let summary = running.stop().await;
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert!(summary.is_clean());
        proxy.stop().await;
    })
    .await;
}
