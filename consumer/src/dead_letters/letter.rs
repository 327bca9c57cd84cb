//! A dead letter with all that it holds.

use correio_message::{Envelope, Original};

use super::DeadLetterSummary;

/// One dead letter, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// What it says of itself.
    pub summary: DeadLetterSummary,
    /// How it was published first.
    pub original: Original,
    /// The message as it stands in the parking queue: every property, every header, every byte of its payload.
    pub envelope: Envelope,
}

impl Letter {
    /// Reads what a parked message says, as far as it says it. The message itself is left as it is.
    #[must_use]
    pub fn of(parked: Envelope) -> Self {
        Self { summary: DeadLetterSummary::of(&parked), original: Original::of(&parked), envelope: parked }
    }

    /// Roughly how much room it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.envelope.body.len() + self.envelope.properties.weight()
    }
}
