//! Guarantee 9 while the broker is away for long and the senders do not care: what is held stays within its bytes, everybody is
//! told in time, and the producer goes on by itself.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use correio_lab::{
    broker::{Brokers, Login, Node, QueueKind},
    faults::{Ending, Proxy},
    ledger::{Ledger, Said},
};
use correio_producer::{
    Address, Counts, Destination, Health, Key, Message, MessageId, OnHole, Outcome, Producer, ProducerSettings,
    Receipt, Route, SendError, SendFailure, ShortText,
};
use correio_tests::{
    consuming::PATIENCE,
    queues::{fresh, take_each},
    scale,
};
use futures_util::future::join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

/// What a producer may hold, and what each message takes of it.
const BUFFER: usize = 4 * 1024 * 1024;
const BODY: usize = 8 * 1024;
const WEIGHT: usize = 512 + 2 * BODY;
/// How long a sender waits for room.
const ROOM: Duration = Duration::from_millis(500);
/// An answer that is this late on a busy machine is late.
const SLACK: Duration = Duration::from_secs(10);
/// What the allocator, the ledgers and the tests beside this one may take of memory meanwhile.
const ELSEWHERE: usize = 128 * 1024 * 1024;

/// A producer whose broker goes away, and what its senders were told.
struct Away {
    producer: Producer,
    to: Destination,
    answer_within: Duration,
    /// Of what has left; the rest must not be on the queue.
    ledger: Mutex<Ledger>,
    offered: AtomicU64,
    full: AtomicU64,
    no_room: AtomicU64,
    stop: AtomicBool,
}

impl Away {
    async fn connect(url: &str, queue: &str, answer_within: Duration) -> Arc<Self> {
        let settings = ProducerSettings::new(Address::parse(url).unwrap(), "tests").unwrap().on_hole(OnHole::Void);
        let settings = settings.buffer_bytes(BUFFER).room_deadline(ROOM).confirm_deadline(answer_within);
        let to = Route { exchange: ShortText::new("").unwrap(), routing_key: ShortText::new(queue).unwrap() };
        Arc::new(Self {
            producer: Producer::connect(settings).await.unwrap(),
            to: Destination::Route(to),
            answer_within,
            ledger: Mutex::default(),
            offered: AtomicU64::new(0),
            full: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// A message of so many bytes of its own, every second one with a key.
    fn message(&self, tag: &str, number: u64) -> (Message, Option<String>) {
        let key = number.is_multiple_of(2).then(|| format!("{tag} {}", number % 5));
        let id = MessageId::new(format!("{tag}-{number}")).unwrap();
        let mut message = Message::new(self.to.clone(), vec![b'x'; BODY]).with_id(id);
        message.key = key.as_ref().map(|key| Key::new(key).unwrap());
        self.offered.fetch_add(1, Ordering::Relaxed);
        (message, key)
    }

    /// Offers a thousand messages a second, and sheds what there is no room for.
    async fn offer(self: Arc<Self>, tag: &'static str) {
        let mut beat = interval(Duration::from_millis(1));
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut receipts, mut number) = (JoinSet::new(), 0);
        while !self.stop.load(Ordering::Relaxed) {
            beat.tick().await;
            number += 1;
            let (message, key) = self.message(tag, number);
            match self.producer.try_submit(message) {
                Ok(receipt) => drop(receipts.spawn(self.clone().read(receipt, key, number))),
                Err(SendError { cause: SendFailure::Full, .. }) => drop(self.full.fetch_add(1, Ordering::Relaxed)),
                Err(other) => panic!("{other}"),
            }
            while let Some(read) = receipts.try_join_next() {
                read.expect("no panic");
            }
        }
        while let Some(read) = receipts.join_next().await {
            read.expect("no panic");
        }
    }

    /// Waits for room as long as that may take, again and again.
    async fn insist(self: Arc<Self>, tag: &'static str) {
        let (mut receipts, mut number) = (JoinSet::new(), 0);
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let ((message, key), began) = (self.message(tag, number), Instant::now());
            match self.producer.submit(message).await {
                Ok(receipt) => drop(receipts.spawn(self.clone().read(receipt, key, number))),
                Err(SendError { cause: SendFailure::NoRoom { waited: ROOM }, .. }) => {
                    self.no_room.fetch_add(1, Ordering::Relaxed);
                }
                Err(other) => panic!("{other}"),
            }
            assert!(began.elapsed() < ROOM + SLACK, "told after {:?}", began.elapsed());
            // One among many, and not a flood of its own.
            sleep(Duration::from_millis(10)).await;
        }
        while let Some(read) = receipts.join_next().await {
            read.expect("no panic");
        }
    }

    async fn read(self: Arc<Self>, receipt: Receipt, key: Option<String>, number: u64) {
        let id = receipt.id().to_string();
        let answered = timeout(self.answer_within + SLACK, receipt).await.expect("an answer by its deadline");
        let said = match answered {
            Ok(Outcome::Confirmed { .. }) => Said::Confirmed,
            Ok(Outcome::Unknown { .. }) => Said::Unknown,
            Ok(other) => panic!("{id}: {other}"),
            // Never published: the ledger does not know it, and finds it if it is on the queue.
            Err(SendError { cause: SendFailure::NotPublished { .. }, .. }) => return,
            Err(other) => panic!("{other}"),
        };
        let mut ledger = self.ledger.lock().unwrap();
        ledger.attempted(&id, key.as_deref(), number);
        ledger.said(&id, said, std::time::Instant::now());
    }

    /// How many messages are held now, at least.
    fn held(&self) -> u64 {
        let counts = self.producer.counts();
        counts.accepted.saturating_sub(ended(&counts))
    }

    async fn until_confirmed(&self, more: u64) {
        let wanted = self.producer.counts().confirmed + more;
        let reached = async {
            while self.producer.counts().confirmed < wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(PATIENCE, reached).await.is_ok(), "it does not go on: {:?}", self.producer.counts());
    }
}

fn ended(counts: &Counts) -> u64 {
    counts.confirmed + counts.unroutable + counts.refused + counts.unknown + counts.not_published
}

/// What this process has in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says how much memory it takes");
    let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1024
}

