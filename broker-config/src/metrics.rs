//! Every metric of producers and consumers: its name, kind, unit, labels and meaning. There is no other list.
//!
//! They go to the recorder of the facade `metrics` that the application has installed when it connects a producer or
//! runs a consumer; without one nothing is kept. An exporter for Prometheus writes `_` for each `.` in a name.
//!
//! Names that begin with `messaging.` are OpenTelemetry's (semantic conventions for messaging, in development), with its labels; the
//! rest are ours. A routing key is no label: there may be as many as there are mailboxes or topics.
//!
//! Counters and gauges are told from the counts that are kept anyway, once a second, when a channel opens, is lost or is blocked,
//! and at the end. A histogram hears of each message at once.

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Unit, with_recorder};

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// In what it is counted.
    pub unit: Unit,
    /// The names of its labels, beside [`SYSTEM`], which each has. One of them may be left out where it would say nothing.
    pub labels: &'static [&'static str],
    /// What it says.
    pub text: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is as it is now.
    Gauge,
    /// How often which values were met.
    Histogram,
}

/// The label with the messaging system, `rabbitmq`.
pub const SYSTEM: &str = "messaging.system";
/// The label with what was done: `publish`, `fire`, `deliver` or `process`.
pub const OPERATION: &str = "messaging.operation.name";
/// The label with the consumer's queue.
pub const QUEUE: &str = "messaging.destination.name";
/// The label with the producer's origin; `copies` is the one that a consumer has for its retries, dead letters and answers.
pub const ORIGIN: &str = "correio.origin";
/// The label with how it ended.
pub const OUTCOME: &str = "correio.outcome";
/// The label with how it failed; left out where it did not.
pub const ERROR: &str = "error.type";

