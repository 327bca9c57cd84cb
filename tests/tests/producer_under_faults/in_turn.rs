//! Guarantees 2, 5, 7 and 9 under every fault in turn: each message has one outcome and it is true, keys keep their order, and
//! nothing is left over. On nodes of its own: they are killed, stopped and starved.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use correio_lab::{
    broker::{Login, Node, NodeOptions, QueueKind, for_each_own_in_turn},
    faults::{Direction, Ending, Proxy},
    ledger::{Ledger, Report, Said},
    lessons::Choices,
};
use correio_producer::{
    Address, Destination, Health, Key, Message, MessageId, OnHole, Outcome, Producer, ProducerSettings, Route,
    SendError, ShortText,
};
use correio_tests::{
    consuming::{PATIENCE, until},
    programs::{Program, Ran},
    queues::{exchange_with, fresh, name, plain, take_all},
    scale,
};
use lapin::options::QueueDeleteOptions;
use nix::sys::signal::Signal;
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

const CLOSE: Duration = Duration::from_secs(20);
const TASKS: u64 = 4;
const WINDOW: usize = 200;

/// One fault under load, and what it was about.
struct Journey<'n> {
    node: &'n Node,
    proxy: &'n Proxy,
    exchange: String,
    queue: String,
    producer: Producer,
    ledger: Arc<Mutex<Ledger>>,
    accepted: Arc<AtomicU64>,
}

