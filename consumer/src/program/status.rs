//! What the program says on stderr while it works: counts, and messages of commands.
//!
//! Nothing here fails when stderr is gone: who does not read must not stop the work.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{Counts, Tally};

/// The program's voice on stderr.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    bar: Option<ProgressBar>,
    json: bool,
}

impl Status {
    /// With a status line where stderr is a terminal; with `json`, counts are objects.
    pub(crate) fn new(json: bool) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, json }
    }

    /// Without a status line.
    pub(crate) fn plain() -> Self {
        Self { bar: None, json: false }
    }

    /// Says one line.
    pub(crate) fn say(&self, line: &str) {
        self.pass_on(format!("{line}\n").as_bytes());
    }

    /// Hands on what a command says, as it is.
    pub(crate) fn pass_on(&self, bytes: &[u8]) {
        let write = || {
            let mut stderr = io::stderr().lock();
            // Nobody reads it: then nobody misses it.
            let _ = stderr.write_all(bytes);
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows the counts until the token is cancelled: on a terminal in one line, four times a second; elsewhere a
    /// line every ten seconds in which something happened.
    pub(crate) async fn follow(&self, counts: Counts, ended: CancellationToken) {
        let every = if self.bar.is_some() { REDRAW } else { REPORT };
        let mut said = counts.now();
        let mut ticks = tokio::time::interval(every);
        ticks.tick().await;
        loop {
            tokio::select! {
                () = ended.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let now = counts.now();
            if let Some(bar) = &self.bar {
                bar.set_message(self.counts(&now));
                bar.tick();
            } else if now != said {
                self.say(&self.counts(&now));
                said = now;
            }
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn counts(&self, now: &Tally) -> String {
        if self.json && self.bar.is_none() { json!({ "counts": now }).to_string() } else { in_words(now) }
    }
}

/// The counts as words: the five that matter always, others when they are not 0.
pub(crate) fn in_words(counts: &Tally) -> String {
    let mut words = format!(
        "handled {}, duplicate {}, out of order {}, retried {}, dead {}",
        counts.handled, counts.duplicates, counts.out_of_order, counts.retried, counts.dead
    );
    let seldom = [
        (counts.gaps, "gaps given up"),
        (counts.dropped, "dropped"),
        (counts.replied, "answered"),
        (counts.unanswered, "answers that nobody waits for"),
        (counts.late_requests, "requests too late"),
        (counts.markers, "markers"),
        (counts.handed_back, "handed back"),
        (counts.lost_acks, "to come again (acknowledged on a lost channel)"),
        (counts.unconfirmed_copies, "copies published again"),
        (counts.taken_over, "handled after their claim had run out"),
        (counts.forgotten_early, "ids forgotten early"),
        (counts.without_id, "without an id"),
        (counts.suspected, "handled alone as suspects"),
        (counts.paused, "pauses because everything failed"),
        (counts.resubscribed, "resubscriptions"),
    ];
    for (count, what) in seldom {
        if count > 0 {
            words.push_str(&format!(", {what} {count}"));
        }
    }
    words
}

const REDRAW: Duration = Duration::from_millis(250);
const REPORT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_counts_are_always_told_and_others_when_they_are_not_zero() {
        let mut tally = Tally::default();
        assert_eq!(in_words(&tally), "handled 0, duplicate 0, out of order 0, retried 0, dead 0");
        (tally.handled, tally.handed_back) = (3, 2);
        assert_eq!(in_words(&tally), "handled 3, duplicate 0, out of order 0, retried 0, dead 0, handed back 2");
    }
}
