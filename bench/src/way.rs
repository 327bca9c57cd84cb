//! The ways of sending and of consuming that are compared, under the names by which a child process is told which one it is.

pub mod consumed;
mod lapin;
mod ours;
mod remembered;

use clap::ValueEnum;

use crate::{
    Error, Load,
    sample::{Ends, Sample},
};

pub(crate) use ours::to;

/// One way of sending, or of consuming.
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
    /// A C program on rabbitmq-c that reads, and acknowledges every hundred.
    ConsumeRabbitmqC,
    /// lapin as its examples use it, acknowledging every hundred.
    ConsumeLapin,
    /// The same on a runtime of one thread: the ceiling for whatever is built on it.
    ConsumeLapinOneThread,
    /// amqplib, for Node.
    ConsumeAmqplib,
    /// Ours, the whole pipeline: decoded, ordered by key, deduplicated, handled.
    Ordered,
    /// The same on a runtime of one thread.
    OrderedOneThread,
    /// Ours without order.
    Independent,
    /// Ours without order, remembering in memory what it handled: the ceiling for what remembers in a file.
    RememberInMemory,
    /// The same, remembering in a file of SQLite.
    RememberInSqlite,
    /// The same, with a handler that writes in the transaction in which its message is remembered.
    Transactional,
    /// No broker and no consumer: a loop that writes the same rows with sqlx, a batch a transaction.
    PlainInserts,
}

/// Ways that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Confirmed, persistent, mandatory, to a quorum queue.
    Confirmed,
    /// Fire and forget: transient, not mandatory, to a classic queue.
    Fire,
    /// From a quorum queue, acknowledged.
    Consumed,
    /// The same, remembered on disk before it is acknowledged.
    Remembered,
}

impl Group {
    /// The way that the others of the group are compared with in the table.
    #[must_use]
    pub fn reference(self) -> Way {
        match self {
            Self::Confirmed => Way::LapinAwaited,
            Self::Fire => Way::LapinFire,
            Self::Consumed => Way::ConsumeRabbitmqC,
            Self::Remembered => Way::RememberInMemory,
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
            Self::ConsumeRabbitmqC => "rabbitmq-c, reads and acknowledges",
            Self::ConsumeLapin => "lapin, reads and acknowledges",
            Self::ConsumeLapinOneThread => "lapin, the same on a one-thread runtime",
            Self::ConsumeAmqplib => "amqplib, reads and acknowledges",
            Self::Ordered => "correio, ordered by key",
            Self::OrderedOneThread => "correio, the same on a one-thread runtime",
            Self::Independent => "correio, independent",
            Self::RememberInMemory => "correio, remembering in memory",
            Self::RememberInSqlite => "correio, remembering in SQLite",
            Self::Transactional => "correio, an INSERT in SQLite exactly once",
            Self::PlainInserts => "sqlx alone, an INSERT for each, in batches",
        }
    }

    /// With whom it is compared.
    #[must_use]
    pub fn group(self) -> Group {
        match self {
            Self::LapinFire | Self::Fire => Group::Fire,
            Self::LapinAwaited | Self::LapinPolled | Self::RabbitmqC | Self::Submit | Self::SubmitTenth => {
                Group::Confirmed
            }
            Self::RememberInMemory | Self::RememberInSqlite | Self::Transactional | Self::PlainInserts => {
                Group::Remembered
            }
            _ => Group::Consumed,
        }
    }

    /// Whether it is a peer that runs as a program of its own.
    #[must_use]
    pub fn is_a_program_of_its_own(self) -> bool {
        matches!(self, Self::RabbitmqC | Self::ConsumeRabbitmqC | Self::ConsumeAmqplib)
    }

    /// Whether it wants a queue that is full.
    #[must_use]
    pub fn consumes(self) -> bool {
        matches!(self.group(), Group::Consumed | Group::Remembered) && self != Self::PlainInserts
    }

    /// The ends that this load has to come to.
    #[must_use]
    pub fn expected(self, load: Load) -> Ends {
        match self {
            Self::SubmitTenth => {
                let unroutable = load.messages.div_ceil(TENTH);
                Ends { confirmed: load.messages - unroutable, unroutable, ..Ends::default() }
            }
            _ if self.consumes() || self == Self::PlainInserts => Ends { consumed: load.messages, ..Ends::default() },
            Self::LapinFire | Self::Fire => Ends { fired: load.messages, ..Ends::default() },
            _ => Ends { confirmed: load.messages, ..Ends::default() },
        }
    }

    /// Sends or consumes in this process.
    ///
    /// # Errors
    ///
    /// Whatever the broker refuses; and of some peers that they are other programs.
    pub async fn run(self, url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
        match self {
            Self::LapinAwaited => lapin::awaited(url, queue, load).await,
            Self::LapinPolled => lapin::polled_together(url, queue, load).await,
            Self::Submit => ours::submit(url, queue, load, None).await,
            Self::SubmitTenth => ours::submit(url, queue, load, Some(TENTH)).await,
            Self::LapinFire => lapin::fire(url, queue, load).await,
            Self::Fire => ours::fire(url, queue, load).await,
            Self::ConsumeLapin => consumed::lapin::read(url, queue, load).await,
            Self::ConsumeLapinOneThread => consumed::on_one_thread(url, queue, load, consumed::lapin::read).await,
            Self::Ordered => consumed::ours::ordered(url, queue, load).await,
            Self::OrderedOneThread => consumed::on_one_thread(url, queue, load, consumed::ours::ordered).await,
            Self::Independent => consumed::ours::independent(url, queue, load).await,
            Self::RememberInMemory => remembered::in_memory(url, queue, load).await,
            Self::RememberInSqlite => remembered::in_sqlite(url, queue, load).await,
            Self::Transactional => remembered::transactional(url, queue, load).await,
            Self::PlainInserts => remembered::plain_inserts(load).await,
            Self::RabbitmqC | Self::ConsumeRabbitmqC | Self::ConsumeAmqplib => Err("a program of its own".into()),
        }
    }
}

/// Every so many messages one goes where nobody lives.
const TENTH: u64 = 10;
