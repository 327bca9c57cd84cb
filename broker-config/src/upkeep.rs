//! An own queue on the broker: made, kept from expiring, deleted.

use correio_message::ShortText;
use lapin::{
    options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};

use crate::{
    connect_error::{ConnectError, Step},
    connection::{Connections, LeasedChannel},
    declare::{DeclareError, declare_all, explain},
    item::Item,
    own_queue::OwnQueue,
    reply::ReplyCause,
    wire::short_string,
    work_queue::parking_queue_name,
};

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
    delete_all_but(None, connections, own).await
}

/// As [`delete`], but its parking queue stays until it expires.
///
/// # Errors
///
/// As [`delete`].
///
/// # Cancel safety
///
/// As [`delete`].
pub async fn delete_all_but_letters(connections: &Connections, own: &OwnQueue) -> Result<(), DeclareError> {
    delete_all_but(parking_queue_name(own.name()).ok(), connections, own).await
}

async fn delete_all_but(
    kept: Option<ShortText>,
    connections: &Connections,
    own: &OwnQueue,
) -> Result<(), DeclareError> {
    let lease = connections.channel().await?;
    for queue in own.topology().queues().iter().filter(|queue| Some(queue.name()) != kept.as_ref()) {
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
