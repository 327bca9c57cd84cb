//! What half a lesson showed, in numbers.

use serde::Serialize;

/// A lesson run once: without its guarantee, or with it.
#[derive(Clone, Debug, Serialize)]
pub struct Half {
    /// The lesson's name.
    pub lesson: &'static str,
    /// Whether the guarantee was on.
    pub guarded: bool,
    /// The setting that switches it, as it stands on the command line.
    pub setting: &'static str,
    /// The fault, or the guard against it, in a few words.
    pub done: &'static str,
    /// What was shown, one after another.
    pub acts: Vec<Act>,
}

/// One thing that is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Act {
    /// In a few words.
    pub name: &'static str,
    /// What came of it.
    pub figures: Figures,
}

/// The numbers of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Lines given to the producer.
    pub sent: u64,
    /// Of those, what the broker confirmed; `None` where nobody asks for confirms.
    pub confirmed: Option<u64>,
    /// Of which the producer said that they are on no queue, or may not be.
    pub told: u64,
    /// Effects: a message handled twice counts twice.
    pub handled: u64,
    /// Neither handled nor parked, and nobody was told.
    pub lost: u64,
    /// Effects past the first of each message.
    pub doubled: u64,
    /// Handled after a later message of the same key; redelivered ones are not counted.
    pub out_of_order: u64,
    /// Parked as dead letters.
    pub dead: u64,
    /// Handled and never sent, or handled although it was said that they are on no queue: never right.
    pub strange: u64,
}

impl Half {
    /// The acts together.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.acts.iter().map(|act| act.figures).fold(Figures::default(), |sum, figures| Figures {
            sent: sum.sent + figures.sent,
            confirmed: match (sum.confirmed, figures.confirmed) {
                (None, None) => None,
                (sum, figures) => Some(sum.unwrap_or_default() + figures.unwrap_or_default()),
            },
            told: sum.told + figures.told,
            handled: sum.handled + figures.handled,
            lost: sum.lost + figures.lost,
            doubled: sum.doubled + figures.doubled,
            out_of_order: sum.out_of_order + figures.out_of_order,
            dead: sum.dead + figures.dead,
            strange: sum.strange + figures.strange,
        })
    }
}
