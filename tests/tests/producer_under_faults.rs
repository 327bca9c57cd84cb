//! Guarantees 2, 5, 7 and 9 under every fault in turn: each message has one outcome and it is true, keys keep their order, and
//! nothing is left over. On nodes of its own: they are killed, stopped and starved.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use correio_lab::{
    broker::{Login, Node, NodeOptions, QueueKind, for_each_own},
    faults::{Direction, Ending, Proxy},
    ledger::{Ledger, Said},
    lessons::Choices,
};
use correio_producer::{
    Address, Destination, Health, Key, Message, MessageId, Outcome, Producer, ProducerSettings, Route, SendError,
    ShortText,
};
use correio_tests::{
    consuming::PATIENCE,
    queues::{exchange_with, fresh, take_all},
    scale,
};
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

const CLOSE: Duration = Duration::from_secs(20);
const TASKS: u64 = 4;

/// One fault under load, and what it was about.
struct Journey<'n> {
    node: &'n Node,
    proxy: &'n Proxy,
    queue: String,
    producer: Producer,
    accepted: Arc<AtomicU64>,
}

impl Journey<'_> {
    /// Waits until so many more messages were accepted: the load goes on.
    async fn progress(&self, more: u64) {
        let wanted = self.accepted.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.accepted.load(Ordering::Relaxed) < wanted {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(PATIENCE, reached).await.is_ok(), "the senders stand still: {:?}", self.producer.counts());
    }

    async fn until_good(&self) {
        let mut health = self.producer.health();
        let is_good = timeout(PATIENCE, health.until(Health::is_good)).await.is_ok();
        assert!(is_good, "{:?} {:?}", health.now(), self.producer.counts());
    }
}

/// What every sender of a journey does until it is told to stop: a tenth goes where nobody lives, half have a key of their own.
async fn send(
    producer: Producer,
    task: u64,
    destinations: [Destination; 2],
    ledger: Arc<Mutex<Ledger>>,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    let [there, nowhere] = destinations;
    let mut receipts = JoinSet::new();
    let mut number = 0;
    // A steady load, so that what stands on the queue in the end can be read in a moment.
    let mut beat = interval(Duration::from_millis(40));
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        if number % 10 == 0 {
            beat.tick().await;
        }
        let key = (number % 2 == 0).then(|| format!("{task} {}", number % 7));
        let lost = key.is_none() && number % 10 == 1;
        let id = format!("{task}-{number}");
        let mut message = Message::new(if lost { nowhere.clone() } else { there.clone() }, id.clone());
        message.id = Some(MessageId::new(&id).unwrap());
        message.key = key.as_ref().map(|key| Key::new(key).unwrap());
        ledger.lock().unwrap().attempted(&id, key.as_deref(), number);
        let receipt = match producer.submit(message).await {
            Ok(receipt) => receipt,
            Err(never_left) => {
                note(&ledger, &id, Err(never_left));
                continue;
            }
        };
        accepted.fetch_add(1, Ordering::Relaxed);
        let ledger = ledger.clone();
        receipts.spawn(async move {
            let outcome = timeout(PATIENCE, receipt).await.expect("an outcome in time");
            note(&ledger, &id, outcome);
        });
        while receipts.len() >= 300 {
            receipts.join_next().await.expect("one of them").expect("no panic");
        }
    }
    while let Some(ended) = receipts.join_next().await {
        ended.expect("no panic");
    }
}

fn note(ledger: &Mutex<Ledger>, id: &str, result: Result<Outcome, SendError>) {
    let said = match result {
        Ok(Outcome::Confirmed { .. }) => Said::Confirmed,
        Ok(Outcome::Unroutable { .. }) => Said::Unroutable,
        Ok(Outcome::Refused { .. }) => Said::Refused,
        Ok(Outcome::Unknown { .. }) => Said::Unknown,
        Err(_) => Said::NotSent,
    };
    ledger.lock().unwrap().said(id, said, std::time::Instant::now());
}

