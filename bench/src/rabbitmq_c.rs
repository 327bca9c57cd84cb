//! The C peer: `c/confirmed.c`, compiled on the spot against rabbitmq-c.
//!
//! The library is the machine's own where its development files are installed; else they are fetched from the distribution's
//! `librabbitmq-dev` and unpacked under `target/lab`, without root, as the lab does with RabbitMQ itself.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    time::Duration,
};

use correio_lab::fetched;
use tempfile::TempDir;
use tokio::process::Command;

use crate::Error;

/// The compiled program. Dropping it removes it.
#[derive(Debug)]
pub struct Program {
    folder: TempDir,
    environment: Vec<(String, OsString)>,
}

impl Program {
    /// Compiles it.
    ///
    /// # Errors
    ///
    /// Why this peer has to be left out: no compiler, or no library.
    pub async fn build() -> Result<Self, Error> {
        let compiler = compiler().await.ok_or("no C compiler (looked for cc, gcc and clang)")?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join(SOURCE), include_str!("../c/confirmed.c"))?;
        let compile = |library: &str| {
            let mut command = Command::new(compiler);
            command.args(["-O2", "-std=gnu11", SOURCE, "-o", PROGRAM, library]).current_dir(folder.path());
            command
        };
        if fetched::run(&mut compile("-lrabbitmq"), COMPILED).await.is_ok() {
            return Ok(Self { folder, environment: Vec::new() });
        }
        let root = fetched::package("librabbitmq-dev")
            .await
            .map_err(|error| format!("rabbitmq-c is not installed, and librabbitmq-dev cannot be had: {error}"))?;
        let environment = fetched::environment(&root, "usr/bin");
        let libraries = environment.iter().find(|(name, _)| name == "LD_LIBRARY_PATH").map(|(_, folders)| folders);
        let mut command = compile(&named_exactly(libraries));
        command.arg("-I").arg(root.join("usr/include")).envs(environment.iter().cloned());
        if let Some(folders) = libraries {
            command.env("LIBRARY_PATH", folders);
        }
        fetched::run(&mut command, COMPILED).await?;
        Ok(Self { folder, environment })
    }

    /// The program, about to be run.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.folder.path().join(PROGRAM));
        command.envs(self.environment.iter().cloned());
        command
    }
}

async fn compiler() -> Option<&'static str> {
    for name in ["cc", "gcc", "clang"] {
        if fetched::run(Command::new(name).arg("--version"), COMPILED).await.is_ok() {
            return Some(name);
        }
    }
    None
}

/// The development package's `librabbitmq.so` is a link that leads nowhere when the library itself is installed and so was not
/// unpacked beside it. The linker finds that one by the name that the link has.
fn named_exactly(folders: Option<&OsString>) -> String {
    let links = std::env::split_paths(folders.map_or(OsStr::new(""), OsString::as_os_str));
    let target = links.filter_map(|folder| fs::read_link(folder.join("librabbitmq.so")).ok()).next();
    let name = target.as_deref().and_then(Path::file_name).map(OsStr::to_string_lossy);
    name.map_or_else(|| "-lrabbitmq".to_owned(), |name| format!("-l:{name}"))
}

const SOURCE: &str = "confirmed.c";
const PROGRAM: &str = "confirmed";
const COMPILED: Duration = Duration::from_secs(120);
