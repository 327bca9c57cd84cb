//! The queue that replies come to, and the one task that owns it: makes it, takes what comes, and takes it away.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use correio_broker_config::{
    Backoff, ConnectError, Connections, DeclareError, LeasedChannel, OwnQueue, Patience, ReplyCause, Step, delete,
    ensure, host_name, wire,
};
use correio_message::{Envelope, Route};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{connecting::STEP_DEADLINE, requests::Requests};

/// Begun with the first request.
pub(crate) struct ReplyChannel {
    connections: Connections,
    own: OwnQueue,
    requests: Arc<Requests>,
    readiness: watch::Sender<Readiness>,
    closing: CancellationToken,
    give_up: CancellationToken,
}

/// Whether replies can come.
#[derive(Clone, Debug)]
pub(crate) enum Readiness {
    /// Not yet, and this is what has gone wrong so far.
    Starting(Option<Arc<DeclareError>>),
    /// The queue is there. It stays so during a reconnect: what comes meanwhile waits in it.
    Ready,
    /// It cannot be made, and trying again would not help.
    Failed(Arc<DeclareError>),
}

/// A subscription to the reply queue, on a channel of its own.
struct Subscribed {
    stream: lapin::Consumer,
    lease: LeasedChannel,
}

/// However the task ends, nobody waits for it for ever.
struct EndAll(Arc<Requests>);

impl Drop for EndAll {
    fn drop(&mut self) {
        self.0.end_all();
    }
}

impl ReplyChannel {
    pub(crate) fn new(
        connections: Connections,
        own: OwnQueue,
        requests: Arc<Requests>,
        closing: CancellationToken,
        give_up: CancellationToken,
    ) -> (Self, watch::Receiver<Readiness>) {
        let (readiness, watched) = watch::channel(Readiness::Starting(None));
        (Self { connections, own, requests, readiness, closing, give_up }, watched)
    }

    /// Subscribes again after each loss, until the producer is closed and no request is in flight any more, or it gives up.
    pub(crate) async fn run(self) {
        let requests = self.requests.clone();
        tokio::select! {
            () = self.keep_subscribed() => {}
            () = requests.expire_in_time() => {}
        }
    }

    async fn keep_subscribed(&self) {
        let mut over = std::pin::pin!(self.over());
        let mut backoff = Backoff::new();
        let first = tokio::select! {
            first = self.subscribe_first(&mut backoff) => first,
            () = &mut over => return,
        };
        let mut subscribed = match first {
            Ok(subscribed) => subscribed,
            Err(error) => {
                self.readiness.send_replace(Readiness::Failed(Arc::new(error)));
                return;
            }
        };
        // From here on there may be requests in flight.
        let end_all = EndAll(self.requests.clone());
        self.readiness.send_replace(Readiness::Ready);
        let last = loop {
            let since = Instant::now();
            let cause = tokio::select! {
                cause = subscribed.serve(&self.requests) => cause,
                () = &mut over => break Some(subscribed),
            };
            let queue = self.own.name();
            tracing::warn!(%queue, cause, "the subscription to replies was lost and will be renewed");
            drop(subscribed);
            if since.elapsed() > GOOD_WHILE {
                backoff.on_success();
            }
            subscribed = tokio::select! {
                again = self.subscribe_again(&mut backoff) => match again {
                    Ok(again) => again,
                    Err(error) => {
                        self.readiness.send_replace(Readiness::Failed(Arc::new(error)));
                        break None;
                    }
                },
                () = &mut over => break None,
            };
        };
        drop(end_all);
        if timeout(TAKING_AWAY, self.take_away(last)).await.is_err() {
            tracing::debug!("the reply queue is left to expire: the broker does not answer");
        }
    }

    /// For whoever made a first request: what cannot succeed is an error.
    async fn subscribe_first(&self, backoff: &mut Backoff) -> Result<Subscribed, DeclareError> {
        loop {
            match Subscribed::to(&self.connections, &self.own).await {
                Ok(subscribed) => return Ok(subscribed),
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => {
                    let pause = backoff.next_delay();
                    tracing::warn!(%error, ?pause, "no queue for replies yet, trying again");
                    self.readiness.send_replace(Readiness::Starting(Some(Arc::new(error))));
                    sleep(pause).await;
                }
            }
        }
    }

