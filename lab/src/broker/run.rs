//! Running a helper program to its end: with a deadline, and keeping only the end of what it prints.

use super::LabError;
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};

/// Runs the command, waits for its end, and gives back what it printed on standard output.
///
/// # Errors
///
/// [`LabError::CannotRun`]; [`LabError::CommandFailed`] with the end of what it printed; [`LabError::TimedOut`].
///
/// # Cancel safety
///
/// The command is killed when this future is dropped.
pub async fn run(command: &mut Command, deadline: Duration) -> Result<String, LabError> {
    let line = line_of(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| LabError::CannotRun { program: line.clone(), source })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = timeout(deadline, async { tokio::join!(child.wait(), tail_of(out), tail_of(err)) }).await;
    let Ok((status, out, err)) = ended else {
        return Err(LabError::timed_out(line, deadline));
    };
    let status = status.map_err(|source| LabError::CannotRun { program: line.clone(), source })?;
    if status.success() {
        return Ok(out);
    }
    let output = [out.trim(), err.trim()].join("\n").trim().to_owned();
    Err(LabError::CommandFailed { command: line, status: status.to_string(), output: last_lines(&output, 20) })
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

async fn tail_of(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut kept = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn line_of(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

const KEPT: usize = 1024 * 1024;
