//! What a run prints: its progress, and its end.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use correio_broker_config::cli::Exit;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use super::latency::{Latency, Percentiles};
use crate::{Counts, Outcome};

/// What has become of the lines so far.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    latency: Latency,
    bar: ProgressBar,
    tally: Tally,
    reasons: Vec<(String, u64)>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Tally {
    sent: u64,
    confirmed: u64,
    /// Events that nobody had subscribed to, which is no failure.
    without_subscriber: u64,
    unroutable: u64,
    refused: u64,
    unknown: u64,
    not_sent: u64,
}

#[derive(Serialize)]
struct Summary<'r> {
    #[serde(flatten)]
    tally: Tally,
    resent: u64,
    seconds: f64,
    per_second: f64,
    latency_us: Option<Percentiles>,
    reasons: Vec<&'r str>,
    unsent_kept: u64,
}

impl Report {
    pub(crate) fn new() -> Self {
        // Draws only on a terminal.
        let bar = ProgressBar::no_length().with_style(style("{spinner} {human_pos}, {rate} a second  {msg}"));
        Self { started: Instant::now(), latency: Latency::new(), bar, tally: Tally::default(), reasons: Vec::new() }
    }

    /// So many lines there will be, as far as it is known: what is a spinner becomes a bar.
    pub(crate) fn on_expected(&self, lines: Option<u64>) {
        let Some(lines) = lines.filter(|_| !self.bar.is_hidden()) else { return };
        if self.bar.length().is_none() {
            self.bar.set_style(style("{bar:30} {percent:>3} %  {human_pos}, {rate} a second, {eta} left  {msg}"));
        }
        self.bar.set_length(lines.max(self.tally.sent));
    }

    pub(crate) fn on_outcome(&mut self, outcome: &Outcome, after: Duration) {
        self.tally.sent += 1;
        self.bar.inc(1);
        match outcome {
            Outcome::Confirmed { .. } => {
                self.tally.confirmed += 1;
                self.latency.note(after);
                return;
            }
            Outcome::Unroutable { .. } => self.tally.unroutable += 1,
            Outcome::Refused { .. } => self.tally.refused += 1,
            Outcome::Unknown { .. } => self.tally.unknown += 1,
        }
        self.count_reason(outcome.to_string());
        let well = self.tally.confirmed + self.tally.without_subscriber;
        self.bar.set_message(format!("{} not confirmed", self.tally.sent - well));
    }

    /// An event that nobody had subscribed to.
    pub(crate) fn on_nobody_subscribed(&mut self) {
        self.tally.sent += 1;
        self.tally.without_subscriber += 1;
        self.bar.inc(1);
    }

    pub(crate) fn on_fired(&mut self) {
        self.tally.sent += 1;
        self.bar.inc(1);
    }

    pub(crate) fn on_not_sent(&mut self, why: &str) {
        self.tally.not_sent += 1;
        self.count_reason(why.to_owned());
    }

    fn all_well(&self) -> bool {
        self.tally.confirmed + self.tally.without_subscriber == self.tally.sent && self.tally.not_sent == 0
    }

    /// Whether an unconfirmed line had this reply code.
    pub(crate) fn saw(&self, code: &str) -> bool {
        self.reasons.iter().any(|(reason, _)| reason.contains(&format!(": {code} ")))
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.tally.confirmed
    }

    pub(crate) fn exit(&self, fired: bool, counts: &Counts) -> Exit {
        let well = if fired { counts.fire_dropped == 0 && self.tally.not_sent == 0 } else { self.all_well() };
        if well { Exit::Success } else { Exit::Incomplete }
    }

    /// The end of `send`.
    pub(crate) fn finish_sent(self, counts: &Counts, unsent_kept: u64, json: bool) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let per_second = self.tally.sent as f64 / seconds.max(1e-9);
        let latency = self.latency.percentiles();
        if json {
            let reasons = self.reasons.iter().map(|(reason, _)| reason.as_str()).collect();
            let (tally, resent) = (self.tally, counts.resent);
            let summary = Summary { tally, resent, seconds, per_second, latency_us: latency, reasons, unsent_kept };
            print_json(&summary);
            return;
        }
        let Tally { sent, confirmed, without_subscriber, unroutable, refused, unknown, not_sent } = self.tally;
        let mut text = format!("sent {sent} in {seconds:.1} s ({per_second:.0} a second)\n");
        let _ =
            writeln!(text, "  confirmed {confirmed}   unroutable {unroutable}   refused {refused}   unknown {unknown}");
        if without_subscriber > 0 {
            let _ = writeln!(text, "  nobody subscribed {without_subscriber}");
        }
        if not_sent > 0 {
            let _ = writeln!(text, "  not sent {not_sent}");
        }
        if counts.resent > 0 {
            let _ = writeln!(text, "  sent again after a lost connection, under the same id: {}", counts.resent);
        }
        if let Some(latency) = latency {
            let _ = writeln!(text, "  confirmed after {latency}");
        }
        for (reason, count) in &self.reasons {
            let _ = writeln!(text, "  {count} × {reason}");
        }
        put(&text);
    }

    /// The end of `fire`: what is known is only what was handed on.
    pub(crate) fn finish_fired(self, counts: &Counts, json: bool) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let (fired, dropped, not_sent) = (counts.fired, counts.fire_dropped, self.tally.not_sent);
        let per_second = fired as f64 / seconds.max(1e-9);
        if json {
            print_json(&serde_json::json!({
                "fired": fired, "dropped": dropped, "not_sent": not_sent, "seconds": seconds, "per_second": per_second,
            }));
            return;
        }
        put(&format!("fired {fired} in {seconds:.1} s ({per_second:.0} a second); what became of them nobody knows\n"));
        if dropped + not_sent > 0 {
            put(&format!("  dropped here: {}\n", dropped + not_sent));
        }
    }

    /// At most a handful of different ones: a reason that names each message would be one a line.
    fn count_reason(&mut self, reason: String) {
        const DIFFERENT: usize = 8;
        if let Some((_, count)) = self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            *count += 1;
        } else if self.reasons.len() < DIFFERENT {
            self.reasons.push((reason, 1));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.0}", state.per_sec());
    })
}

fn print_json(value: &impl Serialize) {
    put(&format!("{}\n", serde_json::to_string(value).unwrap_or_default()));
}

/// A reader that has gone away is no reason to fail.
fn put(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
