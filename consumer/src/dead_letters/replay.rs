//! Dead letters get another life in their work queue.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use correio_message::{MessageId, ShortText, replay};
use correio_producer::{ForwardReceipt, Outcome, Producer, ProducerSettings};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    DeadLetters, DeadLettersError, Letter, LettersFilter, LookEnd, Remembered,
    pace::Pace,
    walk::{Taken, Walk},
};

/// How letters are replayed. The default is as fast as the broker confirms, and only what deduplication can still tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplaySettings {
    /// At most so many letters a second.
    pub per_second: Option<NonZeroU32>,
    /// What becomes of a letter that was parked longer ago than handled ids are remembered. This is judged when its copy is
    /// published, not when that is handled: keep the retention well above the longest backlog of the work queue.
    pub forgotten: Forgotten,
}

/// What becomes of a letter of which nobody can tell any more whether it was replayed and handled before: [`Remembered::MaybeNot`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forgotten {
    /// It stays, with the reason: a second effect is worse than none.
    #[default]
    Keep,
    /// It is replayed like any other: a second effect does no harm, or there was no first.
    Replay,
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
    /// Why it went no further.
    pub ended: LookEnd,
}

impl Replayed {
    /// How many letters that stayed are listed one by one.
    pub const KEPT_NAMED: usize = 100;

    /// Whether it ended before it had seen all that were there at its start.
    #[must_use]
    pub fn ended_early(&self) -> bool {
        self.ended != LookEnd::AllSeen
    }

    /// Copies are out: whatever went wrong after the first of them, what was done is told with it.
    fn told(self, ended: Result<(), DeadLettersError>) -> Result<Self, DeadLettersError> {
        match ended {
            Ok(()) => Ok(self),
            Err(cause) => Err(DeadLettersError::CutShort { done: Box::new(self), cause: Box::new(cause) }),
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

/// What a replay would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPlan {
    /// How many letters would be published to each work queue.
    pub to: BTreeMap<ShortText, u32>,
    /// How many to others, past [`ReplayPlan::QUEUES_NAMED`] queues.
    pub to_others: u32,
    /// Letters that would stay, with the reason; the first [`Replayed::KEPT_NAMED`] by name.
    pub kept: Vec<Kept>,
    /// How many would stay, in all.
    pub kept_count: u32,
    /// Letters that the filter did not want.
    pub passed_over: u32,
    /// Why it looked no further.
    pub ended: LookEnd,
}

impl ReplayPlan {
    /// How many work queues are told apart: letters name them, and anybody may have written a letter.
    pub const QUEUES_NAMED: usize = 1_000;

    /// Whether it ended before it had seen all that were there at its start.
    #[must_use]
    pub fn ended_early(&self) -> bool {
        self.ended != LookEnd::AllSeen
    }

    fn goes_to(&mut self, queue: ShortText) {
        if self.to.len() < Self::QUEUES_NAMED || self.to.contains_key(&queue) {
            *self.to.entry(queue).or_default() += 1;
        } else {
            self.to_others += 1;
        }
    }
}

impl DeadLetters {
    /// Publishes a copy of each wanted letter, to the work queue it came from (or to this one, if it names none), and takes a letter off
    /// the parking queue once its copy is confirmed.
    ///
    /// The copy has the letter's id, origin, type, key and place in the order; its attempts count anew. A letter
    /// whose copy is not confirmed stays, and the reason is told; so does one that was parked longer ago than handled ids are remembered
    /// ([`Forgotten`]). The rest is given back as by [`list`](Self::list). Only as many are looked at as were waiting at the start, so it
    /// ends although replayed letters may die again meanwhile; those that another reader held then, or that were still on their way
    /// back from one that was killed, are left for the next replay. `stop` ends it in good order after those already begun.
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
        filter: &LettersFilter,
        settings: &ReplaySettings,
        stop: &CancellationToken,
    ) -> Result<Replayed, DeadLettersError> {
        let parking = self.parking().await?;
        let to_publish = ProducerSettings::new(self.address.clone(), "correio-replay")?.buffer_bytes(BYTES_IN_FLIGHT);
        let producer = Producer::connect(to_publish).await.map_err(DeadLettersError::ConnectToPublish)?;
        let mut work = Work {
            queue: &self.queue,
            forgotten: settings.forgotten,
            pace: settings.per_second.map(Pace::per_second),
            walk: Walk::new(parking, filter.clone(), stop.clone()),
            stop,
            producer: &producer,
            done: Replayed::default(),
            begun: VecDeque::new(),
        };
        let ended = work.run().await;
        let Work { walk, mut done, .. } = work;
        (done.passed_over, done.ended) = (walk.passed_over, walk.end);
        producer.close(CLOSING).await;
        let ended = match ended {
            Ok(()) => walk.close().await,
            cut_short => cut_short,
        };
        done.told(ended)
    }

    /// What [`replay`](Self::replay) would do now. Every letter stays where it is. Whether the work queues are there is not asked.
    ///
    /// # Errors
    ///
    /// [`DeadLettersError`]. The broker gives the letters back then, too.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the letters return to the queue when the connection ends, which counts as one delivery of each.
    pub async fn plan_replay(
        &self,
        filter: &LettersFilter,
        settings: &ReplaySettings,
        stop: &CancellationToken,
    ) -> Result<ReplayPlan, DeadLettersError> {
        let mut look = self.look(filter.clone(), stop.clone()).await?;
        let mut plan = ReplayPlan::default();
        while let Some(letter) = look.next().await? {
            match refusal(&letter, settings.forgotten, SystemTime::now()) {
                Some(why) => keep(&mut plan.kept, &mut plan.kept_count, letter.summary.id, why),
                None => plan.goes_to(letter.summary.queue.unwrap_or_else(|| self.queue.clone())),
            }
        }
        let looked = look.end().await?;
        (plan.passed_over, plan.ended) = (looked.passed_over, looked.ended);
        Ok(plan)
    }
}

struct Work<'r> {
    queue: &'r ShortText,
    forgotten: Forgotten,
    pace: Option<Pace>,
    walk: Walk,
    stop: &'r CancellationToken,
    producer: &'r Producer,
    done: Replayed,
    begun: VecDeque<Begun>,
}

