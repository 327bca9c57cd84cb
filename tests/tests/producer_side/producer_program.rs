//! The program `producer` as a user meets it: its words, its exit codes, and that nothing it has read is lost.

use std::{fs, time::Duration};

use correio_lab::broker::{Login, Node, QueueKind, for_each};
use correio_tests::{
    programs::{Program, Ran},
    queues::{by_id, exchange_with, fresh, name, plain, take_all},
    work_queues::WorkQueue,
};
use futures_util::StreamExt;
use lapin::{
    BasicProperties,
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::{AMQPValue, FieldTable},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

async fn producer(node: &Node, args: &[&str], input: &str) -> Ran {
    Program::new("producer")
        .args(args.iter().copied())
        .env("AMQP_URL", node.amqp_url(Login::Lab))
        .stdin(input)
        .finish(PATIENCE)
        .await
}

fn summary(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(ran.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_a_message_and_the_summary_counts_them() {
    for_each(async |node| {
        let queue = fresh("lines");
        WorkQueue::shared(node, &queue).await;
        let ran = producer(node, &["send", "--to", &queue, "--json", "--type", "greeting"], "one\ntwo\r\nthree").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        let summary = summary(&ran);
        assert_eq!((&summary["sent"], &summary["confirmed"]), (&3.into(), &3.into()));
        assert!(summary["latency_us"]["p99"].as_u64() > Some(0));
        let bodies: Vec<_> = take_all(node, &queue).await.into_iter().map(|envelope| envelope.body).collect();
        assert_eq!(bodies, ["one", "two", "three"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_were_not_confirmed_are_kept_with_their_ids_and_sent_again_as_the_same_messages() {
    for_each(async |node| {
        let (queue, exchange) = (fresh("later"), fresh("x"));
        node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
        exchange_with(node, &exchange, &[]).await;
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("unsent.ndjson").display().to_string();
        let route = ["--exchange", &exchange, "--routing-key", &queue];
        let first = [&["send", "--unsent", &kept, "--id-field", "n"][..], &route].concat();
        let lines = "{\"n\":1}\n{\"n\":2}\n";
        let ran = producer(node, &first, lines).await;
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stdout.contains("unroutable 2"), "{ran}");

        // What is kept is not overwritten by the next run.
        let ran = producer(node, &first, lines).await;
        assert_eq!(ran.code, Some(2), "{ran}");
        assert!(ran.stderr.contains("--again"), "{ran}");

        // A run that stops early leaves what it did not try where it was.
        let hopeless =
            ["send", "--again", &kept, "--unsent", &kept, "--exchange", "no-such-exchange", "--routing-key", "x"];
        let ran = producer(node, &hopeless, "").await;
        assert_eq!(ran.code, Some(2), "{ran}");
        assert_eq!(fs::read_to_string(&kept).unwrap().lines().count(), 2, "both lines are still there");

        exchange_with(node, &exchange, &[&queue]).await;
        let again = [&["send", "--again", &kept, "--unsent", &kept][..], &route].concat();
        let ran = producer(node, &again, "").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(fs::metadata(&kept).is_err(), "all of it was confirmed, so nothing is kept");
        let ids: Vec<_> = by_id(&take_all(node, &queue).await).into_iter().collect();
        assert_eq!(ids, [("1".to_owned(), 1), ("2".to_owned(), 1)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fire_ends_well_although_nobody_lives_there() {
    for_each(async |node| {
        let ran = producer(node, &["fire", "--to", "nobody-lives-here"], "one\ntwo\n").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(ran.stdout.contains("fired 2") && ran.stdout.contains("nobody knows"), "{ran}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_stops_the_run_and_says_what_was_sent_and_what_was_not() {
    for_each(async |node| {
        let queue = fresh("bad");
        WorkQueue::shared(node, &queue).await;
        let args = ["send", "--to", &queue, "--key-field", "k", "--id-field", "n"];
        let good = "{\"k\":\"a\",\"n\":1}\n";
        let long = format!("{{\"k\":\"a\",\"n\":\"{}\"}}\n", "x".repeat(256));
        let huge = format!("{}\n", "x".repeat(16 * 1024 * 1024 + 1));
        for (bad, words) in [
            ("no json\n", "not a JSON object"),
            ("[]\n", "a list"),
            ("{\"n\":2}\n", "no field “k”"),
            ("{\"k\":{},\"n\":2}\n", "an object"),
            (&long, "255"),
            (&huge, "16777216 bytes"),
        ] {
            let ran = producer(node, &args, &format!("{good}{bad}{good}")).await;
            assert_eq!(ran.code, Some(2), "{words}: {ran}");
            assert!(ran.stderr.contains("line 2") && ran.stderr.contains(words), "{words}: {ran}");
            assert!(ran.stderr.contains("1 lines were confirmed; from line 2 on"), "{words}: {ran}");
            assert_eq!(take_all(node, &queue).await.len(), 1, "{words}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_destinations_and_files_are_named_with_the_way_out() {
    for_each(async |node| {
        let unbound = fresh("unbound");
        node.declare_queue(&unbound, QueueKind::Quorum).await.unwrap();
        let long = "x".repeat(256);
        for (args, code, words) in [
            (vec!["send", "--to", &unbound], 1, "broker apply --queue"),
            (vec!["send", "--exchange", "no-such-exchange", "--routing-key", "x"], 2, "no-such-exchange"),
            (vec!["send", "--to", "orders", "--file", "no-such-file"], 2, "no-such-file"),
            (vec!["send", "--to", "orders", "--again", "no-such-file"], 2, "no-such-file"),
            (vec!["send", "--to", "orders", "--unsent", "no/such/folder"], 2, "no/such/folder"),
            (vec!["send", "--to", &long], 2, "255"),
            (vec!["send"], 2, "--to"),
        ] {
            let ran = producer(node, &args, "one\ntwo\n").await;
            assert_eq!(ran.code, Some(code), "{args:?}: {ran}");
            assert!(ran.stderr.contains(words), "{args:?}: {ran}");
            assert!(!ran.stderr.contains("panicked"), "{args:?}: {ran}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_a_wrong_password_and_a_wrong_vhost_are_exit_code_3_and_show_no_password() {
    for_each(async |node| {
        let right = node.amqp_address();
        for (url, words) in [
            ("amqp://lab:s3cret@127.0.0.1:1".to_owned(), "no broker answers"),
            (format!("amqp://lab:s3cret@{right}"), "refuses the login"),
            (format!("amqp://lab:{}@{right}/nowhere", node.password(Login::Lab)), "“nowhere”"),
        ] {
            let ran = Program::new("producer")
                .args(["send", "--to", "orders"])
                .env("AMQP_URL", url)
                .stdin("one\n")
                .finish(PATIENCE)
                .await;
            assert_eq!(ran.code, Some(3), "{words}: {ran}");
            assert!(ran.stderr.contains(words), "{words}: {ran}");
            for secret in ["s3cret", node.password(Login::Lab)] {
                assert!(!ran.stderr.contains(secret) && !ran.stdout.contains(secret), "{words}: a password shows");
            }
        }
    })
    .await;
}

/// A service, played by a plain client, that answers what it is asked to: `fail` with an error, `silent` not at all, a number
/// later than what came after it. Ends when dropped.
struct Service(tokio::task::JoinHandle<()>);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Service {
    async fn start(node: &Node, queue: &str) -> Self {
        let (connection, channel) = plain(node).await;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consuming = channel.basic_consume(name(queue), name(""), options, FieldTable::default());
        let mut requests = consuming.await.unwrap();
        Self(tokio::spawn(async move {
            let mut held = None;
            while let Some(Ok(request)) = requests.next().await {
                let reply_to = request.properties.reply_to().clone().unwrap();
                let mut properties =
                    BasicProperties::default().with_correlation_id(request.properties.message_id().clone().unwrap());
                let mut body = format!("re: {}", String::from_utf8_lossy(&request.data)).into_bytes();
                match &request.data[..] {
                    b"silent" => continue,
                    b"fail" => {
                        let mut headers = FieldTable::default();
                        headers.insert(name("correio-error"), AMQPValue::LongString("no-stock".into()));
                        headers.insert(name("correio-error-text"), AMQPValue::LongString("sold out".into()));
                        properties = properties.with_headers(headers);
                    }
                    b"lines" => body = b"two\nlines".to_vec(),
                    b"bytes" => body = vec![0xff, 0xfe],
                    _ => {}
                }
                let reply = (reply_to, properties, body);
                // Always the later one first.
                let Some(earlier) = held.replace(reply) else { continue };
                let Some(later) = held.take() else { continue };
                for (reply_to, properties, body) in [later, earlier] {
                    let options = BasicPublishOptions::default();
                    let published =
                        channel.basic_publish(name("correio.reply"), reply_to, options, &body, properties).await;
                    published.unwrap();
                }
            }
            drop(connection);
        }))
    }
}

async fn request(node: &Node, args: &[&str], input: &str) -> Ran {
    Program::new("producer")
        .args(["request"].iter().chain(args).copied())
        .env("AMQP_URL", node.amqp_url(Login::Producer))
        .stdin(input)
        .finish(PATIENCE)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_come_out_in_the_order_of_the_lines_although_they_came_in_another() {
    for_each(async |node| {
        let queue = fresh("service");
        WorkQueue::shared(node, &queue).await;
        let _service = Service::start(node, &queue).await;
        let lines: String = (0..400).map(|n| format!("{n}\n")).collect();
        let ran = request(node, &["--to", &queue], &lines).await;
        assert_eq!(ran.code, Some(0), "{ran}");
        let expected: String = (0..400).map(|n| format!("re: {n}\n")).collect();
        assert_eq!(ran.stdout, expected);
        assert!(ran.stderr.contains("400 of 400 have a reply") && ran.stderr.contains("95th"), "{ran}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_a_reply_prints_nothing_and_is_said_and_json_has_an_object_for_each() {
    for_each(async |node| {
        let queue = fresh("service");
        WorkQueue::shared(node, &queue).await;
        let _service = Service::start(node, &queue).await;
        let lines = "one\nfail\nsilent\nlines\nbytes\ntwo\nthree\n";
        let args = ["--to", &queue, "--deadline", "2"];
        let ran = request(node, &args, lines).await;
        assert_eq!(ran.code, Some(1), "{ran}");
        assert_eq!(ran.stdout, "re: one\nre: two\nre: three\n");
        for words in [
            "line 2: the service replied with an error, no-stock: sold out",
            "line 3: no reply within 2s",
            "line 4: its reply is no line",
            "line 5: its reply is no line",
            "3 of 7 have a reply",
            "deadline-passed 1",
        ] {
            assert!(ran.stderr.contains(words), "{words}: {ran}");
        }

        let ran = request(node, &[&args[..], &["--json"]].concat(), lines).await;
        assert_eq!(ran.code, Some(1), "{ran}");
        let objects: Vec<serde_json::Value> =
            ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let numbers: Vec<_> = objects.iter().map(|object| object["line"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((&objects[0]["reply"], &objects[3]["reply"]), (&"re: one".into(), &"two\nlines".into()));
        assert_eq!(objects[4]["reply_base64"], "//4=");
        let remote = serde_json::json!({"kind": "remote", "remote_kind": "no-stock", "text": "sold out"});
        assert_eq!((&objects[1]["error"], &objects[2]["error"]["kind"]), (&remote, &"deadline-passed".into()));
        assert!(objects.iter().all(|object| object["id"].is_string()), "{ran}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_no_such_service_is_said_at_once_with_the_way_out() {
    for_each(async |node| {
        for (args, way_out) in [
            (["--to", "nobody-lives-here"], "broker apply --queue nobody-lives-here"),
            (["--mailbox", "nobody"], "consumer run --mailbox nobody"),
        ] {
            // The deadline is far beyond the test's patience.
            let ran = request(node, &[&args[..], &["--deadline", "3600"]].concat(), "one\ntwo\n").await;
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran}");
            assert!(ran.stderr.contains("line 2: no such service") && ran.stderr.contains(way_out), "{ran}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_it_asks_no_further_and_waits_for_what_is_in_flight_and_a_second_signal_ends_that() {
    for_each(async |node| {
        for (deadline, signals, kind) in [("3", 1, "deadline-passed 1"), ("3600", usize::MAX, "closed 1")] {
            // Nobody consumes: one request is in flight, and the other lines are not read yet.
            let queue = fresh("service");
            WorkQueue::shared(node, &queue).await;
            let run = Program::new("producer")
                .args(["request", "--to", &queue, "--in-flight", "1", "--deadline", deadline])
                .env("AMQP_URL", node.amqp_url(Login::Producer))
                .stdin("one\ntwo\nthree\n")
                .start();
            let asked = async {
                while node.queue_depth(&queue).await.unwrap() != 1 {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, asked).await.expect("one is asked");
            let pid = Pid::from_raw(run.pid().try_into().unwrap());
            let signalling = async {
                for _ in 0..signals {
                    let _ = kill(pid, Signal::SIGINT);
                    sleep(Duration::from_millis(200)).await;
                }
                std::future::pending::<()>().await;
            };
            let ran = tokio::select! { ran = run.finish(PATIENCE) => ran, () = signalling => unreachable!("no end") };
            assert_eq!(ran.code, Some(1), "{ran}");
            for words in [kind, "0 of 1 have a reply", "stopped by a signal", "after line 1 nothing more"] {
                assert!(ran.stderr.contains(words), "{words}: {ran}");
            }
        }
    })
    .await;
}