impl Journey<'_> {
    /// Waits until so many more messages were accepted: the load goes on.
    async fn progress(&self, more: u64) {
        let wanted = self.accepted.load(Ordering::Relaxed) + more;
        until(|| self.accepted.load(Ordering::Relaxed) >= wanted, || format!("{:?}", self.producer.counts())).await;
    }

    /// Waits until so many more messages were said to be unroutable.
    async fn until_unroutable(&self, more: u64) {
        let wanted = self.producer.counts().unroutable + more;
        until(|| self.producer.counts().unroutable >= wanted, || format!("{:?}", self.producer.counts())).await;
    }

    /// Waits until so many more messages were confirmed.
    async fn until_confirmed(&self, more: u64) {
        let wanted = self.producer.counts().confirmed + more;
        until(|| self.producer.counts().confirmed >= wanted, || format!("{:?}", self.producer.counts())).await;
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
async fn journey(
    node: &Node,
    what: &str,
    manner: impl FnOnce(ProducerSettings) -> ProducerSettings,
    fault: impl AsyncFnOnce(&Journey<'_>),
) -> Report {
    let began = Instant::now();
    let (queue, exchange) = (fresh("q"), fresh("x"));
    node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
    exchange_with(node, &exchange, &[&queue]).await;
    let proxy = Proxy::start(node.amqp_address()).await.unwrap();
    let url = node.amqp_url_through(Login::Lab, proxy.address());
    let settings = ProducerSettings::new(Address::parse(&url).unwrap(), "tests").unwrap();
    let producer = Producer::connect(manner(settings.window(WINDOW).channels(2))).await.unwrap();
    let (ledger, accepted, stop) = (Arc::<Mutex<Ledger>>::default(), Arc::default(), Arc::<AtomicBool>::default());
    let mut senders = JoinSet::new();
    for task in 0..TASKS {
        let destinations = [route(&exchange, &queue), route(&exchange, "nobody-lives-here")];
        senders.spawn(send(producer.clone(), task, destinations, ledger.clone(), Arc::clone(&accepted), stop.clone()));
    }
    let journey = Journey { node, proxy: &proxy, exchange, queue, producer, ledger, accepted };
    journey.progress(500).await;
    fault(&journey).await;
    journey.until_good().await;
    journey.progress(500).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = senders.join_next().await {
        ended.expect("no panic");
    }
    let Journey { queue, producer, ledger, .. } = journey;
    producer.close(CLOSE).await;
    let counts = producer.counts();
    let ended = counts.confirmed + counts.unroutable + counts.refused + counts.unknown + counts.not_published;
    assert_eq!(ended, counts.accepted, "{what}: each accepted message ends once: {counts:?}");
    drop(producer);
    until(|| proxy.open() == 0, || format!("{what}: {} connections are left", proxy.open())).await;

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
    assert!(report.unroutable > 0 && report.confirmed > 0, "{what}: nothing is shown");
    proxy.stop().await;
    report
}

fn route(exchange: &str, key: &str) -> Destination {
    let (exchange, routing_key) = (ShortText::new(exchange).unwrap(), ShortText::new(key).unwrap());
    Destination::Route(Route { exchange, routing_key })
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Asked once, after all of it: the client library has a task for the heartbeats of each connection that notices only with the
/// next of them that this has ended.
async fn no_task_is_left_of(before: usize) {
    until(|| tasks() <= before, || format!("{} tasks are left, of {before}", tasks())).await;
}

/// An answer may take so long that all is confirmed in the end.
fn patient(settings: ProducerSettings) -> ProducerSettings {
    within(settings, Duration::from_secs(200))
}

fn within(settings: ProducerSettings, deadline: Duration) -> ProducerSettings {
    settings.confirm_deadline(deadline).room_deadline(deadline)
}

/// Neither doubts nor refusals: all was sent again until it was confirmed.
fn nothing_but_confirmed(report: &Report) {
    assert_eq!((report.unknown, report.not_sent, report.refused, report.deleted), (0, 0, 0, 0), "{report:?}");
}

/// Every choice of a run comes from it.
fn seed() -> u64 {
    std::env::var("CORREIO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_starved_and_paused_each_message_has_one_true_outcome_each_key_its_order_and_nothing_is_left_over() {
    let (cuts, culprits, deletions) = (scale::of(50, 10), scale::of(50, 10), scale::of(5, 5));
    let pause = Duration::from_secs(scale::of(20, 5));
    let seed = seed();
    for_each_own_in_turn(NodeOptions::default(), async |node| {
        println!("RabbitMQ {}, CORREIO_SEED={seed}", node.version());
        let (mut choices, tasks_before) = (Choices::new(seed, "faults"), tasks());

        let report = journey(node, "cut again and again", patient, async |journey| {
            for _ in 0..cuts {
                journey.progress(choices.number(200)).await;
                let ending = if choices.number(2) == 1 { Ending::Reset } else { Ending::Finish };
                journey.proxy.cut(ending).await;
            }
        })
        .await;
        nothing_but_confirmed(&report);

        let report = journey(node, "a missing exchange among good ones", patient, async |journey| {
            for number in 0..culprits {
                journey.progress(choices.number(200)).await;
                let bad = Message::new(route("there-is-no-such-exchange", &journey.queue), format!("bad {number}"));
                let outcome = timeout(PATIENCE, journey.producer.send(bad)).await.expect("in time").expect("it left");
                let Outcome::Unroutable { reason, .. } = outcome else { panic!("{outcome}") };
                assert!(reason.starts_with("404") && reason.contains("there-is-no-such-exchange"), "{reason}");
            }
        })
        .await;
        nothing_but_confirmed(&report);

        let report = journey(node, "confirms lost, then the connection", patient, async |journey| {
            journey.proxy.lose_confirms(true);
            let lost = || journey.proxy.counts().confirms_dropped;
            until(|| lost() >= 10, || format!("{} were lost", lost())).await;
            journey.proxy.lose_confirms(false);
            journey.proxy.cut(Ending::Reset).await;
        })
        .await;
        nothing_but_confirmed(&report);
        assert!(report.duplicated_first > 0, "all of it was there already: {report:?}");

        let mut gone = 0;
        let voiding = |settings| patient(settings).on_hole(OnHole::Void);
        let report = journey(node, "a queue deleted and made again", voiding, async |journey| {
            let (connection, channel) = plain(node).await;
            for _ in 0..deletions {
                let deleting = channel.queue_delete(name(&journey.queue), QueueDeleteOptions::default());
                let with_it = timeout(PATIENCE, deleting).await.expect("in time").expect("deleted");
                gone += u64::from(with_it);
                journey.ledger.lock().unwrap().queue_deleted();
                // What was on its way has its answer by then, and nobody else is confirmed.
                journey.until_unroutable(300).await;
                let confirmed = journey.producer.counts().confirmed;
                journey.until_unroutable(100).await;
                assert_eq!(journey.producer.counts().confirmed, confirmed, "there is no queue");
                node.declare_queue(&journey.queue, QueueKind::Quorum).await.unwrap();
                exchange_with(node, &journey.exchange, &[&journey.queue]).await;
                journey.until_confirmed(300).await;
            }
            connection.close(200, name("done")).await.expect("closed");
        })
        .await;
        assert_eq!((report.unknown, report.not_sent), (0, 0), "{report:?}");
        // What was confirmed and is not there was there when the broker deleted it; or on its way into the queue just then, which
        // the broker confirms too.
        let most = gone + deletions * WINDOW as u64;
        assert!((1..=most).contains(&report.deleted), "{gone} were deleted: {report:?}");

        let report = journey(node, "a memory alarm", patient, async |journey| {
            journey.node.memory_alarm(true).await.unwrap();
            let mut health = journey.producer.health();
            timeout(PATIENCE, health.until(|health| health.blocked == 2)).await.expect("the alarm is seen");
            journey.node.memory_alarm(false).await.unwrap();
        })
        .await;
        nothing_but_confirmed(&report);

        let report = journey(node, "the broker paused", patient, async |journey| {
            journey.node.pause().await.unwrap();
            sleep(pause).await;
            journey.node.resume().await.unwrap();
        })
        .await;
        nothing_but_confirmed(&report);
        no_task_is_left_of(tasks_before).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_gone_and_killed_each_message_has_one_true_outcome_each_key_its_order_and_nothing_is_left_over() {
    let kills = scale::of(5, 5);
    let seed = seed();
    for_each_own_in_turn(NodeOptions::default(), async |node| {
        println!("RabbitMQ {}, CORREIO_SEED={seed}", node.version());
        let (mut choices, tasks_before) = (Choices::new(seed, "faults"), tasks());

        let report = journey(node, "a peer that accepts and stays silent", patient, async |journey| {
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
        nothing_but_confirmed(&report);

        let report = journey(node, "the port gone", patient, async |journey| {
            journey.proxy.refuse_new(true).await;
            journey.proxy.cut(Ending::Finish).await;
            let mut health = journey.producer.health();
            timeout(PATIENCE, health.until(|health| health.open == 0)).await.expect("in time");
            journey.proxy.refuse_new(false).await;
        })
        .await;
        nothing_but_confirmed(&report);

        let impatient = |settings| within(settings, Duration::from_secs(3));
        let report = journey(node, "confirms swallowed past every deadline", impatient, async |journey| {
            journey.proxy.swallow(Direction::BrokerToClient);
            let unknown = async {
                while journey.producer.counts().unknown == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, unknown).await.expect("some outcomes unknown");
        })
        .await;
        assert_eq!((report.refused, report.deleted), (0, 0), "{report:?}");

        // A program that knows nothing of all this, beside it.
        let example = Program::new("survive_a_restart").env("AMQP_URL", node.amqp_url(Login::Producer)).start();
        example.stdout_until(PATIENCE, "a hundred orders", |text| text.contains("100 orders are on the queue")).await;
        let report = journey(node, "killed", patient, async |journey| {
            journey.node.settle_before_kill().await;
            for _ in 0..kills {
                journey.progress(choices.number(100)).await;
                journey.node.kill_at_once().await.unwrap();
                journey.node.restart().await.unwrap();
                journey.until_good().await;
            }
        })
        .await;
        nothing_but_confirmed(&report);
        example.stdout_until(PATIENCE, "back", |text| text.contains("the broker is back")).await;
        example.signal(Signal::SIGINT);
        all_orders_are_there(node, &example.finish(PATIENCE).await).await;
        no_task_is_left_of(tasks_before).await;
    })
    .await;
}

/// What the example says in the end is true.
async fn all_orders_are_there(node: &Node, example: &Ran) {
    assert!(
        example.stdout.contains("the broker is away") && example.stdout.contains("the broker is back"),
        "{example}"
    );
    let mut orders = BTreeSet::new();
    for envelope in take_all(node, "orders").await {
        let order: serde_json::Value = serde_json::from_slice(&envelope.body).expect("JSON");
        orders.insert(order["number"].as_u64().expect("a number"));
    }
    let sent = orders.len() as u64;
    assert!(orders.into_iter().eq(1..=sent), "an order is missing");
    assert!(example.stdout.contains(&format!("{sent} of {sent} orders are on the queue")), "{sent}: {example}");
}
