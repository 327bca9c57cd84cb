//! Why a lesson could not be held. That a guarantee did not hold is not among these: that is a [`Broken`](super::Broken).

use std::{io, path::PathBuf, time::Duration};

use crate::broker::LabError;

/// A lesson that broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LessonError {
    /// What a lesson waited for did not come.
    #[error("waited {waited:?} in vain for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// One of our programs ended otherwise than it should.
    #[error("`{command}` ended with {ended}{said}")]
    Program {
        /// Its command line.
        command: String,
        /// Exit status, in words.
        ended: String,
        /// The end of what it said on stderr.
        said: String,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program of ours is neither built nor can it be.
    #[error("{why}: run `cargo build --bins` in Correio's folder, then again")]
    NotBuilt {
        /// What is missing.
        why: String,
    },
    /// What a program printed has another form than it should.
    #[error("{what} cannot be read: {why}")]
    Unreadable {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the lesson.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No node to hold it on.
    #[error(transparent)]
    NoBroker(LabError),
    /// The node, once it ran.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The proxy found no port.
    #[error("cannot start a proxy: {0}")]
    Proxy(#[source] io::Error),
    /// The lab's own client, which publishes what our programs cannot.
    #[error("the lab's plain client: {step}: {why}")]
    PlainClient {
        /// What it was at.
        step: &'static str,
        /// Why it failed.
        why: String,
    },
}

impl LessonError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
