//! Why the program ends without having done its job, and with which exit code.

use std::{fmt, io, path::Path};

use correio_broker_config::{AddressError, cli::Exit};

use crate::{
    BuildError, ConsumeError,
    dead_letters::DeadLettersError,
    program::{args::SourceError, dedup::NoLog, observed::ObserveError},
};

/// The message that ends the program, and its exit code.
#[derive(Debug)]
pub(crate) struct Failed {
    exit: Exit,
    words: String,
}

impl Failed {
    /// The output cannot be opened.
    pub(crate) fn output(path: &Path, error: &io::Error) -> Self {
        let what = if path == Path::new("-") { "standard output".to_owned() } else { path.display().to_string() };
        let words = format!("{what} cannot be written: {error}; nothing was taken from the queue");
        Self { exit: Exit::Usage, words }
    }

    /// The work began and could not be ended.
    pub(crate) fn midway(words: String) -> Self {
        Self { exit: Exit::Incomplete, words }
    }

    /// Says more.
    pub(crate) fn with(mut self, more: &str) -> Self {
        self.words.push_str(more);
        self
    }

    /// These arguments cannot be.
    pub(crate) fn usage(words: String) -> Self {
        Self { exit: Exit::Usage, words }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Self { exit: Exit::Usage, words: error.to_string() }
    }
}

impl From<NoLog> for Failed {
    fn from(error: NoLog) -> Self {
        Self { exit: Exit::Usage, words: error.to_string() }
    }
}

impl From<AddressError> for Failed {
    fn from(error: AddressError) -> Self {
        Self { exit: Exit::Usage, words: error.to_string() }
    }
}

impl From<ObserveError> for Failed {
    fn from(error: ObserveError) -> Self {
        Self { exit: Exit::Usage, words: error.to_string() }
    }
}

impl From<BuildError> for Failed {
    fn from(error: BuildError) -> Self {
        Self { exit: Exit::Usage, words: error.to_string() }
    }
}

impl From<ConsumeError> for Failed {
    fn from(error: ConsumeError) -> Self {
        let exit = match error {
            ConsumeError::Connect(_) | ConsumeError::Startup { .. } => Exit::NoBroker,
            ConsumeError::NowhereToPark { .. } => Exit::Incomplete,
            ConsumeError::Declare(_)
            | ConsumeError::NoSuchQueue { .. }
            | ConsumeError::Forbidden { .. }
            | ConsumeError::QueueIsShared { .. }
            | ConsumeError::HeldTooLong { .. } => Exit::Usage,
        };
        Self { exit, words: error.to_string() }
    }
}

impl From<DeadLettersError> for Failed {
    fn from(error: DeadLettersError) -> Self {
        let exit = match error {
            DeadLettersError::NoParkingQueue { .. }
            | DeadLettersError::NotAllowed { .. }
            | DeadLettersError::NameTooLong(_) => Exit::Usage,
            DeadLettersError::CutShort { .. } => Exit::Incomplete,
            DeadLettersError::Connect(_)
            | DeadLettersError::ConnectToPublish(_)
            | DeadLettersError::TimedOut { .. }
            | DeadLettersError::Broker { .. } => Exit::NoBroker,
        };
        Self { exit, words: error.to_string() }
    }
}
