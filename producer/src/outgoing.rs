//! What is accepted and not published yet, in the order in which it goes out.
//!
//! Here numbers are given, and only here: when a message's turn comes. First goes what somebody decided to send again and
//! the markers that fill a hole, then what callers hand in.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use correio_message::{Durability, Envelope, Key, MessageId, Route, Sequence};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    counts::{Counters, one},
    error::SendFailure,
    holes::{Choice, Decision, HoleRegistry, Holes, OnHole},
    numbering::Numbering,
    outcome::Outcome,
    publishing_channel::{Held, Purpose},
    submission::{Cargo, Submission},
};

pub(crate) struct Outgoing {
    submissions: mpsc::Receiver<Submission>,
    decisions: mpsc::Receiver<Decision>,
    /// Taken from the callers, in their order.
    queue: VecDeque<Submission>,
    queue_limit: usize,
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
    counters: Arc<Counters>,
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
}

impl Outgoing {
    pub(crate) fn new(
        rules: OutgoingRules,
        submissions: mpsc::Receiver<Submission>,
        decisions: mpsc::Receiver<Decision>,
        counters: Arc<Counters>,
    ) -> Self {
        let OutgoingRules { channel, queue_limit, on_hole, registry, confirm_deadline } = rules;
        Self {
            submissions,
            decisions,
            queue: VecDeque::new(),
            queue_limit,
            no_more: false,
            first: VecDeque::new(),
            numbering: Numbering::new(crate::producer::fresh_source()),
            on_hole,
            holes: Holes::default(),
            registry,
            channel,
            markers: BTreeSet::new(),
            confirm_deadline,
            counters,
        }
    }

    /// Takes what the callers decide and, as far as there is room, what they hand in, or learns that they never will again.
    ///
    /// Cancel safe: what is taken is here.
    pub(crate) async fn receive(&mut self) {
        let wants_more = self.queue.len() < self.queue_limit && !self.no_more;
        tokio::select! {
            biased; // they are few, and keys wait for them
            Some(decision) = self.decisions.recv() => self.on_decision(decision),
            next = self.submissions.recv(), if wants_more => match next {
                Some(next) => {
                    self.queue.push_back(next);
                    self.take_what_is_ready();
                }
                None => self.no_more = true,
            },
            else => std::future::pending().await,
        }
    }

    pub(crate) fn take_what_is_ready(&mut self) {
        while let Ok(decision) = self.decisions.try_recv() {
            self.on_decision(decision);
        }
        while self.queue.len() < self.queue_limit
            && let Ok(submission) = self.submissions.try_recv()
        {
            self.queue.push_back(submission);
        }
    }

    /// Callers hand in no more; what is on its way from them is still taken.
    pub(crate) fn close(&mut self) {
        self.submissions.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.submissions.is_closed()
    }

    /// Nothing is left to publish.
    pub(crate) fn is_done(&self) -> bool {
        let is_published = self.queue.is_empty() && self.first.is_empty() && self.markers.is_empty();
        self.no_more && is_published && self.decisions.is_empty()
    }

    /// What goes out next, by its id and size.
    pub(crate) fn next(&mut self) -> Option<(&MessageId, usize)> {
        let now = Instant::now();
        self.bring_markers_forward(now);
        if self.first.is_empty() {
            self.give_back_what_cannot_go(now);
        }
        match self.first.front() {
            Some(ready) => Some((&ready.id, ready.bytes)),
            None => self.queue.front().map(|front| (&front.id, front.bytes)),
        }
    }

    fn give_back_what_cannot_go(&mut self, now: Instant) {
        while let Some(front) = self.queue.front() {
            // What nobody waits for any more leaves no trace on the broker.
            let cause = if front.expires.is_some_and(|expires| expires <= now) {
                SendFailure::NotPublished { waited: front.taken.elapsed() }
            } else if let Some(by) = self.stopped_by(&front.cargo) {
                SendFailure::KeyStopped { by }
            } else {
                break;
            };
            self.give_back_front(cause);
        }
    }

    /// Takes out what [`next`](Self::next) said, numbered and encoded; `None` if it has to wait until nothing is outstanding.
    pub(crate) fn take_next(&mut self, nothing_outstanding: bool) -> Option<Ready> {
        if let Some(ready) = self.first.pop_front() {
            return Some(ready);
        }
        if self.numbering.is_full() {
            if !nothing_outstanding || !self.holes.is_empty() {
                return None;
            }
            self.numbering.restart(crate::producer::fresh_source());
        }
        let Submission { id, mut cargo, bytes, deadline, reply, room, .. } = self.queue.pop_front()?;
        let mut sequence = None;
        if let Cargo::Message(message) = &mut cargo
            && let Some(key) = &message.key
        {
            message.sequence = Some(self.numbering.next(&message.destination.route(), key));
            sequence.clone_from(&message.sequence);
        }
        let envelope = cargo.into_envelope(Durability::Persistent);
        let held = Held { envelope, sequence, reply, _room: Some(room), purpose: Purpose::Message };
        Some(Ready { id, held, bytes, deadline })
    }

