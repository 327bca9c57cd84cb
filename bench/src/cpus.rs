//! Which processors the broker has, and which those who are measured.
//!
//! On the same ones, a broker that does more for a client has less left for itself, so that the client's own cost counts twice. Elsewhere
//! the broker is another machine. So the broker has one half of the processors and who is measured the other, by `taskset`.

use std::{fs, process};

use tokio::process::Command;

use crate::Error;

/// Two halves of the processors that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halves {
    broker: String,
    measured: String,
}

impl Halves {
    /// Puts this process, and so the broker that it starts, on the broker's half. Threads that run already stay where they are.
    ///
    /// # Errors
    ///
    /// When there is one processor only, or no `taskset`.
    pub fn take() -> Result<Self, Error> {
        let status = fs::read_to_string("/proc/self/status")?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let halves = Self::of(&numbers(list.unwrap_or_default().trim())?).ok_or("there is one processor only")?;
        let own = process::id().to_string();
        let placed = process::Command::new(TASKSET).args(["-cp", &halves.broker, &own]).output()?;
        if placed.status.success() { Ok(halves) } else { Err(String::from_utf8_lossy(&placed.stderr).into()) }
    }

    fn of(all: &[u32]) -> Option<Self> {
        let (broker, measured) = all.split_at(all.len() / 2);
        let listed = |half: &[u32]| half.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        (!broker.is_empty()).then(|| Self { broker: listed(broker), measured: listed(measured) })
    }

    /// The same command on the half of those who are measured.
    #[must_use]
    pub fn place(&self, command: &Command) -> Command {
        let command = command.as_std();
        let mut placed = Command::new(TASKSET);
        placed.args(["-c", &self.measured]).arg(command.get_program()).args(command.get_args());
        placed.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            placed.current_dir(folder);
        }
        placed
    }
}

/// `0-2,5` is 0, 1, 2 and 5.
fn numbers(list: &str) -> Result<Vec<u32>, Error> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<u32>()?..=last.parse()?);
    }
    Ok(all)
}

const TASKSET: &str = "taskset";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_are_parted_and_one_alone_is_not() {
        let halves = |list: &str| Halves::of(&numbers(list).unwrap());
        let of = |broker: &str, measured: &str| Some(Halves { broker: broker.into(), measured: measured.into() });
        assert_eq!(halves("0-1"), of("0", "1"));
        assert_eq!(halves("0-2,5,7"), of("0,1", "2,5,7"));
        assert_eq!(halves("3"), None);
        assert!(numbers("").is_err());
    }

    #[test]
    fn a_command_that_is_placed_keeps_its_arguments_and_its_environment() {
        let halves = Halves { broker: "0".into(), measured: "1".into() };
        let mut command = Command::new("node");
        command.args(["a", "b c"]).env("X", "1");
        let placed = halves.place(&command);
        assert_eq!(format!("{:?}", placed.as_std()), r#"X="1" "taskset" "-c" "1" "node" "a" "b c""#);
    }
}
