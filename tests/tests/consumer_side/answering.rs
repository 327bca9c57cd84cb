//! Who asks a consumer gets an answer: plain requesters, handlers that fail in every way, and faults on either side.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use correio_consumer::{Context, Deduplication, Message, Processing, Reply, RetrySchedule, Verdict};
use correio_lab::{
    broker::{Login, Node, NodeOptions, for_each, for_each_own},
    faults::{Direction, Ending, Proxy},
};
use correio_message::{DeadLetter, DeadReason, Destination, Durability, ShortText};
use correio_tests::{
    consuming::{AT_ONCE, Running, Seen, consumer, consumer_at, shared, until, until_depth},
    programs::{Program, Run},
    queues::{fresh, take_all},
    requester::{Answer, Answers, Requester},
    scale,
    subscribers::Whose,
    work_queues::WorkQueue,
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(120);

fn numbers(count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("r{n:05}")).collect()
}

fn kind(answer: &Answer) -> (&str, &str) {
    match &answer.says {
        Ok(text) => ("", text),
        Err(error) => (error.kind.as_str(), &error.text),
    }
}

/// Answers with what it was asked, after a moment, and notes that it was.
fn echo(seen: &Seen, moment: Duration) -> impl correio_consumer::Handler<(Message, Context)> {
    let seen = seen.clone();
    move |message: Message, _: Context| {
        let seen = seen.clone();
        async move {
            tokio::time::sleep(moment).await;
            seen.note(&message);
            Ok::<_, String>(Reply::new([b"to ", &message.payload[..]].concat()))
        }
    }
}

