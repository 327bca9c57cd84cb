//! Whether a consumer is subscribed, and if not, since when and why.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// How a consumer is. Watched with [`Consumer::health`](crate::Consumer::health).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// The broker has confirmed its subscription, and nothing has been heard to the contrary. One that stands by for another
    /// (a single active consumer) is subscribed too.
    Subscribed,
    /// It is not subscribed, and tries to be.
    Away {
        /// Since it was built, or since the subscription was lost.
        since: Instant,
        /// What was heard last.
        why: Arc<str>,
    },
    /// It was asked to stop, or has reached its end, and finishes what was begun.
    Stopping,
    /// It has ended, or was dropped.
    Ended,
}

impl Health {
    /// Whether messages come: what a readiness probe asks.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        *self == Self::Subscribed
    }

    /// As a person would say it.
    #[must_use]
    pub fn in_words(&self, now: Instant) -> String {
        match self {
            Self::Subscribed => "subscribed".to_owned(),
            Self::Away { since, why } => {
                let whole = Duration::from_secs(now.saturating_duration_since(*since).as_secs());
                format!("not subscribed for {whole:?}: {why}")
            }
            Self::Stopping => "stopping: it finishes what was begun and takes nothing new".to_owned(),
            Self::Ended => "ended".to_owned(),
        }
    }
}

/// The health of a consumer, now and whenever it changes. Cheap to clone; works after the consumer ended, too.
#[derive(Clone, Debug)]
pub struct HealthWatch(watch::Receiver<Health>);

impl HealthWatch {
    /// As it is now.
    #[must_use]
    pub fn now(&self) -> Health {
        self.0.borrow().clone()
    }

    /// Waits until it is as wanted, at once if it is; `None` when the consumer has ended and it will not become so.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until(&mut self, wanted: impl FnMut(&Health) -> bool) -> Option<Health> {
        self.0.wait_for(wanted).await.ok().map(|health| health.clone())
    }
}

/// What a consumer says of itself. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct HealthReport(watch::Sender<Health>);

impl HealthReport {
    pub(crate) fn new(now: Instant) -> Self {
        Self(watch::Sender::new(Health::Away { since: now, why: "it has not subscribed yet".into() }))
    }

    pub(crate) fn watch(&self) -> HealthWatch {
        HealthWatch(self.0.subscribe())
    }

    pub(crate) fn on_subscribed(&self) {
        self.0.send_replace(Health::Subscribed);
    }

    /// It is not subscribed any more, or still not.
    pub(crate) fn on_away(&self, because: &str, now: Instant) {
        self.0.send_modify(|health| {
            let since = if let Health::Away { since, .. } = health { *since } else { now };
            *health = Health::Away { since, why: because.into() };
        });
    }

    pub(crate) fn on_stopping(&self) {
        self.0.send_replace(Health::Stopping);
    }
}

impl Drop for HealthReport {
    fn drop(&mut self) {
        self.0.send_replace(Health::Ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_away_counts_from_the_loss_and_the_reason_is_the_last_one() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let report = HealthReport::new(begun);
        let watch = report.watch();
        let words = |seconds| watch.now().in_words(after(seconds));
        assert_eq!(words(2), "not subscribed for 2s: it has not subscribed yet");
        report.on_away("no broker", after(3));
        assert_eq!(words(5), "not subscribed for 5s: no broker");
        report.on_subscribed();
        assert_eq!((words(6).as_str(), watch.now().is_subscribed()), ("subscribed", true));
        report.on_away("connection reset", after(100));
        report.on_away("connection refused", after(101));
        assert_eq!(words(107), "not subscribed for 7s: connection refused");
        assert!(!watch.now().is_subscribed());
        report.on_stopping();
        assert!(words(108).starts_with("stopping"));
    }

    #[tokio::test]
    async fn a_consumer_that_is_gone_has_ended_and_nobody_waits_for_it_any_more() {
        let report = HealthReport::new(Instant::now());
        let mut watch = report.watch();
        report.on_subscribed();
        drop(report);
        assert_eq!(watch.now(), Health::Ended);
        assert_eq!(watch.until(Health::is_subscribed).await, None);
    }
}
