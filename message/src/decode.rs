//! From the wire to a message.

use std::num::{NonZeroU32, NonZeroU64};

use uuid::Uuid;

use crate::{
    copy::{Original, short},
    header,
    id::MessageId,
    message::{Destination, Message, ReplyError, Route},
    properties::{Envelope, Headers, Value},
    sequence::{Key, Line, Sequence, Voids},
    unfit,
    urgency::{Lifetime, Priority},
};

/// A message as read from the wire, with what its way so far tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The message, addressed as it was first published.
    pub message: Message,
    /// Which attempt at handling this is, from 1.
    pub attempt: NonZeroU32,
    /// When handling failed first, in microseconds since 1970; `None` on the first attempt.
    pub first_failed_at_us: Option<u64>,
    /// How it was first published.
    pub original: Original,
    /// It is no message: it fills its number and its void ones in the order of its key ([`Envelope::marker`]).
    pub is_marker: bool,
}

/// A message that cannot be read: why, and its place in the order where that can be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{cause}")]
pub struct DecodeError {
    /// What is wrong.
    #[source]
    pub cause: DecodeFailure,
    /// Its number, so that nobody waits for a message that is there but unreadable.
    pub sequence: Option<Box<Sequence>>,
}

/// One thing that can be wrong with a message's headers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeFailure {
    /// A header of ours has another type than it must have.
    #[error("header {header} is not {expected}")]
    WrongType {
        /// Its name.
        header: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A number is below the least that makes sense.
    #[error("header {header} is {value}, and the least that makes sense is {least}")]
    OutOfRange {
        /// Its name.
        header: &'static str,
        /// What it says.
        value: i64,
        /// The lowest value.
        least: i64,
    },
    /// The source is not a UUID.
    #[error("header {} is not a UUID", header::SOURCE)]
    InvalidSource,
    /// A text is longer than its limit.
    #[error("header {header} is {length} bytes and may be {limit}")]
    TooLong {
        /// Its name.
        header: &'static str,
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A part of the sequence is there and another is not.
    #[error("the sequence has no {missing}: {}, {} and {} come together", header::SOURCE, header::KEY, header::NUMBER)]
    PartialSequence {
        /// The header that is not there.
        missing: &'static str,
    },
    /// A text was not UTF-8 on the wire.
    #[error("its {what} is not UTF-8: U+001A stands for each wrong byte")]
    NotUtf8 {
        /// Which text.
        what: &'static str,
    },
    /// Nobody needs so much.
    #[error(
        "its headers are nested more than {} levels deep: what is deeper was read as bytes",
        crate::unfit::MAX_DEPTH
    )]
    TooDeep,
    /// The void numbers are not a list of earlier numbers.
    #[error("header {} is not a list such as 3,5-7 of at most {} earlier numbers", header::VOID, Voids::MAX)]
    InvalidVoids,
}

impl Envelope {
    /// Reads the message.
    ///
    /// A foreign message is read as it is: what it does not say is `None`. Only our own headers can be wrong.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] names the header that is wrong, and has the sequence if that can be read.
    pub fn decode(&self) -> Result<Decoded, DecodeError> {
        let headers = &self.properties.headers;
        let original = Original::read(self);
        // Even if it is unreadable elsewhere: whoever waits for its number need not.
        let mut sequence =
            sequence(headers, || Original::route_of(self)).map_err(|cause| DecodeError { cause, sequence: None })?;
        let voids = sequence.as_ref().map_or(Ok(Voids::default()), |sequence| voids(headers, sequence.number));
        if let (Some(sequence), Ok(voids)) = (&mut sequence, &voids) {
            sequence.voids.clone_from(voids);
        }
        voids
            .and(original)
            .and_then(|original| self.read(original, sequence.clone()))
            .map_err(|cause| DecodeError { cause, sequence: sequence.map(Box::new) })
    }

