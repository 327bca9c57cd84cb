//! How long answers took.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The times of a run.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

/// What stands in a summary, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    min: u64,
    median: u64,
    p75: u64,
    p95: u64,
    p99: u64,
    max: u64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        // Three digits, up to an hour: a bound that cannot be wrong.
        Self(Histogram::new_with_max(3_600_000_000, 3).unwrap_or_else(|_| unreachable!("constant bounds")))
    }

    pub(crate) fn note(&mut self, after: Duration) {
        self.0.saturating_record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// `None` if there was nothing to measure.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Percentiles {
            min: self.0.min(),
            median: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            p99: at(0.99),
            max: self.0.max(),
        })
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, p75, p95, p99, max } = self;
        write!(f, "min/median/75th/95th/99th/max {min}/{median}/{p75}/{p95}/{p99}/{max} µs")
    }
}
