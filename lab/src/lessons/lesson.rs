//! The lessons: their names, what they tell, and in what their damage shows.

use super::{
    Comparison, Damage, Half, LessonError, acknowledged, addressing, duplicated, lost, ordered,
    retried::{self, HOPELESS},
    stage::Stage,
    synchronous,
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
    /// Who gets a message: any one, one, those who want it, everyone
    Addressing,
    /// Asking and waiting, beside sending and going on
    Synchronous,
}

/// How a lesson goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Twice, without a guarantee and with it; in this its damage shows.
    Halves(Damage),
    /// Once, one way beside the other.
    Comparison,
}

impl Lesson {
    /// All of them, in the order in which they build on each other.
    pub const ALL: [Self; 7] = [
        Self::Lost,
        Self::Acknowledged,
        Self::Retried,
        Self::Duplicated,
        Self::Ordered,
        Self::Addressing,
        Self::Synchronous,
    ];

    /// Its name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Acknowledged => "acknowledged",
            Self::Retried => "retried",
            Self::Duplicated => "duplicated",
            Self::Ordered => "ordered",
            Self::Addressing => "addressing",
            Self::Synchronous => "synchronous",
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
            Self::Addressing => &[
                "Five consumers, and four ways of saying who is to have a message: any one of them, one in particular, all who want such",
                "events, everyone. Each subscriber's queue is its own and stays while they are away. Price: only for so long (a week).",
            ],
            Self::Synchronous => &[
                "The same 1,000 pieces of work: asked for one at a time, asked for with many under way, and sent. Then the worker is away",
                "for five seconds. Price of asking: the sender is held as long as the work takes, and stands still when nobody works.",
            ],
        }
    }

    /// How it goes.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Lost | Self::Acknowledged => Kind::Halves(Damage::Lost),
            Self::Retried => Kind::Halves(Damage::DeadBeyond(HOPELESS)),
            Self::Duplicated => Kind::Halves(Damage::Doubled),
            Self::Ordered => Kind::Halves(Damage::OutOfOrder),
            Self::Addressing | Self::Synchronous => Kind::Comparison,
        }
    }

    /// Runs a part of it: a half, or all that it compares.
    pub(crate) async fn part(self, stage: &Stage<'_>, guarded: bool) -> Result<Part, LessonError> {
        Ok(match self {
            Self::Lost => Part::Half(lost::run(stage, guarded).await?),
            Self::Acknowledged => Part::Half(acknowledged::run(stage, guarded).await?),
            Self::Retried => Part::Half(retried::run(stage, guarded).await?),
            Self::Duplicated => Part::Half(duplicated::run(stage, guarded).await?),
            Self::Ordered => Part::Half(ordered::run(stage, guarded).await?),
            Self::Addressing => Part::Comparison(addressing::run(stage).await?),
            Self::Synchronous => Part::Comparison(synchronous::run(stage).await?),
        })
    }
}

/// What a part of a lesson has shown.
pub(crate) enum Part {
    Half(Half),
    Comparison(Comparison),
}
