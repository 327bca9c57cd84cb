//! From what was sent, said and written to the numbers of the table: the ledger judges.

use std::{collections::BTreeMap, time::Instant};

use super::{
    Figures,
    evidence::{Dead, Fired, Handled, Sent},
};
use crate::ledger::{Ledger, Said};

/// What became of the messages of one act. A message is known by its payload: no two of an act are alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    ledger: Ledger,
    lines: Vec<String>,
    /// Whether anybody asked the broker what became of them.
    asked: bool,
    /// Told of as a number only: `fire` does not say which.
    dropped: u64,
}

impl Account {
    /// These lines are given to a producer.
    pub(crate) fn attempted(&mut self, lines: &str) {
        self.attempted_by_key(lines, |_| None);
    }

    /// These lines are given to a producer, and those with one key are to be handled in their order.
    pub(crate) fn attempted_by_key(&mut self, lines: &str, key: impl Fn(&str) -> Option<String>) {
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for line in lines.lines() {
            let key = key(line);
            let number = last.entry(key.clone().unwrap_or_default()).or_default();
            *number += 1;
            self.ledger.attempted(line, key.as_deref(), *number);
            self.lines.push(line.to_owned());
        }
    }

    /// What `send` said of them.
    pub(crate) fn sent(&mut self, sent: &Sent) {
        self.asked = true;
        sent.confirmed.iter().for_each(|line| self.ledger.said(line, Said::Confirmed, Instant::now()));
        sent.told.iter().for_each(|(line, said)| self.ledger.said(line, *said, Instant::now()));
    }

    /// What `fire` said of them.
    pub(crate) fn fired(&mut self, fired: Fired) {
        self.dropped += fired.dropped;
    }

    /// The lab's own client saw each of them confirmed.
    pub(crate) fn all_confirmed(&mut self) {
        self.asked = true;
        self.lines.iter().for_each(|line| self.ledger.said(line, Said::Confirmed, Instant::now()));
    }

    /// These were handled, in this order, after those entered before.
    pub(crate) fn handled(&mut self, handled: &[Handled]) {
        handled.iter().for_each(|handled| {
            self.ledger.handled(&handled.payload, handled.redelivered, Instant::now());
        });
    }

    /// These were parked.
    pub(crate) fn dead(&mut self, dead: &[Dead]) {
        dead.iter().for_each(|dead| self.ledger.dead(&dead.payload));
    }

    pub(crate) fn figures(&self) -> Figures {
        let report = self.ledger.judge();
        let without_a_word = report.unknown - report.recovered;
        Figures {
            sent: report.attempted,
            confirmed: self.asked.then_some(report.confirmed),
            told: report.unroutable
                + report.refused
                + report.not_sent
                + if self.asked { report.unknown } else { self.dropped },
            handled: report.handled + report.duplicated(),
            lost: report.lost + if self.asked { 0 } else { without_a_word.saturating_sub(self.dropped) },
            doubled: report.duplicated(),
            out_of_order: report.out_of_order(),
            dead: report.dead,
            strange: report.unexpected + report.contradicted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handled(payloads: &[&str]) -> Vec<Handled> {
        payloads.iter().map(|payload| Handled { payload: (*payload).to_owned(), redelivered: false }).collect()
    }

    #[test]
    fn lost_is_what_was_confirmed_and_neither_handled_nor_parked() {
        let mut account = Account::default();
        account.attempted("1\n2\n3\n4\n5\n");
        let confirmed = ["1", "2", "3", "4"].map(str::to_owned).to_vec();
        let told = vec![("5".to_owned(), Said::Unroutable)];
        account.sent(&Sent { confirmed, told, resent: 0 });
        account.handled(&handled(&["1", "2", "2"]));
        account.dead(&[Dead { payload: "3".to_owned() }]);
        let expected = Figures {
            sent: 5,
            confirmed: Some(4),
            told: 1,
            handled: 3,
            lost: 1,
            doubled: 1,
            dead: 1,
            ..Figures::default()
        };
        assert_eq!(account.figures(), expected);
    }

    #[test]
    fn where_nobody_asks_lost_is_what_is_missing_without_a_word() {
        let mut account = Account::default();
        account.attempted("1\n2\n3\n4\n");
        account.fired(Fired { dropped: 1 });
        account.handled(&handled(&["1"]));
        let figures = account.figures();
        assert_eq!((figures.confirmed, figures.told, figures.lost), (None, 1, 2));
    }

    #[test]
    fn order_is_counted_by_key() {
        let mut account = Account::default();
        account.attempted_by_key("a1\nb1\na2\na3\nb2\n", |line| Some(line[..1].to_owned()));
        account.handled(&handled(&["b1", "a2", "a1", "b2"]));
        assert_eq!(account.figures().out_of_order, 1);
    }
}
