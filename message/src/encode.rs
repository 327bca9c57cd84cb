//! From a message to the wire.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    copy::clipped,
    header,
    id::MessageId,
    message::{Exchange, Message, Route},
    properties::{Envelope, Headers, Properties, Value},
    sequence::Sequence,
    text::ShortText,
    urgency::Lifetime,
};

/// How a message is kept by the broker (`delivery_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives a restart of the broker, on a durable queue.
    Persistent,
    /// May be lost with the broker's memory: what `fire` promises.
    Transient,
}

impl Message {
    /// The message as it stands on the wire.
    ///
    /// The reserved headers among [`Message::headers`] (`correio-…`, `x-…`, `CC`, `BCC`) are left out: they are
    /// written from the fields, or by the broker. A message with a sequence is written under the sequence's key.
    #[must_use]
    pub fn encode(&self, durability: Durability) -> Envelope {
        let route = self.destination.route();
        let mut headers: Headers = self
            .headers
            .iter()
            .filter(|(name, _)| !header::is_ours(name.as_str()) && !header::is_brokers(name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        match &self.sequence {
            Some(sequence) => put_sequence(&mut headers, sequence, &route.to_string()),
            None => {
                if let Some(key) = &self.key {
                    headers.insert(name(header::KEY), Value::text(key.as_str()));
                }
            }
        }
        if let Some(at) = self.sent_at_us {
            headers.insert(name(header::SENT_AT_US), Value::I64(at.try_into().unwrap_or(i64::MAX)));
        }
        if let Some(at) = self.deadline_us {
            headers.insert(name(header::DEADLINE_US), Value::I64(at.try_into().unwrap_or(i64::MAX)));
        }
        if let Some(error) = &self.error {
            headers.insert(name(header::ERROR), Value::text(&error.kind));
            headers.insert(name(header::ERROR_TEXT), Value::text(clipped(&error.text)));
        }
        let properties = Properties {
            expiration: self.expires_after().map(Lifetime::to_text),
            priority: self.priority.to_wire(),
            content_type: self.content_type.clone(),
            content_encoding: self.content_encoding.clone(),
            headers,
            delivery_mode: Some(match durability {
                Durability::Persistent => 2,
                Durability::Transient => 1,
            }),
            correlation_id: self.correlation_id.clone(),
            reply_to: self.reply_to.clone(),
            message_id: self.id.as_ref().map(crate::MessageId::to_text),
            timestamp: self.sent_at_us.map(|us| us / 1_000_000),
            message_type: self.message_type.clone(),
            app_id: self.origin.clone(),
            ..Properties::default()
        };
        Envelope { route, properties, body: self.payload.clone() }
    }

    /// The message as it waits in a delay queue of the queue that it is for, and then comes there: a copy of what was never
    /// sent. It arrives as its first attempt, addressed as here.
    ///
    /// The delay takes the place of an expiry, as a message has one alone: there is to be none, and no deadline. It is rounded up to
    /// the millisecond, and cut at 49.7 days, the longest that every RabbitMQ takes.
    #[must_use]
    pub fn encode_delayed(&self, delay_queue: ShortText, delay: Duration) -> Envelope {
        let Envelope { route, mut properties, body } = self.encode(Durability::Persistent);
        properties.expiration = Some(Lifetime::left(delay).to_text());
        // Else it would be one that was sent to the delay queue.
        properties.headers.insert(name(header::EXCHANGE), Value::text(&route.exchange));
        properties.headers.insert(name(header::ROUTING_KEY), Value::text(&route.routing_key));
        Envelope { route: Route { exchange: Exchange::Retry.name(), routing_key: delay_queue }, properties, body }
    }

    /// From its sending to the earlier of its deadline and the end of its lifetime.
    fn expires_after(&self) -> Option<Lifetime> {
        let until_deadline = self
            .deadline_us
            .zip(self.sent_at_us)
            .map(|(deadline, sent)| Lifetime::left(Duration::from_micros(deadline.saturating_sub(sent))));
        until_deadline.into_iter().chain(self.lifetime).min()
    }
}

impl Envelope {
    /// What tells the consumer of a key that nobody is to wait for a number: an empty message that fills it, and with it the
    /// void numbers of the sequence, and that nobody handles.
    #[must_use]
    pub fn marker(route: Route, id: &MessageId, sequence: &Sequence) -> Self {
        let mut headers = Headers::from([(name(header::MARKER), Value::Bool(true))]);
        put_sequence(&mut headers, sequence, &route.to_string());
        let properties = Properties {
            headers,
            delivery_mode: Some(2),
            message_id: Some(id.to_text()),
            message_type: ShortText::new("correio.marker").ok(),
            ..Properties::default()
        };
        Self { route, properties, body: Bytes::new() }
    }
}

fn put_sequence(headers: &mut Headers, sequence: &Sequence, route: &str) {
    headers.insert(name(header::SOURCE), Value::text(sequence.line.source.hyphenated().to_string()));
    headers.insert(name(header::KEY), Value::text(sequence.line.key.as_str()));
    headers.insert(name(header::NUMBER), Value::I64(sequence.number.get().try_into().unwrap_or(i64::MAX)));
    // Left out where it says nothing: it would cost every message its length.
    if *sequence.line.stream != *route {
        headers.insert(name(header::STREAM), Value::text(&sequence.line.stream));
    }
    let voids = sequence.voids.to_wire(sequence.number);
    if !voids.is_empty() {
        headers.insert(name(header::VOID), Value::text(voids));
    }
}

/// One of our own header names, as a header table wants it.
pub(crate) const fn name(name: &'static str) -> ShortText {
    ShortText::constant(name)
}
