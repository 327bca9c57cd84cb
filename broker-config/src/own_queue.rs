//! A queue that its consumer declares for itself: a mailbox, a group's, a listener's, a requester's.
//!
//! Each is a durable quorum queue that outlives its consumers and deletes itself when none was there for as long as it may
//! be without. What would change its meaning stands in its name: a group's pattern, its order.

use std::{fmt, time::Duration};

use correio_message::{Exchange, InvalidAddress, MailboxName, Route, ShortText, TooLong, TopicPattern, checked_name};

use crate::{
    queue::Queue,
    topology::{Binding, Topology},
    work_queue::{DEFAULT_RETRY_DELAYS, WorkQueue, WorkQueueError},
};

/// A queue that its consumer declares for itself, with its retry and parking queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnQueue {
    meaning: Meaning,
    name: ShortText,
    ordered: bool,
    expires: Duration,
    delays: Vec<Duration>,
}

/// Whose messages come into it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Mailbox,
    Group(TopicPattern),
    Listener,
    Replies,
}

/// Why this cannot be somebody's own queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnQueueError {
    /// Its name.
    #[error(transparent)]
    Name(#[from] InvalidAddress),
    /// Its name is too long with all that belongs into it.
    #[error("the queue of {whose} would have too long a name: {cause}")]
    NameTooLong {
        /// Whose it would be.
        whose: String,
        /// How long it is.
        #[source]
        cause: TooLong,
    },
    /// The delays of its retry queues.
    #[error(transparent)]
    Delays(#[from] WorkQueueError),
    /// It would be gone too soon, or later than the broker can say.
    #[error("an unused queue that deletes itself after {expires:?} is not possible: it must be from 1 s to 33 days")]
    Expires {
        /// What was asked for.
        expires: Duration,
    },
}

impl OwnQueue {
    /// How long a named one stays without a consumer, unless said otherwise: a week.
    pub const NAMED_EXPIRES: Duration = Duration::from_secs(7 * 24 * 3600);
    /// How long one stays that is its consumer's for as long as that lives: enough for a reconnect.
    pub const UNNAMED_EXPIRES: Duration = Duration::from_secs(300);

    /// The mailbox of one particular receiver. A second consumer of it stands by and takes over.
    #[must_use]
    pub fn mailbox(name: &MailboxName) -> Self {
        Self::new(Meaning::Mailbox, name.queue(), Self::NAMED_EXPIRES)
    }

    /// The queue of a group that wants the events of a pattern; its members share it. Another pattern is another queue.
    ///
    /// # Errors
    ///
    /// [`OwnQueueError`] if the name is empty, too long, or has a meaning already.
    pub fn group(name: &str, pattern: &TopicPattern) -> Result<Self, OwnQueueError> {
        let name = checked_name("group's name", name, GROUP)?;
        let queue = format!("{GROUP}{name}.[{pattern}]");
        // The queues around it have longer names.
        let checked = ShortText::new(format!("{queue}{ORDERED}{LONGEST_COMPANY}")).and_then(|_| ShortText::new(queue));
        let queue = checked.map_err(|cause| OwnQueueError::NameTooLong { whose: format!("group {name}"), cause })?;
        Ok(Self::new(Meaning::Group(pattern.clone()), queue, Self::NAMED_EXPIRES))
    }

    /// The queue of a listener who gets every broadcast. Who has a name has missed nothing when they come back in time.
    ///
    /// # Errors
    ///
    /// [`OwnQueueError`] if the name is empty, too long, or has a meaning already.
    pub fn listener(name: &str) -> Result<Self, OwnQueueError> {
        let name = checked_name("listener's name", name, LISTENER)?;
        Ok(Self::new(Meaning::Listener, short(format!("{LISTENER}{name}")), Self::NAMED_EXPIRES))
    }

    /// The queue for the answers to one requester. `unique` is a part of its name that nobody else has, such as a UUID.
    ///
    /// # Errors
    ///
    /// [`OwnQueueError`] if that is empty or too long.
    pub fn replies(unique: &str) -> Result<Self, OwnQueueError> {
        let name = checked_name("requester's name", unique, REPLIES)?;
        Ok(Self::new(Meaning::Replies, short(format!("{REPLIES}{name}")), Self::UNNAMED_EXPIRES))
    }

    fn new(meaning: Meaning, name: ShortText, expires: Duration) -> Self {
        Self { meaning, name, ordered: false, expires, delays: DEFAULT_RETRY_DELAYS.to_vec() }
    }

    /// The same for order by key: one consumer at a time, and retries in place. An ordered group's queue is another one, with
    /// a name of its own.
    #[must_use]
    pub fn ordered(mut self) -> Self {
        if matches!(self.meaning, Meaning::Group(_)) && !self.ordered {
            self.name = short(format!("{}{ORDERED}", self.name));
        }
        self.ordered = true;
        self
    }

    /// The same, deleted after this long without a consumer, with all that is in it.
    ///
    /// # Errors
    ///
    /// [`OwnQueueError::Expires`] if the broker cannot do that.
    pub fn expiring_after(mut self, expires: Duration) -> Result<Self, OwnQueueError> {
        if !(SHORTEST_EXPIRY..=LONGEST_EXPIRY).contains(&expires) {
            return Err(OwnQueueError::Expires { expires });
        }
        self.expires = expires;
        Ok(self)
    }

    /// The same with retry queues for these delays.
    ///
    /// # Errors
    ///
    /// [`OwnQueueError::Delays`] if a delay is not possible.
    pub fn with_delays(mut self, delays: &[Duration]) -> Result<Self, OwnQueueError> {
        self.delays = delays.to_vec();
        self.work_queue()?;
        Ok(self)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ShortText {
        &self.name
    }

    /// How long it stays without a consumer.
    #[must_use]
    pub fn expires(&self) -> Duration {
        self.expires
    }

    /// How often the queues around it are to be renewed while it has a consumer: they have none ([`renew`](crate::renew)).
    #[must_use]
    pub fn renewal(&self) -> Duration {
        self.expires / 4
    }

    /// Whether only one consumer at a time gets messages.
    #[must_use]
    pub fn has_single_active_consumer(&self) -> bool {
        self.ordered || matches!(self.meaning, Meaning::Mailbox | Meaning::Listener)
    }

    /// Its queues, the own one first, and their bindings.
    #[must_use]
    pub fn topology(&self) -> Topology {
        let queue_of = |queue: Queue| queue.expires(self.expires);
        if self.meaning == Meaning::Replies {
            let route = Route { exchange: Exchange::Reply.name(), routing_key: self.name.clone() };
            // An answer that its requester's death gave back is worth no more tries than any other.
            let queue = queue_of(Queue::quorum(self.name.clone(), REPLY_DELIVERY_LIMIT));
            return Topology::default().with_queue(queue, [route]);
        }
        let mut company = self.work_queue().map(|work_queue| work_queue.expand()).unwrap_or_default().into_iter();
        let Some((queue, by_name)) = company.next() else { unreachable!("checked when it was made") };
        let queue = if self.has_single_active_consumer() { queue.single_active_consumer() } else { queue };
        let routes = match &self.meaning {
            Meaning::Mailbox | Meaning::Replies => vec![by_name],
            // By its name come back what is retried and what is replayed: to this subscription alone.
            Meaning::Group(pattern) => {
                vec![by_name, Route { exchange: Exchange::Topic.name(), routing_key: pattern.text().clone() }]
            }
            Meaning::Listener => {
                let everything = short(String::new());
                vec![by_name, Route { exchange: Exchange::Broadcast.name(), routing_key: everything }]
            }
        };
        let topology = Topology::default().with_queue(queue_of(queue), routes);
        // Its last consumer may have gone just before the next renewal: what was parked stays as long as what was not read.
        let around = self.expires + 2 * self.renewal();
        company.fold(topology, |topology, (queue, route)| topology.with_queue(queue.expires(around), [route]))
    }

    fn work_queue(&self) -> Result<WorkQueue, WorkQueueError> {
        WorkQueue::own(self.name.clone(), if self.ordered { &[] } else { &self.delays })
    }
}

/// Which subscriber it is, in the words of who subscribes.
impl fmt::Display for OwnQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_str();
        let after = |prefix| name.strip_prefix(prefix).unwrap_or(name);
        match &self.meaning {
            Meaning::Mailbox => write!(f, "mailbox {}", after(MailboxName::PREFIX)),
            Meaning::Group(pattern) => {
                let group = after(GROUP).split_once(".[").map_or(name, |(group, _)| group);
                write!(f, "group {group} of {pattern}")
            }
            Meaning::Listener => write!(f, "listener {}", after(LISTENER)),
            Meaning::Replies => write!(f, "requester {}", after(REPLIES)),
        }
    }
}

