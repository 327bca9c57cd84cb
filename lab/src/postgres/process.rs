//! A server's processes: the first, whose child is every other, and the signals that they get.
//!
//! Each of the others leads a process group of its own and writes its title over its environment. What they have in common is
//! where they complain to: the console in the server's folder. By that they are found here, and by the watchdog.

use super::{PostgresError, account::Account, data, programs::PostgresPrograms};
use crate::broker::{LabError, ONLY_WHILE_WATCHED, run::last_lines};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// The processes, when they run, and all that is needed to start them again in the same place.
#[derive(Debug)]
pub(super) struct ServerProcess {
    programs: PostgresPrograms,
    account: Account,
    folder: PathBuf,
    // Not tokio's: that one belongs to a runtime, and a server may outlive the runtime of the test that started it.
    first: Mutex<Option<Child>>,
}

impl ServerProcess {
    pub(super) fn new(programs: PostgresPrograms, account: Account, folder: &Path) -> Self {
        Self { programs, account, folder: folder.to_owned(), first: Mutex::new(None) }
    }

    /// Starts the server; it is not ready yet.
    pub(super) async fn start(&self) -> Result<(), PostgresError> {
        let mut first = self.first.lock().await;
        let console = console_of(&self.folder);
        let printed =
            File::options().create(true).append(true).open(&console).map_err(LabError::file("open", &console))?;
        let postgres = self.programs.folder.join("postgres");
        let mut command = Command::new("sh");
        command.arg("-c").arg(ONLY_WHILE_WATCHED).arg("sh").arg(&self.folder).arg(&postgres).arg("-D");
        command.arg(self.folder.join("data"));
        data::environment(&mut command, &self.programs, &self.folder);
        self.account.apply(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(printed).process_group(0).current_dir(&self.folder);
        let program = postgres.display().to_string();
        *first = Some(command.spawn().map_err(|source| LabError::CannotRun { program, source })?);
        Ok(())
    }

    /// Whether the first process is there. It may be stopped in its tracks, or not ready.
    pub(super) async fn is_alive(&self) -> bool {
        self.first.lock().await.as_mut().is_some_and(|first| matches!(first.try_wait(), Ok(None)))
    }

    /// Kills them all at once: the first is stopped before, so that it makes no other meanwhile.
    pub(super) async fn kill(&self) -> Result<(), PostgresError> {
        self.pause().await?;
        self.signal_all(Signal::SIGKILL)?;
        self.ended(ENDS).await?;
        // Both name a process that is gone, and whose number somebody else may have by the next start.
        let socket = fs::read_dir(self.folder.join("socket")).into_iter().flatten().filter_map(Result::ok);
        for left in socket.map(|entry| entry.path()).chain([self.folder.join("data/postmaster.pid")]) {
            let _ = fs::remove_file(left);
        }
        Ok(())
    }

    /// Stops them all in their tracks, and waits until they stand still.
    pub(super) async fn pause(&self) -> Result<(), PostgresError> {
        let first = self.first_process().await?;
        signal(first, Signal::SIGSTOP)?;
        let deadline = Instant::now() + ENDS;
        while !stands_still(first) {
            look_again(deadline, "PostgreSQL to stand still").await?;
        }
        // From here on there are no new ones.
        self.signal_all(Signal::SIGSTOP)?;
        while !processes_of(&self.folder)?.into_iter().all(stands_still) {
            look_again(deadline, "PostgreSQL to stand still").await?;
        }
        Ok(())
    }

    pub(super) async fn resume(&self) -> Result<(), PostgresError> {
        self.first_process().await?;
        self.signal_all(Signal::SIGCONT)
    }

    /// Has the server close its connections and write what it has to, and waits for its end.
    pub(super) async fn stop(&self) -> Result<(), PostgresError> {
        signal(self.first_process().await?, Signal::SIGINT)?;
        self.resume().await?;
        self.ended(STOPS).await
    }

    /// Waits until every process has ended.
    pub(super) async fn ended(&self, patience: Duration) -> Result<(), PostgresError> {
        let deadline = Instant::now() + patience;
        let mut first = self.first.lock().await;
        while let Some(running) = first.as_mut() {
            match running.try_wait() {
                Ok(None) => look_again(deadline, "the end of PostgreSQL").await?,
                Ok(Some(_)) | Err(_) => *first = None,
            }
        }
        while !processes_of(&self.folder)?.is_empty() {
            look_again(deadline, "the end of PostgreSQL's processes").await?;
        }
        Ok(())
    }

    /// The end of what the server logged.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(console_of(&self.folder)).unwrap_or_default();
        last_lines(String::from_utf8_lossy(&log).trim_end(), 20)
    }

    async fn first_process(&self) -> Result<Pid, PostgresError> {
        let mut first = self.first.lock().await;
        let Some(running) = first.as_mut() else { return Err(PostgresError::NotRunning) };
        match running.try_wait() {
            Ok(None) => Ok(Pid::from_raw(running.id().cast_signed())),
            _ => Err(PostgresError::NotRunning),
        }
    }

    fn signal_all(&self, name: Signal) -> Result<(), PostgresError> {
        processes_of(&self.folder)?.into_iter().try_for_each(|process| signal(process, name))
    }
}

fn signal(process: Pid, name: Signal) -> Result<(), PostgresError> {
    match kill(process, name) {
        // It ended between our look and this.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(PostgresError::Signal { source: errno.into() }),
    }
}

/// The processes that complain to a file in this folder. The dead ones that nobody has asked after have no files any more.
fn processes_of(folder: &Path) -> Result<Vec<Pid>, LabError> {
    let Ok(folder) = folder.canonicalize() else { return Ok(Vec::new()) };
    let processes = fs::read_dir("/proc").map_err(LabError::file("find processes in", "/proc"))?;
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|to| to.starts_with(&folder));
    Ok(numbers.filter(ours).map(Pid::from_raw).collect())
}

fn stands_still(process: Pid) -> bool {
    // `15 (a name with ) in it) T 1 …`; one that is gone stands still too.
    let Ok(line) = fs::read_to_string(format!("/proc/{process}/stat")) else { return true };
    line.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
}

async fn look_again(deadline: Instant, awaited: &str) -> Result<(), LabError> {
    if Instant::now() > deadline {
        return Err(LabError::timed_out(format!("waiting for {awaited}"), ENDS));
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    Ok(())
}

fn console_of(folder: &Path) -> PathBuf {
    folder.join("console")
}

pub(super) const ENDS: Duration = Duration::from_secs(10);
const STOPS: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
