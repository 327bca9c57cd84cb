//! Requests at scale while those who answer are killed: each ends in its own reply or in a named error by its deadline.

use std::time::Duration;

use correio_lab::broker::{Login, Node, for_each};
use correio_producer::{Address, Destination, Message, Producer, ProducerSettings, RequestError};
use correio_tests::{
    programs::{Program, Run},
    scale,
    work_queues::WorkQueue,
};
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

const IN_FLIGHT: usize = 500;
const DEADLINE: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(60);

/// A service in a process of its own that answers each line with what it read.
fn responder(node: &Node, queue: &str) -> Run {
    Program::new("consumer")
        .args(["run", "--from", queue, "--exec", "read line; echo \"answer to $line\""])
        .env("AMQP_URL", node.amqp_url(Login::Consumer))
        .start()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_gets_its_own_reply_although_the_service_is_killed_twice_and_nothing_is_left_on_any_queue() {
    for_each(async |node| {
        let count = scale::of(10_000, 10);
        let queue = WorkQueue::shared(node, "killed-twice").await;
        let to = Destination::queue(queue.name()).unwrap();
        let address = Address::parse(&node.amqp_url(Login::Producer)).unwrap();
        let settings = ProducerSettings::new(address, "tests").unwrap().requests_at_once(IN_FLIGHT);
        let requester = Producer::connect(settings).await.unwrap();

        let mut service = responder(node, queue.name());
        let mut asking = stream::iter(1..=count)
            .map(|number| {
                let (requester, to) = (requester.clone(), to.clone());
                async move {
                    let message = Message::new(to, format!("{number}\n"));
                    (number, requester.request(message, DEADLINE).await)
                }
            })
            .buffer_unordered(IN_FLIGHT);
        let (mut answered, mut told) = (0, 0);
        while let Some((number, reply)) = asking.next().await {
            match reply {
                Ok(reply) => {
                    assert_eq!(reply.payload, format!("answer to {number}"), "the reply to another request");
                    answered += 1;
                }
                Err(RequestError::DeadlinePassed { .. }) => told += 1,
                Err(other) => panic!("{number}: {other}"),
            }
            if [count / 3, 2 * count / 3].contains(&(answered + told)) {
                service.kill().await;
                service = responder(node, queue.name());
            }
        }
        drop(asking);
        assert_eq!((answered, told), (count, 0), "nobody waited for as long as the deadline");
        let counts = requester.counts();
        assert_eq!((counts.requests, counts.replies), (count, count));
        println!(
            "{} replies came twice, as the service was killed between answering and acknowledging",
            counts.late_replies
        );
        requester.close(PATIENCE).await;
        queue.until_depth(|depth| depth == 0).await;
        service.signal(nix::sys::signal::Signal::SIGTERM);
        let ended = service.finish(PATIENCE).await;
        assert_eq!(ended.code, Some(0), "{ended}");
        // The counts of such a list are some seconds old. Nobody holds anything any more, so that what is there is ready.
        for (name, ..) in node.list_queues().await.unwrap() {
            if name.starts_with(queue.name()) {
                let empty = async { while !matches!(node.queue_depth(&name).await, Ok(0)) {} };
                timeout(PATIENCE, empty).await.unwrap_or_else(|_| panic!("{name} is not empty"));
            }
        }
    })
    .await;
}
