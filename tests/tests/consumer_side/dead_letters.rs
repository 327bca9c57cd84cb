//! Dead letters stay when they are looked at, keep their identity when they are replayed, and none is lost on the way.

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use correio_broker_config::Address;
use correio_consumer::dead_letters::{DeadLetters, LettersFilter, LookEnd, ReplaySettings};
use correio_lab::broker::{Login, Node, for_each};
use correio_message::{
    DeadReason, Destination, Durability, Envelope, Exchange, Key, Message, MessageId, Route, ShortText,
    Value as WireValue, header,
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
            let listing = letters.list(&LettersFilter::default()).await.expect("a listing");
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
            let five = LettersFilter { limit: NonZeroU32::new(5), ..LettersFilter::default() };
            let listing = letters(node, &queue).list(&five).await.expect("a listing");
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
        let words = dead_letters(node, &["list", "--from", queue.name(), "--each"]).await;
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
async fn the_program_tells_how_many_letters_there_are_of_which_reason_and_type() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "grouped").await;
        queue.park((0..3).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        let sent = numbered(&queue, 3);
        let sent = Message { message_type: ShortText::new("order.sent").ok(), ..sent };
        queue.park([sent], DeadReason::Unreadable).await;

        let words = dead_letters(node, &["list", "--from", queue.name()]).await;
        assert_eq!(words.code, Some(0), "{words}");
        let (first, second) = words.stdout.split_once("      1").expect("two groups");
        assert!(first.starts_with("      3  failed  order.placed, first failure 2023-11-14T"), "{words}");
        assert!(first.contains("such as id-0: no stock"), "{words}");
        assert!(second.starts_with("  unreadable  order.sent,") && second.contains("such as id-3"), "{words}");
        assert!(words.stderr.contains("4 dead letters of grouped"), "{words}");

        let json =
            dead_letters(node, &["list", "--from", queue.name(), "--json", "--groups", "--type", "order.sent"]).await;
        let group: Value = serde_json::from_str(json.stdout.trim()).expect("one JSON object");
        assert_eq!((&group["count"], &group["example"]), (&1.into(), &"id-3".into()));
        assert_eq!(queue.dead().await, 4);
    })
    .await;
}

