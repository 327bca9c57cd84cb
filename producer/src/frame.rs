//! A message in the client library's types, and how it is published with a confirm.

use bytes::Bytes;
use correio_broker_config::wire;
use correio_guarantees::Publish;
use correio_message::{Envelope, Lifetime};
use lapin::{BasicProperties, Channel, Confirmation, options::BasicPublishOptions, types::ShortString};

/// One message in the client library's own types.
pub(crate) struct Frame {
    exchange: ShortString,
    routing_key: ShortString,
    body: Bytes,
    properties: BasicProperties,
}

impl Frame {
    pub(crate) fn of(envelope: &Envelope) -> Option<Self> {
        Some(Self {
            exchange: ShortString::try_new(envelope.route.exchange.as_str()).ok()?,
            routing_key: ShortString::try_new(envelope.route.routing_key.as_str()).ok()?,
            body: envelope.body.clone(),
            properties: wire::to_lapin(&envelope.properties),
        })
    }

    /// The same with so much of its lifetime left.
    pub(crate) fn expiring_after(mut self, left: Lifetime) -> Self {
        // A number is short.
        let expiration = ShortString::try_new(left.to_text().as_str()).unwrap_or_default();
        self.properties = self.properties.with_expiration(expiration);
        self
    }
}

pub(crate) async fn send_frame(
    channel: &Channel,
    publish: Publish,
    frame: Frame,
) -> (Publish, lapin::Result<Confirmation>) {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let Frame { exchange, routing_key, body, properties } = frame;
    let confirm = channel.basic_publish(exchange, routing_key, options, &body, properties).await;
    drop(body);
    let confirmation = match confirm {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (publish, confirmation)
}