/// A letter whose copy is out.
struct Begun {
    tag: u64,
    id: Option<MessageId>,
    receipt: ForwardReceipt,
}

impl Work<'_> {
    async fn run(&mut self) -> Result<(), DeadLettersError> {
        let mut answered = true;
        while answered && let Some(taken) = self.walk.next().await? {
            if let Some(why) = refusal(&taken.letter, self.forgotten, SystemTime::now()) {
                self.stays(taken.tag, taken.letter.summary.id, why);
                continue;
            }
            answered = self.in_time().await?;
            if self.stop.is_cancelled() || !answered {
                self.walk.hold(taken.tag);
                self.walk.end = LookEnd::Stopped;
                break;
            }
            self.begin(taken).await;
            if self.begun.len() >= AT_ONCE {
                answered = self.settle_oldest().await?;
            }
        }
        answered &= self.settle_all().await?;
        if !answered {
            self.walk.end = LookEnd::NoAnswer;
        }
        self.walk.give_back().await
    }

    /// Waits for the next one's turn; `false` when the broker gave no answer meanwhile.
    async fn in_time(&mut self) -> Result<bool, DeadLettersError> {
        let Some(due) = self.pace.as_ref().and_then(|pace| pace.next_deadline(Instant::now().into_std())) else {
            return Ok(true);
        };
        // Nothing is out during the wait: who is killed in it leaves no letter whose copy is out as well.
        let answered = self.settle_all().await?;
        tokio::select! {
            () = sleep_until(due.into()) => {}
            () = self.stop.cancelled() => {}
        }
        Ok(answered)
    }

    async fn begin(&mut self, Taken { tag, letter }: Taken) {
        if let Some(pace) = &mut self.pace {
            pace.on_begun(Instant::now().into_std());
        }
        let queue = letter.summary.queue.unwrap_or_else(|| self.queue.clone());
        let id = letter.summary.id;
        match self.producer.forward(replay(&letter.envelope, queue)).await {
            Ok(receipt) => self.begun.push_back(Begun { tag, id, receipt }),
            Err(not_sent) => self.stays(tag, id, not_sent.to_string()),
        }
    }

    async fn settle_all(&mut self) -> Result<bool, DeadLettersError> {
        let mut answered = true;
        while !self.begun.is_empty() {
            answered &= self.settle_oldest().await?;
        }
        Ok(answered)
    }

    /// Ends the letter whose copy is out longest; `false` when the broker gave no answer about it.
    async fn settle_oldest(&mut self) -> Result<bool, DeadLettersError> {
        let Some(Begun { tag, id, receipt }) = self.begun.pop_front() else { return Ok(true) };
        match receipt.await {
            Ok(Outcome::Confirmed { .. }) => {
                self.walk.remove(tag).await?;
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
        self.walk.hold(tag);
        keep(&mut self.done.kept, &mut self.done.kept_count, id, why);
    }
}

fn keep(kept: &mut Vec<Kept>, count: &mut u32, id: Option<MessageId>, why: String) {
    *count += 1;
    if kept.len() < Replayed::KEPT_NAMED {
        kept.push(Kept { id, why });
    }
}

/// Why a letter is not replayed, if it is not.
fn refusal(letter: &Letter, forgotten: Forgotten, now: SystemTime) -> Option<String> {
    match (Remembered::of(&letter.summary, now), forgotten) {
        (Remembered::MaybeNot { parked, remembered_for }, Forgotten::Keep) => Some(format!(
            "parked {} ago, and handled ids are remembered for {}: if it was replayed and handled before, that may be \
             forgotten, and it would have a second effect; --force replays it all the same",
            in_words(parked),
            in_words(remembered_for)
        )),
        _ => None,
    }
}

/// The two largest units of a time: more of it says nothing here.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |large: u64, small: u64, [one, other]: [&str; 2]| match small {
        0 => format!("{large} {one}"),
        _ => format!("{large} {one} {small} {other}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => two(minutes, seconds % 60, ["min", "s"]),
        (0, _, _) => two(hours, minutes, ["h", "min"]),
        _ => two(days, hours, ["d", "h"]),
    }
}

