//! The examples do what they say, on the broker as we ship it.

use std::time::Duration;

use correio_lab::broker::{Login, for_each};
use correio_tests::programs::Program;
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_sent_one_by_one_and_many_at_once_and_counted() {
    for_each(async |node| {
        let _turn = ORDERS.lock().await;
        let example = |name: &str, login| Program::new(name).env("AMQP_URL", node.amqp_url(login)).finish(PATIENCE);
        let one = example("send_one", Login::Producer).await;
        assert!(one.stdout.contains("order 1 is on the queue"), "{one}");
        let many = example("send_many", Login::Producer).await;
        assert!(many.stdout.contains("10000 confirmed, 0 not"), "{many}");
        let counted = example("count_orders", Login::Consumer).await;
        assert!(counted.stdout.contains("10003 pieces in all"), "{}", counted.stderr);
        assert!(counted.stdout.contains("10001 handled, 0 duplicates, 0 dead"), "{}", counted.stderr);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_have_the_replies_of_a_command() {
    for_each(async |node| {
        // On a queue of the same name as in its comment, which the other example fills: they take turns.
        let _turn = ORDERS.lock().await;
        let service = Program::new("consumer")
            .args(["run", "--from", "orders", "--exec", "tr a-z A-Z"])
            .env("AMQP_URL", node.amqp_url(Login::Consumer))
            .start();
        let asking = Program::new("request").env("AMQP_URL", node.amqp_url(Login::Producer)).finish(PATIENCE).await;
        // In good order: what it has replied to is acknowledged, and nothing is left for the other example.
        service.signal(Signal::SIGTERM);
        let service = service.finish(PATIENCE).await;
        assert_eq!(service.code, Some(0), "{service}");
        assert!(asking.stdout.contains("7: HOW MUCH IS ORDER 7?"), "{asking}");
        assert!(asking.stdout.contains("100 of 100 have a reply"), "{asking}");
    })
    .await;
}

/// Each example has the queue for itself.
static ORDERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