/// Sends under load while the broker is away, by one producer that keeps what it has until the broker is back, and one that gives
/// it back in time.
async fn away_for(node: &Node, so_long: Duration) {
    let queue = fresh("q");
    node.declare_queue(&queue, QueueKind::Quorum).await.unwrap();
    let proxy = Proxy::start(node.amqp_address()).await.unwrap();
    let url = node.amqp_url_through(Login::Lab, proxy.address());
    let patient = Away::connect(&url, &queue, so_long + PATIENCE).await;
    let impatient = Away::connect(&url, &queue, Duration::from_secs(5)).await;
    let both = [&patient, &impatient];
    let mut senders = JoinSet::new();
    for (away, tags) in both.into_iter().zip([["patient", "patient waits"], ["impatient", "impatient waits"]]) {
        senders.spawn(away.clone().offer(tags[0]));
        senders.spawn(away.clone().insist(tags[1]));
    }
    join_all(both.map(|away| away.until_confirmed(500))).await;

    let (before, began) = (resident(), Instant::now());
    let offered_before = both.map(|away| away.offered.load(Ordering::Relaxed));
    proxy.refuse_new(true).await;
    proxy.cut(Ending::Reset).await;
    let (mut most_held, mut most_grown) = ([0; 2], 0);
    while began.elapsed() < so_long {
        most_held = std::array::from_fn(|n| most_held[n].max(both[n].held()));
        most_grown = most_grown.max(resident().saturating_sub(before));
        sleep(Duration::from_millis(20)).await;
    }
    let fits = (BUFFER / WEIGHT) as u64;
    let told = both.map(|away| (away.full.load(Ordering::Relaxed), away.no_room.load(Ordering::Relaxed)));
    let offered: [u64; 2] = std::array::from_fn(|n| both[n].offered.load(Ordering::Relaxed) - offered_before[n]);
    println!(
        "RabbitMQ {}, away for {so_long:?}: {offered:?} offered, at most {most_held:?} of {fits} held, {most_grown} bytes more \
         in memory, no room (at once, in time): {told:?}",
        node.version()
    );
    for n in 0..2 {
        assert!(offered[n] > 4 * fits, "{} messages are no load for a buffer of {fits}", offered[n]);
        assert!(most_held[n] <= fits && most_held[n] > fits / 2, "{} held, room for {fits}", most_held[n]);
        assert!(told[n].0 > 0 && told[n].1 > 0, "nobody is told that there is no room: {told:?}");
    }
    let given_back = impatient.producer.counts().not_published;
    assert!(given_back > fits, "what was not published by its deadline made room for others: {given_back}");

    proxy.refuse_new(false).await;
    for away in both {
        let mut health = away.producer.health();
        assert!(timeout(PATIENCE, health.until(Health::is_good)).await.is_ok(), "{:?}", health.now());
    }
    join_all(both.map(|away| away.until_confirmed(fits + 500))).await;
    both.iter().for_each(|away| away.stop.store(true, Ordering::Relaxed));
    while let Some(ended) = senders.join_next().await {
        ended.expect("no panic");
    }
    for away in both {
        away.producer.close(SLACK).await;
        let counts = away.producer.counts();
        assert_eq!(ended(&counts), counts.accepted, "{counts:?}");
    }
    let counts = patient.producer.counts();
    assert_eq!((counts.confirmed, counts.unknown, counts.not_published), (counts.accepted, 0, 0), "{counts:?}");
    proxy.stop().await;

    let mut ledgers = both.map(|away| std::mem::take(&mut *away.ledger.lock().unwrap()));
    take_each(node, &queue, |envelope| {
        if envelope.decode().expect("readable").is_marker {
            return;
        }
        let id = envelope.properties.message_id.expect("an id");
        let whose = usize::from(id.as_str().starts_with("impatient"));
        ledgers[whose].handled(id.as_str(), false, std::time::Instant::now());
    })
    .await;
    for ledger in ledgers {
        let report = ledger.judge();
        let wrong = (report.lost, report.unexpected, report.contradicted, report.out_of_order());
        assert_eq!(wrong, (0, 0, 0, 0), "lost, unexpected, contradicted, out of order: {report:?}");
    }
    MEMORY.fetch_max(most_grown as u64, Ordering::Relaxed);
}

/// The most that this process has grown by.
static MEMORY: AtomicU64 = AtomicU64::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_ten_minutes_under_load_costs_no_more_than_the_budget_and_all_goes_on_by_itself() {
    let so_long = Duration::from_secs(scale::of(600, 30));
    let brokers = Brokers::from_env().unwrap();
    // Side by side: nearly all of it is waiting.
    let all = join_all(brokers.iter().map(async |broker| {
        let node = broker.shared().await.unwrap_or_else(|error| panic!("broker {}: {error}", broker.name()));
        away_for(node, so_long).await;
    }))
    .await;
    // Two producers to each broker.
    let (budget, grown) = (2 * all.len() * BUFFER, MEMORY.load(Ordering::Relaxed) as usize);
    assert!(grown < budget + ELSEWHERE, "{grown} bytes more in memory, with buffers of {budget} in all");
}
