//! Guarantees 3, 4, 6 and 8 on a real broker, each also broken on purpose: switched off, the damage shows.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use correio_consumer::{
    Acknowledgement, ConsumeError, Context, Deduplication, Ended, Message, Processing, ShortText, Verdict,
};
use correio_lab::{
    broker::{Login, QueueKind, for_each},
    faults::{Direction, Ending, Proxy},
};
use correio_message::{DeadLetter, DeadReason, Durability, Envelope, Value};
use correio_tests::{
    consuming::{
        AT_ONCE, Running, Seen, consumer, consumer_at, forward, message, ordered, producer, send, shared,
        short_retries, until_depth,
    },
    queues::{fresh, take_all},
};
use tokio::sync::Semaphore;

fn numbers(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("m{n:05}")).collect()
}

fn retries(retries: u32) -> Processing {
    Processing::Independent { at_once: AT_ONCE, retry: short_retries(retries) }
}

/// A handler that notes what it sees and is done.
fn note(seen: &Seen) -> impl Fn(Message) -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
    let seen = seen.clone();
    move |message| {
        seen.note(&message);
        std::future::ready(Ok(()))
    }
}

// 3. A message is acknowledged only after its handler succeeded

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_handled_once_and_acknowledged() {
    for_each(async |node| {
        let queue = shared(node, "once").await;
        let seen = Seen::default();
        let running = Running::start(consumer(node, &queue).on_any(note(&seen)));
        send(&producer(node).await, &queue, numbers(1_000)).await;
        running.until(|tally| tally.handled == 1_000).await;
        let summary = running.stop().await;
        assert!(summary.is_clean() && summary.startup.no_parking_queue.is_none(), "{summary:?}");
        assert_eq!(seen.sorted(), numbers(1_000));
        let listed = node.list_queues().await.unwrap();
        assert!(
            listed.iter().any(|(name, ready, unacked)| *name == queue && (*ready, *unacked) == (0, 0)),
            "{listed:?}"
        );
    })
    .await;
}

/// Kills a consumer that holds 20 messages, and says which of them a second consumer gets.
async fn killed_while_holding(node: &correio_lab::broker::Node, acknowledgement: Acknowledgement) -> Vec<String> {
    let queue = shared(node, "killed").await;
    send(&producer(node).await, &queue, numbers(20)).await;
    let processing = Processing::Independent { at_once: 20.try_into().unwrap(), retry: short_retries(3) };
    let holding = consumer(node, &queue)
        .processing(processing)
        .acknowledgement(acknowledgement)
        .on_any(|_: Message| std::future::pending::<Result<(), String>>());
    let holding = Running::start(holding);
    holding.until(|tally| tally.received == 20).await;
    if acknowledgement == Acknowledgement::OnDelivery {
        // Its acknowledgements have to be with the broker, which the broker shows by holding nothing.
        until_nothing_is_left(node, &queue).await;
    }
    holding.kill().await;
    let seen = Seen::default();
    let next = consumer(node, &queue).stop_when_idle(Duration::from_secs(2)).on_any(note(&seen));
    let summary = Running::start(next).ended().await.unwrap();
    assert_eq!(summary.ended, Ended::Idle);
    seen.sorted()
}

