//! Where copies of messages go: published mandatory, each with its confirm.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use correio_message::Envelope;
use correio_producer::{Outcome, Producer, SendFailure};
use tokio::time::timeout;

/// Publishes copies. The producer does; tests have others.
pub(crate) trait CopyPublisher: Send + Sync {
    /// Ends with `Ok` only when the copy is on its queue; else with what is known. Bounded in time.
    fn publish(self: Arc<Self>, copy: Envelope) -> Publishing;
}

/// A copy on its way.
pub(crate) type Publishing = Pin<Box<dyn Future<Output = Result<(), NotCopied>> + Send>>;

/// Why a copy is not known to be on its queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotCopied {
    /// There is no such queue; the broker does not have the copy.
    #[error("{0}")]
    NoQueue(String),
    /// It cannot be sent as it is; the broker does not have the copy.
    #[error("{0}")]
    Unsendable(String),
    /// It was refused, or never answered; the broker may have the copy.
    #[error("{0}")]
    Unconfirmed(String),
}

impl CopyPublisher for Producer {
    fn publish(self: Arc<Self>, copy: Envelope) -> Publishing {
        Box::pin(async move {
            let confirmed = async {
                match self.forward(copy).await {
                    Ok(receipt) => match receipt.await {
                        Ok(Outcome::Confirmed { .. }) => Ok(()),
                        Ok(Outcome::Unroutable { reason, .. }) => Err(NotCopied::NoQueue(reason)),
                        // The broker takes no message of this size, or with these properties.
                        Ok(Outcome::Refused { reason, .. }) if reason.starts_with("406") => {
                            Err(NotCopied::Unsendable(reason))
                        }
                        Ok(other) => Err(NotCopied::Unconfirmed(other.to_string())),
                        Err(error) => Err(NotCopied::Unconfirmed(error.to_string())),
                    },
                    Err(error) if matches!(error.cause, SendFailure::HeadersTooLarge { .. }) => {
                        Err(NotCopied::Unsendable(error.cause.to_string()))
                    }
                    Err(error) => Err(NotCopied::Unconfirmed(error.to_string())),
                }
            };
            match timeout(DEADLINE, confirmed).await {
                Ok(outcome) => outcome,
                Err(_) => Err(NotCopied::Unconfirmed(format!("no answer within {DEADLINE:?}"))),
            }
        })
    }
}

/// The producer has deadlines of its own; this one bounds their sum.
const DEADLINE: Duration = Duration::from_secs(90);
