//! A node as a Docker container: the same faults, by `docker kill`, `docker pause` and `docker start`.

use super::{LabError, node_files::NODE_FILES, run::run};
use std::{path::Path, time::Duration};
use tokio::process::Command;

/// A container that was made for one node. The watchdog removes it.
#[derive(Debug)]
pub(crate) struct NodeContainer {
    name: String,
}

impl NodeContainer {
    /// The container's name, from the node's folder.
    pub(crate) fn name_for(folder: &Path) -> String {
        folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Creates the container with its files, and with ports outside for those inside; it does not run yet.
    pub(crate) async fn create(image: &str, folder: &Path, ports: &[(Option<u16>, u16)]) -> Result<Self, LabError> {
        let name = Self::name_for(folder);
        let mut create = docker(&["create", "--hostname", "correio-lab", "--name", &name]);
        for (outside, inside) in ports {
            if let Some(outside) = outside {
                create.args(["-p", &format!("127.0.0.1:{outside}:{inside}")]);
            }
        }
        run(create.arg(image), IMAGE_COMES).await?;
        let container = Self { name };
        for file in NODE_FILES.iter().filter(|file| folder.join(file).exists()) {
            let to = format!("{}:{FILES_INSIDE}/{file}", container.name);
            run(docker(&["cp"]).arg(folder.join(file)).arg(to), ENGINE_ANSWERS).await?;
        }
        Ok(container)
    }

    pub(crate) async fn start(&self) -> Result<(), LabError> {
        self.docker("start").await
    }

    pub(crate) async fn kill(&self) -> Result<(), LabError> {
        self.docker("kill").await?;
        run(docker(&["wait"]).arg(&self.name), ENGINE_ANSWERS).await.map(drop)
    }

    pub(crate) async fn stop(&self) -> Result<(), LabError> {
        run(docker(&["stop", "--time", "60"]).arg(&self.name), Duration::from_secs(80)).await.map(drop)
    }

    pub(crate) async fn pause(&self) -> Result<(), LabError> {
        self.docker("pause").await
    }

    pub(crate) async fn resume(&self) -> Result<(), LabError> {
        self.docker("unpause").await
    }

    pub(crate) async fn is_alive(&self) -> bool {
        let mut inspect = docker(&["inspect", "--format", "{{.State.Running}}"]);
        run(inspect.arg(&self.name), ENGINE_ANSWERS).await.is_ok_and(|answer| answer.trim() == "true")
    }

    pub(crate) fn ctl(&self) -> Command {
        let mut command = docker(&["exec"]);
        command.arg(&self.name).arg("rabbitmqctl");
        command
    }

    pub(crate) async fn log_tail(&self) -> String {
        let mut logs = docker(&["logs", "--tail", "40"]);
        run(logs.arg(&self.name), ENGINE_ANSWERS).await.unwrap_or_else(|error| error.to_string())
    }

    async fn docker(&self, verb: &str) -> Result<(), LabError> {
        run(docker(&[verb]).arg(&self.name), ENGINE_ANSWERS).await.map(drop)
    }
}

fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments);
    command
}

/// Where the image reads its configuration.
pub(crate) const FILES_INSIDE: &str = "/etc/rabbitmq";
/// The AMQP port inside the container.
pub(crate) const AMQP_INSIDE: u16 = 5672;
/// The dashboard's port inside the container.
pub(crate) const DASHBOARD_INSIDE: u16 = 15672;
/// The port for AMQP over TLS inside the container.
pub(crate) const TLS_INSIDE: u16 = 5671;
const ENGINE_ANSWERS: Duration = Duration::from_secs(30);
const IMAGE_COMES: Duration = Duration::from_secs(300);
