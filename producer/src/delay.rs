//! Through which delay queue a message goes, and what it means when there is none.

use std::time::Duration;

use correio_broker_config::{DEFAULT_RETRY_DELAYS, Topology, delay_name, retry_queue_name};
use correio_message::{Destination, Envelope, Exchange, MailboxName, Message, Route, ShortText, TooLong};

use crate::{outcome::Outcome, submission::Cargo};

/// A message that is to arrive later.
#[derive(Debug)]
pub(crate) struct Delayed {
    pub(crate) message: Message,
    queue: ShortText,
    delay: Duration,
}

/// Why a message cannot be sent with this delay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotDelayable {
    /// It is for no queue that the producer knows: delay queues are a work queue's or a mailbox's.
    #[error(
        "it is for {to}, and only what goes to a work queue or a mailbox can be delayed: send it to a work queue, after the \
         delay, whose handler publishes it"
    )]
    Destination {
        /// The route it has.
        to: Route,
    },
    /// The broker has one expiry for a message, and the delay is that.
    #[error("it has a delay, and a lifetime or deadline: the broker can count only one of them; leave one out")]
    Expiry,
    /// No queue has such a delay.
    #[error("no queue has a delay of {delay:?}: whole milliseconds are wanted, from 1 ms to 30 days")]
    Delay {
        /// The delay.
        delay: Duration,
    },
    /// The delay queue would have too long a name.
    #[error("its queue has no delay queue, whose name would be too long: {0}")]
    NameTooLong(#[from] TooLong),
}

impl Delayed {
    /// Which queue it is to wait in.
    pub(crate) fn queue_for(message: &Message, delay: Duration) -> Result<ShortText, NotDelayable> {
        if message.lifetime.is_some() || message.deadline_us.is_some() {
            return Err(NotDelayable::Expiry);
        }
        if !(SHORTEST..=LONGEST).contains(&delay) || !delay.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(NotDelayable::Delay { delay });
        }
        let to = message.destination.route();
        // However it is spelled.
        match Destination::of_route(&to) {
            Destination::Queue(_) | Destination::Mailbox(_) => Ok(retry_queue_name(&to.routing_key, delay)?),
            _ => Err(NotDelayable::Destination { to }),
        }
    }

    pub(crate) fn new(message: Message, queue: ShortText, delay: Duration) -> Self {
        Self { message, queue, delay }
    }

    /// To the delay queue.
    pub(crate) fn route(&self) -> Route {
        Route { exchange: Exchange::Retry.name(), routing_key: self.queue.clone() }
    }

    pub(crate) fn encode(&self) -> Envelope {
        self.message.encode_delayed(self.queue.clone(), self.delay)
    }
}

/// The outcome in words that lead on: what nobody's delay queue took is unroutable in the broker's. Which delays a queue has
/// cannot be read over AMQP; those that this producer itself has declared are known.
pub(crate) fn explained(outcome: Outcome, cargo: &Cargo, declared: Option<&Topology>) -> Outcome {
    // A missing exchange (404) says all there is to say.
    let Outcome::Unroutable { mut reason, tries } = outcome else { return outcome };
    let route = cargo.route();
    if route.exchange == Exchange::Retry.as_str() && reason.starts_with("312") {
        reason += &no_such_delay(&route.routing_key, declared);
    }
    Outcome::Unroutable { reason, tries }
}

fn no_such_delay(delay_queue: &ShortText, declared: Option<&Topology>) -> String {
    let name = delay_queue.as_str();
    let Some((queue, delay)) = name.rsplit_once(".retry.") else { return String::new() };
    if let Some(mailbox) = queue.strip_prefix(MailboxName::PREFIX) {
        return format!(
            ": there is no queue {name}; the mailbox {mailbox} has not been made, or its owner has no retry after {delay}"
        );
    }
    let delays = match delays_of(queue, declared) {
        known if known.is_empty() => {
            format!("{} unless made otherwise; none where ordered", DEFAULT_RETRY_DELAYS.map(delay_name).join(", "))
        }
        known => format!("as declared here: {}", known.join(", ")),
    };
    format!(
        ": there is no queue {name}; queue {queue} has not been made, or not with this delay (its delays are {delays}): \
         `broker apply --queue {queue} --delays {delay}` makes both"
    )
}

/// As their queues' names have them, the shortest first.
fn delays_of<'t>(queue: &str, declared: Option<&'t Topology>) -> Vec<&'t str> {
    let delay_of = |name: &'t str| name.strip_prefix(queue)?.strip_prefix(".retry.");
    declared.iter().flat_map(|topology| topology.queues()).filter_map(|q| delay_of(q.name().as_str())).collect()
}

