//! The program `consumer run`: what it prints and runs, how it stops, and what its exit code says.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use correio_lab::broker::{Login, Node, for_each};
use correio_message::{Destination, Key, Message, MessageId, ShortText};
use correio_tests::{
    programs::{Program, Ran, Run, program},
    queues::fresh,
    subscribers::{send_to, sender},
    work_queues::WorkQueue,
};
use nix::sys::signal::Signal;
use serde_json::Value;

#[tokio::test]
async fn each_payload_is_a_line_of_output_and_it_stops_when_nothing_more_comes() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "lines").await;
        queue.fill_lines(["one", "two", "three"]).await;
        let ran = run(node, &queue, &["--idle", "1"]).await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(sorted(&ran.stdout), ["one", "three", "two"]);
        assert!(ran.stderr.contains("consuming lines") && ran.stderr.contains("as user consumer"), "{ran}");
        assert!(ran.stderr.contains("handled 3, duplicate 0, out of order 0, retried 0, dead 0"), "{ran}");
        assert!(!ran.stderr.contains("consumer:consumer"), "a password is shown: {ran}");
        assert_eq!(queue.depth().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_file_is_appended_to_and_a_line_that_a_crash_cut_is_not_continued() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "file").await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("orders.txt");
        fs::write(&file, "before\ncu").expect("written");
        queue.fill_lines(["after"]).await;
        let ran = run(node, &queue, &["--count", "1", "--output", file.to_str().expect("UTF-8")]).await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(fs::read_to_string(&file).expect("read"), "before\ncu\nafter\n");
    })
    .await;
}

#[tokio::test]
async fn json_tells_what_is_known_of_a_message_and_counts_on_stderr() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "json").await;
        let mut message = queue.message(&b"\xff\n"[..]);
        message.id = Some(MessageId::new("a-1").expect("an id"));
        message.message_type = Some(ShortText::new("order.placed").expect("short"));
        message.key = Some(Key::new("k").expect("a key"));
        queue.fill([message]).await;
        let ran = run(node, &queue, &["--json", "--idle", "1"]).await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(
            serde_json::from_str::<Value>(ran.stdout.trim()).expect("one JSON object"),
            serde_json::json!({
                "id": "a-1", "type": "order.placed", "key": "k", "origin": "tests", "attempt": 1,
                "redelivered": false, "payload_base64": "/wo=",
            })
        );
        let summary = ran.stderr.lines().find(|line| line.starts_with("{\"summary\"")).expect("a summary");
        let summary: Value = serde_json::from_str(summary).expect("JSON");
        assert_eq!(
            (&summary["summary"]["counts"]["handled"], &summary["summary"]["ended"]),
            (&1.into(), &"idle".into())
        );
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_is_no_line_is_parked_and_a_replay_with_json_gets_it_out() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "broken-lines").await;
        queue.fill([queue.message("two\nlines"), queue.message("one line")]).await;
        let ran = run(node, &queue, &["--idle", "1"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "one line\n"), "{ran}");
        assert!(ran.stderr.contains("dead 1") && ran.stderr.contains("--json"), "{ran}");

        let url = node.amqp_url(Login::Consumer);
        let replay = ["dead-letters", "replay", "--from", queue.name(), "--reason", "unreadable"];
        let replayed = Program::new("consumer").args(replay).env("AMQP_URL", url).finish(PATIENCE).await;
        assert_eq!((replayed.code, replayed.stdout.as_str()), (Some(0), "replayed 1 (broken-lines)\n"), "{replayed}");
        let ran = run(node, &queue, &["--json", "--idle", "1"]).await;
        assert!(ran.stdout.contains("\"payload\":\"two\\nlines\""), "{ran}");
    })
    .await;
}

