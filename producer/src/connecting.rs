//! Reaching the broker, again and again, and understanding why a channel ended.

use std::{fmt, time::Duration};

use correio_broker_config::{Backoff, ConnectError, Connections, LeasedChannel, Patience, ReplyCause};
use tokio::time::sleep;

/// How long one step with the broker may take.
pub(crate) const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// Tries until there is a channel. After a loss even a refused login may be passing, on a broker that restarts; one that is
/// refused for too long is an error.
pub(crate) async fn reconnect(connections: &Connections) -> Result<LeasedChannel, ConnectError> {
    let mut backoff = Backoff::new();
    let mut patience = Patience::with(connections.address());
    loop {
        let error = match connections.channel().await {
            Ok(channel) => return Ok(channel),
            Err(error) => error,
        };
        patience.on_failure(&error);
        if patience.is_over() {
            tracing::error!(%error, "the broker has let this program in no more for too long: it is not tried again");
            return Err(error);
        }
        let pause = backoff.next_delay();
        tracing::warn!(%error, ?pause, "the broker cannot be reached, trying again");
        sleep(pause).await;
    }
}

/// Why a channel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The broker closed the channel because of one of the messages on it.
    OfOneMessage {
        /// There is no such exchange (404); else it was not allowed or not acceptable.
        missing: bool,
        reason: String,
    },
    /// The connection, or the broker, went away.
    Gone(String),
    /// An answer did not come before its deadline.
    Silent(&'static str),
    /// The producer gives up.
    Closing,
}

impl Fault {
    pub(crate) fn of(error: &lapin::Error) -> Self {
        let cause = ReplyCause::of(error);
        let reason = |code: u16| format!("{code} {}", cause.said());
        match cause {
            ReplyCause::NotFound { .. } => Self::OfOneMessage { missing: true, reason: reason(404) },
            ReplyCause::AccessRefused { .. } => Self::OfOneMessage { missing: false, reason: reason(403) },
            ReplyCause::PreconditionFailed { .. } => Self::OfOneMessage { missing: false, reason: reason(406) },
            _ => Self::Gone(cause.said().to_owned()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfOneMessage { reason, .. } | Self::Gone(reason) => f.write_str(reason),
            Self::Silent(what) => write!(f, "{what} did not come in time"),
            Self::Closing => f.write_str("the producer closes"),
        }
    }
}
