//! A consumer's life: it begins, subscribes again after every loss, and ends when asked to.

use std::{
    collections::hash_map::RandomState,
    convert::Infallible,
    hash::{BuildHasher, Hasher},
    num::NonZeroU64,
    sync::Arc,
    time::Duration,
};

use correio_broker_config::{
    Address, Backoff, ConnectionSettings, Connections, OwnQueue, Patience, Presence, Purpose, Topology, delete,
    delete_all_but_letters, ensure, renew,
};
use correio_guarantees::BreakerLimits;
use correio_message::ShortText;
use correio_producer::{Producer, ProducerSettings};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "metrics")]
use crate::reporting::{Reporter, Whereabouts};
use crate::{
    budget::Budget,
    builder::ConsumerBuilder,
    copies::CopyPublisher,
    counts::{Counts, Ended, Summary},
    error::ConsumeError,
    handled_log::{HandledLog, Transactions},
    handler::Handlers,
    health::{HealthReport, HealthWatch},
    link::{Link, SubscribeError, Subscribed},
    lookout::Lookout,
    pipeline::{Pipeline, Rules},
    processing::{Acknowledgement, Processing},
    startup::{self, Company, Startup},
    subscription::{Frames, Over, Subscription},
    work::Work,
};

/// Takes messages from a queue, has them handled, and acknowledges each only when its work is done.
pub struct Consumer {
    settings: Settings,
    handlers: Arc<Handlers>,
    counts: Counts,
    health: HealthReport,
}

pub(crate) struct Settings {
    pub(crate) address: Address,
    pub(crate) queue: ShortText,
    /// Set when the queue is this consumer's own, to be made by it.
    pub(crate) own: Option<OwnQueue>,
    /// Whether it is to be gone when the consumer ends.
    pub(crate) while_here: bool,
    pub(crate) subscription: ShortText,
    pub(crate) processing: Processing,
    pub(crate) budget: Budget,
    pub(crate) acknowledgement: Acknowledgement,
    pub(crate) log: Option<Arc<dyn HandledLog>>,
    pub(crate) breaker: Option<BreakerLimits>,
    /// Set when handlers ask for the log's transactions.
    pub(crate) transactions: Option<Arc<dyn Transactions>>,
    pub(crate) handler_deadline: Duration,
    pub(crate) drain_deadline: Duration,
    pub(crate) connect_deadline: Duration,
    pub(crate) topology: Option<Topology>,
    pub(crate) stop_after_count: Option<NonZeroU64>,
    pub(crate) stop_when_idle: Option<Duration>,
    /// How long nothing may come before it looks whether its subscription still stands.
    pub(crate) look_after: Duration,
}

impl Consumer {
    /// Starts building a consumer of a broker.
    pub fn builder(address: Address) -> ConsumerBuilder {
        ConsumerBuilder::new(address)
    }

    pub(crate) fn new(settings: Settings, handlers: Arc<Handlers>, counts: Counts) -> Self {
        Self { settings, handlers, counts, health: HealthReport::new(now()) }
    }

    /// A live view of what it does, to be kept while [`run`](Self::run) has the consumer.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Whether it is subscribed, to be kept while [`run`](Self::run) has the consumer: what a readiness probe asks.
    #[must_use]
    pub fn health(&self) -> HealthWatch {
        self.health.watch()
    }

