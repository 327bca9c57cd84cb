//! The main job on real input: flights keyed by their origin, two ordered consumers, the working one killed on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use correio_lab::broker::{Login, for_each};
use correio_tests::{
    programs::{Program, Run},
    queues::fresh,
    work_queues::WorkQueue,
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(180);

/// All 20,000 where they lie beside the project, else the 1,000 that it carries.
fn flights() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let all = root.join("../shared/data/flights-20k.ndjson");
    let file = if all.exists() { all } else { root.join("lab/data/flights-1k.ndjson") };
    println!("flights: {}", file.file_name().unwrap_or_default().to_string_lossy());
    file
}

fn consumer(url: &str, queue: &str, output: &Path) -> Run {
    let output = output.display().to_string();
    Program::new("consumer")
        .args(["run", "--from", queue, "--ordered", "--json", "--output", &output])
        .env("AMQP_URL", url)
        .start()
}

/// The payloads that a consumer has written, in its order. A line that a kill cut short is no effect.
fn written(output: &Path) -> Vec<String> {
    let text = fs::read_to_string(output).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let payload = |line: &str| {
        let told: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        told["payload"].as_str().expect("a payload").to_owned()
    };
    whole.lines().map(payload).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flight_has_its_effect_and_each_origin_its_order_although_the_working_consumer_is_killed() {
    let file = flights();
    let lines: Vec<String> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    for_each(async |node| {
        let queue = fresh("flights");
        let _queue = WorkQueue::ordered(node, &queue).await;
        let folder = tempfile::tempdir().unwrap();
        let outputs = [folder.path().join("first"), folder.path().join("second")];
        let url = node.amqp_url(Login::Lab);
        let first = consumer(&url, &queue, &outputs[0]);
        first.stderr_says(PATIENCE, "broker").await;
        let second = consumer(&url, &queue, &outputs[1]);
        let sending = Program::new("producer")
            .args(["send", "--to", &queue, "--key-field", "origin", "--json", "--file", &file.display().to_string()])
            .env("AMQP_URL", &url)
            .start();

        // Whichever of the two is active is killed, when it has a third behind it.
        let deadline = Instant::now() + PATIENCE;
        let working = loop {
            let done = outputs.each_ref().map(|output| written(output).len());
            if let Some(working) = done.iter().position(|done| *done >= lines.len() / 3) {
                break working;
            }
            assert!(Instant::now() < deadline, "handled so far: {done:?}");
            sleep(Duration::from_millis(50)).await;
        };
        let mut runs = [Some(first), Some(second)];
        let killed = runs[working].take().expect("it runs").kill().await;
        assert_eq!(killed.code, None, "killed by a signal");
        let before = written(&outputs[working]);

        let sent = sending.finish(PATIENCE).await;
        assert_eq!(sent.code, Some(0), "{sent}");
        let wanted: BTreeSet<&String> = lines.iter().collect();
        let deadline = Instant::now() + PATIENCE;
        let after = loop {
            let after = written(&outputs[1 - working]);
            if before.iter().chain(&after).collect::<BTreeSet<_>>().len() >= wanted.len() {
                break after;
            }
            assert!(Instant::now() < deadline, "{} and {} of {}", before.len(), after.len(), lines.len());
            sleep(Duration::from_millis(100)).await;
        };
        let survivor = runs[1 - working].take().expect("it runs");
        survivor.signal(nix::sys::signal::Signal::SIGTERM);
        let ended = survivor.finish(PATIENCE).await;
        assert_eq!(ended.code, Some(0), "{ended}");

        let effects: BTreeSet<&String> = before.iter().chain(&after).collect();
        assert_eq!(effects, wanted, "none lost, none invented");
        // What the killed one had handled and could not acknowledge comes again; its prefetch bounds it.
        let twice: BTreeSet<&String> = before.iter().filter(|line| after.contains(line)).collect();
        let recent: BTreeSet<&String> = before.iter().rev().take(1_000).collect();
        println!("killed after {} of {}; handled again: {}", before.len(), lines.len(), twice.len());
        assert!(twice.is_subset(&recent), "only the last that it handled come again");
        assert_eq!(before.len() + after.len(), lines.len() + twice.len(), "and nothing else came twice");
        assert_order(&lines, before.iter().chain(after.iter().filter(|line| !twice.contains(line))));
        assert_order(&lines, after.iter());
    })
    .await;
}

/// Each origin's flights stand in the order of the file.
fn assert_order<'l>(lines: &[String], handled: impl Iterator<Item = &'l String>) {
    let place: BTreeMap<&String, usize> = lines.iter().enumerate().map(|(at, line)| (line, at)).collect();
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for line in handled {
        let flight: serde_json::Value = serde_json::from_str(line).expect("a flight");
        let origin = flight["origin"].as_str().expect("an origin").to_owned();
        let before = last.insert(origin.clone(), place[line]);
        assert!(before.is_none_or(|before| before < place[line]), "origin {origin}: {line} came too late");
    }
}
