//! Every await of the loop, with an answer, an error, a late answer and none at all.

use std::{
    num::{NonZeroU16, NonZeroU64},
    sync::{Arc, Mutex},
};

use correio_guarantees::{Ack, Admission, Claim, Fence, HandledId, RetrySchedule, Standing};
use correio_message::{DeadLetter, DeadReason, Destination, Durability, Envelope, Message, MessageId, ShortText};
use tokio::sync::mpsc;

use super::*;
use crate::{
    Acknowledgement, Context, Counts, LogError, LogFuture, MemoryLog, Processing, Verdict,
    copies::{CopyPublisher, NotCopied, Publishing},
    handled_log::HandledLog,
    handler::Handlers,
    pipeline::{Delivery, Rules},
    startup::Company,
};

/// How somebody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Ok,
    Err,
    Slow,
    Never,
}

impl Answers {
    fn answer(self) -> Answer {
        Box::pin(async move {
            match self {
                Self::Ok => Ok(()),
                Self::Err => Err("refused".to_owned()),
                Self::Slow => {
                    sleep(A_WHILE).await;
                    Ok(())
                }
                Self::Never => std::future::pending().await,
            }
        })
    }
}

/// What was put on the channel, in its order.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<String>>>);

impl Wire {
    fn note(&self, frame: impl Into<String>) {
        self.0.lock().unwrap().push(frame.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    async fn until(&self, frame: &str) {
        let seen = async {
            while !self.all().iter().any(|f| f == frame) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("no {frame} in {:?}", self.all()));
    }
}

struct FakeLink {
    deliveries: mpsc::UnboundedReceiver<Result<Delivery, String>>,
    wire: Wire,
    acks: Answers,
    cancels: Answers,
    /// Ends the deliveries, as the broker's answer to a cancel does.
    cancelled: CancellationToken,
    looks: Mutex<std::vec::IntoIter<Look>>,
}

impl Link for FakeLink {
    async fn next(&mut self) -> Option<Result<Delivery, String>> {
        tokio::select! {
            biased;
            delivery = self.deliveries.recv() => delivery,
            () = self.cancelled.cancelled() => None,
        }
    }

    fn ack(&self, ack: Ack) -> Answer {
        self.wire.note(format!("ack {}{}", ack.tag, if ack.multiple { " and below" } else { "" }));
        self.acks.answer()
    }

    fn give_back(&self, tag: u64) -> Answer {
        self.wire.note(format!("give back {tag}"));
        self.acks.answer()
    }

    fn cancel(&self) -> Answer {
        self.wire.note("cancel");
        if self.cancels == Answers::Ok {
            self.cancelled.cancel();
        }
        self.cancels.answer()
    }

    fn look(&self) -> Looking {
        self.wire.note("look");
        match self.looks.lock().unwrap().next() {
            Some(look) => Box::pin(std::future::ready(look)),
            None => Box::pin(std::future::pending()),
        }
    }

    fn round_trip(&self) -> Answer {
        Answers::Ok.answer()
    }

    async fn resubscribe(&mut self, _: u16) -> Result<Vec<Delivery>, String> {
        Ok(Vec::new())
    }

    async fn close(self) {
        self.wire.note("close");
    }
}

struct FakePublisher {
    answers: Answers,
    wire: Wire,
    published: Mutex<Vec<Envelope>>,
}

impl CopyPublisher for FakePublisher {
    fn publish(self: Arc<Self>, copy: Envelope) -> Publishing {
        self.published.lock().unwrap().push(copy);
        Box::pin(async move {
            let answer = self.answers.answer().await;
            self.wire.note(if answer.is_ok() { "confirm" } else { "refuse" });
            answer.map_err(NotCopied::Unconfirmed)
        })
    }
}

/// A log that answers as told, and otherwise is one in memory.
struct FakeLog {
    memory: MemoryLog,
    answers: Answers,
    asked: Mutex<Vec<&'static str>>,
    /// What was asked and answered.
    told: Mutex<Vec<&'static str>>,
}

impl FakeLog {
    fn answer<'a, T: Send + 'a>(&'a self, step: &'static str, then: LogFuture<'a, T>) -> LogFuture<'a, T> {
        self.asked.lock().unwrap().push(step);
        Box::pin(async move {
            match self.answers.answer().await {
                Ok(()) => {
                    self.told.lock().unwrap().push(step);
                    then.await
                }
                Err(cause) => Err(LogError { step: "test", cause: cause.into() }),
            }
        })
    }
}

impl HandledLog for FakeLog {
    fn admit<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> LogFuture<'a, Vec<Admission>> {
        self.answer("admit", self.memory.admit(claims, lease))
    }

    fn on_handled<'a>(&'a self, claims: &'a [Claim]) -> LogFuture<'a, Vec<Standing>> {
        self.answer("on_handled", self.memory.on_handled(claims))
    }

    fn on_abandoned<'a>(&'a self, claims: &'a [Claim]) -> LogFuture<'a, ()> {
        self.answer("on_abandoned", self.memory.on_abandoned(claims))
    }

    fn retention(&self) -> Duration {
        self.memory.retention()
    }
}

/// A consumer without a broker.
struct Bench {
    subscription: Subscription,
    counts: Counts,
    wire: Wire,
    deliveries: mpsc::UnboundedSender<Result<Delivery, String>>,
    link: FakeLink,
    publisher: Arc<FakePublisher>,
    log: Arc<FakeLog>,
    tag: u64,
    ordered: bool,
}

struct Setting {
    processing: Processing,
    acknowledgement: Acknowledgement,
    stop_after_count: Option<NonZeroU64>,
    copies: Answers,
    acks: Answers,
    cancels: Answers,
    log: Answers,
    handler_deadline: Duration,
    look_after: Duration,
    /// What each look shows, in their order; none is answered after the last.
    looks: Vec<Look>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            processing: Processing::Independent { at_once: NonZeroU16::new(4).unwrap(), retry: RetrySchedule::none() },
            acknowledgement: Acknowledgement::AfterHandling,
            stop_after_count: None,
            copies: Answers::Ok,
            acks: Answers::Ok,
            cancels: Answers::Ok,
            log: Answers::Ok,
            handler_deadline: Duration::from_secs(5),
            look_after: PATIENCE,
            looks: Vec::new(),
        }
    }
}

