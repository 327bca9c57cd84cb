//! Every message published with confirms ends in exactly one pronouncement, and it is that message's own.
//!
//! A confirm says *taken* or *not taken*; that nobody is there comes as a return, which the AMQP client hands
//! over with whichever confirm completes next. So returns are keyed by message id, and an answered publish is
//! pronounced only when every publish that was outstanding when its confirm was seen has been answered too: its
//! return, if there is one, has been seen by then. A lone publish is pronounced at once, a busy window pays no stall.
//! This relies on lapin handing returns over first in, first out, and on RabbitMQ confirming unroutable messages in
//! the order of their returns, or else on the shell reporting confirms in the order in which they completed.
//!
//! When a channel is lost, what is not pronounced is sent again with the same id and in the original order, until
//! its deadline. `Confirmed` is never said of a message that was returned or whose last sending was not acknowledged.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasherDefault, DefaultHasher},
    mem,
    time::Instant,
};

use correio_message::MessageId;

mod entry;
mod pronounced;

pub use pronounced::{Answer, DeadlineAction, Ended, Pronounced, Publish, WindowAdmission, WindowLimits};

use entry::{Entry, Slot, Whereabouts};

/// The messages between publish and pronouncement, on one channel after another.
///
/// `M` is what the shell keeps to send a message again.
#[derive(Debug)]
pub struct ConfirmWindow<M> {
    limits: WindowLimits,
    /// What was published on the live channel; the slot at index `i` is publish `first + i`.
    live: VecDeque<Slot<M>>,
    first: u64,
    /// No publish below this one is unanswered.
    lowest_unanswered: u64,
    /// Answered, in the order of the answers: the publish, and the highest publish at that time.
    answered: VecDeque<(u64, u64)>,
    /// Waiting to be sent again, by the number of their first sending.
    to_resend: BTreeMap<u64, Entry<M>>,
    ids: Ids,
    /// Deadlines of what is held, the earliest first, by publish (live) or first sending (waiting); and, as long as they stand
    /// behind one of those, of what has moved on or ended.
    deadlines: VecDeque<(Instant, Whereabouts)>,
    unanswered: usize,
    expired: usize,
    held: usize,
    held_bytes: usize,
    stray_returns: u64,
    ended: Vec<Ended<M>>,
}

/// Asked for one, never walked: that it has no order is of no account, and its hasher is the same in every run.
#[allow(clippy::disallowed_types, reason = "asked, never walked")]
type Ids = std::collections::HashMap<MessageId, Whereabouts, BuildHasherDefault<DefaultHasher>>;

impl<M> ConfirmWindow<M> {
    /// An empty window.
    #[must_use]
    pub fn new(limits: WindowLimits) -> Self {
        Self {
            limits: WindowLimits { messages: limits.messages.max(1), bytes: limits.bytes.max(1) },
            live: VecDeque::new(),
            first: 0,
            lowest_unanswered: 0,
            answered: VecDeque::new(),
            to_resend: BTreeMap::new(),
            ids: Ids::default(),
            deadlines: VecDeque::new(),
            unanswered: 0,
            expired: 0,
            held: 0,
            held_bytes: 0,
            stray_returns: 0,
            ended: Vec::new(),
        }
    }

    /// Whether a message of this id and size may be published now.
    #[must_use]
    pub fn admission(&self, id: &MessageId, bytes: usize) -> WindowAdmission {
        if self.ids.contains_key(id) {
            return WindowAdmission::SameIdOutstanding;
        }
        let fits = self.held == 0 || self.held_bytes.saturating_add(bytes) <= self.limits.bytes;
        // Ids rather than messages: an id stays taken for as long as a return could still name it.
        let numbered = self.unanswered < self.limits.messages && self.ids.len() / 2 < self.limits.messages;
        if fits && numbered && self.to_resend.is_empty() { WindowAdmission::Now } else { WindowAdmission::Full }
    }

    /// The shell is about to publish this on the live channel, after [`admission`](Self::admission) said `Now`.
    /// By the handle it reports the confirm.
    pub fn on_publishing(&mut self, id: MessageId, message: M, bytes: usize, deadline: Instant) -> Publish {
        debug_assert!(!self.ids.contains_key(&id), "{id} is outstanding: its second publish has to wait");
        self.held += 1;
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        let order = self.next_publish();
        let entry = Entry {
            id,
            message,
            bytes,
            deadline,
            order,
            tries: 0,
            answer: None,
            returned: None,
            expired: false,
            settled: false,
        };
        self.send(entry)
    }

