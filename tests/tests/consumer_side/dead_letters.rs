//! Dead letters stay when they are looked at, keep their identity when they are replayed, and none is lost on the way.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use correio_broker_config::Address;
use correio_consumer::dead_letters::{DeadLetters, ReplayFilter};
use correio_lab::broker::{Login, Node, for_each};
use correio_message::{
    DeadReason, Destination, Durability, Envelope, Exchange, Key, Message, MessageId, Route, ShortText,
};
use correio_tests::{
    programs::{Program, Ran},
    work_queues::WorkQueue,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_hundred_looks_leave_every_letter_where_it_is() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "looks").await;
        queue.park((0..50).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        let letters = letters(node, &queue);
        let all: Vec<String> = (0..50).map(|n| format!("id-{n}")).collect();
        for look in 0..100 {
            let listing = letters.list(DeadLetters::LIST_DEFAULT).await.expect("a listing");
            let ids: Vec<_> =
                listing.letters.iter().map(|letter| letter.id.as_ref().expect("an id").to_string()).collect();
            assert_eq!(ids, all, "look {look}");
        }
        assert_eq!(queue.dead().await, 50);
    })
    .await;
}

#[tokio::test]
async fn a_look_at_some_says_how_many_more_there_are_and_the_next_look_sees_the_same() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "part").await;
        queue.park((0..20).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        for _ in 0..25 {
            let listing = letters(node, &queue).list(NonZeroU32::new(5).expect("five")).await.expect("a listing");
            assert_eq!((listing.letters.len(), listing.more), (5, 15));
            assert_eq!(listing.letters[0].id.as_ref().expect("an id").as_str(), "id-0");
        }
        assert_eq!(queue.dead().await, 20);
    })
    .await;
}

#[tokio::test]
async fn the_program_lists_letters_for_people_and_for_programs() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "shown").await;
        queue.park([numbered(&queue, 7)], DeadReason::TimedOut).await;
        let words = dead_letters(node, &["list", "--from", queue.name()]).await;
        assert_eq!(words.code, Some(0), "{words}");
        assert!(
            words.stdout.starts_with("id-7  order.placed  timed-out after 6 attempts, parked 2023-11-14T"),
            "{words}"
        );
        assert!(words.stdout.contains("no stock") && words.stdout.contains("correio.queue/shown"), "{words}");
        assert!(words.stderr.contains("1 dead letter of shown"), "{words}");

        let json = dead_letters(node, &["list", "--from", queue.name(), "--json"]).await;
        let letter: Value = serde_json::from_str(json.stdout.trim()).expect("one JSON object");
        assert_eq!(
            (&letter["id"], &letter["reason"], &letter["attempts"], &letter["payload_start"]),
            (&"id-7".into(), &"timed-out".into(), &6.into(), &"{\"n\":7}".into())
        );
        assert_eq!(queue.dead().await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_replayed_letter_is_the_same_message_on_its_first_attempt() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "again").await;
        queue.park([numbered(&queue, 1)], DeadReason::Failed).await;
        let replayed = dead_letters(node, &["replay", "--from", queue.name()]).await;
        assert_eq!((replayed.code, replayed.stdout.as_str()), (Some(0), "replayed 1 (again)\n"), "{replayed}");
        assert_eq!(queue.dead().await, 0);

        let handled = consume(node, &queue, &["--json"]).await;
        let message: Value = serde_json::from_str(handled.stdout.trim()).expect("one JSON object");
        assert_eq!(
            message,
            serde_json::json!({
                "id": "id-1", "type": "order.placed", "key": "k-1", "origin": "shop", "attempt": 1,
                "redelivered": false, "payload": "{\"n\":1}",
            })
        );
    })
    .await;
}

#[tokio::test]
async fn only_wanted_letters_are_replayed_and_the_others_stay_in_their_order() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "wanted").await;
        queue.park((0..4).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        queue.park((4..6).map(|n| numbered(&queue, n)), DeadReason::Unreadable).await;

        let one = dead_letters(node, &["replay", "--from", queue.name(), "--id", "id-2"]).await;
        assert_eq!(one.stdout, "replayed 1, not wanted 5 (wanted)\n", "{one}");
        let two = dead_letters(node, &["replay", "--from", queue.name(), "--reason", "unreadable"]).await;
        assert_eq!(two.stdout, "replayed 2, not wanted 3 (wanted)\n", "{two}");
        let none = dead_letters(node, &["replay", "--from", queue.name(), "--type", "order.sent"]).await;
        assert_eq!((none.code, none.stdout.as_str()), (Some(0), "replayed 0, not wanted 3 (wanted)\n"), "{none}");
        let unknown = dead_letters(node, &["replay", "--from", queue.name(), "--id", "id-9"]).await;
        assert_eq!(unknown.code, Some(1), "{unknown}");
        assert!(unknown.stderr.contains("no dead letter of wanted has this id"), "{unknown}");
        let limited = dead_letters(node, &["replay", "--from", queue.name(), "--limit", "1", "--json"]).await;
        assert!(
            limited.stdout.contains("\"replayed\":1") && limited.stdout.contains("\"ended_early\":true"),
            "{limited}"
        );

        let left = letters(node, &queue).list(DeadLetters::LIST_DEFAULT).await.expect("a listing");
        let ids: Vec<_> = left.letters.iter().map(|letter| letter.id.as_ref().expect("an id").as_str()).collect();
        assert_eq!(ids, ["id-1", "id-3"]);
        assert_eq!(queue.depth().await, 4);
    })
    .await;
}

