//! What a consumer is made of, checked once.

use std::{
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use correio_broker_config::{Address, OwnQueue, OwnQueueError, Topology};
use correio_guarantees::BreakerLimits;
use correio_message::{MailboxName, ShortText, TooLong, TopicPattern};

use crate::{
    Consumer,
    budget::{Budget, BudgetTooSmall, DEFAULT_BUDGET},
    consumer::Settings,
    counts::Counts,
    handled_log::{HandledLog, MemoryLog, Transactions},
    handler::{Handler, Handlers},
    processing::{Acknowledgement, Deduplication, HALF_OF_CONSUMER_TIMEOUT, Processing, longest_retry},
};

/// Builds a [`Consumer`]. Everything but the queue and a handler has a default that is safe in production.
#[must_use = "a builder does nothing until it is built"]
pub struct ConsumerBuilder {
    address: Address,
    intake: Option<Intake>,
    expires: Option<Duration>,
    subscription: Option<String>,
    processing: Processing,
    memory_budget: usize,
    largest_message: Option<NonZeroUsize>,
    acknowledgement: Acknowledgement,
    deduplication: Deduplication,
    breaker: Option<BreakerLimits>,
    handler_deadline: Duration,
    drain_deadline: Duration,
    connect_deadline: Duration,
    topology: Option<Topology>,
    stop_after_count: Option<NonZeroU64>,
    stop_when_idle: Option<Duration>,
    look_after: Duration,
    handlers: Handlers,
    /// The first thing that was wrong with a registration, so that the chain of calls need not be broken.
    wrong: Option<BuildError>,
}

impl ConsumerBuilder {
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            intake: None,
            expires: None,
            subscription: None,
            processing: Processing::default(),
            memory_budget: DEFAULT_BUDGET,
            largest_message: None,
            acknowledgement: Acknowledgement::default(),
            deduplication: Deduplication::default(),
            breaker: Some(BreakerLimits::default()),
            handler_deadline: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(30),
            connect_deadline: Duration::from_secs(30),
            topology: None,
            stop_after_count: None,
            stop_when_idle: None,
            look_after: Duration::from_secs(15),
            handlers: Handlers::default(),
            wrong: None,
        }
    }

    /// The work queue to take messages from.
    pub fn queue(self, name: impl Into<String>) -> Self {
        let name = name.into();
        if name.is_empty() {
            return self;
        }
        let named = ShortText::new(name).map_err(|cause| BuildError::Name { what: "queue", cause });
        self.intake(named.map(Intake::Queue))
    }

    /// The mailbox to take messages from (unicast): a queue of its own, made where it is not there. A second consumer of it
    /// stands by. Who is away for longer than [`expires`](Self::expires) loses their mail.
    pub fn mailbox(self, name: impl AsRef<str>) -> Self {
        let own = MailboxName::new(name).map(|name| OwnQueue::mailbox(&name));
        self.intake(own.map(Intake::Own).map_err(|error| BuildError::Own(error.into())))
    }

    /// The events to take (multicast): those whose key matches the pattern, for this group. Each group has a queue of its own,
    /// made where it is not there, and gets every such event once; its members share the queue, and it outlives them
    /// for as long as [`expires`](Self::expires) says. Another pattern is another queue, which begins empty.
    pub fn topic(self, pattern: impl AsRef<str>, group: impl AsRef<str>) -> Self {
        let own = TopicPattern::new(pattern)
            .map_err(OwnQueueError::from)
            .and_then(|pattern| OwnQueue::group(group.as_ref(), &pattern));
        self.intake(own.map(Intake::Own).map_err(BuildError::Own))
    }

    /// Every broadcast, as this listener: a queue of its own, made where it is not there, which outlives its consumer for as
    /// long as [`expires`](Self::expires) says. A second consumer under the same name stands by.
    pub fn broadcast(self, name: impl AsRef<str>) -> Self {
        let own = OwnQueue::listener(name.as_ref());
        self.intake(own.map(Intake::Own).map_err(BuildError::Own))
    }

    /// Every broadcast while this consumer lives, reconnects included; its queue is deleted when it ends.
    pub fn broadcast_while_here(self) -> Self {
        let own = OwnQueue::listener(correio_producer::fresh_id().to_text().as_str())
            .and_then(|own| own.expiring_after(OwnQueue::UNNAMED_EXPIRES));
        self.intake(own.map(Intake::WhileHere).map_err(BuildError::Own))
    }

    fn intake(mut self, intake: Result<Intake, BuildError>) -> Self {
        match intake {
            Ok(intake) => {
                if self.intake.replace(intake).is_some() {
                    self.remember(BuildError::TwoQueues);
                }
            }
            Err(wrong) => self.remember(wrong),
        }
        self
    }

    /// How long a mailbox, a group's or a listener's queue stays without a consumer (a week; 5 minutes for
    /// [`broadcast_while_here`](Self::broadcast_while_here)): then the broker deletes it with all that is in it, dead
    /// letters too. The broker refuses another time than the one that the queue was made with.
    pub fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(after);
        self
    }

    /// The name under which handled messages are remembered (the queue's name). Consumers with the same one handle
    /// each message once between them, as far as they share a log.
    pub fn subscription(mut self, name: impl Into<String>) -> Self {
        self.subscription = Some(name.into());
        self
    }

    /// Concurrency, order and retries ([`Processing::independent`]).
    pub fn processing(mut self, processing: Processing) -> Self {
        self.processing = processing;
        self
    }

    /// The most bytes of messages that are held at once (1 GiB): the prefetch times the largest message never exceeds it.
    ///
    /// Without [`largest_message`](Self::largest_message) the largest message follows from it: 16 MiB with the default
    /// processing, which is all that RabbitMQ takes; less where more is prefetched, such as 3 MiB with the default order by key.
    pub fn memory_budget(mut self, bytes: NonZeroUsize) -> Self {
        self.memory_budget = bytes.get();
        self
    }

    /// The largest message that is taken, in bytes, headers included; a larger one is parked as a dead letter with its bytes
    /// untouched. The prefetch is as large as the memory budget then allows.
    pub fn largest_message(mut self, bytes: NonZeroUsize) -> Self {
        self.largest_message = Some(bytes);
        self
    }

    /// When a message is acknowledged ([`Acknowledgement::AfterHandling`]).
    pub fn acknowledgement(mut self, acknowledgement: Acknowledgement) -> Self {
        self.acknowledgement = acknowledgement;
        self
    }

    /// Where handled messages are remembered (in memory: 100,000 of them, each for an hour).
    pub fn deduplication(mut self, deduplication: impl Into<Deduplication>) -> Self {
        self.deduplication = deduplication.into();
        self
    }

    /// When handling pauses because everything fails; `None`: never.
    ///
    /// By default, after 20 failures in a row nothing is begun for a second; then single messages probe whether it still is so, with
    /// pauses that double up to 30 s, until one succeeds. What fails meanwhile is not parked, however often it failed, for 20 minutes.
    /// After a minute of this, what is held goes back to the queue, and only the probe is taken.
    ///
    /// Without it, what handlers need may be away for as long as the retries take; whatever comes in a longer time is parked.
    pub fn breaker(mut self, limits: impl Into<Option<BreakerLimits>>) -> Self {
        self.breaker = limits.into();
        self
    }

    /// How long one attempt may take (60 s): then its future is dropped and the attempt has failed.
    ///
    /// A handler that blocks its thread cannot be interrupted: use `tokio::task::spawn_blocking` inside.
    pub fn handler_deadline(mut self, deadline: Duration) -> Self {
        self.handler_deadline = deadline;
        self
    }

    /// How long stopping may take (30 s): handlers that are not finished then are dropped, their messages go back.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// How long to try to reach the broker at the start (30 s). Later losses are tried again without an end.
    pub fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.connect_deadline = deadline;
        self
    }

    /// Declare this on each new connection, the first one and those after a loss, so that a queue that was deleted is there
    /// again (nothing). The user needs configure rights on it, which the compose file's `consumer` has not: there
    /// `cargo broker apply` declares.
    pub fn declare(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }

    /// Stop when so many messages were settled by their handlers: handled, dropped or parked. Not more are started.
    pub fn stop_after_count(mut self, messages: NonZeroU64) -> Self {
        self.stop_after_count = Some(messages);
        self
    }

    /// Stop when nothing came and nothing was in progress for so long. A retry that this consumer has sent round is
    /// waited for.
    pub fn stop_when_idle(mut self, idle: Duration) -> Self {
        self.stop_when_idle = Some(idle);
        self
    }

    /// How long nothing may come before the consumer looks at its queue (15 s), and again after as long: whether the queue is
    /// there, and a subscription on it, and no messages wait that should come. If the broker has forgotten it without saying so, it
    /// subscribes again.
    pub fn look_after(mut self, quiet: Duration) -> Self {
        self.look_after = quiet;
        self
    }

    /// The handler for messages of this type. Messages of a type without a handler are parked as dead letters.
    pub fn on<A: 'static>(mut self, message_type: impl AsRef<str>, handler: impl Handler<A>) -> Self {
        match ShortText::new(message_type.as_ref()) {
            Ok(name) => {
                if !self.handlers.on(name, handler) {
                    self.remember(BuildError::TwoHandlers { message_type: message_type.as_ref().to_owned() });
                }
            }
            Err(cause) => self.remember(BuildError::Name { what: "message type", cause }),
        }
        self
    }

    /// The handler for all messages whose type has none of its own, and for those without a type.
    pub fn on_any<A: 'static>(mut self, handler: impl Handler<A>) -> Self {
        if !self.handlers.on_any(handler) {
            self.remember(BuildError::TwoHandlers { message_type: "(any)".to_owned() });
        }
        self
    }

    /// Checks that the settings fit together.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting and the way out.
    pub fn build(self) -> Result<Consumer, BuildError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        if self.handlers.is_empty() {
            return Err(BuildError::NoHandler);
        }
        let (queue, own, while_here) = match self.intake.ok_or(BuildError::NoQueue)? {
            Intake::Queue(_) if self.expires.is_some() => return Err(BuildError::ExpiresOfAWorkQueue),
            Intake::Queue(name) => (name, None, false),
            Intake::Own(own) => own_queue(own, &self.processing, self.expires).map(|(name, own)| (name, own, false))?,
            Intake::WhileHere(own) => {
                own_queue(own, &self.processing, self.expires).map(|(name, own)| (name, own, true))?
            }
        };
        let subscription = match self.subscription {
            Some(name) => ShortText::new(name).map_err(|cause| BuildError::Name { what: "subscription", cause })?,
            None => queue.clone(),
        };
        if self.handler_deadline.is_zero() {
            return Err(BuildError::NoTime { what: "handler deadline" });
        }
        if self.look_after.is_zero() {
            return Err(BuildError::NoTime { what: "time to look after" });
        }
        if let Some(BreakerLimits { opens_at, first_pause, longest_pause, .. }) = self.breaker
            && (opens_at == 0 || first_pause.is_zero() || longest_pause < first_pause)
        {
            return Err(BuildError::Breaker { opens_at, first_pause, longest_pause });
        }
        if self.processing.is_ordered() && self.acknowledgement == Acknowledgement::OnDelivery {
            return Err(BuildError::OrderedOnDelivery);
        }
        if let Processing::OrderedByKey { parked, .. } = &self.processing
            && parked.get() > MOST_PARKED
        {
            return Err(BuildError::TooManyParked { parked: parked.get() });
        }
        let budget = budget(self.memory_budget, self.largest_message, &self.processing)?;
        let held = self.processing.longest_hold(self.handler_deadline);
        if held >= HALF_OF_CONSUMER_TIMEOUT {
            return Err(BuildError::HeldTooLong { held });
        }
        let (log, transactions) = logs(self.deduplication);
        let asked_for = self.handlers.databases();
        let there = transactions.as_ref().map(|transactions| transactions.database());
        if let Some(database) = asked_for.iter().find(|database| there != Some(**database)) {
            return Err(BuildError::NoTransactions { database });
        }
        let transactions = transactions.filter(|_| !asked_for.is_empty());
        if let Some(abandoned_after) = transactions.as_ref().and_then(|transactions| transactions.abandoned_after())
            && abandoned_after <= self.handler_deadline
        {
            return Err(BuildError::TransactionEndsTooSoon {
                abandoned_after,
                handler_deadline: self.handler_deadline,
            });
        }
        let longest = longest_retry(self.processing.retry(), self.handler_deadline);
        if let Some(log) = &log
            && log.retention() <= longest
        {
            return Err(BuildError::ForgetsTooSoon { retention: log.retention(), longest });
        }
        Ok(Consumer::new(
            Settings {
                address: self.address,
                queue,
                own,
                while_here,
                subscription,
                processing: self.processing,
                budget,
                acknowledgement: self.acknowledgement,
                log,
                breaker: self.breaker,
                transactions,
                handler_deadline: self.handler_deadline,
                drain_deadline: self.drain_deadline,
                connect_deadline: self.connect_deadline,
                topology: self.topology,
                stop_after_count: self.stop_after_count,
                stop_when_idle: self.stop_when_idle,
                look_after: self.look_after,
            },
            Arc::new(self.handlers),
            Counts::default(),
        ))
    }

    fn remember(&mut self, wrong: BuildError) {
        self.wrong.get_or_insert(wrong);
    }
}

