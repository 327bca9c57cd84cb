//! The rounds as a table: one row a way, beside the reference of its group.

use std::fmt;

use crate::rounds::{Figure, Rounds, Spread};

/// Prints the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Table<'r>(pub &'r Rounds);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44} {:>27}   {:>6}   {:>6} {:>13}   {:>6}", "", "messages/s", "CPU µs", "rate", "", "CPU")?;
        writeln!(
            f,
            "{:<44} {:>27}   {:>6}   {:>20}   {:>6}",
            "", "least/median/greatest", "median", "ratio, round by round", "ratio"
        )?;
        let mut group = None;
        for way in self.0.ways() {
            let (Some(rate), Some(cpu)) =
                (Spread::of(self.0.figures(way, Figure::Rate)), Spread::of(self.0.figures(way, Figure::Cpu)))
            else {
                continue;
            };
            if group.is_some_and(|group| group != way.group()) {
                writeln!(f)?;
            }
            group = Some(way.group());
            let rates = format!("{:.0}/{:.0}/{:.0}", rate.least, rate.median, rate.greatest);
            write!(f, "{:<44} {rates:>27}   {:>6.1}", way.name(), cpu.median)?;
            let reference = way.group().reference();
            if let (Some(rate), Some(cpu)) =
                (self.0.ratio(way, reference, Figure::Rate), self.0.ratio(way, reference, Figure::Cpu))
            {
                let spread = format!("({:.2}–{:.2})", rate.least, rate.greatest);
                write!(f, "   {:>6.2} {spread:>13}   {:>6.2}", rate.median, cpu.median)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