#[tokio::test]
async fn a_letter_goes_back_to_the_queue_that_it_names_or_else_to_the_one_it_was_parked_for() {
    for_each(async |node| {
        let here = WorkQueue::shared(node, "here").await;
        let there = WorkQueue::shared(node, "there").await;
        // As when a queue was renamed: the letter of a consumer of `there` is parked here.
        let parked = there.letter(numbered(&there, 1), DeadReason::Failed);
        here.forward([Envelope { route: dead_route("here.dead"), ..parked }]).await;
        // A stray that nobody parked names no queue.
        let stray = Message::new(Destination::Route(dead_route("here.dead")), "stray");
        here.forward([stray.encode(Durability::Persistent)]).await;

        let replayed = letters(node, &here).replay(&ReplayFilter::default(), None, &CancellationToken::new()).await;
        assert_eq!(replayed.expect("a replay").replayed, 2);
        assert_eq!((here.depth().await, there.depth().await), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_letter_whose_copy_no_queue_takes_stays_and_is_named() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "closed").await;
        queue.park((0..3).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        node.delete_queue(queue.name()).await.expect("deleted");
        let replayed = dead_letters(node, &["replay", "--from", queue.name()]).await;
        assert_eq!(replayed.code, Some(1), "{replayed}");
        assert!(replayed.stdout.starts_with("replayed 0, still parked although wanted 3 (closed)\n"), "{replayed}");
        assert!(replayed.stdout.contains("id-0: unroutable"), "{replayed}");
        assert_eq!(queue.dead().await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_replay_that_is_killed_midway_loses_no_letter() {
    const LETTERS: usize = 2_000;
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "killed").await;
        queue.park((0..LETTERS).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        let replay = Program::new("consumer")
            .args(["dead-letters", "replay", "--from", queue.name()])
            .env("AMQP_URL", node.amqp_url(Login::Consumer))
            .start();
        queue.until_depth(|depth| depth > 50).await;
        let killed = replay.kill().await;
        assert_eq!(killed.code, None, "it was done before it was killed: {killed}");
        queue.until_no_letter_is_held().await;

        // A replay takes as many as it is told are there when it begins, and what the killed one held may still come back.
        for _ in 0..10 {
            let again = dead_letters(node, &["replay", "--from", queue.name()]).await;
            assert_eq!(again.code, Some(0), "{again}");
            if queue.dead().await == 0 {
                break;
            }
        }
        assert_eq!(queue.dead().await, 0);
        let handled = consume(node, &queue, &["--json"]).await;
        assert_eq!(handled.code, Some(0), "{handled}");
        let ids: Vec<String> = handled
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned())
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), LETTERS, "a letter was lost");
        assert_eq!(ids.len(), LETTERS, "deduplication takes the copies that were out twice");
    })
    .await;
}

#[tokio::test]
async fn a_queue_without_a_parking_queue_is_wrong_usage_and_the_way_out_is_told() {
    for_each(async |node| {
        for what in ["list", "replay"] {
            let ran = dead_letters(node, &[what, "--from", "nowhere"]).await;
            assert_eq!(ran.code, Some(2), "{ran}");
            assert!(
                ran.stderr.contains("there is no queue nowhere.dead") && ran.stderr.contains("broker apply"),
                "{ran}"
            );
        }
    })
    .await;
}

fn numbered(queue: &WorkQueue<'_>, n: usize) -> Message {
    let short = |text: &str| ShortText::new(text).expect("short");
    let mut message = queue.message(format!("{{\"n\":{n}}}"));
    message.id = Some(MessageId::new(format!("id-{n}")).expect("an id"));
    message.message_type = Some(short("order.placed"));
    message.origin = Some(short("shop"));
    message.key = Some(Key::new(format!("k-{n}")).expect("a key"));
    message
}

fn dead_route(parking: &str) -> Route {
    Route { exchange: Exchange::Dead.name(), routing_key: ShortText::new(parking).expect("short") }
}

fn letters(node: &Node, queue: &WorkQueue<'_>) -> DeadLetters {
    let address = Address::parse(&node.amqp_url(Login::Consumer)).expect("an address");
    DeadLetters::of(address, ShortText::new(queue.name()).expect("short"))
}

async fn dead_letters(node: &Node, args: &[&str]) -> Ran {
    let url = node.amqp_url(Login::Consumer);
    Program::new("consumer").args(["dead-letters"]).args(args).env("AMQP_URL", url).finish(PATIENCE).await
}

async fn consume(node: &Node, queue: &WorkQueue<'_>, args: &[&str]) -> Ran {
    let url = node.amqp_url(Login::Consumer);
    let run = ["run", "--from", queue.name(), "--idle", "1"];
    Program::new("consumer").args(run).args(args).env("AMQP_URL", url).finish(PATIENCE).await
}

const PATIENCE: Duration = Duration::from_secs(60);