#[tokio::test]
async fn a_letter_is_shown_whole_and_stays() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "whole").await;
        let long = Message { payload: "x".repeat(5_000).into(), ..numbered(&queue, 2) };
        queue.park([numbered(&queue, 1), long], DeadReason::Failed).await;
        let words = dead_letters(node, &["show", "--from", queue.name(), "--id", "id-2"]).await;
        assert_eq!(words.code, Some(0), "{words}");
        for said in
            ["id:             id-2\n", "key:            k-2\n", "error:          no stock\n", "attempts:       6\n"]
        {
            assert!(words.stdout.contains(said), "{said} in {words}");
        }
        assert!(words.stdout.ends_with(&format!("payload, 5000 bytes:\n{}\n", "x".repeat(5_000))), "{words}");
        let none = dead_letters(node, &["show", "--from", queue.name(), "--id", "id-9"]).await;
        assert_eq!(none.code, Some(1), "{none}");
        assert!(none.stderr.contains("no dead letter of whole has this id"), "{none}");
        assert_eq!(queue.dead().await, 2);
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

        let left = letters(node, &queue).list(&LettersFilter::default()).await.expect("a listing");
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

        let dry = dead_letters(node, &["replay", "--from", here.name(), "--dry-run"]).await;
        assert_eq!((dry.code, dry.stdout.as_str()), (Some(0), "would replay 1 to here, 1 to there (here)\n"), "{dry}");
        assert!(dry.stderr.contains("nothing was sent"), "{dry}");
        assert_eq!((here.depth().await, there.depth().await, here.dead().await), (0, 0, 2));

        let replayed = dead_letters(node, &["replay", "--from", here.name()]).await;
        assert_eq!(replayed.stdout, "replayed 2 (here)\n", "{replayed}");
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
async fn a_letter_that_may_be_forgotten_is_not_replayed_unless_that_is_forced() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "forgotten").await;
        let mut old = queue.letter(numbered(&queue, 1), DeadReason::Failed);
        old.properties.headers.insert(ShortText::constant(header::RETENTION_US), WireValue::I64(3_600_000_000));
        queue.forward([old, queue.letter(numbered(&queue, 2), DeadReason::Failed)]).await;

        let dry = dead_letters(node, &["replay", "--from", queue.name(), "--dry-run"]).await;
        assert_eq!(dry.code, Some(1), "{dry}");
        assert!(dry.stdout.starts_with("would replay 1 to forgotten, would leave although wanted 1 ("), "{dry}");
        let replayed = dead_letters(node, &["replay", "--from", queue.name()]).await;
        assert_eq!(replayed.code, Some(1), "{replayed}");
        assert!(replayed.stdout.starts_with("replayed 1, still parked although wanted 1 (forgotten)\n"), "{replayed}");
        assert!(replayed.stdout.contains("id-1: parked ") && replayed.stdout.contains("for 1 h"), "{replayed}");
        assert_eq!((queue.depth().await, queue.dead().await), (1, 1));

        let forced = dead_letters(node, &["replay", "--from", queue.name(), "--force"]).await;
        assert_eq!((forced.code, forced.stdout.as_str()), (Some(0), "replayed 1 (forgotten)\n"), "{forced}");
        assert_eq!((queue.depth().await, queue.dead().await), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn a_letter_says_how_long_its_consumer_remembers_what_was_handled() {
    for_each(async |node| {
        for (name, dedup, said) in [("an-hour", "memory", Value::from(3_600.0)), ("nothing", "off", Value::Null)] {
            let queue = WorkQueue::shared(node, name).await;
            queue.fill([numbered(&queue, 1)]).await;
            let ran = consume(node, &queue, &["--exec", "false", "--retries", "0", "--dedup", dedup]).await;
            assert_eq!(ran.code, Some(1), "{ran}");
            let shown = dead_letters(node, &["show", "--from", queue.name(), "--json"]).await;
            let letter: Value = serde_json::from_str(shown.stdout.trim()).expect("one JSON object");
            assert_eq!(letter["remembered_for_seconds"], said, "{shown}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_replay_at_a_rate_sends_no_more_than_that_and_stops_in_between() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "paced").await;
        queue.park((0..30).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        let (letters, stop) = (letters(node, &queue), CancellationToken::new());
        let slowly = ReplaySettings { per_second: NonZeroU32::new(1), ..ReplaySettings::default() };
        let three = LettersFilter { limit: NonZeroU32::new(3), ..LettersFilter::default() };
        let began = Instant::now();
        assert_eq!(letters.replay(&three, &slowly, &stop).await.expect("a replay").replayed, 3);
        // However slow the machine is, it is not faster: the second and the third had to wait for their turn.
        assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());

        let all = LettersFilter::default();
        let (done, ()) = tokio::join!(letters.replay(&all, &slowly, &stop), async {
            queue.until_depth(|depth| depth > 3).await;
            stop.cancel();
        });
        let done = done.expect("a replay");
        // Half a minute would be over for all of them.
        assert!((1..27).contains(&done.replayed) && done.ended == LookEnd::Stopped, "{done:?}");
        assert_eq!(queue.depth().await, u64::from(3 + done.replayed));
        assert_eq!(queue.dead().await, u64::from(27 - done.replayed));
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
        let copies = queue.depth().await;
        let handled = consume(node, &queue, &["--json"]).await;
        assert_eq!(handled.code, Some(0), "{handled}");
        let ids: Vec<String> = handled
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned())
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), LETTERS, "a letter was lost");
        assert_eq!(ids.len(), LETTERS, "deduplication takes the copies that were out twice");
        let twice = copies - LETTERS as u64;
        assert!(
            handled.stderr.contains(&format!("\"duplicates\":{twice},")),
            "{twice} were out twice: {}",
            handled.stderr
        );
    })
    .await;
}

#[tokio::test]
async fn a_queue_without_a_parking_queue_is_wrong_usage_and_the_way_out_is_told() {
    for_each(async |node| {
        for what in
            [&["list"][..], &["show"], &["export", "-"], &["replay"], &["replay", "--dry-run"], &["purge", "--yes"]]
        {
            let ran = dead_letters(node, &[what, &["--from", "nowhere"]].concat()).await;
            assert_eq!(ran.code, Some(2), "{ran}");
            assert!(
                ran.stderr.contains("there is no queue nowhere.dead") && ran.stderr.contains("broker apply"),
                "{ran}"
            );
        }
    })
    .await;
}

pub(super) fn numbered(queue: &WorkQueue<'_>, n: usize) -> Message {
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

pub(super) async fn dead_letters(node: &Node, args: &[&str]) -> Ran {
    let url = node.amqp_url(Login::Consumer);
    Program::new("consumer").args(["dead-letters"]).args(args).env("AMQP_URL", url).finish(PATIENCE).await
}

async fn consume(node: &Node, queue: &WorkQueue<'_>, args: &[&str]) -> Ran {
    let url = node.amqp_url(Login::Consumer);
    let run = ["run", "--from", queue.name(), "--idle", "1"];
    Program::new("consumer").args(run).args(args).env("AMQP_URL", url).finish(PATIENCE).await
}

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