/// Sends under load while something goes wrong, then compares what was said with what stands on the queue.
async fn journey(node: &Node, what: &str, deadline: Duration, fault: impl AsyncFnOnce(&Journey<'_>)) -> u64 {
    let began = Instant::now();
    let (queue, exchange) = (fresh("q"), fresh("x"));
    node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
    exchange_with(node, &exchange, &[&queue]).await;
    node.settle_before_kill().await;
    let proxy = Proxy::start(node.amqp_address()).await.unwrap();
    let tasks_before = Handle::current().metrics().num_alive_tasks();
    let url = node.amqp_url_through(Login::Lab, proxy.address());
    let settings = ProducerSettings::new(Address::parse(&url).unwrap(), "tests").unwrap();
    let settings = settings.window(200).channels(2).confirm_deadline(deadline).room_deadline(deadline);
    let producer = Producer::connect(settings).await.unwrap();
    let (ledger, accepted, stop) = (Arc::<Mutex<Ledger>>::default(), Arc::default(), Arc::<AtomicBool>::default());
    let route = |key: &str| {
        let (exchange, routing_key) = (ShortText::new(&exchange).unwrap(), ShortText::new(key).unwrap());
        Destination::Route(Route { exchange, routing_key })
    };
    let mut senders = JoinSet::new();
    for task in 0..TASKS {
        let destinations = [route(&queue), route("nobody-lives-here")];
        senders.spawn(send(producer.clone(), task, destinations, ledger.clone(), Arc::clone(&accepted), stop.clone()));
    }
    let journey = Journey { node, proxy: &proxy, queue, producer, accepted };
    journey.progress(500).await;
    fault(&journey).await;
    journey.until_good().await;
    journey.progress(500).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = senders.join_next().await {
        ended.expect("no panic");
    }
    let Journey { queue, producer, .. } = journey;
    producer.close(CLOSE).await;
    let counts = producer.counts();
    let ended = counts.confirmed + counts.unroutable + counts.refused + counts.unknown + counts.not_published;
    assert_eq!(ended, counts.accepted, "{what}: each accepted message ends once: {counts:?}");
    drop(producer);
    let nothing_left = async {
        while proxy.open() > 0 || Handle::current().metrics().num_alive_tasks() > tasks_before {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let left = timeout(PATIENCE, nothing_left).await.is_err();
    let alive = Handle::current().metrics().num_alive_tasks();
    assert!(!left, "{what}: {} connections and {alive} tasks are left of {tasks_before}", proxy.open());

    let mut ledger = std::mem::take(&mut *ledger.lock().unwrap());
    for envelope in take_all(node, &queue).await {
        // What its sender left undecided was declared void when the producer closed.
        if envelope.decode().expect("readable").is_marker {
            continue;
        }
        let id = envelope.properties.message_id.expect("an id").to_string();
        ledger.handled(&id, false, std::time::Instant::now());
    }
    let report = ledger.judge();
    println!("{what}: {report} in {:?}; {counts:?}", began.elapsed());
    let wrong = (report.lost, report.unexpected, report.contradicted, report.out_of_order());
    assert_eq!(wrong, (0, 0, 0, 0), "{what}: lost, unexpected, contradicted, out of order: {report:?}");
    assert_eq!(report.refused, 0, "{what}");
    assert!(report.unroutable > 0 && report.confirmed > 0, "{what}: nothing is shown");
    proxy.stop().await;
    report.unknown + report.not_sent
}

/// So long an answer may take where all is to be confirmed in the end.
const PATIENT: Duration = Duration::from_secs(200);

/// Every choice of a run comes from it.
fn seed() -> u64 {
    std::env::var("CORREIO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_starved_and_paused_each_message_has_one_true_outcome_each_key_its_order_and_nothing_is_left_over() {
    let cuts = scale::of(50, 10);
    let pause = Duration::from_secs(scale::of(20, 5));
    let seed = seed();
    for_each_own(NodeOptions::default(), async |node| {
        println!("RabbitMQ {}, CORREIO_SEED={seed}", node.version());
        let mut choices = Choices::new(seed, "faults");

        let doubts = journey(node, "cut again and again", PATIENT, async |journey| {
            for _ in 0..cuts {
                journey.progress(choices.number(200)).await;
                let ending = if choices.number(2) == 1 { Ending::Reset } else { Ending::Finish };
                journey.proxy.cut(ending).await;
            }
        })
        .await;
        assert_eq!(doubts, 0, "all of it was sent again until it was confirmed");

        let doubts = journey(node, "a memory alarm", PATIENT, async |journey| {
            journey.node.memory_alarm(true).await.unwrap();
            let mut health = journey.producer.health();
            timeout(PATIENCE, health.until(|health| health.blocked == 2)).await.expect("the alarm is seen");
            journey.node.memory_alarm(false).await.unwrap();
        })
        .await;
        assert_eq!(doubts, 0);

        let doubts = journey(node, "the broker paused", PATIENT, async |journey| {
            journey.node.pause().await.unwrap();
            sleep(pause).await;
            journey.node.resume().await.unwrap();
        })
        .await;
        assert_eq!(doubts, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_gone_and_killed_each_message_has_one_true_outcome_each_key_its_order_and_nothing_is_left_over() {
    let kills = scale::of(5, 5);
    let seed = seed();
    for_each_own(NodeOptions::default(), async |node| {
        println!("RabbitMQ {}, CORREIO_SEED={seed}", node.version());
        let mut choices = Choices::new(seed, "faults");

        let doubts = journey(node, "a peer that accepts and stays silent", PATIENT, async |journey| {
            journey.proxy.stall(true);
            journey.proxy.cut(Ending::Reset).await;
            let met = async {
                while journey.proxy.open() == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, met).await.expect("a new connection");
            journey.proxy.stall(false);
        })
        .await;
        assert_eq!(doubts, 0);

        let doubts = journey(node, "the port gone", PATIENT, async |journey| {
            journey.proxy.refuse_new(true).await;
            journey.proxy.cut(Ending::Finish).await;
            let mut health = journey.producer.health();
            timeout(PATIENCE, health.until(|health| health.open == 0)).await.expect("in time");
            journey.proxy.refuse_new(false).await;
        })
        .await;
        assert_eq!(doubts, 0);

        journey(node, "confirms swallowed past every deadline", Duration::from_secs(3), async |journey| {
            journey.proxy.swallow(Direction::BrokerToClient);
            let unknown = async {
                while journey.producer.counts().unknown == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, unknown).await.expect("some outcomes unknown");
        })
        .await;

        let doubts = journey(node, "killed", PATIENT, async |journey| {
            for _ in 0..kills {
                journey.progress(choices.number(100)).await;
                journey.node.kill_at_once().await.unwrap();
                journey.node.restart().await.unwrap();
                journey.until_good().await;
            }
        })
        .await;
        assert_eq!(doubts, 0);
    })
    .await;
}
