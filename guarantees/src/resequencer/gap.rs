//! The report of a gap that was given up.

use std::{fmt, ops::RangeInclusive, time::Duration};

use correio_message::Line;

/// Numbers of a line that are not waited for any more. Each number is reported once, as long as its line is
/// remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The line.
    pub line: Line,
    /// The numbers that did not come, lowest first.
    pub missing: Vec<RangeInclusive<u64>>,
    /// How long the first message behind them has waited.
    pub waited: Duration,
    /// Why it does not wait on.
    pub cause: GapCause,
}

/// Why a gap was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// Its time was over.
    Deadline,
    /// There was no room for more behind it.
    Room,
    /// The line was met in its middle: what is missing may have been handled before, here or elsewhere.
    FirstContact,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("number ")?;
        for (nth, range) in self.missing.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            let (first, last) = (range.start(), range.end());
            if first == last { write!(f, "{comma}{first}") } else { write!(f, "{comma}{first}-{last}") }?;
        }
        let Line { source, stream, key } = &self.line;
        write!(f, " of key {key} on {stream} from {source} did not come")?;
        match self.cause {
            GapCause::Deadline => write!(f, " within {:?}", self.waited),
            GapCause::Room => write!(f, " before the room behind it was full, after {:?}", self.waited),
            GapCause::FirstContact => write!(f, " within {:?}; it may have been handled before", self.waited),
        }
    }
}
