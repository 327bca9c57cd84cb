//! What can be done to a node: kill, stop, restart, pause, and an alarm.

use super::{LabError, Node, node::Backend};
use nix::sys::signal::Signal;
use std::{
    sync::PoisonError,
    time::{Duration, Instant, SystemTime},
};

impl Node {
    /// Says that a queue was declared just now by somebody else than [`Node::declare_queue`].
    ///
    /// A node that runs as a process notices new quorum queues by itself; with Docker a test has to say it.
    pub fn note_declared(&self) {
        *self.last_declare.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until the newest queue is two seconds old.
    ///
    /// A quorum queue younger than about one second does not survive SIGKILL of a single node, confirmed messages included: that
    /// is a hole of RabbitMQ's, and no test here is about it.
    pub async fn settle_before_kill(&self) {
        let noted = self.last_declare.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let seen = match &self.backend {
            Backend::Process(process) => {
                process.newest_quorum_queue().and_then(|made| SystemTime::now().duration_since(made).ok())
            }
            Backend::Container(_) => None,
        };
        let age = seen.map_or(noted, |seen| seen.min(noted));
        tokio::time::sleep(SETTLED.saturating_sub(age)).await;
    }

    /// Kills the node with SIGKILL, after [`Node::settle_before_kill`], and waits until it is gone.
    ///
    /// # Errors
    ///
    /// [`LabError::NotRunning`], or [`LabError::TimedOut`] when it will not die.
    ///
    /// # Cancel safety
    ///
    /// The node may be dead or alive when this future is dropped. Calling it again does no harm.
    pub async fn kill(&self) -> Result<(), LabError> {
        self.settle_before_kill().await;
        self.kill_at_once().await
    }

    /// Kills the node with SIGKILL now, queues that are too young to survive it or not, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// As [`Node::kill`].
    ///
    /// # Cancel safety
    ///
    /// As [`Node::kill`].
    pub async fn kill_at_once(&self) -> Result<(), LabError> {
        match &self.backend {
            Backend::Process(process) => {
                process.signal(&self.name, Signal::SIGKILL).await?;
                process.ended(DIES).await
            }
            Backend::Container(container) => container.kill().await,
        }
    }

    /// Stops the node as an operator would, keeping its data: it closes its connections and writes what it has to.
    ///
    /// # Errors
    ///
    /// [`LabError::NotRunning`], or [`LabError::TimedOut`] when it is not done within a minute.
    ///
    /// # Cancel safety
    ///
    /// The node goes on stopping when this future is dropped. Calling it again does no harm.
    pub async fn stop(&self) -> Result<(), LabError> {
        match &self.backend {
            Backend::Process(process) => {
                process.signal(&self.name, Signal::SIGTERM).await?;
                process.ended(STOPS).await
            }
            Backend::Container(container) => container.stop().await,
        }
    }

    /// Starts the node again on the same ports with the same data, and waits until it answers. One that still runs is stopped first.
    ///
    /// # Errors
    ///
    /// [`LabError::BootFailed`] when it does not come up.
    ///
    /// # Cancel safety
    ///
    /// The node may be up or down when this future is dropped. Calling it again does no harm.
    pub async fn restart(&self) -> Result<(), LabError> {
        if self.is_running().await {
            self.stop().await?;
        }
        self.boot().await
    }

    /// Whether the node runs. A paused one does.
    pub async fn is_running(&self) -> bool {
        match &self.backend {
            Backend::Process(process) => process.is_alive().await,
            Backend::Container(container) => container.is_alive().await,
        }
    }

    /// Stops the node in its tracks (SIGSTOP): its connections stay open and nobody answers.
    ///
    /// # Errors
    ///
    /// [`LabError::NotRunning`].
    ///
    /// # Cancel safety
    ///
    /// The node may be paused when this future is dropped.
    pub async fn pause(&self) -> Result<(), LabError> {
        match &self.backend {
            Backend::Process(process) => process.signal(&self.name, Signal::SIGSTOP).await,
            Backend::Container(container) => container.pause().await,
        }
    }

    /// Lets a paused node go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// [`LabError::NotRunning`].
    ///
    /// # Cancel safety
    ///
    /// The node may go on when this future is dropped.
    pub async fn resume(&self) -> Result<(), LabError> {
        match &self.backend {
            Backend::Process(process) => process.signal(&self.name, Signal::SIGCONT).await,
            Backend::Container(container) => container.resume().await,
        }
    }

    /// Raises or clears the memory alarm, under which the broker takes no message from anybody.
    ///
    /// # Errors
    ///
    /// As [`Node::ctl`].
    ///
    /// # Cancel safety
    ///
    /// The alarm may have changed when this future is dropped.
    pub async fn memory_alarm(&self, on: bool) -> Result<(), LabError> {
        let watermark = if on { "0.00001" } else { "0.4" };
        self.ctl(&["-q", "set_vm_memory_high_watermark", watermark]).await.map(drop)
    }
}

/// See [`Node::settle_before_kill`].
const SETTLED: Duration = Duration::from_secs(2);
/// How long a killed process may take to be gone.
pub(super) const DIES: Duration = Duration::from_secs(10);
const STOPS: Duration = Duration::from_secs(60);
