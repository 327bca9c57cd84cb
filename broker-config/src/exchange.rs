//! The exchanges and how each routes.

use std::fmt;

use correio_message::Exchange;

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// To the queues bound with exactly the routing key.
    Direct,
    /// To the queues bound with a pattern that the routing key matches.
    Topic,
    /// To every bound queue.
    Fanout,
}

/// How each of our exchanges routes. All are durable; none has an alternate exchange, which would hide that a
/// message is unroutable.
#[must_use]
pub fn kind_of(exchange: Exchange) -> ExchangeKind {
    match exchange {
        Exchange::Queue | Exchange::Retry | Exchange::Dead | Exchange::Reply => ExchangeKind::Direct,
        Exchange::Topic => ExchangeKind::Topic,
        Exchange::Broadcast => ExchangeKind::Fanout,
    }
}

impl ExchangeKind {
    /// AMQP's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
