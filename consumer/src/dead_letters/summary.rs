//! What can be told of a dead letter at a glance.

use std::{
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use correio_message::{DeadLetter, DeadReason, Envelope, MessageId, Original, Route, ShortText, Value, header};

/// What a dead letter says of itself, with the first bytes of its payload.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetterSummary {
    /// Its id, if its sender gave it one.
    pub id: Option<MessageId>,
    /// Its type, if its sender gave it one.
    pub message_type: Option<ShortText>,
    /// The application that sent it, if it says so.
    pub origin: Option<ShortText>,
    /// Why it was parked. [`DeadReason::Other`] of a message that no consumer parked.
    pub reason: DeadReason,
    /// The last error, in words.
    pub error: String,
    /// How often handling was attempted, where that is known.
    pub attempts: Option<NonZeroU32>,
    /// When handling failed first, where that is known.
    pub first_failed_at: Option<SystemTime>,
    /// When it was parked, where that is known.
    pub at: Option<SystemTime>,
    /// How long handled ids are remembered by the consumer that parked it, where the letter says so.
    pub remembered_for: Option<Duration>,
    /// The work queue that it names: a replay goes back to it.
    pub queue: Option<ShortText>,
    /// How it was published first.
    pub original: Route,
    /// Bytes of the payload.
    pub size: usize,
    /// The first [`DeadLetterSummary::PREVIEW`] bytes of the payload, as they are.
    pub payload_start: Bytes,
}

impl DeadLetterSummary {
    /// How many bytes of a payload a summary keeps at most.
    pub const PREVIEW: usize = 256;

    /// Reads what a parked message says, as far as it says it.
    #[must_use]
    pub fn of(parked: &Envelope) -> Self {
        let properties = &parked.properties;
        let letter = DeadLetter::of(parked);
        // The broker's own letters say in what state they were parked last, not first (that may be a retry's wait).
        let last = properties.headers.get("x-last-death-reason").and_then(Value::as_text);
        let (reason, error) = match &letter {
            None => (DeadReason::Other, "it does not say why it is here".to_owned()),
            Some(letter) => match (letter.reason, last) {
                (DeadReason::Broker, Some(why)) => (DeadReason::Broker, format!("moved by the broker: {why}")),
                (reason, _) => (reason, letter.error.clone()),
            },
        };
        let said = letter.as_ref().filter(|letter| letter.reason != DeadReason::Broker);
        Self {
            id: properties.message_id.as_ref().and_then(|id| MessageId::new(id).ok()),
            message_type: properties.message_type.clone(),
            origin: properties.app_id.clone(),
            reason,
            error,
            attempts: said.map(|letter| letter.attempts),
            first_failed_at: letter.as_ref().and_then(|letter| letter.first_failed_at_us).and_then(time),
            at: said.and_then(|letter| time(letter.at_us)),
            remembered_for: said.and_then(|letter| letter.remembered_for_us).map(Duration::from_micros),
            queue: named_queue(parked),
            original: Original::of(parked).route,
            size: parked.body.len(),
            // Copied: a slice would keep the whole payload in memory.
            payload_start: Bytes::copy_from_slice(&parked.body[..parked.body.len().min(Self::PREVIEW)]),
        }
    }
}

/// The work queue that a replay goes back to, where the letter names one.
///
/// Only our own header is asked: of a letter that the broker moved, the queues that it names may be delay queues.
fn named_queue(parked: &Envelope) -> Option<ShortText> {
    let named = parked.properties.headers.get(header::DEAD_QUEUE).and_then(Value::as_text)?;
    ShortText::new(named).ok().filter(|name| !name.is_empty())
}

fn time(us: u64) -> Option<SystemTime> {
    if us == 0 {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(us))
}

#[cfg(test)]
pub(super) mod tests {
    use correio_message::{Destination, Message, Properties, dead_letter};

    use super::*;

    fn text(text: &str) -> ShortText {
        ShortText::new(text).unwrap()
    }

    fn parked(letter: &DeadLetter) -> Envelope {
        let mut message = Message::new(Destination::queue("orders").unwrap(), "x".repeat(300));
        message.id = Some(MessageId::new("a-1").unwrap());
        dead_letter(&message.encode(correio_message::Durability::Persistent), text("orders.dead"), letter)
    }

    /// What a letter of this id says that was parked in this second.
    pub(in crate::dead_letters) fn summary(id: &str, second: u64) -> DeadLetterSummary {
        DeadLetterSummary {
            id: MessageId::new(id).ok(),
            message_type: Some(text("order.placed")),
            origin: Some(text("shop")),
            at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second)),
            first_failed_at: None,
            ..DeadLetterSummary::of(&parked(&letter()))
        }
    }

    fn letter() -> DeadLetter {
        DeadLetter {
            reason: DeadReason::Failed,
            error: "no stock".into(),
            queue: text("orders"),
            at_us: 2_000_000,
            attempts: NonZeroU32::new(6).unwrap(),
            first_failed_at_us: Some(1_000_000),
            remembered_for_us: Some(3_600_000_000),
        }
    }

    #[test]
    fn a_letter_tells_its_reason_its_times_and_where_it_was_sent_first() {
        let summary = DeadLetterSummary::of(&parked(&letter()));
        assert_eq!(summary.id.unwrap().as_str(), "a-1");
        assert_eq!((summary.reason, summary.error.as_str()), (DeadReason::Failed, "no stock"));
        assert_eq!(summary.attempts, NonZeroU32::new(6));
        assert_eq!(summary.first_failed_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
        assert_eq!(summary.at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2)));
        assert_eq!(summary.remembered_for, Some(Duration::from_secs(3_600)));
        assert_eq!(
            (summary.original.to_string(), summary.queue),
            ("correio.queue/orders".to_owned(), Some(text("orders")))
        );
        assert_eq!((summary.size, summary.payload_start.len()), (300, DeadLetterSummary::PREVIEW));
    }

    #[test]
    fn a_message_that_is_no_letter_is_told_as_far_as_it_goes() {
        let route = Route { exchange: text(""), routing_key: text("orders.dead") };
        let stray = Envelope { route, properties: Properties::default(), body: Bytes::new() };
        let summary = DeadLetterSummary::of(&stray);
        assert_eq!((summary.reason, summary.id, summary.attempts), (DeadReason::Other, None, None));
    }

    #[test]
    fn a_letter_of_the_broker_is_replayed_to_the_queue_that_it_was_parked_for() {
        let mut moved = parked(&letter());
        for ours in
            [header::DEAD_REASON, header::DEAD_QUEUE, header::DEAD_AT_US, header::DEAD_ERROR, header::RETENTION_US]
        {
            moved.properties.headers.remove(ours);
        }
        let headers = &mut moved.properties.headers;
        headers.insert(text("x-first-death-reason"), Value::text("expired"));
        headers.insert(text("x-first-death-queue"), Value::text("orders.retry.1s"));
        headers.insert(text("x-last-death-reason"), Value::text("delivery_limit"));
        assert_eq!(named_queue(&moved), None);
        assert_eq!(DeadLetterSummary::of(&moved).error, "moved by the broker: delivery_limit");
        assert_eq!(named_queue(&parked(&letter())), Some(text("orders")));
    }
}
