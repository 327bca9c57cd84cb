//! From what was sent, said and written to the numbers of the table.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Figures,
    evidence::{Dead, Fired, Handled, Sent},
};

/// What became of the messages of one act. A message is known by its payload: no two are alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    attempted: Vec<String>,
    confirmed: Option<BTreeSet<String>>,
    told: BTreeSet<String>,
    /// Told of as a number only: `fire` does not know which.
    dropped: u64,
    handled: Vec<Handled>,
    dead: Vec<String>,
    keys: BTreeMap<String, (String, u64)>,
}

impl Account {
    /// These lines are given to a producer.
    pub(crate) fn attempted(&mut self, lines: &str) {
        self.attempted.extend(lines.lines().map(str::to_owned));
    }
}

impl Account {
    /// What `send` said of them.
    pub(crate) fn sent(&mut self, sent: &Sent) {
        self.confirmed.get_or_insert_default().extend(sent.confirmed.iter().cloned());
        self.told.extend(sent.told.iter().cloned());
    }

    /// What `fire` said of them.
    pub(crate) fn fired(&mut self, fired: Fired) {
        self.dropped += fired.dropped;
    }

    /// All that was attempted so far was confirmed, as a client of the lab saw itself.
    pub(crate) fn all_confirmed(&mut self) {
        self.confirmed.get_or_insert_default().extend(self.attempted.iter().cloned());
    }

    /// These were handled, in this order, after those entered before.
    pub(crate) fn handled(&mut self, handled: Vec<Handled>) {
        self.handled.extend(handled);
    }

    /// These were parked.
    pub(crate) fn dead(&mut self, dead: Vec<Dead>) {
        self.dead.extend(dead.into_iter().map(|dead| dead.payload));
    }

    /// Each line's key is what `of` finds in it; lines with one key are to be handled in the order attempted.
    pub(crate) fn ordered_by(&mut self, of: impl Fn(&str) -> String) {
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for line in &self.attempted {
            let key = of(line);
            let number = last.entry(key.clone()).or_default();
            *number += 1;
            self.keys.insert(line.clone(), (key, *number));
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let seen: BTreeSet<&str> = self.handled.iter().map(|handled| handled.payload.as_str()).collect();
        let dead: BTreeSet<&str> = self.dead.iter().map(String::as_str).collect();
        let accounted =
            |line: &String| seen.contains(line.as_str()) || dead.contains(line.as_str()) || self.told.contains(line);
        let missing = self.attempted.iter().filter(|line| !accounted(line)).count() as u64;
        Figures {
            sent: self.attempted.len() as u64,
            confirmed: self.confirmed.as_ref().map(|confirmed| confirmed.len() as u64),
            told: self.told.len() as u64 + self.dropped,
            handled: self.handled.len() as u64,
            lost: missing.saturating_sub(self.dropped),
            doubled: (self.handled.len() - seen.len()) as u64,
            out_of_order: self.out_of_order(),
            dead: self.dead.len() as u64,
        }
    }

    fn out_of_order(&self) -> u64 {
        let mut furthest: BTreeMap<&str, u64> = BTreeMap::new();
        let mut overtaken = 0;
        for handled in self.handled.iter().filter(|handled| !handled.redelivered) {
            let Some((key, number)) = self.keys.get(&handled.payload) else { continue };
            let furthest = furthest.entry(key).or_default();
            overtaken += u64::from(number < furthest);
            *furthest = (*furthest).max(*number);
        }
        overtaken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handled(payloads: &[&str]) -> Vec<Handled> {
        payloads.iter().map(|payload| Handled { payload: (*payload).to_owned(), redelivered: false }).collect()
    }

    #[test]
    fn lost_is_what_was_neither_handled_nor_parked_nor_told() {
        let mut account = Account::default();
        account.attempted("1\n2\n3\n4\n5\n");
        let sent = ["1", "2", "3", "4"].map(str::to_owned).to_vec();
        account.sent(&Sent { confirmed: sent, told: vec!["5".to_owned()], unroutable: 1, resent: 0 });
        account.handled(handled(&["1", "2", "2"]));
        account.dead(vec![Dead { payload: "3".to_owned() }]);
        let figures = account.figures();
        let expected =
            Figures { sent: 5, confirmed: Some(4), told: 1, handled: 3, lost: 1, doubled: 1, dead: 1, out_of_order: 0 };
        assert_eq!(figures, expected);
    }

    #[test]
    fn order_is_counted_by_key_and_a_redelivered_message_does_not_count() {
        let mut account = Account::default();
        account.attempted("a1\nb1\na2\na3\nb2\n");
        account.ordered_by(|line| line[..1].to_owned());
        account.handled(handled(&["b1", "a2", "a1", "b2"]));
        account.handled(vec![Handled { payload: "a2".to_owned(), redelivered: true }]);
        assert_eq!(account.figures().out_of_order, 1);
    }
}
