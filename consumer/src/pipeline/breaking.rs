//! Handling pauses while everything fails.

use std::time::Duration;

use correio_guarantees::{Breaker, Failure, Pace, Tripped, Verdict};

use super::{Effect, Moment, Pipeline};
use crate::processing::Acknowledgement;

/// The message is tried again, however often it was before; after this long where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spared {
    /// Here: the next probes are of it too.
    Here(Duration),
    /// Where it would be after any failure, as only one is held.
    Anywhere(Duration),
}

impl Pipeline {
    /// How much may be begun.
    pub(super) fn pace(&self) -> Pace {
        // What a consumer that stops still has to do was acknowledged on receipt: this is its last chance.
        self.breaker.as_ref().filter(|_| !self.stopping).map_or(Pace::Full, Breaker::pace)
    }

    /// Whether handling pauses because everything fails.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_pausing(&self) -> bool {
        self.breaker.as_ref().is_some_and(Breaker::is_open)
    }

    /// Whether no more than one message is to be held.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.breaker.as_ref().is_some_and(Breaker::is_withdrawn)
    }

    /// An attempt has ended; says whether its message is spared.
    pub(super) fn note(&mut self, result: &Result<Verdict, Failure>, now: Moment) -> Option<Spared> {
        let breaker = self.breaker.as_mut()?;
        match result {
            Ok(Verdict::Done) => {
                if breaker.on_success() {
                    tracing::info!(queue = %self.rules.queue, "something succeeds again: handling goes on");
                }
                return None;
            }
            // They say something of the message, and nothing of what handlers need.
            Ok(Verdict::DeadLetter { .. } | Verdict::Drop { .. }) => return None,
            Err(failure) if failure.rules_out_a_retry() => return None,
            Ok(Verdict::Retry | Verdict::RetryAfter(_)) | Err(_) => {}
        }
        let queue = &self.rules.queue;
        let spared = if breaker.is_withdrawn() { Spared::Anywhere } else { Spared::Here };
        let tripped = breaker.on_failure(now.at);
        let spares = breaker.spares(now.at) && !self.stopping;
        let pause = match tripped {
            Tripped::No => Duration::ZERO,
            Tripped::Opened { pause } => {
                self.counts.paused(1);
                tracing::error!(%queue, ?pause, "everything fails: handling pauses, and then probes with one message at a time");
                pause
            }
            Tripped::Again { pause } => {
                tracing::warn!(%queue, ?pause, "everything fails still: handling pauses");
                pause
            }
            // What was acknowledged on receipt has nowhere to go back to.
            Tripped::Withdrawn { pause } if self.rules.acknowledgement == Acknowledgement::OnDelivery => pause,
            Tripped::Withdrawn { pause } => {
                tracing::error!(%queue, ?pause, "everything has failed for long: what is held goes back, and handling pauses");
                self.effects.push(Effect::CloseChannel);
                pause
            }
        };
        spares.then(|| spared(pause))
    }
}