#[tokio::test]
async fn a_command_gets_the_payload_and_is_tried_again_until_it_ends_with_0() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "command").await;
        let mut message = queue.message("the payload");
        message.id = Some(MessageId::new("a-1").expect("an id"));
        message.message_type = Some(ShortText::new("order.placed").expect("short"));
        queue.fill([message]).await;
        let command = "echo \"$CORREIO_ATTEMPT $CORREIO_ID $CORREIO_TYPE ${CORREIO_KEY-none} $(cat)\"; \
                       test $CORREIO_ATTEMPT -ge 2";
        let ran = run(node, &queue, &["--count", "1", "--exec", command]).await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(ran.stdout, "1 a-1 order.placed none the payload\n2 a-1 order.placed none the payload\n");
        assert!(ran.stderr.contains("handled 1, duplicate 0, out of order 0, retried 1, dead 0"), "{ran}");
    })
    .await;
}

#[tokio::test]
async fn a_command_that_does_not_read_its_input_has_done_no_wrong() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "unread").await;
        queue.fill([queue.message(vec![b'x'; 1024 * 1024])]).await;
        let ran = run(node, &queue, &["--count", "1", "--exec", "true"]).await;
        assert_eq!(ran.code, Some(0), "{ran}");
    })
    .await;
}

#[tokio::test]
async fn a_command_that_keeps_failing_leaves_a_dead_letter_with_its_last_words() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "failing").await;
        queue.fill_lines(["x"]).await;
        let command = "echo no stock left >&2; exit 3";
        let ran = run(node, &queue, &["--count", "1", "--retries", "0", "--exec", command]).await;
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("--retries 0: a message that fails once is a dead letter"), "{ran}");

        let list = ["dead-letters", "list", "--from", queue.name(), "--each"];
        let url = node.amqp_url(Login::Consumer);
        let listed = Program::new("consumer").args(list).env("AMQP_URL", url).finish(PATIENCE).await;
        assert!(listed.stdout.contains("failed after 1 attempt,"), "{listed}");
        assert!(listed.stdout.contains("the command ended with exit status: 3: no stock left"), "{listed}");
    })
    .await;
}

#[tokio::test]
async fn order_by_key_is_kept_although_a_message_fails_in_between() {
    for_each(async |node| {
        let queue = WorkQueue::ordered(node, "in-order").await;
        let messages = (0..30).map(|n| {
            let mut message = queue.message(format!("{} {n}", n % 3));
            message.key = Some(Key::new(format!("{}", n % 3)).expect("a key"));
            message
        });
        queue.fill(messages).await;
        let command = "read -r key n; test $n != 4 || test $CORREIO_ATTEMPT -gt 1 || exit 1; echo $key $n";
        let ran = run(node, &queue, &["--ordered", "--count", "30", "--exec", command]).await;
        assert_eq!(ran.code, Some(0), "{ran}");
        for key in ["0", "1", "2"] {
            let numbers: Vec<u32> = ran
                .stdout
                .lines()
                .filter_map(|line| line.split_once(' ').filter(|(of, _)| *of == key))
                .map(|(_, n)| n.parse().expect("a number"))
                .collect();
            assert!(numbers.len() == 10 && numbers.is_sorted(), "{key}: {numbers:?}");
        }
        assert!(ran.stderr.contains("out of order 0, retried 1"), "{ran}");
    })
    .await;
}