/// What a message's payload tells its handler to do.
async fn obey(message: Message, context: Context) -> Result<Verdict, String> {
    match &message.payload[..] {
        b"fail" => Err("no stock".to_owned()),
        b"panic" => panic!("out of paper"),
        b"hang" => std::future::pending().await,
        b"slow" => {
            sleep(A_WHILE).await;
            Ok(Verdict::Done)
        }
        b"until stopping" => {
            context.stopping().cancelled().await;
            Ok(Verdict::Done)
        }
        _ => Ok(Verdict::Done),
    }
}

impl Bench {
    fn new(setting: Setting) -> Self {
        let (wire, counts) = (Wire::default(), Counts::default());
        let (deliveries, receiver) = mpsc::unbounded_channel();
        let publisher =
            Arc::new(FakePublisher { answers: setting.copies, wire: wire.clone(), published: Mutex::default() });
        let memory = MemoryLog::new(100.try_into().unwrap(), Duration::from_secs(3_600));
        let log = Arc::new(FakeLog { memory, answers: setting.log, asked: Mutex::default(), told: Mutex::default() });
        let mut handlers = Handlers::default();
        handlers.on_any(obey);
        let ordered = setting.processing.is_ordered();
        let short = |text| ShortText::new(text).unwrap();
        let stop = CancellationToken::new();
        let prefetch = setting.processing.prefetch();
        let rules = Rules {
            budget: crate::budget::Budget { prefetch, largest: 1_000_000, bytes: usize::MAX },
            queue: short("q"),
            subscription: "q".into(),
            processing: setting.processing,
            acknowledgement: setting.acknowledgement,
            deduplicate: true,
            breaker: None,
            in_transactions: false,
            retention: None,
            company: Company { parking: short("q.dead"), can_park: true, delays: Vec::new() },
            stop_after_count: setting.stop_after_count,
            handlers: Arc::new(handlers),
            stopping: stop.clone(),
            single_active: false,
            lease: LEASE,
            jitter: || 0.0,
            first_fence: 1_000,
        };
        let subscription = Subscription {
            pipeline: Pipeline::new(rules, counts.clone()),
            work: Work::new(Some(log.clone()), publisher.clone(), setting.handler_deadline, short("q")),
            idle: None,
            drain_deadline: A_WHILE * 5,
            stop,
            failure: None,
            frames: Frames::default(),
            lookout: Lookout::new(setting.look_after),
            is_clearing: false,
            #[cfg(feature = "metrics")]
            whereabouts: Whereabouts::new(&short("q")),
        };
        let link = FakeLink {
            deliveries: receiver,
            wire: wire.clone(),
            acks: setting.acks,
            cancels: setting.cancels,
            cancelled: CancellationToken::new(),
            looks: Mutex::new(setting.looks.into_iter()),
        };
        Self { subscription, counts, wire, deliveries, link, publisher, log, tag: 0, ordered }
    }

