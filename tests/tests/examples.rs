//! The examples do what they say, on the broker as we ship it.

use std::time::Duration;

use correio_lab::broker::{Login, for_each};
use correio_tests::programs::Program;

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_sent_one_by_one_and_many_at_once_and_counted() {
    for_each(async |node| {
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
