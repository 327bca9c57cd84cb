//! What a consumer tells `tracing`: names and fields, all in one place.
//!
//! | Kind | Name | Level | Fields | When |
//! |---|---|---|---|---|
//! | span | `handle` | debug | `subscription`, `message`, `type`, `attempt` | around each attempt of a handler |
//! | event | a message was not handled | warn | `message`, `attempt`, `failure` | a handler failed, panicked or missed its deadline |
//! | event | a message was parked as a dead letter | warn | `message`, `reason`, `error` | its copy is confirmed |
//! | event | a message was dropped, as its handler asked | info | `message`, `reason` | |
//! | event | a copy was not confirmed; the original stays unsettled | warn | `message`, `tries`, `cause` | |
//! | event | a request is too late: … | warn | `message` | not begun: past its deadline |
//! | event | an answer was not confirmed | warn | `request`, `tries`, `why` | it is published again |
//! | event | an answer did not arrive: … | warn | `request`, `cause` | |
//! | event | an answer cannot be sent; … | warn | `request`, `why` | an error is sent instead |
//! | event | nowhere to park a message | error | `failure` | the consumer ends |
//! | event | a gap in the order was given up | warn | `gap` | |
//! | event | a line is met in its middle | info | `gap` | the first delivery of a line is not its first message |
//! | event | the subscription was lost and will be renewed | warn | `queue`, `cause` | |
//! | event | not subscribed, trying again | warn | `queue`, `error`, `pause` | |
//! | event | nothing is begun or acknowledged until the log answers | warn | `error`, `pause` | |
//! | event | a message is lost: it was acknowledged on receipt | error | `message` | only with `Acknowledgement::OnDelivery` |
//!
//! Numbers are in [`Tally`](crate::Tally), each a count of messages since the start.

use tracing::Span;

use crate::context::Context;

/// The span around one attempt of a handler.
pub(crate) fn handling(context: &Context) -> Span {
    let message = context.message();
    tracing::debug_span!(
        "handle",
        subscription = context.subscription(),
        message = message.id.as_ref().map(tracing::field::display),
        r#type = message.message_type.as_ref().map(tracing::field::display),
        attempt = context.attempt(),
    )
}
