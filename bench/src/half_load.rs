//! Whether messages that fail slow the good ones down: a load at half of what the consumer can do, once with none that fails and once
//! with one in twenty that fails at its first attempt and goes through a delay queue.
//!
//! What it can do is measured first: its queue is full, and its handlers wait for something for 2 ms, as for a database. Then the load
//! comes at half of that rate, whatever becomes of it.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use correio_consumer::{Address, CancellationToken, Consumer, Context, Message as Received, Processing};
use correio_lab::broker::{Login, Node};
use correio_message::{Destination, MailboxName, Message};
use correio_producer::{Producer, ProducerSettings, Receipt};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::{
    Error,
    rounds::Spread,
    verdict::{Bound, line},
};

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    capacity: f64,
    /// Good messages a second: round by round, without and with others that fail.
    rates: Vec<(f64, f64)>,
}

impl Found {
    /// Whether the good ones are fast enough.
    #[must_use]
    pub fn verdict(&self) -> Option<String> {
        let Spread { least, median, greatest } =
            Spread::of(self.rates.iter().map(|(without, with)| with / without).collect())?;
        let figure = format!("{median:.2} ({least:.2}–{greatest:.2})");
        let of = format!("good messages a second at half load, one in {ONE_IN} failing once, beside none failing");
        Some(line(WANTED.is_met(median), &figure, &WANTED.to_string(), &of))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates: Vec<_> = self.rates.iter().map(|(without, with)| format!("{without:.0}/{with:.0}")).collect();
        writeln!(
            f,
            "half load: {:.0} messages a second are possible, handlers that wait 2 ms, 16 at once",
            self.capacity
        )?;
        writeln!(f, "good messages a second without/with others that fail: {}", rates.join(" "))
    }
}

/// Runs it in this process.
///
/// # Errors
///
/// When the broker or a message fails otherwise than it is to.
pub async fn measure(node: &Node, messages: u64, runs: usize) -> Result<Found, Error> {
    let url = node.amqp_url(Login::Lab);
    let producer = Producer::connect(ProducerSettings::new(Address::parse(&url)?, "half-load")?).await?;
    // It makes its queue.
    Handling::begin(&url, false).await?.end(0).await?;
    send(&producer, messages, None).await?;
    let capacity = Handling::begin(&url, false).await?.end(messages).await?;
    let mut rates = Vec::new();
    for _ in 0..runs {
        let mut round = Vec::new();
        for fails in [false, true] {
            let handling = Handling::begin(&url, fails).await?;
            send(&producer, messages, Some(capacity / 2.0)).await?;
            round.push(handling.end(messages).await?);
        }
        rates.push((round[0], round[1]));
    }
    producer.close(PATIENCE).await;
    Ok(Found { capacity, rates })
}

/// Sends so many: at this rate, whatever becomes of them, or as fast as they are confirmed.
async fn send(producer: &Producer, messages: u64, rate: Option<f64>) -> Result<(), Error> {
    let mut receipts: VecDeque<Receipt> = VecDeque::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let mut sent = 0;
    while sent < messages {
        let due = match rate {
            Some(rate) => {
                tick.tick().await;
                ((begun.elapsed().as_secs_f64() * rate) as u64).min(messages)
            }
            None => messages,
        };
        for number in sent..due {
            let to = Destination::Mailbox(MailboxName::new(NAME)?);
            receipts.push_back(producer.submit(Message::new(to, number.to_string())).await?);
            while receipts.len() > WINDOW {
                confirmed(receipts.pop_front()).await?;
            }
        }
        sent = due.max(sent);
    }
    while !receipts.is_empty() {
        confirmed(receipts.pop_front()).await?;
    }
    Ok(())
}

async fn confirmed(receipt: Option<Receipt>) -> Result<(), Error> {
    let Some(receipt) = receipt else { return Ok(()) };
    let outcome = receipt.await?;
    if outcome.is_confirmed() { Ok(()) } else { Err(format!("not on its queue: {outcome:?}").into()) }
}

/// A consumer at work.
struct Handling {
    consumer: tokio::task::JoinHandle<Result<correio_consumer::Summary, correio_consumer::ConsumeError>>,
    counts: correio_consumer::Counts,
    stop: CancellationToken,
    good: Arc<Mutex<Good>>,
}

/// The messages that never fail: how many were handled, and from when to when.
#[derive(Debug, Default)]
struct Good {
    handled: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Handling {
    async fn begin(url: &str, fails: bool) -> Result<Self, Error> {
        let good = Arc::new(Mutex::new(Good::default()));
        let told = Arc::clone(&good);
        let consumer = Consumer::builder(Address::parse(url)?)
            .mailbox(NAME)
            .processing(Processing::independent())
            .on_any(move |message: Received, context: Context| {
                let told = Arc::clone(&told);
                async move {
                    sleep(WAITS).await;
                    let number: u64 = std::str::from_utf8(&message.payload)?.parse()?;
                    // The same ones, whether they fail or not.
                    let is_bad = number.is_multiple_of(ONE_IN);
                    if is_bad && fails && context.attempt().get() == 1 {
                        return Err("it fails once".into());
                    }
                    if !is_bad {
                        let mut good = told.lock().unwrap_or_else(PoisonError::into_inner);
                        let now = Instant::now();
                        good.handled += 1;
                        good.first.get_or_insert(now);
                        good.last = Some(now);
                    }
                    Ok::<_, correio_consumer::BoxError>(())
                }
            })
            .build()?;
        let (counts, stop) = (consumer.counts(), CancellationToken::new());
        let consumer = tokio::spawn(consumer.run(stop.clone()));
        timeout(PATIENCE, counts.subscribed()).await.map_err(|_| "the consumer did not subscribe")?;
        Ok(Self { consumer, counts, stop, good })
    }

    /// Waits until so many are handled; the good ones a second.
    async fn end(self, messages: u64) -> Result<f64, Error> {
        let all = async {
            while self.counts.now().handled < messages {
                sleep(TICK).await;
            }
        };
        timeout(PATIENCE, all).await.map_err(|_| format!("not all were handled: {:?}", self.counts.now()))?;
        self.stop.cancel();
        let summary = self.consumer.await??;
        if summary.counts.dead > 0 || summary.counts.handled != messages {
            return Err(format!("{summary:?}").into());
        }
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let took = good.last.zip(good.first).map_or(Duration::ZERO, |(last, first)| last - first);
        Ok(good.handled as f64 / took.as_secs_f64())
    }
}

const NAME: &str = "half-load";
const WANTED: Bound = Bound::AtLeast(0.8);
const ONE_IN: u64 = 20;
const WAITS: Duration = Duration::from_millis(2);
const TICK: Duration = Duration::from_millis(5);
const WINDOW: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(120);
