//! One subscribed channel: the only place of this crate where deliveries and acknowledgements touch lapin.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use correio_broker_config::{ConnectError, Connections, DeclareError, LeasedChannel, ReplyCause, host_name, wire};
use correio_guarantees::Ack;
use correio_message::{Envelope, Route, ShortText};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;

use crate::{lookout::Look, pipeline::Delivery};

/// A subscription on a channel of its own.
pub(crate) trait Link: Send {
    /// The next delivery; `None` when the subscription is over.
    ///
    /// Cancel safe: a delivery is either returned or still to come.
    fn next(&mut self) -> impl Future<Output = Option<Result<Delivery, String>>> + Send;

    /// Puts an acknowledgement on the channel when first polled; ends when it is on the socket.
    fn ack(&self, ack: Ack) -> Answer;

    /// Gives a delivery back to the queue, likewise.
    fn give_back(&self, tag: u64) -> Answer;

    /// Asks for no more deliveries; those on their way still come, then the subscription is over.
    fn cancel(&self) -> Answer;

    /// Looks at the queue, on another channel, in bounded time.
    fn look(&self) -> Looking;
    /// Ends when the broker has taken in what was put on the channel before.
    fn round_trip(&self) -> Answer;

    /// Subscribes anew on the same channel, with another prefetch: what is unsettled stays so. Gives out what was on its way.
    fn resubscribe(&mut self, prefetch: u16) -> impl Future<Output = Result<Vec<Delivery>, String>> + Send;

    /// Closes the channel and waits for that, in bounded time.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// What became of a frame.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What is seen of the queue.
pub(crate) type Looking = Pin<Box<dyn Future<Output = Look> + Send>>;

/// A subscription on a lapin channel.
pub(crate) struct Subscribed {
    /// Taken only by what ends the subscription.
    lease: Option<LeasedChannel>,
    queue: ShortText,
    stream: lapin::Consumer,
    /// For looks at the queue: what the broker refuses closes only this.
    for_looks: lapin::Channel,
    prefetch: u16,
    /// How many subscriptions the channel has had.
    subscriptions: u32,
}

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubscribeError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Declare(Box<DeclareError>),
    #[error("{step}: {cause}")]
    Refused { step: &'static str, cause: ReplyCause },
    #[error("{step} took longer than {STEP_DEADLINE:?}")]
    TimedOut { step: &'static str },
}

impl SubscribeError {
    /// The error of connecting that it is, if it is one.
    pub(crate) fn of_connecting(&self) -> Option<&ConnectError> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Declare(error) => match &**error {
                DeclareError::Connect(error) => Some(error),
                _ => None,
            },
            Self::Refused { .. } | Self::TimedOut { .. } => None,
        }
    }
}

impl From<DeclareError> for SubscribeError {
    fn from(error: DeclareError) -> Self {
        Self::Declare(Box::new(error))
    }
}

impl Subscribed {
    pub(crate) async fn to(
        connections: &Connections,
        queue: &ShortText,
        prefetch: u16,
    ) -> Result<Self, SubscribeError> {
        let lease = connections.channel().await?;
        let stream = subscribe(lease.channel(), queue, prefetch, 1).await?;
        let for_looks = bounded("opening another channel", lease.connection().create_channel()).await?;
        Ok(Self { lease: Some(lease), queue: queue.clone(), stream, for_looks, prefetch, subscriptions: 1 })
    }
}

impl Subscribed {
    fn channel(&self) -> lapin::Channel {
        self.lease.as_ref().unwrap_or_else(|| unreachable!("taken only by what ends it")).channel().clone()
    }
}

/// Throws channel and connection away, in doubt or in the middle of everything.
impl Drop for Subscribed {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            // A stream that is dropped on an open channel cancels its consumer, and that reorders a queue with a single
            // active consumer. So the connection is on its way out first: polled once, this only puts a frame on it.
            let _ = lease.connection().close(REPLY_SUCCESS, ShortString::default()).now_or_never();
            lease.discard();
        }
    }
}

impl Link for Subscribed {
    async fn next(&mut self) -> Option<Result<Delivery, String>> {
        let delivery = self.stream.next().await?;
        Some(delivery.map(read).map_err(|error| ReplyCause::of(&error).to_string()))
    }

    fn ack(&self, Ack { tag, multiple }: Ack) -> Answer {
        // Directly on the channel: through `Delivery` they may be reordered by its internal queue.
        let channel = self.channel();
        answer(async move { channel.basic_ack(tag, BasicAckOptions { multiple }).await })
    }