/// Each of these has its own answer from [`echo`], and nobody else has one.
fn assert_echoes(answers: &Answers, ids: &[String]) {
    let wanted: Answers = ids.iter().map(|id| (format!("c-{id}"), Ok(format!("to {id}")))).collect();
    let wrong: Vec<_> = answers.iter().filter(|(to, says)| wanted.get(*to) != Some(says)).collect();
    let missing: Vec<_> = wanted.keys().filter(|to| !answers.contains_key(*to)).collect();
    assert!(wrong.is_empty() && missing.is_empty(), "wrong: {wrong:?}; missing: {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_requester_gets_the_answers_to_its_own_requests_from_a_queue_and_from_a_mailbox() {
    for_each(async |node| {
        let queue = shared(node, "service").await;
        let ana = Whose::Mailbox(fresh("ana"));
        let Whose::Mailbox(name) = &ana else { unreachable!() };
        let seen = Seen::default();
        let services = [
            Running::start(consumer(node, &queue).on_any(echo(&seen, Duration::ZERO))),
            Running::begin(ana.at(node).on_any(echo(&seen, Duration::ZERO))).await.1,
        ];
        let (mut one, mut other) = (Requester::connect(node).await, Requester::connect(node).await);
        for to in [Destination::queue(&queue).unwrap(), Destination::mailbox(name).unwrap()] {
            for id in numbers(50) {
                one.ask(&one.request(&to, &format!("one-{id}"), &format!("one-{id}"), LONG)).await;
                other.ask(&other.request(&to, &format!("other-{id}"), &format!("other-{id}"), LONG)).await;
            }
            for (requester, who) in [(&mut one, "one"), (&mut other, "other")] {
                let ids: Vec<_> = numbers(50).iter().map(|id| format!("{who}-{id}")).collect();
                assert_echoes(&requester.answers(50).await, &ids);
            }
        }
        for (running, requester) in services.into_iter().zip([one, other]) {
            let counts = running.stop().await.counts;
            assert_eq!((counts.handled, counts.replied, counts.unanswered), (100, 100, 0));
            requester.leave().await;
        }
        assert_eq!(seen.len(), 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_a_request_is_answered_with_what_became_of_it() {
    for_each(async |node| {
        let queue = shared(node, "ends").await;
        let running = Running::start(
            consumer(node, &queue)
                .handler_deadline(Duration::from_millis(300))
                .processing(Processing::Independent { at_once: AT_ONCE, retry: RetrySchedule::none() })
                .on("fails", |_: Message| async { Err::<(), _>("no stock") })
                .on("panics", |message: Message| async move {
                    assert!(message.payload.is_empty(), "out of its mind");
                    Ok::<_, String>(())
                })
                .on("hangs", |_: Message| std::future::pending::<Result<(), String>>())
                .on("dead", |_: Message| async {
                    Ok::<_, String>(Verdict::DeadLetter { reason: "not mine".to_owned() })
                })
                .on("dropped", |_: Message| async { Ok::<_, String>(Verdict::Drop { reason: "why not".to_owned() }) })
                .on("refused", |_: Message| async { Ok::<_, String>(Reply::error("no-funds", "12 are missing")) })
                .on("done", |_: Message| async { Ok::<_, String>(()) })
                .on("json", |_: correio_consumer::Json<u32>| async { Ok::<_, String>(()) }),
        );
        let mut requester = Requester::connect(node).await;
        let to = Destination::queue(&queue).unwrap();
        let wanted: [(&str, &str, &str, bool); 9] = [
            ("fails", "failed", "no stock", true),
            ("panics", "panicked", "out of its mind", true),
            ("hangs", "timed-out", "300ms", true),
            ("dead", "asked", "not mine", true),
            ("strange", "unknown-type", "strange", true),
            ("json", "unreadable", "", true),
            ("dropped", "dropped", "why not", false),
            ("refused", "no-funds", "12 are missing", false),
            ("done", "", "", false),
        ];
        let mut letters = BTreeMap::new();
        for (name, error, text, is_parked) in wanted {
            let request = requester.request(&to, name, "x", LONG).with_type(ShortText::new(name).unwrap());
            requester.ask(&request).await;
            let answer = requester.answer().await;
            assert_eq!((answer.to.clone(), kind(&answer).0), (format!("c-{name}"), error), "{answer:?}");
            assert!(kind(&answer).1.contains(text), "{answer:?}");
            if is_parked {
                letters.insert(name.to_owned(), error.to_owned());
            }
        }
        let counts = running.stop().await.counts;
        assert_eq!((counts.replied, counts.dead, counts.dropped, counts.handled), (9, 6, 1, 2));
        let parked: BTreeMap<_, _> = take_all(node, &format!("{queue}.dead"))
            .await
            .iter()
            .map(|letter| {
                let id = letter.properties.message_id.as_ref().unwrap().to_string();
                (id, DeadLetter::of(letter).unwrap().reason.as_str().to_owned())
            })
            .collect();
        assert_eq!(
            parked, letters,
            "what was answered with an error is a dead letter too, as it is without a requester"
        );
        requester.nothing_more().await;
        requester.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_and_then_succeeds_is_answered_once_and_one_that_could_not_in_time_hears_it_at_once() {
    for_each(async |node| {
        let queue = shared(node, "again").await;
        let running = Running::start(consumer(node, &queue).on_any(|_: Message, context: Context| async move {
            if context.attempt() < NonZeroU32::new(3).unwrap() { Err("not yet") } else { Ok(Reply::new("at last")) }
        }));
        let mut requester = Requester::connect(node).await;
        let to = Destination::queue(&queue).unwrap();
        requester.ask(&requester.request(&to, "patient", "x", LONG)).await;
        let answer = requester.answer().await;
        assert_eq!((answer.to.as_str(), kind(&answer)), ("c-patient", ("", "at last")));
        let began = std::time::Instant::now();
        let second = Duration::from_millis(500);
        requester.ask(&requester.request(&to, "hasty", "x", second)).await;
        let answer = requester.answer().await;
        assert!(began.elapsed() < second, "it is told while it waits");
        assert_eq!((answer.to.as_str(), kind(&answer).0), ("c-hasty", "failed"));
        let counts = running.stop().await.counts;
        assert_eq!((counts.handled, counts.dead, counts.replied), (1, 1, 2));
        requester.nothing_more().await;
        requester.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_request_is_not_worked_on_and_without_a_deadline_it_is() {
    for_each(async |node| {
        let queue = shared(node, "late").await;
        let mut requester = Requester::connect(node).await;
        let to = Destination::queue(&queue).unwrap();
        // Without its expiry the broker hands it out; its own deadline stops it.
        for id in numbers(20) {
            let request = requester.request(&to, &id, &id, Duration::from_millis(1));
            let mut envelope = request.encode(Durability::Persistent);
            envelope.properties.expiration = None;
            requester.publish(&envelope).await;
        }
        // Broken on purpose: nobody says how long they wait.
        let patient = numbers(40).split_off(20);
        for id in &patient {
            let request = Message { deadline_us: None, ..requester.request(&to, id, id, LONG) };
            requester.ask(&request).await;
        }
        let seen = Seen::default();
        let running = Running::start(consumer(node, &queue).on_any(echo(&seen, Duration::ZERO)));
        assert_echoes(&requester.answers(20).await, &patient);
        running.until(|tally| tally.late_requests == 20).await;
        let counts = running.stop().await.counts;
        assert_eq!((counts.handled, counts.replied, counts.dead), (20, 20, 0));
        assert_eq!(seen.sorted(), patient);
        for left in [queue.clone(), format!("{queue}.dead")] {
            until_depth(node, &left, 0).await;
        }
        requester.nothing_more().await;
        requester.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_expires_while_nobody_is_there_is_not_worked_on_and_the_broker_parks_it() {
    for_each(async |node| {
        let queue = shared(node, "expired").await;
        let mut requester = Requester::connect(node).await;
        let to = Destination::queue(&queue).unwrap();
        for id in numbers(10) {
            requester.ask(&requester.request(&to, &id, &id, Duration::from_millis(100))).await;
        }
        until_depth(node, &format!("{queue}.dead"), 10).await;
        until_depth(node, &queue, 0).await;
        let letters = take_all(node, &format!("{queue}.dead")).await;
        for letter in letters.iter().map(|letter| DeadLetter::of(letter).unwrap()) {
            assert!(letter.reason == DeadReason::Broker && letter.error.contains("expired"), "{letter:?}");
        }
        let seen = Seen::default();
        let running = Running::start(consumer(node, &queue).on_any(echo(&seen, Duration::ZERO)));
        requester.ask(&requester.request(&to, "next", "next", LONG)).await;
        assert_echoes(&requester.answers(1).await, &["next".to_owned()]);
        assert_eq!(running.stop().await.counts.received, 1);
        requester.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_gone_is_counted_and_their_requests_are_done() {
    for_each(async |node| {
        let queue = shared(node, "gone").await;
        let (requester, mut staying) = (Requester::connect(node).await, Requester::connect(node).await);
        let to = Destination::queue(&queue).unwrap();
        for id in numbers(20) {
            requester.ask(&requester.request(&to, &id, &id, LONG)).await;
        }
        requester.leave().await;
        staying.ask(&staying.request(&to, "stays", "stays", LONG)).await;
        let seen = Seen::default();
        let running = Running::start(consumer(node, &queue).on_any(echo(&seen, Duration::ZERO)));
        assert_echoes(&staying.answers(1).await, &["stays".to_owned()]);
        running.until(|tally| tally.unanswered == 20).await;
        let summary = running.stop().await;
        assert!(summary.is_clean(), "{summary:?}");
        assert_eq!((summary.counts.handled, summary.counts.replied), (21, 1));
        for left in [queue.clone(), format!("{queue}.dead")] {
            until_depth(node, &left, 0).await;
        }
        staying.leave().await;
    })
    .await;
}

// Faults

/// Cuts the consumer's connection while handlers work; says how often handlers ran and how many further answers came.
async fn cut_while_handlers_work(node: &Node, deduplication: Deduplication) -> (usize, usize) {
    let count = scale::of(2_000, 10);
    let queue = shared(node, "cut").await;
    let proxy = Proxy::start(node.amqp_address()).await.unwrap();
    let seen = Seen::default();
    let url = node.amqp_url_through(Login::Consumer, proxy.address());
    let builder = consumer_at(&url, &queue).deduplication(deduplication);
    let running = Running::start(builder.on_any(echo(&seen, Duration::from_millis(5))));
    let mut requester = Requester::connect(node).await;
    let to = Destination::queue(&queue).unwrap();
    let ids = numbers(count);
    requester.ask(&requester.request(&to, &ids[0], &ids[0], LONG)).await;
    let mut answers = requester.answers(1).await;
    // From here on nothing that the consumer says arrives: neither answers nor acknowledgements, until the cut.
    proxy.swallow(Direction::ClientToBroker);
    for id in &ids[1..] {
        requester.ask(&requester.request(&to, id, id, LONG)).await;
    }
    until(|| seen.len() > 10, || format!("{}", seen.len())).await;
    proxy.cut(Ending::Reset).await;
    for part in 1..=2 {
        until(|| seen.len() as u64 > count * part / 3, || format!("{}", seen.len())).await;
        proxy.cut(Ending::Reset).await;
    }
    let mut further = requester.gather(&mut answers, ids.len()).await;
    assert_echoes(&answers, &ids);
    until_depth(node, &queue, 0).await;
    let counts = running.stop().await.counts;
    println!("{} handled, {further} further answers: {counts:?}", seen.len());
    assert!(counts.resubscribed >= 2, "{counts:?}");
    while further < (counts.replied + counts.unanswered) as usize - ids.len() {
        requester.answer().await;
        further += 1;
    }
    until_depth(node, &format!("{queue}.dead"), 0).await;
    requester.leave().await;
    proxy.stop().await;
    (seen.len() - ids.len(), further)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_channel_is_cut_while_handlers_work_each_request_is_answered_and_worked_on_once() {
    for_each(async |node| {
        let (again, _) = cut_while_handlers_work(node, Deduplication::default()).await;
        assert_eq!(again, 0, "handlers ran again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_on_purpose_without_deduplication_requests_are_worked_on_twice() {
    for_each(async |node| {
        let (again, further) = cut_while_handlers_work(node, Deduplication::Off).await;
        assert!(again >= 10 && further >= 1, "{again} again, {further} further answers");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_broker_is_killed_while_handlers_work_each_request_is_answered() {
    for_each_own(NodeOptions::default(), async |node| {
        let count = scale::of(2_000, 10);
        let queue = shared(node, "killed").await;
        let ids = numbers(count);
        let requester = Requester::connect(node).await;
        let to = Destination::queue(&queue).unwrap();
        for id in &ids {
            requester.ask(&requester.request(&to, id, id, LONG)).await;
        }
        node.settle_before_kill().await;
        let seen = Seen::default();
        let running = Running::start(consumer(node, &queue).on_any(echo(&seen, Duration::from_millis(5))));
        until(|| seen.len() as u64 > count / 3, || format!("{}", seen.len())).await;
        node.kill_at_once().await.unwrap();
        node.restart().await.unwrap();
        until(|| seen.len() as u64 >= count, || format!("{}", seen.len())).await;
        // The requester's own connection died with the broker; its queue, and the answers in it, did not.
        running.until(|tally| tally.replied >= count).await;
        until_depth(node, &queue, 0).await;
        let counts = running.stop().await.counts;
        assert_eq!((seen.sorted(), counts.unanswered), (ids.clone(), 0), "{counts:?}");
        let mut first = Answers::new();
        for answer in take_all(node, requester.queue()).await {
            let message = answer.decode().unwrap().message;
            let says = message.error.map_or_else(|| Ok(String::from_utf8_lossy(&message.payload).into_owned()), Err);
            first.entry(message.correlation_id.unwrap().to_string()).or_insert(says);
        }
        assert_echoes(&first, &ids);
    })
    .await;
}

fn responder(node: &Node, queue: &str) -> Run {
    Program::new("consumer")
        .args(["run", "--from", queue, "--exec", "printf 'to '; cat"])
        .env("AMQP_URL", node.amqp_url(Login::Consumer))
        .start()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_program_is_killed_in_the_middle_every_request_is_answered_after_its_restart() {
    for_each(async |node| {
        let ids = numbers(scale::of(2_000, 10));
        let queue = WorkQueue::shared(node, &fresh("program")).await;
        let mut requester = Requester::connect(node).await;
        let to = Destination::queue(queue.name()).unwrap();
        let service = responder(node, queue.name());
        for id in &ids {
            requester.ask(&requester.request(&to, id, id, LONG)).await;
        }
        let mut answers = requester.answers(ids.len() / 3).await;
        service.kill().await;
        let service = responder(node, queue.name());
        let further = requester.gather(&mut answers, ids.len()).await;
        assert_echoes(&answers, &ids);
        queue.until_depth(|depth| depth == 0).await;
        service.signal(Signal::SIGTERM);
        let ended = service.finish(PATIENCE).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended}");
        println!("{further} answered twice: what the killed one had not acknowledged");
        assert_eq!(queue.dead().await, 0);
        requester.leave().await;
    })
    .await;
}