    fn deliver(&mut self, payloads: &[&str]) {
        for payload in payloads {
            self.tag += 1;
            let message = Message::new(Destination::queue("q").unwrap(), (*payload).to_owned())
                .with_id(MessageId::new(self.tag.to_string()).unwrap());
            let envelope = message.encode(Durability::Persistent);
            self.deliveries.send(Ok(Delivery { tag: self.tag, redelivered: false, envelope })).unwrap();
        }
    }

    /// Serves until something else is over.
    async fn while_serving<T>(&mut self, something: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            over = self.subscription.serve(&mut self.link) => panic!("{over:?} after {:?}", self.wire.all()),
            done = timeout(PATIENCE, something) => done.expect("in time"),
        }
    }

    async fn serve_until_over(&mut self) -> Over {
        timeout(PATIENCE, self.subscription.serve(&mut self.link)).await.expect("an end in time")
    }

    /// Stops, and says what was put on the channel in all.
    async fn drain(self) -> (Vec<String>, crate::Tally) {
        let Self { mut subscription, counts, wire, link, ordered, .. } = self;
        subscription.stop.cancel();
        timeout(PATIENCE, subscription.drain(link, ordered)).await.expect("stopping is bounded in time");
        (wire.all(), counts.now())
    }
}

#[tokio::test]
async fn a_handled_message_is_acknowledged_and_stopping_closes_the_channel_last() {
    let mut bench = Bench::new(Setting::default());
    bench.deliver(&["ok"]);
    let wire = bench.wire.clone();
    bench.while_serving(wire.until("ack 1")).await;
    assert_eq!(bench.drain().await.0, ["ack 1", "cancel", "close"]);
}

#[tokio::test]
async fn the_original_is_acknowledged_after_its_copys_confirm_however_late_that_comes() {
    for copies in [Answers::Ok, Answers::Slow] {
        let mut bench = Bench::new(Setting { copies, ..Setting::default() });
        bench.deliver(&["fail"]);
        let wire = bench.wire.clone();
        bench.while_serving(wire.until("ack 1")).await;
        assert_eq!(bench.wire.all(), ["confirm", "ack 1"]);
    }
}

#[tokio::test]
async fn a_copy_that_is_refused_or_never_answered_leaves_the_original_unsettled_and_the_others_served() {
    for copies in [Answers::Err, Answers::Never] {
        let mut bench = Bench::new(Setting { copies, ..Setting::default() });
        bench.deliver(&["fail", "ok"]);
        let wire = bench.wire.clone();
        bench.while_serving(wire.until("ack 2")).await;
        let (frames, tally) = bench.drain().await;
        assert!(!frames.iter().any(|f| f == "ack 1" || f.contains("below")), "{frames:?}");
        assert!(frames.contains(&"give back 1".to_owned()), "{frames:?}");
        assert_eq!((tally.handled, tally.dead, tally.handed_back), (1, 0, 1));
    }
}

#[tokio::test]
async fn an_acknowledgement_that_fails_ends_the_channel_and_is_counted_as_lost() {
    let mut bench = Bench::new(Setting { acks: Answers::Err, ..Setting::default() });
    bench.deliver(&["ok"]);
    assert!(matches!(bench.serve_until_over().await, Over::Lost(_)));
    bench.subscription.on_lost(A_WHILE).await;
    assert_eq!(bench.counts.now().lost_acks, 1);
}

