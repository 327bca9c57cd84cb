//! What one run of one way came to, and the line by which a child process tells it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{Error, usage::Stopwatch};

/// How many messages ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// On the queue.
    pub confirmed: u64,
    /// On no queue, and said so.
    pub unroutable: u64,
    /// Handed over; nobody said what became of them.
    pub fired: u64,
    /// Taken off the queue, each a different one.
    pub consumed: u64,
    /// Of those sent, said of the wrong message: a good one called unroutable, or the other way round. Beside those consumed,
    /// deliveries of one that had been delivered before.
    pub wrong: u64,
}

impl Ends {
    /// All messages that came to an end.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.confirmed + self.unroutable + self.fired + self.consumed
    }

    /// What has to stand on the queue.
    #[must_use]
    pub fn on_queue(&self) -> u64 {
        self.confirmed + self.fired
    }
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Wall time of the timed section.
    pub seconds: f64,
    /// CPU time of the client's process in it.
    pub cpu_seconds: f64,
    /// What became of the messages.
    pub ends: Ends,
}

impl Sample {
    /// What the stopwatch shows, and these ends.
    ///
    /// # Errors
    ///
    /// As [`Stopwatch::seconds`].
    pub fn taken(watch: Stopwatch, ends: Ends) -> Result<Self, Error> {
        let (seconds, cpu_seconds) = watch.seconds()?;
        Ok(Self { seconds, cpu_seconds, ends })
    }

    /// Messages a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.ends.messages() as f64 / self.seconds
    }

    /// CPU time of the client for each message, in microseconds.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.ends.messages() as f64
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, cpu_seconds, ends: Ends { confirmed, unroutable, fired, consumed, wrong } } = self;
        write!(f, "seconds={seconds:.6} cpu_seconds={cpu_seconds:.6} ")?;
        write!(f, "confirmed={confirmed} unroutable={unroutable} fired={fired} consumed={consumed} wrong={wrong}")
    }
}

impl FromStr for Sample {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self, Error> {
        let told: BTreeMap<&str, &str> = line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        Ok(Self {
            seconds: told_as(&told, "seconds")?,
            cpu_seconds: told_as(&told, "cpu_seconds")?,
            ends: Ends {
                confirmed: told_as(&told, "confirmed")?,
                unroutable: told_as(&told, "unroutable")?,
                fired: told_as(&told, "fired")?,
                consumed: told_as(&told, "consumed")?,
                wrong: told_as(&told, "wrong")?,
            },
        })
    }
}

pub(crate) fn told_as<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    told: &BTreeMap<&str, &str>,
    name: &str,
) -> Result<T, Error> {
    let value = told.get(name).ok_or_else(|| format!("the child process did not tell {name}"))?;
    Ok(value.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_tells_is_what_the_parent_reads() {
        let ends = Ends { confirmed: 90, unroutable: 10, fired: 0, consumed: 5, wrong: 1 };
        let sample = Sample { seconds: 1.5, cpu_seconds: 0.25, ends };
        assert_eq!(sample.to_string().parse::<Sample>().unwrap(), sample);
        assert!("seconds=1".parse::<Sample>().is_err());
    }
}
