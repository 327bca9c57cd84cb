//! Dead letters in a file: whole, and there before they are removed from their queue.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use correio_lab::broker::{Login, Node, for_each};
use correio_message::{DeadReason, Envelope, Exchange, Message, Properties, Route, ShortText, Value as WireValue};
use correio_tests::{
    programs::{Program, Run},
    work_queues::WorkQueue,
};
use serde_json::{Value, json};

use crate::dead_letters::{PATIENCE, dead_letters, numbered};

#[tokio::test]
async fn an_export_holds_every_byte_of_letters_that_stay() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "exported").await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = path(folder.path(), "dead.ndjson");
        let bytes = Message { payload: vec![0xff, 0, 0xfe, b'\n'].into(), ..numbered(&queue, 1) };
        queue.park([numbered(&queue, 0), bytes], DeadReason::Failed).await;
        queue.forward([foreign("exported.dead")]).await;

        let export = ["export", &file, "--from", queue.name()];
        let exported = dead_letters(node, &export).await;
        assert_eq!((exported.code, exported.stdout.as_str()), (Some(0), ""), "{exported}");
        assert!(exported.stderr.contains(&format!("exported 3 dead letters of exported to {file}")), "{exported}");
        let letters = lines(&file);
        assert_eq!((&letters[0]["id"], &letters[0]["payload"]), (&json!("id-0"), &json!("{\"n\":0}")));
        assert_eq!(
            (&letters[0]["routing_key"], &letters[0]["headers"]["correio-dead-queue"]),
            (&json!("exported"), &json!("exported"))
        );
        assert_eq!((&letters[1]["payload_base64"], &letters[1]["payload"]), (&json!("/wD+Cg=="), &Value::Null));
        let headers = &letters[2]["headers"];
        assert_eq!((&headers["bytes"], &headers["list"]), (&json!({ "bytes_base64": "/w==" }), &json!([1, null])));
        assert_eq!(
            (&letters[2]["properties"]["correlation_id"], &letters[2]["reason"]),
            (&json!("c"), &json!("other"))
        );

        // What is there is not written over by mistake.
        fs::write(&file, "mine\n").expect("written");
        let refused = dead_letters(node, &export).await;
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.stderr.contains("is there already") && refused.stderr.contains("--force"), "{refused}");
        assert_eq!(fs::read_to_string(&file).expect("read"), "mine\n");
        let nowhere = ["export", &file, "--force", "--from", "no-such-queue"];
        let failed = dead_letters(node, &nowhere).await;
        assert!(failed.code != Some(0) && failed.stderr.contains("is left as it was"), "{failed}");
        assert_eq!(fs::read_to_string(&file).expect("read"), "mine\n");
        let forced = dead_letters(node, &[&export[..], &["--force", "--id", "id-1"]].concat()).await;
        assert_eq!((forced.code, lines(&file).len()), (Some(0), 1), "{forced}");
        let piped = dead_letters(node, &["export", "-", "--from", queue.name(), "--limit", "2"]).await;
        assert_eq!((piped.code, piped.stdout.lines().count()), (Some(0), 2), "{piped}");
        assert_eq!(queue.dead().await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_purge_removes_what_is_wanted_and_only_when_that_is_said() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "purged").await;
        queue.park((0..4).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        queue.park((4..6).map(|n| numbered(&queue, n)), DeadReason::Unreadable).await;
        let purge = ["purge", "--from", queue.name(), "--reason", "unreadable"];
        let dry = dead_letters(node, &purge).await;
        assert_eq!(dry.code, Some(0), "{dry}");
        assert!(dry.stdout.starts_with("would have removed 2, not wanted 4 (purged)\n      2  unreadable"), "{dry}");
        assert!(dry.stderr.contains("nothing was removed: with --yes"), "{dry}");
        assert_eq!(queue.dead().await, 6);

        let purged = dead_letters(node, &[&purge[..], &["--yes"]].concat()).await;
        assert_eq!((purged.code, purged.stdout.as_str()), (Some(0), "removed 2, not wanted 4 (purged)\n"), "{purged}");
        let json = dead_letters(node, &["purge", "--from", queue.name(), "--id", "id-0", "--yes", "--json"]).await;
        let told: Value = serde_json::from_str(json.stdout.trim()).expect("one JSON object");
        assert_eq!(told, json!({ "removed": 1, "passed_over": 3, "ended_early": false, "dry_run": false }));
        let left = dead_letters(node, &["list", "--from", queue.name(), "--json"]).await;
        assert_eq!(ids(&left.stdout), ["id-1", "id-2", "id-3"]);
        assert_eq!(queue.depth().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_letter_is_removed_only_when_its_line_is_in_the_file() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "full-disk").await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = path(folder.path(), "old.ndjson");
        let long = |n| Message { payload: "x".repeat(3_000).into(), ..numbered(&queue, n) };
        queue.park((0..5).map(long), DeadReason::Failed).await;

        // A disk that is full: no file may be longer than a few of these letters.
        let program = correio_tests::programs::program("consumer");
        let purge = format!("{} dead-letters purge --from full-disk --yes --export {file}", program.display());
        let full = Program::at("/bin/sh")
            .args(["-c", &format!("trap '' XFSZ; ulimit -f 8; exec {purge}")])
            .env("AMQP_URL", node.amqp_url(Login::Consumer))
            .finish(PATIENCE)
            .await;
        assert_eq!(full.code, Some(1), "{full}");
        assert!(full.stderr.contains("cannot be written") && full.stderr.contains("still parked"), "{full}");
        assert_eq!(queue.dead().await, 5);

        fs::remove_file(&file).expect("removed");
        for id in ["id-3", "id-1"] {
            let args = ["purge", "--from", queue.name(), "--id", id, "--yes", "--export", &file];
            let purged = dead_letters(node, &args).await;
            assert_eq!(purged.code, Some(0), "{purged}");
        }
        assert_eq!(ids(&fs::read_to_string(&file).expect("read")), ["id-3", "id-1"], "behind what is there");
        let nowhere = dead_letters(node, &["purge", "--from", queue.name(), "--yes", "--export", "/dev/null"]).await;
        assert_eq!(nowhere.code, Some(2), "{nowhere}");
        assert_eq!(queue.dead().await, 3);
    })
    .await;
}