    fn read(&self, original: Original, sequence: Option<Sequence>) -> Result<Decoded, DecodeFailure> {
        if let Some(wrong) = unfit::wrong(self) {
            return Err(wrong);
        }
        let headers = &self.properties.headers;
        let properties = &self.properties;
        let attempt = match integer(headers, header::ATTEMPT, 1)? {
            Some(n) => u32::try_from(n).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX),
            None => NonZeroU32::MIN,
        };
        let key = match &sequence {
            Some(sequence) => Some(sequence.line.key.clone()),
            None => key(headers)?,
        };
        let deadline_us = integer(headers, header::DEADLINE_US, 0)?;
        // Of a request the expiry says what the deadline says already.
        let expiration = original.expiration.as_ref().filter(|_| deadline_us.is_none());
        let message = Message {
            id: properties.message_id.as_ref().and_then(MessageId::from_wire),
            origin: properties.app_id.clone(),
            destination: Destination::of_route(&original.route),
            message_type: properties.message_type.clone(),
            payload: self.body.clone(),
            content_type: properties.content_type.clone(),
            content_encoding: properties.content_encoding.clone(),
            correlation_id: properties.correlation_id.clone(),
            reply_to: properties.reply_to.clone(),
            key,
            sequence,
            sent_at_us: integer(headers, header::SENT_AT_US, 0)?,
            deadline_us,
            lifetime: expiration.and_then(|text| Lifetime::from_wire(text.as_str())),
            priority: Priority::from_wire(properties.priority),
            error: match short(headers, header::ERROR)? {
                Some(kind) => {
                    let text = text(headers, header::ERROR_TEXT, usize::MAX)?.unwrap_or_default().to_owned();
                    Some(ReplyError { kind, text })
                }
                None => None,
            },
            headers: headers
                .iter()
                .filter(|(name, _)| !header::is_ours(name.as_str()) && !header::is_brokers(name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        };
        let first_failed_at_us = integer(headers, header::FIRST_FAILED_AT_US, 0)?;
        let is_marker = match get(headers, header::MARKER) {
            None => false,
            Some(Value::Bool(is_marker)) => *is_marker,
            Some(_) => return Err(DecodeFailure::WrongType { header: header::MARKER, expected: "a boolean" }),
        };
        Ok(Decoded { message, attempt, first_failed_at_us, original, is_marker })
    }
}

/// The place of the message, its voids left out.
fn sequence(
    headers: &Headers,
    route: impl FnOnce() -> Result<Route, DecodeFailure>,
) -> Result<Option<Sequence>, DecodeFailure> {
    let source = text(headers, header::SOURCE, 255)?;
    let number = integer(headers, header::NUMBER, 1)?;
    let (source, number) = match (source, number) {
        // A key alone is an ordering wish without numbers: lanes keep it, gaps cannot be seen.
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(DecodeFailure::PartialSequence { missing: header::SOURCE }),
        (Some(_), None) => return Err(DecodeFailure::PartialSequence { missing: header::NUMBER }),
        (Some(source), Some(number)) => (source, number),
    };
    let source = Uuid::parse_str(source).map_err(|_| DecodeFailure::InvalidSource)?;
    let key = key(headers)?.ok_or(DecodeFailure::PartialSequence { missing: header::KEY })?;
    let number =
        NonZeroU64::new(number).ok_or(DecodeFailure::OutOfRange { header: header::NUMBER, value: 0, least: 1 })?;
    let stream = match text(headers, header::STREAM, Line::MAX_STREAM)? {
        Some(name) => name.into(),
        None => route()?.stream(),
    };
    Ok(Some(Sequence { line: Line { source, stream, key }, number, voids: Voids::default() }))
}

fn voids(headers: &Headers, number: NonZeroU64) -> Result<Voids, DecodeFailure> {
    match text(headers, header::VOID, 64 * 1024)? {
        Some(list) => Voids::from_wire(list, number).map_err(|_| DecodeFailure::InvalidVoids),
        None => Ok(Voids::default()),
    }
}

fn key(headers: &Headers) -> Result<Option<Key>, DecodeFailure> {
    let limit = crate::ShortText::MAX;
    match text(headers, header::KEY, limit)? {
        Some(text) => Key::new(text).map(Some).map_err(|e| DecodeFailure::TooLong {
            header: header::KEY,
            length: e.length,
            limit,
        }),
        None => Ok(None),
    }
}

/// The text of one of our headers, if it is there.
pub(crate) fn text<'h>(
    headers: &'h Headers,
    header: &'static str,
    limit: usize,
) -> Result<Option<&'h str>, DecodeFailure> {
    let Some(value) = get(headers, header) else { return Ok(None) };
    let text = value.as_text().ok_or(DecodeFailure::WrongType { header, expected: "text in UTF-8" })?;
    if text.len() > limit {
        return Err(DecodeFailure::TooLong { header, length: text.len(), limit });
    }
    Ok(Some(text))
}

/// The whole number of one of our headers, if it is there.
pub(crate) fn integer(headers: &Headers, header: &'static str, least: u32) -> Result<Option<u64>, DecodeFailure> {
    let Some(value) = get(headers, header) else { return Ok(None) };
    let number = value.as_integer().ok_or(DecodeFailure::WrongType { header, expected: "a whole number" })?;
    if number < i64::from(least) {
        return Err(DecodeFailure::OutOfRange { header, value: number, least: least.into() });
    }
    Ok(Some(number.unsigned_abs()))
}

fn get<'h>(headers: &'h Headers, header: &'static str) -> Option<&'h Value> {
    headers.get(header)
}
