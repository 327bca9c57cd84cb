//! What speed is wanted, and whether it was reached. A verdict is said; it fails nothing.

use std::fmt;

use crate::{
    Way,
    rounds::{Figure, Rounds, Spread},
};

/// A ratio that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    way: Way,
    beside: Way,
    figure: Figure,
    bound: Bound,
}

/// On which side of what the ratio is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

impl Bound {
    /// Whether the figure is on the right side.
    #[must_use]
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound:.2}"),
            Self::AtMost(bound) => write!(f, "at most {bound:.2}"),
        }
    }
}

/// The ratios that are wanted.
pub const WANTED: [Wanted; 6] = [
    Wanted { way: Way::Submit, beside: Way::LapinAwaited, figure: Figure::Rate, bound: Bound::AtLeast(1.5) },
    Wanted { way: Way::Submit, beside: Way::RabbitmqC, figure: Figure::Rate, bound: Bound::AtLeast(0.85) },
    Wanted { way: Way::SubmitTenth, beside: Way::Submit, figure: Figure::Rate, bound: Bound::AtLeast(0.85) },
    Wanted { way: Way::Submit, beside: Way::LapinAwaited, figure: Figure::Cpu, bound: Bound::AtMost(0.5) },
    Wanted { way: Way::Fire, beside: Way::LapinFire, figure: Figure::Rate, bound: Bound::AtLeast(1.0) },
    Wanted { way: Way::Ordered, beside: Way::ConsumeRabbitmqC, figure: Figure::Rate, bound: Bound::AtLeast(0.8) },
];

/// The messages a second that are wanted, whatever others do.
pub const WANTED_RATES: [(Way, f64); 2] = [(Way::RememberInSqlite, 15_000.0), (Way::Transactional, 8_000.0)];

/// What became of what was wanted, a line each. What did not run has no line.
#[must_use]
pub fn verdicts(rounds: &Rounds) -> Vec<String> {
    let ratios = WANTED.iter().filter_map(|wanted| wanted.verdict(rounds));
    ratios.chain(WANTED_RATES.iter().filter_map(|(way, wanted)| rate(rounds, *way, *wanted))).collect()
}

fn rate(rounds: &Rounds, way: Way, wanted: f64) -> Option<String> {
    let Spread { least, median, greatest } = Spread::of(rounds.figures(way, Figure::Rate))?;
    let figure = format!("{median:.0} ({least:.0}–{greatest:.0})");
    let of = format!("messages a second of “{}”", way.name());
    Some(line(median >= wanted, &figure, &format!("at least {wanted:.0}"), &of))
}

/// One line: met or not, the figure, what was wanted of what.
#[must_use]
pub fn line(is_met: bool, figure: &str, wanted: &str, of: &str) -> String {
    format!("{:<8} {figure:>22}   wanted {wanted:<14} {of}", if is_met { "met" } else { "NOT MET" })
}

impl Wanted {
    fn verdict(&self, rounds: &Rounds) -> Option<String> {
        let Spread { least, median, greatest } = rounds.ratio(self.way, self.beside, self.figure)?;
        let figure = format!("{median:.2} ({least:.2}–{greatest:.2})");
        let of = match self.figure {
            Figure::Rate => format!("rate of “{}” beside “{}”", self.way.name(), self.beside.name()),
            Figure::Cpu => format!("CPU a message of “{}” beside “{}”", self.way.name(), self.beside.name()),
        };
        Some(line(self.bound.is_met(median), &figure, &self.bound.to_string(), &of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_on_its_side_and_on_the_line() {
        assert!(Bound::AtLeast(1.5).is_met(1.5) && !Bound::AtLeast(1.5).is_met(1.49));
        assert!(Bound::AtMost(0.5).is_met(0.5) && !Bound::AtMost(0.5).is_met(0.51));
    }
}
