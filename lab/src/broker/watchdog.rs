//! Nothing is left behind, whatever ends this process, SIGKILL included.
//!
//! Each node has a small shell beside it whose standard input is a pipe from us. The kernel closes that pipe when we end, in
//! whatever way; the shell then kills every process that carries the node's mark in its environment (the
//! node, its helpers, its epmd, a `rabbitmqctl` under way) and removes the node's folder. The shell also creates that folder, so
//! that there is no moment in which the folder exists and the shell does not.
//!
//! A PostgreSQL server and a small disk have one as well. PostgreSQL's processes write their title over their environment, mark
//! included: they are known by their standard error, which is a file of the folder.

use super::LabError;
use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The environment variable by which the watchdog knows a node's processes. Its value is the node's folder.
pub(crate) const MARK: &str = "CORREIO_LAB_NODE";

/// A shell that cleans up when it is dropped, or when this process ends.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    folder: PathBuf,
}

impl Watchdog {
    /// Starts the shell, and with it the node's folder. `farewell` is a command that the shell runs at the end as well.
    pub(crate) async fn start(parent: &Path, farewell: impl FnOnce(&Path) -> Vec<String>) -> Result<Self, LabError> {
        let folder = parent.join(format!("correio-lab-{}", Uuid::now_v7().simple()));
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(SCRIPT).arg("correio-lab-watchdog").arg(&folder).args(farewell(&folder));
        // A group of its own: Ctrl-C in a terminal reaches this process, which then decides.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).env_remove(MARK);
        let shell = shell.spawn().map_err(|source| LabError::CannotRun { program: "sh".to_owned(), source })?;
        let mut watchdog = Self { shell, folder };
        let deadline = Instant::now() + PATIENCE;
        while !watchdog.folder.is_dir() {
            if let Ok(Some(_)) = watchdog.shell.try_wait() {
                let action = "create (the watchdog cannot)";
                return Err(LabError::File {
                    action,
                    path: watchdog.folder,
                    source: std::io::Error::other("its parent folder is not writable, or is not there"),
                });
            }
            if Instant::now() > deadline {
                return Err(LabError::timed_out("starting the watchdog", PATIENCE));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(watchdog)
    }

    /// The node's folder: there until the watchdog ends.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends everything that carries the mark, removes the folder, and waits until that is done.
    pub(crate) async fn end(mut self) -> Result<(), LabError> {
        drop(self.shell.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.shell.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return Err(LabError::timed_out(format!("clearing {}", self.folder.display()), PATIENCE));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// Starts a program of the node, unless the watchdog has begun to clear up: `sh -c ONLY_WHILE_WATCHED sh FOLDER PROGRAM ARG…`.
///
/// The shell carries the mark before it looks for the folder, so either it sees that the watchdog has begun, or the watchdog
/// sees it.
pub(crate) const ONLY_WHILE_WATCHED: &str = r#"[ -d "$1" ] && [ ! -e "$1/closing" ] || exit 1; shift; exec "$@""#;

const SCRIPT: &str = r#"
trap '' HUP INT TERM
folder=$1; shift
# Not with -m: that sets the mode a second time, when we may have changed it.
(umask 077 && mkdir "$folder") || exit 1
real=$(cd "$folder" && pwd -P)
while read -r _; do :; done
: > "$folder/closing"
marked() {
    if [ -r /proc/self/environ ]; then
        grep -ls -- "CORREIO_LAB_NODE=$folder" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do echo "$pid"; done
        ls -l /proc/[0-9]*/fd/2 2>/dev/null | while read -r line; do
            case $line in
                *" -> $real/"*) line=${line#*/proc/}; echo "${line%%/*}" ;;
            esac
        done
    else
        ps axeww -o pid=,command= | while read -r pid line; do
            case $line in *"CORREIO_LAB_NODE=$folder"*) echo "$pid" ;; esac
        done
    fi
}
rounds=0
while [ $rounds -lt 100 ]; do
    alive=$(marked)
    [ -n "$alive" ] || break
    for pid in $alive; do kill -KILL "$pid" 2>/dev/null; done
    rounds=$((rounds + 1))
    sleep 0.05
done
[ $# -eq 0 ] || "$@" >/dev/null 2>&1
rm -rf "$folder"
"#;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
