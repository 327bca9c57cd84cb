//! A broker as RabbitMQ is towards a publisher: it reads each connection in order, returns before it acknowledges,
//! confirms in any order and several at once, closes a channel for one message's fault, and says nothing when it likes.

use std::collections::VecDeque;

use correio_guarantees::Answer;

use crate::chance::Chance;

pub(crate) const QUEUES: usize = 4;
pub(crate) const KEYS: usize = 4;

/// Some queues, as bits.
pub(crate) type QueueSet = u8;

/// Where the messages of a key go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) queues: QueueSet,
    pub(crate) state: RouteState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteState {
    Bound,
    NoBinding,
    /// There is no such exchange (404).
    NoExchange,
    /// This user may not (403).
    Forbidden,
}

/// One sending on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) sending: usize,
    pub(crate) number: usize,
    pub(crate) key: usize,
}

/// What the broker made of a sending when it read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Every queue of the route has it.
    Taken,
    /// These queues are full and do not have it.
    Full(QueueSet),
    NoQueue,
    NoExchange,
    Forbidden,
}

/// From the broker to the client, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Frame {
    Return { number: usize },
    Confirm { sending: usize, multiple: bool, answer: Answer },
    Close { missing: bool },
}

/// How the broker has confirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) multiple: bool,
    /// An older one waits.
    pub(crate) is_out_of_order: bool,
}

/// A connection with its one channel, as the broker's side knows it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Written by the client, not read by the broker.
    wire: VecDeque<Published>,
    /// Read and not confirmed, in the order of reading.
    unconfirmed: Vec<(usize, Reading)>,
    to_client: VecDeque<Frame>,
    state: Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Open,
    /// The broker has closed the channel: it reads and drops what comes.
    Closed,
    /// The client has lost it, and the broker may read what had arrived.
    Cut,
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) routes: [Route; KEYS],
    pub(crate) full: QueueSet,
    /// The numbers of the messages on each queue, in order.
    pub(crate) queues: [Vec<usize>; QUEUES],
    pub(crate) is_silent: bool,
    connections: Vec<Connection>,
    /// Unroutable messages are confirmed in the order of their returns.
    returns_in_order: bool,
}

impl Broker {
    pub(crate) fn new(routes: [Route; KEYS], returns_in_order: bool) -> Self {
        Self {
            routes,
            full: 0,
            queues: Default::default(),
            is_silent: false,
            connections: Vec::new(),
            returns_in_order,
        }
    }

    pub(crate) fn connect(&mut self) -> usize {
        self.connections.push(Connection {
            wire: VecDeque::new(),
            unconfirmed: Vec::new(),
            to_client: VecDeque::new(),
            state: Link::Open,
        });
        self.connections.len() - 1
    }

    pub(crate) fn link(&self, connection: usize) -> Link {
        self.connections[connection].state
    }

    pub(crate) fn write(&mut self, connection: usize, published: Published) {
        self.connections[connection].wire.push_back(published);
    }

    /// Reads the next sending, if there is one.
    pub(crate) fn read(&mut self, connection: usize) -> Option<(Published, Reading)> {
        let Connection { wire, unconfirmed, to_client, state } = &mut self.connections[connection];
        if *state == Link::Closed {
            wire.clear();
        }
        let published = wire.pop_front()?;
        let Route { queues, state: route } = self.routes[published.key];
        let full = queues & self.full;
        let reading = match route {
            RouteState::NoBinding => Reading::NoQueue,
            RouteState::NoExchange => Reading::NoExchange,
            RouteState::Forbidden => Reading::Forbidden,
            RouteState::Bound if full != 0 => Reading::Full(full),
            RouteState::Bound => Reading::Taken,
        };
        match reading {
            Reading::Taken | Reading::Full(_) => {
                for (queue, content) in self.queues.iter_mut().enumerate() {
                    if (queues & !full) >> queue & 1 == 1 {
                        content.push(published.number);
                    }
                }
            }
            Reading::NoQueue => to_client.push_back(Frame::Return { number: published.number }),
            Reading::NoExchange | Reading::Forbidden => {
                // Whatever else was published on this channel is neither kept nor answered.
                to_client.push_back(Frame::Close { missing: reading == Reading::NoExchange });
                unconfirmed.clear();
                wire.clear();
                if *state == Link::Open {
                    *state = Link::Closed;
                }
                return Some((published, reading));
            }
        }
        if *state == Link::Open {
            unconfirmed.push((published.sending, reading));
        }
        Some((published, reading))
    }

    /// Confirms one or several; `None` if there is nothing to confirm.
    pub(crate) fn answer(&mut self, connection: usize, chance: &mut Chance) -> Option<Answered> {
        let Connection { unconfirmed, to_client, .. } = &mut self.connections[connection];
        if unconfirmed.is_empty() {
            return None;
        }
        let at = chance.below(unconfirmed.len());
        let answer = answer_of(unconfirmed[0].1);
        if at > 0 && chance.one_in(2) && unconfirmed[..=at].iter().all(|(_, reading)| answer_of(*reading) == answer) {
            let (sending, _) = unconfirmed[at];
            unconfirmed.drain(..=at);
            to_client.push_back(Frame::Confirm { sending, multiple: true, answer });
            return Some(Answered { multiple: true, is_out_of_order: false });
        }
        let returned = |(_, reading): &(usize, Reading)| *reading == Reading::NoQueue;
        let mut confirmed = Vec::new();
        if self.returns_in_order && returned(&unconfirmed[at]) {
            // Those returned before it go first.
            confirmed.extend((0..at).filter(|earlier| returned(&unconfirmed[*earlier])));
        }
        confirmed.push(at);
        for at in &confirmed {
            let (sending, reading) = unconfirmed[*at];
            to_client.push_back(Frame::Confirm { sending, multiple: false, answer: answer_of(reading) });
        }
        for at in confirmed.iter().rev() {
            unconfirmed.remove(*at);
        }
        Some(Answered { multiple: false, is_out_of_order: at >= confirmed.len() })
    }

    /// What comes next to the client.
    pub(crate) fn next_frame(&mut self, connection: usize) -> Option<Frame> {
        self.connections[connection].to_client.pop_front()
    }

    /// The client has lost the connection; of what it had written, the first `arrived` may still be read.
    pub(crate) fn cut(&mut self, connection: usize, arrived: usize) {
        let Connection { wire, unconfirmed, to_client, state } = &mut self.connections[connection];
        if *state == Link::Closed {
            wire.clear();
        }
        wire.truncate(arrived);
        unconfirmed.clear();
        to_client.clear();
        *state = Link::Cut;
    }

    pub(crate) fn on_the_wire(&self, connection: usize) -> usize {
        self.connections[connection].wire.len()
    }
}

fn answer_of(reading: Reading) -> Answer {
    if matches!(reading, Reading::Full(_)) { Answer::Nack } else { Answer::Ack }
}
