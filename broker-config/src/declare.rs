//! Makes what a topology says, where it is not there yet.

use correio_message::Exchange;
use lapin::{
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{
    connect_error::{ConnectError, Step},
    connection::{Connections, LeasedChannel},
    exchange::{ExchangeKind, kind_of},
    item::Item,
    queue::{Argument, Queue},
    reply::ReplyCause,
    topology::{Binding, Topology},
    wire::short_string,
};

/// Why a topology is not there after [`apply`]. What was declared before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// No connection, or it ended.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It is there, otherwise than asked for.
    #[error(
        "{item} exists with other arguments ({said}). AMQP cannot change them: ask for the same, or once it is empty \
         delete it (in the dashboard, or `rabbitmqctl delete_queue`) and try again, or take another name"
    )]
    Differs {
        /// What.
        item: Item,
        /// What the broker says: the argument, the value asked for and the current one.
        said: String,
    },
    /// The user may not declare it.
    #[error(
        "user “{user}” may not declare {item}: it lacks {} ({said}). Take a user who has that, with --amqp-url or \
         AMQP_URL: on the compose file's broker {}",
        rights(.item),
        who_may(.item)
    )]
    Forbidden {
        /// What.
        item: Item,
        /// Who.
        user: String,
        /// What the broker says.
        said: String,
    },
    /// The broker refuses it otherwise.
    #[error("{item} cannot be declared: {cause}")]
    Refused {
        /// What.
        item: Item,
        /// Why.
        cause: ReplyCause,
    },
}

impl DeclareError {
    /// Whether declaring the same again without changing anything is hopeless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_permanent(),
            Self::Refused { cause, .. } => cause.is_permanent(),
            Self::Differs { .. } | Self::Forbidden { .. } => true,
        }
    }
}

/// Declares all of a topology, exchanges first. What is there already as asked for stays as it is, so that applying
/// twice is applying once.
///
/// On a single node, a new quorum queue does not survive a kill in the first second of its life.
///
/// # Errors
///
/// [`DeclareError`] at the first item that cannot be had; those before it are declared.
///
/// # Cancel safety
///
/// Cancelled, a part of it may be declared; apply it again.
pub async fn apply(connections: &Connections, topology: &Topology) -> Result<(), DeclareError> {
    let lease = connections.channel().await?;
    declare_all(&lease, topology).await?;
    lease.give_back().await?;
    Ok(())
}

pub(crate) async fn declare_all(lease: &LeasedChannel, topology: &Topology) -> Result<(), DeclareError> {
    for item in topology.items() {
        declare(lease, &item).await.map_err(|error| explain(item, lease, error))?;
    }
    Ok(())
}

pub(crate) async fn declare(lease: &LeasedChannel, item: &Item) -> Result<(), ConnectError> {
    match item {
        Item::Exchange(exchange) => declare_exchange(lease, *exchange, Existence::MakeIt).await,
        Item::Queue(queue) => declare_queue(lease, queue, Existence::MakeIt).await,
        Item::Binding(binding) => bind(lease, binding).await,
        Item::Policies => Ok(()),
    }
}

/// Whether a declaration makes what is not there, or only asks for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existence {
    MakeIt,
    OnlyAsk,
}

pub(crate) async fn declare_exchange(
    lease: &LeasedChannel,
    exchange: Exchange,
    existence: Existence,
) -> Result<(), ConnectError> {
    let kind = match kind_of(exchange) {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
    };
    let passive = existence == Existence::OnlyAsk;
    let options = ExchangeDeclareOptions { durable: true, passive, ..Default::default() };
    let name = short_string(&exchange.name());
    let declared = lease.channel().exchange_declare(name, kind, options, FieldTable::default());
    lease.bounded(Step::Declare, declared).await
}

pub(crate) async fn declare_queue(
    lease: &LeasedChannel,
    queue: &Queue,
    existence: Existence,
) -> Result<(), ConnectError> {
    let passive = existence == Existence::OnlyAsk;
    let options = QueueDeclareOptions { durable: true, passive, ..Default::default() };
    let declared = lease.channel().queue_declare(short_string(queue.name()), options, arguments(queue));
    lease.bounded(Step::Declare, declared).await.map(drop)
}

async fn bind(lease: &LeasedChannel, Binding { route, queue }: &Binding) -> Result<(), ConnectError> {
    let (exchange, key) = (short_string(&route.exchange), short_string(&route.routing_key));
    let options = QueueBindOptions::default();
    let bound = lease.channel().queue_bind(short_string(queue), exchange, key, options, FieldTable::default());
    lease.bounded(Step::Declare, bound).await
}

fn arguments(queue: &Queue) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in queue.arguments() {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.into()),
            Argument::Number(number) => AMQPValue::LongLongInt(number),
            Argument::Flag(flag) => AMQPValue::Boolean(flag),
        };
        table.insert(name.into(), value);
    }
    table
}

/// Who of the shipped users may declare this.
fn who_may(item: &Item) -> &'static str {
    let name = match item {
        Item::Queue(queue) => queue.name().as_str(),
        Item::Binding(binding) => binding.queue.as_str(),
        Item::Exchange(_) | Item::Policies => "",
    };
    match name.split('.').collect::<Vec<_>>()[..] {
        ["correio", "reply", ..] => "`producer`, for answers to its requests",
        ["correio", "mailbox" | "group" | "broadcast", ..] => "`consumer`",
        _ => "`operator`",
    }
}

/// What it takes to declare this.
fn rights(item: &Item) -> String {
    match item {
        Item::Exchange(exchange) => format!("the right to configure {}", exchange.as_str()),
        Item::Queue(queue) => {
            let mut rights = format!("the right to configure {}", queue.name());
            if let Some(route) = queue.dead_letters_go_to() {
                rights.push_str(&format!(" and read it, or to write to {}", route.exchange));
            }
            rights
        }
        Item::Binding(Binding { route, queue }) => {
            format!("the right to write to {queue}, or to read {}", route.exchange)
        }
        Item::Policies => "the tag policymaker".to_owned(),
    }
}

pub(crate) fn explain(item: Item, lease: &LeasedChannel, error: ConnectError) -> DeclareError {
    match error {
        ConnectError::Refused { cause: ReplyCause::PreconditionFailed { said }, .. } => {
            DeclareError::Differs { item, said }
        }
        ConnectError::Refused { cause: ReplyCause::AccessRefused { said }, .. } => {
            DeclareError::Forbidden { item, user: lease.address().user().to_owned(), said }
        }
        ConnectError::Refused { cause, .. } => DeclareError::Refused { item, cause },
        error => DeclareError::Connect(error),
    }
}