#[tokio::test]
async fn acknowledgements_that_are_never_taken_stop_neither_handling_nor_stopping() {
    let mut bench = Bench::new(Setting { acks: Answers::Never, ..Setting::default() });
    bench.deliver(&["ok"; 20]);
    let counts = bench.counts.clone();
    let handled = async move {
        while counts.now().handled < 20 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    bench.while_serving(handled).await;
    let (frames, tally) = bench.drain().await;
    assert_eq!(frames.last().map(String::as_str), Some("close"));
    assert_eq!(tally.lost_acks, 20);
}

#[tokio::test]
async fn a_cancel_that_is_never_answered_does_not_keep_the_consumer_from_stopping() {
    for cancels in [Answers::Err, Answers::Never] {
        let bench = Bench::new(Setting { cancels, ..Setting::default() });
        assert!(bench.drain().await.0.contains(&"cancel".to_owned()));
    }
}

#[tokio::test]
async fn a_panic_is_a_failed_handler_and_nothing_else() {
    let mut bench = Bench::new(Setting::default());
    bench.deliver(&["panic", "ok"]);
    let wire = bench.wire.clone();
    bench
        .while_serving(async {
            wire.until("confirm").await;
        })
        .await;
    let letter = DeadLetter::of(&bench.publisher.published.lock().unwrap()[0]).unwrap();
    assert_eq!(letter.reason, DeadReason::Panicked);
    assert!(letter.error.contains("out of paper"), "{}", letter.error);
    let (_, tally) = bench.drain().await;
    assert_eq!((tally.dead, tally.handled), (1, 1));
}

#[tokio::test]
async fn a_handler_that_never_ends_has_failed_at_its_deadline() {
    let mut bench = Bench::new(Setting { handler_deadline: A_WHILE, ..Setting::default() });
    bench.deliver(&["hang"]);
    let wire = bench.wire.clone();
    bench.while_serving(wire.until("ack 1")).await;
    assert_eq!(DeadLetter::of(&bench.publisher.published.lock().unwrap()[0]).unwrap().reason, DeadReason::TimedOut);
}

#[tokio::test]
async fn stopping_finishes_what_is_quick_enough_and_gives_the_rest_back() {
    let mut bench = Bench::new(Setting::default());
    bench.deliver(&["slow", "hang", "until stopping"]);
    let counts = bench.counts.clone();
    bench
        .while_serving(async move {
            while counts.now().received < 3 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    let (frames, tally) = bench.drain().await;
    assert!(frames.contains(&"give back 2".to_owned()), "{frames:?}");
    assert_eq!((tally.handled, tally.handed_back), (2, 1));
}

#[tokio::test]
async fn acknowledging_on_receipt_up_to_a_count_ends_at_once_and_what_was_not_taken_goes_back() {
    let (acknowledgement, stop_after_count) = (Acknowledgement::OnDelivery, NonZeroU64::new(3));
    let mut bench = Bench::new(Setting { acknowledgement, stop_after_count, ..Setting::default() });
    bench.subscription.drain_deadline = PATIENCE * 2;
    bench.deliver(&["ok"; 10]);
    assert!(matches!(bench.serve_until_over().await, Over::Stopping(Ended::CountReached)));
    let (frames, tally) = bench.drain().await;
    assert_eq!((tally.handled, tally.lost, tally.not_started), (3, 0, 7));
    let last = frames.iter().rfind(|frame| frame.starts_with("ack"));
    assert!(last.is_some_and(|ack| ack.starts_with("ack 3")), "{frames:?}");
    for tag in 4..=10 {
        assert!(frames.contains(&format!("give back {tag}")), "{frames:?}");
    }
}

#[tokio::test]
async fn an_ordered_consumer_never_cancels_and_gives_nothing_back_but_by_closing() {
    let processing = Processing::ordered_by_key();
    let mut bench = Bench::new(Setting { processing, ..Setting::default() });
    bench.deliver(&["slow", "hang"]);
    let counts = bench.counts.clone();
    bench
        .while_serving(async move {
            while counts.now().received < 2 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    let (frames, tally) = bench.drain().await;
    assert_eq!(frames, ["ack 1", "close"]);
    assert_eq!((tally.handled, tally.handed_back), (1, 1));
}

#[tokio::test]
async fn the_end_of_the_deliveries_is_the_end_of_the_channel_and_what_runs_is_finished_and_remembered() {
    for end in [None, Some("connection reset")] {
        let mut bench = Bench::new(Setting::default());
        bench.deliver(&["slow"]);
        if let Some(cause) = end {
            bench.deliveries.send(Err(cause.to_owned())).unwrap();
        }
        let (gone, _) = mpsc::unbounded_channel();
        drop(std::mem::replace(&mut bench.deliveries, gone));
        assert!(matches!(bench.serve_until_over().await, Over::Lost(_)));
        timeout(PATIENCE, bench.subscription.on_lost(Duration::from_secs(5))).await.expect("bounded");
        assert!(bench.subscription.pipeline.may_subscribe());
        assert_eq!(bench.log.admit(&[claim_of_another("1")], LEASE).await.unwrap(), [Admission::AlreadyHandled]);
        assert_eq!((bench.counts.now().handled, bench.counts.now().lost_acks), (1, 1));
        assert!(bench.wire.all().is_empty(), "{:?}", bench.wire.all());
    }
}

#[tokio::test]
async fn a_log_that_is_slow_delays_and_one_that_fails_or_hangs_begins_nothing_and_loses_nothing() {
    let mut bench = Bench::new(Setting { log: Answers::Slow, ..Setting::default() });
    bench.deliver(&["ok"]);
    let wire = bench.wire.clone();
    bench.while_serving(wire.until("ack 1")).await;
    for log in [Answers::Err, Answers::Never] {
        let mut bench = Bench::new(Setting { log, ..Setting::default() });
        bench.deliver(&["ok"]);
        let counts = bench.counts.clone();
        bench
            .while_serving(async move {
                while counts.now().received < 1 {
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
        let (frames, tally) = bench.drain().await;
        assert!(!frames.iter().any(|f| f.starts_with("ack")), "{frames:?}");
        assert!(frames.contains(&"give back 1".to_owned()), "{frames:?}");
        assert_eq!(tally.handled, 0);
    }
}

fn claim_of_another(id: &str) -> Claim {
    let id = HandledId { subscription: "q".into(), origin: None, id: MessageId::new(id).unwrap() };
    Claim { id, fence: Fence(u64::MAX) }
}

const LEASE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_consumer_that_is_dropped_at_work_leaves_no_claim_behind_and_forgets_nothing_done() {
    for elsewhere in [false, true] {
        let mut bench = Bench::new(Setting::default());
        bench.deliver(&["hang", "ok"]);
        let wire = bench.wire.clone();
        bench.while_serving(wire.until("ack 2")).await;
        let Bench { subscription, log, .. } = bench;
        let claims = ["1", "2"].map(claim_of_another);
        assert_eq!(log.admit(&claims, LEASE).await.unwrap(), [Admission::InFlight, Admission::AlreadyHandled]);
        if elsewhere {
            std::thread::spawn(move || drop(subscription)).join().unwrap();
        } else {
            drop(subscription);
        }
        assert_eq!(log.admit(&claims, LEASE).await.unwrap(), [Admission::Fresh, Admission::AlreadyHandled]);
    }
}

#[tokio::test]
async fn a_consumer_that_is_dropped_while_a_log_is_told_of_its_work_tells_it_again() {
    let mut bench = Bench::new(Setting { log: Answers::Slow, ..Setting::default() });
    bench.deliver(&["hang", "ok"]);
    let log = bench.log.clone();
    bench
        .while_serving(async {
            while !log.asked.lock().unwrap().contains(&"on_handled") {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    drop(bench.subscription);
    let told = async {
        while log.told.lock().unwrap()[..] != ["admit", "on_handled", "on_abandoned"] {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("{:?}", log.told.lock().unwrap()));
}

#[tokio::test]
async fn a_consumer_told_to_stop_when_idle_stops_when_nothing_comes_and_nothing_is_at_work() {
    let mut bench = Bench::new(Setting::default());
    bench.subscription.idle = Some(A_WHILE / 2);
    bench.deliver(&["slow"]);
    let began = Instant::now();
    assert!(matches!(bench.serve_until_over().await, Over::Stopping(Ended::Idle)));
    assert!(began.elapsed() >= A_WHILE, "it stopped while a handler was at work");
    assert_eq!(bench.counts.now().handled, 1);
}

#[tokio::test]
async fn a_subscription_that_the_broker_has_forgotten_is_lost_at_the_second_look_and_what_runs_is_finished() {
    let forgotten = Look::There { consumers: 0, ready: 0 };
    let looks = vec![forgotten, Look::There { consumers: 1, ready: 0 }, forgotten, forgotten];
    let mut bench = Bench::new(Setting { look_after: A_WHILE / 10, looks, ..Setting::default() });
    bench.deliver(&["slow"]);
    let Over::Lost(why) = bench.serve_until_over().await else { panic!("not lost") };
    assert!(why.contains("forgotten the subscription"), "{why}");
    bench.subscription.on_lost(Duration::from_secs(5)).await;
    assert_eq!((bench.counts.now().handled, bench.wire.all().iter().filter(|f| *f == "look").count()), (1, 4));
}

#[tokio::test]
async fn a_look_that_is_never_answered_stops_neither_handling_nor_stopping() {
    let mut bench = Bench::new(Setting { look_after: A_WHILE / 10, ..Setting::default() });
    let wire = bench.wire.clone();
    bench.while_serving(wire.until("look")).await;
    bench.deliver(&["ok"]);
    bench.while_serving(wire.until("ack 1")).await;
    let (frames, _) = bench.drain().await;
    assert_eq!(frames.last().map(String::as_str), Some("close"), "{frames:?}");
}

const A_WHILE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);
