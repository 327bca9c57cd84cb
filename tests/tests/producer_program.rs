//! The program `producer` as a user meets it: its words, its exit codes, and that nothing it has read is lost.

use std::{fs, time::Duration};

use correio_lab::broker::{Login, Node, QueueKind, for_each};
use correio_tests::{
    programs::{Program, Ran},
    queues::{by_id, exchange_with, fresh, take_all},
    work_queues::WorkQueue,
};

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
