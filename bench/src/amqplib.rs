//! The Node peer: `js/consumed.js` on amqplib, which is fetched with npm into `target/lab`.

use std::{fs, path::PathBuf, time::Duration};

use correio_lab::fetched;
use tempfile::TempDir;
use tokio::process::Command;

use crate::Error;

/// The program, with the library that it needs. Dropping it removes it.
#[derive(Debug)]
pub struct Program {
    folder: TempDir,
    library: PathBuf,
}

impl Program {
    /// Writes it, and fetches the library if need be.
    ///
    /// # Errors
    ///
    /// Why this peer has to be left out: no Node, or no library.
    pub async fn fetch() -> Result<Self, Error> {
        fetched::run(Command::new("node").arg("--version"), ANSWERED)
            .await
            .map_err(|error| format!("no Node: {error}"))?;
        let library = fetched::once(&format!("node-amqplib-{AMQPLIB}"), async |part| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
            npm.arg(part).arg(format!("amqplib@{AMQPLIB}"));
            fetched::run(&mut npm, FETCHED).await.map(drop)
        })
        .await
        .map_err(|error| format!("amqplib cannot be had: {error}"))?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join(PROGRAM), include_str!("../js/consumed.js"))?;
        Ok(Self { folder, library: library.join("node_modules") })
    }

    /// The program, about to be run.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("node");
        command.arg(self.folder.path().join(PROGRAM)).env("NODE_PATH", &self.library);
        command
    }
}

const PROGRAM: &str = "consumed.js";
const AMQPLIB: &str = "2.3.1";
const ANSWERED: Duration = Duration::from_secs(20);
const FETCHED: Duration = Duration::from_secs(180);
