//! Our programs as real processes: started, waited for, killed; what they print is read from files.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{LessonError, command::CommandLine};

/// A program that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    command: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    command: String,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Running {
    /// Starts it in the lesson's folder. `number` tells its files from those of others there.
    pub(crate) fn start(
        line: &CommandLine,
        program: &Path,
        folder: &Path,
        number: u64,
        environment: &[(&str, String)],
    ) -> Result<Self, LessonError> {
        let file = |end: &str| folder.join(format!("{number}-{}.{end}", line.program));
        let (stdout, stderr, stdin) = (file("out"), file("err"), file("in"));
        let made = |path: &Path| File::create(path).map_err(LessonError::file("create", path));
        let input = match line.input.lines() {
            Some(lines) => {
                std::fs::write(&stdin, lines).map_err(LessonError::file("write", &stdin))?;
                File::open(&stdin).map_err(LessonError::file("open", &stdin))?.into()
            }
            None => Stdio::null(),
        };
        let mut command = Command::new(program);
        command.args(&line.args).current_dir(folder).stdin(input).stdout(made(&stdout)?).stderr(made(&stderr)?);
        for name in NOT_THEIRS {
            command.env_remove(name);
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C in a terminal is for the demo, which then ends its programs.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(|source| LessonError::Start { program: program.to_owned(), source })?;
        Ok(Self { command: line.to_string(), child, stdout, stderr })
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self, deadline: Duration) -> Result<Ended, LessonError> {
        let Ok(status) = timeout(deadline, self.child.wait()).await else {
            let what = format!("the end of `{}`{}", self.command, last_words(&self.read(&self.stderr)?));
            return Err(LessonError::TimedOut { what, waited: deadline });
        };
        let status = status.map_err(LessonError::file("wait for", &self.command))?;
        let (stdout, stderr) = (self.read(&self.stdout)?, self.read(&self.stderr)?);
        Ok(Ended { command: self.command, status, stdout, stderr })
    }

    /// Kills it with SIGKILL, as a crash does, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<(), LessonError> {
        self.child.start_kill().map_err(LessonError::file("kill", &self.command))?;
        let gone = timeout(DIES, self.child.wait()).await;
        gone.map_err(|_| LessonError::TimedOut { what: format!("the death of `{}`", self.command), waited: DIES })?
            .map_err(LessonError::file("wait for", &self.command))?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM); [`Running::end`] waits for it.
    pub(crate) fn stop(&self) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // Not waited for yet, so the number is still its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// An error if it has ended, which it should not.
    pub(crate) fn still_runs(&mut self) -> Result<(), LessonError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let (command, said) = (self.command.clone(), last_words(&self.read(&self.stderr)?));
                Err(LessonError::Program { command, ended: format!("{status} too early"), said })
            }
            Err(source) => Err(LessonError::file("look at", &self.command)(source)),
        }
    }

    fn read(&self, path: &Path) -> Result<String, LessonError> {
        let bytes = std::fs::read(path).map_err(LessonError::file("read", path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Ended {
    /// Its exit status; -1 if a signal ended it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// An error if it ended otherwise than in one of these ways.
    pub(crate) fn with(self, codes: &[i32]) -> Result<Self, LessonError> {
        if self.status.code().is_some_and(|code| codes.contains(&code)) {
            return Ok(self);
        }
        let ended = self.status.to_string();
        Err(LessonError::Program { command: self.command, ended, said: last_words(&self.stderr) })
    }
}

fn last_words(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.trim().lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
    if last.is_empty() { String::new() } else { format!(", saying\n    {last}") }
}

/// What a learner has set for a broker of theirs, and what would change what our programs print.
const NOT_THEIRS: [&str; 4] = ["AMQP_URL", "AMQP_PASSWORD", "AMQP_PASSWORD_FILE", "RUST_LOG"];
const LAST_LINES: usize = 8;
const DIES: Duration = Duration::from_secs(10);