/// Where messages are taken from.
enum Intake {
    Queue(ShortText),
    Own(OwnQueue),
    WhileHere(OwnQueue),
}

/// The own queue as these settings need it.
fn own_queue(
    own: OwnQueue,
    processing: &Processing,
    expires: Option<Duration>,
) -> Result<(ShortText, Option<OwnQueue>), BuildError> {
    let own = own.with_delays(&processing.retry().delays()).map_err(BuildError::Own)?;
    let own = if processing.is_ordered() { own.ordered() } else { own };
    let own = match expires {
        Some(after) => own.expiring_after(after).map_err(BuildError::Own)?,
        None => own,
    };
    Ok((own.name().clone(), Some(own)))
}

/// Settings that do not fit together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No queue was named.
    #[error("no queue to take messages from: name it with `.queue(\"orders\")`, or a mailbox, topic or broadcast")]
    NoQueue,
    /// More than one was named.
    #[error("one consumer takes from one queue, mailbox, group or listener: build another consumer for the other")]
    TwoQueues,
    /// A work queue does not expire.
    #[error(
        "`.expires(…)` is for a mailbox, a topic or a broadcast: a work queue is not this consumer's own, and stays"
    )]
    ExpiresOfAWorkQueue,
    /// This cannot be a mailbox, a group or a listener.
    #[error(transparent)]
    Own(OwnQueueError),
    /// No handler was registered.
    #[error("no handler: register one with `.on(\"order.placed\", handler)` or `.on_any(handler)`")]
    NoHandler,
    /// Two handlers for one type.
    #[error("two handlers for messages of the type {message_type}: register one of them")]
    TwoHandlers {
        /// The type.
        message_type: String,
    },
    /// A name does not fit AMQP.
    #[error("{what}: {cause}")]
    Name {
        /// What it names.
        what: &'static str,
        /// Why it does not fit.
        #[source]
        cause: TooLong,
    },
    /// A time of zero.
    #[error("the {what} is zero: nothing could ever be done")]
    NoTime {
        /// Which time.
        what: &'static str,
    },
    /// A breaker that is open from the beginning, or probes without a pause.
    #[error(
        "a breaker that opens at {opens_at} failures and pauses {first_pause:?} to {longest_pause:?}: give at least 1, a first pause above zero, and a longest not below it; or `.breaker(None)`"
    )]
    Breaker {
        /// How many failures.
        opens_at: u32,
        /// The first pause.
        first_pause: Duration,
        /// The longest.
        longest_pause: Duration,
    },
    /// Order by key and acknowledgement on receipt.
    #[error(
        "messages acknowledged on receipt keep no order: one that fails, or is lost with this process, does not come again, and those of its key go on without it; acknowledge them after handling, or do without order"
    )]
    OrderedOnDelivery,
    /// More parked than a prefetch can exceed.
    #[error(
        "{parked} messages may be parked: at most {}, because the prefetch must exceed it and is 16 bits",
        MOST_PARKED
    )]
    TooManyParked {
        /// What was given.
        parked: u16,
    },
    /// Too little memory for what the processing needs.
    #[error(
        "a memory budget of {bytes} bytes has room for {fit} of the largest messages, and this processing needs {needed}: give          `.memory_budget(…)` more, `.largest_message(…)` less, or let fewer be handled or parked at once"
    )]
    BudgetTooSmall {
        /// The budget.
        bytes: usize,
        /// How many messages fit.
        fit: usize,
        /// How many are needed.
        needed: u16,
    },
    /// The broker would take the messages away.
    #[error(
        "a message could be held for {held:?} before it is settled, and the broker takes it away after 30 min: keep the \
         retry delays, the handler deadline of each attempt and the gap deadline under {:?} in all",
        HALF_OF_CONSUMER_TIMEOUT
    )]
    HeldTooLong {
        /// The sum of the times.
        held: Duration,
    },
    /// A handler asks for a transaction that its log does not have.
    #[error(
        "a handler asks for a transaction of {database}, and handled messages are not remembered there: give the consumer a          log in that database with `.deduplication(…)`, one for all handlers"
    )]
    NoTransactions {
        /// The database.
        database: &'static str,
    },
    /// A handler's transaction would be taken from it while it works.
    #[error(
        "a handler may take {handler_deadline:?}, and the server ends its transaction when nothing was asked in it for          {abandoned_after:?}: give the log a longer `.abandoned_after(…)`, or handlers less time"
    )]
    TransactionEndsTooSoon {
        /// How long a transaction may be idle.
        abandoned_after: Duration,
        /// How long a handler may take.
        handler_deadline: Duration,
    },
    /// A retry could come back after its first handling is forgotten.
    #[error(
        "handled messages are remembered for {retention:?} and a message may be retried for {longest:?}: remember them for \
         longer, or retry for less"
    )]
    ForgetsTooSoon {
        /// How long they are remembered.
        retention: Duration,
        /// The longest way of a message through its retries.
        longest: Duration,
    },
}

