//! Copies of a message for its way through retries and dead letters.
//!
//! A copy is built from what belongs to the message, never cloned from what arrived: `user_id` would be refused
//! by the broker (it must equal the login), `expiration` would let the parked letter vanish, `CC` and `BCC` would
//! route it again, and `x-death` makes the broker drop it as a dead-letter cycle. What is left out and still means
//! something goes into headers of ours.

use std::{fmt, num::NonZeroU32, time::Duration};

use crate::{
    death,
    decode::{DecodeFailure, integer, text},
    encode::name,
    header,
    message::{Exchange, Route},
    properties::{Envelope, Headers, Properties, Value, headers_weight},
    text::ShortText,
    urgency::Lifetime,
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
    /// How this message was first published, as far as it says so: what cannot be read is taken as it arrived.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        let headers = &envelope.properties.headers;
        match Self::copied_route(envelope) {
            Ok(Some(route)) => Self {
                route,
                user: short(headers, header::USER).ok().flatten(),
                expiration: short(headers, header::EXPIRATION).ok().flatten(),
            },
            _ => Self::as_arrived(envelope),
        }
    }

    /// As [`Original::of`], but refuses what cannot be read.
    pub(crate) fn read(envelope: &Envelope) -> Result<Self, DecodeFailure> {
        let headers = &envelope.properties.headers;
        let (user, expiration) = (short(headers, header::USER)?, short(headers, header::EXPIRATION)?);
        Ok(match Self::copied_route(envelope)? {
            Some(route) => Self { route, user, expiration },
            None => Self::as_arrived(envelope),
        })
    }

    /// As [`Original::read`], the route alone.
    pub(crate) fn route_of(envelope: &Envelope) -> Result<Route, DecodeFailure> {
        Ok(Self::copied_route(envelope)?.unwrap_or_else(|| Self::as_arrived(envelope).route))
    }

    /// What a copy says of its original's route; `None` in a message that is no copy.
    fn copied_route(envelope: &Envelope) -> Result<Option<Route>, DecodeFailure> {
        let headers = &envelope.properties.headers;
        let (exchange, routing_key) = (short(headers, header::EXCHANGE)?, short(headers, header::ROUTING_KEY)?);
        Ok(exchange.zip(routing_key).map(|(exchange, routing_key)| Route { exchange, routing_key }))
    }

    /// Of a message that is no copy of ours: published just here, unless the broker moved it here.
    fn as_arrived(envelope: &Envelope) -> Self {
        let properties = &envelope.properties;
        let user = properties.user_id.clone();
        match death::published(&properties.headers) {
            // The broker takes the expiry away when it moves a message, and says what it was.
            Some((route, expiration)) => {
                Self { route, user, expiration: expiration.or_else(|| properties.expiration.clone()) }
            }
            None => Self { route: envelope.route.clone(), user, expiration: properties.expiration.clone() },
        }
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

impl Attempt {
    /// The longest that a message can wait for another attempt, 49.7 days: the highest expiry that every RabbitMQ takes.
    pub const MAX_WAIT: Duration = Lifetime::MAX.as_duration();
}

/// The copy that waits in a delay queue and comes back for another attempt.
///
/// `wait` becomes the copy's own expiry, rounded up to the millisecond: never less than the queue's nominal delay if
/// the caller adds its jitter on top. Past [`Attempt::MAX_WAIT`] it is that, as the broker refuses more.
#[must_use]
pub fn retry(arrived: &Envelope, delay_queue: ShortText, wait: Duration, attempt: Attempt) -> Envelope {
    let mut copy = built(arrived, Route { exchange: Exchange::Retry.name(), routing_key: delay_queue });
    let millis = wait.min(Attempt::MAX_WAIT).as_nanos().div_ceil(1_000_000);
    copy.properties.expiration = ShortText::new(millis.to_string()).ok();
    let headers = &mut copy.properties.headers;
    headers.insert(name(header::ATTEMPT), Value::I64(attempt.number.get().into()));
    headers.insert(name(header::FIRST_FAILED_AT_US), whole(attempt.first_failed_at_us));
    copy
}

/// The copy that goes back to its own queue unhandled, with what was counted against it: as far on its way as it arrived.
#[must_use]
pub fn given_back(arrived: &Envelope, queue: ShortText, returns: u32) -> Envelope {
    let mut copy = built(arrived, Route { exchange: Exchange::Queue.name(), routing_key: queue });
    let headers = &mut copy.properties.headers;
    for way in [header::ATTEMPT, header::FIRST_FAILED_AT_US] {
        if let Some((name, value)) = arrived.properties.headers.get_key_value(way) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers.insert(name(header::RETURNS), Value::I64(returns.into()));
    copy
}

/// The copy that is parked as a dead letter.
#[must_use]
pub fn dead_letter(arrived: &Envelope, parking_queue: ShortText, letter: &DeadLetter) -> Envelope {
    let mut copy = built(arrived, Route { exchange: Exchange::Dead.name(), routing_key: parking_queue });
    let headers = &mut copy.properties.headers;
    headers.insert(name(header::ATTEMPT), Value::I64(letter.attempts.get().into()));
    if let Some(at) = letter.first_failed_at_us {
        headers.insert(name(header::FIRST_FAILED_AT_US), whole(at));
    }
    headers.insert(name(header::DEAD_REASON), Value::text(letter.reason.as_str()));
    headers.insert(name(header::DEAD_ERROR), Value::text(clipped(&letter.error)));
    headers.insert(name(header::DEAD_QUEUE), Value::text(letter.queue.as_str()));
    headers.insert(name(header::DEAD_AT_US), whole(letter.at_us));
    if let Some(remembered) = letter.remembered_for_us {
        headers.insert(name(header::RETENTION_US), whole(remembered));
    }
    copy
}

/// A dead letter without the application's headers, where they are more than a copy can carry; its error then says so. `None` if it has
/// none.
#[must_use]
pub fn lightened(letter: &Envelope) -> Option<Envelope> {
    let is_ours = |name: &ShortText| name.as_str().starts_with(header::PREFIX);
    let (ours, others): (Headers, Headers) =
        letter.properties.headers.clone().into_iter().partition(|(name, _)| is_ours(name));
    let bytes = headers_weight(&others);
    let mut light =
        Envelope { properties: Properties { headers: ours, ..letter.properties.clone() }, ..letter.clone() };
    let error = DeadLetter::of(letter).map_or_else(String::new, |letter| letter.error);
    let said = format!(
        "{error} (its own {} headers, about {bytes} bytes, are more than a copy can carry, and are left out)",
        others.len()
    );
    light.properties.headers.insert(name(header::DEAD_ERROR), Value::text(clipped(&said)));
    (!others.is_empty()).then_some(light)
}

/// The copy that gives a dead letter another life in its work queue: same identity, attempts counted anew, and no deadline:
/// who replays a request wants it done, whoever has stopped waiting for the answer.
#[must_use]
pub fn replay(parked: &Envelope, queue: ShortText) -> Envelope {
    let mut copy = built(parked, Route { exchange: Exchange::Queue.name(), routing_key: queue });
    copy.properties.headers.remove(header::DEADLINE_US);
    copy
}

/// Why and when a message was parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub reason: DeadReason,
    /// The last error, in words; at most 4,096 bytes of it are kept.
    pub error: String,
    /// The work queue it was taken from; empty where a letter does not say it.
    pub queue: ShortText,
    /// When it was parked, in microseconds since 1970; 0 where a letter does not say it.
    pub at_us: u64,
    /// How often handling was attempted; 1 where a letter does not say it.
    pub attempts: NonZeroU32,
    /// When handling failed first, in microseconds since 1970; `None` if it never came to that.
    pub first_failed_at_us: Option<u64>,
    /// How long handled ids are remembered where it was parked, in microseconds; `None` where they are not, or a letter does not say it.
    pub remembered_for_us: Option<u64>,
}

impl DeadLetter {
    /// Reads what a parked message says, as far as it says it; `None` when it is not a dead letter at all.
    ///
    /// A letter that the broker itself moved (past the delivery limit) has no reason of ours; what the broker says of
    /// the latest move is read then. Nobody wrote down when that was: `at_us` is 0.
    #[must_use]
    pub fn of(parked: &Envelope) -> Option<Self> {
        let headers = &parked.properties.headers;
        let says = |header| text(headers, header, usize::MAX).ok().flatten();
        let number = |header| integer(headers, header, 0).ok().flatten();
        let (reason, error, queue) = match says(header::DEAD_REASON) {
            Some(reason) => {
                let error = says(header::DEAD_ERROR).unwrap_or_default();
                (DeadReason::from_wire(reason), clipped(error).to_owned(), says(header::DEAD_QUEUE).unwrap_or_default())
            }
            None => {
                let death = death::latest(headers)?;
                (DeadReason::Broker, format!("moved by the broker: {}", clipped(death.reason)), death.queue)
            }
        };
        Some(Self {
            reason,
            error,
            queue: ShortText::new(queue).unwrap_or_else(|_| ShortText::constant("")),
            at_us: number(header::DEAD_AT_US).unwrap_or_default(),
            attempts: number(header::ATTEMPT)
                .and_then(|n| NonZeroU32::new(n.try_into().unwrap_or(u32::MAX)))
                .unwrap_or(NonZeroU32::MIN),
            first_failed_at_us: number(header::FIRST_FAILED_AT_US),
            remembered_for_us: number(header::RETENTION_US),
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
    /// It is larger than its consumer takes.
    TooLarge,
    /// Each time it was handled alone, its consumer was gone before it was settled.
    Killer,
    /// The broker moved it: its delivery limit was reached.
    Broker,
    /// A reason that this version does not know.
    Other,
}

impl DeadReason {
    const NAMES: [(Self, &'static str); 11] = [
        (Self::Failed, "failed"),
        (Self::Panicked, "panicked"),
        (Self::TimedOut, "timed-out"),
        (Self::Unreadable, "unreadable"),
        (Self::UnknownType, "unknown-type"),
        (Self::Gap, "gap"),
        (Self::Asked, "asked"),
        (Self::TooLarge, "too-large"),
        (Self::Killer, "killer"),
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
    let original = Original::of(arrived);
    let mut headers: Headers = from
        .headers
        .iter()
        .filter(|(name, _)| !header::is_brokers(name.as_str()) && !header::OF_THE_WAY.contains(&name.as_str()))
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

/// One of our short texts, if it is there.
pub(crate) fn short(headers: &Headers, header: &'static str) -> Result<Option<ShortText>, DecodeFailure> {
    let limit = ShortText::MAX;
    let Some(text) = text(headers, header, limit)? else { return Ok(None) };
    ShortText::new(text).map(Some).map_err(|e| DecodeFailure::TooLong { header, length: e.length, limit })
}

/// A whole number as we write it.
fn whole(number: u64) -> Value {
    Value::I64(number.try_into().unwrap_or(i64::MAX))
}

/// At most 4,096 bytes: a header has to fit a frame together with all the others.
pub(crate) fn clipped(error: &str) -> &str {
    let end = (0..=error.len().min(4_096)).rev().find(|end| error.is_char_boundary(*end));
    &error[..end.unwrap_or_default()]
}
