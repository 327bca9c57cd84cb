//! A load of flights, consumers in processes of their own that write effects into a database, and the ledger that judges them.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant as Clock},
};

use correio_lab::{
    broker::{Login, Node},
    ledger::{Ledger, Report, Said},
    lessons::Choices,
    postgres::Postgres,
};
use correio_message::{DeadLetter, Destination, Message, MessageId};
use correio_producer::{Outcome, Producer};
use correio_tests::{
    consuming::{PATIENCE, producer, shared},
    effects::Effects,
    programs::{Program, Run},
    queues::take_all,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// A database for one journey.
pub(crate) struct Database {
    pub(crate) effects: Effects,
    _folder: TempDir,
}

/// SQLite, and a PostgreSQL server of this test's own.
pub(crate) async fn databases() -> (Postgres, [Kind; 2]) {
    let server = Postgres::start().await.expect("a PostgreSQL server");
    (server, [Kind::Sqlite, Kind::Postgres])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    /// A new database of this kind.
    pub(crate) async fn fresh(self, server: &Postgres) -> Database {
        let folder = tempfile::tempdir().expect("a folder");
        let effects = match self {
            Self::Sqlite => Effects::in_sqlite(&folder.path().join("effects.db")).await,
            Self::Postgres => Effects::in_postgres(&server.url()).await,
        };
        Database { effects, _folder: folder }
    }
}

/// Every choice of a run comes from it.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("CORREIO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64
    });
    println!("CORREIO_SEED={seed}");
    seed
}

/// Flights on their way to their effects.
pub(crate) struct Journey<'n> {
    node: &'n Node,
    queue: String,
    effects: Effects,
    more: Vec<String>,
    flights: Vec<String>,
    producer: Producer,
    ledger: Ledger,
    sent: usize,
    /// Three who compete.
    workers: Vec<Run>,
}

impl<'n> Journey<'n> {
    /// Starts three consumers, told `more`.
    pub(crate) async fn begin(node: &'n Node, effects: &Effects, more: &[&str]) -> Self {
        let queue = shared(node, "flights").await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // All 20,000 where they lie beside the project, else the 1,000 that it carries.
        let all = root.join("../shared/data/flights-20k.ndjson");
        let file = if all.exists() { all } else { root.join("lab/data/flights-1k.ndjson") };
        let flights = fs::read_to_string(file).expect("the flights").lines().map(str::to_owned).collect();
        let mut journey = Self {
            node,
            queue,
            effects: effects.clone(),
            more: more.iter().map(ToString::to_string).collect(),
            flights,
            producer: producer(node).await,
            ledger: Ledger::new(),
            sent: 0,
            workers: Vec::new(),
        };
        for _ in 0..3 {
            let worker = journey.worker();
            journey.workers.push(worker);
        }
        journey.until_three().await;
        journey
    }

    /// Waits until three are subscribed.
    async fn until_three(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.node.queue_consumers(&self.queue).await.is_ok_and(|consumers| consumers == 3) {
            assert!(Instant::now() < deadline, "not three consumers: {}", self.words());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn worker(&self) -> Run {
        Program::new("exactly_once_worker")
            .args(["--database", &self.effects.database, "--from", &self.queue])
            .args(&self.more)
            .env("AMQP_URL", self.node.amqp_url(Login::Consumer))
            .start()
    }

    /// How many flights were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent as u64
    }

    /// Sends until so many flights are on the queue, or may be.
    pub(crate) async fn send_until(&mut self, wanted: u64) {
        let mut receipts = Vec::new();
        while self.sent() < wanted {
            let payload = format!("{} {}", self.sent, self.flights[self.sent % self.flights.len()]);
            let id = format!("flight-{}", self.sent);
            self.sent += 1;
            let to = Destination::queue(&self.queue).expect("a short name");
            let message = Message::new(to, payload).with_id(MessageId::new(&id).expect("an id"));
            self.ledger.attempted(&id, None, self.sent as u64);
            receipts.push((id, self.producer.submit(message).await.expect("handed in")));
        }
        for (id, receipt) in receipts {
            let said = match receipt.await.expect("published") {
                Outcome::Confirmed { .. } => Said::Confirmed,
                Outcome::Unknown { .. } => Said::Unknown,
                other => panic!("{id}: {other}"),
            };
            self.ledger.said(&id, said, Clock::now());
        }
    }

    /// Waits until there are so many effects.
    pub(crate) async fn until_effects(&self, wanted: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let effects = self.effects.count().await;
            if effects.is_some_and(|effects| effects >= wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{effects:?} effects of {wanted}; {}", self.words());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// One of the three dies, and another takes its place. Returns when there are three again: dying faster than they can begin, they
    /// would make suspects of all that they touch.
    pub(crate) async fn kill_one(&mut self, choices: &mut Choices) {
        let chosen = self.chosen(choices);
        let successor = self.worker();
        let killed = std::mem::replace(&mut self.workers[chosen], successor).kill().await;
        assert_eq!(killed.code, None, "it ended before it was killed: {killed}");
        // For the log, should an innocent one be parked.
        killed
            .stderr
            .lines()
            .filter(|line| line.contains("too often") || line.contains("parked"))
            .for_each(|line| println!("{line}"));
        self.until_three().await;
    }

    /// One of the three.
    pub(crate) fn chosen(&self, choices: &mut Choices) -> usize {
        usize::try_from(choices.number(3) - 1).expect("small")
    }

    pub(crate) fn signal(&self, worker: usize, signal: Signal) {
        self.workers[worker].signal(signal);
    }

    /// Waits until everything has its effect and no queue holds anything, ends the consumers in good order, and judges.
    pub(crate) async fn end(mut self) -> Report {
        self.until_effects(self.sent()).await;
        let deadline = Instant::now() + PATIENCE;
        // Duplicates that come late are on a queue now.
        loop {
            let queues = self.node.list_queues().await.expect("the queues");
            let held: Vec<_> =
                queues.iter().filter(|(name, ready, held)| name.starts_with(&self.queue) && ready + held > 0).collect();
            if held.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                panic!("left on queues: {held:?}; {}; {}", self.letters().await, self.words());
            }
            sleep(Duration::from_millis(100)).await;
        }
        for worker in std::mem::take(&mut self.workers) {
            worker.signal(Signal::SIGTERM);
            let ran = worker.finish(PATIENCE).await;
            assert_eq!(ran.code, Some(0), "{ran}");
        }
        for (payload, effects) in self.effects.by_payload().await {
            let (number, _) = payload.split_once(' ').expect("a number in front");
            for _ in 0..effects {
                self.ledger.handled(&format!("flight-{number}"), false, Clock::now());
            }
        }
        let report = self.ledger.judge();
        assert_eq!(
            (report.lost, report.duplicated(), report.unexpected),
            (0, 0, 0),
            "lost, twice, unexpected: {report:?}"
        );
        assert_eq!(report.handled, report.attempted, "an effect for each: {report:?}");
        report
    }

    /// What the dead letters say.
    async fn letters(&self) -> String {
        let letters = take_all(self.node, &format!("{}.dead", self.queue)).await;
        letters.iter().map(|letter| format!("{:?}\n{:?}\n", DeadLetter::of(letter), letter.properties)).collect()
    }

    fn words(&self) -> String {
        self.workers.iter().map(|worker| format!("--- {} {}\n", worker.pid(), worker.stderr())).collect()
    }
}
