//! Copies of a message for its way through retries and dead letters.
//!
//! A copy is built from what belongs to the message, never cloned from what arrived: `user_id` would be refused
//! by the broker (it must equal the login), `expiration` would let the parked letter vanish, `CC` and `BCC` would
//! route it again, and `x-death` makes the broker drop it as a dead-letter cycle. What is left out and still means
//! something goes into headers of ours.

use std::{fmt, num::NonZeroU32, time::Duration};

use crate::{
    decode::{DecodeFailure, integer, text},
    encode::name,
    header,
    message::{Exchange, Route},
    properties::{Envelope, Headers, Properties, Value},
    text::ShortText,
};

/// How a message was first published, before any copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Exchange and routing key.
    pub route: Route,
    /// The `user_id` that the broker had checked.
    pub user: Option<ShortText>,
    /// The `expiration`, in milliseconds as its sender wrote it.
    pub expiration: Option<ShortText>,
}

impl Original {
    pub(crate) fn of(envelope: &Envelope) -> Result<Self, DecodeFailure> {
        let headers = &envelope.properties.headers;
        let short = |header| -> Result<Option<ShortText>, DecodeFailure> {
            let limit = ShortText::MAX;
            let Some(text) = text(headers, header, limit)? else { return Ok(None) };
            ShortText::new(text).map(Some).map_err(|e| DecodeFailure::TooLong { header, length: e.length, limit })
        };
        // A copy says where it was published first. Anything else was published just here.
        Ok(match (short(header::EXCHANGE)?, short(header::ROUTING_KEY)?) {
            (Some(exchange), Some(routing_key)) => Self {
                route: Route { exchange, routing_key },
                user: short(header::USER)?,
                expiration: short(header::EXPIRATION)?,
            },
            _ => Self {
                route: envelope.route.clone(),
                user: envelope.properties.user_id.clone(),
                expiration: envelope.properties.expiration.clone(),
            },
        })
    }

    /// As [`Original::of`], for a message whose own headers may be unreadable: then it is taken as it arrived.
    fn of_any(envelope: &Envelope) -> Self {
        Self::of(envelope).unwrap_or_else(|_| Self {
            route: envelope.route.clone(),
            user: envelope.properties.user_id.clone(),
            expiration: envelope.properties.expiration.clone(),
        })
    }
}

/// What a retry's copy says about its failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the attempt that the copy is for: the first delivery was 1.
    pub number: NonZeroU32,
    /// When handling failed first, in microseconds since 1970.
    pub first_failed_at_us: u64,
}

/// The copy that waits in a delay queue and comes back for another attempt.
///
/// `wait` becomes the copy's own expiry, to the millisecond: never less than the queue's nominal delay if the
/// caller adds its jitter on top.
#[must_use]
pub fn retry(arrived: &Envelope, delay_queue: ShortText, wait: Duration, attempt: Attempt) -> Envelope {
    let mut copy = built(arrived, Route { exchange: Exchange::Retry.name(), routing_key: delay_queue });
    copy.properties.expiration = ShortText::new(wait.as_millis().to_string()).ok();
    put_attempt(&mut copy.properties.headers, attempt);
    copy
}

/// The copy that is parked as a dead letter.
#[must_use]
pub fn dead_letter(arrived: &Envelope, parking_queue: ShortText, letter: &DeadLetter) -> Envelope {
    let mut copy = built(arrived, Route { exchange: Exchange::Dead.name(), routing_key: parking_queue });
    let headers = &mut copy.properties.headers;
    put_attempt(
        headers,
        Attempt { number: letter.attempts, first_failed_at_us: letter.first_failed_at_us.unwrap_or(letter.at_us) },
    );
    headers.insert(name(header::DEAD_REASON), Value::text(letter.reason.as_str()));
    headers.insert(name(header::DEAD_ERROR), Value::text(clipped(&letter.error)));
    headers.insert(name(header::DEAD_QUEUE), Value::text(letter.queue.as_str()));
    headers.insert(name(header::DEAD_AT_US), Value::I64(letter.at_us.try_into().unwrap_or(i64::MAX)));
    copy
}

/// The copy that gives a dead letter another life in its work queue: same identity, attempts counted anew.
#[must_use]
pub fn replay(parked: &Envelope, queue: ShortText) -> Envelope {
    let mut copy = built(parked, Route { exchange: Exchange::Queue.name(), routing_key: queue });
    for gone in [
        header::ATTEMPT,
        header::FIRST_FAILED_AT_US,
        header::DEAD_REASON,
        header::DEAD_ERROR,
        header::DEAD_QUEUE,
        header::DEAD_AT_US,
    ] {
        copy.properties.headers.remove(gone);
    }
    copy
}

/// Why and when a message was parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub reason: DeadReason,
    /// The last error, in words; at most 4,096 bytes of it are kept.
    pub error: String,
    /// The work queue it was taken from.
    pub queue: ShortText,
    /// When it was parked, in microseconds since 1970.
    pub at_us: u64,
    /// How often handling was attempted.
    pub attempts: NonZeroU32,
    /// When handling failed first, in microseconds since 1970.
    pub first_failed_at_us: Option<u64>,
}

