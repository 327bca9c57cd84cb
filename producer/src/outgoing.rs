//! What is accepted and not published yet, in the order in which it goes out.
//!
//! Here numbers are given, and only here: when a message's turn comes. First goes what somebody decided to send again and
//! the markers that fill a hole, then what callers hand in.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use correio_broker_config::Topology;
use correio_message::{Destination, Envelope, Key, MessageId, Route, Sequence};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    counts::{Counters, one},
    delay::explained,
    error::SendFailure,
    holes::{Choice, Decision, Hole, HoleRegistry, Holes, OnHole},
    numbering::Numbering,
    outcome::Outcome,
    publishing_channel::{Held, Purpose},
    receipt::Promise,
    submission::{Cargo, Entry, Submission},
};

pub(crate) struct Outgoing {
    entries: mpsc::Receiver<Entry>,
    /// Taken from the callers, in their order.
    queue: VecDeque<Entry>,
    queue_limit: usize,
    /// On their way into the queue; empty but for that moment.
    taken: Vec<Entry>,
    /// No caller will hand in more.
    no_more: bool,
    /// Before the queue.
    first: VecDeque<Ready>,
    numbering: Numbering,
    on_hole: OnHole,
    holes: Holes,
    registry: HoleRegistry,
    /// Which of the producer's channels this is.
    channel: usize,
    /// Keys with void numbers that no message of theirs has declared by then.
    markers: BTreeSet<(Instant, Route, Key, u32)>,
    confirm_deadline: Duration,
    /// What this producer declares, if it does.
    declared: Option<Topology>,
    counters: Arc<Counters>,
    /// Those that have ended, until their senders are told.
    told: Vec<(Promise, Outcome)>,
}

/// A message whose turn has come.
pub(crate) struct Ready {
    pub(crate) id: MessageId,
    pub(crate) held: Held,
    pub(crate) bytes: usize,
    pub(crate) deadline: Instant,
}

/// How an outgoing queue behaves.
pub(crate) struct OutgoingRules {
    pub(crate) channel: usize,
    pub(crate) queue_limit: usize,
    pub(crate) on_hole: OnHole,
    pub(crate) registry: HoleRegistry,
    pub(crate) confirm_deadline: Duration,
    pub(crate) declared: Option<Topology>,
}

impl Outgoing {
    pub(crate) fn new(rules: OutgoingRules, entries: mpsc::Receiver<Entry>, counters: Arc<Counters>) -> Self {
        let OutgoingRules { channel, queue_limit, on_hole, registry, confirm_deadline, declared } = rules;
        Self {
            entries,
            queue: VecDeque::new(),
            queue_limit,
            taken: Vec::new(),
            no_more: false,
            first: VecDeque::new(),
            numbering: Numbering::new(crate::producer::fresh_source()),
            on_hole,
            holes: Holes::default(),
            registry,
            channel,
            markers: BTreeSet::new(),
            confirm_deadline,
            declared,
            counters,
            told: Vec::new(),
        }
    }

    pub(crate) fn wants_more(&self) -> bool {
        self.queue.len() < self.queue_limit && !self.no_more
    }

    /// Takes what the callers hand in, at least one, or learns that they never will again.
    ///
    /// Cancel safe: what is taken is in the queue.
    pub(crate) async fn receive(&mut self) {
        let room = self.queue_limit.saturating_sub(self.queue.len()).max(1);
        if self.entries.recv_many(&mut self.taken, room).await == 0 {
            self.no_more = true;
        }
        self.queue.extend(self.taken.drain(..));
    }

    pub(crate) fn take_what_is_ready(&mut self) {
        while self.queue.len() < self.queue_limit
            && let Ok(entry) = self.entries.try_recv()
        {
            self.queue.push_back(entry);
        }
    }

    /// Callers hand in no more; what is on its way from them is still taken.
    pub(crate) fn close(&mut self) {
        self.entries.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.entries.is_closed()
    }

