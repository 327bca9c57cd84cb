//! The topology: what is to be on the broker, as a value.

use correio_message::{Exchange, Route, ShortText};

use crate::{item::Item, queue::Queue, work_queue::WorkQueue};

/// Exchanges, queues and bindings that are to be on the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    exchanges: Vec<Exchange>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) bindings: Vec<Binding>,
}

/// A queue gets what is published with this route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The exchange and routing key.
    pub route: Route,
    /// The queue's name.
    pub queue: ShortText,
}

impl Topology {
    /// Our six exchanges and no queue.
    #[must_use]
    pub fn exchanges_only() -> Self {
        Self { exchanges: Exchange::ALL.to_vec(), ..Self::default() }
    }

    /// What the compose file's broker comes with: the exchanges, the shared work queue `orders` and the ordered
    /// one `flights`.
    #[must_use]
    pub fn shipped() -> Self {
        let short = "the shipped names are short";
        let orders = WorkQueue::shared("orders").unwrap_or_else(|_| unreachable!("{short}"));
        let flights = WorkQueue::ordered("flights").unwrap_or_else(|_| unreachable!("{short}"));
        Self::exchanges_only().with(&orders).with(&flights)
    }

    /// The same with a work queue and its company.
    #[must_use]
    pub fn with(mut self, work_queue: &WorkQueue) -> Self {
        for (queue, route) in work_queue.expand() {
            self.bindings.push(Binding { route, queue: queue.name().clone() });
            self.queues.push(queue);
        }
        self
    }

    /// The exchanges; [`kind_of`](crate::kind_of) says how each routes.
    #[must_use]
    pub fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// The queues.
    #[must_use]
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The bindings.
    #[must_use]
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Every item in the order in which it can be declared: exchanges, queues, bindings.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let exchanges = self.exchanges.iter().copied().map(Item::Exchange);
        let queues = self.queues.iter().cloned().map(Item::Queue);
        let bindings = self.bindings.iter().cloned().map(Item::Binding);
        exchanges.chain(queues).chain(bindings).collect()
    }
}
