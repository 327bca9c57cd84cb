//! A message that kills the process which handles it is found, and its neighbours are not taken for it.

use std::collections::{BTreeMap, VecDeque};

use correio_message::MessageId;

/// Judges deliveries by how often each came back to its queue unsettled.
///
/// The broker counts that, and names no culprit: when a consumer dies, everything that it held has come back once more. So
/// what has come back [`suspected_at`](SuspicionLimits::suspected_at) times is handled while nothing else is, where a death
/// says something about one message only, and what goes on coming back until it has done so
/// [`parked_at`](SuspicionLimits::parked_at) times is the killer.
///
/// Nothing but the broker's count outlives the death, and that is of all that was held. Where messages are independent, each
/// subscription therefore begins with a prefetch of 1 and gets more of it after the first innocent delivery: a consumer that
/// was just started again must not hold the killer together with others. Where they are ordered, that would hand the queue to
/// the consumer that stands by, at each start: there only a suspect makes the prefetch 1, and as everything goes back once more
/// for that, more is needed for a verdict. The first suspect in the order is the one that was handled when its consumer died,
/// so what others came back with it is laid to its charge.
///
/// What a live process sees come back has not killed it, and does not count here. As others cannot know that, a suspect that is given
/// back to wait for its turn goes as a copy, with [what was counted against it](Self::unexcused): brokers before 4.3 would count it as
/// one return more at each consumer that it meets.
#[derive(Debug)]
pub struct Suspects {
    limits: SuspicionLimits,
    in_turn: bool,
    /// What the subscription has.
    room: Room,
    /// What it is to have.
    wanted: Room,
    /// How many channels this process lived through: whatever comes back from them may have been on its way, unseen.
    lost: u32,
    /// How often messages came back while this process lived, the oldest entry first.
    survived: BTreeMap<MessageId, u32>,
    oldest: VecDeque<MessageId>,
    /// How often the killers came back that were found in order: so often others have come back with them.
    charged: u32,
}

/// From how many returns on a message is what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuspicionLimits {
    /// A suspect: more than one ordinary crash.
    pub suspected_at: u32,
    /// The killer: the difference is how often it must have come back as a suspect.
    pub parked_at: u32,
}

impl SuspicionLimits {
    /// For messages in an order: suspected at 2, parked at 8, as each of the three deaths is counted together with the closing
    /// of the channel before it.
    pub const IN_TURN: Self = Self { suspected_at: 2, parked_at: 8 };
}

impl Default for SuspicionLimits {
    /// Suspected at 2, parked at 5: three deaths that were its own.
    fn default() -> Self {
        Self { suspected_at: 2, parked_at: 5 }
    }
}

/// How often a message came back to its queue unsettled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Returns {
    /// By the broker's count.
    pub counted: u32,
    /// Before the broker began to count, as the message says: it is a copy.
    pub carried: u32,
}

impl Returns {
    /// All of them.
    #[must_use]
    pub fn all(self) -> u32 {
        self.counted.saturating_add(self.carried)
    }
}

/// How many unsettled deliveries a subscription asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// One.
    One,
    /// As many as the processing wants.
    Full,
}

/// What a delivery is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a suspect that is handled beside others makes suspects of them"]
pub enum Judgement {
    /// Like any other.
    Innocent,
    /// To be handled while nothing else is.
    Suspect,
    /// To be parked: it was handled alone before, and each time its consumer was gone.
    Killer,
}

impl Suspects {
    /// For messages that are independent of each other.
    #[must_use]
    pub fn one_by_one(limits: SuspicionLimits) -> Self {
        Self {
            limits,
            in_turn: false,
            room: Room::One,
            wanted: Room::One,
            lost: 0,
            survived: BTreeMap::new(),
            oldest: VecDeque::new(),
            charged: 0,
        }
    }

    /// For messages in an order, which are judged in it.
    #[must_use]
    pub fn in_turn(limits: SuspicionLimits) -> Self {
        Self { in_turn: true, room: Room::Full, wanted: Room::Full, ..Self::one_by_one(limits) }
    }

    /// A subscription with this room has begun.
    pub fn on_subscribed(&mut self, room: Room) {
        self.room = room;
    }

    /// The channel is gone, or was closed to get another room.
    pub fn on_channel_lost(&mut self) {
        self.lost += 1;
        if !self.in_turn {
            self.wanted = Room::One;
        }
    }

    /// This message goes back to its queue as a copy, whose returns are counted anew.
    pub fn on_copied(&mut self, id: &MessageId) {
        if self.survived.remove(id).is_some() {
            self.oldest.retain(|other| other != id);
        }
    }

    /// This message goes back to its queue unsettled, and this process lives.
    pub fn on_survived(&mut self, id: &MessageId) {
        if let Some(times) = self.survived.get_mut(id) {
            *times += 1;
            return;
        }
        if self.oldest.len() == REMEMBERED
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.survived.remove(&oldest);
        }
        self.survived.insert(id.clone(), 1);
        self.oldest.push_back(id.clone());
    }

    /// A message was delivered, or has its turn.
    pub fn judge(&mut self, returns: Returns, id: Option<&MessageId>) -> Judgement {
        let SuspicionLimits { suspected_at, parked_at } = self.limits;
        let own = self.unexcused(returns, id);
        if own < suspected_at {
            // What comes back does so to the head of the queue: behind an innocent one there is no suspect.
            if self.room == Room::One {
                self.wanted = Room::Full;
            }
            return Judgement::Innocent;
        }
        if own >= parked_at && own > self.charged {
            if self.in_turn {
                self.charged = own;
            }
            return Judgement::Killer;
        }
        self.wanted = Room::One;
        Judgement::Suspect
    }

    /// How many of a message's returns count against it.
    #[must_use]
    pub fn unexcused(&self, returns: Returns, id: Option<&MessageId>) -> u32 {
        let survived = id.and_then(|id| self.survived.get(id)).copied().unwrap_or_default();
        returns.counted.saturating_sub(survived.max(self.lost)).saturating_add(returns.carried)
    }

    /// The room that the subscription has.
    #[must_use]
    pub fn room(&self) -> Room {
        self.room
    }

    /// The room that it is to have.
    #[must_use]
    pub fn wanted(&self) -> Room {
        self.wanted
    }
}

/// More than any prefetch that is lost a few times in a row.
const REMEMBERED: usize = 10_000;
