//! The channel without confirms: hands messages to the connection and never learns more.

use std::{pin::Pin, sync::Arc, time::Duration};

use correio_broker_config::{Backoff, Connections, LeasedChannel};
use correio_message::{Durability, Lifetime};
use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{Channel, options::BasicPublishOptions};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connecting::{Fault, reconnect},
    counts::{Counters, one},
    frame::Frame,
    submission::{Entry, Submission},
};

/// Opened with the first `fire`. A confirm channel would keep every confirm nobody waits for (0.7 KB each), and
/// `mandatory` would send back what nobody reads.
pub(crate) struct FiringChannel {
    connections: Arc<Connections>,
    submissions: mpsc::Receiver<Entry>,
    counters: Arc<Counters>,
    closing: CancellationToken,
    give_up: CancellationToken,
}

/// Resolves when the message's bytes are on the socket.
type Writes = FuturesUnordered<Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>>;

impl FiringChannel {
    /// So many messages may be between the buffer and the socket.
    const IN_FLIGHT: usize = 256;

    pub(crate) fn new(
        connections: Arc<Connections>,
        submissions: mpsc::Receiver<Entry>,
        counters: Arc<Counters>,
        closing: CancellationToken,
        give_up: CancellationToken,
    ) -> Self {
        Self { connections, submissions, counters, closing, give_up }
    }

    pub(crate) async fn run(mut self) {
        let mut opened = 0;
        let (mut backoff, mut pause) = (Backoff::new(), Duration::ZERO);
        while let Some(leased) = self.connect(pause).await {
            let since = Instant::now();
            opened += 1;
            if opened > 1 {
                one(&self.counters.reconnected);
            }
            match self.serve(leased.channel()).await {
                Ok(()) => {
                    if let Err(error) = leased.close().await {
                        tracing::debug!(%error, "the connection of fire did not close politely");
                    }
                    break;
                }
                Err(fault) => {
                    tracing::warn!(%fault, "the channel of fire ended; what was on it is lost");
                    leased.discard();
                    one(&self.counters.channels_lost);
                }
            }
            // One that ends as soon as it is used (no such exchange, say) must not make a hot loop.
            if since.elapsed() > GOOD_WHILE {
                backoff.on_success();
            }
            pause = backoff.next_delay();
        }
        self.submissions.close();
        while self.submissions.try_recv().is_ok() {
            one(&self.counters.fire_dropped);
        }
    }

    /// Meanwhile the buffer fills, and past their deadline for room callers drop their messages. What is in the buffer
    /// when the producer closes still gets its connection, until that gives up.
    async fn connect(&self, pause: Duration) -> Option<LeasedChannel> {
        let connecting = async {
            sleep(pause).await;
            reconnect(&self.connections).await
        };
        let closed_for_long = async {
            self.closing.cancelled().await;
            sleep(LAST_WAIT).await;
        };
        tokio::select! {
            channel = connecting => channel.ok(),
            () = self.give_up.cancelled() => None,
            () = closed_for_long => None,
        }
    }

    async fn serve(&mut self, channel: &Channel) -> Result<(), Fault> {
        let mut writes = Writes::new();
        let mut over = false;
        while !over || !writes.is_empty() {
            tokio::select! {
                biased;
                Some(written) = writes.next(), if !writes.is_empty() => {
                    if let Err(error) = written {
                        // This one and all that were behind it.
                        self.drop_counted(writes.len() + 1);
                        return Err(Fault::of(&error));
                    }
                    one(&self.counters.fired);
                }
                next = self.submissions.recv(), if !over && writes.len() < Self::IN_FLIGHT => match next {
                    // Nobody decides anything about what has no number.
                    Some(Entry::Decision(_)) => {}
                    // Nobody wants it any more.
                    Some(Entry::Submission(submission)) if submission.is_expired(Instant::now()) => self.drop_counted(1),
                    Some(Entry::Submission(submission)) => {
                        let mut write: Pin<Box<dyn Future<Output = _> + Send>> =
                            Box::pin(write(channel.clone(), submission));
                        // The first poll queues the frames: the wire keeps the callers' order.
                        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(write.as_mut().poll(cx))).await;
                        match first {
                            std::task::Poll::Ready(Ok(())) => one(&self.counters.fired),
                            std::task::Poll::Ready(Err(error)) => {
                                self.drop_counted(writes.len() + 1);
                                return Err(Fault::of(&error));
                            }
                            std::task::Poll::Pending => writes.push(write),
                        }
                    }
                    None => over = true,
                },
                () = self.closing.cancelled(), if !self.submissions.is_closed() => self.submissions.close(),
                () = self.give_up.cancelled() => {
                    self.drop_counted(writes.len());
                    return Err(Fault::Closing);
                }
            }
        }
        Ok(())
    }

    fn drop_counted(&self, messages: usize) {
        for _ in 0..messages {
            one(&self.counters.fire_dropped);
        }
    }
}

/// Writes one message; an error means that the channel is gone.
async fn write(channel: Channel, submission: Submission) -> lapin::Result<()> {
    let Submission { cargo, room, expires, .. } = submission;
    let mut frame = Frame::of(&cargo.envelope(Durability::Transient));
    if let Some(expires) = expires {
        frame = frame.expiring_after(Lifetime::left(expires.saturating_duration_since(Instant::now())));
    }
    let confirm = frame.publish(&channel, BasicPublishOptions::default()).await?;
    // Confirms were not selected: this resolves at once.
    let _ = confirm.await?;
    drop(room);
    Ok(())
}

/// How long after closing the buffer may wait for a connection to leave by.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// A channel that served so long was a good one.
const GOOD_WHILE: Duration = Duration::from_secs(10);
