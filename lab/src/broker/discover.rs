//! Which server to start when nobody names one.

use super::{
    LabError, Server, debian,
    run::run,
    server::{IMAGE, find},
};
use std::{env, path::Path, time::Duration};
use tokio::{process::Command, sync::OnceCell};

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
            return Self::from_word(&command).await;
        }
        // Asking Docker takes seconds, and tests ask again and again.
        static FOUND: OnceCell<Server> = OnceCell::const_new();
        FOUND.get_or_try_init(search).await.cloned()
    }

    /// The server in the packages of this Debian or Ubuntu, even where another one would be found before it.
    ///
    /// # Errors
    ///
    /// When the packages cannot be downloaded or unpacked.
    ///
    /// # Cancel safety
    ///
    /// As [`Server::discover`].
    pub async fn debian() -> Result<Self, LabError> {
        debian::unpacked().await.map(Self::programs)
    }

    /// `debian`, or a command that [`Server::from_command`] understands.
    pub(super) async fn from_word(word: &str) -> Result<Self, LabError> {
        if word.trim() == "debian" { Self::debian().await } else { Self::from_command(word) }
    }
}

async fn search() -> Result<Server, LabError> {
    let mut tried = Vec::new();
    match on_this_machine() {
        Ok(server) => return Ok(server),
        Err(why) => tried.push(why),
    }
    match in_docker().await {
        Ok(server) => return Ok(server),
        Err(why) => tried.push(why),
    }
    match Server::debian().await {
        Ok(server) => return Ok(server),
        Err(why) => tried.push(format!("packages of this Debian or Ubuntu: {}", in_one_line(&why))),
    }
    Err(LabError::NoServer { tried })
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
    run(&mut docker(&["info"]), ENGINE_ANSWERS).await.map_err(|error| format!("Docker: {}", in_one_line(&error)))?;
    if run(&mut docker(&["image", "inspect", IMAGE]), ENGINE_ANSWERS).await.is_err() {
        run(&mut docker(&["pull", "--quiet", IMAGE]), IMAGE_COMES)
            .await
            .map_err(|error| format!("Docker: {}", in_one_line(&error)))?;
    }
    Ok(Server::image(IMAGE))
}

/// What went wrong, of a program that says much the last line.
fn in_one_line(error: &LabError) -> String {
    match error {
        LabError::CommandFailed { command, output, .. } => {
            format!("`{command}` says: {}", output.lines().last().unwrap_or("nothing"))
        }
        other => other.to_string(),
    }
}

const ENGINE_ANSWERS: Duration = Duration::from_secs(10);
const IMAGE_COMES: Duration = Duration::from_secs(300);
