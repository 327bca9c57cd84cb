//! What can keep the lab from having its broker, and the way out of each.

use std::{io, path::PathBuf, time::Duration};

/// Why a private broker could not be had, or did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// No server on this machine, and no way to get one.
    #[error(
        "no RabbitMQ server found:\n{}\nGet one in any of these ways:\n  \
         - set RABBITMQ_SERVER to the command that starts one, for example RABBITMQ_SERVER=/usr/lib/rabbitmq/bin/rabbitmq-server\n  \
         - install RabbitMQ (Debian, Ubuntu: apt install rabbitmq-server; macOS: brew install rabbitmq)\n  \
         - start Docker, so that `docker info` works\n  \
         - on Debian or Ubuntu give this machine its package mirror back: the lab then unpacks RabbitMQ by itself, without root",
        list(.tried)
    )]
    NoServer {
        /// Each way that was tried, with the reason why it failed.
        tried: Vec<String>,
    },
    /// `RABBITMQ_SERVER` or an entry of `CORREIO_BROKERS` names no server.
    #[error("`{command}` is not a RabbitMQ server: {why}")]
    NotAServer {
        /// The command line as it was given.
        command: String,
        /// What is wrong with it.
        why: String,
    },
    /// `CORREIO_BROKERS` cannot be read.
    #[error(
        "CORREIO_BROKERS: `{entry}`: {why}. Write NAME=COMMAND;NAME=COMMAND, for example \
         3.10=/usr/lib/rabbitmq/bin/rabbitmq-server;4.3=docker rabbitmq:4.3-management, or NAME=auto"
    )]
    BadBrokerList {
        /// The entry in question.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// A test asked for a broker that the environment does not name.
    #[error("no broker is named `{name}`; CORREIO_BROKERS names {known}")]
    UnknownBroker {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    CannotRun {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{command} failed ({status}):\n{output}")]
    CommandFailed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// Something took too long.
    #[error("{step} was not done after {after:?}")]
    TimedOut {
        /// The step that timed out.
        step: String,
        /// Its deadline.
        after: Duration,
    },
    /// The node did not come up.
    #[error("broker {name} did not start: {why}\nThe end of its log:\n{log}")]
    BootFailed {
        /// The broker's name.
        name: String,
        /// What was seen.
        why: String,
        /// The end of the node's log and of what it printed.
        log: String,
    },
    /// A file or folder of the lab could not be used.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// No free port was found on 127.0.0.1.
    #[error("no free port between {from} and {to} on 127.0.0.1")]
    NoFreePort {
        /// First port tried.
        from: u16,
        /// Last port tried.
        to: u16,
    },
    /// The node does not run, and this needs a running one.
    #[error("broker {name} is not running: call restart() first")]
    NotRunning {
        /// The broker's name.
        name: String,
    },
    /// A signal could not be sent to the node.
    #[error("cannot signal broker {name}: {source}")]
    Signal {
        /// The broker's name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The broker answered an AMQP request with an error.
    #[error("{step}: {source}")]
    Amqp {
        /// What was asked.
        step: String,
        /// What the client library reports.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The broker's answer could not be read.
    #[error("{step}: not understood: {answer}")]
    Unreadable {
        /// What was asked.
        step: String,
        /// The answer, or its beginning.
        answer: String,
    },
}

impl LabError {
    /// For `map_err` on file operations: names the action and the file.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn timed_out(step: impl Into<String>, after: Duration) -> Self {
        Self::TimedOut { step: step.into(), after }
    }
}

fn list(tried: &[String]) -> String {
    tried.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}
