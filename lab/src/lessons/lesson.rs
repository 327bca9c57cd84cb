//! The five lessons: their names, what they tell, and in what their damage shows.

use super::{
    Damage, Half, LessonError, acknowledged, duplicated, lost, ordered,
    retried::{self, HOPELESS},
    stage::Stage,
};

/// A lesson.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Lesson {
    /// `fire` loses messages in silence; `send` does not
    Lost,
    /// A consumer dies while it holds messages
    Acknowledged,
    /// Some messages fail once, one always
    Retried,
    /// Confirms get lost, so messages are sent again
    Duplicated,
    /// Messages of one key overtake each other
    Ordered,
}

impl Lesson {
    /// All of them, in the order in which they build on each other.
    pub const ALL: [Self; 5] = [Self::Lost, Self::Acknowledged, Self::Retried, Self::Duplicated, Self::Ordered];

    /// Its name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Acknowledged => "acknowledged",
            Self::Retried => "retried",
            Self::Duplicated => "duplicated",
            Self::Ordered => "ordered",
        }
    }

    /// What happens and why, for somebody who is new to it.
    #[must_use]
    pub fn story(self) -> &'static [&'static str] {
        match self {
            Self::Lost => &[
                "500 lines go to an address where nobody lives. Then a proxy swallows 500 messages and cuts the line.",
                "`fire` hands a message to its connection and looks no further. `send` waits for the broker's answer to each.",
                "Price: one round trip, with many messages under way at once.",
            ],
            Self::Acknowledged => &[
                "A consumer dies while it holds 20 messages. Acknowledged on delivery, the broker has forgotten them by then;",
                "acknowledged after handling, it still has them. Price: after a crash a message may be handled again.",
            ],
            Self::Retried => &[
                "Of 100 messages 10 fail once and 1 always. Without retries all 11 end as dead letters. With them a failed one waits",
                "in a delay queue, and only the hopeless one is parked, with its reason. Price: others overtake it meanwhile.",
            ],
            Self::Duplicated => &[
                "The messages arrive, the broker's confirms get lost, the line is cut. The producer cannot know that they arrived and",
                "sends them again, under the same ids. Price of telling them apart: the ids handled must be remembered.",
            ],
            Self::Ordered => &[
                "Flights of one airport are to be handled in the order sent. A failed one is overtaken by the next; of three consumers",
                "the fastest is ahead; one source on two connections arrives mixed up. Price: one consumer works at a time, a key waits.",
            ],
        }
    }

    /// In what its damage shows.
    #[must_use]
    pub fn damage(self) -> Damage {
        match self {
            Self::Lost | Self::Acknowledged => Damage::Lost,
            Self::Retried => Damage::DeadBeyond(HOPELESS),
            Self::Duplicated => Damage::Doubled,
            Self::Ordered => Damage::OutOfOrder,
        }
    }

    /// Runs half of it.
    pub(crate) async fn half(self, stage: &Stage<'_>, guarded: bool) -> Result<Half, LessonError> {
        match self {
            Self::Lost => lost::run(stage, guarded).await,
            Self::Acknowledged => acknowledged::run(stage, guarded).await,
            Self::Retried => retried::run(stage, guarded).await,
            Self::Duplicated => duplicated::run(stage, guarded).await,
            Self::Ordered => ordered::run(stage, guarded).await,
        }
    }
}
