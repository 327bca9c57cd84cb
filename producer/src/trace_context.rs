//! The W3C's trace context in a message: the headers `traceparent` and `tracestate`, as in HTTP.
//!
//! What a message carries already stays as it is: its sender has said what it belongs to. What is there and is no trace context
//! is ignored. Written and read here and not by the propagator that the application has set, because what stands on the wire
//! is not to depend on that; the OpenTelemetry API has none of its own.

use std::str::FromStr;

use correio_message::{Headers, ShortText, Value, header};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Writes the context of this span, or without one of the current span, into a message that carries none.
pub(crate) fn carry(span: &Span, headers: &mut Headers) {
    let current;
    let span = if span.is_disabled() {
        current = Span::current();
        &current
    } else {
        adopt(span, headers);
        span
    };
    // Nobody listens.
    if span.is_disabled() {
        return;
    }
    let context = span.context();
    let binding = context.span();
    let said = binding.span_context();
    if !said.is_valid() || headers.keys().any(|name| name.as_str() == header::TRACEPARENT) {
        return;
    }
    let flags = said.trace_flags() & TraceFlags::SAMPLED;
    let parent = format!("00-{}-{}-{:02x}", said.trace_id(), said.span_id(), flags);
    put(headers, header::TRACEPARENT, parent);
    let state = said.trace_state().header();
    if !state.is_empty() && state.len() <= MOST_STATE {
        put(headers, header::TRACESTATE, state);
    }
}

/// Makes this span a child of the one whose context the message carries, if it carries one.
#[doc(hidden)]
pub fn adopt(span: &Span, headers: &Headers) {
    if span.is_disabled() {
        return;
    }
    if let Some(parent) = carried(headers) {
        // An error: no layer of OpenTelemetry listens, or the span has begun.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Gives an answer the context of its request, if it has none of its own.
#[doc(hidden)]
pub fn hand_on(request: &Headers, answer: &mut Headers) {
    let of =
        |headers: &Headers, name| headers.iter().find(|(said, _)| said.as_str() == name).map(|(_, said)| said.clone());
    if of(answer, header::TRACEPARENT).is_some() {
        return;
    }
    for name in [header::TRACEPARENT, header::TRACESTATE] {
        if let Some(value) = of(request, name) {
            answer.insert(ShortText::constant(name), value);
        }
    }
}

fn carried(headers: &Headers) -> Option<SpanContext> {
    let text = |name| headers.iter().find(|(said, _)| said.as_str() == name).and_then(|(_, value)| value.as_text());
    let (trace, span, flags) = parsed(text(header::TRACEPARENT)?)?;
    let state = text(header::TRACESTATE).filter(|state| state.len() <= MOST_STATE);
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let context = SpanContext::new(trace, span, flags, true, state);
    context.is_valid().then_some(context)
}

/// `00-TRACE-SPAN-FLAGS`; of a later version, which may say more behind it, the same.
fn parsed(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut parts = text.split('-');
    let mut hex = |length| {
        let is_hex = |part: &&str| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        parts.next().filter(is_hex)
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    Some((TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags))
}

fn put(headers: &mut Headers, name: &'static str, value: String) {
    headers.insert(ShortText::constant(name), Value::text(value));
}

/// The headers of a message have to fit one frame.
const MOST_STATE: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn of(parent: &str, state: Option<Value>) -> Option<SpanContext> {
        let mut headers = Headers::new();
        put(&mut headers, header::TRACEPARENT, parent.to_owned());
        if let Some(state) = state {
            headers.insert(ShortText::new(header::TRACESTATE).unwrap(), state);
        }
        carried(&headers)
    }

    #[test]
    fn a_trace_context_is_read_as_it_was_written() {
        let read = of(&format!("00-{TRACE}-{SPAN}-01"), Some(Value::text("a=1,b=2"))).unwrap();
        assert_eq!((read.trace_id().to_string(), read.span_id().to_string()), (TRACE.to_owned(), SPAN.to_owned()));
        assert!(read.is_sampled() && read.is_remote());
        assert_eq!(read.trace_state().header(), "a=1,b=2");
        let later = of(&format!("01-{TRACE}-{SPAN}-00-more"), None).unwrap();
        assert!(!later.is_sampled());
    }

    #[test]
    fn what_is_no_trace_context_is_ignored_and_no_error() {
        let upper = TRACE.to_uppercase();
        for wrong in [
            String::new(),
            "hello".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-é"),
        ] {
            assert_eq!(of(&wrong, None), None, "{wrong}");
        }
        let mut headers = Headers::new();
        headers.insert(ShortText::new(header::TRACEPARENT).unwrap(), Value::Bool(true));
        assert_eq!(carried(&headers), None);
    }

    #[test]
    fn a_state_that_cannot_be_read_leaves_its_parent_as_it_is() {
        for state in [Value::text("no state"), Value::I64(7), Value::text("a=1,".repeat(2_000))] {
            let read = of(&format!("00-{TRACE}-{SPAN}-01"), Some(state)).unwrap();
            assert_eq!(read.trace_state().header(), "");
        }
    }

    #[test]
    fn without_a_listener_nothing_is_written() {
        let mut headers = Headers::new();
        carry(&Span::none(), &mut headers);
        assert!(headers.is_empty());
    }
}
