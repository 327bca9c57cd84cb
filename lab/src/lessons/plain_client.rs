//! A plain lapin client, for damage that our own programs cannot do: it sends one numbered source over two connections.

use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};

use correio_broker_config::wire;
use correio_message::{Destination, Durability, Key, Line, Message, MessageId, Sequence, Voids};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::LessonError;

/// Two connections of one source.
#[derive(Debug)]
pub(crate) struct PlainClient {
    connections: Vec<Connection>,
    channels: Vec<Channel>,
}

impl PlainClient {
    /// Connects twice, the first connection first.
    pub(crate) async fn connect(url: &str) -> Result<Self, LessonError> {
        let (mut connections, mut channels) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let properties = ConnectionProperties::default().with_connection_name("lab plain client".into());
            let connection = step("connecting", Connection::connect(url, properties)).await?;
            let channel = step("opening a channel", connection.create_channel()).await?;
            step("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
            connections.push(connection);
            channels.push(channel);
        }
        Ok(Self { connections, channels })
    }

    /// Publishes to a work queue: of each key the odd numbers on the first connection, the even ones on the second. Ends
    /// when the broker has confirmed all.
    pub(crate) async fn publish_alternately<'l>(
        &mut self,
        queue: &str,
        lines: impl Iterator<Item = (String, &'l str)>,
    ) -> Result<(), LessonError> {
        let source = Uuid::now_v7();
        let mut last: BTreeMap<String, NonZeroU64> = BTreeMap::new();
        let mut confirms = FuturesUnordered::new();
        for (key, line) in lines {
            let number = last.entry(key.clone()).and_modify(|n| *n = n.saturating_add(1)).or_insert(NonZeroU64::MIN);
            let channel = &self.channels[usize::from(number.get().is_multiple_of(2))];
            let envelope = message(queue, &key, *number, source, line)?.encode(Durability::Persistent);
            let (exchange, routing_key) = (&envelope.route.exchange, &envelope.route.routing_key);
            let publishing = channel.basic_publish(
                wire::short_string(exchange),
                wire::short_string(routing_key),
                BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
                &envelope.body,
                wire::to_lapin(&envelope.properties),
            );
            confirms.push(step("publishing", publishing).await?);
        }
        while let Some(confirmation) = step("waiting for a confirm", async { Ok(confirms.next().await) }).await? {
            let why = match confirmation {
                Ok(confirmation) if confirmation.is_ack() => continue,
                Ok(other) => format!("{other:?}"),
                Err(error) => error.to_string(),
            };
            return Err(LessonError::PlainClient { step: "waiting for a confirm", why });
        }
        Ok(())
    }

    /// Says goodbye; that nobody answers is no matter.
    pub(crate) async fn close(self) {
        for connection in self.connections {
            let _ = timeout(PATIENCE, connection.close(200, "done".into())).await;
        }
    }
}

fn message(queue: &str, key: &str, number: NonZeroU64, source: Uuid, line: &str) -> Result<Message, LessonError> {
    let failed = |why: String| LessonError::PlainClient { step: "making a message", why };
    let destination = Destination::queue(queue).map_err(|error| failed(error.to_string()))?;
    let stream = destination.route().stream();
    let key = Key::new(key).map_err(|error| failed(error.to_string()))?;
    let mut message = Message::new(destination, line.as_bytes().to_vec());
    message.id = Some(MessageId::new(Uuid::now_v7().to_string()).map_err(|error| failed(error.to_string()))?);
    message.sequence = Some(Sequence { line: Line { source, stream, key }, number, voids: Voids::default() });
    Ok(message)
}

async fn step<T>(step: &'static str, doing: impl Future<Output = lapin::Result<T>>) -> Result<T, LessonError> {
    let failed = |why| LessonError::PlainClient { step, why };
    match timeout(PATIENCE, doing).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer in {PATIENCE:?}"))),
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
