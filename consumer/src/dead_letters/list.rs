//! A look at dead letters that leaves them where they are.

use std::num::NonZeroU32;

use super::{DeadLetterSummary, DeadLetters, DeadLettersError};

/// The dead letters that one look saw, oldest first as far as the broker keeps their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// What each says.
    pub letters: Vec<DeadLetterSummary>,
    /// How many more wait behind them.
    pub more: u32,
}

impl DeadLetters {
    /// How many letters a look sees when nothing else is asked.
    pub const LIST_DEFAULT: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

    /// Reads up to `limit` dead letters and gives every one back.
    ///
    /// The parking queue holds the same letters afterwards. While the look lasts, another look does not see them.
    /// It ends early after 256 MiB of letters, which [`Listing::more`] tells.
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
    /// Cancel safe: the letters return to the queue when the connection ends, which counts as one delivery of each.
    pub async fn list(&self, limit: NonZeroU32) -> Result<Listing, DeadLettersError> {
        let parking = self.parking().await?;
        let mut listing = Listing { letters: Vec::new(), more: 0 };
        let mut held = Vec::new();
        let mut bytes = 0;
        while listing.letters.len() < limit.get() as usize && bytes < MOST_BYTES {
            let Some(parked) = parking.next().await? else {
                listing.more = 0;
                break;
            };
            held.push(parked.tag);
            bytes += parked.envelope.body.len() + parked.envelope.properties.weight();
            listing.more = parked.behind;
            listing.letters.push(DeadLetterSummary::of(&parked.envelope));
        }
        parking.give_back(&held).await?;
        parking.close().await?;
        Ok(listing)
    }
}

/// What the broker keeps checked out for one look.
const MOST_BYTES: usize = 256 * 1024 * 1024;
