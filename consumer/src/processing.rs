//! How messages are processed: one setting holds concurrency, order and retry, because they depend on each other.

use std::{num::NonZeroU16, num::NonZeroUsize, sync::Arc, time::Duration};

use correio_guarantees::{GapPolicy, RetrySchedule, jittered};

use crate::handled_log::HandledLog;
#[cfg(feature = "postgres")]
use crate::handled_log::PostgresLog;
#[cfg(feature = "sqlite")]
use crate::handled_log::SqliteLog;

/// Whether messages are independent of each other or ordered by their keys, and how a failed one is retried.
#[derive(Clone, Debug, PartialEq)]
pub enum Processing {
    /// Messages are independent. A failed one waits in a delay queue while others overtake it.
    Independent {
        /// How many are handled at once.
        at_once: NonZeroU16,
        /// When a failed one is tried again, and how often.
        retry: RetrySchedule,
    },
    /// Messages with the same key are handled one after another, in the order sent. A failed one is retried in place and
    /// its key waits, because sent round through a delay queue it would be overtaken.
    ///
    /// Needs a queue with a single active consumer: of competing consumers each would see gaps.
    OrderedByKey {
        /// How many keys are handled at once.
        keys_at_once: NonZeroU16,
        /// How many messages may wait here for an earlier one that has not come yet.
        parked: NonZeroU16,
        /// How long they wait for it.
        gap_deadline: Duration,
        /// What is done when it has not come by then.
        gap_policy: GapPolicy,
        /// When a failed one is tried again, and how often.
        retry: RetrySchedule,
    },
}

impl Processing {
    /// Independent messages, 16 at once, with the default retries.
    #[must_use]
    pub fn independent() -> Self {
        Self::Independent { at_once: at_least_one(16), retry: RetrySchedule::default() }
    }

    /// Messages ordered by key, 16 keys at once; 256 messages may wait for an earlier one, 10 seconds long, then the
    /// gap is skipped and counted.
    #[must_use]
    pub fn ordered_by_key() -> Self {
        Self::OrderedByKey {
            keys_at_once: at_least_one(16),
            parked: at_least_one(256),
            gap_deadline: Duration::from_secs(10),
            gap_policy: GapPolicy::Skip,
            retry: RetrySchedule::default(),
        }
    }

    /// How many unsettled deliveries to ask the broker for, if that many fit the memory budget.
    ///
    /// Always more than may be parked: otherwise every delivery held could be waiting for one that the broker
    /// will not send until something is settled. Beyond that a few for each handler, so that none waits for the broker.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        let ahead = self.at_once().get().saturating_mul(4).max(8);
        match self {
            Self::Independent { .. } => ahead,
            Self::OrderedByKey { parked, .. } => parked.get().saturating_add(ahead),
        }
    }

    /// The least prefetch with which this works: more than may be parked.
    pub(crate) fn least_prefetch(&self) -> NonZeroU16 {
        match self {
            Self::Independent { .. } => NonZeroU16::MIN,
            Self::OrderedByKey { parked, .. } => parked.saturating_add(1),
        }
    }

    /// How many handlers run at once.
    #[must_use]
    pub fn at_once(&self) -> NonZeroU16 {
        match self {
            Self::Independent { at_once, .. } => *at_once,
            Self::OrderedByKey { keys_at_once, .. } => *keys_at_once,
        }
    }

    /// When a failed message is tried again.
    #[must_use]
    pub fn retry(&self) -> &RetrySchedule {
        match self {
            Self::Independent { retry, .. } | Self::OrderedByKey { retry, .. } => retry,
        }
    }

    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self, Self::OrderedByKey { .. })
    }

    /// The longest that one delivery may stay unsettled here by these settings, if there are delay queues for what is not
    /// ordered.
    pub(crate) fn longest_hold(&self, handler_deadline: Duration) -> Duration {
        match self {
            Self::Independent { .. } => handler_deadline,
            Self::OrderedByKey { .. } => self.longest_hold_in_place(handler_deadline),
        }
    }

    /// The same, if failed messages are retried in place.
    pub(crate) fn longest_hold_in_place(&self, handler_deadline: Duration) -> Duration {
        match self {
            Self::Independent { retry, .. } => longest_retry(retry, handler_deadline),
            Self::OrderedByKey { gap_deadline, retry, .. } => {
                gap_deadline.saturating_add(longest_retry(retry, handler_deadline))
            }
        }
    }
}

