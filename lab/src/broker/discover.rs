//! Which server to start when nobody names one.

use super::{
    LabError, Server, debian,
    run::run,
    server::{IMAGE, find},
};
use std::{env, path::Path, time::Duration};
use tokio::process::Command;

impl Server {
    /// Finds a server: the command in `RABBITMQ_SERVER`, else the machine's own, else Docker, else the packages of a
    /// Debian or Ubuntu, unpacked under `target/lab/` (once; nothing is installed and no root is needed).
    ///
    /// # Errors
    ///
    /// [`LabError::NotAServer`] when `RABBITMQ_SERVER` names none; [`LabError::NoServer`] when there is no way to get one, with
    /// what was tried.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a download that is broken off leaves nothing that a later one would take for complete.
    pub async fn discover() -> Result<Self, LabError> {
        if let Some(command) = env::var("RABBITMQ_SERVER").ok().filter(|command| !command.trim().is_empty()) {
            return Self::from_command(&command);
        }
        let mut tried = Vec::new();
        match on_this_machine() {
            Ok(server) => return Ok(server),
            Err(why) => tried.push(why),
        }
        match in_docker().await {
            Ok(server) => return Ok(server),
            Err(why) => tried.push(why),
        }
        match debian::unpacked().await {
            Ok(programs) => return Ok(Self::programs(programs)),
            Err(why) => tried.push(format!("packages of this Debian or Ubuntu: {why}")),
        }
        Err(LabError::NoServer { tried })
    }
}

fn on_this_machine() -> Result<Server, String> {
    // Where Debian, Ubuntu, Fedora and others keep the real program. The one that they put on the path is a wrapper that
    // insists on being root.
    const BEHIND_THE_WRAPPER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
    if Path::new(BEHIND_THE_WRAPPER).is_file() {
        return Server::from_command(BEHIND_THE_WRAPPER).map_err(|error| error.to_string());
    }
    let found = find("rabbitmq-server").ok_or("installed: no rabbitmq-server on the path")?;
    Server::from_command(&found.to_string_lossy()).map_err(|error| error.to_string())
}

async fn in_docker() -> Result<Server, String> {
    find("docker").ok_or("Docker: no docker on the path")?;
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.args(arguments);
        command
    };
    run(&mut docker(&["info"]), ENGINE_ANSWERS).await.map_err(|error| format!("Docker: {error}"))?;
    if run(&mut docker(&["image", "inspect", IMAGE]), ENGINE_ANSWERS).await.is_err() {
        run(&mut docker(&["pull", "--quiet", IMAGE]), IMAGE_COMES).await.map_err(|error| format!("Docker: {error}"))?;
    }
    Ok(Server::image(IMAGE))
}

const ENGINE_ANSWERS: Duration = Duration::from_secs(10);
const IMAGE_COMES: Duration = Duration::from_secs(300);