    /// Nothing is left to publish.
    pub(crate) fn is_done(&self) -> bool {
        let is_published = self.queue.is_empty() && self.first.is_empty();
        self.no_more && is_published && self.markers.is_empty() && self.holes.is_empty()
    }

    /// What goes out next, by its id and size.
    pub(crate) fn next(&mut self) -> Option<(&MessageId, usize)> {
        let now = Instant::now();
        if self.no_more && self.queue.is_empty() {
            self.void_undecided();
        }
        self.bring_markers_forward(now);
        if self.first.is_empty() {
            self.serve_front(now);
        }
        match (self.first.front(), self.queue.front()) {
            (Some(ready), _) => Some((&ready.id, ready.bytes)),
            (None, Some(Entry::Submission(front))) => Some((&front.id, front.bytes)),
            (None, _) => None,
        }
    }

    /// Takes out what [`next`](Self::next) said, numbered and encoded; `None` if it has to wait until nothing is outstanding.
    pub(crate) fn take_next(&mut self, nothing_outstanding: bool) -> Option<Ready> {
        if let Some(ready) = self.first.pop_front() {
            return Some(ready);
        }
        let Some(Entry::Submission(front)) = self.queue.front() else { return None };
        if self.numbering.is_full() && front.cargo.line().is_some() {
            if !nothing_outstanding {
                return None;
            }
            // The numbers of this source are declared while somebody knows them.
            while let Some((_, route, key, tries)) = self.markers.pop_first() {
                self.make_marker(route, &key, tries);
            }
            self.numbering.restart(crate::producer::fresh_source());
            if let Some(ready) = self.first.pop_front() {
                return Some(ready);
            }
        }
        let Some(Entry::Submission(front)) = self.queue.pop_front() else { return None };
        let Submission { id, mut cargo, bytes, deadline, expires, reply, room, .. } = front;
        let mut sequence = None;
        if let Cargo::Message(message) = &mut cargo
            && let Some(key) = &message.key
        {
            message.sequence = Some(self.numbering.next(&message.destination.route(), key));
            sequence.clone_from(&message.sequence);
        }
        let held = Held { cargo, sequence, expires, reply, _room: Some(room), purpose: Purpose::Message };
        Some(Ready { id, held, bytes, deadline })
    }

    /// A message that was published has ended. Its sender is told last: what is to be seen of it is so by then.
    pub(crate) fn on_ended(&mut self, id: MessageId, mut held: Held, outcome: Outcome) {
        let outcome = explained(outcome, &held.cargo, self.declared.as_ref());
        let reply = held.reply.take();
        let is_hole = held.sequence.is_some() && !outcome.is_confirmed();
        if held.purpose == Purpose::Message {
            self.counters.on_outcome(&outcome, reply.as_ref().and_then(|reply| reply.since));
        }
        if is_hole {
            self.on_hole(id, held, &outcome);
        } else {
            // Its room is free before its sender hears of it.
            drop(held);
        }
        self.told.extend(reply.map(|reply| (reply, outcome)));
    }

    /// Tells the senders of those that have ended, the last ones first: who waits for the oldest is woken when the others are told
    /// too, and not once for each.
    pub(crate) fn tell(&mut self) {
        while let Some((reply, outcome)) = self.told.pop() {
            // A dropped receipt: its owner does not want to know.
            let _ = reply.send(Ok(outcome));
        }
    }

    /// A sender has decided about a hole.
    fn on_decision(&mut self, Decision { id, choice }: Decision) {
        let Some(mut hole) = self.holes.take(&id) else { return };
        match choice {
            Choice::Resend(reply) => {
                one(&self.counters.accepted);
                hole.held.reply = Some(reply);
                let (held, bytes) = (hole.held, 0);
                self.first.push_back(Ready { id, held, bytes, deadline: Instant::now() + self.confirm_deadline });
            }
            Choice::Void => self.void(hole),
        }
    }

