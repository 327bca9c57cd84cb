//! What the ledger says at the end.

use super::Said;
use std::{collections::BTreeMap, fmt, time::Duration};

/// The judgement over one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Messages that were to be sent, each once, however often it was sent again.
    pub attempted: u64,
    /// Of those, said to be on their queue.
    pub confirmed: u64,
    /// Of those, without an answer. A timeout is not a failure.
    pub unknown: u64,
    /// Of those, said to have reached no queue.
    pub unroutable: u64,
    /// Of those, not taken by at least one queue.
    pub refused: u64,
    /// Of those, never sent.
    pub not_sent: u64,
    /// Messages that were handled, each once.
    pub handled: u64,
    /// Messages that were set aside as dead letters.
    pub dead: u64,
    /// Confirmed, and gone with a queue that was deleted.
    pub deleted: u64,
    /// Confirmed and never seen.
    pub lost: u64,
    /// Seen and never attempted.
    pub unexpected: u64,
    /// Seen although said to be unroutable or not sent: an answer went to the wrong message.
    pub contradicted: u64,
    /// Unknown and seen: the doubt was for nothing.
    pub recovered: u64,
    /// Times that a message was handled again and the broker had marked it `redelivered`.
    pub duplicated_redelivered: u64,
    /// Times that a message was handled again and the broker took it for a new one: it was sent twice.
    pub duplicated_first: u64,
    /// Times that a message was handled again according to a file, which has no flags.
    pub duplicated_unflagged: u64,
    /// For each key that has any: messages handled after a later one, redelivered ones and duplicates not counted.
    pub inversions: BTreeMap<String, u64>,
    /// The longest time from one confirm to the next.
    pub longest_without_confirm: Option<Duration>,
    /// The longest time from one delivery to the next.
    pub longest_without_delivery: Option<Duration>,
}

impl Report {
    /// The heading of the columns that [`Display`](fmt::Display) fills.
    pub const HEADING: &str = concat!(
        "     sent confirmed unroutable   refused   unknown   handled      dead",
        "      lost   doubled recovered out-of-order unexpected contradicted"
    );

    /// How often a message was handled again, however it came to that.
    pub fn duplicated(&self) -> u64 {
        self.duplicated_redelivered + self.duplicated_first + self.duplicated_unflagged
    }

    /// How many messages were handled after a later one of their key.
    pub fn out_of_order(&self) -> u64 {
        self.inversions.values().sum()
    }

    /// Whether nothing was lost, doubled, overtaken or invented, and every answer was true.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated() + self.out_of_order() + self.unexpected + self.contradicted == 0
    }

    pub(super) fn count(&mut self, said: Said, seen: bool) {
        let (counter, surprise) = match said {
            Said::Confirmed => (&mut self.confirmed, (!seen).then_some(&mut self.lost)),
            Said::Unknown => (&mut self.unknown, seen.then_some(&mut self.recovered)),
            Said::Unroutable => (&mut self.unroutable, seen.then_some(&mut self.contradicted)),
            Said::NotSent => (&mut self.not_sent, seen.then_some(&mut self.contradicted)),
            Said::Refused => (&mut self.refused, None),
        };
        *counter += 1;
        if let Some(surprise) = surprise {
            *surprise += 1;
        }
    }
}

/// One row under [`Report::HEADING`].
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = self.attempted - self.not_sent;
        write!(
            out,
            "{sent:>9} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12} {:>10} {:>12}",
            self.confirmed,
            self.unroutable,
            self.refused,
            self.unknown,
            self.handled,
            self.dead,
            self.lost,
            self.duplicated(),
            self.recovered,
            self.out_of_order(),
            self.unexpected,
            self.contradicted,
        )
    }
}
