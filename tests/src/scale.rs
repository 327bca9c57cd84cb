//! How much a test does: scaled counts by default, those of the issues with `CORREIO_SCALE=full`.

/// The full count, or a part of it: `of(20_000, 20)` is 1,000 unless `CORREIO_SCALE=full`. Printed, so that a log says it.
#[must_use]
pub fn of(full: u64, part: u64) -> u64 {
    let count = if std::env::var("CORREIO_SCALE").is_ok_and(|scale| scale == "full") { full } else { full / part };
    println!("count: {count} of {full}");
    count
}