    /// A confirm has completed. Of an older channel it confirms nothing and is ignored.
    ///
    /// A return that came with the same confirm is reported first.
    pub fn on_answered(&mut self, publish: Publish, answer: Answer) {
        let highest = self.next_publish().wrapping_sub(1);
        let Some(entry) = self.live_entry(publish.0).filter(|entry| entry.answer.is_none()) else {
            return;
        };
        entry.answer = Some(answer);
        // It got its answer after all: the channel need not end for it.
        let expired = entry.expired;
        self.expired -= usize::from(expired);
        self.unanswered -= 1;
        self.answered.push_back((publish.0, highest));
        self.pronounce();
    }

    /// The broker gave a message back: no queue matched its route.
    ///
    /// Only for the live channel: a return that came with the confirm of a publish that is not
    /// [current](Self::is_current) belongs to an earlier sending.
    pub fn on_returned(&mut self, id: &MessageId, reason: String) {
        match self.ids.get(id).copied() {
            Some(Whereabouts::Live(publish)) => {
                if let Some(entry) = self.live_entry(publish) {
                    entry.returned.get_or_insert(reason);
                    return;
                }
            }
            Some(Whereabouts::Waiting(order)) => {
                if let Some(mut entry) = self.to_resend.remove(&order) {
                    self.ids.remove(id);
                    entry.returned = Some(reason);
                    self.end(entry);
                    return;
                }
            }
            None => {}
        }
        self.stray_returns += 1;
    }

    /// The channel is gone, and with it every answer that has not been seen.
    ///
    /// What was returned or nacked is certain and ends so; what is past its deadline ends as `Unknown`; all else
    /// waits to be sent again, an acknowledged message too whose return may have been lost.
    pub fn on_channel_lost(&mut self) {
        self.first = self.next_publish();
        self.lowest_unanswered = self.first;
        self.answered.clear();
        self.unanswered = 0;
        self.expired = 0;
        let lost = mem::take(&mut self.live);
        for slot in lost {
            match slot {
                Slot::Over => {}
                Slot::Reserved(id) => {
                    self.ids.remove(&id);
                }
                Slot::Held(entry) => self.lose(entry),
            }
        }
    }

    /// The next message to send again, in the original order; the shell is about to publish it on the live channel.
    pub fn next_resend(&mut self) -> Option<(Publish, &M)> {
        let (_, entry) = self.to_resend.pop_first()?;
        let publish = self.send(entry);
        self.live_entry(publish.0).map(|entry| (publish, &entry.message))
    }

    /// The next message to send again.
    #[must_use]
    pub fn first_waiting(&self) -> Option<&MessageId> {
        self.to_resend.first_key_value().map(|(_, entry)| &entry.id)
    }

    /// Takes a message out that waits to be sent again, because it is known to be what ended the channel, and says how often
    /// it was sent. It ends without a pronouncement: the shell says what happened.
    pub fn withdraw(&mut self, id: &MessageId) -> Option<(M, u32)> {
        let Some(Whereabouts::Waiting(order)) = self.ids.get(id).copied() else {
            return None;
        };
        let entry = self.to_resend.remove(&order)?;
        self.ids.remove(id);
        self.held -= 1;
        self.held_bytes -= entry.bytes;
        Some((entry.message, entry.tries))
    }

    /// How many messages wait to be sent again.
    #[must_use]
    pub fn resends_waiting(&self) -> usize {
        self.to_resend.len()
    }

    /// The earliest deadline of what is held and not known to be past it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.iter().find(|due| self.is_due(due)).map(|(deadline, _)| *deadline)
    }

    /// Time has passed.
    ///
    /// A message without an answer on the live channel cannot end while the broker may still take it: the channel
    /// has to end first. One that waits to be sent again ends as `Unknown`, and so does one that was acknowledged
    /// while its return could still come.
    pub fn on_deadline(&mut self, now: Instant) -> DeadlineAction {
        while let Some(due) = self.deadlines.front().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.pop_front();
            if !self.is_due(&due) {
                continue;
            }
            match due.1 {
                Whereabouts::Live(publish) => self.expire_live(publish),
                Whereabouts::Waiting(order) => {
                    if let Some(entry) = self.to_resend.remove(&order) {
                        self.ids.remove(&entry.id);
                        self.end(entry);
                    }
                }
            }
        }
        if self.expired > 0 { DeadlineAction::KillChannel } else { DeadlineAction::None }
    }

    /// What has ended since this was last asked; each message once.
    pub fn take_ended(&mut self) -> Vec<Ended<M>> {
        mem::take(&mut self.ended)
    }

    /// How many were published on the live channel and have no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// How many messages have not ended.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// The bytes of the messages that have not ended.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether nothing is held and nothing that ended waits to be taken.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held == 0 && self.ended.is_empty()
    }

    /// Whether this was published on the live channel and may still get its answer: asked before a confirm's
    /// return is reported, and that before its answer.
    #[must_use]
    pub fn is_current(&self, publish: Publish) -> bool {
        publish.0 >= self.first && publish.0 < self.next_publish()
    }

    /// How many returns named no message that is held.
    #[must_use]
    pub fn stray_returns(&self) -> u64 {
        self.stray_returns
    }
}

