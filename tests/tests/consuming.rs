//! Guarantees 3 to 8 on a real broker, each also broken on purpose: without it the damage shows.

use correio_consumer::{Context, Message, Verdict};
use correio_lab::broker::for_each;
use correio_tests::consuming::{Running, Seen, consumer, producer, send, shared, until_depth};

fn numbers(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("m{n:05}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_handled_once_and_acknowledged() {
    for_each(async |node| {
        let queue = shared(node, "once").await;
        let seen = Seen::default();
        let see = seen.clone();
        let running = Running::start(consumer(node, &queue).on_any(move |message: Message| {
            see.note(&message);
            async { Ok::<_, String>(()) }
        }));
        let producer = producer(node).await;
        send(&producer, &queue, numbers(1_000)).await;
        running.until(|tally| tally.handled == 1_000).await;
        let summary = running.stop().await;
        assert!(summary.is_clean() && summary.startup.is_complete(), "{summary:?}");
        assert_eq!(seen.sorted(), numbers(1_000));
        until_depth(node, &queue, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_twice_is_retried_with_its_attempts_counted_and_then_handled() {
    for_each(async |node| {
        let queue = shared(node, "twice").await;
        let seen = Seen::default();
        let see = seen.clone();
        let running = Running::start(consumer(node, &queue).on_any(move |message: Message, context: Context| {
            see.note_attempt(&message, &context);
            async move { if context.attempt().get() < 3 { Err("not yet") } else { Ok(Verdict::Done) } }
        }));
        let producer = producer(node).await;
        send(&producer, &queue, ["a".to_owned()]).await;
        running.until(|tally| tally.handled == 1).await;
        let summary = running.stop().await;
        assert_eq!(seen.all(), ["a#1", "a#2", "a#3"]);
        assert_eq!((summary.counts.retried, summary.counts.dead), (2, 0));
    })
    .await;
}
