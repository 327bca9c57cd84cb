//! The ways of sending that are compared, under the names by which a child process is told which one it is.

mod lapin;
mod ours;

use clap::ValueEnum;

use crate::{
    Error, Load,
    sample::{Ends, Sample},
};

pub(crate) use ours::to;

/// One way of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Way {
    /// lapin as its examples use it, with a window.
    LapinAwaited,
    /// lapin at its best: the ceiling for whatever is built on it.
    LapinPolled,
    /// A C program on rabbitmq-c.
    RabbitmqC,
    /// Ours.
    Submit,
    /// Ours, every tenth message going where nobody lives.
    SubmitTenth,
    /// lapin without confirms.
    LapinFire,
    /// Ours, without answers.
    Fire,
}

/// Ways that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Confirmed, persistent, mandatory, to a quorum queue.
    Confirmed,
    /// Fire and forget: transient, not mandatory, to a classic queue.
    Fire,
}

impl Group {
    /// The way that the others of the group are compared with in the table.
    #[must_use]
    pub fn reference(self) -> Way {
        match self {
            Self::Confirmed => Way::LapinAwaited,
            Self::Fire => Way::LapinFire,
        }
    }
}

impl Way {
    /// What the child process is told.
    #[must_use]
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LapinAwaited => "lapin, each basic_publish awaited",
            Self::LapinPolled => "lapin, publishes polled together in one task",
            Self::RabbitmqC => "rabbitmq-c, one thread",
            Self::Submit => "correio submit",
            Self::SubmitTenth => "correio submit, 10 % unroutable",
            Self::LapinFire => "lapin without confirms, each awaited",
            Self::Fire => "correio fire",
        }
    }

    /// With whom it is compared.
    #[must_use]
    pub fn group(self) -> Group {
        match self {
            Self::LapinFire | Self::Fire => Group::Fire,
            _ => Group::Confirmed,
        }
    }

    /// The ends that this load has to come to.
    #[must_use]
    pub fn expected(self, load: Load) -> Ends {
        match self {
            Self::SubmitTenth => {
                let unroutable = load.messages.div_ceil(TENTH);
                Ends { confirmed: load.messages - unroutable, unroutable, ..Ends::default() }
            }
            Self::LapinFire | Self::Fire => Ends { fired: load.messages, ..Ends::default() },
            _ => Ends { confirmed: load.messages, ..Ends::default() },
        }
    }

    /// Sends in this process.
    ///
    /// # Errors
    ///
    /// Whatever the broker refuses; and of the C program that it is another program.
    pub async fn run(self, url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
        match self {
            Self::LapinAwaited => lapin::awaited(url, queue, load).await,
            Self::LapinPolled => lapin::polled_together(url, queue, load).await,
            Self::RabbitmqC => Err("a program of its own".into()),
            Self::Submit => ours::submit(url, queue, load, None).await,
            Self::SubmitTenth => ours::submit(url, queue, load, Some(TENTH)).await,
            Self::LapinFire => lapin::fire(url, queue, load).await,
            Self::Fire => ours::fire(url, queue, load).await,
        }
    }
}

/// Every so many messages one goes where nobody lives.
const TENTH: u64 = 10;
