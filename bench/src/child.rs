//! One way, run once, in a process of its own.

use std::{env, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::{Error, Load, Way, cpus::Halves, peers::Peers, sample::Sample};

/// The word that makes the bench program run one way instead of all: `bench way NAME QUEUE MESSAGES BYTES WINDOW`.
pub const WAY: &str = "way";
/// The word that makes it the program whose memory is measured: `bench stalled MESSAGES BYTES`.
pub const STALLED: &str = "stalled";
/// The word that makes it the program that looks ids up: `bench look-up IDS`.
pub const LOOK_UP: &str = "look-up";
/// The word that makes it the program that remembers ids in memory: `bench in-memory IDS`.
pub const IN_MEMORY: &str = "in-memory";
/// The word that makes it the program that knows a million keys: `bench resequencing`.
pub const RESEQUENCING: &str = "resequencing";
/// The environment variable by which a child is told the broker's address: it holds a password, and arguments are public.
pub const URL: &str = "AMQP_URL";

/// Runs it and takes what it tells.
///
/// # Errors
///
/// When it fails, tells nothing, or does not end in time.
pub async fn run(
    way: Way,
    (peers, halves): (&Peers, Option<&Halves>),
    url: &str,
    queue: &str,
    load: Load,
) -> Result<Sample, Error> {
    let mut command = if way.is_a_program_of_its_own() { peers.command(way)? } else { itself(&[WAY, &way.word()])? };
    if let Some(halves) = halves {
        command = halves.place(&command);
    }
    command.arg(queue).args([load.messages.to_string(), load.size.to_string(), load.window.to_string()]);
    command.env(URL, url).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output =
        timeout(ENDS, command.output()).await.map_err(|_| format!("{} did not end in {ENDS:?}", way.name()))??;
    if !output.status.success() {
        return Err(format!("{} ended with {}", way.name(), output.status).into());
    }
    String::from_utf8_lossy(&output.stdout).parse()
}

/// This program once more, to do one thing.
///
/// # Errors
///
/// When its file is not to be found.
pub fn itself(words: &[&str]) -> Result<Command, Error> {
    let mut command = Command::new(env::current_exe()?);
    command.args(words);
    Ok(command)
}

const ENDS: Duration = Duration::from_secs(600);
