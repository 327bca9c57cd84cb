//! Why a request has no reply.

use std::{sync::Arc, time::Duration};

use correio_broker_config::DeclareError;
use correio_message::{DecodeError, MessageId, ReplyError};

use crate::{error::SendError, outcome::Outcome};

/// Why a request has no reply that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request never left this process, and here it is back.
    #[error(transparent)]
    NotSent(SendError),
    /// There is no queue for the replies. The request never left.
    #[error("no queue for the replies: {0}")]
    NoReplyQueue(#[source] Arc<DeclareError>),
    /// No queue matched the request's route: whoever is asked has no address.
    #[error("no such service: {reason}")]
    NoSuchService {
        /// The broker's words.
        reason: String,
    },
    /// A queue did not take the request, or the broker does not allow it.
    #[error("the request was refused: {reason}")]
    Refused {
        /// The broker's words, where it gives any.
        reason: String,
    },
    /// No reply came in time. Somebody may have worked on the request, and a reply that comes now is dropped and counted.
    #[error("no reply within {after:?}: {}", of_the_request(.outcome.as_ref()))]
    DeadlinePassed {
        /// The deadline.
        after: Duration,
        /// What is known about the request itself: [`Outcome::Confirmed`] if it reached its queue, `None` if the broker had
        /// not answered yet.
        outcome: Option<Outcome>,
    },
    /// Who was asked replied that it could not be done.
    #[error("the service replied with an error, {0}")]
    Remote(#[source] ReplyError),
    /// A reply came that cannot be read.
    #[error("the reply cannot be read: {0}")]
    UnreadableReply(#[source] DecodeError),
    /// A request with this id waits already, and a reply could be to either. This one was not sent.
    #[error("a request with the id {id} waits for its reply already: give each its own id, or none")]
    SameIdPending {
        /// The id.
        id: MessageId,
    },
    /// The producer was closed before the reply came.
    #[error("the producer is closed")]
    Closed,
}

fn of_the_request(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Confirmed { .. }) => {
            "the request is on its queue, and nobody has replied; is a consumer there, fast enough, and its clock right?"
        }
        None => "the broker has not confirmed the request",
        Some(_) => "whether the broker has the request is not known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_says_what_is_known_of_the_request() {
        let words = |outcome| RequestError::DeadlinePassed { after: Duration::from_secs(3), outcome }.to_string();
        assert!(words(Some(Outcome::Confirmed { tries: 1 })).contains("3s: the request is on its queue"));
        assert!(words(Some(Outcome::Unknown { tries: 2 })).contains("not known"));
        assert!(words(None).contains("not confirmed"));
    }
}
