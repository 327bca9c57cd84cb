//! Guarantee 7 when the broker comes back with less than it had: who may declare has its queues again after the loss.

use std::time::Duration;

use correio_consumer::{ConsumeError, Message, Topology, WorkQueue};
use correio_lab::broker::{Login, Node, NodeOptions, for_each, for_each_own};
use correio_producer::{Address, ConnectError, DeclareError, Outcome, Producer, ProducerSettings};
use correio_tests::{
    consuming::{Running, Seen, consumer, consumer_at, declare},
    queues::fresh,
};

const CLOSE: Duration = Duration::from_secs(10);

fn topology(queue: &str) -> Topology {
    Topology::exchanges_only().with(&WorkQueue::shared(queue).unwrap())
}

async fn connected(node: &Node, login: Login, topology: Option<Topology>) -> Result<Producer, ConnectError> {
    let settings = ProducerSettings::new(Address::parse(&node.amqp_url(login)).unwrap(), "tests").unwrap();
    Producer::connect(match topology {
        Some(topology) => settings.declare(topology),
        None => settings,
    })
    .await
}

async fn send(producer: &Producer, queue: &str) -> Outcome {
    producer.send(Message::new(correio_producer::Destination::queue(queue).unwrap(), "hello")).await.unwrap()
}

fn noting(seen: &Seen) -> impl Fn(Message) -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
    let seen = seen.clone();
    move |message| {
        seen.note(&message);
        std::future::ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_everything_has_the_declared_queues_again_and_without_declaring_it_has_not() {
    for_each_own(NodeOptions::default(), async |node| {
        let lose_everything = async || {
            for step in ["stop_app", "reset", "start_app"] {
                node.ctl(&[step]).await.unwrap();
            }
        };
        let queue = declare(node, WorkQueue::shared(fresh("wiped")).unwrap()).await;
        let trusting = connected(node, Login::Lab, None).await.unwrap();
        assert!(send(&trusting, &queue).await.is_confirmed());
        lose_everything().await;
        let lost = send(&trusting, &queue).await;
        assert!(matches!(lost, Outcome::Unroutable { .. }), "{lost}");

        let declaring = connected(node, Login::Lab, Some(topology(&queue))).await.unwrap();
        assert!(send(&declaring, &queue).await.is_confirmed());
        lose_everything().await;
        assert!(send(&declaring, &queue).await.is_confirmed(), "declared again by the reconnect");
        assert_eq!(node.queue_depth(&queue).await.unwrap(), 1);
        for producer in [declaring, trusting] {
            producer.close(CLOSE).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_may_declare_has_its_deleted_queue_again() {
    for_each(async |node| {
        let queue = declare(node, WorkQueue::shared(fresh("deleted")).unwrap()).await;
        let seen = Seen::default();
        let builder = consumer_at(&node.amqp_url(Login::Lab), &queue).declare(topology(&queue));
        let running = Running::start(builder.on_any(noting(&seen)));
        let producer = connected(node, Login::Lab, None).await.unwrap();
        assert!(send(&producer, &queue).await.is_confirmed());
        running.until(|tally| tally.handled == 1).await;

        node.delete_queue(&queue).await.unwrap();
        running.until(|tally| tally.resubscribed >= 1).await;
        assert!(send(&producer, &queue).await.is_confirmed());
        running.until(|tally| tally.handled == 2).await;
        running.stop().await;
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_declare_or_finds_it_otherwise_is_told_at_once_which_thing_it_is() {
    for_each(async |node| {
        let queue = declare(node, WorkQueue::ordered(fresh("ordered")).unwrap()).await;
        let forbidden = connected(node, Login::Producer, Some(topology(&queue))).await.expect_err("no rights");
        assert!(forbidden.is_permanent());
        let ConnectError::NotDeclared(cause) = &forbidden else { panic!("{forbidden}") };
        assert!(matches!(**cause, DeclareError::Forbidden { .. }), "{forbidden}");
        assert!(forbidden.to_string().contains("user “producer” may not declare exchange correio."), "{forbidden}");

        let differs = connected(node, Login::Lab, Some(topology(&queue))).await.expect_err("it is ordered");
        assert!(differs.to_string().contains(&format!("queue {queue} exists with other arguments")), "{differs}");

        let builder = consumer(node, &queue).declare(topology(&queue)).on_any(noting(&Seen::default()));
        let refused = builder.build().unwrap().check().await.expect_err("no rights");
        assert!(matches!(&refused, ConsumeError::Connect(ConnectError::NotDeclared(_))), "{refused}");
    })
    .await;
}
