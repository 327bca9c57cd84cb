//! Figures of several runs, side by side.

use std::fmt;

/// The rates of one way of sending, run after run.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: &'static str,
    /// Messages a second, one figure a run.
    pub rates: Vec<f64>,
}

impl Row {
    /// The middle figure.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Rows measured in turn, and each one's ratio to the first.
#[derive(Clone, Debug)]
pub struct Table(pub Vec<Row>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44} {:>10} {:>10} {:>10}   ratio (pair by pair, median)", "", "min/s", "median/s", "max/s")?;
        for row in &self.0 {
            let min = row.rates.iter().copied().fold(f64::INFINITY, f64::min);
            let max = row.rates.iter().copied().fold(0.0, f64::max);
            let ratio = self.0.first().map_or(f64::NAN, |first| ratio(row, first));
            writeln!(f, "{:<44} {min:>10.0} {:>10.0} {max:>10.0}   {ratio:.2}", row.name, row.median())?;
        }
        Ok(())
    }
}

/// The median of the ratios of runs that stood next to each other: it holds when the machine's speed drifts.
#[must_use]
pub fn ratio(row: &Row, base: &Row) -> f64 {
    let rates = row.rates.iter().zip(&base.rates).map(|(a, b)| a / b).collect();
    Row { name: "", rates }.median()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_taken_pair_by_pair() {
        let base = Row { name: "base", rates: vec![10.0, 100.0, 50.0] };
        let twice = Row { name: "twice", rates: vec![20.0, 200.0, 100.0] };
        assert!((ratio(&twice, &base) - 2.0).abs() < f64::EPSILON);
    }
}