impl Default for Processing {
    fn default() -> Self {
        Self::independent()
    }
}

/// From the first delivery to the end of the last attempt, jitter included.
pub(crate) fn longest_retry(retry: &RetrySchedule, handler_deadline: Duration) -> Duration {
    let attempts = retry.retries().saturating_add(1);
    // `Verdict::RetryAfter` may choose the longest delay each time.
    let longest = retry.delays().last().copied().unwrap_or_default().saturating_mul(retry.retries());
    jittered(longest, 1.0).saturating_add(handler_deadline.saturating_mul(attempts))
}

/// Half of the 30 minutes after which RabbitMQ takes an unsettled delivery away: clocks and queues need the rest.
pub(crate) const HALF_OF_CONSUMER_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// When the broker is told that a message is done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledgement {
    /// After its handler succeeded, or its copy is confirmed elsewhere. It may come again after a crash.
    #[default]
    AfterHandling,
    /// On receipt. Price: what is held here is lost when the process dies; a failed message can be neither retried
    /// through the broker nor given back, only parked. At most once, and not together with
    /// [`Processing::OrderedByKey`].
    OnDelivery,
}

/// Whether, and where, handled messages are remembered, so that a second copy has no second effect.
#[derive(Clone)]
#[non_exhaustive]
pub enum Deduplication {
    /// Not at all: a message that comes twice is handled twice.
    Off,
    /// In this process's memory: gone with it, unknown to other consumers of the queue.
    Memory {
        /// The most ids remembered; past it the oldest goes first.
        capacity: NonZeroUsize,
        /// How long each is remembered. Must exceed the longest retry.
        retention: Duration,
    },
    /// In a file that the consumers on this machine share: across crashes, and exactly once for handlers that ask for a
    /// `Transaction<Sqlite>`.
    #[cfg(feature = "sqlite")]
    Sqlite(Arc<SqliteLog>),
    /// In a server that consumers on any machine share: across crashes, and exactly once for handlers that ask for a
    /// `Transaction<Postgres>`.
    #[cfg(feature = "postgres")]
    Postgres(Arc<PostgresLog>),
    /// In a log of your own.
    Log(Arc<dyn HandledLog>),
}

impl Default for Deduplication {
    /// In memory: 100,000 ids, each for an hour.
    fn default() -> Self {
        let capacity = const { NonZeroUsize::new(100_000).expect("not zero") };
        Self::Memory { capacity, retention: Duration::from_secs(60 * 60) }
    }
}

#[cfg(feature = "sqlite")]
impl From<SqliteLog> for Deduplication {
    fn from(log: SqliteLog) -> Self {
        Self::Sqlite(Arc::new(log))
    }
}

#[cfg(feature = "postgres")]
impl From<PostgresLog> for Deduplication {
    fn from(log: PostgresLog) -> Self {
        Self::Postgres(Arc::new(log))
    }
}

impl std::fmt::Debug for Deduplication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("Off"),
            Self::Memory { capacity, retention } => {
                f.debug_struct("Memory").field("capacity", capacity).field("retention", retention).finish()
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => f.write_str("Sqlite(…)"),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => f.write_str("Postgres(…)"),
            Self::Log(_) => f.write_str("Log(…)"),
        }
    }
}

const fn at_least_one(n: u16) -> NonZeroU16 {
    match NonZeroU16::new(n) {
        Some(n) => n,
        None => NonZeroU16::MIN,
    }
}
