//! What the histories of all machines start from.

#![allow(dead_code, reason = "each file of tests uses its part")]

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use proptest::test_runner::Config;

/// Step number `n` of a history's time.
#[allow(clippy::disallowed_methods, reason = "a starting point: the histories count from it")]
pub(crate) fn at(n: u64) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + ticks(n)
}

/// A stretch of a history's time.
pub(crate) const fn ticks(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// As many cases as `PROPTEST_CASES` says, 256 without it.
pub(crate) fn cases() -> Config {
    Config { failure_persistence: None, ..Config::default() }
}
