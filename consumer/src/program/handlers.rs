//! The two handlers of the program: write a line, or run a command.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    ConsumerBuilder, Context, IntoAnswer, Verdict,
    program::{
        exec::{ExecFailed, exec},
        line::{PlainLine, json_line},
        output::{Output, WriteFailed},
        status::Status,
    },
};

/// Each message is a line of this output.
pub(crate) fn write_lines(builder: ConsumerBuilder, lines: Lines, json: bool) -> ConsumerBuilder {
    let lines = Arc::new(lines);
    if json {
        builder.on_any(move |_: Bytes, context: Context| {
            let lines = lines.clone();
            async move { lines.write(json_line(&context)).await }
        })
    } else {
        builder.on_any(move |line: PlainLine| {
            let lines = lines.clone();
            async move { lines.write(line.bytes()).await }
        })
    }
}

/// Each message is the input of this command.
pub(crate) fn run_commands(builder: ConsumerBuilder, command: String, status: Status) -> ConsumerBuilder {
    let command: Arc<str> = command.into();
    builder.on_any(move |_: Bytes, context: Context| {
        let (command, status) = (command.clone(), status.clone());
        async move {
            match exec(&command, &context, &status).await {
                // It did its work; doing it again would print as much again.
                Err(error @ ExecFailed::PrintedTooMuch) => {
                    Ok(Verdict::DeadLetter { reason: error.to_string() }.into_answer())
                }
                ended => ended.map(IntoAnswer::into_answer),
            }
        }
    })
}

/// Lines that go to an output, and what happens when it fails.
///
/// A full disk or a reader that has gone is no fault of the message: it must neither be retried nor parked. So the
/// first failure ends the consumer, and a message whose line was not written stays unsettled: it goes back.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) output: Output,
    /// How long one line may wait to be written.
    pub(crate) patience: Duration,
    pub(crate) broken: Broken,
}

/// Whether, and why, the output failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Broken {
    why: Arc<OnceLock<WriteFailed>>,
    told: CancellationToken,
}

impl Broken {
    /// Why the output failed, once it has.
    pub(crate) fn why(&self) -> Option<&WriteFailed> {
        self.why.get()
    }

    /// Comes back when the output has failed.
    pub(crate) async fn failed(&self) {
        self.told.cancelled().await;
    }
}

impl Lines {
    async fn write(&self, line: Vec<u8>) -> Result<(), WriteFailed> {
        let written = timeout(self.patience, self.output.write(line)).await;
        let Err(failed) = written.unwrap_or(Err(WriteFailed::Unread { waited: self.patience })) else { return Ok(()) };
        self.broken.why.get_or_init(|| failed);
        self.broken.told.cancel();
        // An error would count as a failure of the message. The consumer is ended under this one's feet.
        std::future::pending().await
    }
}