/// Every copy has its outcome by then: this only closes the connection.
const CLOSING: Duration = Duration::from_secs(5);
/// Copies that may be out at once: enough to hide a round trip.
const AT_ONCE: usize = 64;
/// What those copies may take in memory.
const BYTES_IN_FLIGHT: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use correio_message::{DeadLetter, DeadReason, Destination, Durability, Message, dead_letter};

    use super::*;

    fn letter(at_us: u64, remembered_for_us: Option<u64>) -> Letter {
        let text = |text| ShortText::new(text).unwrap();
        let said = DeadLetter {
            reason: DeadReason::Failed,
            error: "no stock".into(),
            queue: text("orders"),
            at_us,
            attempts: NonZeroU32::MIN,
            first_failed_at_us: None,
            remembered_for_us,
        };
        let message = Message::new(Destination::queue("orders").unwrap(), "x");
        Letter::of(dead_letter(&message.encode(Durability::Persistent), text("orders.dead"), &said))
    }

    #[test]
    fn a_letter_that_may_be_forgotten_is_refused_with_the_numbers_and_the_way_out_unless_it_is_forced() {
        let hour = 3_600_000_000;
        let old = letter(hour, Some(hour));
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(3 * hour) + Duration::from_secs(61);
        let why = refusal(&old, Forgotten::Keep, now).unwrap();
        assert!(why.starts_with("parked 2 h 1 min ago, and handled ids are remembered for 1 h: "), "{why}");
        assert!(why.contains("--force"), "{why}");
        assert_eq!(refusal(&old, Forgotten::Replay, now), None);
        assert_eq!(refusal(&letter(hour, None), Forgotten::Keep, now), None, "of a consumer that remembers nothing");
    }

    #[test]
    fn what_was_done_is_told_also_when_the_last_step_fails() {
        let done = Replayed { replayed: 7, ..Replayed::default() };
        assert_eq!(done.clone().told(Ok(())).unwrap(), done);
        let closing = DeadLettersError::TimedOut { step: "closing the channel", after: CLOSING };
        match done.told(Err(closing)) {
            Err(DeadLettersError::CutShort { done, cause }) => {
                assert_eq!(done.replayed, 7);
                assert!(cause.to_string().contains("closing the channel"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        let told: Vec<_> =
            [0, 59, 60, 90, 3_600, 3_661, 86_400, 180_000].map(|s| in_words(Duration::from_secs(s))).into();
        assert_eq!(told, ["0 s", "59 s", "1 min", "1 min 30 s", "1 h", "1 h 1 min", "1 d", "2 d 2 h"]);
    }

    #[test]
    fn a_plan_names_a_bounded_number_of_queues_and_counts_the_others() {
        let mut plan = ReplayPlan::default();
        for n in (0..ReplayPlan::QUEUES_NAMED + 3).chain([0]) {
            plan.goes_to(ShortText::new(n.to_string()).unwrap());
        }
        assert_eq!((plan.to.len(), plan.to_others, plan.to["0"]), (ReplayPlan::QUEUES_NAMED, 3, 2));
    }
}