macro_rules! list {
    ($(#[$doc:meta])* $all:ident; $($metric:ident: $kind:ident in $unit:ident, $name:literal $labels:expr, $text:literal;)*) => {
        $(#[$doc])*
        pub const $all: &[Metric] = &[$($metric),*];
        $(
            #[doc = concat!("`", $name, "`: ", $text, ".")]
            pub const $metric: Metric =
                Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &$labels, text: $text };
        )*
    };
}

list! {
    /// All of a producer's.
    PRODUCER;

    SENT: Counter in Count, "messaging.client.sent.messages" [OPERATION, ORIGIN, OUTCOME, ERROR],
        "messages that ended confirmed, unroutable, refused or unknown, and those that fire handed on";
    SENDING: Histogram in Seconds, "messaging.client.operation.duration" [OPERATION, ORIGIN, OUTCOME, ERROR],
        "from accepting a message to its outcome, resends included";
    ACCEPTED: Counter in Count, "correio.producer.accepted" [ORIGIN], "messages handed in, to be confirmed";
    NOT_PUBLISHED: Counter in Count, "correio.producer.not_published" [ORIGIN],
        "messages given back because their turn to be published never came";
    RESENT: Counter in Count, "correio.producer.resent" [ORIGIN], "second and further sendings of a message";
    FIRE_DROPPED: Counter in Count, "correio.producer.fire_dropped" [ORIGIN],
        "messages that fire could not hand on: no room in time, or the connection went under them";
    RECONNECTS: Counter in Count, "correio.producer.reconnects" [ORIGIN], "channels opened after the first";
    CHANNEL_FAILURES: Counter in Count, "correio.producer.channel_failures" [ORIGIN],
        "channels that ended before their producer, for whichever reason";
    REQUESTS: Counter in Count, "correio.producer.requests" [ORIGIN], "requests that waited for a reply";
    REPLIES: Counter in Count, "correio.producer.replies" [ORIGIN], "replies that came in time, errors included";
    LATE_REPLIES: Counter in Count, "correio.producer.late_replies" [ORIGIN], "replies that nobody waited for";
    CHANNELS: Gauge in Count, "correio.producer.channels" [ORIGIN],
        "channels with confirms that there should be, each on a connection of its own";
    CHANNELS_OPEN: Gauge in Count, "correio.producer.channels.open" [ORIGIN], "channels with confirms that are open";
    CHANNELS_BLOCKED: Gauge in Count, "correio.producer.channels.blocked" [ORIGIN],
        "channels from which the broker reads nothing for now (connection.blocked)";
    OUTSTANDING: Gauge in Count, "correio.producer.outstanding" [ORIGIN], "messages handed in and without an outcome";
    BUFFER_USED: Gauge in Bytes, "correio.producer.buffer.used" [ORIGIN],
        "room in the buffer that is taken by messages: waiting, unanswered, or holes to be decided";
}

list! {
    /// All of a consumer's.
    CONSUMER;

    CONSUMED: Counter in Count, "messaging.client.consumed.messages" [OPERATION, QUEUE], "deliveries taken from the broker";
    PROCESSING: Histogram in Seconds, "messaging.process.duration" [OPERATION, QUEUE, OUTCOME, ERROR],
        "one attempt of a handler, from its start to its end";
    HANDLED: Counter in Count, "correio.consumer.handled" [QUEUE], "messages whose handler succeeded";
    RETRIED: Counter in Count, "correio.consumer.retried" [QUEUE], "attempts that failed and are to be repeated";
    DEAD: Counter in Count, "correio.consumer.dead_lettered" [QUEUE], "messages parked as dead letters, their copies confirmed";
    DUPLICATES: Counter in Count, "correio.consumer.duplicates" [QUEUE],
        "messages not handled because they had been, or because their first copy is at work";
    DROPPED: Counter in Count, "correio.consumer.dropped" [QUEUE], "messages dropped because their handler asked for it";
    OUT_OF_ORDER: Counter in Count, "correio.consumer.out_of_order" [QUEUE],
        "messages handled after their place in the order had been given up";
    GAPS: Counter in Count, "correio.consumer.gaps" [QUEUE], "numbers given up waiting for";
    MARKERS: Counter in Count, "correio.consumer.markers" [QUEUE], "markers, which fill numbers that came to nothing";
    REPLIED: Counter in Count, "correio.consumer.replied" [QUEUE], "answers that are on the queue of who asked";
    UNANSWERED: Counter in Count, "correio.consumer.unanswered" [QUEUE], "answers that are not known to have arrived";
    LATE_REQUESTS: Counter in Count, "correio.consumer.late_requests" [QUEUE],
        "requests not begun because their deadline had passed";
    HANDED_BACK: Counter in Count, "correio.consumer.handed_back" [QUEUE],
        "messages given back to the queue although their handling had begun";
    NOT_STARTED: Counter in Count, "correio.consumer.not_started" [QUEUE], "messages given back to the queue at the end, not begun";
    LOST: Counter in Count, "correio.consumer.lost" [QUEUE],
        "messages acknowledged on receipt and then neither handled nor parked";
    LOST_ACKS: Counter in Count, "correio.consumer.lost_acks" [QUEUE],
        "messages settled when their channel was gone, which come again as duplicates";
    UNCONFIRMED_COPIES: Counter in Count, "correio.consumer.unconfirmed_copies" [QUEUE],
        "copies (retries, dead letters) that were not confirmed and are published again";
    TAKEN_OVER: Counter in Count, "correio.consumer.taken_over" [QUEUE],
        "messages handled whose claim had run out: another consumer may have handled them too";
    FORGOTTEN_EARLY: Counter in Count, "correio.consumer.forgotten_early" [QUEUE],
        "handled ids forgotten before their retention was over, for want of room";
    WITHOUT_ID: Counter in Count, "correio.consumer.without_id" [QUEUE], "messages that nobody can deduplicate";
    SUSPECTED: Counter in Count, "correio.consumer.suspected" [QUEUE], "messages handled alone because they had come back too often";
    PAUSED: Counter in Count, "correio.consumer.paused" [QUEUE], "times that handling paused because everything failed";
    RESUBSCRIBED: Counter in Count, "correio.consumer.resubscribed" [QUEUE], "subscriptions renewed after a loss";
    SUBSCRIBED: Gauge in Count, "correio.consumer.subscribed" [QUEUE], "consumers that are subscribed";
    IN_FLIGHT: Gauge in Count, "correio.consumer.in_flight" [QUEUE], "handlers at work";
    HELD: Gauge in Count, "correio.consumer.held" [QUEUE], "messages between their delivery and their settling";
    PARKED: Gauge in Count, "correio.consumer.parked" [QUEUE], "messages that wait for an earlier one of their key";
    BREAKER_OPEN: Gauge in Count, "correio.consumer.breaker_open" [QUEUE], "consumers that pause because everything fails";
}

/// Tells the recorder what each metric means. Producers and consumers do this themselves when they begin: it is for who wants
/// to know before.
pub fn describe() {
    describe_all(PRODUCER);
    describe_all(CONSUMER);
}

#[doc(hidden)]
pub fn describe_all(metrics: &[Metric]) {
    with_recorder(|recorder| {
        for metric in metrics {
            let (name, unit, text) = (metric.name.into(), Some(metric.unit), metric.text.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, text),
                Kind::Gauge => recorder.describe_gauge(name, unit, text),
                Kind::Histogram => recorder.describe_histogram(name, unit, text),
            }
        }
    });
}

