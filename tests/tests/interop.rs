//! Clients in other languages send to our consumers and read from our producers, in every mode: the examples do what they
//! say, with the users of the least rights.

use std::time::Duration;

use correio_lab::broker::{Login, Node, for_each};
use correio_tests::{
    foreign_clients::{Client, Ready},
    programs::{Program, Ran, Run},
    queues::fresh,
    work_queues::WorkQueue,
};
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn python_sends_to_our_consumers() {
    sends(Client::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_sends_to_our_consumers() {
    sends(Client::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_sends_to_our_consumers_and_that_it_gives_no_id_is_said() {
    sends(Client::Shell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_reads_what_our_producer_sends() {
    reads(Client::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_reads_what_our_producer_sends() {
    reads(Client::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_reads_what_our_producer_sends() {
    reads(Client::Shell).await;
}

/// The only test here that broadcasts: every listener of the node hears it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_of_any_client_reaches_the_listeners_of_all() {
    let mut clients = Vec::new();
    for client in Client::ALL {
        clients.extend(client.ready().await);
    }
    for_each(async |node| {
        let ours = fresh("listener");
        consume(node, &["--broadcast", "--name", &ours, "--idle", "0.1"]).await;
        let mut readers = Vec::new();
        for client in &clients {
            let (name, count) = (fresh("listener"), (clients.len() + 1).to_string());
            let reader = read(node, client, &["broadcast", &name], &count);
            is_reading(node, client, &reader, &format!("correio.broadcast.{name}")).await;
            readers.push((client, reader));
        }

        produce(node, &["send", "--broadcast"], "ours\n").await;
        let mut sent = vec!["ours".to_owned()];
        for client in &clients {
            let text = format!("of {:?}", client.client());
            send(node, client, &["broadcast", &text]).await;
            sent.push(text);
        }
        sent.sort();
        for (client, reader) in readers {
            assert_eq!(sorted(payloads(client, &good(reader.finish(PATIENCE).await))), sent);
        }
        let heard = consume(node, &["--broadcast", "--name", &ours, "--json", "--idle", "1"]).await;
        assert_eq!(sorted(told(&heard).iter().map(payload).collect()), sent);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_asks_our_services() {
    asks(Client::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_asks_our_services() {
    asks(Client::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_answers_our_requests() {
    answers(Client::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_answers_our_requests() {
    answers(Client::Node).await;
}

async fn sends(client: Client) {
    let Some(client) = client.ready().await else { return };
    let client = &client;
    for_each(async |node| {
        let name = fresh("interop");
        let (key, pattern) = (format!("{name}.DFW.LAX"), format!("{name}.*.LAX"));
        let queue = WorkQueue::shared(node, &name).await;
        for (mode, to, source) in [
            ("queue", queue.name(), &["--from", queue.name()][..]),
            ("mailbox", &name, &["--mailbox", &name]),
            ("topic", &key, &["--topic", &pattern, "--group", &name]),
        ] {
            // Makes the queue, where that is the consumer's to do.
            consume(node, &[source, &["--idle", "0.1"]].concat()).await;
            let sent = send(node, client, &[mode, to, "two pizzas"]).await;
            let ran = consume(node, &[source, &["--json", "--count", "1"]].concat()).await;
            let (origin, has_id) = match client.client() {
                Client::Python => (json!("send.py"), true),
                Client::Node => (json!("send.js"), true),
                Client::Shell => (Value::Null, false),
            };
            let (id, kind) =
                if has_id { (json!(sent.stdout.trim()), json!("greeting")) } else { (Value::Null, Value::Null) };
            let wanted = json!({
                "id": id, "type": kind, "key": null, "origin": origin, "attempt": 1, "redelivered": false,
                "payload": "two pizzas",
            });
            assert_eq!(told(&ran), [wanted], "{mode}");
            let summary: Value =
                serde_json::from_str(ran.stderr.lines().last().unwrap_or_default()).expect("a summary");
            assert_eq!(summary["summary"]["counts"]["without_id"], u8::from(!has_id), "{mode}: {ran}");

            // Without --json the same in words.
            send(node, client, &[mode, to, "one more"]).await;
            let ran = consume(node, &[source, &["--count", "1"]].concat()).await;
            assert_eq!((ran.stdout.as_str(), ran.stderr.contains("without an id 1")), ("one more\n", !has_id), "{ran}");
        }
        if client.client() != Client::Shell {
            let ran = example(node, client, "consumer", "send", &["mailbox", &fresh("nobody"), "hello"])
                .finish(PATIENCE)
                .await;
            assert_eq!((ran.code, ran.stderr.trim()), (Some(1), "not sent: nobody is there"));
        }
    })
    .await;
}

async fn reads(client: Client) {
    let Some(client) = client.ready().await else { return };
    let client = &client;
    for_each(async |node| {
        let name = fresh("interop");
        let (key, pattern) = (format!("{name}.DFW.LAX"), format!("{name}.*.LAX"));
        let (mailbox, group) = (format!("correio.mailbox.{name}"), format!("correio.group.{name}"));
        let work = WorkQueue::shared(node, &name).await;
        for (from, queue, to) in [
            (&["queue", work.name()][..], work.name(), &["--to", work.name()][..]),
            (&["mailbox", &name], &mailbox, &["--mailbox", &name]),
            (&["topic", &pattern, &name], &group, &["--topic", &key, "--require-subscriber"]),
        ] {
            let reader = read(node, client, from, "2");
            is_reading(node, client, &reader, queue).await;
            produce(node, &[&["send", "--origin", "shop", "--type", "order"], to].concat(), "one\ntwo\n").await;
            let ran = good(reader.finish(PATIENCE).await);
            assert_eq!(payloads(client, &ran), ["one", "two"], "{from:?}");
            if client.client() == Client::Shell && from[0] != "queue" {
                continue; // its queue is gone with it
            }
            assert_eq!(node.queue_depth(queue).await.expect("a depth"), 0, "all of it is acknowledged");
            if client.client() != Client::Shell {
                for message in told(&ran) {
                    assert_eq!((&message["type"], &message["origin"]), (&json!("order"), &json!("shop")), "{message}");
                    assert!(message["id"].as_str().is_some_and(|id| id.parse::<Uuid>().is_ok()), "{message}");
                }
            }
        }
    })
    .await;
}

async fn asks(client: Client) {
    let Some(client) = client.ready().await else { return };
    let client = &client;
    for_each(async |node| {
        let service = WorkQueue::shared(node, &fresh("interop")).await;
        let ask = async |service: &str| {
            example(node, client, "consumer", "ask", &[service, "two pizzas"]).finish(PATIENCE).await
        };
        let serving = consumer(node, &["--from", service.name(), "--count", "1", "--exec", "tr a-z A-Z"]).start();
        assert_eq!(good(ask(service.name()).await).stdout, "TWO PIZZAS\n");
        let served = good(serving.finish(PATIENCE).await);
        assert!(served.stderr.contains("answered 1"), "{served}");

        let failing =
            ["--from", service.name(), "--count", "1", "--retries", "0", "--exec", "echo no flour >&2; exit 4"];
        let serving = consumer(node, &failing).start();
        let refused = ask(service.name()).await;
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.starts_with("failed: ") && refused.stderr.trim().ends_with("no flour"), "{refused}");
        serving.finish(PATIENCE).await;

        let nobody = ask(&fresh("nobody")).await;
        assert_eq!((nobody.code, nobody.stderr.trim()), (Some(1), "no such service"));
    })
    .await;
}

async fn answers(client: Client) {
    let Some(client) = client.ready().await else { return };
    let client = &client;
    for_each(async |node| {
        let service = WorkQueue::shared(node, &fresh("interop")).await;
        let serving = example(node, client, "producer", "answer", &[service.name()]).env("COUNT", "4").start();
        let request = ["request", "--to", service.name()];
        let answered = produce(node, &request, "two pizzas\none salad\na coffee\n").await;
        assert_eq!(answered.stdout, "TWO PIZZAS\nONE SALAD\nA COFFEE\n");
        let refused = producer(node, &request, "   \n").finish(PATIENCE).await;
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains("empty: there is nothing to write in capitals"), "{refused}");
        let served = good(serving.finish(PATIENCE).await);
        assert_eq!(served.stderr, "", "{served}");
        assert_eq!(service.depth().await, 0);
    })
    .await;
}

/// An example under the user that its side has.
fn example(node: &Node, client: &Ready, of: &str, name: &str, args: &[&str]) -> Program {
    // Those that send to our consumers do as producers may, and the other way round.
    let login = if of == "consumer" { Login::Producer } else { Login::Consumer };
    client.example(of, name).args(args).env("AMQP_URL", node.amqp_url(login))
}

async fn send(node: &Node, client: &Ready, args: &[&str]) -> Ran {
    good(example(node, client, "consumer", "send", args).finish(PATIENCE).await)
}

fn read(node: &Node, client: &Ready, args: &[&str], count: &str) -> Run {
    example(node, client, "producer", "read", args).env("COUNT", count).start()
}

/// Waits until what is sent from now on comes to the reader.
async fn is_reading(node: &Node, client: &Ready, reader: &Run, queue: &str) {
    if client.client() != Client::Shell {
        return reader.stderr_says(PATIENCE, &format!("reading {queue}\n")).await;
    }
    // amqp-consume says nothing, and nobody else may look at a queue that is its own; it consumes when it has bound it.
    let consuming = async {
        while !node.ctl(&["-q", "list_consumers"]).await.expect("the consumers").contains(&format!("{queue}\t")) {}
    };
    assert!(tokio::time::timeout(PATIENCE, consuming).await.is_ok(), "nobody reads {queue}: {}", reader.stderr());
}

fn consumer(node: &Node, args: &[&str]) -> Program {
    Program::new("consumer").args(["run"]).args(args).env("AMQP_URL", node.amqp_url(Login::Consumer))
}

async fn consume(node: &Node, args: &[&str]) -> Ran {
    good(consumer(node, args).finish(PATIENCE).await)
}

fn producer(node: &Node, args: &[&str], lines: &str) -> Program {
    Program::new("producer").args(args).env("AMQP_URL", node.amqp_url(Login::Producer)).stdin(lines)
}

async fn produce(node: &Node, args: &[&str], lines: &str) -> Ran {
    good(producer(node, args, lines).finish(PATIENCE).await)
}

fn good(ran: Ran) -> Ran {
    assert_eq!(ran.code, Some(0), "{ran}");
    ran
}

/// The messages that a program printed as JSON.
fn told(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn payload(message: &Value) -> String {
    message["payload"].as_str().unwrap_or_default().to_owned()
}

/// What a reader printed of the payloads.
fn payloads(client: &Ready, ran: &Ran) -> Vec<String> {
    match client.client() {
        Client::Shell => ran.stdout.lines().map(str::to_owned).collect(),
        Client::Python | Client::Node => told(ran).iter().map(payload).collect(),
    }
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

const PATIENCE: Duration = Duration::from_secs(60);
