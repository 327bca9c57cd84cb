//! Events on real input: flights under keys of two airports, three groups whose patterns overlap, one of them killed on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use correio_lab::broker::{Login, Node, for_each};
use correio_message::{TopicKey, TopicPattern};
use correio_tests::{
    consuming::{Running, Seen, until},
    programs::{Program, Run},
    queues::fresh,
    subscribers::{Whose, note, queues_with},
};
use nix::sys::signal::Signal;
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

/// Origin and destination of each flight.
fn airports(line: &str) -> (String, String) {
    let flight: serde_json::Value = serde_json::from_str(line).expect("a flight");
    let airport = |field: &str| flight[field].as_str().expect("an airport").to_owned();
    (airport("origin"), airport("destination"))
}

fn consumer(node: &Node, whose: &Whose, output: &Path) -> Run {
    Program::new("consumer")
        .args(["run"])
        .args(whose.args())
        .args(["--json", "--output", &output.display().to_string()])
        .env("AMQP_URL", node.amqp_url(Login::Consumer))
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

async fn until_lines(output: &Path, wanted: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lines = written(output);
        if lines.len() >= wanted {
            return lines;
        }
        assert!(Instant::now() < deadline, "{} of {wanted}", lines.len());
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_group_has_exactly_its_own_flights_once_although_one_of_them_is_killed() {
    let file = flights();
    let lines: Vec<String> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    for_each(async |node| {
        let tag = fresh("flight");
        let (lax, dfw, all) = (format!("{tag}.*.LAX"), format!("{tag}.DFW.*"), format!("{tag}.#"));
        // Each group's flights, counted twice: by what a pattern means, and by the airports alone.
        let matching = |pattern: &str| -> BTreeSet<&String> {
            let pattern = TopicPattern::new(pattern).unwrap();
            let wants = |line: &&String| {
                let (origin, destination) = airports(line);
                pattern.matches(&TopicKey::new(format!("{tag}.{origin}.{destination}")).unwrap())
            };
            lines.iter().filter(wants).collect()
        };
        let counted: BTreeMap<&str, usize> = [
            ("lax", lines.iter().filter(|line| airports(line).1 == "LAX").count()),
            ("dfw", lines.iter().filter(|line| airports(line).0 == "DFW").count()),
            ("both", lines.iter().filter(|line| airports(line) == ("DFW".into(), "LAX".into())).count()),
        ]
        .into();
        let (to_lax, from_dfw) = (matching(&lax), matching(&dfw));
        assert_eq!(
            (to_lax.len(), from_dfw.len()),
            (counted["lax"], counted["dfw"]),
            "no flight stands twice in the file"
        );
        assert_eq!(to_lax.intersection(&from_dfw).count(), counted["both"]);
        assert!(counted["both"] > 0 && matching(&all).len() == lines.len(), "the patterns overlap");
        println!("{counted:?} of {}", lines.len());

        let folder = tempfile::tempdir().unwrap();
        let outputs = ["first", "second"].map(|name| folder.path().join(name));
        let doomed = Whose::Group(all.clone(), format!("{tag}.all"));
        let mut groups = Vec::new();
        for (pattern, wanted) in [(&lax, &to_lax), (&dfw, &from_dfw)] {
            let seen = Seen::default();
            let whose = Whose::Group(pattern.clone(), tag.clone());
            let (_, running) = Running::begin(whose.at(node).on_any(note(&seen, ""))).await;
            groups.push((running, seen, wanted));
        }
        // The group is there before the first event; who works for it comes and goes.
        let (_, made) = Running::begin(doomed.at(node).on_any(note(&Seen::default(), ""))).await;
        made.stop().await;
        let first = consumer(node, &doomed, &outputs[0]);

        let template = format!("{tag}.{{origin}}.{{destination}}");
        let sending = Program::new("producer")
            .args(["send", "--topic-template", &template, "--json", "--file", &file.display().to_string()])
            .env("AMQP_URL", node.amqp_url(Login::Producer))
            .start();
        until_lines(&outputs[0], lines.len() / 3).await;
        let killed = first.kill().await;
        assert_eq!(killed.code, None, "killed by a signal");
        let before = written(&outputs[0]);
        let second = consumer(node, &doomed, &outputs[1]);

        let sent = sending.finish(PATIENCE).await;
        assert_eq!(sent.code, Some(0), "{sent}");
        let summary: serde_json::Value = serde_json::from_str(sent.stdout.trim()).unwrap();
        assert_eq!(summary["confirmed"], lines.len(), "{sent}");
        let wanted: BTreeSet<&String> = lines.iter().collect();
        let deadline = Instant::now() + PATIENCE;
        let after = loop {
            let after = written(&outputs[1]);
            if before.iter().chain(&after).collect::<BTreeSet<_>>().len() >= wanted.len() {
                break after;
            }
            assert!(Instant::now() < deadline, "{} and {} of {}", before.len(), after.len(), lines.len());
            sleep(Duration::from_millis(100)).await;
        };
        second.signal(Signal::SIGTERM);
        let ended = second.finish(PATIENCE).await;
        assert_eq!(ended.code, Some(0), "{ended}");
        let after = if written(&outputs[1]).len() > after.len() { written(&outputs[1]) } else { after };

        assert_eq!(before.iter().chain(&after).collect::<BTreeSet<_>>(), wanted, "none lost, none invented");
        let twice: BTreeSet<&String> = before.iter().filter(|line| after.contains(line)).collect();
        let recent: BTreeSet<&String> = before.iter().rev().take(1_000).collect();
        println!("killed after {} of {}; handled again: {}", before.len(), lines.len(), twice.len());
        assert!(twice.is_subset(&recent), "only the last that it handled come again");
        assert_eq!(before.len() + after.len(), lines.len() + twice.len(), "and nothing else came twice");

        for (running, seen, wanted) in groups {
            until(|| seen.len() >= wanted.len(), || format!("{} of {}", seen.len(), wanted.len())).await;
            let counts = running.stop().await.counts;
            let all = seen.all();
            assert_eq!(all.iter().collect::<BTreeSet<_>>(), *wanted, "exactly its own");
            assert_eq!((all.len(), counts.handled as usize), (wanted.len(), wanted.len()), "each once");
        }
        let left = queues_with(node, &tag).await;
        assert!(left.iter().all(|(_, messages)| *messages == 0), "{left:?}");
    })
    .await;
}
