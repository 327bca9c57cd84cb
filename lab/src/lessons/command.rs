//! One command line: as a learner types it, and as it is run here.

use std::{fmt, net::SocketAddr};

/// A command line of one of our programs.
///
/// Displayed, it can be typed: `seq 1 500 | cargo producer send --to orders`.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine {
    pub(crate) program: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) input: Input,
    pub(crate) through: Option<SocketAddr>,
}

/// What a program reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Nothing,
    /// A number a line, as `seq` prints them.
    Seq {
        first: u64,
        last: u64,
    },
    /// Some lines of a file that the project carries.
    Flights {
        first: usize,
        last: usize,
    },
}

impl CommandLine {
    /// `cargo producer …`; words are split at blanks.
    pub(crate) fn producer(words: &str) -> Self {
        Self::new("producer", words)
    }

    /// `cargo consumer …`; words are split at blanks.
    pub(crate) fn consumer(words: &str) -> Self {
        Self::new("consumer", words)
    }

    fn new(program: &'static str, words: &str) -> Self {
        let args = words.split_whitespace().map(str::to_owned).collect();
        Self { program, args, input: Input::Nothing, through: None }
    }

    /// Further words, split at blanks. None if there are none.
    pub(crate) fn and(mut self, words: &str) -> Self {
        self.args.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// `--exec 'COMMAND'`.
    pub(crate) fn exec(mut self, command: &str) -> Self {
        self.args.extend(["--exec".to_owned(), command.to_owned()]);
        self
    }

    pub(crate) fn reading(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Connects to a proxy instead of the node.
    pub(crate) fn through(mut self, proxy: SocketAddr) -> Self {
        self.through = Some(proxy);
        self
    }
}

impl Input {
    /// The lines, each with its end; `None` if the program reads nothing.
    pub(crate) fn lines(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Seq { first, last } => Some((*first..=*last).map(|n| format!("{n}\n")).collect()),
            Self::Flights { first, last } => Some(
                FLIGHTS
                    .lines()
                    .skip(first - 1)
                    .take(last + 1 - first)
                    .flat_map(|line| [line, "\n"])
                    .collect::<String>(),
            ),
        }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.input {
            Input::Nothing => {}
            Input::Seq { first: 1, last } => write!(f, "seq {last} | ")?,
            Input::Seq { first, last } => write!(f, "seq {first} {last} | ")?,
            Input::Flights { first, last } => write!(f, "sed -n {first},{last}p lab/data/flights-1k.ndjson | ")?,
        }
        // After the pipe: before it, it would be for `seq` or `sed`.
        if let Some(proxy) = self.through {
            write!(f, "AMQP_URL=amqp://{proxy} ")?;
        }
        write!(f, "cargo {}", self.program)?;
        self.args.iter().try_for_each(|word| write!(f, " {}", Quoted(word)))
    }
}

struct Quoted<'w>(&'w str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
        if !self.0.is_empty() && self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        write!(f, "'{}'", self.0.replace('\'', r"'\''"))
    }
}

/// 1,000 real flights (lab/data/README.md).
pub(crate) const FLIGHTS: &str = include_str!("../../data/flights-1k.ndjson");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_reads_as_a_learner_types_it() {
        let send = CommandLine::producer("send --to orders").reading(Input::Seq { first: 1, last: 20 });
        assert_eq!(send.to_string(), "seq 20 | cargo producer send --to orders");
        let some = CommandLine::producer("fire --to orders").reading(Input::Seq { first: 5, last: 6 });
        assert_eq!(
            some.through(([127, 0, 0, 1], 5000).into()).to_string(),
            "seq 5 6 | AMQP_URL=amqp://127.0.0.1:5000 cargo producer fire --to orders"
        );
        let run = CommandLine::consumer("run --from orders").and("--retries 0").exec("exit 1");
        assert_eq!(run.to_string(), "cargo consumer run --from orders --retries 0 --exec 'exit 1'");
        let quote = CommandLine::consumer("run").exec("echo 'a'");
        assert_eq!(quote.to_string(), r"cargo consumer run --exec 'echo '\''a'\'''");
    }

    #[test]
    fn lines_are_those_that_the_printed_command_gives() {
        assert_eq!(Input::Seq { first: 3, last: 5 }.lines().as_deref(), Some("3\n4\n5\n"));
        let flights = Input::Flights { first: 401, last: 402 }.lines().unwrap();
        let expected: Vec<_> = FLIGHTS.lines().skip(400).take(2).collect();
        assert_eq!(flights.lines().collect::<Vec<_>>(), expected);
    }
}