impl DeadLetter {
    /// Reads what a parked message says, as far as it says it; `None` when it is not a dead letter at all.
    ///
    /// A letter that the broker itself moved (past the delivery limit) has no headers of ours; the broker's
    /// are read then.
    #[must_use]
    pub fn of(parked: &Envelope) -> Option<Self> {
        let headers = &parked.properties.headers;
        let says = |header| text(headers, header, usize::MAX).ok().flatten();
        let number = |header| integer(headers, header, 0).ok().flatten();
        let by_broker = |header: &str| headers.get(header).and_then(Value::as_text);
        let (reason, error) = match says(header::DEAD_REASON) {
            Some(reason) => (DeadReason::from_wire(reason), says(header::DEAD_ERROR).unwrap_or_default().to_owned()),
            None => {
                let why = by_broker("x-first-death-reason")?;
                (DeadReason::Broker, format!("moved by the broker: {why}"))
            }
        };
        let queue = says(header::DEAD_QUEUE).or_else(|| by_broker("x-first-death-queue")).unwrap_or_default();
        Some(Self {
            reason,
            error,
            queue: ShortText::new(queue).ok()?,
            at_us: number(header::DEAD_AT_US).unwrap_or_default(),
            attempts: number(header::ATTEMPT)
                .and_then(|n| u32::try_from(n).ok())
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MIN),
            first_failed_at_us: number(header::FIRST_FAILED_AT_US),
        })
    }
}

/// Why a message is a dead letter: what [`header::DEAD_REASON`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeadReason {
    /// Its handler failed as often as the schedule allows.
    Failed,
    /// Its handler panicked as often as the schedule allows.
    Panicked,
    /// Its handler did not end before its deadline as often as the schedule allows.
    TimedOut,
    /// It, or its payload, cannot be read.
    Unreadable,
    /// No handler is registered for its type.
    UnknownType,
    /// It stood behind a gap in the order, and the policy is to park such messages.
    Gap,
    /// Its handler asked for it.
    Asked,
    /// The broker moved it: its delivery limit was reached.
    Broker,
    /// A reason that this version does not know.
    Other,
}

impl DeadReason {
    const NAMES: [(Self, &'static str); 9] = [
        (Self::Failed, "failed"),
        (Self::Panicked, "panicked"),
        (Self::TimedOut, "timed-out"),
        (Self::Unreadable, "unreadable"),
        (Self::UnknownType, "unknown-type"),
        (Self::Gap, "gap"),
        (Self::Asked, "asked"),
        (Self::Broker, "broker"),
        (Self::Other, "other"),
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(reason, _)| *reason == self).map_or("other", |(_, name)| name)
    }

    fn from_wire(text: &str) -> Self {
        Self::NAMES.iter().find(|(_, name)| *name == text).map_or(Self::Other, |(reason, _)| *reason)
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What every copy keeps, under a new route: persistent, and where it came from in headers.
fn built(arrived: &Envelope, route: Route) -> Envelope {
    let from = &arrived.properties;
    let original = Original::of_any(arrived);
    let mut headers: Headers = from
        .headers
        .iter()
        .filter(|(name, _)| !header::is_brokers(name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    headers.insert(name(header::EXCHANGE), Value::text(&original.route.exchange));
    headers.insert(name(header::ROUTING_KEY), Value::text(&original.route.routing_key));
    if let Some(user) = original.user {
        headers.insert(name(header::USER), Value::text(user));
    }
    if let Some(expiration) = original.expiration {
        headers.insert(name(header::EXPIRATION), Value::text(expiration));
    }
    let properties = Properties {
        content_type: from.content_type.clone(),
        content_encoding: from.content_encoding.clone(),
        headers,
        delivery_mode: Some(2),
        priority: from.priority,
        correlation_id: from.correlation_id.clone(),
        reply_to: from.reply_to.clone(),
        expiration: None,
        message_id: from.message_id.clone(),
        timestamp: from.timestamp,
        message_type: from.message_type.clone(),
        user_id: None,
        app_id: from.app_id.clone(),
    };
    Envelope { route, properties, body: arrived.body.clone() }
}

fn put_attempt(headers: &mut Headers, attempt: Attempt) {
    headers.insert(name(header::ATTEMPT), Value::I64(attempt.number.get().into()));
    let at = attempt.first_failed_at_us.try_into().unwrap_or(i64::MAX);
    headers.insert(name(header::FIRST_FAILED_AT_US), Value::I64(at));
}

/// At most 4,096 bytes: a header has to fit a frame together with all the others.
fn clipped(error: &str) -> &str {
    let end = (0..=error.len().min(4_096)).rev().find(|end| error.is_char_boundary(*end));
    &error[..end.unwrap_or_default()]
}
