//! Dead letters are removed for good, a few at a time, so that each can be kept elsewhere before.

use tokio_util::sync::CancellationToken;

use super::{
    DeadLetters, DeadLettersError, Letter, LettersFilter, LookEnd,
    walk::{Taken, Walk},
};

impl DeadLetters {
    /// Begins to remove the wanted letters. Nothing is removed until [`Purge::remove`]. `stop` ends it at the next letter.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`], if the parking queue cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken yet.
    pub async fn purge(&self, filter: LettersFilter, stop: CancellationToken) -> Result<Purge, DeadLettersError> {
        let walk = Walk::new(self.parking().await?, filter, stop);
        Ok(Purge { walk, taken: Vec::new(), removed: 0 })
    }
}

/// Dead letters being removed: take some, keep them elsewhere if that is wanted, remove them.
///
/// Dropped without [`Purge::end`], what is not removed returns when the connection ends, which counts as one delivery of each.
#[must_use = "letters that stay are given back by `end`"]
pub struct Purge {
    walk: Walk,
    /// Those that were taken last.
    taken: Vec<u64>,
    removed: u32,
}

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Letters that are gone for good.
    pub removed: u32,
    /// Letters that were not wanted.
    pub passed_over: u32,
    /// Why it looked at no more.
    pub ended: LookEnd,
}

impl Purged {
    /// Whether it ended before it had seen all that were there at its start.
    #[must_use]
    pub fn ended_early(&self) -> bool {
        self.ended != LookEnd::AllSeen
    }
}

impl Purge {
    /// The next few wanted letters: up to 64, or 8 MiB of them and the one that reaches it. `None` after the last.
    ///
    /// Those that were taken before and not removed stay.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`]. What was not removed stays.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: letters that were on their way are not seen. They are given back with the others.
    pub async fn take(&mut self) -> Result<Option<Vec<Letter>>, DeadLettersError> {
        self.let_stay();
        let mut letters = Vec::new();
        let mut weight = 0;
        while letters.len() < AT_ONCE && weight < BYTES_AT_ONCE {
            let Some(Taken { tag, letter }) = self.walk.next().await? else { break };
            weight += letter.weight();
            self.taken.push(tag);
            letters.push(letter);
        }
        Ok((!letters.is_empty()).then_some(letters))
    }

    /// Removes for good what was taken last.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`]. Some of them may be removed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: some of them may be removed.
    pub async fn remove(&mut self) -> Result<(), DeadLettersError> {
        for tag in std::mem::take(&mut self.taken) {
            self.walk.remove(tag).await?;
            self.removed += 1;
        }
        Ok(())
    }

    /// How many the broker was told to remove until now. It has done so for sure when [`Purge::end`] says it.
    #[must_use]
    pub fn removed(&self) -> u32 {
        self.removed
    }

    /// Gives back what stays, and waits until the broker knows of all that was removed.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`]. Some that were removed may be back then.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: some that were removed may be back.
    pub async fn end(mut self) -> Result<Purged, DeadLettersError> {
        self.let_stay();
        let done = Purged { removed: self.removed, passed_over: self.walk.passed_over, ended: self.walk.end };
        self.walk.give_back().await?;
        self.walk.close().await?;
        Ok(done)
    }

    fn let_stay(&mut self) {
        for tag in std::mem::take(&mut self.taken) {
            self.walk.hold(tag);
        }
    }
}

/// Letters that are taken together.
const AT_ONCE: usize = 64;
/// What they take in memory, the last one aside.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;
