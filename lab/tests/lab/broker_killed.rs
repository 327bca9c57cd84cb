//! What the lab promises about a node that is killed, restarted, paused and starved.

use correio_lab::broker::{Login, NodeOptions, QueueKind, for_each, for_each_own};
use std::time::{Duration, Instant};

use crate::plain_client::{confirmed_sends, take_all};

#[tokio::test]
async fn a_node_answers_every_user_and_says_its_version() {
    for_each(async |node| {
        assert!(node.version().starts_with(|first: char| first.is_ascii_digit()), "{}", node.version());
        for login in [Login::Lab, Login::Producer, Login::Consumer] {
            crate::plain_client::connect(&node.amqp_url(login)).await;
        }
        assert!(node.management_url().is_none(), "no dashboard was asked for");
    })
    .await;
}

#[tokio::test]
async fn a_queue_is_counted_exactly_at_once() {
    for_each(async |node| {
        let queue = "lab.counted";
        node.declare_queue(queue, QueueKind::Quorum).await.expect("declared");
        confirmed_sends(&node.amqp_url(Login::Lab), queue, 7).await;
        assert_eq!(node.queue_depth(queue).await.expect("depth"), 7);
        let listed = node.list_queues().await.expect("listed");
        assert!(listed.iter().any(|(name, _, _)| name == queue), "{listed:?}");
        assert_eq!(node.purge(queue).await.expect("purged"), 7);
        assert_eq!(node.queue_depth(queue).await.expect("depth"), 0);
        node.delete_queue(queue).await.expect("deleted");
        assert!(node.queue_depth(queue).await.is_err(), "it is gone");
    })
    .await;
}

#[tokio::test]
async fn what_was_confirmed_survives_a_kill_and_a_restart_on_the_same_port() {
    for_each_own(NodeOptions::default(), async |node| {
        let (url, queue) = (node.amqp_url(Login::Lab), "lab.killed");
        node.declare_queue(queue, QueueKind::Quorum).await.expect("declared");
        confirmed_sends(&url, queue, 100).await;
        let started = Instant::now();
        node.kill().await.expect("killed");
        assert!(!node.is_running().await);
        assert!(started.elapsed() > Duration::from_secs(1), "it waited until the queue was old enough");
        assert!(node.queue_depth(queue).await.is_err(), "nobody answers");
        node.restart().await.expect("restarted");
        assert_eq!(node.amqp_url(Login::Lab), url);
        assert_eq!(take_all(&url, queue).await, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        node.stop().await.expect("stopped");
        assert!(!node.is_running().await);
        node.restart().await.expect("restarted after a stop");
        node.restart().await.expect("restarted while it runs");
    })
    .await;
}

#[tokio::test]
async fn a_paused_node_answers_nobody_until_it_goes_on() {
    for_each_own(NodeOptions::default(), async |node| {
        node.declare_queue("lab.paused", QueueKind::Classic).await.expect("declared");
        node.pause().await.expect("paused");
        assert!(node.is_running().await);
        let silent = tokio::time::timeout(Duration::from_millis(500), node.queue_depth("lab.paused")).await;
        assert!(silent.is_err(), "{silent:?}");
        node.resume().await.expect("resumed");
        assert_eq!(node.queue_depth("lab.paused").await.expect("depth"), 0);

        node.memory_alarm(true).await.expect("alarm");
        let url = node.amqp_url(Login::Lab);
        let blocked = tokio::time::timeout(Duration::from_millis(500), confirmed_sends(&url, "lab.paused", 1)).await;
        assert!(blocked.is_err(), "nobody confirms under an alarm");
        node.memory_alarm(false).await.expect("alarm over");
        confirmed_sends(&url, "lab.paused", 1).await;
    })
    .await;
}
