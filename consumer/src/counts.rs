//! What a consumer has done so far, readable while it works.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

/// A live view of what a consumer does. Cheap to clone; works after the consumer ended, too.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    cells: Arc<Cells>,
    subscribed: Arc<watch::Sender<bool>>,
}

impl Counts {
    /// Waits until the consumer has subscribed for the first time: what is sent from then on finds its queue. Pends for ever
    /// if it ends before that.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn subscribed(&self) {
        // An error would mean that the sender is gone, and it is in here.
        let _ = self.subscribed.subscribe().wait_for(|subscribed| *subscribed).await;
    }

    pub(crate) fn on_subscribed(&self) {
        self.subscribed.send_replace(true);
    }
}

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counts at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        #[non_exhaustive]
        pub struct Tally {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        struct Cells {
            $($name: AtomicU64,)*
        }

        impl Counts {
            /// The counts now. Each is exact; read while the consumer works, two of them may be a moment apart.
            #[must_use]
            pub fn now(&self) -> Tally {
                Tally { $($name: self.cells.$name.load(Ordering::Relaxed),)* }
            }

            $(pub(crate) fn $name(&self, more: usize) {
                self.cells.$name.fetch_add(more as u64, Ordering::Relaxed);
            })*
        }
    };
}

tally! {
    /// Deliveries taken from the broker, every kind.
    received,
    /// Messages whose handler succeeded.
    handled,
    /// Messages not handled because they had been before, or because the first copy is still being handled.
    duplicates,
    /// Messages handled although they came after their place in the order had been given up.
    out_of_order,
    /// Numbers given up waiting for.
    gaps,
    /// Attempts that failed and are to be repeated.
    retried,
    /// Messages parked as dead letters, their copies confirmed.
    dead,
    /// Messages dropped because their handler asked for it.
    dropped,
    /// Answers that are on the queue of who asked.
    replied,
    /// Answers that are not known to be there: who asked has gone, or is out of reach, or the time was over.
    unanswered,
    /// Messages not begun because their deadline had passed: who asked had stopped waiting, or the clocks differ.
    late_requests,
    /// Markers, which fill numbers that came to nothing; nobody handles them.
    markers,
    /// Messages given back to the queue although their handling had begun.
    handed_back,
    /// Messages given back to the queue at the end because they had not been begun: what the prefetch held.
    not_started,
    /// Messages acknowledged on receipt that were then neither handled nor parked.
    lost,
    /// Messages that were settled when their channel was gone: they come again, as duplicates.
    lost_acks,
    /// Copies (retries, dead letters) that were not confirmed and are published again.
    unconfirmed_copies,
    /// Messages handled here whose claim had run out meanwhile, so that another consumer may have handled them too.
    taken_over,
    /// Handled ids that were forgotten before their retention was over, for want of room: each may be handled twice. A log that
    /// several consumers share tells it to each.
    forgotten_early,
    /// Messages without an id, which nobody can deduplicate.
    without_id,
    /// Messages handled alone because they had come back too often.
    suspected,
    /// How often handling paused because everything failed.
    paused,
    /// How often the subscription was renewed after it was lost.
    resubscribed,
}

/// How a consumer's life went: what [`Consumer::run`](crate::Consumer::run) ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// What it did.
    pub counts: Tally,
    /// Why it ended.
    pub ended: Ended,
    /// What was missing on the broker when it began.
    pub startup: crate::Startup,
}

/// Why a consumer ended although nothing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// It had settled as many messages as it was told to.
    CountReached,
    /// Nothing had come for as long as it was told to wait.
    Idle,
}

impl Summary {
    /// Whether every message that was begun ended well: no dead letter, nothing handed back, nothing lost.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.dead == 0 && self.counts.handed_back == 0 && self.counts.lost == 0
    }
}
