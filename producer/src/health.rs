//! Whether the broker is there, and whether it takes anything.

use tokio::sync::watch;

/// How the publishing channels are. Watched with [`Producer::health`](crate::Producer::health).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Channels with confirms, each on a connection of its own.
    pub channels: usize,
    /// … that are open.
    pub open: usize,
    /// … from which the broker has said that it reads nothing for now (`connection.blocked`): it is short of memory or disk.
    /// What is sent meanwhile waits, and past its deadline ends [`Unknown`](crate::Outcome::Unknown).
    pub blocked: usize,
}

impl Health {
    /// Whether every channel is open, and the broker reads from each.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.channels > 0 && self.open == self.channels && self.blocked == 0
    }
}

/// The health of a producer's channels, now and whenever it changes.
#[derive(Clone, Debug)]
pub struct HealthWatch(watch::Receiver<Health>);

impl HealthWatch {
    pub(crate) fn of(health: &watch::Sender<Health>) -> Self {
        Self(health.subscribe())
    }

    /// As it is now.
    #[must_use]
    pub fn now(&self) -> Health {
        *self.0.borrow()
    }

    /// Waits until it is as wanted, at once if it is; `None` when the producer is gone and it will not become so.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until(&mut self, wanted: impl FnMut(&Health) -> bool) -> Option<Health> {
        self.0.wait_for(wanted).await.ok().map(|health| *health)
    }
}

/// One channel's share in it. Dropped, it is not open any more.
#[derive(Debug)]
pub(crate) struct HealthReport {
    health: watch::Sender<Health>,
    is_open: bool,
    is_blocked: bool,
}

impl HealthReport {
    pub(crate) fn new(health: watch::Sender<Health>) -> Self {
        health.send_modify(|health| health.channels += 1);
        Self { health, is_open: false, is_blocked: false }
    }

    pub(crate) fn on_open(&mut self) {
        self.set(true, false);
    }

    pub(crate) fn on_lost(&mut self) {
        self.set(false, false);
    }

    pub(crate) fn on_blocked(&mut self, is_blocked: bool) {
        self.set(self.is_open, is_blocked);
    }

    fn set(&mut self, is_open: bool, is_blocked: bool) {
        if (self.is_open, self.is_blocked) == (is_open, is_blocked) {
            return;
        }
        let (was_open, was_blocked) = (self.is_open, self.is_blocked);
        (self.is_open, self.is_blocked) = (is_open, is_blocked);
        self.health.send_modify(|health| {
            health.open = health.open + usize::from(is_open) - usize::from(was_open);
            health.blocked = health.blocked + usize::from(is_blocked) - usize::from(was_blocked);
        });
    }
}

impl Drop for HealthReport {
    fn drop(&mut self) {
        self.set(false, false);
    }
}