    /// When something of it is to be looked at again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let waiting = match self.queue.front() {
            Some(Entry::Submission(front)) => Some(front.expires.map_or(front.deadline, |at| at.min(front.deadline))),
            Some(Entry::Decision(_)) => Some(Instant::now()),
            None => None,
        };
        let first = self.first.front().map(|ready| ready.deadline);
        let marker = self.markers.first().filter(|_| self.first.len() < MARKERS_AT_ONCE).map(|(due, ..)| *due);
        [waiting, first, marker].into_iter().flatten().min()
    }

    /// What has waited for its turn too long comes back.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        while self.first.front().is_some_and(|ready| ready.deadline <= now) {
            // Published before, or a marker: it is not known to be nowhere.
            if let Some(Ready { id, held, .. }) = self.first.pop_front() {
                self.on_ended(id, held, Outcome::Unknown { tries: 1 });
            }
        }
        self.serve_front(now);
        self.bring_markers_forward(now);
    }

    /// Whatever is left is not published any more.
    pub(crate) fn end_all(&mut self) {
        self.entries.close();
        while let Ok(entry) = self.entries.try_recv() {
            self.queue.push_back(entry);
        }
        // A decision that is left says no more than its receipt does when nobody answers it: unknown.
        for entry in std::mem::take(&mut self.queue) {
            if let Entry::Submission(submission) = entry {
                self.give_back(submission, SendFailure::Closed);
            }
        }
        self.markers.clear();
        for Ready { id, held, .. } in std::mem::take(&mut self.first) {
            self.on_ended(id, held, Outcome::Unknown { tries: 1 });
        }
    }

    /// Nobody will decide about them any more.
    pub(crate) fn forget_holes(&mut self) {
        self.holes.take_all().into_keys().for_each(|id| drop(self.registry.take(&id)));
    }

    /// Decides what is decided, and gives back what cannot go out, up to the first that can.
    fn serve_front(&mut self, now: Instant) {
        while let Some(front) = self.queue.front() {
            let cause = match front {
                Entry::Decision(_) => None,
                // What nobody wants any more leaves no trace on the broker. What expires behind the front comes back in its turn.
                Entry::Submission(front) if front.is_expired(now) => {
                    Some(SendFailure::Expired { waited: front.taken.elapsed() })
                }
                Entry::Submission(front) if front.deadline <= now => {
                    Some(SendFailure::NotPublished { waited: front.taken.elapsed() })
                }
                Entry::Submission(front) => match self.stopped_by(&front.cargo) {
                    Some(by) => Some(SendFailure::KeyStopped { by }),
                    None => return,
                },
            };
            match (self.queue.pop_front(), cause) {
                (Some(Entry::Decision(decision)), _) => self.on_decision(decision),
                (Some(Entry::Submission(late)), Some(cause @ SendFailure::NotPublished { .. })) => {
                    self.give_back_with_its_key(late, cause);
                }
                (Some(Entry::Submission(stopped)), Some(cause)) => self.give_back(stopped, cause),
                _ => return,
            }
        }
    }

    /// With it goes what was handed in behind it with the same key: it would overtake it.
    fn give_back_with_its_key(&mut self, late: Submission, cause: SendFailure) {
        let line = late.cargo.line().filter(|_| self.on_hole == OnHole::Stop);
        if let Some(line) = line {
            while let Ok(entry) = self.entries.try_recv() {
                self.queue.push_back(entry);
            }
            self.give_back(late, cause.clone());
            for entry in std::mem::take(&mut self.queue) {
                match entry {
                    Entry::Submission(behind) if behind.cargo.line().as_ref() == Some(&line) => {
                        self.give_back(behind, cause.clone());
                    }
                    other => self.queue.push_back(other),
                }
            }
        } else {
            self.give_back(late, cause);
        }
    }

    fn give_back(&self, submission: Submission, cause: SendFailure) {
        one(&self.counters.not_published);
        submission.give_back(cause);
    }

    fn stopped_by(&self, cargo: &Cargo) -> Option<MessageId> {
        // Nearly always there is no hole, and nothing to compare.
        if self.holes.is_empty() {
            return None;
        }
        let (route, key) = cargo.line()?;
        self.holes.stopped_by(&route, &key).cloned()
    }

    fn on_hole(&mut self, id: MessageId, held: Held, outcome: &Outcome) {
        // Nobody waits at a route that leads nowhere, or where this user may not write; a marker would end so too.
        let wants_marker = match outcome {
            Outcome::Unroutable { .. } => false,
            Outcome::Refused { reason, .. } => !reason.starts_with("403"),
            Outcome::Confirmed { .. } | Outcome::Unknown { .. } => true,
        };
        let is_failure = !matches!(outcome, Outcome::Unroutable { .. })
            || Destination::of_route(&held.cargo.route()).wants_somebody();
        let stops = held.purpose == Purpose::Message && self.on_hole == OnHole::Stop && is_failure;
        let hole = Hole { held, wants_marker };
        if stops && self.registry.on_hole(&id, self.channel) {
            self.holes.stop(id, hole);
        } else {
            self.void(hole);
        }
    }

    /// What nobody has decided by now nobody will.
    fn void_undecided(&mut self) {
        for (id, hole) in self.holes.take_all() {
            let _ = self.registry.take(&id);
            self.void(hole);
        }
    }

    /// The number travels on the key's next message, or after a while without one on a marker.
    fn void(&mut self, Hole { held, wants_marker }: Hole) {
        let Some(sequence) = held.sequence else { return };
        let (route, key) = (held.cargo.route(), sequence.line.key.clone());
        let tries = match held.purpose {
            Purpose::Message => 0,
            // It was the last word of a producer that closes.
            Purpose::Marker { .. } if self.no_more => return,
            Purpose::Marker { tries } => tries,
        };
        if self.numbering.on_not_delivered(&route, &sequence) {
            if wants_marker {
                self.markers.insert((Instant::now() + IDLE * 2_u32.pow(tries.min(6)), route, key, tries));
            }
        } else if wants_marker && tries == 0 {
            // No further message of its source comes.
            self.push_marker(route, sequence, tries);
        }
    }

    /// Those that are due; all of them when the producer closes, because no message of their keys will come.
    fn bring_markers_forward(&mut self, now: Instant) {
        let closing = self.no_more && self.queue.is_empty();
        while self.first.len() < MARKERS_AT_ONCE && self.markers.first().is_some_and(|(due, ..)| closing || *due <= now)
        {
            let Some((_, route, key, tries)) = self.markers.pop_first() else { return };
            self.make_marker(route, &key, tries);
        }
    }

    fn make_marker(&mut self, route: Route, key: &Key, tries: u32) {
        // Else a message of the key has declared them meanwhile.
        if let Some(sequence) = self.numbering.marker(&route, key) {
            self.push_marker(route, sequence, tries);
        }
    }

    fn push_marker(&mut self, route: Route, sequence: Sequence, tries: u32) {
        let id = crate::fresh_id();
        let cargo = Cargo::Envelope(Box::new(Envelope::marker(route, &id, &sequence)));
        let purpose = Purpose::Marker { tries: tries + 1 };
        let sequence = Some(sequence);
        let held = Held { cargo, sequence, expires: None, reply: None, _room: None, purpose };
        self.first.push_back(Ready { id, held, bytes: 0, deadline: Instant::now() + self.confirm_deadline });
    }
}

/// A key without a message for so long is idle. A marker that does not arrive is sent again after twice that, and so on.
const IDLE: Duration = Duration::from_millis(100);
/// So many markers may stand before what callers hand in.
const MARKERS_AT_ONCE: usize = 64;
