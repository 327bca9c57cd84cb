//! The metrics of a producer: told from the counts that it keeps anyway, so that nothing is counted twice.
//!
//! Only how long a message took is told when it ends. Their names are in `broker-config/src/metrics.rs`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use correio_broker_config::metrics::{self as listed, Following, Metric, Share};
use correio_message::ShortText;
use metrics::Histogram;
use tokio::{sync::watch, time::sleep};

use crate::{
    counts::{Counters, Counts},
    health::Health,
    outcome::Outcome,
    submission::Room,
};

/// How long messages took, by their outcome.
#[derive(Debug)]
pub(crate) struct Durations {
    confirmed: Histogram,
    unroutable: Histogram,
    refused: Histogram,
    unknown: Histogram,
}

impl Durations {
    pub(crate) fn of(origin: &ShortText) -> Self {
        let ending = |outcome: &str, is_error: bool| {
            let labels = ending(origin.as_str(), outcome);
            listed::SENDING.histogram(if is_error { &labels } else { &labels[..3] })
        };
        Self {
            confirmed: ending("confirmed", false),
            unroutable: ending("unroutable", true),
            refused: ending("refused", true),
            unknown: ending("unknown", true),
        }
    }

    pub(crate) fn on_outcome(&self, outcome: &Outcome, took: Duration) {
        let of = match outcome {
            Outcome::Confirmed { .. } => &self.confirmed,
            Outcome::Unroutable { .. } => &self.unroutable,
            Outcome::Refused { .. } => &self.refused,
            Outcome::Unknown { .. } => &self.unknown,
        };
        of.record(took);
    }
}

/// Tells the recorder what is new: from time to time, when it is asked to, and when it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Reporting(Arc<Mutex<Reporter>>);

impl Reporting {
    /// Goes on by itself until nobody counts any more.
    pub(crate) fn begin(
        origin: &ShortText,
        counters: Arc<Counters>,
        health: &watch::Sender<Health>,
        room: Room,
    ) -> Self {
        listed::describe_all(listed::PRODUCER);
        // Once for each.
        let _ = counters.durations.set(Durations::of(origin));
        let reporter = Reporter::new(origin.as_str(), counters, health.subscribe(), room);
        let reporting = Self(Arc::new(Mutex::new(reporter)));
        tokio::spawn(reporting.clone().go_on(health.subscribe()));
        reporting
    }

    /// Tells what is new by now.
    pub(crate) fn report(&self) {
        self.with(Reporter::report);
    }

    async fn go_on(self, mut health: watch::Receiver<Health>) {
        let mut is_watched = true;
        while !self.with(|reporter| reporter.is_alone()) {
            tokio::select! {
                () = sleep(EVERY) => {}
                changed = health.changed(), if is_watched => is_watched = changed.is_ok(),
            }
            self.report();
        }
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Reporter) -> T) -> T {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Reporter {
    counters: Arc<Counters>,
    health: watch::Receiver<Health>,
    room: Room,
    counts: Vec<Following<Counts>>,
    channels: Share,
    open: Share,
    blocked: Share,
    outstanding: Share,
    used: Share,
}

impl Reporter {
    fn new(origin: &str, counters: Arc<Counters>, health: watch::Receiver<Health>, room: Room) -> Self {
        let ours = [(listed::ORIGIN, origin)];
        let gauge = |metric: Metric| Share::new(metric.gauge(&ours));
        Self {
            counts: followed(origin),
            channels: gauge(listed::CHANNELS),
            open: gauge(listed::CHANNELS_OPEN),
            blocked: gauge(listed::CHANNELS_BLOCKED),
            outstanding: gauge(listed::OUTSTANDING),
            used: gauge(listed::BUFFER_USED),
            counters,
            health,
            room,
        }
    }

    fn report(&mut self) {
        let counts = self.counters.read();
        for following in &mut self.counts {
            following.tell(&counts);
        }
        let Health { channels, open, blocked } = *self.health.borrow();
        self.channels.tell(channels);
        self.open.tell(open);
        self.blocked.tell(blocked);
        self.outstanding.tell(outstanding(&counts));
        self.used.tell(self.room.used());
    }

    /// Whether nobody is left who could count anything.
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.counters) == 1
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.report();
    }
}

/// Every count with its metric.
fn followed(origin: &str) -> Vec<Following<Counts>> {
    type Of = fn(&Counts) -> u64;
    let plain = |metric: Metric, of: Of| Following::new(metric.counter(&[(listed::ORIGIN, origin)]), of);
    let sent = |outcome: &str, of: Of| {
        let labels = ending(origin, outcome);
        let labels = if outcome == "confirmed" { &labels[..3] } else { &labels };
        Following::new(listed::SENT.counter(labels), of)
    };
    let fired = [(listed::OPERATION, "fire"), (listed::ORIGIN, origin), (listed::OUTCOME, "handed-on")];
    // A count that is added finds no way past this.
    let Counts {
        accepted: _,
        confirmed: _,
        unroutable: _,
        refused: _,
        unknown: _,
        not_published: _,
        resent: _,
        fired: _,
        fire_dropped: _,
        reconnected: _,
        channels_lost: _,
        requests: _,
        replies: _,
        late_replies: _,
    } = Counts::default();
    vec![
        plain(listed::ACCEPTED, |counts| counts.accepted),
        sent("confirmed", |counts| counts.confirmed),
        sent("unroutable", |counts| counts.unroutable),
        sent("refused", |counts| counts.refused),
        sent("unknown", |counts| counts.unknown),
        plain(listed::NOT_PUBLISHED, |counts| counts.not_published),
        plain(listed::RESENT, |counts| counts.resent),
        Following::new(listed::SENT.counter(&fired), |counts| counts.fired),
        plain(listed::FIRE_DROPPED, |counts| counts.fire_dropped),
        plain(listed::RECONNECTS, |counts| counts.reconnected),
        plain(listed::CHANNEL_FAILURES, |counts| counts.channels_lost),
        plain(listed::REQUESTS, |counts| counts.requests),
        plain(listed::REPLIES, |counts| counts.replies),
        plain(listed::LATE_REPLIES, |counts| counts.late_replies),
    ]
}

/// The labels of what ended so, the error last.
fn ending<'l>(origin: &'l str, outcome: &'l str) -> [(&'static str, &'l str); 4] {
    [(listed::OPERATION, "publish"), (listed::ORIGIN, origin), (listed::OUTCOME, outcome), (listed::ERROR, outcome)]
}

/// Handed in, and neither ended nor given back. The counts are read one after the other, so that one may be a moment ahead.
fn outstanding(counts: &Counts) -> usize {
    let ended = counts.confirmed + counts.unroutable + counts.refused + counts.unknown + counts.not_published;
    usize::try_from(counts.accepted.saturating_sub(ended)).unwrap_or(usize::MAX)
}

/// How often the recorder is told.
const EVERY: Duration = Duration::from_secs(1);
