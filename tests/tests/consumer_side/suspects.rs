//! A message that takes its consumer with it is found and parked, and its neighbours are handled.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use correio_lab::broker::{Login, Node, for_each};
use correio_message::{DeadLetter, DeadReason};
use correio_tests::{
    consuming::{PATIENCE, ordered, producer, send, shared, until_depth},
    programs::{Program, Ran},
    queues::take_all,
};
use futures_util::future::join_all;

#[tokio::test]
async fn one_killer_among_100_ends_with_exactly_one_parked() {
    for_each(async |node| {
        let queue = shared(node, "killer").await;
        let parked = restarted_until_done(node, &queue, &["m-42"], 1, &[]).await;
        assert_eq!(parked, ["m-42"]);
    })
    .await;
}

// Before 4.3 the broker counts it too when a consumer that lives gives a message back: each of the others would add to the guilt.
#[tokio::test]
async fn of_100_that_three_consumers_compete_for_exactly_the_killer_is_parked() {
    for_each(async |node| {
        let queue = shared(node, "killer-of-three").await;
        let parked = restarted_until_done(node, &queue, &["m-42"], 3, &[]).await;
        assert_eq!(parked, ["m-42"]);
    })
    .await;
}

#[tokio::test]
async fn two_killers_next_to_each_other_are_both_found_and_nobody_else() {
    for_each(async |node| {
        let queue = shared(node, "killers").await;
        let parked = restarted_until_done(node, &queue, &["m-07", "m-08"], 1, &[]).await;
        assert_eq!(parked, ["m-07", "m-08"]);
    })
    .await;
}

#[tokio::test]
async fn a_killer_among_ordered_messages_is_parked_and_the_others_are_handled_in_order() {
    for_each(async |node| {
        let queue = ordered(node, "killer-in-order").await;
        let parked = restarted_until_done(node, &queue, &["m-42"], 1, &["--ordered"]).await;
        assert_eq!(parked, ["m-42"]);
    })
    .await;
}

/// Fills a queue with 100 messages and runs the program so many times at once, again and again as a supervisor would, until all of
/// them are handled or parked. Gives out the parked ones.
async fn restarted_until_done(
    node: &Node,
    queue: &str,
    killers: &[&str],
    at_once: usize,
    more: &[&str],
) -> Vec<String> {
    let all: BTreeSet<_> = (0..MESSAGES).map(|n| format!("m-{n:02}")).collect();
    send(&producer(node).await, queue, all.iter().cloned()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let done = folder.path().join("done");
    // A command whose consumer is gone may read nothing.
    let command = format!(
        "m=$(cat); case $m in {}) kill -9 $PPID;; ?*) echo $m >> '{}';; esac",
        killers.join("|"),
        done.display()
    );
    let deaths = AtomicUsize::new(0);
    let consumers = (0..at_once).map(async |_| {
        loop {
            let ran = run(node, queue, &command, more).await;
            if ran.code.is_some() {
                break;
            }
            let deaths = 1 + deaths.fetch_add(1, Ordering::Relaxed);
            assert!(deaths <= 5 * killers.len(), "it never ends: {ran}");
        }
    });
    join_all(consumers).await;
    until_depth(node, queue, 0).await;
    let parked = take_all(node, &format!("{queue}.dead")).await;
    let mut names = Vec::new();
    for envelope in parked {
        let letter = DeadLetter::of(&envelope).expect("a letter");
        assert_eq!(letter.reason, DeadReason::Killer, "{letter:?}");
        names.push(String::from_utf8_lossy(&envelope.body).into_owned());
    }
    let handled = lines(&done);
    let parted: BTreeSet<_> = handled.iter().chain(&names).cloned().collect();
    assert_eq!(parted, all, "lost");
    assert!(names.iter().all(|name| !handled.contains(name)), "handled and parked: {names:?}");
    names.sort();
    names
}

async fn run(node: &Node, queue: &str, command: &str, more: &[&str]) -> Ran {
    let args = ["run", "--from", queue, "--concurrency", "4", "--idle", "1", "--exec", command];
    let program = Program::new("consumer").args(args).args(more.iter().copied());
    program.env("AMQP_URL", node.amqp_url(Login::Consumer)).finish(PATIENCE).await
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

const MESSAGES: usize = 100;
