//! A node as a process of this machine: its environment, its start, the signals that it gets.

use super::{
    LabError,
    run::last_lines,
    server::Programs,
    watchdog::{MARK, ONLY_WHILE_WATCHED},
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    env,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::Mutex;
use uuid::Uuid;

/// The process, when it runs, and all that is needed to start it again in the same place.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    programs: Programs,
    folder: PathBuf,
    distribution_port: u16,
    epmd_port: u16,
    // Not tokio's: that one belongs to a runtime, and a node outlives the runtime of the test that started it.
    child: Mutex<Option<Child>>,
}

impl NodeProcess {
    pub(crate) fn new(
        programs: Programs,
        folder: &Path,
        distribution_port: u16,
        epmd_port: u16,
    ) -> Result<Self, LabError> {
        for inner in ["home", "data", "log"] {
            let path = folder.join(inner);
            fs::create_dir_all(&path).map_err(LabError::file("create", &path))?;
        }
        let cookie = folder.join("home/.erlang.cookie");
        let _ = fs::remove_file(&cookie);
        fs::write(&cookie, Uuid::now_v7().simple().to_string()).map_err(LabError::file("write", &cookie))?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).map_err(LabError::file("protect", &cookie))?;
        Ok(Self { programs, folder: folder.to_owned(), distribution_port, epmd_port, child: Mutex::new(None) })
    }

    /// Starts the process; it is not ready yet.
    pub(crate) async fn start(&self) -> Result<(), LabError> {
        let mut child = self.child.lock().await;
        let console = self.folder.join("log/console");
        let printed =
            File::options().create(true).append(true).open(&console).map_err(LabError::file("open", &console))?;
        let also_printed = printed.try_clone().map_err(LabError::file("open", &console))?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(ONLY_WHILE_WATCHED).arg("sh").arg(&self.folder).args(&self.programs.server);
        self.environment(&mut command);
        command.stdin(Stdio::null()).stdout(printed).stderr(also_printed).process_group(0).current_dir(&self.folder);
        *child = Some(
            command
                .spawn()
                .map_err(|source| LabError::CannotRun { program: self.programs.server.join(" "), source })?,
        );
        Ok(())
    }

    /// Whether the process is there. It may be stopped in its tracks, or not ready.
    pub(crate) async fn is_alive(&self) -> bool {
        self.child.lock().await.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a signal to the node and its group.
    pub(crate) async fn signal(&self, name: &str, signal: Signal) -> Result<(), LabError> {
        let child = self.child.lock().await;
        let Some(child) = child.as_ref() else {
            return Err(LabError::NotRunning { name: name.to_owned() });
        };
        let group = Pid::from_raw(child.id().cast_signed());
        killpg(group, signal).map_err(|errno| LabError::Signal { name: name.to_owned(), source: errno.into() })
    }

    /// Waits until the process has ended and is forgotten by the system.
    pub(crate) async fn ended(&self, deadline: Duration) -> Result<(), LabError> {
        let until = Instant::now() + deadline;
        let mut child = self.child.lock().await;
        while let Some(running) = child.as_mut() {
            match running.try_wait() {
                Ok(None) if Instant::now() < until => tokio::time::sleep(LOOK_AGAIN).await,
                Ok(None) => return Err(LabError::timed_out("the end of the node's process", deadline)),
                Ok(Some(_)) | Err(_) => *child = None,
            }
        }
        Ok(())
    }

    /// `rabbitmqctl` for this node, ready for its arguments.
    pub(crate) fn ctl(&self) -> tokio::process::Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(ONLY_WHILE_WATCHED).arg("sh").arg(&self.folder).args(&self.programs.ctl);
        self.environment(&mut command);
        command.current_dir(&self.folder);
        command.into()
    }

    /// The end of what the node logged and printed.
    pub(crate) fn log_tail(&self) -> String {
        let folder = self.folder.join("log");
        let mut text = String::new();
        let mut logs: Vec<PathBuf> =
            fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
        logs.sort();
        for log in logs {
            let content = fs::read(&log).unwrap_or_default();
            let end = last_lines(String::from_utf8_lossy(&content).trim_end(), 15);
            if !end.is_empty() {
                text.push_str(&format!("--- {}\n{end}\n", log.file_name().unwrap_or_default().to_string_lossy()));
            }
        }
        text
    }

    /// When the newest quorum queue came into being: RabbitMQ makes a folder for each.
    pub(crate) fn newest_quorum_queue(&self) -> Option<SystemTime> {
        let queues = self.folder.join(format!("data/{NODE_NAME}/quorum/{NODE_NAME}"));
        let folders = fs::read_dir(queues).ok()?.filter_map(Result::ok).filter_map(|entry| entry.metadata().ok());
        folders.filter(fs::Metadata::is_dir).filter_map(|folder| folder.created().ok()).max()
    }

    fn environment(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            // Whatever the user has set for a broker of their own.
            let text = name.to_string_lossy();
            if ["RABBITMQ_", "ERL_", "ELIXIR_"].iter().any(|prefix| text.starts_with(prefix))
                || text == "CONF_ENV_FILE"
                || text == "AMQP_URL"
            {
                command.env_remove(name);
            }
        }
        let path = |inner: &str| self.folder.join(inner);
        command
            .env(MARK, &self.folder)
            .env("HOME", path("home"))
            .env("RABBITMQ_NODENAME", NODE_NAME)
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ON_LOOPBACK)
            .env("RABBITMQ_CTL_ERL_ARGS", ON_LOOPBACK)
            .env("RABBITMQ_CTL_DIST_PORT_MAX", "36671")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_MAX_PORTS", "4096")
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            // The script then becomes the node, and the signals meant for the node reach it.
            .env("RUNNING_UNDER_SYSTEMD", "1")
            .env("LC_ALL", "C.UTF-8")
            .envs(self.programs.environment.iter().map(|(name, value)| (name, value)));
    }
}

const NODE_NAME: &str = "rabbit@localhost";
const ON_LOOPBACK: &str = "-kernel inet_dist_use_interface {127,0,0,1}";
const LOOK_AGAIN: Duration = Duration::from_millis(5);