/// Labels and their values.
#[doc(hidden)]
pub type Labels<'l> = &'l [(&'static str, &'l str)];

/// How code gets at a metric: only what is listed has a name.
#[doc(hidden)]
impl Metric {
    pub fn counter(&self, labels: Labels<'_>) -> Counter {
        let key = self.key(Kind::Counter, labels);
        with_recorder(|recorder| recorder.register_counter(&key, &WHENCE))
    }

    pub fn gauge(&self, labels: Labels<'_>) -> Gauge {
        let key = self.key(Kind::Gauge, labels);
        with_recorder(|recorder| recorder.register_gauge(&key, &WHENCE))
    }

    pub fn histogram(&self, labels: Labels<'_>) -> Histogram {
        let key = self.key(Kind::Histogram, labels);
        with_recorder(|recorder| recorder.register_histogram(&key, &WHENCE))
    }

    fn key(&self, kind: Kind, labels: Labels<'_>) -> Key {
        debug_assert!(self.kind == kind, "{} is a {:?}", self.name, self.kind);
        debug_assert!(labels.iter().all(|(name, _)| self.labels.contains(name)), "{} has other labels", self.name);
        let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned()));
        Key::from_parts(self.name, std::iter::once(Label::new(SYSTEM, "rabbitmq")).chain(labels).collect::<Vec<_>>())
    }
}

/// A counter that follows one of the counts that are kept elsewhere.
#[doc(hidden)]
#[derive(Debug)]
pub struct Following<C> {
    counter: Counter,
    of: fn(&C) -> u64,
    told: u64,
}

impl<C> Following<C> {
    pub fn new(counter: Counter, of: fn(&C) -> u64) -> Self {
        Self { counter, of, told: 0 }
    }

    /// The counts are these now.
    pub fn tell(&mut self, counts: &C) {
        let count = (self.of)(counts);
        if count > self.told {
            self.counter.increment(count - self.told);
            self.told = count;
        }
    }
}

/// One's share in a gauge, to which others with the same labels add theirs. Dropped, it is taken back.
#[doc(hidden)]
#[derive(Debug)]
pub struct Share {
    gauge: Gauge,
    told: usize,
}

impl Share {
    #[must_use]
    pub fn new(gauge: Gauge) -> Self {
        // So that it is there also while nothing is.
        gauge.increment(0.0);
        Self { gauge, told: 0 }
    }

    /// The share is this now.
    pub fn tell(&mut self, share: usize) {
        if share > self.told {
            self.gauge.increment((share - self.told) as f64);
        } else if share < self.told {
            self.gauge.decrement((self.told - share) as f64);
        }
        self.told = share;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.tell(0);
    }
}

static WHENCE: Metadata<'static> = Metadata::new("correio", Level::INFO, None);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_metric_has_a_name_of_its_own_also_where_dots_are_written_otherwise() {
        let all = || PRODUCER.iter().chain(CONSUMER);
        let names: BTreeSet<String> = all().map(|metric| metric.name.replace('.', "_")).collect();
        assert_eq!(names.len(), all().count());
        for metric in all() {
            let ours = metric.name.starts_with("correio.") || metric.name.starts_with("messaging.");
            let plain = metric.name.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '_');
            assert!(ours && plain && !metric.text.ends_with('.'), "{metric:?}");
        }
    }
}