async fn until_nothing_is_left(node: &correio_lab::broker::Node, queue: &str) {
    for _ in 0..300 {
        let listed = node.list_queues().await.unwrap();
        if listed.iter().any(|(name, ready, unacked)| name == queue && ready + unacked == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{queue} is not empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_consumer_loses_nothing_that_it_held() {
    for_each(async |node| {
        assert_eq!(killed_while_holding(node, Acknowledgement::AfterHandling).await, numbers(20));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_on_purpose_acknowledged_on_delivery_a_killed_consumer_loses_what_it_held() {
    for_each(async |node| {
        assert_eq!(killed_while_holding(node, Acknowledgement::OnDelivery).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_delay_and_parking_queues_a_message_stays_on_the_broker_and_makes_no_hot_loop() {
    for_each(async |node| {
        let queue = shared(node, "gone").await;
        let seen = Seen::default();
        let see = seen.clone();
        let failing = consumer(node, &queue).on_any(move |message: Message, context: Context| {
            see.note_attempt(&message, &context);
            async { Err::<(), _>("always") }
        });
        let running = Running::start(failing);
        let sender = producer(node).await;
        send(&sender, &queue, ["first".to_owned()]).await;
        running.until(|tally| tally.dead == 1).await;
        for of in ["retry.200ms", "retry.400ms", "dead"] {
            node.delete_queue(&format!("{queue}.{of}")).await.unwrap();
        }
        send(&sender, &queue, ["lonely".to_owned()]).await;
        // Three copies for its retries, which then are made in place, and two of the dead letter.
        running.until(|tally| tally.unconfirmed_copies >= 5).await;
        assert_eq!(running.tally().received - 4, 1, "it was handed out again and again");
        assert_eq!(seen.all()[4..], ["lonely#1", "lonely#2", "lonely#3", "lonely#4"]);
        running.kill().await;
        until_depth(node, &queue, 1).await;
    })
    .await;
}

// 4. The same message has one effect

/// Handles five messages whose acknowledgements get lost with the connection, and says what the handlers saw.
async fn acknowledgements_lost(node: &correio_lab::broker::Node, deduplication: Deduplication) -> (Seen, u64) {
    let queue = shared(node, "acks-lost").await;
    let proxy = Proxy::start(node.amqp_address()).await.unwrap();
    let seen = Seen::default();
    let url = node.amqp_url_through(Login::Consumer, proxy.address());
    let running = Running::start(consumer_at(&url, &queue).deduplication(deduplication).on_any(note(&seen)));
    let sender = producer(node).await;
    send(&sender, &queue, ["first".to_owned()]).await;
    running.until(|tally| tally.handled == 1).await;
    // Deliveries still come; what the consumer says does not arrive.
    proxy.swallow(Direction::ClientToBroker);
    send(&sender, &queue, numbers(5)).await;
    running.until(|tally| tally.handled == 6).await;
    proxy.cut(Ending::Reset).await;
    running.until(|tally| tally.handled + tally.duplicates >= 11).await;
    until_depth(node, &queue, 0).await;
    let summary = running.stop().await;
    assert!(summary.counts.resubscribed >= 1);
    proxy.stop().await;
    (seen, summary.counts.duplicates)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_because_its_acknowledgement_was_lost_is_not_handled_again() {
    for_each(async |node| {
        let (seen, duplicates) = acknowledgements_lost(node, Deduplication::default()).await;
        assert_eq!(seen.len(), 6, "{:?}", seen.all());
        assert!(duplicates >= 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_on_purpose_without_deduplication_it_is_handled_twice() {
    for_each(async |node| {
        let (seen, duplicates) = acknowledgements_lost(node, Deduplication::Off).await;
        assert!(seen.len() >= 11, "{:?}", seen.all());
        assert_eq!(duplicates, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_copy_from_its_sender_is_a_duplicate_and_one_from_another_origin_with_the_same_id_is_not() {
    for_each(async |node| {
        let queue = shared(node, "copies").await;
        let seen = Seen::default();
        let running = Running::start(consumer(node, &queue).on_any(note(&seen)));
        let sender = producer(node).await;
        for origin in ["shop", "shop", "warehouse"] {
            let mut envelope = message(&queue, "1").encode(Durability::Persistent);
            envelope.properties.app_id = ShortText::new(origin).ok();
            forward(&sender, envelope).await;
        }
        running.until(|tally| tally.received == 3 && tally.handled + tally.duplicates == 3).await;
        let counts = running.stop().await.counts;
        assert_eq!((counts.handled, counts.duplicates), (2, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_failed_is_not_taken_for_a_duplicate_when_it_comes_back() {
    for_each(async |node| {
        let queue = shared(node, "twice").await;
        let seen = Seen::default();
        let see = seen.clone();
        let running = Running::start(consumer(node, &queue).on_any(move |message: Message, context: Context| {
            see.note_attempt(&message, &context);
            async move { if context.attempt().get() < 3 { Err("not yet") } else { Ok(Verdict::Done) } }
        }));
        send(&producer(node).await, &queue, ["a".to_owned()]).await;
        running.until(|tally| tally.handled == 1).await;
        let counts = running.stop().await.counts;
        assert_eq!(seen.all(), ["a#1", "a#2", "a#3"]);
        assert_eq!((counts.retried, counts.dead, counts.duplicates), (2, 0, 0));
    })
    .await;
}

// 6. What keeps failing is retried, then parked

/// Ten messages fail once, one always; says what is parked in the end.
async fn ten_fail_once_and_one_always(node: &correio_lab::broker::Node, retry: u32) -> (Vec<Envelope>, Seen) {
    let queue = shared(node, "failing").await;
    let seen = Seen::default();
    let see = seen.clone();
    let running = Running::start(consumer(node, &queue).processing(retries(retry)).on_any(
        move |message: Message, context: Context| {
            let fails = message.payload == "always" || context.attempt().get() == 1;
            if !fails {
                see.note(&message);
            }
            async move { if fails { Err(std::io::Error::other("no stock")) } else { Ok(()) } }
        },
    ));
    let messages = numbers(10).into_iter().chain(["always".to_owned()]);
    send(&producer(node).await, &queue, messages).await;
    running.until(|tally| tally.handled + tally.dead == 11).await;
    let summary = running.stop().await;
    assert!(!summary.is_clean());
    (take_all(node, &format!("{queue}.dead")).await, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_once_is_handled_and_what_fails_always_is_parked_with_its_reason() {
    for_each(async |node| {
        let (parked, seen) = ten_fail_once_and_one_always(node, 3).await;
        assert_eq!(seen.sorted(), numbers(10));
        assert_eq!(parked.len(), 1);
        let letter = DeadLetter::of(&parked[0]).unwrap();
        assert_eq!((letter.reason, letter.attempts.get()), (DeadReason::Failed, 4));
        assert!(letter.error.contains("no stock"));
        assert_eq!(parked[0].body, "always");
        assert_eq!(parked[0].properties.message_id.as_ref().unwrap(), &"always");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_on_purpose_without_retries_all_eleven_are_parked() {
    for_each(async |node| {
        let (parked, seen) = ten_fail_once_and_one_always(node, 0).await;
        assert_eq!((parked.len(), seen.len()), (11, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_with_an_expiry_and_a_user_is_retried_and_parked_as_a_copy_that_the_broker_takes() {
    for_each(async |node| {
        let queue = shared(node, "foreign").await;
        let seen = Seen::default();
        let see = seen.clone();
        let running = Running::start(consumer(node, &queue).processing(retries(1)).on_any(
            move |message: Message, context: Context| {
                let original = context.original();
                see.note_text(format!("{:?} {:?} {}", original.user, original.expiration, original.route));
                see.note_attempt(&message, &context);
                async { Err::<(), _>("no") }
            },
        ));
        let mut envelope = message(&queue, "f").encode(Durability::Persistent);
        envelope.properties.user_id = ShortText::new("lab").ok();
        envelope.properties.expiration = ShortText::new("60000").ok();
        envelope.properties.headers.insert(ShortText::new("x-death").unwrap(), Value::List(vec![]));
        forward(&producer(node).await, envelope).await;
        running.until(|tally| tally.dead == 1).await;
        assert_eq!(running.stop().await.counts.unconfirmed_copies, 0);
        let first = format!("Some(\"lab\") Some(\"60000\") correio.queue/{queue}");
        assert_eq!(seen.all(), [first.as_str(), "f#1", first.as_str(), "f#2"]);
        let parked = take_all(node, &format!("{queue}.dead")).await;
        assert_eq!((&parked[0].properties.user_id, &parked[0].properties.expiration), (&None, &None));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_handler_is_for_and_what_cannot_be_read_is_parked_with_its_bytes_untouched() {
    for_each(async |node| {
        #[derive(serde::Deserialize)]
        struct Order {
            #[expect(dead_code)]
            number: u32,
        }
        let queue = shared(node, "unreadable").await;
        let running = Running::start(
            consumer(node, &queue)
                .on("order.placed", |_: correio_consumer::Json<Order>| std::future::ready(Ok::<_, String>(()))),
        );
        let sender = producer(node).await;
        let typed = |name: &str, id: &str| message(&queue, id).with_type(ShortText::new(name).unwrap());
        for message in [typed("order.placed", "not json"), typed("order.lost", "strange"), message(&queue, "untyped")] {
            forward(&sender, message.encode(Durability::Persistent)).await;
        }
        running.until(|tally| tally.dead == 3).await;
        assert_eq!(running.stop().await.counts.retried, 0);
        let mut parked: Vec<_> = take_all(node, &format!("{queue}.dead"))
            .await
            .iter()
            .map(|letter| (letter.body.clone(), DeadLetter::of(letter).unwrap().reason))
            .collect();
        parked.sort();
        let expected = [
            ("not json", DeadReason::Unreadable),
            ("strange", DeadReason::UnknownType),
            ("untyped", DeadReason::UnknownType),
        ];
        assert_eq!(parked, expected.map(|(body, reason)| (body.into(), reason)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_nested_too_deep_is_parked_as_unreadable_with_its_bytes_untouched() {
    for_each(async |node| {
        let queue = shared(node, "deep").await;
        let anything = |_: correio_consumer::Json<serde_json::Value>| std::future::ready(Ok::<_, String>(()));
        let running = Running::start(consumer(node, &queue).on_any(anything));
        let deep = "[".repeat(100_000);
        let message = correio_message::Message { payload: deep.clone().into(), ..message(&queue, "deep") };
        forward(&producer(node).await, message.encode(Durability::Persistent)).await;
        running.until(|tally| tally.dead == 1).await;
        assert_eq!(running.stop().await.counts.retried, 0);
        let letters = take_all(node, &format!("{queue}.dead")).await;
        assert_eq!(DeadLetter::of(&letters[0]).unwrap().reason, DeadReason::Unreadable);
        assert!(letters[0].body == deep, "its bytes are others");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_queue_without_company_it_says_what_is_missing_and_ends_with_the_message_given_back() {
    for_each(async |node| {
        let queue = fresh("bare");
        node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
        let url = node.amqp_url(Login::Lab);
        let builder = || consumer_at(&url, &queue).processing(retries(1));
        let consumer = builder().on_any(|_: Message| std::future::ready(Ok::<_, String>(()))).build().unwrap();
        let startup = consumer.check().await.unwrap();
        assert_eq!(startup.no_parking_queue.as_deref(), Some(format!("{queue}.dead").as_str()));
        assert_eq!(startup.no_delay_queues, [format!("{queue}.retry.200ms")]);
        assert_eq!(startup.warnings(&queue).len(), 2);

        correio_tests::queues::exchange_with(node, "bare-exchange", &[&queue]).await;
        let mut envelope = message(&queue, "poison").encode(Durability::Persistent);
        envelope.route.exchange = ShortText::new("bare-exchange").unwrap();
        forward(&producer(node).await, envelope).await;
        let seen = Seen::default();
        let see = seen.clone();
        let running = Running::start(builder().on_any(move |message: Message, context: Context| {
            see.note_attempt(&message, &context);
            async { Err::<(), _>("no") }
        }));
        let error = running.ended().await.unwrap_err();
        assert!(matches!(&error, ConsumeError::NowhereToPark { message, .. } if message == "poison"), "{error}");
        assert!(error.to_string().contains("cargo broker apply --queue"), "{error}");
        assert_eq!(seen.all(), ["poison#1", "poison#2"]);
        until_depth(node, &queue, 1).await;
    })
    .await;
}

// 8. Stopping finishes what was started

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_is_at_work_and_the_rest_is_on_the_queue_for_the_next() {
    for_each(async |node| {
        let queue = shared(node, "stopping").await;
        let seen = Seen::default();
        let (see, gate) = (seen.clone(), Arc::new(Semaphore::new(0)));
        let pass = Arc::clone(&gate);
        let running = Running::start(consumer(node, &queue).on_any(move |message: Message, context: Context| {
            let (see, pass) = (see.clone(), Arc::clone(&pass));
            async move {
                tokio::select! {
                    permit = pass.acquire() => permit.map_err(|e| e.to_string())?.forget(),
                    () = context.stopping().cancelled() => {}
                }
                see.note(&message);
                Ok::<_, String>(())
            }
        }));
        send(&producer(node).await, &queue, numbers(50)).await;
        gate.add_permits(10);
        running.until(|tally| tally.handled == 10).await;
        let summary = running.stop().await;
        // Those at work ended when they were told of the stop; the others of the prefetch were never begun.
        assert_eq!(summary.counts.handled, 10 + u64::from(AT_ONCE.get()));
        assert!(summary.is_clean() && summary.counts.not_started > 0, "{summary:?}");
        until_depth(node, &queue, 50 - summary.counts.handled).await;
        let next = consumer(node, &queue).stop_when_idle(Duration::from_secs(1)).on_any(note(&seen));
        Running::start(next).ended().await.unwrap();
        assert_eq!(seen.sorted(), numbers(50));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_end_is_given_up_at_the_drain_deadline_and_its_message_comes_again() {
    for_each(async |node| {
        let queue = shared(node, "hanging").await;
        let running = Running::start(
            consumer(node, &queue)
                .drain_deadline(Duration::from_millis(300))
                .on_any(|_: Message| std::future::pending::<Result<(), String>>()),
        );
        send(&producer(node).await, &queue, ["a".to_owned()]).await;
        running.until(|tally| tally.received == 1).await;
        let began = std::time::Instant::now();
        let summary = running.stop().await;
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!((summary.counts.handed_back, summary.is_clean()), (1, false));
        until_depth(node, &queue, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_told_a_count_takes_that_many_and_leaves_the_rest() {
    for_each(async |node| {
        let queue = shared(node, "count").await;
        send(&producer(node).await, &queue, numbers(30)).await;
        let seen = Seen::default();
        let counted = consumer(node, &queue).stop_after_count(NonZeroU64::new(7).unwrap()).on_any(note(&seen));
        let summary = Running::start(counted).ended().await.unwrap();
        assert_eq!((summary.ended, summary.counts.handled, seen.len()), (Ended::CountReached, 7, 7));
        until_depth(node, &queue, 23).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_told_to_stop_when_idle_waits_for_the_retry_that_it_sent_round() {
    for_each(async |node| {
        let queue = shared(node, "idle").await;
        send(&producer(node).await, &queue, ["a".to_owned()]).await;
        let once =
            consumer(node, &queue).stop_when_idle(Duration::from_millis(150)).on_any(
                |_: Message, context: Context| async move {
                    if context.attempt().get() < 3 { Err("not yet") } else { Ok(()) }
                },
            );
        let summary = Running::start(once).ended().await.unwrap();
        assert_eq!((summary.ended, summary.counts.handled), (Ended::Idle, 1));
    })
    .await;
}

// What cannot begin says why

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_begin_says_why_and_what_to_do() {
    for_each(async |node| {
        let handler = |_: Message| std::future::ready(Ok::<_, String>(()));
        let ends = async |builder: correio_consumer::ConsumerBuilder| {
            Running::start(builder.on_any(handler)).ended().await.unwrap_err()
        };
        let nowhere = ends(consumer(node, "there-is-no-such-queue")).await;
        assert!(matches!(nowhere, ConsumeError::NoSuchQueue { .. }), "{nowhere}");
        assert!(nowhere.to_string().contains("cargo broker apply --queue there-is-no-such-queue"), "{nowhere}");

        let url = format!("amqp://consumer:wrong@{}/%2f", node.amqp_address());
        let began = std::time::Instant::now();
        let refused = ends(consumer_at(&url, "orders")).await;
        assert!(matches!(&refused, ConsumeError::Connect(error) if error.is_permanent()), "{refused}");
        assert!(began.elapsed() < Duration::from_secs(20), "a wrong password was tried again and again");

        let by_key = Processing::OrderedByKey {
            keys_at_once: AT_ONCE,
            parked: 16.try_into().unwrap(),
            gap_deadline: Duration::from_secs(1),
            gap_policy: correio_consumer::GapPolicy::Skip,
            retry: short_retries(2),
        };
        let lab = node.amqp_url(Login::Lab);
        let queue = shared(node, "shared").await;
        let not_ordered = ends(consumer_at(&lab, &queue).processing(by_key.clone())).await;
        assert!(matches!(not_ordered, ConsumeError::QueueIsShared { .. }), "{not_ordered}");

        let queue = ordered(node, "in-order").await;
        let fine = consumer_at(&lab, &queue).processing(by_key).on_any(handler).build().unwrap();
        assert!(fine.check().await.unwrap().is_complete());
    })
    .await;
}
