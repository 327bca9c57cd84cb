//! `consumer run --metrics-addr`: what monitoring and an orchestrator see of the program.

use std::time::Duration;

use correio_lab::{
    broker::{Login, for_each},
    faults::{Ending, Proxy},
};
use correio_tests::{
    programs::{Program, Run},
    queues::fresh,
    work_queues::WorkQueue,
};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

#[tokio::test]
async fn it_is_ready_while_it_is_subscribed_alive_all_the_while_and_its_metrics_are_its_summary() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, &fresh("observed")).await;
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let program = Program::new("consumer")
            .args(["run", "--from", queue.name(), "--metrics-addr", "127.0.0.1:0"])
            .args(["--exec", "cat > /dev/null; test \"$CORREIO_TYPE\" != bad", "--retries", "0", "--json"])
            .env("AMQP_URL", node.amqp_url_through(Login::Consumer, proxy.address()))
            .start();
        let address = address(&program).await;
        until(&address, "/readyz", "200 ", "subscribed").await;
        let mut bad = queue.message("it fails");
        bad.message_type = Some(correio_tests::consuming::short("bad"));
        queue.fill([queue.message("one"), queue.message("two"), bad]).await;
        let label = format!("messaging_destination_name=\"{}\"", queue.name());
        let counted = |what: &str, count: u64| format!("correio_consumer_{what}{{{SYSTEM},{label}}} {count}\n");
        until(&address, "/metrics", "200 ", &counted("handled", 2)).await;
        until(&address, "/metrics", "200 ", &counted("dead_lettered", 1)).await;

        proxy.refuse_new(true).await;
        proxy.cut(Ending::Reset).await;
        until(&address, "/readyz", "503 ", "not subscribed for ").await;
        assert!(ask(&address, "/livez").await.starts_with("HTTP/1.1 200 "));
        proxy.refuse_new(false).await;
        until(&address, "/readyz", "200 ", "subscribed").await;
        queue.fill_lines(["three"]).await;
        let metrics = until(&address, "/metrics", "200 ", &counted("handled", 3)).await;
        assert!(metrics.contains(&counted("subscribed", 1)), "{metrics}");
        for line in ["# TYPE correio_consumer_handled counter", "# TYPE messaging_process_duration histogram"] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        let took = metrics.lines().filter(|line| line.starts_with("messaging_process_duration_count"));
        let attempts: u64 = took.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        assert_eq!(attempts, 4, "{metrics}");

        // Who is connected and asks nothing does not hold up its end.
        let silent = TcpStream::connect(&address).await.unwrap();
        program.signal(Signal::SIGTERM);
        let ran = program.finish(PATIENCE).await;
        assert_eq!(ran.code, Some(1), "one is dead: {ran}");
        let summary: serde_json::Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
        for (count, metric) in [
            ("handled", "handled"),
            ("dead", "dead_lettered"),
            ("received", "messages"),
            ("resubscribed", "resubscribed"),
            ("duplicates", "duplicates"),
        ] {
            let counted = summary["summary"]["counts"][count].as_u64().unwrap();
            let line = match metric {
                "messages" => format!("messaging_client_consumed_messages{{{SYSTEM},{DELIVER},{label}}} {counted}\n"),
                other => format!("correio_consumer_{other}{{{SYSTEM},{label}}} {counted}\n"),
            };
            assert!(metrics.contains(&line), "{line}: {metrics}");
        }
        assert!(!metrics.contains("consumer:consumer"), "a password is shown: {metrics}");
        drop(silent);
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn while_it_finishes_what_was_begun_it_is_alive_and_not_ready() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, &fresh("stopping")).await;
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("gate");
        let wait = format!("cat > /dev/null; echo begun; until test -e {}; do sleep 0.05; done", gate.display());
        let program = Program::new("consumer")
            .args(["run", "--from", queue.name(), "--metrics-addr", "127.0.0.1:0", "--exec", &wait])
            .env("AMQP_URL", node.amqp_url(Login::Consumer))
            .start();
        let address = address(&program).await;
        queue.fill_lines(["slow"]).await;
        until(&address, "/metrics", "200 ", "correio_consumer_in_flight").await;
        program.stderr_says(PATIENCE, "consuming").await;
        let in_flight =
            format!("correio_consumer_in_flight{{{SYSTEM},messaging_destination_name=\"{}\"}} 1\n", queue.name());
        until(&address, "/metrics", "200 ", &in_flight).await;
        program.signal(Signal::SIGTERM);
        until(&address, "/readyz", "503 ", "stopping").await;
        assert!(ask(&address, "/livez").await.starts_with("HTTP/1.1 200 "));
        std::fs::write(&gate, "").unwrap();
        let ran = program.finish(PATIENCE).await;
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(TcpStream::connect(&address).await.is_err(), "somebody serves there still");
    })
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken_and_an_address_that_is_none_are_wrong_usage_and_no_broker_is_asked() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for address in [taken.as_str(), "127.0.0.1:70000", "9100", "192.0.2.1:9100"] {
        let ran = Program::new("consumer")
            .args(["run", "--from", "orders", "--metrics-addr", address])
            // Nobody listens there: who asked would end with exit code 3.
            .env("AMQP_URL", "amqp://consumer:consumer@127.0.0.1:1/%2f")
            .finish(PATIENCE)
            .await;
        assert_eq!(ran.code, Some(2), "{address}: {ran}");
        assert!(ran.stderr.contains("--metrics-addr") && ran.stderr.contains(address), "{address}: {ran}");
    }
}

/// Where the program says that it serves.
async fn address(program: &Run) -> String {
    program.stderr_says(PATIENCE, "probes at").await;
    let said = program.stderr();
    let (_, from) = said.split_once("http://").unwrap_or_else(|| panic!("{said}"));
    from.split_once('/').unwrap_or_else(|| panic!("{said}")).0.to_owned()
}

/// The whole answer.
async fn ask(address: &str, path: &str) -> String {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.expect("somebody serves");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    };
    timeout(PATIENCE, asking).await.expect("an answer in time")
}

/// Asks until the answer has this status and these words.
async fn until(address: &str, path: &str, status: &str, words: &str) -> String {
    let mut last = String::new();
    let asking = async {
        loop {
            last = ask(address, path).await;
            if last.starts_with(&format!("HTTP/1.1 {status}")) && last.contains(words) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, asking).await.is_err() {
        panic!("{path} did not come to {status}with “{words}” but to {last}");
    }
    last
}

const SYSTEM: &str = "messaging_system=\"rabbitmq\"";
const DELIVER: &str = "messaging_operation_name=\"deliver\"";
const PATIENCE: Duration = Duration::from_secs(60);
