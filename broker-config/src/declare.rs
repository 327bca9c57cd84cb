//! Makes what a topology says, where it is not there yet.

use correio_message::{Exchange, ShortText};
use lapin::{
    options::{
        BasicGetOptions, BasicNackOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::{
    connect_error::{ConnectError, Step},
    connection::{Connections, LeasedChannel},
    exchange::{ExchangeKind, kind_of},
    item::Item,
    own_queue::OwnQueue,
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

/// Whether a queue was there before it was declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// With what was in it.
    WasThere,
    /// It was never made, or deleted itself, or somebody deleted it: it begins empty.
    MadeNow,
}

/// Makes an own queue where it is not there yet, with the queues around it, renews those, and says whether it was there.
///
/// # Errors
///
/// [`DeclareError`] at the first item that cannot be had; those before it are declared.
///
/// # Cancel safety
///
/// Cancelled, a part of it may be declared; call it again.
pub async fn ensure(connections: &Connections, own: &OwnQueue) -> Result<Presence, DeclareError> {
    let mut lease = connections.channel().await?;
    let topology = own.topology();
    let presence = match passive(&lease, own.name()).await {
        Ok(()) => Presence::WasThere,
        Err(ConnectError::Refused { cause: ReplyCause::NotFound { .. }, .. }) => Presence::MadeNow,
        // Who may not look may not declare either, and hears of that below.
        Err(ConnectError::Refused { cause: ReplyCause::AccessRefused { .. }, .. }) => Presence::MadeNow,
        Err(error) => return Err(error.into()),
    };
    if !lease.channel().status().connected() {
        lease.reopen().await?;
    }
    match declare_all(&lease, &topology).await {
        // It was there when it was declared, and gone when it was bound: its time was over in between.
        Err(DeclareError::Refused { cause: ReplyCause::NotFound { .. }, .. }) => {
            lease.reopen().await?;
            declare_all(&lease, &topology).await?;
        }
        declared => declared?,
    }
    lease.give_back().await?;
    // Else those that were there would expire as if nobody had come: at each start, not only while somebody stays.
    renew(connections, own).await?;
    Ok(presence)
}

/// Keeps the queues around an own queue from expiring, which have no consumer: reading from a quorum queue renews its
/// lease, declaring it again does not. To be called as often as [`OwnQueue::renewal`] says. One that is gone is made
/// again; the own queue itself is not, because RabbitMQ 3.10 forgets to tell its consumer of a loss that is mended at once.
///
/// A message that is read for this goes back to its place.
///
/// # Errors
///
/// [`DeclareError`] if one of them is gone and cannot be declared again.
///
/// # Cancel safety
///
/// Cancel safe: a message that was read goes back with the channel.
pub async fn renew(connections: &Connections, own: &OwnQueue) -> Result<(), DeclareError> {
    let mut lease = connections.channel().await?;
    let topology = own.topology();
    for queue in topology.queues().iter().skip(1) {
        let name = short_string(queue.name());
        match lease.bounded(Step::Renew, lease.channel().basic_get(name, BasicGetOptions::default())).await {
            Ok(Some(message)) => {
                let back = BasicNackOptions { multiple: false, requeue: true };
                let tag = message.delivery.delivery_tag;
                lease.bounded(Step::Renew, lease.channel().basic_nack(tag, back)).await?;
            }
            Ok(None) => {}
            Err(ConnectError::Refused { cause: ReplyCause::NotFound { .. }, .. }) => {
                tracing::warn!(%own, queue = %queue.name(), "it was gone and is made anew: what was in it is lost");
                lease.reopen().await?;
                declare_all(&lease, &topology.only(queue)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    lease.give_back().await?;
    Ok(())
}

/// Deletes an own queue and those around it, with all that is in them. What is gone already is no error.
///
/// # Errors
///
/// [`DeclareError`] if the broker does not answer, or refuses.
///
/// # Cancel safety
///
/// Cancelled, some of them may be deleted; they would expire by themselves.
pub async fn delete(connections: &Connections, own: &OwnQueue) -> Result<(), DeclareError> {
    let lease = connections.channel().await?;
    for queue in own.topology().queues() {
        let deleted = lease.channel().queue_delete(short_string(queue.name()), QueueDeleteOptions::default());
        lease
            .bounded(Step::Delete, deleted)
            .await
            .map_err(|error| explain(Item::Queue(queue.clone()), &lease, error))?;
    }
    lease.give_back().await?;
    Ok(())
}

async fn passive(lease: &LeasedChannel, queue: &ShortText) -> Result<(), ConnectError> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let asked = lease.channel().queue_declare(short_string(queue), options, FieldTable::default());
    lease.bounded(Step::Declare, asked).await.map(drop)
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

fn explain(item: Item, lease: &LeasedChannel, error: ConnectError) -> DeclareError {
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