    fn give_back(&self, tag: u64) -> Answer {
        let channel = self.channel();
        // Not the default options: they do not requeue.
        let options = BasicNackOptions { multiple: false, requeue: true };
        answer(async move { channel.basic_nack(tag, options).await })
    }

    fn cancel(&self) -> Answer {
        let channel = self.channel();
        let tag = self.stream.tag();
        answer(async move { channel.basic_cancel(tag, BasicCancelOptions::default()).await })
    }

    fn look(&self) -> Looking {
        let (channel, queue) = (self.for_looks.clone(), wire::short_string(&self.queue));
        Box::pin(async move {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let looking = channel.queue_declare(queue, options, FieldTable::default());
            match bounded("looking at the queue", looking).await {
                Ok(seen) => Look::There { consumers: seen.consumer_count(), ready: seen.message_count() },
                Err(SubscribeError::Refused { cause: ReplyCause::NotFound { .. }, .. }) => Look::Gone,
                Err(SubscribeError::Refused { cause: ReplyCause::AccessRefused { .. }, .. }) => Look::Forbidden,
                Err(error) => {
                    tracing::debug!(%error, "the queue was not seen");
                    Look::Unanswered
                }
            }
        })
    }

    fn round_trip(&self) -> Answer {
        let (channel, prefetch) = (self.channel(), self.prefetch);
        // It counts for later subscriptions only; its answer is what is wanted.
        answer(async move { channel.basic_qos(prefetch, BasicQosOptions::default()).await })
    }

    async fn resubscribe(&mut self, prefetch: u16) -> Result<Vec<Delivery>, String> {
        let (channel, tag) = (self.channel(), self.stream.tag());
        let cancelling = channel.basic_cancel(tag, BasicCancelOptions::default());
        bounded("ending the subscription", cancelling).await.map_err(|error| error.to_string())?;
        let mut left = Vec::new();
        loop {
            match timeout(STEP_DEADLINE, self.next()).await {
                Ok(Some(delivery)) => left.push(delivery?),
                Ok(None) => break,
                Err(_) => return Err(format!("the subscription had not ended after {STEP_DEADLINE:?}")),
            }
        }
        self.subscriptions += 1;
        self.prefetch = prefetch;
        let subscribing = subscribe(&channel, &self.queue, prefetch, self.subscriptions);
        self.stream = subscribing.await.map_err(|error| error.to_string())?;
        Ok(left)
    }

    async fn close(mut self) {
        if let Some(lease) = self.lease.take()
            && let Err(error) = lease.close().await
        {
            tracing::debug!(%error, "the channel was not closed in good order");
        }
        // The stream is dropped only now, when there is nothing left to cancel.
    }
}

async fn subscribe(
    channel: &lapin::Channel,
    queue: &ShortText,
    prefetch: u16,
    number: u32,
) -> Result<lapin::Consumer, SubscribeError> {
    // Always: without it the broker sends the whole queue into this process.
    bounded("setting the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    // A tag of its own: the broker would take up the earlier one's unsettled deliveries with it.
    let again = if number > 1 { format!("-{number}") } else { String::new() };
    let tag = format!("consumer-{}-{}{again}", host_name(), std::process::id());
    let tag = ShortString::try_new(tag).unwrap_or_default();
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(wire::short_string(queue), tag, options, FieldTable::default());
    bounded("subscribing", consuming).await
}

fn read(delivery: lapin::message::Delivery) -> Delivery {
    Delivery {
        tag: delivery.delivery_tag,
        redelivered: delivery.redelivered,
        envelope: Envelope {
            route: Route { exchange: wire::text(&delivery.exchange), routing_key: wire::text(&delivery.routing_key) },
            properties: wire::from_lapin(&delivery.properties),
            body: Bytes::from(delivery.data),
        },
    }
}

fn answer(frame: impl Future<Output = Result<(), lapin::Error>> + Send + 'static) -> Answer {
    Box::pin(async move {
        match timeout(STEP_DEADLINE, frame).await {
            Ok(answer) => answer.map_err(|error| ReplyCause::of(&error).to_string()),
            Err(_) => Err(format!("the broker took nothing from this connection for {STEP_DEADLINE:?}")),
        }
    })
}

async fn bounded<T>(
    step: &'static str,
    asked: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, SubscribeError> {
    match timeout(STEP_DEADLINE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(SubscribeError::Refused { step, cause: ReplyCause::of(&error) }),
        Err(_) => Err(SubscribeError::TimedOut { step }),
    }
}

const REPLY_SUCCESS: u16 = 200;
/// How long one step with the broker may take.
pub(crate) const STEP_DEADLINE: Duration = Duration::from_secs(10);
