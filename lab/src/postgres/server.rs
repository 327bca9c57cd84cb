//! The server: started, killed, started again, paused and ended; its address and version.

use super::{
    PostgresError, PostgresPrograms,
    account::Account,
    data,
    hello::ask_version,
    process::{ENDS, ServerProcess},
};
use crate::broker::{Watchdog, free_port, run::run};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// A private PostgreSQL server with one empty database.
///
/// The user `correio` owns the database `correio` and comes in without a password, from this machine alone: such a server is for
/// tests. That user is no superuser. What it commits is on the disk (`fsync` is on).
///
/// Everything of the server (data, log, port, socket) is its own. Dropping it, or the end of this process in whatever way, ends
/// it and removes its folder; [`Postgres::close`] does so and waits. Where we are root it runs as `nobody`.
#[derive(Debug)]
pub struct Postgres {
    process: ServerProcess,
    port: u16,
    version: OnceLock<String>,
    watchdog: Watchdog,
}

impl Postgres {
    /// Starts a server from the programs that [`PostgresPrograms::discover`] finds, and waits until it answers.
    ///
    /// The first of a version takes seconds, as its empty database is made; the next take a fraction of one.
    ///
    /// # Errors
    ///
    /// As [`PostgresPrograms::discover`] and [`Postgres::start_from`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a server that is half up is ended.
    pub async fn start() -> Result<Self, PostgresError> {
        Self::start_from(&PostgresPrograms::discover().await?).await
    }

    /// Starts a server from these programs, and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`PostgresError::BootFailed`], with the end of the server's log, when it does not come up in a minute; others when it
    /// cannot be run at all.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a server that is half up is ended.
    pub async fn start_from(programs: &PostgresPrograms) -> Result<Self, PostgresError> {
        let mut tries_left = 2;
        loop {
            let server = Self::prepare(programs).await?;
            match server.boot().await {
                // Another process took the port between our look and the server's start.
                Err(PostgresError::BootFailed { log, .. })
                    if tries_left > 0 && log.contains("Address already in use") =>
                {
                    tries_left -= 1;
                }
                Err(error) => {
                    // The reason why it did not start says more than one why it cannot be cleared away.
                    let _ = server.close().await;
                    return Err(error);
                }
                Ok(()) => return Ok(server),
            }
        }
    }

    /// Where a client connects to: `postgres://correio@127.0.0.1:PORT/correio`. The same after each start.
    pub fn url(&self) -> String {
        self.url_through(self.address())
    }

    /// The URL through a proxy at that address.
    pub fn url_through(&self, proxy: SocketAddr) -> String {
        format!("postgres://correio@{proxy}/correio")
    }

    /// The port on 127.0.0.1: what a proxy leads to.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The version that the server gives itself, such as `15.18`.
    pub fn version(&self) -> &str {
        self.version.get().map_or("unknown", String::as_str)
    }

    /// The server's folder: its data, log and socket, until it is closed.
    pub fn folder(&self) -> &Path {
        self.watchdog.folder()
    }

    /// Whether the server runs. A paused one does.
    pub async fn is_running(&self) -> bool {
        self.process.is_alive().await
    }

    /// Kills every process of the server with SIGKILL, as a crash would, and waits until they are gone.
    ///
    /// # Errors
    ///
    /// [`PostgresError::NotRunning`], or a timeout when they will not die.
    ///
    /// # Cancel safety
    ///
    /// The server may be dead, paused or alive when this future is dropped. Calling it again does no harm.
    pub async fn kill(&self) -> Result<(), PostgresError> {
        self.process.kill().await
    }

    /// Stops the server as an operator would: it breaks off what its clients do and writes what it has to. Its data stay.
    ///
    /// # Errors
    ///
    /// [`PostgresError::NotRunning`], or a timeout when it is not done within a minute.
    ///
    /// # Cancel safety
    ///
    /// The server goes on stopping when this future is dropped. Calling it again does no harm.
    pub async fn stop(&self) -> Result<(), PostgresError> {
        self.process.stop().await
    }

