//! What was measured, round by round, and the ratios within each round.

use std::collections::BTreeMap;

use crate::{Way, sample::Sample};

/// What is compared of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Messages a second.
    Rate,
    /// CPU time of the client for each message.
    Cpu,
}

impl Figure {
    /// Of this run.
    #[must_use]
    pub fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Rate => sample.rate(),
            Self::Cpu => sample.cpu(),
        }
    }
}

/// The rounds that count. In each, every way ran once.
#[derive(Clone, Debug, Default)]
pub struct Rounds(pub Vec<BTreeMap<Way, Sample>>);

impl Rounds {
    /// The ways that ran, in their order.
    pub fn ways(&self) -> impl Iterator<Item = Way> {
        self.0.first().into_iter().flat_map(|round| round.keys().copied())
    }

    /// This figure of this way, round by round.
    #[must_use]
    pub fn figures(&self, way: Way, figure: Figure) -> Vec<f64> {
        self.0.iter().filter_map(|round| round.get(&way)).map(|sample| figure.of(sample)).collect()
    }

    /// One way's figure divided by its peer's of the same round: the median, the least and the greatest. `None` when one of
    /// them did not run.
    #[must_use]
    pub fn ratio(&self, way: Way, beside: Way, figure: Figure) -> Option<Spread> {
        let pairs = self.0.iter().filter_map(|round| Some((round.get(&way)?, round.get(&beside)?)));
        Spread::of(pairs.map(|(one, other)| figure.of(one) / figure.of(other)).collect())
    }
}

/// Figures of several runs: the middle one, and how far they go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub least: f64,
    /// The middle one.
    pub median: f64,
    /// The largest.
    pub greatest: f64,
}

impl Spread {
    /// Of these figures; `None` of none.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (least, greatest) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len().is_multiple_of(2) {
            f64::midpoint(figures[middle - 1], figures[middle])
        } else {
            figures[middle]
        };
        Some(Self { least, median, greatest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Ends;

    fn round(of: &[(Way, f64)]) -> BTreeMap<Way, Sample> {
        let ends = Ends { confirmed: 100, ..Ends::default() };
        of.iter().map(|&(way, rate)| (way, Sample { seconds: 100.0 / rate, cpu_seconds: 1.0, ends })).collect()
    }

    #[test]
    fn the_ratio_is_taken_pair_by_pair() {
        let rounds = [10.0, 100.0, 50.0].map(|rate| round(&[(Way::LapinAwaited, rate), (Way::Submit, 2.0 * rate)]));
        let rounds = Rounds(rounds.into());
        let ratio = rounds.ratio(Way::Submit, Way::LapinAwaited, Figure::Rate).unwrap();
        assert!([ratio.least, ratio.median, ratio.greatest].iter().all(|ratio| (ratio - 2.0).abs() < 1e-9));
    }

    #[test]
    fn a_peer_that_did_not_run_has_no_ratio() {
        let rounds = Rounds(vec![round(&[(Way::Submit, 1.0)])]);
        assert_eq!(rounds.ratio(Way::Submit, Way::RabbitmqC, Figure::Rate), None);
    }

    #[test]
    fn of_an_even_number_of_runs_the_median_lies_between_the_two_in_the_middle() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 8.0]), Some(Spread { least: 1.0, median: 3.0, greatest: 8.0 }));
    }
}
