//! A handler that is any command: workers in any language.

use std::{io, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{Context, Reply, program::status::Status};

/// A command did not do the work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecFailed {
    /// It ended with another status than 0; the last it said on stderr tells why.
    #[error("the command ended with {status}{}", said(.stderr))]
    Status { status: std::process::ExitStatus, stderr: String },
    /// Something that it started may still be printing.
    #[error("the command ended and left its output open to what it has started: its answer may not be whole")]
    LeftOpen,
    /// Its standard output is no answer.
    #[error("the command printed more than {MOST_PRINTED} bytes, and RabbitMQ takes no larger message")]
    PrintedTooMuch,
    /// It could not be run at all.
    #[error("the command cannot be run: {0}")]
    Start(#[source] io::Error),
}

/// Runs `sh -c COMMAND` with the payload on its standard input; exit status 0 is success.
///
/// To a request it answers with its standard output, without the newline at its end; else that is ours. Its messages go to our stderr too.
///
/// # Errors
///
/// [`ExecFailed`] with the end of what it said.
///
/// # Cancel safety
///
/// Dropped, it kills the command and whatever that has started in its process group.
pub(crate) async fn exec(command: &str, context: &Context, status: &Status) -> Result<Reply, ExecFailed> {
    let message = context.message();
    let mut sh = Command::new("sh");
    sh.arg("-c").arg(command).stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if context.wants_reply() {
        sh.stdout(Stdio::piped());
    }
    // A group of its own: Ctrl-C in a terminal is for us, who then let the command finish.
    sh.process_group(0);
    let told = [
        ("CORREIO_ID", context.id().map(|id| id.as_str().to_owned())),
        ("CORREIO_TYPE", message.message_type.as_ref().map(|t| t.as_str().to_owned())),
        ("CORREIO_KEY", context.key().map(|key| key.as_str().to_owned())),
        ("CORREIO_ORIGIN", context.origin().map(str::to_owned)),
        ("CORREIO_ATTEMPT", Some(context.attempt().to_string())),
    ];
    for (name, value) in told {
        match value {
            Some(value) => sh.env(name, value),
            // Ours may have been started by such a command itself.
            None => sh.env_remove(name),
        };
    }
    let mut child = sh.spawn().map_err(ExecFailed::Start)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut tail, mut printed) = (Tail::default(), Vec::new());
    let mut is_whole = true;
    let exited = {
        let talk = async {
            tokio::join!(
                feed(stdin, &message.payload),
                collect(stdout, &mut printed),
                listen(stderr, &mut tail, status)
            )
        };
        tokio::pin!(talk);
        tokio::select! {
            exited = child.wait() => {
                // Gone and waited for: its number may be another's from here on.
                group.0 = None;
                // What it left running may hold its stderr open: that is not waited for. What it said is read.
                let is_all = timeout(LAST_WORDS, talk).await.is_ok();
                is_whole = is_all || !context.wants_reply();
                exited
            }
            // Both pipes at their end is not the end of the command.
            _ = &mut talk => child.wait().await,
        }
    };
    group.0 = None;
    let exited = exited.map_err(ExecFailed::Start)?;
    if !exited.success() {
        return Err(ExecFailed::Status { status: exited, stderr: tail.text() });
    }
    if !is_whole {
        return Err(ExecFailed::LeftOpen);
    }
    if printed.len() > MOST_PRINTED {
        return Err(ExecFailed::PrintedTooMuch);
    }
    // As a shell's `$(…)` does: the end of the line is the terminal's, not the answer's.
    if printed.last() == Some(&b'\n') {
        printed.pop();
    }
    Ok(Reply::new(printed))
}

async fn feed(stdin: Option<ChildStdin>, payload: &[u8]) {
    let Some(mut stdin) = stdin else { return };
    // A command that does not read its input has its reasons; its exit status tells.
    let _ = stdin.write_all(payload).await;
}

/// Reads to the end, so that the command can go on, and keeps no more than an answer may have and one byte.
async fn collect(stdout: Option<ChildStdout>, printed: &mut Vec<u8>) {
    let Some(mut stdout) = stdout else { return };
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = stdout.read(&mut piece).await {
        let room = (MOST_PRINTED + 1).saturating_sub(printed.len());
        printed.extend_from_slice(&piece[..n.min(room)]);
    }
}

async fn listen(stderr: Option<ChildStderr>, tail: &mut Tail, status: &Status) {
    let Some(mut stderr) = stderr else { return };
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = stderr.read(&mut piece).await {
        status.pass_on(&piece[..n]);
        tail.push(&piece[..n]);
    }
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

/// The end of what a command said.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
        let over = self.0.len().saturating_sub(TAIL);
        self.0.drain(..over);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().trim_start_matches('\u{FFFD}').to_owned()
    }
}

/// The process group of a running command, killed when the handler is given up: else what the shell has started
/// would go on working on a message that is handed to another.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended just now.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Bytes of a command's messages that become its error.
const TAIL: usize = 2 * 1024;
/// The largest answer: RabbitMQ's own limit of a message from 4.0 on.
const MOST_PRINTED: usize = 16 * 1024 * 1024;
/// How long the pipes may stay open after the command has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_end_and_starts_with_a_whole_character() {
        let mut tail = Tail::default();
        tail.push("é".repeat(TAIL).as_bytes());
        tail.push(b"x the end\n");
        let text = tail.text();
        assert!(text.len() <= TAIL && text.ends_with("x the end") && text.starts_with('é'), "{text}");
    }
}