    /// Starts the server again on the same port with the same data, and waits until it has recovered and answers. One that still
    /// runs is stopped first.
    ///
    /// # Errors
    ///
    /// [`PostgresError::BootFailed`] when it does not come up.
    ///
    /// # Cancel safety
    ///
    /// The server may be up or down when this future is dropped. Calling it again does no harm.
    pub async fn start_again(&self) -> Result<(), PostgresError> {
        if self.is_running().await {
            self.stop().await?;
        }
        self.boot().await
    }

    /// Stops every process of the server in its tracks (SIGSTOP), and waits until they stand still: connections stay open and
    /// nobody answers.
    ///
    /// # Errors
    ///
    /// [`PostgresError::NotRunning`].
    ///
    /// # Cancel safety
    ///
    /// The server may be paused, in parts too, when this future is dropped.
    pub async fn pause(&self) -> Result<(), PostgresError> {
        self.process.pause().await
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// [`PostgresError::NotRunning`].
    ///
    /// # Cancel safety
    ///
    /// The server may go on when this future is dropped.
    pub async fn resume(&self) -> Result<(), PostgresError> {
        self.process.resume().await
    }

    /// Ends the server, throws its data away, and waits until nothing of it is left.
    ///
    /// # Errors
    ///
    /// A timeout when something of it will not go.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what is left is cleared away in the background.
    pub async fn close(self) -> Result<(), PostgresError> {
        self.watchdog.end().await?;
        self.process.ended(ENDS).await
    }

    /// Makes the folder, the data and the configuration. Nothing runs yet.
    async fn prepare(programs: &PostgresPrograms) -> Result<Self, PostgresError> {
        let account = Account::for_servers().await?;
        let watchdog = Watchdog::start(&account.place()?, |_| Vec::new()).await?;
        let folder = watchdog.folder();
        account.let_through(folder)?;
        account.own_folder(&folder.join("socket"))?;
        let programs = match &programs.unpacked {
            // `target/lab` may lie in the home of root, where nobody else comes.
            Some(root) if !account.reaches(&programs.folder) => {
                let near = folder.join("programs");
                account.copy(root, &near)?;
                PostgresPrograms::unpacked_in(&near)?
            }
            _ => programs.clone(),
        };
        data::make(&programs, account, folder).await?;
        let port = free_port()?;
        data::configure(folder, port)?;
        let process = ServerProcess::new(programs, account, folder);
        Ok(Self { process, port, version: OnceLock::new(), watchdog })
    }

    async fn boot(&self) -> Result<(), PostgresError> {
        self.process.start().await?;
        let deadline = Instant::now() + BOOTS;
        let version = loop {
            match ask_version(self.port).await {
                Ok(version) => break version,
                Err(_) if !self.is_running().await => return Err(self.boot_failed("its process ended".to_owned())),
                Err(why) if Instant::now() > deadline => {
                    return Err(self.boot_failed(format!("after {BOOTS:?}: {why}")));
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        let _ = self.version.set(version);
        self.let_memory_go_with_its_users().await;
        Ok(())
    }

    /// PostgreSQL keeps a few bytes of System V shared memory, which a killed server would leave to the machine for good, one
    /// piece each time. Removed now they go with the last process that uses them.
    async fn let_memory_go_with_its_users(&self) {
        let lock = fs::read_to_string(self.folder().join("data/postmaster.pid")).unwrap_or_default();
        let Some(id) = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) else { return };
        // Where this is not possible, a few bytes stay.
        let _ = run(tokio::process::Command::new("ipcrm").args(["-m", id]), ENDS).await;
    }

    fn boot_failed(&self, why: String) -> PostgresError {
        PostgresError::BootFailed { why, log: self.process.log_tail() }
    }
}

const BOOTS: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
