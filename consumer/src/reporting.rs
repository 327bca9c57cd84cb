//! The metrics of a consumer: told from the counts that it keeps anyway, so that nothing is counted twice.
//!
//! Only what a handler took, and how many messages are where, is told when it changes. Their names are in
//! `broker-config/src/metrics.rs`.

use std::{convert::Infallible, time::Duration};

use correio_broker_config::metrics::{self as listed, Following, Metric, Share};
use correio_message::ShortText;
use metrics::Histogram;
use tokio::time::sleep;

use crate::{
    counts::{Counts, Tally},
    pipeline::Pipeline,
    telemetry,
    work::Work,
};

/// Tells the recorder what is new: from time to time, and when it is dropped.
#[derive(Debug)]
pub(crate) struct Reporter {
    counts: Counts,
    followed: Vec<Following<Tally>>,
}

impl Reporter {
    pub(crate) fn new(queue: &ShortText, counts: Counts) -> Self {
        listed::describe_all(listed::CONSUMER);
        Self { followed: followed(queue.as_str()), counts }
    }

    /// Tells what is new, again and again.
    pub(crate) async fn go_on(&mut self) -> Infallible {
        loop {
            sleep(EVERY).await;
            self.report();
        }
    }

    fn report(&mut self) {
        let counts = self.counts.now();
        for following in &mut self.followed {
            following.tell(&counts);
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.report();
    }
}

/// How many messages are where.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    subscribed: Share,
    in_flight: Share,
    held: Share,
    parked: Share,
    breaker_open: Share,
}

impl Whereabouts {
    pub(crate) fn new(queue: &ShortText) -> Self {
        let gauge = |metric: Metric| Share::new(metric.gauge(&[(listed::QUEUE, queue.as_str())]));
        Self {
            subscribed: gauge(listed::SUBSCRIBED),
            in_flight: gauge(listed::IN_FLIGHT),
            held: gauge(listed::HELD),
            parked: gauge(listed::PARKED),
            breaker_open: gauge(listed::BREAKER_OPEN),
        }
    }

    pub(crate) fn on_subscribed(&mut self, is_subscribed: bool) {
        self.subscribed.tell(is_subscribed.into());
    }

    pub(crate) fn tell(&mut self, pipeline: &Pipeline, work: &Work) {
        self.in_flight.tell(work.at_work());
        self.held.tell(pipeline.held());
        self.parked.tell(pipeline.parked());
        self.breaker_open.tell(pipeline.is_pausing().into());
    }
}

/// How long attempts took, by their end.
#[derive(Debug)]
pub(crate) struct Durations(Vec<(&'static str, Histogram)>);

impl Durations {
    pub(crate) fn new(queue: &ShortText) -> Self {
        let of = |word, is_error: bool| {
            let queue = (listed::QUEUE, queue.as_str());
            let labels = [(listed::OPERATION, "process"), queue, (listed::OUTCOME, word), (listed::ERROR, word)];
            (word, listed::PROCESSING.histogram(if is_error { &labels } else { &labels[..3] }))
        };
        let chosen = telemetry::CHOSEN.into_iter().map(|word| of(word, false));
        Self(chosen.chain(telemetry::FAILED.into_iter().map(|word| of(word, true))).collect())
    }

    pub(crate) fn on_end(&self, word: &str, took: Duration) {
        if let Some((_, histogram)) = self.0.iter().find(|(end, _)| *end == word) {
            histogram.record(took);
        }
    }
}

/// Every count with its metric.
fn followed(queue: &str) -> Vec<Following<Tally>> {
    let plain = |metric: Metric, of: fn(&Tally) -> u64| Following::new(metric.counter(&[(listed::QUEUE, queue)]), of);
    let consumed = listed::CONSUMED.counter(&[(listed::OPERATION, "deliver"), (listed::QUEUE, queue)]);
    // A count that is added finds no way past this.
    let Tally {
        received: _,
        handled: _,
        duplicates: _,
        out_of_order: _,
        gaps: _,
        retried: _,
        dead: _,
        dropped: _,
        replied: _,
        unanswered: _,
        late_requests: _,
        markers: _,
        handed_back: _,
        not_started: _,
        lost: _,
        lost_acks: _,
        unconfirmed_copies: _,
        taken_over: _,
        forgotten_early: _,
        without_id: _,
        suspected: _,
        paused: _,
        resubscribed: _,
    } = Tally::default();
    vec![
        Following::new(consumed, |tally| tally.received),
        plain(listed::HANDLED, |tally| tally.handled),
        plain(listed::DUPLICATES, |tally| tally.duplicates),
        plain(listed::OUT_OF_ORDER, |tally| tally.out_of_order),
        plain(listed::GAPS, |tally| tally.gaps),
        plain(listed::RETRIED, |tally| tally.retried),
        plain(listed::DEAD, |tally| tally.dead),
        plain(listed::DROPPED, |tally| tally.dropped),
        plain(listed::REPLIED, |tally| tally.replied),
        plain(listed::UNANSWERED, |tally| tally.unanswered),
        plain(listed::LATE_REQUESTS, |tally| tally.late_requests),
        plain(listed::MARKERS, |tally| tally.markers),
        plain(listed::HANDED_BACK, |tally| tally.handed_back),
        plain(listed::NOT_STARTED, |tally| tally.not_started),
        plain(listed::LOST, |tally| tally.lost),
        plain(listed::LOST_ACKS, |tally| tally.lost_acks),
        plain(listed::UNCONFIRMED_COPIES, |tally| tally.unconfirmed_copies),
        plain(listed::TAKEN_OVER, |tally| tally.taken_over),
        plain(listed::FORGOTTEN_EARLY, |tally| tally.forgotten_early),
        plain(listed::WITHOUT_ID, |tally| tally.without_id),
        plain(listed::SUSPECTED, |tally| tally.suspected),
        plain(listed::PAUSED, |tally| tally.paused),
        plain(listed::RESUBSCRIBED, |tally| tally.resubscribed),
    ]
}

/// How often the recorder is told.
const EVERY: Duration = Duration::from_secs(1);