#[tokio::test]
async fn the_first_signal_lets_what_was_begun_finish() {
    for_each(async |node| {
        for (name, signal) in [("term", Signal::SIGTERM), ("int", Signal::SIGINT)] {
            let queue = WorkQueue::shared(node, &format!("drained-{name}")).await;
            queue.fill_lines(["begun", "begun", "not begun"]).await;
            let command = "echo begun >&2; sleep 1; cat";
            let running = start(node, &queue, &["--concurrency", "2", "--exec", command]);
            running.stderr_until(PATIENCE, "two begun", |text| text.matches("begun\n").count() >= 2).await;
            running.signal(signal);
            let ran = running.finish(PATIENCE).await;
            assert_eq!(ran.stdout, "begunbegun", "{ran}");
            assert!(ran.stderr.contains("finishing what was begun"), "{ran}");
            assert_eq!(queue.depth().await, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn the_second_signal_stops_at_once_and_kills_the_command_and_the_message_goes_back() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "aborted").await;
        queue.fill_lines(["x"]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let late = folder.path().join("late");
        let command = format!("echo begun >&2; (sleep 3; touch {}) & wait", late.display());
        let running = start(node, &queue, &["--exec", &command]);
        running.stderr_says(PATIENCE, "begun\n").await;
        running.signal(Signal::SIGTERM);
        running.stderr_says(PATIENCE, "a second signal stops at once").await;
        let stopped = Instant::now();
        running.signal(Signal::SIGTERM);
        let ran = running.finish(PATIENCE).await;
        assert_eq!(ran.code, Some(1), "{ran}");
        queue.until_depth(|depth| depth == 1).await;
        // What the command had started would be done by now.
        tokio::time::sleep_until((stopped + Duration::from_secs(4)).into()).await;
        assert!(!late.exists(), "what the command had started went on");
    })
    .await;
}

#[tokio::test]
async fn when_nobody_reads_the_output_any_more_it_stops_and_loses_nothing() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "head").await;
        let lines: Vec<String> = (0..5_000).map(|n| format!("{n:0>100}")).collect();
        queue.fill_lines(lines.iter().map(String::as_str)).await;
        // `--retries 0`: were the closed pipe taken for a failure of a message, it would be a dead letter.
        let pipeline = format!(
            "{{ {} run --from {} --retries 0; echo exit $? >&2; }} | head -n 3",
            program("consumer").display(),
            queue.name()
        );
        let ran = Program::at("/bin/sh")
            .args(["-c", &pipeline])
            .env("AMQP_URL", node.amqp_url(Login::Consumer))
            .finish(PATIENCE)
            .await;
        assert_eq!(ran.stdout.lines().count(), 3, "{ran}");
        assert!(ran.stderr.contains("nobody reads the output any more: stopped"), "{ran}");
        assert!(ran.stderr.contains("exit 1") && !ran.stderr.contains("panicked"), "{ran}");
        assert_eq!(queue.dead().await, 0);
        let handled = handled(&ran);
        assert!(handled < 5_000);
        queue.until_depth(|depth| depth == 5_000 - handled).await;
    })
    .await;
}

#[tokio::test]
async fn when_the_disk_is_full_it_stops_and_loses_nothing() {
    for_each(async |node| {
        if !Path::new("/dev/full").exists() {
            return;
        }
        let queue = WorkQueue::shared(node, "full").await;
        queue.fill_lines(["x", "y"]).await;
        let ran = run(node, &queue, &["--retries", "0", "--output", "/dev/full"]).await;
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("No space left on device"), "{ran}");
        assert_eq!(queue.dead().await, 0);
        queue.until_depth(|depth| depth == 2).await;
    })
    .await;
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2_and_names_the_thing_and_the_way_out() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "wrong-usage").await;
        let cases: [(&[&str], &str); 5] = [
            (&["--from", "nowhere"], "broker apply --queue nowhere"),
            (&["--from", queue.name(), "--output", "/no/such/folder/file"], "/no/such/folder/file"),
            (&["--from", queue.name(), "--exec", "true", "--output", "x"], "--exec"),
            (&["--from", queue.name(), "--idle", "soon"], "soon"),
            (&[], "--from"),
        ];
        for (args, named) in cases {
            let ran = Program::new("consumer")
                .args(["run"])
                .args(args)
                .env("AMQP_URL", node.amqp_url(Login::Consumer))
                .finish(PATIENCE)
                .await;
            assert_eq!(ran.code, Some(2), "{args:?}: {ran}");
            assert!(ran.stderr.contains(named) && !ran.stderr.contains("panicked"), "{args:?}: {ran}");
        }
    })
    .await;
}

#[tokio::test]
async fn order_of_a_shared_queue_is_wrong_usage() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "shared").await;
        // A login that may look for the delay queues, which tell.
        let ran = Program::new("consumer")
            .args(["run", "--from", queue.name(), "--ordered"])
            .env("AMQP_URL", node.amqp_url(Login::Lab))
            .finish(PATIENCE)
            .await;
        assert_eq!(ran.code, Some(2), "{ran}");
        assert!(ran.stderr.contains("shared is a shared queue") && ran.stderr.contains("--ordered"), "{ran}");
    })
    .await;
}

