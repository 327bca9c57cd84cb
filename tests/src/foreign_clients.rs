//! Clients in other languages, and the examples that are written for them.
//!
//! They are fetched into `target/lab` when a test first wants them, in versions that are named here. That needs Python with
//! pip, Node with npm, and for amqp-tools a Debian or Ubuntu, unless it is installed. Where one cannot be had, its tests are
//! left out, which is said; with `CI=true` they fail.

use std::{
    env,
    ffi::OsString,
    fmt,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use correio_lab::{broker::LabError, fetched};
use tokio::process::Command;

use crate::programs::Program;

/// A client that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// pika.
    Python,
    /// amqplib.
    Node,
    /// Debian's amqp-tools.
    Shell,
}

/// A client that can be run.
#[derive(Clone, Debug)]
pub struct Ready {
    client: Client,
    environment: Vec<(String, OsString)>,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Python, Self::Node, Self::Shell];

    /// The client, fetched if need be. `None` if it cannot be had, after saying so.
    ///
    /// # Panics
    ///
    /// With `CI=true` if it cannot be had.
    pub async fn ready(self) -> Option<Ready> {
        match self.environment().await {
            Ok(environment) => Some(Ready { client: self, environment }),
            Err(error) if env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{self}: {error}"),
            Err(error) => {
                // Past the test harness, which would keep the words of a test that passes to itself.
                let _ = writeln!(std::io::stderr(), "LEFT OUT, a test with {self}: {error}");
                None
            }
        }
    }

    async fn environment(self) -> Result<Vec<(String, OsString)>, LabError> {
        match self {
            Self::Python => {
                let home = fetched::once(&format!("python-pika-{PIKA}"), async |part| {
                    let mut pip = Command::new("python3");
                    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
                    // A folder of its own also where the distribution keeps others out of its Python.
                    pip.arg("--target").arg(part).arg(format!("pika=={PIKA}"));
                    fetched::run(&mut pip, PACKAGE_COMES).await.map(drop)
                })
                .await?;
                Ok(vec![("PYTHONPATH".to_owned(), home.into())])
            }
            Self::Node => {
                let home = fetched::once(&format!("node-amqplib-{AMQPLIB}"), async |part| {
                    let mut npm = Command::new("npm");
                    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
                    npm.arg(part).arg(format!("amqplib@{AMQPLIB}"));
                    fetched::run(&mut npm, PACKAGE_COMES).await.map(drop)
                })
                .await?;
                Ok(vec![("NODE_PATH".to_owned(), home.join("node_modules").into())])
            }
            Self::Shell if is_on_the_path("amqp-publish") => Ok(Vec::new()),
            Self::Shell => Ok(fetched::environment(&fetched::package("amqp-tools").await?, "usr/bin")),
        }
    }
}

/// With what it needs of the machine.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Python => "pika (needs python3 with pip)",
            Self::Node => "amqplib (needs node and npm)",
            Self::Shell => "amqp-tools (installed, or from the packages of Debian or Ubuntu)",
        })
    }
}

impl Ready {
    /// Which one it is.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client
    }

    /// An example for this client: `example("consumer", "send")`.
    pub fn example(&self, of: &str, name: &str) -> Program {
        let (program, extension) = match self.client {
            Client::Python => ("python3", "py"),
            Client::Node => ("node", "js"),
            Client::Shell => ("sh", "sh"),
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../{of}/examples/interop/{name}.{extension}"));
        let example = Program::at(program).args([script]);
        self.environment.iter().fold(example, |example, (name, value)| example.env(name, value))
    }
}

fn is_on_the_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder: PathBuf| folder.join(program)).any(|file| file.is_file())
}

const PIKA: &str = "1.4.4";
const AMQPLIB: &str = "2.3.1";
const PACKAGE_COMES: Duration = Duration::from_secs(180);