    /// After a loss even a refusal may be passing, but a login is not refused for ever.
    async fn subscribe_again(&self, backoff: &mut Backoff) -> Result<Subscribed, DeclareError> {
        let mut patience = Patience::with(self.connections.address());
        loop {
            let pause = backoff.next_delay();
            sleep(pause).await;
            match Subscribed::to(&self.connections, &self.own).await {
                Ok(subscribed) => {
                    self.readiness.send_replace(Readiness::Ready);
                    return Ok(subscribed);
                }
                Err(error) => {
                    if let DeclareError::Connect(refused) = &error {
                        patience.on_failure(refused);
                    }
                    if patience.is_over() {
                        tracing::error!(%error, "the broker has let this program in no more for too long: replies do not come");
                        return Err(error);
                    }
                    tracing::warn!(%error, "not subscribed to replies, trying again");
                    if error.is_permanent() {
                        // Who asks from now on waits until replies can come, and hears of this otherwise.
                        self.readiness.send_replace(Readiness::Starting(Some(Arc::new(error))));
                    }
                }
            }
        }
    }

    async fn over(&self) {
        let finished = async {
            self.closing.cancelled().await;
            self.requests.idle().await;
        };
        tokio::select! { () = finished => {}, () = self.give_up.cancelled() => {} }
    }

    /// Should it not succeed, the queue expires by itself.
    async fn take_away(&self, last: Option<Subscribed>) {
        if let Some(subscribed) = last {
            subscribed.end().await;
        }
        if let Err(error) = delete(&self.connections, &self.own).await {
            tracing::debug!(%error, "the reply queue is left to expire");
        }
        self.connections.close().await;
    }
}

impl Subscribed {
    async fn to(connections: &Connections, own: &OwnQueue) -> Result<Self, DeclareError> {
        ensure(connections, own).await?;
        let lease = connections.channel().await?;
        let channel = lease.channel();
        // Always: without it the broker sends the whole queue into this process.
        let limiting = channel.basic_qos(PREFETCH, BasicQosOptions::default());
        answered(&lease, limiting).await?;
        let tag = format!("producer-{}-{}", host_name(), std::process::id());
        let consuming = channel.basic_consume(
            wire::short_string(own.name()),
            ShortString::try_new(tag).unwrap_or_default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = answered(&lease, consuming).await?;
        Ok(Self { stream, lease })
    }

    /// Hands replies over until the subscription ends, and says why it did.
    async fn serve(&mut self, requests: &Requests) -> String {
        while let Some(first) = self.stream.next().await {
            let mut next = Some(first);
            let mut last = None;
            while let Some(delivery) = next {
                match delivery {
                    Ok(delivery) => {
                        last = Some(delivery.delivery_tag);
                        requests.on_reply(&read(delivery));
                    }
                    Err(error) => return ReplyCause::of(&error).to_string(),
                }
                next = self.stream.next().now_or_never().flatten();
            }
            // All that was ready, at once: each has been handed over. One whose acknowledgement is lost comes again, and is late.
            if let Some(tag) = last
                && let Err(cause) = self.acknowledge_up_to(tag).await
            {
                return cause;
            }
        }
        "the broker ended it: its queue was deleted, or the connection is gone".to_owned()
    }

    async fn acknowledge_up_to(&self, tag: u64) -> Result<(), String> {
        let acknowledging = self.lease.channel().basic_ack(tag, BasicAckOptions { multiple: true });
        match timeout(STEP_DEADLINE, acknowledging).await {
            Ok(answer) => answer.map_err(|error| ReplyCause::of(&error).to_string()),
            Err(_) => Err(format!("the broker took nothing from this connection for {STEP_DEADLINE:?}")),
        }
    }

    /// Closes the channel; the connection can be used for something else.
    async fn end(self) {
        let Self { stream, lease } = self;
        if let Err(error) = lease.give_back().await {
            tracing::debug!(%error, "the channel of replies was not closed in good order");
        }
        // Only now, when there is nothing left to cancel.
        drop(stream);
    }
}

fn read(delivery: lapin::message::Delivery) -> Envelope {
    Envelope {
        route: Route { exchange: wire::text(&delivery.exchange), routing_key: wire::text(&delivery.routing_key) },
        properties: wire::from_lapin(&delivery.properties),
        body: Bytes::from(delivery.data),
    }
}

/// The broker's answer to what makes a channel ready, in bounded time.
async fn answered<T>(
    lease: &LeasedChannel,
    asked: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, ConnectError> {
    let address = lease.address().to_string();
    match timeout(STEP_DEADLINE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match ReplyCause::of(&error) {
            ReplyCause::Lost { reason } => ConnectError::Closed { address, reason },
            cause => ConnectError::Refused { address, cause },
        }),
        Err(_) => Err(ConnectError::TimedOut { step: Step::Subscribe, after: STEP_DEADLINE, address }),
    }
}

/// How many replies may be on their way here at once.
const PREFETCH: u16 = 300;
/// A subscription that lived so long was a good one.
const GOOD_WHILE: Duration = Duration::from_secs(10);
/// How long closing the subscription and deleting the queue may take in all: less than the producer waits for its tasks.
const TAKING_AWAY: Duration = Duration::from_secs(8);
