//! The channel on which a parking queue is read: the only place here that awaits the broker.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use correio_broker_config::{
    Address, ConnectionSettings, Connections, LeasedChannel, Purpose, ReplyCause, parking_queue_name, wire,
};
use correio_message::{Envelope, Route, ShortText};
use lapin::{
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

use super::DeadLettersError;

/// A parking queue, being read by us.
pub(super) struct Parking {
    channel: LeasedChannel,
    name: ShortText,
    /// Letters that the queue may not have removed yet.
    under_way: AtomicUsize,
}

/// A dead letter that the broker has handed to us and that is still its own.
pub(super) struct Parked {
    /// By which it is acknowledged or given back.
    pub(super) tag: u64,
    pub(super) envelope: Envelope,
    /// How many were waiting behind it.
    pub(super) behind: u32,
}

impl Parking {
    /// Connects, and makes sure that the queue is there.
    pub(super) async fn open(address: &Address, queue: &ShortText) -> Result<Self, DeadLettersError> {
        let name = parking_queue_name(queue)?;
        let settings = ConnectionSettings::new("consumer", "dead-letters", Purpose::Consume);
        let parking = Self {
            channel: Connections::new(address.clone(), settings).channel().await?,
            name,
            under_way: AtomicUsize::new(0),
        };
        match parking.declared().await? {
            Ok(_) => Ok(parking),
            Err(ReplyCause::NotFound { .. }) => {
                Err(DeadLettersError::NoParkingQueue { queue: queue.clone(), parking: parking.name })
            }
            Err(cause) => Err(failed(ASKING, cause)),
        }
    }

    /// How many letters wait, not counting those that somebody holds.
    async fn waiting(&self) -> Result<u32, DeadLettersError> {
        self.declared().await?.map_err(|cause| failed(ASKING, cause))
    }

    async fn declared(&self) -> Result<Result<u32, ReplyCause>, DeadLettersError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked =
            self.channel.channel().queue_declare(wire::short_string(&self.name), passive, FieldTable::default());
        let answer = timeout(PATIENCE, asked).await;
        let answer = answer.map_err(|_| DeadLettersError::TimedOut { step: ASKING, after: PATIENCE })?;
        Ok(answer.map(|queue| queue.message_count()).map_err(|error| ReplyCause::of(&error)))
    }

    /// The next letter; `None` when none is waiting.
    pub(super) async fn next(&self) -> Result<Option<Parked>, DeadLettersError> {
        let got = self.channel.channel().basic_get(wire::short_string(&self.name), BasicGetOptions::default());
        Ok(within("reading a dead letter", got).await?.map(parked))
    }

    /// Takes a letter off the queue for good, at the latest when the channel is closed in good order.
    ///
    /// Past 32 requests under way at once the broker's channel keeps the later ones back, and forgets them when it is closed: so
    /// there are never as many.
    pub(super) async fn remove(&self, tag: u64) -> Result<(), DeadLettersError> {
        within("removing a letter", self.channel.channel().basic_ack(tag, BasicAckOptions::default())).await?;
        if self.under_way.fetch_add(1, Ordering::Relaxed) + 1 >= REMOVED_AT_ONCE {
            self.until_removed().await?;
        }
        Ok(())
    }

    /// Waits until the queue has done what it was asked before: a letter that is asked for comes after all that.
    async fn until_removed(&self) -> Result<(), DeadLettersError> {
        if self.under_way.swap(0, Ordering::Relaxed) == 0 {
            return Ok(());
        }
        if let Some(next) = self.next().await? {
            let back = BasicNackOptions { multiple: false, requeue: true };
            within("giving a letter back", self.channel.channel().basic_nack(next.tag, back)).await?;
        }
        Ok(())
    }

    /// Gives these letters back, in this order; every other one that was handed to us is removed already.
    ///
    /// A few at a time: past 32 requests under way at once a quorum queue's leader takes the later ones backwards.
    pub(super) async fn give_back(&self, tags: &[u64]) -> Result<(), DeadLettersError> {
        let mut few = tags.chunks(GIVEN_BACK_AT_ONCE).peekable();
        while let Some(tags) = few.next() {
            let Some(last) = tags.last() else { break };
            let before = if few.peek().is_some() { Some(self.waiting().await?) } else { None };
            let all = BasicNackOptions { multiple: true, requeue: true };
            within("giving the letters back", self.channel.channel().basic_nack(*last, all)).await?;
            if let Some(before) = before {
                self.until_waiting(before.saturating_add(tags.len() as u32)).await?;
            }
        }
        Ok(())
    }

    /// Waits until so many letters wait, but not long: somebody else may be taking them. Only their order is at stake.
    async fn until_waiting(&self, wanted: u32) -> Result<(), DeadLettersError> {
        let until = Instant::now() + TAKEN_IN;
        while self.waiting().await? < wanted && Instant::now() < until {
            sleep(LOOKING_AGAIN).await;
        }
        Ok(())
    }

    /// Closes the channel and waits for it: the broker has read all that was sent on it before.
    pub(super) async fn close(self) -> Result<(), DeadLettersError> {
        Ok(self.channel.close().await?)
    }
}

fn parked(got: BasicGetMessage) -> Parked {
    let BasicGetMessage { delivery, message_count } = got;
    let route = Route { exchange: wire::text(&delivery.exchange), routing_key: wire::text(&delivery.routing_key) };
    let properties = wire::from_lapin(&delivery.properties);
    let envelope = Envelope { route, properties, body: delivery.data.into() };
    Parked { tag: delivery.delivery_tag, envelope, behind: message_count }
}

async fn within<T>(
    step: &'static str,
    asked: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, DeadLettersError> {
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| failed(step, ReplyCause::of(&error))),
        Err(_) => Err(DeadLettersError::TimedOut { step, after: PATIENCE }),
    }
}

fn failed(step: &'static str, cause: ReplyCause) -> DeadLettersError {
    match cause {
        ReplyCause::AccessRefused { said } => DeadLettersError::NotAllowed { step, reason: said },
        cause => DeadLettersError::Broker { step, reason: cause.to_string() },
    }
}

const GIVEN_BACK_AT_ONCE: usize = 16;
const REMOVED_AT_ONCE: usize = 16;
/// How long it may take until letters given back are waiting again.
const TAKEN_IN: Duration = Duration::from_millis(500);
const LOOKING_AGAIN: Duration = Duration::from_millis(2);
const ASKING: &str = "asking for the parking queue";
/// How long one answer of the broker is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
