//! What can keep the lab from having its PostgreSQL server, and the way out of each.

use crate::broker::LabError;
use std::{io, path::PathBuf};

/// Why a private PostgreSQL server could not be had, or did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// No server on this machine, and no way to get one.
    #[error(
        "no PostgreSQL found:\n{}\nGet one in any of these ways:\n  \
         - set CORREIO_POSTGRES to the folder that holds `postgres` and `initdb`\n  \
         - install it (Debian, Ubuntu: apt install postgresql; macOS: brew install postgresql)\n  \
         - on Debian or Ubuntu give this machine its package mirror back: the lab then unpacks PostgreSQL by itself, without root",
        .tried.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
    )]
    NoPrograms {
        /// Each way that was tried, with the reason why it failed.
        tried: Vec<String>,
    },
    /// A folder was named that has no PostgreSQL in it, or none that the server's user may run.
    #[error("{} holds no PostgreSQL that can be run: {why}", .folder.display())]
    NotPrograms {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// We are root, and no folder for temporary files can be reached by the user that the server runs as.
    #[error(
        "PostgreSQL does not run as root, and the user nobody cannot reach any of {tried}: set TMPDIR to a folder whose \
         parents others may pass through (mode 711 or 755)"
    )]
    NowhereToRun {
        /// The folders.
        tried: String,
    },
    /// The server did not come up.
    #[error("PostgreSQL did not start: {why}\nThe end of its log:\n{log}")]
    BootFailed {
        /// What was seen.
        why: String,
        /// The end of what it logged.
        log: String,
    },
    /// The server does not run, and this needs a running one.
    #[error("PostgreSQL is not running: call start_again() first")]
    NotRunning,
    /// A signal could not be sent to the server.
    #[error("cannot signal PostgreSQL: {source}")]
    Signal {
        /// Why.
        source: io::Error,
    },
    /// A file, a helper program, a port or a deadline.
    #[error(transparent)]
    Lab(#[from] LabError),
}