/// More than the 32 requests that the broker's channel has under way at once: what it keeps back it forgets when it is closed.
#[tokio::test]
async fn what_a_purge_says_it_has_removed_does_not_come_back() {
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "purged-whole").await;
        for _ in 0..3 {
            queue.park((0..63).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
            let purged = dead_letters(node, &["purge", "--from", queue.name(), "--yes"]).await;
            assert_eq!(purged.code, Some(0), "{purged}");
            queue.until_no_letter_is_held().await;
            assert_eq!(queue.dead().await, 0, "{purged}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_export_or_a_purge_that_is_killed_midway_loses_no_letter() {
    const LETTERS: usize = 600;
    for_each(async |node| {
        let queue = WorkQueue::shared(node, "killed-purge").await;
        let folder = tempfile::tempdir().expect("a folder");
        queue.park((0..LETTERS).map(|n| numbered(&queue, n)), DeadReason::Failed).await;
        let all: BTreeSet<String> = (0..LETTERS).map(|n| format!("id-{n}")).collect();

        let file = path(folder.path(), "export.ndjson");
        let export = started(node, &["export", &file, "--from", queue.name()]);
        killed_when_written(export, folder.path()).await;
        queue.until_no_letter_is_held().await;
        assert_eq!(queue.dead().await, LETTERS as u64);
        assert!(!Path::new(&file).exists(), "a part of the letters is taken for all");

        let folder = tempfile::tempdir().expect("a folder");
        let file = path(folder.path(), "purge.ndjson");
        let purge = ["purge", "--from", queue.name(), "--yes", "--export", &file];
        killed_when_written(started(node, &purge), folder.path()).await;
        queue.until_no_letter_is_held().await;
        let written = whole_lines(&file);
        let parked = dead_letters(node, &["list", "--from", queue.name(), "--json", "--limit", "10000"]).await;
        let parked: BTreeSet<String> = ids(&parked.stdout).into_iter().collect();
        assert!(parked.len() < LETTERS, "it was killed before it removed any");
        assert_eq!(written.union(&parked).cloned().collect::<BTreeSet<_>>(), all, "a letter is in neither");

        let again = dead_letters(node, &purge).await;
        assert_eq!(again.code, Some(0), "{again}");
        assert_eq!(queue.dead().await, 0);
        assert_eq!(whole_lines(&file), all);
    })
    .await;
}

/// As another client might have put it there: no type, headers of its own.
fn foreign(parking: &str) -> Envelope {
    let route = Route { exchange: Exchange::Dead.name(), routing_key: ShortText::new(parking).expect("short") };
    let list = WireValue::List(vec![WireValue::U8(1), WireValue::Void]);
    let headers = [("bytes", WireValue::Bytes(vec![0xff].into())), ("list", list)];
    let headers = headers.into_iter().map(|(name, value)| (ShortText::constant(name), value)).collect();
    let correlation_id = Some(ShortText::constant("c"));
    let properties = Properties { headers, correlation_id, ..Properties::default() };
    Envelope { route, properties, body: "stray".into() }
}

fn started(node: &Node, args: &[&str]) -> Run {
    let url = node.amqp_url(Login::Consumer);
    Program::new("consumer").args(["dead-letters"]).args(args).env("AMQP_URL", url).start()
}

/// Kills it when a part of its letters is in a file of the folder, under whichever name.
async fn killed_when_written(run: Run, folder: &Path) {
    let size = || {
        let files = fs::read_dir(folder).expect("read").filter_map(|file| file.ok()?.metadata().ok());
        files.map(|file| file.len()).sum::<u64>()
    };
    let written = async {
        while size() < 100_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, written).await.is_ok(), "nothing is written: {}", run.stderr());
    let killed = run.kill().await;
    assert_eq!(killed.code, None, "it was done before it was killed: {killed}");
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("a readable path").to_owned()
}

fn lines(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("read");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The ids in a file that a kill may have left with a line that is no whole one.
fn whole_lines(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(file).expect("read");
    let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    whole.map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

fn ids(lines: &str) -> Vec<String> {
    let of = |line| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned();
    lines.lines().map(of).collect()
}
