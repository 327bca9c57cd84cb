//! Says what of a topology is there, and declares nothing.
//!
//! A passive declare sees only that something exists, so each item is first asked for passively and, only if it is
//! there, declared actively: that does nothing where all is the same, and is refused (406) with the difference where
//! it is not. Between the two lies a race that AMQP leaves open: an item that somebody deletes just then is made
//! again, as the topology says.

use correio_message::Exchange;
use serde::Serialize;

use crate::{
    connect_error::ConnectError,
    connection::{Connections, LeasedChannel},
    declare::{Existence, declare_exchange, declare_queue},
    item::Item,
    queue::Queue,
    reply::ReplyCause,
    topology::Topology,
};

/// What is known about one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Which item.
    #[serde(flatten)]
    pub item: Item,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    /// It is there as it is to be.
    Same,
    /// It is there otherwise.
    Differs {
        /// What differs, as the broker says it.
        what: String,
    },
    /// It is not there.
    Missing,
    /// AMQP does not show it, or not to this user.
    NotVisible {
        /// Why.
        because: String,
    },
}

/// What happened to a check on its way.
#[derive(Debug, thiserror::Error)]
#[error("while checking {item}: {cause}")]
pub struct CheckError {
    /// At which item.
    pub item: Item,
    /// What.
    #[source]
    pub cause: ConnectError,
}

/// Checks a topology item by item. Comparing arguments needs the right to configure the item; without it, an item
/// that exists is *not visible*.
///
/// # Errors
///
/// [`CheckError`] if the connection fails or ends; nothing is declared.
///
/// # Cancel safety
///
/// Cancel safe.
pub async fn check(connections: &Connections, topology: &Topology) -> Result<Vec<Checked>, CheckError> {
    let mut items = topology.items();
    items.push(Item::Policies);
    let at = |item: &Item, cause| CheckError { item: item.clone(), cause };
    let mut lease = connections.channel().await.map_err(|cause| at(&items[0], cause))?;
    let mut checked = Vec::with_capacity(items.len());
    for item in &items {
        let finding = match item {
            Item::Exchange(exchange) => compare(&mut lease, Asked::Exchange(*exchange)).await,
            Item::Queue(queue) => compare(&mut lease, Asked::Queue(queue)).await,
            Item::Binding(_) | Item::Policies => Ok(Finding::NotVisible { because: NOT_OVER_AMQP.to_owned() }),
        };
        let finding = finding.map_err(|cause| at(item, cause))?;
        checked.push(Checked { item: item.clone(), finding });
    }
    lease.give_back().await.map_err(|cause| at(&Item::Policies, cause))?;
    Ok(checked)
}

impl Finding {
    /// Whether the topology does not hold: something differs or is missing.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        matches!(self, Self::Differs { .. } | Self::Missing)
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same => f.write_str("same"),
            Self::Differs { what } => write!(f, "differs ({what})"),
            Self::Missing => f.write_str("missing"),
            Self::NotVisible { because } => write!(f, "not visible ({because})"),
        }
    }
}

#[derive(Clone, Copy)]
enum Asked<'a> {
    Exchange(Exchange),
    Queue(&'a Queue),
}

impl Asked<'_> {
    async fn ask(self, lease: &LeasedChannel, existence: Existence) -> Result<(), ConnectError> {
        match self {
            Self::Exchange(exchange) => declare_exchange(lease, exchange, existence).await,
            Self::Queue(queue) => declare_queue(lease, queue, existence).await,
        }
    }
}

async fn compare(lease: &mut LeasedChannel, asked: Asked<'_>) -> Result<Finding, ConnectError> {
    let user = lease.address().user().to_owned();
    for existence in [Existence::OnlyAsk, Existence::MakeIt] {
        let cause = match asked.ask(lease, existence).await {
            Ok(()) => continue,
            Err(ConnectError::Refused { cause, .. }) => cause,
            Err(error) => return Err(error),
        };
        let finding = match cause {
            ReplyCause::NotFound { .. } => Finding::Missing,
            ReplyCause::PreconditionFailed { said } => Finding::Differs { what: said },
            ReplyCause::Locked { .. } => Finding::Differs { what: "another connection has it exclusively".to_owned() },
            ReplyCause::AccessRefused { .. } => Finding::NotVisible {
                because: match existence {
                    Existence::OnlyAsk => format!("user “{user}” has no permission on it at all"),
                    Existence::MakeIt => {
                        format!("it exists; to compare its arguments user “{user}” lacks the right to configure it")
                    }
                },
            },
            cause => return Err(ConnectError::Refused { address: lease.address().to_string(), cause }),
        };
        // The refusal has closed the channel.
        lease.reopen().await?;
        return Ok(finding);
    }
    Ok(Finding::Same)
}

const NOT_OVER_AMQP: &str = "not over AMQP: look in the dashboard";