    /// How many unsettled deliveries it asks the broker for: as many as the processing wants and the memory budget has room for.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        self.settings.budget.prefetch
    }

    /// The largest message that it takes, in bytes, headers included: times the prefetch, it is within the memory budget.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        self.settings.budget.largest
    }

    /// Looks at the broker without taking a message: is the queue there, and what it needs around it? A mailbox, a group's or
    /// a listener's queue is made where it is not there, as [`run`](Self::run) does, and so is what is to be declared.
    ///
    /// # Errors
    ///
    /// [`ConsumeError`] if the consumer could not begin.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn check(&self) -> Result<Startup, ConsumeError> {
        let connections = self.connections();
        let (startup, _) = startup::look(&connections, &self.settings).await?;
        connections.close().await;
        Ok(startup)
    }

    /// Handles messages until `stop` is cancelled, the count is reached, or nothing comes any more.
    ///
    /// A message that was begun when it stops is finished within the drain deadline; what was not begun, or
    /// not finished, goes back to the queue. A lost connection, a closed channel, a deleted queue do not end it: it
    /// subscribes again, with growing pauses.
    ///
    /// # Errors
    ///
    /// [`ConsumeError`] if it cannot begin (no broker within the connect deadline, a refused login, no such queue), if after a
    /// loss its login or certificate is refused for longer than a [`Patience`], or if a message failed for good and there is
    /// nowhere to park it.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses nothing that the broker holds: handlers are dropped where they stand, their claims on the log are
    /// given up, and every unsettled message comes again. One whose handler was just about to end may be handled
    /// twice: cancel `stop` to end in good order.
    pub async fn run(self, stop: CancellationToken) -> Result<Summary, ConsumeError> {
        let connections = self.connections();
        let begun = tokio::select! {
            begun = self.begin(&connections) => Some(begun?),
            () = stop.cancelled() => None,
        };
        let Some((startup, company, producer)) = begun else {
            return Ok(self.summary(Startup::default(), Ended::Stopped));
        };
        for warning in startup.warnings(self.settings.queue.as_str()) {
            tracing::warn!(queue = %self.settings.queue, "{warning}");
        }
        let publisher: Arc<dyn CopyPublisher> = producer.clone();
        let mut subscription = self.subscription(company, publisher, stop);
        #[cfg(feature = "metrics")]
        let mut reporter = Reporter::new(&self.settings.queue, self.counts.clone());
        #[cfg(feature = "metrics")]
        let reporting = reporter.go_on();
        #[cfg(not(feature = "metrics"))]
        let reporting = std::future::pending::<Infallible>();
        let forgotten_before = self.settings.log.as_ref().map_or(0, |log| log.forgotten_early());
        let ended = tokio::select! {
            // On the heap: a caller's future need not be as large as all of this.
            ended = Box::pin(self.keep_subscribed(&connections, &mut subscription)) => ended,
            never = self.keep_from_expiring() => match never {},
            never = self.keep_the_log_clean(forgotten_before) => match never {},
            never = reporting => match never {},
        };
        self.tell_what_was_forgotten(forgotten_before);
        producer.close(CLOSE_DEADLINE).await;
        self.leave(&connections).await;
        connections.close().await;
        match subscription.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.summary(startup, ended)),
        }
    }

    /// A connection that is lost in the middle of it is no reason to give up before the connect deadline.
    async fn begin(&self, connections: &Connections) -> Result<(Startup, Company, Arc<Producer>), ConsumeError> {
        let until = Instant::now() + self.settings.connect_deadline;
        let mut backoff = Backoff::new();
        loop {
            let error = match self.begin_once(connections).await {
                Ok(begun) => return Ok(begun),
                Err(error) => error,
            };
            let pause = backoff.next_delay();
            if !error.is_passing() || Instant::now() + pause >= until {
                return Err(error);
            }
            tracing::info!(%error, ?pause, "the consumer has not begun yet, trying again");
            self.health.on_away(&error.to_string(), now());
            sleep(pause).await;
        }
    }

    async fn begin_once(&self, connections: &Connections) -> Result<(Startup, Company, Arc<Producer>), ConsumeError> {
        let (startup, company) = startup::look(connections, &self.settings).await?;
        let settings = ProducerSettings::new(self.settings.address.clone(), COPIES)
            .map_err(|error| ConsumeError::Startup {
                step: "naming the producer".to_owned(),
                cause: error.to_string(),
            })?
            // A message that the broker delivered is one that it takes.
            .payload_limit(usize::MAX)
            .connect_deadline(self.settings.connect_deadline);
        let producer = Producer::connect(settings).await?;
        Ok((startup, company, Arc::new(producer)))
    }

    fn subscription(
        &self,
        company: Company,
        publisher: Arc<dyn CopyPublisher>,
        stop: CancellationToken,
    ) -> Subscription {
        let settings = &self.settings;
        let rules = Rules {
            queue: settings.queue.clone(),
            subscription: settings.subscription.as_str().into(),
            processing: settings.processing.clone(),
            budget: settings.budget,
            acknowledgement: settings.acknowledgement,
            deduplicate: settings.log.is_some(),
            breaker: settings.breaker,
            in_transactions: settings.transactions.is_some(),
            retention: settings.log.as_ref().map(|log| log.retention()),
            company,
            stop_after_count: settings.stop_after_count,
            handlers: Arc::clone(&self.handlers),
            stopping: stop.child_token(),
            single_active: settings.own.as_ref().is_some_and(OwnQueue::has_single_active_consumer),
            lease: settings.handler_deadline.saturating_add(LEASE_MARGIN),
            jitter: random,
            first_fence: uuid::Uuid::now_v7().as_u64_pair().1,
        };
        Subscription {
            pipeline: Pipeline::new(rules, self.counts.clone()),
            work: Work::new(settings.log.clone(), publisher, settings.handler_deadline, settings.queue.clone())
                .in_transactions(settings.transactions.clone()),
            idle: settings.stop_when_idle,
            drain_deadline: settings.drain_deadline,
            stop,
            failure: None,
            frames: Frames::default(),
            lookout: Lookout::new(settings.look_after),
            is_clearing: false,
            #[cfg(feature = "metrics")]
            whereabouts: Whereabouts::new(&settings.queue),
        }
    }

    /// Serves one channel after the other. Ends with no channel open and nothing at work.
    async fn keep_subscribed(&self, connections: &Connections, subscription: &mut Subscription) -> Ended {
        let settings = &self.settings;
        let ordered = settings.processing.is_ordered();
        let mut backoff = Backoff::new();
        let mut is_first = true;
        loop {
            let Some(mut link) = self.next_link(connections, subscription, &mut backoff, is_first).await else {
                self.health.on_stopping();
                subscription.drain_without_channel(Instant::now() + settings.drain_deadline).await;
                return Ended::Stopped;
            };
            if is_first {
                self.counts.on_subscribed();
            } else {
                self.counts.resubscribed(1);
            }
            is_first = false;
            self.health.on_subscribed();
            let since = Instant::now();
            match subscription.serve(&mut link).await {
                Over::Stopping(ended) => {
                    self.health.on_stopping();
                    subscription.drain(link, ordered).await;
                    return ended;
                }
                Over::Failing => {
                    self.health.on_stopping();
                    subscription.drain(link, ordered).await;
                    return Ended::Stopped;
                }
                Over::Closing => {
                    tracing::warn!(queue = %settings.queue, "everything that is held goes back, in order");
                    self.health.on_away("everything that was held goes back", now());
                    link.close().await;
                }
                Over::Lost(cause) => {
                    self.health.on_away(&cause, now());
                    tracing::warn!(queue = %settings.queue, cause, "the subscription was lost and will be renewed");
                    drop(link);
                }
            }
            subscription.on_lost(settings.handler_deadline).await;
            // One that ended as soon as it began is no success: a poisoned queue must not make a hot loop.
            if since.elapsed() > GOOD_WHILE {
                backoff.on_success();
            }
        }
    }

    /// The next subscription; `None` when the consumer is asked to stop before there is one, or is not let in any more.
    async fn next_link(
        &self,
        connections: &Connections,
        subscription: &mut Subscription,
        backoff: &mut Backoff,
        is_first: bool,
    ) -> Option<Subscribed> {
        let stop = subscription.stop.clone();
        let prefetch = subscription.pipeline.prefetch();
        let subscribing = async {
            if !is_first {
                sleep(backoff.next_delay()).await;
            }
            let mut is_there = is_first;
            let mut patience = Patience::with(connections.address());
            loop {
                // What was there when the consumer began may be gone when it subscribes.
                match self.subscribe(connections, std::mem::take(&mut is_there), prefetch).await {
                    Ok(link) => return Ok(link),
                    Err(error) => {
                        let queue = &self.settings.queue;
                        if let Some(refused) = error.of_connecting() {
                            patience.on_failure(refused);
                            if patience.is_over() {
                                tracing::error!(%queue, %error, "the broker has not let the consumer in for too long: it ends");
                                return Err(ConsumeError::Connect(refused.clone()));
                            }
                        }
                        self.health.on_away(&error.to_string(), now());
                        let pause = backoff.next_delay();
                        tracing::warn!(%queue, %error, ?pause, "not subscribed, trying again");
                        sleep(pause).await;
                    }
                }
            }
        };
        let linked = tokio::select! {
            linked = subscribing => linked,
            () = stop.cancelled() => return None,
            // Messages acknowledged on receipt are handled meanwhile.
            () = subscription.without_channel_until(|_| false) => return None,
        };
        linked.map_err(|failure| subscription.failure.get_or_insert(failure)).ok()
    }

    async fn subscribe(
        &self,
        connections: &Connections,
        is_there: bool,
        prefetch: u16,
    ) -> Result<Subscribed, SubscribeError> {
        if let Some(own) = self.settings.own.as_ref().filter(|_| !is_there)
            && ensure(connections, own).await? == Presence::MadeNow
        {
            tracing::warn!(%own, "its queue was gone and is made anew: what was in it is lost");
        }
        Subscribed::to(connections, &self.settings.queue, prefetch).await
    }

    /// The queues around an own queue have no consumer, and would expire in the middle of everything.
    async fn keep_from_expiring(&self) -> Infallible {
        let Some(own) = &self.settings.own else { return std::future::pending().await };
        loop {
            sleep(own.renewal()).await;
            let connections = self.connections();
            if let Err(error) = renew(&connections, own).await {
                tracing::warn!(%own, %error, "the queues around it were not renewed");
            }
            connections.close().await;
        }
    }

    /// What the log need not remember any more is removed a little at a time; what it forgot too early is told.
    async fn keep_the_log_clean(&self, forgotten_before: u64) -> Infallible {
        let Some(log) = &self.settings.log else { return std::future::pending().await };
        let mut wait = FIRST_CLEAN_UP;
        loop {
            sleep(wait.min(MOST_OFTEN_TOLD)).await;
            self.tell_what_was_forgotten(forgotten_before);
            wait = wait.saturating_sub(MOST_OFTEN_TOLD);
            if wait.is_zero() {
                wait = match timeout(CLEAN_UP_DEADLINE, log.clean_up()).await {
                    Ok(Ok(wait)) => wait.max(SHORTEST_WAIT),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "the log was not cleaned up");
                        CLEAN_UP_AGAIN
                    }
                    Err(_) => CLEAN_UP_AGAIN,
                };
            }
        }
    }

    fn tell_what_was_forgotten(&self, before: u64) {
        let forgotten = self.settings.log.as_ref().map_or(0, |log| log.forgotten_early());
        let more = forgotten.saturating_sub(before + self.counts.now().forgotten_early);
        if more > 0 {
            self.counts.forgotten_early(usize::try_from(more).unwrap_or(usize::MAX));
            tracing::warn!(
                more,
                "handled ids were forgotten before their time, for want of room: they may be handled twice"
            );
        }
    }

    /// What is to be gone with this consumer goes; dead letters stay until they expire.
    async fn leave(&self, connections: &Connections) {
        let Some(own) = self.settings.own.as_ref().filter(|_| self.settings.while_here) else { return };
        let left = if self.counts.now().dead > 0 {
            let queue = own.name();
            tracing::warn!(%queue, "its dead letters stay until they expire: `consumer dead-letters list --from` this queue");
            delete_all_but_letters(connections, own).await
        } else {
            delete(connections, own).await
        };
        if let Err(error) = left {
            tracing::debug!(%own, %error, "its queue was not deleted, and expires");
        }
    }

    fn connections(&self) -> Connections {
        let named = ConnectionSettings::new("consumer", "", Purpose::Consume);
        let connections = Connections::new(self.settings.address.clone(), named);
        match &self.settings.topology {
            Some(topology) => connections.declaring(topology.clone()),
            None => connections,
        }
    }

    fn summary(&self, startup: Startup, ended: Ended) -> Summary {
        Summary { counts: self.counts.now(), ended, startup }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("address", &self.settings.address)
            .field("queue", &self.settings.queue)
            .field("processing", &self.settings.processing)
            .finish_non_exhaustive()
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Between 0 and 1. Retries need to be spread, not to be unpredictable: a fresh hasher's seed will do.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

/// The name of the producer of copies, in its connection's name.
const COPIES: &str = "copies";
/// How long a claim stands past the handler's deadline: what telling the log may take.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// A subscription that lived so long was a good one.
const GOOD_WHILE: Duration = Duration::from_secs(10);
const FIRST_CLEAN_UP: Duration = Duration::from_secs(10);
const CLEAN_UP_AGAIN: Duration = Duration::from_secs(60);
const CLEAN_UP_DEADLINE: Duration = Duration::from_secs(30);
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
const MOST_OFTEN_TOLD: Duration = Duration::from_secs(1);
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
