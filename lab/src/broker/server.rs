//! What to start: a server's command line, or a container image.

use super::LabError;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// A RabbitMQ server that nodes can be started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub(crate) kind: ServerKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// Programs of this machine.
    Programs(Programs),
    /// An image for `docker run`.
    Image(String),
}

/// The two programs of an installed RabbitMQ that the lab needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Programs {
    /// The command that starts a server and becomes it.
    pub(crate) server: Vec<String>,
    /// Its `rabbitmqctl`.
    pub(crate) ctl: Vec<String>,
    /// What both need in their environment to be found where they lie.
    pub(crate) environment: Vec<(String, OsString)>,
}

impl Server {
    /// A server from the command line that starts it, split at spaces.
    ///
    /// Three forms are understood: `…/rabbitmq-server`, with its `rabbitmqctl` beside it; a program with the argument
    /// `server` that has an argument `ctl` too; and `docker`, optionally with an image.
    ///
    /// # Errors
    ///
    /// [`LabError::NotAServer`] when the command line has none of these forms, or its program is not there.
    pub fn from_command(command: &str) -> Result<Self, LabError> {
        let refuse = |why: String| LabError::NotAServer { command: command.to_owned(), why };
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let Some((program, arguments)) = words.split_first() else {
            return Err(refuse("it is empty".to_owned()));
        };
        if program == "docker" {
            return match arguments {
                [] => Ok(Self::image(IMAGE)),
                [image] => Ok(Self::image(image)),
                _ => Err(refuse("write `docker` or `docker IMAGE`".to_owned())),
            };
        }
        let program = find(program).ok_or_else(|| refuse(format!("there is no program {program}")))?;
        let name = program.to_string_lossy().into_owned();
        let ctl = if let Some(stem) = name.strip_suffix("rabbitmq-server") {
            let beside = format!("{stem}rabbitmqctl");
            if !Path::new(&beside).is_file() {
                return Err(refuse(format!("its companion {beside} is missing")));
            }
            vec![beside]
        } else if arguments.last().is_some_and(|last| last == "server") {
            let mut ctl = vec![name.clone()];
            ctl.extend(arguments[..arguments.len() - 1].iter().cloned());
            ctl.push("ctl".to_owned());
            ctl
        } else {
            return Err(refuse("it ends neither in `rabbitmq-server` nor in ` server`".to_owned()));
        };
        let server = std::iter::once(name).chain(arguments.iter().cloned()).collect();
        Ok(Self::programs(Programs { server, ctl, environment: Vec::new() }))
    }

    /// A server from a container image, run with `docker`.
    pub fn image(image: impl Into<String>) -> Self {
        Self { kind: ServerKind::Image(image.into()) }
    }

    pub(crate) fn programs(programs: Programs) -> Self {
        Self { kind: ServerKind::Programs(programs) }
    }
}

/// How a person would start it.
impl std::fmt::Display for Server {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            ServerKind::Programs(programs) => out.write_str(&programs.server.join(" ")),
            ServerKind::Image(image) => write!(out, "docker {image}"),
        }
    }
}

/// The program of this name: a path as it is, a plain name along `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return path.is_file().then_some(path);
    }
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The image that is run when none is named.
pub(crate) const IMAGE: &str = "rabbitmq:4.3-management";

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn programs(command: &str) -> Programs {
        match Server::from_command(command).expect("a server").kind {
            ServerKind::Programs(programs) => programs,
            ServerKind::Image(image) => panic!("{image}"),
        }
    }

    #[test]
    fn the_ctl_of_a_rabbitmq_server_lies_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        fs::write(path("rabbitmq-server"), "").expect("written");
        let missing = Server::from_command(&path("rabbitmq-server")).expect_err("no ctl");
        assert!(missing.to_string().contains("rabbitmqctl is missing"), "{missing}");
        fs::write(path("rabbitmqctl"), "").expect("written");
        let found = programs(&path("rabbitmq-server"));
        assert_eq!((found.server, found.ctl), (vec![path("rabbitmq-server")], vec![path("rabbitmqctl")]));
    }

    #[test]
    fn a_script_with_the_argument_server_has_one_called_ctl() {
        let folder = tempfile::tempdir().expect("folder");
        let script = folder.path().join("rabbitmq4").to_string_lossy().into_owned();
        fs::write(&script, "").expect("written");
        assert_eq!(programs(&format!("{script}  server")).ctl, [script, "ctl".to_owned()]);
    }

    #[test]
    fn docker_means_an_image() {
        assert_eq!(Server::from_command("docker").expect("server"), Server::image(IMAGE));
        assert_eq!(Server::from_command("docker rabbitmq:4.0").expect("server"), Server::image("rabbitmq:4.0"));
        assert!(Server::from_command("docker run rabbitmq").is_err());
    }

    #[test]
    fn a_command_that_is_not_there_is_an_error_that_names_it() {
        let error = Server::from_command("/nowhere/rabbitmq-server").expect_err("not there");
        assert!(error.to_string().contains("/nowhere/rabbitmq-server"), "{error}");
        assert!(Server::from_command("  ").is_err());
        assert!(Server::from_command("sh").is_err());
    }
}