impl Topology {
    /// The same with one more queue, bound by these routes.
    #[must_use]
    fn with_queue(mut self, queue: Queue, routes: impl IntoIterator<Item = Route>) -> Self {
        for route in routes {
            self.bindings.push(Binding { route, queue: queue.name().clone() });
        }
        self.queues.push(queue);
        self
    }

    /// One of its queues, with its bindings.
    #[must_use]
    pub(crate) fn only(&self, queue: &Queue) -> Self {
        let its = self.bindings.iter().filter(|binding| binding.queue == *queue.name());
        Self::default().with_queue(queue.clone(), its.map(|binding| binding.route.clone()))
    }
}

fn short(text: String) -> ShortText {
    ShortText::new(text).unwrap_or_else(|_| unreachable!("checked with its prefix and all that comes behind"))
}

const GROUP: &str = "correio.group.";
const LISTENER: &str = "correio.broadcast.";
const REPLIES: &str = "correio.reply.";
const ORDERED: &str = ".ordered";
const LONGEST_COMPANY: &str = ".retry.43200m";
const REPLY_DELIVERY_LIMIT: u32 = 100;
const SHORTEST_EXPIRY: Duration = Duration::from_secs(1);
/// Half as long again, for the queues around it, is the most that every RabbitMQ takes (32 bits of milliseconds).
const LONGEST_EXPIRY: Duration = Duration::from_secs(33 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Argument;

    fn bindings(own: &OwnQueue) -> Vec<String> {
        own.topology().bindings().iter().map(|b| format!("{} {}", b.route, b.queue)).collect()
    }

    fn group(name: &str, pattern: &str) -> OwnQueue {
        OwnQueue::group(name, &TopicPattern::new(pattern).unwrap()).unwrap()
    }

    #[test]
    fn a_group_gets_its_pattern_and_what_comes_back_to_it_alone() {
        let own = group("west", "flight.*.LAX").with_delays(&[Duration::from_secs(1)]).unwrap();
        assert_eq!(own.to_string(), "group west of flight.*.LAX");
        assert_eq!(
            bindings(&own),
            [
                "correio.queue/correio.group.west.[flight.*.LAX] correio.group.west.[flight.*.LAX]",
                "correio.topic/flight.*.LAX correio.group.west.[flight.*.LAX]",
                "correio.retry/correio.group.west.[flight.*.LAX].retry.1s correio.group.west.[flight.*.LAX].retry.1s",
                "correio.dead/correio.group.west.[flight.*.LAX].dead correio.group.west.[flight.*.LAX].dead",
            ]
        );
    }

    #[test]
    fn a_mailbox_is_one_receivers_and_a_group_is_shared_unless_it_is_ordered() {
        let active = |own: &OwnQueue| own.topology().queues()[0].has_single_active_consumer();
        let mailbox = OwnQueue::mailbox(&MailboxName::new("ana").unwrap());
        assert!(active(&mailbox) && active(&OwnQueue::listener("ana").unwrap()));
        assert!(!active(&group("g", "#")) && active(&group("g", "#").ordered()));
        assert_eq!(mailbox.clone().ordered().name(), mailbox.name(), "the same letters");
        assert_ne!(group("g", "#").ordered().name(), group("g", "#").name(), "other queues around it");
        assert_eq!(group("g", "#").ordered().topology().queues().len(), 2, "retries in place need no queue");
    }

    #[test]
    fn all_of_it_goes_when_nobody_comes_for_too_long() {
        for own in [group("g", "#"), OwnQueue::listener("x").unwrap(), OwnQueue::replies("u").unwrap()] {
            let own = own.expiring_after(Duration::from_secs(60)).unwrap();
            let expires: Vec<_> =
                own.topology().queues().iter().map(|queue| queue.arguments()["x-expires"].clone()).collect();
            assert_eq!(expires[0], Argument::Number(60_000));
            // Those around it were renewed last some time before its last consumer went.
            let sooner = Argument::Number((60_000 + own.renewal().as_millis()) as i64);
            assert!(expires[1..].iter().all(|expires| *expires == Argument::Number(90_000)), "{sooner} is the least");
        }
        for wrong in [Duration::ZERO, Duration::from_secs(34 * 24 * 3600)] {
            let refused = group("g", "#").expiring_after(wrong);
            assert_eq!(refused, Err(OwnQueueError::Expires { expires: wrong }));
        }
    }

    #[test]
    fn no_queue_of_one_subscriber_is_a_queue_of_another() {
        let own = [
            group("a", "b"),
            group("a", "b.dead"),
            group("a", "b].dead"),
            group("a.b", "c"),
            group("a", "b.c"),
            group("a", "b].ordered"),
            group("a", "b").ordered(),
            OwnQueue::listener("a").unwrap(),
            OwnQueue::replies("a").unwrap(),
            OwnQueue::mailbox(&MailboxName::new("a").unwrap()),
        ];
        let mut names: Vec<_> = own.iter().flat_map(|own| own.topology().queues().to_vec()).collect();
        let all = names.len();
        names.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        names.dedup_by(|a, b| a.name() == b.name());
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_cannot_be_a_name_is_said() {
        let any = TopicPattern::new("#").unwrap();
        for wrong in ["", "a.dead", "a.[b", &"x".repeat(256)] {
            assert!(OwnQueue::group(wrong, &any).is_err() && OwnQueue::listener(wrong).is_err(), "{wrong}");
        }
        let long = TopicPattern::new("x".repeat(217)).unwrap();
        let refused = OwnQueue::group("g", &long).expect_err("too long together").to_string();
        assert!(refused.contains("group g") && refused.contains("255"), "{refused}");
    }
}
