//! A recorder of metrics inside the test, and what it was told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
};

/// What was recorded since it began to listen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recorded(Arc<Mutex<Told>>);

/// A kind, `counter`, `gauge` or `histogram`, with the unit and the text.
pub type Description = (&'static str, Option<Unit>, String);

#[derive(Debug, Default)]
struct Told {
    described: BTreeMap<String, Description>,
    counters: BTreeMap<Series, Arc<AtomicU64>>,
    gauges: BTreeMap<Series, Arc<AtomicU64>>,
    histograms: BTreeMap<Series, Arc<Values>>,
}

/// A name and its labels.
type Series = (String, BTreeMap<String, String>);

#[derive(Debug, Default)]
struct Values(Mutex<Vec<f64>>);

impl Recorded {
    /// Listens to what this thread registers while the guard lives.
    #[must_use]
    pub fn listen(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    /// What each metric that was described is said to be.
    #[must_use]
    pub fn described(&self) -> BTreeMap<String, Description> {
        self.told().described.clone()
    }

    /// Each metric that was registered, and what it is.
    #[must_use]
    pub fn registered(&self) -> BTreeMap<String, &'static str> {
        let told = self.told();
        let counters = told.counters.keys().map(|(name, _)| (name.clone(), "counter"));
        let gauges = told.gauges.keys().map(|(name, _)| (name.clone(), "gauge"));
        counters.chain(gauges).chain(told.histograms.keys().map(|(name, _)| (name.clone(), "histogram"))).collect()
    }

    /// The sum of the counters of this name with these labels.
    #[must_use]
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let told = self.told();
        let of = told.counters.iter().filter(|(series, _)| is_of(series, name, labels));
        of.map(|(_, counter)| counter.load(Ordering::Relaxed)).sum()
    }

    /// The sum of the gauges of this name with these labels.
    #[must_use]
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let told = self.told();
        let of = told.gauges.iter().filter(|(series, _)| is_of(series, name, labels));
        of.map(|(_, gauge)| f64::from_bits(gauge.load(Ordering::Relaxed))).sum()
    }

    /// All values of the histograms of this name with these labels.
    #[must_use]
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let told = self.told();
        let of = told.histograms.iter().filter(|(series, _)| is_of(series, name, labels));
        of.flat_map(|(_, values)| locked(&values.0).clone()).collect()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        locked(&self.0)
    }

    fn describe(&self, name: &KeyName, description: Description) {
        self.told().described.insert(name.as_str().to_owned(), description);
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, ("counter", unit, text.into_owned()));
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, ("gauge", unit, text.into_owned()));
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, ("histogram", unit, text.into_owned()));
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.told().counters.entry(series(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(self.told().gauges.entry(series(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::clone(self.told().histograms.entry(series(key)).or_default()))
    }
}

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        locked(&self.0).push(value);
    }
}

fn series(key: &Key) -> Series {
    let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
    (key.name().to_owned(), labels.collect())
}

fn is_of((said, labels): &Series, name: &str, wanted: &[(&str, &str)]) -> bool {
    said == name && wanted.iter().all(|(label, value)| labels.get(*label).is_some_and(|said| said == value))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