#[tokio::test]
async fn no_broker_wrong_credentials_and_a_wrong_vhost_are_exit_code_3_and_show_no_password() {
    for_each(async |node| {
        let port = node.amqp_address().port();
        let cases = [
            ("amqp://consumer:s3cret@127.0.0.1:1/%2f".to_owned(), "no broker answers"),
            (format!("amqp://consumer:s3cret@127.0.0.1:{port}/%2f"), "login of user"),
            (format!("amqp://consumer:consumer@127.0.0.1:{port}/s3lsewhere"), "s3lsewhere"),
        ];
        for (url, named) in cases {
            let ran =
                Program::new("consumer").args(["run", "--from", "orders", "--amqp-url", &url]).finish(PATIENCE).await;
            assert_eq!(ran.code, Some(3), "{ran}");
            assert!(ran.stderr.contains(named) && !ran.stderr.contains("s3cret"), "{ran}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_queue_of_somebody_else_is_consumed_and_what_it_lacks_is_said() {
    for_each(async |node| {
        node.declare_queue("foreign", correio_lab::broker::QueueKind::Quorum).await.expect("declared");
        let ran = Program::new("consumer")
            .args(["run", "--from", "foreign", "--idle", "1"])
            .env("AMQP_URL", node.amqp_url(Login::Lab))
            .finish(PATIENCE)
            .await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(ran.stderr.contains("there is no parking queue foreign.dead"), "{ran}");
    })
    .await;
}

/// What fails waits for its retry on the broker, or in its place: not in a loop.
#[tokio::test]
async fn while_all_that_is_left_waits_for_its_retry_the_consumer_uses_no_cpu() {
    for_each(async |node| {
        for ordered in [false, true] {
            let queue = if ordered {
                WorkQueue::ordered(node, &fresh("idle")).await
            } else {
                WorkQueue::shared(node, &fresh("idle")).await
            };
            let messages = (1..=10).map(|n| Message { key: Key::new(format!("k{n}")).ok(), ..queue.message("x") });
            queue.fill(messages).await;
            let folder = tempfile::tempdir().expect("a folder");
            let attempts = folder.path().join("attempts");
            // After the third attempt each waits for 4 s.
            let failing = format!("echo $CORREIO_ATTEMPT >> {}; exit 1", attempts.display());
            let more: &[&str] = if ordered { &["--ordered"] } else { &[] };
            let run = start(node, &queue, &[&["--exec", &failing, "--no-breaker"], more].concat());
            let thirds =
                || fs::read_to_string(&attempts).unwrap_or_default().lines().filter(|line| *line == "3").count();
            let deadline = Instant::now() + PATIENCE;
            while thirds() < 10 {
                assert!(Instant::now() < deadline, "{} third attempts; {}", thirds(), run.stderr());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // What follows the attempts takes a moment: copies, acknowledgements.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let before = cpu_ticks(run.pid());
            tokio::time::sleep(Duration::from_secs(2)).await;
            let used = cpu_ticks(run.pid()) - before;
            assert_eq!(thirds(), 10);
            assert!(used < 20, "ordered: {ordered}: {used} hundredths of a second of CPU in 2 s");
            run.kill().await;
        }
    })
    .await;
}

/// What a process has used of the processors, its own children not counted, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that lives");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<_> = fields.split_whitespace().collect();
    // https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: utime and stime are the 14th and 15th.
    fields[11..=12].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

async fn run(node: &Node, queue: &WorkQueue<'_>, args: &[&str]) -> Ran {
    start(node, queue, args).finish(PATIENCE).await
}

fn start(node: &Node, queue: &WorkQueue<'_>, args: &[&str]) -> Run {
    Program::new("consumer")
        .args(["run", "--from", queue.name()])
        .args(args)
        .env("AMQP_URL", node.amqp_url(Login::Consumer))
        .start()
}

/// What the summary says was handled.
fn handled(ran: &Ran) -> u64 {
    let summary = ran.stderr.lines().find_map(|line| line.split_once("handled ")).expect("a summary").1;
    summary.split(',').next().and_then(|n| n.parse().ok()).expect("a number")
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn order_on_a_shared_queue_is_refused_to_the_shipped_user_too() {
    for_each(async |node| {
        let ran = Program::new("consumer")
            .args(["run", "--from", "orders", "--ordered", "--idle", "1"])
            .env("AMQP_URL", node.amqp_url(Login::Consumer))
            .finish(Duration::from_secs(60))
            .await;
        assert_eq!(ran.code, Some(2), "{ran}");
        assert!(ran.stderr.contains("--ordered") && ran.stderr.contains("apply --queue"), "{ran}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_without_any_properties_is_handled_and_what_it_lacks_is_said() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, &correio_tests::queues::fresh("bare")).await;
        let (connection, channel) = correio_tests::queues::plain(node).await;
        channel
            .basic_publish(
                "correio.queue".into(),
                queue.name().into(),
                lapin::options::BasicPublishOptions::default(),
                b"hello",
                lapin::BasicProperties::default(),
            )
            .await
            .unwrap();
        queue.until_depth(|depth| depth == 1).await;
        let ran = Program::new("consumer")
            .args(["run", "--from", queue.name(), "--json", "--idle", "1"])
            .env("AMQP_URL", node.amqp_url(Login::Consumer))
            .finish(Duration::from_secs(60))
            .await;
        assert_eq!(ran.code, Some(0), "{ran}");
        let told: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
        assert_eq!((&told["id"], &told["type"], &told["payload"]), (&Value::Null, &Value::Null, &"hello".into()));
        let summary: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(summary["summary"]["counts"]["without_id"], 1, "{ran}");
        connection.close(200, "OK".into()).await.unwrap();
    })
    .await;
}

async fn consumer_at(url: &str, args: &[&str]) -> Ran {
    Program::new("consumer").args(args.iter().copied()).env("AMQP_URL", url).finish(PATIENCE).await
}

#[tokio::test]
async fn an_address_that_cannot_be_is_wrong_usage_and_no_broker_is_asked() {
    let long = "x".repeat(256);
    let long_pattern = format!("{}.#", "x".repeat(254));
    let cases: [(&[&str], &str); 21] = [
        (&["run", "--group", "g"], "--topic"),
        (&["run", "--topic", "flight.#"], "--group"),
        (&["run", "--name", "ana"], "--broadcast"),
        (&["run", "--mailbox", "ana", "--broadcast"], "cannot be used with"),
        (&["run", "--mailbox", "ana", "--from", "orders"], "cannot be used with"),
        (&["run", "--mailbox", "ana", "--group", "g"], "cannot be used with"),
        (&["run", "--from", "orders", "--expires", "60"], "--expires"),
        (&["run", "--mailbox", "ana", "--expires", "0.5"], "from 1 s to 33 days"),
        (&["run", "--mailbox", ""], "the mailbox's name is empty"),
        (&["run", "--mailbox", &long], "at most 255"),
        (&["run", "--mailbox", "ana.dead"], "parking queue"),
        (&["run", "--mailbox", "a\nb"], "control character"),
        (&["run", "--topic", "flight*.LAX", "--group", "g"], "“flight*”"),
        (&["run", "--topic", "", "--group", "g"], "the topic's pattern is empty"),
        (&["run", "--topic", &long_pattern, "--group", "g"], "at most 255"),
        (&["run", "--topic", "#", "--group", ""], "the group's name is empty"),
        (&["run", "--topic", "#", "--group", "a.[b]"], "brackets"),
        (&["run", "--topic", &long[..200], "--group", "a-group-with-a-long-name"], "at most 255"),
        (&["run", "--broadcast", "--name", &long], "at most 255"),
        (&["dead-letters", "list", "--broadcast"], "--name"),
        (&["dead-letters", "replay", "--topic", "a#", "--group", "g"], "“a#”"),
    ];
    for (args, named) in cases {
        // Nobody listens there: who asked would end with exit code 3.
        let ran = consumer_at("amqp://consumer:consumer@127.0.0.1:1/%2f", args).await;
        assert_eq!(ran.code, Some(2), "{args:?}: {ran}");
        assert!(ran.stderr.contains(named) && !ran.stderr.contains("panicked"), "{args:?}: {named}: {ran}");
    }
}

#[tokio::test]
async fn a_mailbox_a_group_and_a_listener_are_made_by_the_program_which_says_when_they_begin_empty() {
    for_each(async |node| {
        let url = node.amqp_url(Login::Consumer);
        let tag = fresh("program");
        let pattern = format!("{tag}.*");
        let everyone = Destination::Everyone;
        let cases: [(&[&str], Destination, String, &str); 3] = [
            (
                &["--mailbox", &tag],
                Destination::mailbox(&tag).unwrap(),
                format!("correio.mailbox.{tag}"),
                "the mailbox",
            ),
            (
                &["--topic", &pattern, "--group", &tag],
                Destination::topic(format!("{tag}.x")).unwrap(),
                format!("correio.group.{tag}.[{pattern}]"),
                "for the group",
            ),
            (&["--broadcast", "--name", &tag], everyone, format!("correio.broadcast.{tag}"), "every broadcast as"),
        ];
        let producer = sender(node).await;
        for (address, to, queue, words) in cases {
            let idle = [&["run"], address, &["--idle", "0.5"]].concat();
            let ran = consumer_at(&url, &idle).await;
            assert_eq!(ran.code, Some(0), "{ran}");
            assert!(ran.stderr.contains(&format!("{queue} is new and begins empty")), "{ran}");
            assert!(ran.stderr.contains(words) && ran.stderr.contains("as user consumer"), "{ran}");

            send_to(&producer, &to, [format!("{tag} waited")]).await;
            let json = [&["run"], address, &["--count", "1", "--json"]].concat();
            let ran = consumer_at(&url, &json).await;
            assert_eq!(ran.code, Some(0), "{ran}");
            assert!(!ran.stderr.contains("begins empty\":true") && !ran.stderr.contains("is new"), "{ran}");
            assert!(ran.stdout.contains(&format!("{tag} waited")), "{ran}");
            let summary: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
            assert_eq!(summary["summary"]["queue"], queue.as_str(), "{ran}");
        }
        producer.close(PATIENCE).await;
    })
    .await;
}

#[tokio::test]
async fn who_may_have_no_queue_of_their_own_is_told_which_right_is_lacking_and_who_has_it() {
    for_each(async |node| {
        let tag = fresh("forbidden");
        for login in [Login::Producer, Login::Student] {
            let ran = consumer_at(&node.amqp_url(login), &["run", "--mailbox", &tag, "--idle", "1"]).await;
            assert_eq!(ran.code, Some(2), "{ran}");
            let user = format!("user “{}” may not declare", login.name());
            let right = format!("the right to configure correio.mailbox.{tag}");
            for named in [user.as_str(), right.as_str(), "`consumer`", "--amqp-url"] {
                assert!(ran.stderr.contains(named), "{named}: {ran}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_failed_message_of_a_group_names_the_command_that_lists_its_dead_letters() {
    for_each(async |node| {
        let (url, tag) = (node.amqp_url(Login::Consumer), fresh("hint"));
        let pattern = format!("{tag}.#");
        let address = ["--topic", pattern.as_str(), "--group", &tag];
        let producer = sender(node).await;
        for ordered in [&[][..], &["--ordered"]] {
            let run = |more: &[&str]| [&["run"], &address[..], ordered, more].concat().join(" ");
            let ran = consumer_at(&url, &run(&["--idle", "0.5"]).split(' ').collect::<Vec<_>>()).await;
            assert_eq!(ran.code, Some(0), "{ran}");
            send_to(&producer, &Destination::topic(&tag).unwrap(), [format!("{tag}-{}", ordered.len())]).await;
            let failing = run(&["--retries", "0", "--count", "1", "--exec", "false"]);
            let ran = consumer_at(&url, &failing.split(' ').collect::<Vec<_>>()).await;
            assert_eq!(ran.code, Some(1), "{ran}");
            let said = ran.stderr.split_once("the dead letters: `").expect("a hint").1;
            let hint = said.split_once('`').expect("a command").0.replace('\'', "");
            let words: Vec<&str> = hint.split(' ').skip(1).collect();
            let listed = consumer_at(&url, &words).await;
            assert_eq!(listed.code, Some(0), "{hint}: {listed}");
            assert!(listed.stdout.contains(&format!("{tag}-{}", ordered.len())), "{hint}: {listed}");
        }
        producer.close(PATIENCE).await;
    })
    .await;
}
