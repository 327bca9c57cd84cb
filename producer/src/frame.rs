//! A message in the client library's types, and how it is published with a confirm.

use bytes::Bytes;
use correio_broker_config::wire;
use correio_guarantees::Publish;
use correio_message::{Envelope, Lifetime};
use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm, options::BasicPublishOptions, types::ShortString,
};

/// One message in the client library's own types.
pub(crate) struct Frame {
    exchange: ShortString,
    routing_key: ShortString,
    body: Bytes,
    properties: BasicProperties,
}

impl Frame {
    pub(crate) fn of(envelope: &Envelope) -> Self {
        Self {
            exchange: wire::short_string(&envelope.route.exchange),
            routing_key: wire::short_string(&envelope.route.routing_key),
            body: envelope.body.clone(),
            properties: wire::to_lapin(&envelope.properties),
        }
    }

    /// The same with so much of its lifetime left.
    pub(crate) fn expiring_after(mut self, left: Lifetime) -> Self {
        self.properties = self.properties.with_expiration(wire::short_string(&left.to_text()));
        self
    }

    /// The first poll queues it.
    pub(crate) async fn publish(
        self,
        channel: &Channel,
        options: BasicPublishOptions,
    ) -> lapin::Result<PublisherConfirm> {
        let Self { exchange, routing_key, body, properties } = self;
        channel.basic_publish(exchange, routing_key, options, &body, properties).await
    }
}

/// Publishes with a confirm, and waits for it.
pub(crate) async fn send_frame(
    channel: &Channel,
    publish: Publish,
    frame: Frame,
) -> (Publish, lapin::Result<Confirmation>) {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let confirmation = match frame.publish(channel, options).await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (publish, confirmation)
}