impl<M> ConfirmWindow<M> {
    fn next_publish(&self) -> u64 {
        self.first + self.live.len() as u64
    }

    fn live_entry(&mut self, publish: u64) -> Option<&mut Entry<M>> {
        let index = publish.checked_sub(self.first)?;
        match self.live.get_mut(usize::try_from(index).ok()?)? {
            Slot::Held(entry) => Some(entry),
            Slot::Reserved(_) | Slot::Over => None,
        }
    }

    fn send(&mut self, mut entry: Entry<M>) -> Publish {
        let publish = self.next_publish();
        entry.tries = entry.tries.saturating_add(1);
        self.ids.insert(entry.id.clone(), Whereabouts::Live(publish));
        self.note_deadline(entry.deadline, Whereabouts::Live(publish));
        self.live.push_back(Slot::Held(entry));
        self.unanswered += 1;
        Publish(publish)
    }

    /// Ends what was answered and has nothing unanswered left that was outstanding at that time.
    fn pronounce(&mut self) {
        while self.lowest_unanswered < self.next_publish()
            && self.live_entry(self.lowest_unanswered).is_none_or(|entry| entry.answer.is_some())
        {
            self.lowest_unanswered += 1;
        }
        while let Some(&(publish, barrier)) = self.answered.front() {
            if barrier >= self.lowest_unanswered {
                break;
            }
            self.answered.pop_front();
            match self.replace_slot(publish, Slot::Over) {
                Slot::Held(mut entry) => {
                    self.ids.remove(&entry.id);
                    entry.settled = true;
                    self.end(entry);
                }
                Slot::Reserved(id) => {
                    self.ids.remove(&id);
                }
                Slot::Over => {}
            }
        }
        while let Some(Slot::Over) = self.live.front() {
            self.live.pop_front();
            self.first += 1;
        }
    }

    fn note_deadline(&mut self, deadline: Instant, whereabouts: Whereabouts) {
        while self.deadlines.front().is_some_and(|first| !self.is_due(first)) {
            self.deadlines.pop_front();
        }
        if self.deadlines.len() > 2 * self.held + 64 {
            let mut deadlines = mem::take(&mut self.deadlines);
            deadlines.retain(|due| self.is_due(due));
            self.deadlines = deadlines;
        }
        // Nearly always at the end.
        let behind = self.deadlines.partition_point(|(earlier, _)| *earlier <= deadline);
        self.deadlines.insert(behind, (deadline, whereabouts));
    }

    /// Whether a message is still where it was when this deadline was noted, and not known to be past it.
    fn is_due(&self, (deadline, whereabouts): &(Instant, Whereabouts)) -> bool {
        let entry = match *whereabouts {
            Whereabouts::Live(publish) => match self.live_slot(publish) {
                Some(Slot::Held(entry)) => Some(entry),
                _ => None,
            },
            Whereabouts::Waiting(order) => self.to_resend.get(&order),
        };
        entry.is_some_and(|entry| entry.deadline == *deadline && !entry.expired)
    }

    fn live_slot(&self, publish: u64) -> Option<&Slot<M>> {
        self.live.get(usize::try_from(publish.checked_sub(self.first)?).ok()?)
    }

    /// What becomes of a live publish whose channel is gone.
    fn lose(&mut self, mut entry: Entry<M>) {
        let certain = entry.returned.is_some() || entry.answer == Some(Answer::Nack);
        if certain || entry.expired {
            self.ids.remove(&entry.id);
            self.end(entry);
        } else {
            entry.answer = None;
            let waiting = Whereabouts::Waiting(entry.order);
            self.ids.insert(entry.id.clone(), waiting);
            self.note_deadline(entry.deadline, waiting);
            self.to_resend.insert(entry.order, entry);
        }
    }

    fn expire_live(&mut self, publish: u64) {
        let Some(entry) = self.live_entry(publish) else { return };
        if entry.answer.is_none() {
            entry.expired = true;
            self.expired += 1;
            return;
        }
        // Its return can still come, so the id stays taken until the barrier is passed or the channel gone.
        let id = entry.id.clone();
        if let Slot::Held(entry) = self.replace_slot(publish, Slot::Reserved(id)) {
            self.end(entry);
        }
    }

    fn replace_slot(&mut self, publish: u64, slot: Slot<M>) -> Slot<M> {
        let index = usize::try_from(publish - self.first).ok();
        index.and_then(|index| self.live.get_mut(index)).map_or(Slot::Over, |place| mem::replace(place, slot))
    }

    fn end(&mut self, entry: Entry<M>) {
        self.held -= 1;
        self.held_bytes -= entry.bytes;
        self.ended.push(entry.ended());
    }
}