    /// A message that was published has ended. Its sender is told last: what is to be seen of it is so by then.
    pub(crate) fn on_ended(&mut self, id: MessageId, mut held: Held, outcome: Outcome) {
        let reply = held.reply.take();
        let is_hole = held.sequence.is_some() && !outcome.is_confirmed();
        match held.purpose {
            Purpose::Message => self.counters.on_outcome(&outcome),
            Purpose::Marker { .. } => {}
        }
        if is_hole {
            self.on_hole(id, held, &outcome);
        } else {
            // Its room is free before its sender hears of it.
            drop(held);
        }
        if let Some(reply) = reply {
            // A dropped receipt: its owner does not want to know.
            let _ = reply.send(Ok(outcome));
        }
    }

    /// A sender has decided about a hole.
    fn on_decision(&mut self, Decision { id, choice }: Decision) {
        let Some(mut held) = self.holes.take(&id) else { return };
        match choice {
            Choice::Resend(reply) => {
                held.reply = Some(reply);
                let bytes = held.envelope.body.len();
                self.first.push_back(Ready { id, held, bytes, deadline: Instant::now() + self.confirm_deadline });
            }
            Choice::Void => self.void(&held.envelope, held.sequence.as_ref(), Some(0)),
        }
    }

    /// When something of it is to be looked at again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.queue.front().map(|front| front.deadline);
        let first = self.first.front().map(|ready| ready.deadline);
        let marker = self.markers.first().map(|(due, ..)| *due);
        [waiting, first, marker].into_iter().flatten().min()
    }

    /// What has waited for its turn too long comes back.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        // All wait equally long, so the oldest is in front.
        while let Some(front) = self.queue.front().filter(|front| front.deadline <= now) {
            let waited = front.taken.elapsed();
            self.give_back_front(SendFailure::NotPublished { waited });
        }
        while self.first.front().is_some_and(|ready| ready.deadline <= now) {
            // Published before, or a marker: it is not known to be nowhere.
            if let Some(Ready { id, held, .. }) = self.first.pop_front() {
                self.on_ended(id, held, Outcome::Unknown { tries: 1 });
            }
        }
        self.bring_markers_forward(now);
    }

    /// Whatever is left is not published any more.
    pub(crate) fn end_all(&mut self) {
        self.submissions.close();
        while let Ok(submission) = self.submissions.try_recv() {
            self.queue.push_back(submission);
        }
        while !self.queue.is_empty() {
            self.give_back_front(SendFailure::Closed);
        }
        self.markers.clear();
        for Ready { id, held, .. } in std::mem::take(&mut self.first) {
            self.on_ended(id, held, Outcome::Unknown { tries: 1 });
        }
    }

    fn stopped_by(&self, cargo: &Cargo) -> Option<MessageId> {
        // Nearly always there is no hole, and nothing to compare.
        if self.holes.is_empty() {
            return None;
        }
        let Cargo::Message(message) = cargo else { return None };
        self.holes.stopped_by(&message.destination.route(), message.key.as_ref()?).cloned()
    }

    fn give_back_front(&mut self, cause: SendFailure) {
        if let Some(submission) = self.queue.pop_front() {
            one(&self.counters.not_published);
            submission.give_back(cause);
        }
    }

    fn on_hole(&mut self, id: MessageId, held: Held, outcome: &Outcome) {
        let marker = match (&held.purpose, outcome) {
            // Nobody waits at a route that leads nowhere, or where this user may not write; a marker would end so too.
            (_, Outcome::Unroutable { .. }) => None,
            (_, Outcome::Refused { reason, .. }) if reason.starts_with("403") => None,
            (Purpose::Marker { tries }, _) => (*tries < MARKER_TRIES && !self.no_more).then_some(*tries),
            (Purpose::Message, _) => Some(0),
        };
        if held.purpose == Purpose::Message && self.on_hole == OnHole::Stop {
            self.registry.on_hole(id.clone(), self.channel);
            self.holes.stop(id, held);
        } else {
            self.void(&held.envelope, held.sequence.as_ref(), marker);
        }
    }

    /// The number travels on the key's next message, or after a while without one on a marker.
    fn void(&mut self, envelope: &Envelope, sequence: Option<&Sequence>, marker: Option<u32>) {
        let Some(sequence) = sequence else { return };
        self.numbering.on_not_delivered(&envelope.route, sequence);
        if let Some(tries) = marker {
            let due = Instant::now() + IDLE * 2_u32.pow(tries);
            self.markers.insert((due, envelope.route.clone(), sequence.line.key.clone(), tries));
        }
    }

    /// Those that are due; all of them when the producer closes, because no message of their keys will come.
    fn bring_markers_forward(&mut self, now: Instant) {
        let closing = self.no_more && self.queue.is_empty();
        while self.markers.first().is_some_and(|(due, ..)| closing || *due <= now) {
            let Some((_, route, key, tries)) = self.markers.pop_first() else { return };
            // A message of the key has declared them meanwhile.
            let Some(sequence) = self.numbering.marker(&route, &key) else { continue };
            let id = crate::fresh_id();
            let envelope = Envelope::marker(route, &id, &sequence);
            let purpose = Purpose::Marker { tries: tries + 1 };
            let held = Held { envelope, sequence: Some(sequence), reply: None, _room: None, purpose };
            self.first.push_back(Ready { id, held, bytes: 0, deadline: now + self.confirm_deadline });
        }
    }
}

/// A key without a message for so long is idle.
const IDLE: Duration = Duration::from_millis(100);
/// How often a marker is sent before its number waits for the key's next message.
const MARKER_TRIES: u32 = 6;
