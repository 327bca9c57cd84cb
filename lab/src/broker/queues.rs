//! Queues of the node, seen and made by the lab's own user: exact counts, at any moment.

use super::{LabError, Login, Node};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use std::time::Duration;
use tokio::time::timeout;

/// A queue that a test wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated, and safe on disk before it confirms: the only kind that is called reliable here.
    Quorum,
    /// Classic and durable: confirms before it is safe on disk.
    Classic,
    /// A classic queue that takes one message and refuses (nacks) every further one.
    FullAfterOne,
}

impl Node {
    /// How many messages are ready in the queue. Unacknowledged ones are not among them.
    ///
    /// Exact at the moment of the answer, unlike the dashboard, which is seconds late.
    ///
    /// # Errors
    ///
    /// [`LabError::Amqp`] when there is no such queue or no answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn queue_depth(&self, queue: &str) -> Result<u64, LabError> {
        Ok(self.look_at(queue).await?.message_count().into())
    }

    /// How many consumers are subscribed to the queue, those that stand by included.
    ///
    /// # Errors
    ///
    /// [`LabError::Amqp`] when there is no such queue or no answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn queue_consumers(&self, queue: &str) -> Result<u64, LabError> {
        Ok(self.look_at(queue).await?.consumer_count().into())
    }

    async fn look_at(&self, queue: &str) -> Result<lapin::Queue, LabError> {
        let step = format!("looking at queue {queue}");
        let name = short(&step, queue)?;
        self.with_channel(&step, async |channel| {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name, options, FieldTable::default()).await
        })
        .await
    }

    /// Makes a durable queue. A kill waits until it is old enough ([`Node::kill`]).
    ///
    /// # Errors
    ///
    /// [`LabError::Amqp`] when it exists with other arguments, or there is no answer.
    ///
    /// # Cancel safety
    ///
    /// The queue may exist even if this future is dropped. Doing it again does no harm.
    pub async fn declare_queue(&self, queue: &str, kind: QueueKind) -> Result<(), LabError> {
        self.note_declared();
        let step = format!("declaring queue {queue}");
        let name = short(&step, queue)?;
        let declared = self
            .with_channel(&step, async |channel| {
                let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(name, options, kind.arguments()).await
            })
            .await;
        self.note_declared();
        declared.map(drop)
    }

    /// Removes the ready messages of a queue and says how many they were.
    ///
    /// # Errors
    ///
    /// [`LabError::Amqp`] when there is no such queue or no answer.
    ///
    /// # Cancel safety
    ///
    /// The messages may be gone even if this future is dropped.
    pub async fn purge(&self, queue: &str) -> Result<u64, LabError> {
        let step = format!("purging queue {queue}");
        let name = short(&step, queue)?;
        let removed =
            self.with_channel(&step, async |channel| channel.queue_purge(name, QueuePurgeOptions::default()).await);
        Ok(removed.await?.into())
    }

    /// Deletes a queue with what is in it. One that is not there counts as deleted.
    ///
    /// # Errors
    ///
    /// [`LabError::Amqp`] when there is no answer.
    ///
    /// # Cancel safety
    ///
    /// The queue may be gone even if this future is dropped.
    pub async fn delete_queue(&self, queue: &str) -> Result<(), LabError> {
        let step = format!("deleting queue {queue}");
        let name = short(&step, queue)?;
        let removed =
            self.with_channel(&step, async |channel| channel.queue_delete(name, QueueDeleteOptions::default()).await);
        removed.await.map(drop)
    }

    /// The queues of the default vhost with their ready and unacknowledged messages. Costs about a second of processor time.
    ///
    /// # Errors
    ///
    /// As [`Node::ctl`], and [`LabError::Unreadable`] when its output has another form.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn list_queues(&self) -> Result<Vec<(String, u64, u64)>, LabError> {
        let answer = self
            .ctl(&["-q", "list_queues", "--no-table-headers", "name", "messages_ready", "messages_unacknowledged"])
            .await?;
        answer
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let mut fields = line.split('\t');
                let name = fields.next().unwrap_or_default().to_owned();
                let mut number = || fields.next().and_then(|field| field.trim().parse().ok());
                match (number(), number()) {
                    (Some(ready), Some(unacknowledged)) => Ok((name, ready, unacknowledged)),
                    _ => Err(LabError::Unreadable { step: "listing queues".to_owned(), answer: line.to_owned() }),
                }
            })
            .collect()
    }

    /// Runs one request on a connection of its own, as the lab's user.
    ///
    /// A connection for each request: it cannot outlive the runtime of the test that made it.
    async fn with_channel<T>(
        &self,
        step: &str,
        request: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> Result<T, LabError> {
        // The client library's task for heartbeats outlives the connection until the next of them.
        let url = format!("{}?heartbeat=4", self.amqp_url(Login::Lab));
        let answered = timeout(PATIENCE, async {
            let connection =
                Connection::connect(&url, ConnectionProperties::default().with_connection_name("lab".into())).await?;
            let answer = match connection.create_channel().await {
                Ok(channel) => request(channel).await,
                Err(error) => Err(error),
            };
            // The answer counts, not the goodbye: after an error the connection may be closed already.
            let _ = timeout(GOODBYE, connection.close(200, "done".into())).await;
            answer
        });
        match answered.await {
            Ok(answer) => answer.map_err(|source| LabError::Amqp { step: step.to_owned(), source: source.into() }),
            Err(_) => Err(LabError::timed_out(step, PATIENCE)),
        }
    }

    /// Whether the lab's user can log in: the definitions are loaded and the broker works.
    pub(crate) async fn logs_in(&self) -> Result<(), LabError> {
        self.with_channel("logging in", async |_| Ok(())).await
    }
}

impl QueueKind {
    fn arguments(self) -> FieldTable {
        let text = |value: &str| AMQPValue::LongString(value.into());
        let mut arguments = FieldTable::default();
        match self {
            Self::Quorum => {
                arguments.insert("x-queue-type".into(), text("quorum"));
                // Without one, 3.10 requeues to the tail of the queue; the lab's queues outlive any experiment.
                arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(1_000_000_000));
            }
            Self::Classic => {
                arguments.insert("x-queue-type".into(), text("classic"));
            }
            Self::FullAfterOne => {
                arguments.insert("x-queue-type".into(), text("classic"));
                arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
                arguments.insert("x-overflow".into(), text("reject-publish"));
            }
        }
        arguments
    }
}

/// AMQP has room for 255 bytes.
fn short(step: &str, name: &str) -> Result<ShortString, LabError> {
    ShortString::try_new(name).map_err(|source| LabError::Amqp { step: step.to_owned(), source: source.into() })
}

const PATIENCE: Duration = Duration::from_secs(10);
const GOODBYE: Duration = Duration::from_secs(2);
