//! A look at dead letters that leaves them where they are.

use std::num::NonZeroU32;

use tokio_util::sync::CancellationToken;

use super::{
    DeadLetterSummary, DeadLetters, DeadLettersError, Letter, LettersFilter, LookEnd,
    walk::{Taken, Walk},
};

/// The dead letters that one look saw, oldest first as far as the broker keeps their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// What each says.
    pub letters: Vec<DeadLetterSummary>,
    /// How many more wait behind them.
    pub more: u32,
}

impl DeadLetters {
    /// How many letters a listing holds when nothing else is asked.
    pub const LIST_DEFAULT: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

    /// What the wanted letters say, of up to [`DeadLetters::LIST_DEFAULT`] unless the filter has a limit of its own. Every one is
    /// given back.
    ///
    /// The parking queue holds the same letters afterwards. While the look lasts, another look does not see them.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`]. The broker gives the letters back then, too.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the letters return to the queue when the connection ends, which counts as one delivery of each.
    pub async fn list(&self, filter: &LettersFilter) -> Result<Listing, DeadLettersError> {
        let filter = LettersFilter { limit: filter.limit.or(Some(Self::LIST_DEFAULT)), ..filter.clone() };
        let mut look = self.look(filter, CancellationToken::new()).await?;
        let mut letters = Vec::new();
        while let Some(letter) = look.next().await? {
            letters.push(letter.summary);
        }
        let looked = look.end().await?;
        Ok(Listing { letters, more: looked.more })
    }

    /// Begins a look at the wanted letters, one after the other: for more than fits into memory. `stop` ends it at the next letter.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`], if the parking queue cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken yet.
    pub async fn look(&self, filter: LettersFilter, stop: CancellationToken) -> Result<Look, DeadLettersError> {
        Ok(Look { walk: Walk::new(self.parking().await?, filter, stop) })
    }
}

/// Dead letters being looked at. They are kept from everybody else until [`Look::end`] gives them back.
///
/// Dropped without that, they return when the connection ends, which counts as one delivery of each.
#[must_use = "letters are given back by `end`"]
pub struct Look {
    walk: Walk,
}

/// What a look saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Letters that were wanted.
    pub wanted: u32,
    /// Letters that were not wanted.
    pub passed_over: u32,
    /// Letters behind them, which were not looked at.
    pub more: u32,
    /// Why it looked at no more.
    pub ended: LookEnd,
}

impl Look {
    /// The next wanted letter; `None` after the last. Those that come in after the first is taken are not seen.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`]. The broker gives the letters back then, too.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the letter that was on its way is not seen. It is given back with the others.
    pub async fn next(&mut self) -> Result<Option<Letter>, DeadLettersError> {
        let Some(Taken { tag, letter }) = self.walk.next().await? else { return Ok(None) };
        self.walk.hold(tag);
        Ok(Some(letter))
    }

    /// Gives every letter back, in its order.
    ///
    /// They are given back by `basic.nack`: a rejection, or a channel that just closes, would count toward the
    /// queue's delivery limit.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`]. The broker gives the letters back then, too.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the letters return to the queue when the connection ends.
    pub async fn end(mut self) -> Result<Looked, DeadLettersError> {
        let (wanted, passed_over, more, ended) =
            (self.walk.wanted, self.walk.passed_over, self.walk.left(), self.walk.end);
        self.walk.give_back().await?;
        self.walk.close().await?;
        Ok(Looked { wanted, passed_over, more, ended })
    }
}
