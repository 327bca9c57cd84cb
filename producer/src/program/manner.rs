//! How the lines of a run go, besides where: until when, before whom, how much later.

use std::time::Duration;

use clap::ValueEnum;
use correio_message::{Lifetime, Message, Priority};

use super::args::{LineArgs, SendArgs};

/// A priority, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityName {
    Normal,
    High,
}

impl LineArgs {
    /// The message as this run is to send it, whether it was made of a line or kept by an earlier run.
    pub(crate) fn dressed(&self, mut message: Message) -> Message {
        message.lifetime = self.expires_after;
        message.priority = match self.priority {
            Some(PriorityName::High) => Priority::High,
            Some(PriorityName::Normal) | None => Priority::Normal,
        };
        message
    }
}

impl SendArgs {
    /// The same as options, to be repeated on another command line; with a space before them.
    pub(crate) fn manner_as_options(&self) -> String {
        let seconds = |time: Duration| time.as_secs_f64();
        let mut options = String::new();
        if let Some(lifetime) = self.line.expires_after {
            options += &format!(" --expires-after {}", seconds(lifetime.as_duration()));
        }
        if self.line.priority == Some(PriorityName::High) {
            options += " --priority high";
        }
        if let Some(delay) = self.after {
            options += &format!(" --after {}", seconds(delay));
        }
        options
    }
}

/// A lifetime in seconds.
pub(crate) fn lifetime(text: &str) -> Result<Lifetime, String> {
    Lifetime::new(any_seconds(text)?).map_err(|error| error.to_string())
}

/// Any time in seconds; what it is for has its own limits.
pub(crate) fn any_seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
