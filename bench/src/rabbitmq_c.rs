//! The C peers: `c/confirmed.c` and `c/consumed.c`, compiled on the spot against rabbitmq-c.
//!
//! The library is the machine's own where its development files are installed; else they are fetched from the distribution's
//! `librabbitmq-dev` and unpacked under `target/lab`, without root, as the lab does with RabbitMQ itself.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use correio_lab::fetched;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Error, Way};

/// The compiled programs. Dropping them removes them.
#[derive(Debug)]
pub struct Programs {
    folder: TempDir,
    environment: Vec<(String, OsString)>,
}

/// A program for a way.
pub(crate) struct Source {
    pub(crate) way: Way,
    program: &'static str,
    text: &'static str,
}

pub(crate) const SOURCES: [Source; 2] = [
    Source { way: Way::RabbitmqC, program: "confirmed", text: include_str!("../c/confirmed.c") },
    Source { way: Way::ConsumeRabbitmqC, program: "consumed", text: include_str!("../c/consumed.c") },
];

impl Programs {
    /// Compiles them.
    ///
    /// # Errors
    ///
    /// Why these peers have to be left out: no compiler, or no library.
    pub async fn build() -> Result<Self, Error> {
        let compiler = compiler().await.ok_or("no C compiler (looked for cc, gcc and clang)")?;
        let folder = tempfile::tempdir()?;
        let mut found: Option<Library> = None;
        for source in &SOURCES {
            let file = format!("{}.c", source.program);
            fs::write(folder.path().join(&file), source.text)?;
            let compile = |library: &str| {
                let mut command = Command::new(compiler);
                command.args(["-O2", "-std=gnu11", &file, "-o", source.program, library]).current_dir(folder.path());
                command
            };
            if found.is_none() && fetched::run(&mut compile("-lrabbitmq"), COMPILED).await.is_ok() {
                continue;
            }
            let library = match found.take() {
                Some(library) => library,
                None => Library::fetch().await?,
            };
            let mut command = compile(&library.name);
            library.tell(&mut command);
            fetched::run(&mut command, COMPILED).await?;
            found = Some(library);
        }
        let environment = found.map(|library| library.environment).unwrap_or_default();
        Ok(Self { folder, environment })
    }

    /// The program for this way, about to be run; `None` if it is none of C.
    #[must_use]
    pub fn command(&self, way: Way) -> Option<Command> {
        let source = SOURCES.iter().find(|source| source.way == way)?;
        let mut command = Command::new(self.folder.path().join(source.program));
        command.envs(self.environment.iter().cloned());
        Some(command)
    }
}

/// The library as unpacked under `target/lab`.
struct Library {
    root: PathBuf,
    environment: Vec<(String, OsString)>,
    /// What the linker is to look for.
    name: String,
}

impl Library {
    async fn fetch() -> Result<Self, Error> {
        let root = fetched::package("librabbitmq-dev")
            .await
            .map_err(|error| format!("rabbitmq-c is not installed, and librabbitmq-dev cannot be had: {error}"))?;
        let environment = fetched::environment(&root, "usr/bin");
        let name = named_exactly(folders(&environment));
        Ok(Self { root, environment, name })
    }

    fn tell(&self, compiler: &mut Command) {
        compiler.arg("-I").arg(self.root.join("usr/include")).envs(self.environment.iter().cloned());
        if let Some(folders) = folders(&self.environment) {
            compiler.env("LIBRARY_PATH", folders);
        }
    }
}

fn folders(environment: &[(String, OsString)]) -> Option<&OsString> {
    environment.iter().find(|(name, _)| name == "LD_LIBRARY_PATH").map(|(_, folders)| folders)
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

const COMPILED: Duration = Duration::from_secs(120);
