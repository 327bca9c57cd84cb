//! What this process has used: CPU time of all its threads, and memory at its highest.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::Error;

/// Wall time and CPU time since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    /// Starts now.
    ///
    /// # Errors
    ///
    /// When the system does not tell the process's CPU time.
    pub fn start() -> Result<Self, Error> {
        Ok(Self { cpu: cpu_time()?, wall: Instant::now() })
    }

    /// Wall time and CPU time, in seconds.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn seconds(&self) -> Result<(f64, f64), Error> {
        let wall = self.wall.elapsed();
        Ok((wall.as_secs_f64(), cpu_time()?.saturating_sub(self.cpu).as_secs_f64()))
    }
}

/// User and system time of all threads, those that have ended included.
fn cpu_time() -> Result<Duration, Error> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Resident memory of this process, in bytes: now, and at its highest so far.
///
/// # Errors
///
/// Where there is no `/proc`.
pub fn resident() -> Result<(u64, u64), Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok((kibibytes(&status, "VmRSS:")? * 1024, kibibytes(&status, "VmHWM:")? * 1024))
}

fn kibibytes(status: &str, name: &str) -> Result<u64, Error> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number =
        line.and_then(|rest| rest.split_whitespace().next()).ok_or_else(|| format!("no {name} in the status"))?;
    Ok(number.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_holds_shows_at_its_highest() {
        let (_, before) = resident().unwrap();
        // Else the compiler leaves out what nobody reads.
        let held = std::hint::black_box(vec![1u8; 32 << 20]);
        let (now, highest) = resident().unwrap();
        assert!(highest >= now && highest >= before.max(held.len() as u64));
    }
}