fn budget(bytes: usize, largest: Option<NonZeroUsize>, processing: &Processing) -> Result<Budget, BuildError> {
    let wanted = NonZeroU16::new(processing.prefetch()).unwrap_or(NonZeroU16::MIN);
    Budget::of(bytes, largest, wanted, processing.least_prefetch())
        .map_err(|BudgetTooSmall { needed, fit }| BuildError::BudgetTooSmall { bytes, fit, needed })
}

type Logs = (Option<Arc<dyn HandledLog>>, Option<Arc<dyn Transactions>>);

/// The log, and the transactions of its database, if it is in one.
fn logs(deduplication: Deduplication) -> Logs {
    match deduplication {
        Deduplication::Off => (None, None),
        Deduplication::Memory { capacity, retention } => (Some(Arc::new(MemoryLog::new(capacity, retention))), None),
        #[cfg(feature = "sqlite")]
        Deduplication::Sqlite(log) => (Some(log.clone()), Some(log)),
        #[cfg(feature = "postgres")]
        Deduplication::Postgres(log) => (Some(log.clone()), Some(log)),
        Deduplication::Log(log) => (Some(log), None),
    }
}

const MOST_PARKED: u16 = 60_000;

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroUsize};

    use correio_guarantees::{GapPolicy, RetrySchedule};

    use super::*;
    use crate::Message;

    fn builder() -> ConsumerBuilder {
        let handler = |_: Message| std::future::ready(Ok::<_, String>(()));
        Consumer::builder(Address::new("localhost", 5672, "consumer", "consumer")).queue("orders").on_any(handler)
    }

    fn refusal(builder: ConsumerBuilder) -> String {
        builder.build().expect_err("refused").to_string()
    }

    #[test]
    fn the_defaults_fit_together_in_either_mode() {
        for processing in [Processing::independent(), Processing::ordered_by_key()] {
            assert!(builder().processing(processing).build().is_ok());
        }
    }

    #[test]
    fn what_could_be_held_past_the_brokers_patience_is_refused_with_the_time() {
        // Six attempts of three minutes in place: 18 min, and the broker takes the message away after 30.
        let slow = builder().handler_deadline(Duration::from_secs(180));
        assert!(refusal(slow.processing(Processing::ordered_by_key())).contains("1186s"));
        assert!(
            builder().handler_deadline(Duration::from_secs(180)).build().is_ok(),
            "independent ones do not wait here"
        );
        let patient = Processing::OrderedByKey {
            keys_at_once: NonZeroU16::MIN,
            parked: NonZeroU16::MIN,
            gap_deadline: Duration::from_secs(15 * 60),
            gap_policy: GapPolicy::Skip,
            retry: RetrySchedule::none(),
        };
        assert!(refusal(builder().processing(patient)).contains("gap deadline"));
    }

    #[test]
    fn the_prefetch_times_the_largest_message_is_within_the_memory_budget() {
        let bytes = |n| NonZeroUsize::new(n).expect("not zero");
        let of = |builder: ConsumerBuilder| builder.build().map(|built| (built.prefetch(), built.largest_message()));
        assert_eq!(of(builder()).expect("built"), (64, 16 << 20));
        assert_eq!(of(builder().memory_budget(bytes(6_400))).expect("built"), (64, 100));
        let cut = builder().memory_budget(bytes(1_000)).largest_message(bytes(100));
        assert_eq!(of(cut).expect("built"), (10, 100));
        // 256 may be parked, so 257 are needed.
        let ordered = builder().processing(Processing::ordered_by_key());
        let said = refusal(ordered.memory_budget(bytes(256_000)).largest_message(bytes(1_000)));
        for named in ["256000 bytes", "room for 256", "needs 257", ".memory_budget("] {
            assert!(said.contains(named), "{named}: {said}");
        }
    }

    #[test]
    fn order_by_key_with_acknowledgement_on_receipt_is_refused() {
        let on_receipt = || builder().acknowledgement(Acknowledgement::OnDelivery);
        assert!(on_receipt().build().is_ok());
        let said = refusal(on_receipt().processing(Processing::ordered_by_key()));
        assert!(said.contains("on receipt keep no order") && said.contains("after handling"), "{said}");
    }

    #[test]
    fn a_memory_shorter_than_the_longest_retry_is_refused_with_both_times() {
        let capacity = NonZeroUsize::new(10).expect("not zero");
        let forgetful = Deduplication::Memory { capacity, retention: Duration::from_secs(456) };
        let said = refusal(builder().deduplication(forgetful));
        assert!(said.contains("remembered for 456s") && said.contains("retried for 456s"), "{said}");
        let enough = Deduplication::Memory { capacity, retention: Duration::from_secs(457) };
        assert!(builder().deduplication(enough).build().is_ok());
    }

    #[test]
    fn what_is_missing_or_there_twice_is_named() {
        let address = || Address::new("localhost", 5672, "consumer", "consumer");
        assert!(refusal(Consumer::builder(address()).queue("orders")).contains(".on("));
        let handler = |_: Message| std::future::ready(Ok::<_, String>(()));
        assert!(refusal(Consumer::builder(address()).on_any(handler)).contains(".queue("));
        assert!(refusal(builder().on("order.placed", handler).on("order.placed", handler)).contains("order.placed"));
        assert!(refusal(builder().queue("x".repeat(256))).contains("queue"));
        assert!(refusal(builder().handler_deadline(Duration::ZERO)).contains("handler deadline"));
        let never_closed = BreakerLimits { opens_at: 0, ..BreakerLimits::default() };
        let hot_loop = BreakerLimits { first_pause: Duration::ZERO, ..BreakerLimits::default() };
        for limits in [never_closed, hot_loop] {
            assert!(refusal(builder().breaker(limits)).contains(".breaker(None)"));
        }
        assert!(refusal(builder().expires(Duration::from_secs(60))).contains("work queue"));
        assert!(refusal(builder().mailbox("ana")).contains("one queue"));
        let own = || Consumer::builder(address()).on_any(handler);
        assert!(refusal(own().topic("flight*", "west")).contains("flight*"));
        assert!(refusal(own().mailbox("ana.dead")).contains("parking queue"));
        assert!(own().broadcast_while_here().expires(Duration::from_secs(60)).build().is_ok());
    }
}
