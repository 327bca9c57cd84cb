//! Dead letters get another life in their work queue.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use correio_message::{DeadLetter, DeadReason, MessageId, ShortText, replay};
use correio_producer::{ForwardReceipt, Outcome, Producer, ProducerSettings};
use tokio_util::sync::CancellationToken;

use super::{
    DeadLetters, DeadLettersError,
    parking::{Parked, Parking},
    summary::named_queue,
};

/// Which dead letters to replay: those that are all of what is said here. The default takes every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    /// With this id.
    pub id: Option<MessageId>,
    /// Parked for this reason.
    pub reason: Option<DeadReason>,
    /// Of this type.
    pub message_type: Option<ShortText>,
}

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Letters whose copy was confirmed on their work queue, and which are off the parking queue.
    pub replayed: u32,
    /// Letters that were wanted and are still parked, with the reason; the first [`Replayed::KEPT_NAMED`] by name.
    pub kept: Vec<Kept>,
    /// How many were wanted and are still parked, in all.
    pub kept_count: u32,
    /// Letters that the filter did not want.
    pub passed_over: u32,
    /// Whether it ended before it had seen all that were there at its start: stopped, at its limit, or because the
    /// broker gave no answer.
    pub ended_early: bool,
}

impl Replayed {
    /// How many letters that stayed are listed one by one.
    pub const KEPT_NAMED: usize = 100;

    fn keep(&mut self, id: Option<MessageId>, why: String) {
        self.kept_count += 1;
        if self.kept.len() < Self::KEPT_NAMED {
            self.kept.push(Kept { id, why });
        }
    }
}

/// A letter that was wanted and is still parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its id, if it has one.
    pub id: Option<MessageId>,
    /// Why its copy is not known to be on its work queue.
    pub why: String,
}

impl DeadLetters {
    /// Publishes a copy of up to `limit` wanted letters, each to the work queue it came from (or to this one, if it
    /// names none), and takes a letter off the parking queue once its copy is confirmed.
    ///
    /// The copy has the letter's id, origin, type, key and place in the order; its attempts count anew. A letter
    /// whose copy is not confirmed stays, and the reason is told. The rest is given back as by
    /// [`list`](Self::list). Only as many are looked at as were waiting at the start, so it ends although replayed
    /// letters may die again meanwhile; those that another reader held then, or that were still on their way back from
    /// one that was killed, are left for the next replay. `stop` ends it in good order after those already begun.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError::CutShort`] tells what was done when the broker went away in the middle. No letter is
    /// lost by that, or by the death of this process: a letter whose copy was confirmed may still be parked, and
    /// its second copy is a duplicate that deduplication takes.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: copies may be out whose letters are still parked. Cancel `stop` instead.
    pub async fn replay(
        &self,
        filter: &ReplayFilter,
        limit: Option<NonZeroU32>,
        stop: &CancellationToken,
    ) -> Result<Replayed, DeadLettersError> {
        let parking = self.parking().await?;
        let settings = ProducerSettings::new(self.address.clone(), "correio-replay")?.buffer_bytes(BYTES_IN_FLIGHT);
        let producer = Producer::connect(settings).await.map_err(DeadLettersError::ConnectToPublish)?;
        let mut work = Work {
            filter,
            queue: &self.queue,
            parking: &parking,
            producer: &producer,
            done: Replayed::default(),
            begun: VecDeque::new(),
            held: Vec::new(),
        };
        let ended = work.run(limit.map_or(u32::MAX, NonZeroU32::get), stop).await;
        let done = work.done;
        producer.close(CLOSING).await;
        match ended {
            Ok(()) => {
                parking.close().await?;
                Ok(done)
            }
            Err(cause) => Err(DeadLettersError::CutShort { done: Box::new(done), cause: Box::new(cause) }),
        }
    }
}

struct Work<'r> {
    filter: &'r ReplayFilter,
    queue: &'r ShortText,
    parking: &'r Parking,
    producer: &'r Producer,
    done: Replayed,
    begun: VecDeque<Begun>,
    /// The letters that stay: given back at the end.
    held: Vec<u64>,
}

/// A letter whose copy is out.
struct Begun {
    tag: u64,
    id: Option<MessageId>,
    receipt: ForwardReceipt,
}

impl Work<'_> {
    async fn run(&mut self, limit: u32, stop: &CancellationToken) -> Result<(), DeadLettersError> {
        let mut left = self.parking.waiting().await?;
        let mut begun = 0;
        let mut answered = true;
        while left > 0 && answered {
            if stop.is_cancelled() || begun == limit {
                self.done.ended_early = true;
                break;
            }
            let Some(parked) = self.parking.next().await? else { break };
            left -= 1;
            if !self.filter.wants(&parked) {
                self.done.passed_over += 1;
                self.held.push(parked.tag);
                continue;
            }
            begun += 1;
            self.begin(parked).await;
            if self.begun.len() >= AT_ONCE {
                answered = self.settle_oldest().await?;
            }
        }
        while !self.begun.is_empty() {
            answered &= self.settle_oldest().await?;
        }
        self.done.ended_early |= !answered;
        self.held.sort_unstable();
        self.parking.give_back(&self.held).await
    }

    async fn begin(&mut self, parked: Parked) {
        let queue = named_queue(&parked.envelope).unwrap_or_else(|| self.queue.clone());
        let id = id(&parked);
        match self.producer.forward(replay(&parked.envelope, queue)).await {
            Ok(receipt) => self.begun.push_back(Begun { tag: parked.tag, id, receipt }),
            Err(not_sent) => self.stays(parked.tag, id, not_sent.to_string()),
        }
    }

    /// Ends the letter whose copy is out longest; `false` when the broker gave no answer about it.
    async fn settle_oldest(&mut self) -> Result<bool, DeadLettersError> {
        let Some(Begun { tag, id, receipt }) = self.begun.pop_front() else { return Ok(true) };
        match receipt.await {
            Ok(Outcome::Confirmed { .. }) => {
                self.parking.remove(tag).await?;
                self.done.replayed += 1;
                Ok(true)
            }
            Ok(outcome) => {
                let answered = !matches!(outcome, Outcome::Unknown { .. });
                self.stays(tag, id, outcome.to_string());
                Ok(answered)
            }
            Err(never_left) => {
                self.stays(tag, id, never_left.cause.to_string());
                Ok(false)
            }
        }
    }

    fn stays(&mut self, tag: u64, id: Option<MessageId>, why: String) {
        self.held.push(tag);
        self.done.keep(id, why);
    }
}

impl ReplayFilter {
    fn wants(&self, parked: &Parked) -> bool {
        let reason = || DeadLetter::of(&parked.envelope).map_or(DeadReason::Other, |letter| letter.reason);
        self.id.as_ref().is_none_or(|wanted| id(parked).as_ref() == Some(wanted))
            && self.message_type.as_ref().is_none_or(|t| parked.envelope.properties.message_type.as_ref() == Some(t))
            && self.reason.is_none_or(|wanted| reason() == wanted)
    }
}

fn id(parked: &Parked) -> Option<MessageId> {
    parked.envelope.properties.message_id.as_ref().and_then(|id| MessageId::new(id).ok())
}

/// Every copy has its outcome by then: this only closes the connection.
const CLOSING: Duration = Duration::from_secs(5);
/// Copies that may be out at once: enough to hide a round trip.
const AT_ONCE: usize = 64;
/// What those copies may take in memory.
const BYTES_IN_FLIGHT: usize = 32 * 1024 * 1024;
