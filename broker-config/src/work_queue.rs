//! A work queue and its company: where messages wait before the next try, and where those are parked that nobody
//! could handle.

use std::time::Duration;

use correio_message::{Exchange, Route, ShortText, TooLong};

use crate::{
    delay::delay_name,
    queue::{DeadLettering, Queue},
};

/// A work queue with its retry queues and its parking queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkQueue {
    name: ShortText,
    parking: ShortText,
    kind: WorkQueueKind,
}

/// Who handles the messages of a work queue, and where a failed one waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkQueueKind {
    /// Many consumers at once. A failed message waits in a retry queue while others overtake it.
    Shared {
        /// One for each delay, the shortest first.
        retry: Vec<RetryQueue>,
    },
    /// One consumer at a time; the others stand by and take over. A failed message is retried in place, so there
    /// are no retry queues.
    Ordered,
}

/// Where a failed message waits, and one that was sent with this delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryQueue {
    /// Its name, which is its routing key on `correio.retry` too.
    pub name: ShortText,
    /// How long a message waits at least; at most it is [`longest_wait`].
    pub delay: Duration,
}

/// Why this cannot be a work queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkQueueError {
    /// No name.
    #[error("a work queue needs a name")]
    NoName,
    /// The name, or that of a queue of its company, is too long.
    #[error("the work queue's name is too long, as its retry and parking queues' names extend it: {0}")]
    NameTooLong(#[from] TooLong),
    /// The name means something else already.
    #[error("“{name}” cannot name a work queue: {because}")]
    Reserved {
        /// The name.
        name: String,
        /// What it means.
        because: &'static str,
    },
    /// A delay that no queue can have.
    #[error("a retry delay of {delay:?} is not possible: it must be from 1 ms to 30 days")]
    Delay {
        /// The delay.
        delay: Duration,
    },
    /// Too many delays.
    #[error("{count} retry delays are too many: each is a queue, and at most {most} are allowed")]
    TooManyDelays {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

/// The delays of the default retry schedule.
pub const DEFAULT_RETRY_DELAYS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

impl WorkQueue {
    /// A shared work queue with the default retry delays.
    ///
    /// # Errors
    ///
    /// [`WorkQueueError`] if the name is empty, too long or taken.
    pub fn shared(name: impl AsRef<str>) -> Result<Self, WorkQueueError> {
        Self::shared_with_delays(name, &DEFAULT_RETRY_DELAYS)
    }

    /// A shared work queue with retry delays of its own; their order and repetitions do not matter.
    ///
    /// # Errors
    ///
    /// [`WorkQueueError`] if the name is empty, too long or taken, or a delay is not possible.
    pub fn shared_with_delays(name: impl AsRef<str>, delays: &[Duration]) -> Result<Self, WorkQueueError> {
        Self::ordered(name)?.with_retries(delays)
    }

    fn with_retries(mut self, delays: &[Duration]) -> Result<Self, WorkQueueError> {
        let mut delays = delays.to_vec();
        delays.sort_unstable();
        delays.dedup_by_key(|delay| delay_name(*delay));
        if delays.len() > MOST_DELAYS {
            return Err(WorkQueueError::TooManyDelays { count: delays.len(), most: MOST_DELAYS });
        }
        if let Some(delay) = delays.iter().find(|d| !(SHORTEST_DELAY..=LONGEST_DELAY).contains(*d)) {
            return Err(WorkQueueError::Delay { delay: *delay });
        }
        let retry = delays
            .into_iter()
            .map(|delay| Ok(RetryQueue { name: retry_queue_name(&self.name, delay)?, delay }))
            .collect::<Result<_, TooLong>>()?;
        self.kind = WorkQueueKind::Shared { retry };
        Ok(self)
    }

    /// An ordered work queue.
    ///
    /// # Errors
    ///
    /// [`WorkQueueError`] if the name is empty, too long or taken.
    pub fn ordered(name: impl AsRef<str>) -> Result<Self, WorkQueueError> {
        let name = ShortText::new(name)?;
        let reserved = |because| Err(WorkQueueError::Reserved { name: name.to_string(), because });
        match name.as_str() {
            "" => Err(WorkQueueError::NoName),
            n if n.starts_with("amq.") => reserved("names from “amq.” on are the broker's own"),
            n if n.starts_with("correio.") => reserved("names from “correio.” on are of mailboxes, groups and replies"),
            n if n.ends_with(".dead") => reserved("it would be the parking queue of another work queue"),
            n if n.contains(".retry.") => reserved("it would be a retry queue of another work queue"),
            n if n.contains(char::is_control) => reserved("it has a control character"),
            _ => Ok(Self { parking: parking_queue_name(&name)?, kind: WorkQueueKind::Ordered, name }),
        }
    }

    /// Of a consumer's own queue, whose name was checked already. Without delays it has no retry queues.
    pub(crate) fn own(name: ShortText, delays: &[Duration]) -> Result<Self, WorkQueueError> {
        let parking = parking_queue_name(&name)?;
        Self { name, parking, kind: WorkQueueKind::Ordered }.with_retries(delays)
    }

    /// Its name, which is its routing key on `correio.queue` too.
    #[must_use]
    pub fn name(&self) -> &ShortText {
        &self.name
    }

    /// Its kind, with the retry queues.
    #[must_use]
    pub fn kind(&self) -> &WorkQueueKind {
        &self.kind
    }

    /// Where its dead letters are parked, which is their routing key on `correio.dead` too.
    #[must_use]
    pub fn parking_queue(&self) -> &ShortText {
        &self.parking
    }

    /// The queues that it consists of, the work queue first, each with the route that it is bound by.
    #[must_use]
    pub fn expand(&self) -> Vec<(Queue, Route)> {
        let here = Route { exchange: Exchange::Queue.name(), routing_key: self.name.clone() };
        let parking = Route { exchange: Exchange::Dead.name(), routing_key: self.parking.clone() };
        let queue = Queue::quorum(self.name.clone(), WORK_DELIVERY_LIMIT)
            // Leads to the parking queue, never to a retry queue: RabbitMQ drops what comes round as a cycle.
            .dead_letter_to(parking.clone(), DeadLettering::AtLeastOnce);
        let (queue, retry) = match &self.kind {
            WorkQueueKind::Shared { retry } => (queue, retry.as_slice()),
            WorkQueueKind::Ordered => (queue.single_active_consumer(), [].as_slice()),
        };
        let mut company = vec![(queue, here.clone())];
        for RetryQueue { name, delay } in retry {
            let route = Route { exchange: Exchange::Retry.name(), routing_key: name.clone() };
            let queue = Queue::quorum(name.clone(), NO_DELIVERY_LIMIT)
                .message_ttl(longest_wait(*delay))
                .dead_letter_to(here.clone(), DeadLettering::AtLeastOnce);
            company.push((queue, route));
        }
        company.push((Queue::quorum(self.parking.clone(), NO_DELIVERY_LIMIT), parking));
        company
    }
}

/// The name of the queue in which messages of `queue` wait for `delay`, such as `orders.retry.1s`.
///
/// # Errors
///
/// [`TooLong`] past 255 bytes.
pub fn retry_queue_name(queue: &ShortText, delay: Duration) -> Result<ShortText, TooLong> {
    ShortText::new(format!("{queue}.retry.{}", delay_name(delay)))
}

/// The name of the queue in which dead letters of `queue` are parked, such as `orders.dead`.
///
/// # Errors
///
/// [`TooLong`] past 255 bytes.
pub fn parking_queue_name(queue: &ShortText) -> Result<ShortText, TooLong> {
    ShortText::new(format!("{queue}.dead"))
}

/// The longest that a message waits in the retry queue of `delay`: the jitter's upper end.
///
/// A retried message has an expiration of its own between the delay and this. The retry queue's own TTL is this,
/// since the broker takes the smaller of the two: it cuts no message's wait short, and ends that of a message
/// without an expiration.
#[must_use]
pub fn longest_wait(delay: Duration) -> Duration {
    delay.saturating_add(delay / 5)
}

/// A backstop against a message that kills its consumer, not a count of tries. The whole prefetch of a consumer
/// that dies is counted, innocent neighbours too, so it is at least ten times the crashes (up to ten) after which
/// our consumer parks the culprit itself.
const WORK_DELIVERY_LIMIT: u32 = 100;

/// Each look at a message counts as a delivery: with RabbitMQ's default of 20, the 21st would delete the letters.
const NO_DELIVERY_LIMIT: u32 = 1_000_000_000;

const SHORTEST_DELAY: Duration = Duration::from_millis(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);
const MOST_DELAYS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Argument;

    #[test]
    fn a_shared_work_queue_has_a_retry_queue_for_each_delay_and_a_parking_queue() {
        let names: Vec<_> =
            WorkQueue::shared("orders").unwrap().expand().iter().map(|(q, r)| format!("{r} {}", q.name())).collect();
        assert_eq!(
            names,
            [
                "correio.queue/orders orders",
                "correio.retry/orders.retry.1s orders.retry.1s",
                "correio.retry/orders.retry.2s orders.retry.2s",
                "correio.retry/orders.retry.4s orders.retry.4s",
                "correio.retry/orders.retry.8s orders.retry.8s",
                "correio.retry/orders.retry.16s orders.retry.16s",
                "correio.dead/orders.dead orders.dead",
            ]
        );
    }

    #[test]
    fn an_ordered_one_has_a_single_active_consumer_and_no_retry_queue() {
        let company = WorkQueue::ordered("flights").unwrap().expand();
        assert_eq!(company.len(), 2);
        assert!(company[0].0.has_single_active_consumer());
    }

    #[test]
    fn a_work_queue_dead_letters_only_to_its_parking_queue_and_a_retry_queue_only_back() {
        for (queue, route) in WorkQueue::shared("orders").unwrap().expand() {
            let goes_to = queue.dead_letters_go_to().map(ToString::to_string);
            match route.exchange.as_str() {
                "correio.queue" => assert_eq!(goes_to.as_deref(), Some("correio.dead/orders.dead")),
                "correio.retry" => assert_eq!(goes_to.as_deref(), Some("correio.queue/orders")),
                _ => assert_eq!(goes_to, None),
            }
        }
    }

    #[test]
    fn a_retry_queues_own_ttl_never_cuts_a_jittered_expiration_short() {
        let company = WorkQueue::shared_with_delays("q", &[Duration::from_millis(500)]).unwrap().expand();
        assert_eq!(company[1].0.arguments()["x-message-ttl"], Argument::Number(600));
    }

    #[test]
    fn what_cannot_be_a_work_queue_is_said() {
        assert_eq!(WorkQueue::shared(""), Err(WorkQueueError::NoName));
        for taken in ["amq.x", "correio.mailbox.ana", "orders.dead", "orders.retry.1s", "a\nb"] {
            assert!(matches!(WorkQueue::ordered(taken), Err(WorkQueueError::Reserved { .. })), "{taken:?}");
        }
        // The name fits, those of its company do not.
        assert!(matches!(WorkQueue::ordered("x".repeat(252)), Err(WorkQueueError::NameTooLong(_))));
        assert!(WorkQueue::ordered("x".repeat(250)).is_ok());
        assert!(matches!(WorkQueue::shared("x".repeat(248)), Err(WorkQueueError::NameTooLong(_))));
        for delay in [Duration::ZERO, Duration::from_secs(31 * 24 * 3600)] {
            assert_eq!(WorkQueue::shared_with_delays("q", &[delay]), Err(WorkQueueError::Delay { delay }));
        }
    }

    #[test]
    fn equal_delays_make_one_queue() {
        let second = Duration::from_secs(1);
        assert_eq!(WorkQueue::shared_with_delays("q", &[second, second]).unwrap().expand().len(), 3);
    }
}
