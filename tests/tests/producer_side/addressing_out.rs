//! Sending to every address with the program, as the user that the project gives producers: who gets it, and what is said when
//! nobody is there.

use std::{fs, time::Duration};

use correio_broker_config::{Address, ConnectionSettings, Connections, OwnQueue, Purpose, ensure};
use correio_lab::broker::{Login, Node, for_each};
use correio_message::{MailboxName, TopicPattern};
use correio_tests::{
    programs::{Program, Ran},
    queues::{fresh, name, plain, take_all},
};
use futures_util::StreamExt;
use lapin::{options::BasicConsumeOptions, types::FieldTable};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// Only one test at a time may care how many listeners there are: everyone gets a broadcast.
static BROADCASTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn producer(node: &Node, args: &[&str], input: &str) -> Ran {
    Program::new("producer")
        .args(args.iter().copied())
        .env("AMQP_URL", node.amqp_url(Login::Producer))
        .stdin(input)
        .finish(PATIENCE)
        .await
}

fn summary(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(ran.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

/// Makes a subscriber's queue as its consumer does, with that one's rights, and says its name.
async fn subscribe(node: &Node, own: OwnQueue) -> String {
    let address = Address::parse(&node.amqp_url(Login::Consumer)).unwrap();
    let connections = Connections::new(address, ConnectionSettings::new("consumer", "", Purpose::Admin));
    ensure(&connections, &own).await.unwrap();
    connections.close().await;
    node.note_declared();
    own.name().to_string()
}

async fn group(node: &Node, name: &str, pattern: &str) -> String {
    subscribe(node, OwnQueue::group(name, &TopicPattern::new(pattern).unwrap()).unwrap()).await
}

async fn bodies(node: &Node, queue: &str) -> Vec<String> {
    let taken = take_all(node, queue).await;
    taken.into_iter().map(|envelope| String::from_utf8(envelope.body.to_vec()).unwrap()).collect()
}

/// All that a mailbox or a listener has got, which only a consumer may take: so many, and nothing more.
async fn received(node: &Node, queue: &str, count: usize) -> Vec<String> {
    let (connection, channel) = plain(node).await;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let deliveries = channel.basic_consume(name(queue), name(""), options, FieldTable::default()).await.unwrap();
    let taking = deliveries.take(count).map(|delivery| String::from_utf8(delivery.unwrap().data).unwrap()).collect();
    let taken: Vec<_> = timeout(PATIENCE, taking).await.unwrap_or_else(|_| panic!("less than {count} in {queue}"));
    connection.close(200, name("")).await.unwrap();
    assert_eq!(node.queue_depth(queue).await.unwrap(), 0, "{queue}");
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_gets_what_is_sent_to_its_name_and_without_one_the_way_out_is_said() {
    for_each(async |node| {
        let ana = fresh("ana");
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("unsent.ndjson").display().to_string();
        let ran = producer(node, &["send", "--mailbox", &ana, "--unsent", &kept], "hello\n").await;
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stdout.contains("unroutable 1"), "{ran}");
        let way_out = format!("consumer run --mailbox {ana}");
        assert!(ran.stderr.contains(&way_out) && ran.stderr.contains("--again"), "{ran}");

        let queue = subscribe(node, OwnQueue::mailbox(&MailboxName::new(&ana).unwrap())).await;
        let ran = producer(node, &["send", "--mailbox", &ana, "--again", &kept], "").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        let ran = producer(node, &["fire", "--mailbox", &ana], "and again\n").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(received(node, &queue, 2).await, ["hello", "and again"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_a_template_goes_to_the_groups_that_want_its_key() {
    for_each(async |node| {
        let root = fresh("flight");
        let to_lax = group(node, &fresh("to-lax"), &format!("{root}.*.LAX")).await;
        let from_dfw = group(node, &fresh("from-dfw"), &format!("{root}.DFW.*")).await;
        let lines = [("ATL", "LAX", 1), ("DFW", "LAX", 2), ("DFW", "JFK", 3), ("ATL", "JFK", 4)]
            .map(|(from, to, n)| format!("{{\"origin\":\"{from}\",\"destination\":\"{to}\",\"n\":{n}}}\n"));
        let template = format!("{root}.{{origin}}.{{destination}}");
        let args = ["send", "--topic-template", &template, "--id-field", "n", "--json"];
        let ran = producer(node, &args, &lines.concat()).await;
        assert_eq!(ran.code, Some(0), "{ran}");
        let summary = summary(&ran);
        let counts = ["sent", "confirmed", "without_subscriber", "unroutable"].map(|name| summary[name].as_u64());
        assert_eq!(counts, [Some(4), Some(3), Some(1), Some(0)], "nobody wants ATL to JFK: {ran}");
        let expected = |wanted: [usize; 2]| wanted.map(|n| lines[n].trim_end().to_owned());
        assert_eq!(bodies(node, &to_lax).await, expected([0, 1]));
        assert_eq!(bodies(node, &from_dfw).await, expected([1, 2]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_subscribers_is_normal_and_not_kept_unless_one_is_required() {
    for_each(async |node| {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("unsent.ndjson").display().to_string();
        let root = fresh("event");
        let key = format!("{root}.x");
        let normal = ["send", "--topic", &key, "--unsent", &kept];
        let ran = producer(node, &normal, "one\ntwo\n").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(ran.stdout.contains("nobody subscribed 2") && ran.stdout.contains("unroutable 0"), "{ran}");
        assert!(fs::metadata(&kept).is_err(), "nothing is kept");

        let template = format!("{root}.{{n}}");
        let lines = "{\"n\":1}\n{\"n\":2}\n";
        let required = ["send", "--topic-template", &template, "--require-subscriber", "--unsent", &kept];
        let ran = producer(node, &required, lines).await;
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stdout.contains("unroutable 2") && ran.stderr.contains("consumer run --topic"), "{ran}");

        // Each is sent again under the key that it had.
        let first = group(node, &fresh("g"), &format!("{root}.1")).await;
        let again = [&required[..], &["--again", &kept]].concat();
        let ran = producer(node, &again, "").await;
        assert_eq!(ran.code, Some(1), "{ran}");
        assert_eq!(bodies(node, &first).await, ["{\"n\":1}"]);
        assert_eq!(fs::read_to_string(&kept).unwrap().lines().count(), 1, "the other one is still kept");
        let second = group(node, &fresh("g"), &format!("{root}.2")).await;
        let ran = producer(node, &again, "").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(bodies(node, &second).await, ["{\"n\":2}"]);
        assert!(fs::metadata(&kept).is_err(), "all of it has arrived");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_reaches_everyone_who_listens_and_nobody_is_a_failure_only_if_somebody_is_required() {
    let _alone = BROADCASTING.lock().await;
    for_each(async |node| {
        let ran = producer(node, &["send", "--broadcast", "--json"], "nobody hears\n").await;
        assert_eq!((ran.code, &summary(&ran)["without_subscriber"]), (Some(0), &1.into()), "{ran}");
        let ran = producer(node, &["send", "--broadcast", "--require-subscriber"], "nobody hears\n").await;
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("consumer run --broadcast"), "{ran}");

        let mut queues = Vec::new();
        for _ in 0..2 {
            queues.push(subscribe(node, OwnQueue::listener(&fresh("listener")).unwrap()).await);
        }
        let ran = producer(node, &["send", "--broadcast", "--require-subscriber"], "hear\n").await;
        assert_eq!(ran.code, Some(0), "{ran}");
        for queue in queues {
            assert_eq!(received(node, &queue, 1).await, ["hear"]);
            node.delete_queue(&queue).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_makes_no_key_stops_the_run_and_says_why() {
    for_each(async |node| {
        let root = fresh("lines");
        let queue = group(node, &fresh("g"), &format!("{root}.#")).await;
        let template = format!("{root}.{{k}}");
        let good = "{\"k\":\"a\"}\n";
        let long = format!("{{\"k\":\"{}\"}}\n", "x".repeat(255));
        for (bad, words) in [
            ("no json\n", "not a JSON object"),
            ("{\"n\":1}\n", "no field “k”"),
            ("{\"k\":[]}\n", "a list"),
            ("{\"k\":\"\"}\n", "its field “k” is empty"),
            ("{\"k\":\"a.b\"}\n", "its field “k” is “a.b”"),
            ("{\"k\":\"#\"}\n", "pattern"),
            (&long, "at most 255"),
        ] {
            let ran = producer(node, &["send", "--topic-template", &template], &format!("{good}{bad}{good}")).await;
            assert_eq!(ran.code, Some(2), "{words}: {ran}");
            assert!(ran.stderr.contains("line 2") && ran.stderr.contains(words), "{words}: {ran}");
            assert_eq!(bodies(node, &queue).await.len(), 1, "{words}: nothing after it was sent");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_said_before_anything_is_read_or_sent() {
    for_each(async |node| {
        let long = "x".repeat(256);
        for (args, words) in [
            (vec!["send", "--mailbox", &long], "255"),
            (vec!["send", "--mailbox", "ana.dead"], "parking queue"),
            (vec!["send", "--topic", &long], "255"),
            (vec!["send", "--topic", "flight.*"], "pattern"),
            (vec!["fire", "--topic", "#"], "pattern"),
            (vec!["send", "--topic", ""], "empty"),
            (vec!["send", "--topic-template", "a.{b"], "no “}”"),
            (vec!["send", "--topic-template", "a.{}"], "no name"),
            (vec!["send", "--topic-template", "*.{b}"], "pattern"),
            (vec!["send", "--to", "orders", "--require-subscriber"], "--require-subscriber"),
            (vec!["send", "--topic", "a", "--broadcast"], "--broadcast"),
            (vec!["request", "--mailbox", &long], "255"),
            (vec!["request"], "--mailbox"),
        ] {
            // A file that is not there would be said if it were opened.
            let args = [&args[..], &["--file", "no-such-file"]].concat();
            let ran = producer(node, &args, "").await;
            assert_eq!(ran.code, Some(2), "{args:?}: {ran}");
            assert!(ran.stderr.contains(words) && !ran.stderr.contains("cannot read"), "{args:?}: {ran}");
        }
    })
    .await;
}
