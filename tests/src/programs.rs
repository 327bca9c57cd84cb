//! Runs our programs as a user does: built once, started with arguments, judged by what they print and their exit
//! code.
//!
//! It panics where a test would: with what was waited for and what was printed instead.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Child,
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

/// Where a program or example of ours lies, freshly built: `program("consumer")`.
///
/// All programs are built on the first call; the others wait for it.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build);
    built.get(name).unwrap_or_else(|| panic!("no program {name}; there are {:?}", built.keys())).clone()
}

/// A program about to be started.
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Option<Vec<u8>>,
}

impl Program {
    /// A program of ours, by its name. It sees no `AMQP_URL` but one that the test gives it.
    pub fn new(name: &str) -> Self {
        Self::at(program(name))
    }

    /// Any program, such as a shell that runs ours in a pipeline.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new(), stdin: None }
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Gives it this as standard input; without, there is none.
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(input.into());
        self
    }

    /// Starts it. What it prints is read all the while.
    pub fn start(self) -> Run {
        let what = format!("{} {:?}", self.path.display(), self.args);
        let mut command = tokio::process::Command::new(&self.path);
        command
            .args(&self.args)
            .env_remove("AMQP_URL")
            .env_remove("RUST_LOG")
            .envs(self.env)
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{what} does not start: {e}"));
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), self.stdin) {
            // It may end before it has read everything: that is its right, and no failure of the test.
            tokio::spawn(async move {
                let _ = pipe.write_all(&input).await;
            });
        }
        let stdout = Printed::of(child.stdout.take());
        let stderr = Printed::of(child.stderr.take());
        Run { what, child, stdout, stderr }
    }

    /// Starts it and waits for its end.
    pub async fn finish(self, deadline: Duration) -> Ran {
        self.start().finish(deadline).await
    }
}

/// A program that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Run {
    what: String,
    child: Child,
    stdout: Printed,
    stderr: Printed,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All that it printed.
    pub stdout: String,
    /// All its messages.
    pub stderr: String,
}

impl Run {
    /// Its process id.
    ///
    /// # Panics
    ///
    /// If it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.what))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().expect("a pid is positive"));
        nix::sys::signal::kill(pid, signal).unwrap_or_else(|e| panic!("{signal} to {}: {e}", self.what));
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Its messages so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until what it prints satisfies a condition.
    pub async fn stdout_until(&self, deadline: Duration, wanted: &str, holds: impl Fn(&str) -> bool) {
        self.until(&self.stdout, deadline, wanted, holds).await;
    }

    /// Waits until its messages satisfy a condition.
    pub async fn stderr_until(&self, deadline: Duration, wanted: &str, holds: impl Fn(&str) -> bool) {
        self.until(&self.stderr, deadline, wanted, holds).await;
    }

    /// Waits until its messages say this.
    pub async fn stderr_says(&self, deadline: Duration, words: &str) {
        self.until(&self.stderr, deadline, words, |text| text.contains(words)).await;
    }

    async fn until(&self, printed: &Printed, deadline: Duration, wanted: &str, holds: impl Fn(&str) -> bool) {
        let met = timeout(deadline, async {
            loop {
                // Asked for before looking, so that what is printed in between is not missed.
                let more = printed.shared.more.notified();
                if holds(&printed.text()) {
                    return;
                }
                more.await;
            }
        });
        if met.await.is_err() {
            panic!("{} did not come to “{wanted}” in {deadline:?}{}", self.what, self.so_far());
        }
    }

    /// Waits for its end. Closing its pipes belongs to it.
    pub async fn finish(mut self, deadline: Duration) -> Ran {
        let Ok(status) = timeout(deadline, self.child.wait()).await else {
            panic!("{} did not end in {deadline:?}{}", self.what, self.so_far());
        };
        let status = status.unwrap_or_else(|e| panic!("{}: {e}", self.what));
        // A grandchild may keep a pipe open: what the program itself printed is read by then.
        let _ =
            timeout(Duration::from_secs(5), async { tokio::join!(&mut self.stdout.reader, &mut self.stderr.reader) })
                .await;
        Ran { code: status.code(), stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill(self) -> Ran {
        self.signal(Signal::SIGKILL);
        self.finish(Duration::from_secs(30)).await
    }

    fn so_far(&self) -> String {
        format!("\n--- stdout\n{}\n--- stderr\n{}", self.stdout(), self.stderr())
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// One pipe, read to its end in a task.
#[derive(Debug)]
struct Printed {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: Mutex<Vec<u8>>,
    more: Notify,
}

impl Printed {
    fn of(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let shared = Arc::<Shared>::default();
        let reader = tokio::spawn(read(pipe, shared.clone()));
        Self { shared, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, shared: Arc<Shared>) {
    let Some(mut pipe) = pipe else { return };
    let mut piece = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = pipe.read(&mut piece).await {
        let mut bytes = shared.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(bytes.len() + n <= MOST_PRINTED, "more than {MOST_PRINTED} bytes printed");
        bytes.extend_from_slice(&piece[..n]);
        drop(bytes);
        shared.more.notify_waiters();
    }
}

/// Builds every program and example and asks cargo where it put them, whatever the target directory is.
fn build() -> BTreeMap<String, PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--bins",
            "--examples",
            "--message-format=json-render-diagnostics",
            "--manifest-path",
        ])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // What cargo told this process would be a change to build scripts that look at it: much would be built again, here and
    // again the next time.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_MANIFEST") || name.starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
    }
    let built = cargo.stderr(Stdio::inherit()).output().unwrap_or_else(|e| panic!("cargo does not start: {e}"));
    assert!(built.status.success(), "cargo build --bins --examples: {}", built.status);
    String::from_utf8_lossy(&built.stdout).lines().filter_map(executable).collect()
}

fn executable(line: &str) -> Option<(String, PathBuf)> {
    let said: serde_json::Value = serde_json::from_str(line).ok()?;
    let name = said.get("target")?.get("name")?.as_str()?;
    let path = said.get("executable")?.as_str()?;
    Some((name.to_owned(), path.into()))
}

const MOST_PRINTED: usize = 256 * 1024 * 1024;