/// As the delays of work queues are.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests {
    use correio_broker_config::WorkQueue;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn queue_for(to: Destination, delay: Duration) -> Result<String, NotDelayable> {
        Delayed::queue_for(&Message::new(to, "x"), delay).map(|queue| queue.to_string())
    }

    fn orders() -> Destination {
        Destination::queue("orders").unwrap()
    }

    #[test]
    fn a_work_queue_and_a_mailbox_have_delay_queues_however_they_are_spelled() {
        assert_eq!(queue_for(orders(), SECOND).unwrap(), "orders.retry.1s");
        assert_eq!(queue_for(Destination::Route(orders().route()), 90 * SECOND).unwrap(), "orders.retry.90s");
        let mailbox = Destination::mailbox("ana").unwrap();
        assert_eq!(queue_for(mailbox, SECOND / 2).unwrap(), "correio.mailbox.ana.retry.500ms");
    }

    #[test]
    fn what_no_delay_queue_leads_to_is_refused() {
        let exchange =
            Route { exchange: ShortText::new("mine").unwrap(), routing_key: ShortText::new("orders").unwrap() };
        for to in [Destination::topic("a.b").unwrap(), Destination::Everyone, Destination::Route(exchange)] {
            let route = to.route();
            assert_eq!(queue_for(to, SECOND), Err(NotDelayable::Destination { to: route }));
        }
        let long = Destination::queue("x".repeat(250)).unwrap();
        assert!(matches!(queue_for(long, SECOND), Err(NotDelayable::NameTooLong(_))));
    }

    #[test]
    fn a_delay_that_no_queue_can_have_is_refused_and_so_is_another_expiry_beside_it() {
        for delay in [Duration::ZERO, Duration::from_micros(1_500), 31 * 86_400 * SECOND] {
            assert_eq!(queue_for(orders(), delay), Err(NotDelayable::Delay { delay }));
        }
        let expiring = Message::new(orders(), "x").expiring_after(SECOND).unwrap();
        let asked = Message { deadline_us: Some(1), ..Message::new(orders(), "x") };
        for message in [expiring, asked] {
            assert_eq!(Delayed::queue_for(&message, SECOND), Err(NotDelayable::Expiry));
        }
    }

    #[test]
    fn a_delay_that_its_queue_does_not_have_is_unroutable_and_says_how_to_make_it() {
        let said = reason("312 NO_ROUTE", "orders.retry.7s", Exchange::Retry, None);
        assert!(
            said.starts_with("312 NO_ROUTE: ") && said.contains("broker apply --queue orders --delays 7s"),
            "{said}"
        );
        assert!(said.contains("its delays are 1s, 2s, 4s, 8s, 16s unless made otherwise"), "{said}");
        let said = reason("312 NO_ROUTE", "correio.mailbox.ana.retry.7s", Exchange::Retry, None);
        assert!(said.contains("mailbox ana") && !said.contains("broker apply"), "{said}");
        assert_eq!(reason("312 NO_ROUTE", "orders", Exchange::Queue, None), "312 NO_ROUTE");
        assert_eq!(reason("404 NOT_FOUND", "orders.retry.7s", Exchange::Retry, None), "404 NOT_FOUND");
    }

    #[test]
    fn the_delays_that_this_producer_has_declared_are_named() {
        let with_delays = |queue, delays: &[_]| WorkQueue::shared_with_delays(queue, delays).unwrap();
        let topology = Topology::exchanges_only()
            .with(&with_delays("orders", &[90 * SECOND, SECOND / 2]))
            .with(&with_delays("orders.old", &[3 * SECOND]));
        let said = reason("312 NO_ROUTE", "orders.retry.7s", Exchange::Retry, Some(&topology));
        assert!(said.contains("(its delays are as declared here: 500ms, 90s)"), "{said}");
        let said = reason("312 NO_ROUTE", "others.retry.7s", Exchange::Retry, Some(&topology));
        assert!(said.contains("unless made otherwise"), "{said}");
    }

    fn reason(broker_said: &str, delay_queue: &str, exchange: Exchange, declared: Option<&Topology>) -> String {
        let route = Route { exchange: exchange.name(), routing_key: ShortText::new(delay_queue).unwrap() };
        let cargo = Cargo::Message(Box::new(Message::new(Destination::Route(route), "")));
        match explained(Outcome::Unroutable { reason: broker_said.to_owned(), tries: 1 }, &cargo, declared) {
            Outcome::Unroutable { reason, tries: 1 } => reason,
            other => panic!("{other}"),
        }
    }
}
