//! What a handler answers to a request.

use bytes::Bytes;
use correio_guarantees::Verdict;
use correio_message::{Destination, Exchange, Headers, Json, Message, PayloadError, ReplyError, Route, ShortText};

/// An answer to who asked: a handler that returns it has done the work.
///
/// It goes to the request's `reply_to`, through the exchange `correio.reply`, with the request's correlation. Of a message
/// that asks for no answer nothing is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    payload: Bytes,
    content_type: Option<ShortText>,
    message_type: Option<ShortText>,
    headers: Headers,
    error: Option<ReplyError>,
}

impl Reply {
    /// An answer with any bytes as payload.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), content_type: None, message_type: None, headers: Headers::new(), error: None }
    }

    /// An answer whose payload is a value as JSON.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the value has no JSON form.
    pub fn json<T: serde::Serialize>(value: &T) -> Result<Self, PayloadError> {
        let payload = Json::<T>::encode(value)?;
        Ok(Self { content_type: Some(Json::<T>::content_type()), ..Self::new(payload) })
    }

    /// The answer that the request cannot be met, and trying again would not help: who asked gets it as a value. A handler
    /// that returns `Err` is tried again first.
    ///
    /// The kind is for programs (255 bytes of it are kept), the text for people.
    #[must_use]
    pub fn error(kind: impl AsRef<str>, text: impl Into<String>) -> Self {
        let kind = kind.as_ref();
        let end =
            (0..=kind.len().min(ShortText::MAX)).rev().find(|end| kind.is_char_boundary(*end)).unwrap_or_default();
        let kind = ShortText::new(&kind[..end]).unwrap_or_else(|_| unreachable!("it was just cut to fit"));
        Self { error: Some(ReplyError { kind, text: text.into() }), ..Self::new(Bytes::new()) }
    }

    /// The same answer under a type name.
    #[must_use]
    pub fn with_type(mut self, name: ShortText) -> Self {
        self.message_type = Some(name);
        self
    }

    /// The same answer with a MIME type.
    #[must_use]
    pub fn with_content_type(mut self, content_type: ShortText) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// The same answer with headers of the service's own.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// The message to who asked; `None` if nobody did.
    pub(crate) fn addressed_for(self, request: &Message, service: &ShortText, now_us: u64) -> Option<Message> {
        let routing_key = request.reply_to.clone().filter(|reply_to| !reply_to.is_empty())?;
        let route = Route { exchange: Exchange::Reply.name(), routing_key };
        let correlation = || request.id.as_ref().map(correio_message::MessageId::to_text);
        let mut message = Message::new(Destination::Route(route), self.payload);
        message.correlation_id = request.correlation_id.clone().or_else(correlation);
        message.origin = Some(service.clone());
        message.content_type = self.content_type;
        message.message_type = self.message_type;
        message.headers = self.headers;
        #[cfg(feature = "trace-context")]
        correio_producer::trace_context::hand_on(&request.headers, &mut message.headers);
        message.error = self.error;
        message.sent_at_us = Some(now_us);
        // Nobody reads it after that.
        message.deadline_us = request.deadline_us;
        Some(message)
    }
}

/// How a handler that did not fail has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) reply: Option<Reply>,
}

/// What a handler may return when it did not fail.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no answer of a handler",
    label = "a handler returns `Result<(), E>`, `Result<Verdict, E>` or `Result<Reply, E>`",
    note = "`()` means done: end the handler with `Ok(())`"
)]
pub trait IntoAnswer {
    /// The answer it stands for.
    fn into_answer(self) -> Answer;
}

impl IntoAnswer for () {
    fn into_answer(self) -> Answer {
        Verdict::Done.into_answer()
    }
}

impl IntoAnswer for Verdict {
    fn into_answer(self) -> Answer {
        Answer { verdict: self, reply: None }
    }
}

impl IntoAnswer for Reply {
    fn into_answer(self) -> Answer {
        Answer { verdict: Verdict::Done, reply: Some(self) }
    }
}

impl IntoAnswer for Answer {
    fn into_answer(self) -> Answer {
        self
    }
}

#[cfg(test)]
mod tests {
    use correio_message::MessageId;

    use super::*;

    fn request() -> Message {
        let mut request =
            Message::new(Destination::queue("prices").unwrap(), "?").with_id(MessageId::new("r1").unwrap());
        request.reply_to = Some(ShortText::new("correio.reply.x").unwrap());
        request.deadline_us = Some(9_000_000);
        request
    }

    #[test]
    fn an_answer_goes_to_who_asked_under_the_requests_correlation_or_else_its_id() {
        let service = ShortText::new("prices").unwrap();
        let answered = |request: &Message| Reply::new("7").addressed_for(request, &service, 8_000_000);
        let answer = answered(&request()).unwrap();
        assert_eq!(answer.destination.route().to_string(), "correio.reply/correio.reply.x");
        assert_eq!((answer.correlation_id, answer.deadline_us), (ShortText::new("r1").ok(), Some(9_000_000)));
        let correlated = Message { correlation_id: ShortText::new("c1").ok(), ..request() };
        assert_eq!(answered(&correlated).unwrap().correlation_id, ShortText::new("c1").ok());
        for nobody in [None, ShortText::new("").ok()] {
            assert_eq!(answered(&Message { reply_to: nobody, ..request() }), None);
        }
    }

    #[test]
    fn an_errors_kind_is_cut_between_characters_to_what_fits() {
        let kind = Reply::error("é".repeat(200), "why").error.unwrap().kind;
        assert_eq!(kind.as_str().len(), 254);
    }
}
