//! The shell, the client's confirms as lapin does them, and the broker; with a naive observer of each message.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use correio_guarantees::{Answer, ConfirmWindow, DeadlineAction, Ended, Pronounced, Publish, WindowAdmission};
use correio_message::MessageId;
use proptest::{collection::vec, prelude::*};

use crate::{LIMITS, id, support::at};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Queued,
    NoQueue,
    QueueFull,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A message; each of its sendings meets the next of these fates.
    Publish {
        fates: [Fate; 2],
        bytes: usize,
        patience: u64,
    },
    /// The id of an earlier message once more.
    PublishAgain(usize),
    /// The broker reads so many publishes.
    Read(usize),
    /// The broker answers these, in this order, in one go.
    Confirm(Vec<usize>),
    /// The shell sees so many of the confirms that have completed.
    See(Vec<usize>),
    Tick(u64),
    LoseChannel,
    Resend(usize),
    AnswerOfAnOldChannel(usize),
    ReturnOfAStranger,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let fate = prop_oneof![3 => Just(Fate::Queued), 2 => Just(Fate::NoQueue), 1 => Just(Fate::QueueFull)];
    prop_oneof![
        12 => ([fate.clone(), fate], 1usize..60, 5u64..40)
            .prop_map(|(fates, bytes, patience)| Op::Publish { fates, bytes, patience }),
        2 => any::<usize>().prop_map(Op::PublishAgain),
        8 => (1usize..6).prop_map(Op::Read),
        8 => vec(any::<usize>(), 1..4).prop_map(Op::Confirm),
        8 => vec(any::<usize>(), 1..4).prop_map(Op::See),
        4 => (1u64..8).prop_map(Op::Tick),
        2 => Just(Op::LoseChannel),
        4 => (1usize..4).prop_map(Op::Resend),
        1 => any::<usize>().prop_map(Op::AnswerOfAnOldChannel),
        1 => Just(Op::ReturnOfAStranger),
    ]
}

/// One message as a naive observer knows it.
struct Sent {
    id: MessageId,
    fates: [Fate; 2],
    bytes: usize,
    deadline: Instant,
    tries: u32,
    /// Whether the broker has read its last sending.
    read: bool,
    place: Where,
    /// What the shell has seen of its last sending: the answer and the highest publish at that time.
    answered: Option<(Answer, u64)>,
    returned: bool,
    expired: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Where {
    Live(Publish),
    Waiting,
    Ended,
    /// Ended, on the live channel, and its return may still come.
    EndedEarly(Publish),
}

impl Sent {
    fn fate(&self) -> Fate {
        self.fates[(self.tries as usize - 1).min(1)]
    }

    fn is_held(&self) -> bool {
        matches!(self.place, Where::Live(_) | Where::Waiting)
    }

    fn is_unanswered(&self) -> bool {
        matches!(self.place, Where::Live(_)) && self.answered.is_none()
    }
}

/// The shell, the client's confirms as lapin does them, and the broker.
pub(crate) struct Run {
    window: ConfirmWindow<usize>,
    now: u64,
    /// Whether the shell sees confirms in the order in which they completed. If not, the broker confirms unroutable
    /// messages in the order of their returns, as RabbitMQ does.
    in_order: bool,
    messages: Vec<Sent>,
    highest: Option<Publish>,
    old: Vec<Publish>,
    strays: u64,
    /// On the wire, not read by the broker.
    written: VecDeque<usize>,
    unconfirmed: Vec<usize>,
    /// Returns that no confirm has carried yet.
    returns: VecDeque<usize>,
    completed: VecDeque<(Publish, Answer, Option<usize>)>,
    to_kill: bool,
}

impl Run {
    pub(crate) fn new(in_order: bool) -> Self {
        Self {
            window: ConfirmWindow::new(LIMITS),
            now: 0,
            in_order,
            messages: Vec::new(),
            highest: None,
            old: Vec::new(),
            strays: 0,
            written: VecDeque::new(),
            unconfirmed: Vec::new(),
            returns: VecDeque::new(),
            completed: VecDeque::new(),
            to_kill: false,
        }
    }

    pub(crate) fn step(&mut self, op: Op) {
        match op {
            Op::Publish { fates, bytes, patience } => {
                let id = id(self.messages.len());
                self.publish(id, fates, bytes, patience);
            }
            Op::PublishAgain(index) if !self.messages.is_empty() => {
                let earlier = pick(index, &self.messages);
                self.publish(earlier.id.clone(), earlier.fates, earlier.bytes, 10);
            }
            Op::Read(count) => self.read(count),
            Op::Confirm(picks) => self.confirm(&picks),
            Op::See(picks) => picks.iter().for_each(|at| self.see(*at)),
            Op::Tick(n) => self.tick(n),
            Op::LoseChannel => self.lose_channel(),
            Op::Resend(count) if !self.to_kill => (0..count).for_each(|_| self.resend()),
            Op::AnswerOfAnOldChannel(index) if !self.old.is_empty() => {
                self.window.on_answered(*pick(index, &self.old), Answer::Ack);
            }
            Op::ReturnOfAStranger => {
                self.strays += 1;
                self.window.on_returned(&id("stranger"), "NO_ROUTE".into());
            }
            Op::PublishAgain(_) | Op::Resend(_) | Op::AnswerOfAnOldChannel(_) => {}
        }
        self.take_ended();
    }

    fn publish(&mut self, id: MessageId, fates: [Fate; 2], bytes: usize, patience: u64) {
        let taken = |sent: &Sent| sent.id == id && sent.place != Where::Ended;
        let expected = if self.messages.iter().any(taken) {
            WindowAdmission::SameIdOutstanding
        } else if self.has_room(bytes) {
            WindowAdmission::Now
        } else {
            WindowAdmission::Full
        };
        assert_eq!(self.window.admission(&id, bytes), expected);
        if expected != WindowAdmission::Now || self.to_kill {
            return;
        }
        let deadline = at(self.now + patience);
        let number = self.messages.len();
        let publish = self.window.on_publishing(id.clone(), number, bytes, deadline);
        self.messages.push(Sent {
            id,
            fates,
            bytes,
            deadline,
            tries: 0,
            read: false,
            place: Where::Waiting,
            answered: None,
            returned: false,
            expired: false,
        });
        self.on_sent(number, publish);
    }

    fn has_room(&self, bytes: usize) -> bool {
        let held = || self.messages.iter().filter(|sent| sent.is_held());
        let fits = held().next().is_none() || held().map(|sent| sent.bytes).sum::<usize>() + bytes <= LIMITS.bytes;
        let numbered = self.messages.iter().filter(|sent| sent.place != Where::Ended).count() < 2 * LIMITS.messages;
        let unanswered = self.messages.iter().filter(|sent| sent.is_unanswered()).count();
        let resends = held().any(|sent| sent.place == Where::Waiting);
        fits && numbered && unanswered < LIMITS.messages && !resends
    }

    fn on_sent(&mut self, number: usize, publish: Publish) {
        assert!(self.highest < Some(publish), "a publish number is used twice");
        self.highest = Some(publish);
        let sent = &mut self.messages[number];
        sent.tries += 1;
        sent.read = false;
        sent.place = Where::Live(publish);
        self.written.push_back(number);
        self.unconfirmed.push(number);
    }

    fn read(&mut self, count: usize) {
        for number in self.written.drain(..count.min(self.written.len())) {
            let sent = &mut self.messages[number];
            sent.read = true;
            if sent.fate() == Fate::NoQueue {
                self.returns.push_back(number);
            }
        }
    }

    fn confirm(&mut self, picks: &[usize]) {
        let mut batch = Vec::new();
        for at in picks {
            let read: Vec<_> = self.unconfirmed.iter().copied().filter(|n| self.messages[*n].read).collect();
            let open: Vec<_> = read.iter().copied().filter(|n| !batch.contains(n)).collect();
            if open.is_empty() {
                break;
            }
            let picked = *pick(*at, &open);
            let no_queue = |n: &usize| self.messages[*n].fate() == Fate::NoQueue;
            if !self.in_order && no_queue(&picked) {
                let earlier = open.iter().copied().take_while(|n| *n != picked).filter(no_queue);
                // The client completes what one frame confirms in no order.
                batch.extend(earlier.collect::<Vec<_>>().into_iter().rev());
            }
            batch.push(picked);
        }
        for number in batch {
            self.unconfirmed.retain(|n| *n != number);
            let sent = &self.messages[number];
            let Where::Live(publish) = sent.place else { unreachable!("answered before it was confirmed") };
            let answer = if sent.fate() == Fate::QueueFull { Answer::Nack } else { Answer::Ack };
            self.completed.push_back((publish, answer, self.returns.pop_front()));
        }
    }

    fn see(&mut self, at: usize) {
        if self.completed.is_empty() {
            return;
        }
        let which = if self.in_order { 0 } else { at % self.completed.len() };
        let Some((publish, answer, returned)) = self.completed.remove(which) else { return };
        assert!(self.window.is_current(publish));
        if let Some(number) = returned {
            let sent = &mut self.messages[number];
            if sent.is_held() {
                sent.returned = true;
            } else {
                self.strays += 1;
            }
            let id = sent.id.clone();
            self.window.on_returned(&id, "NO_ROUTE".into());
        }
        let highest = self.highest.map_or(0, |publish| publish.0);
        let answered = self.messages.iter_mut().find(|sent| sent.place == Where::Live(publish));
        if let Some(sent) = answered {
            sent.answered = Some((answer, highest));
        }
        self.window.on_answered(publish, answer);
        self.take_ended();
        self.release_ids();
    }

    fn tick(&mut self, n: u64) {
        self.now += n;
        let now = at(self.now);
        for sent in self.messages.iter_mut().filter(|sent| sent.is_unanswered()) {
            sent.expired |= sent.deadline <= now;
        }
        let action = self.window.on_deadline(now);
        let expired = self.messages.iter().any(|sent| sent.is_unanswered() && sent.expired);
        assert_eq!(action == DeadlineAction::KillChannel, expired);
        self.to_kill = expired;
    }

    fn lose_channel(&mut self) {
        self.window.on_channel_lost();
        self.old.extend(self.messages.iter().filter_map(|sent| match sent.place {
            Where::Live(publish) => Some(publish),
            _ => None,
        }));
        self.take_ended();
        for sent in &mut self.messages {
            match sent.place {
                Where::Live(_) => {
                    let certain = sent.returned || matches!(sent.answered, Some((Answer::Nack, _)));
                    assert!(!certain && !sent.expired, "{} did not end with its channel", sent.id);
                    (sent.place, sent.answered) = (Where::Waiting, None);
                }
                Where::EndedEarly(_) => sent.place = Where::Ended,
                Where::Waiting | Where::Ended => {}
            }
        }
        self.written.clear();
        self.unconfirmed.clear();
        self.returns.clear();
        self.completed.clear();
        self.to_kill = false;
    }

    fn resend(&mut self) {
        let oldest = self.messages.iter().position(|sent| sent.place == Where::Waiting);
        let resent = self.window.next_resend().map(|(publish, number)| (publish, *number));
        assert_eq!(resent.map(|(_, number)| number), oldest, "resends keep the original order");
        if let Some((publish, number)) = resent {
            self.on_sent(number, publish);
        }
    }

    fn take_ended(&mut self) {
        for Ended { id, message, tries, pronounced } in self.window.take_ended() {
            let late = at(self.now);
            let sent = &mut self.messages[message];
            assert!(sent.is_held(), "{id} has ended twice");
            assert_eq!((&id, tries), (&sent.id, sent.tries));
            match pronounced {
                Pronounced::Confirmed => assert!(sent.read && sent.fate() == Fate::Queued, "{id} is on no queue"),
                Pronounced::Unroutable { .. } => assert!(sent.read && sent.fate() == Fate::NoQueue, "{id} has a queue"),
                Pronounced::Refused => assert!(sent.read && sent.fate() == Fate::QueueFull, "{id} was taken"),
                Pronounced::Unknown { tries } => assert!(tries == sent.tries && sent.deadline <= late, "{id} had time"),
            }
            let (place, answered) = (sent.place, sent.answered);
            self.messages[message].place = match (place, answered) {
                (Where::Live(publish), Some((_, barrier))) if self.is_barred(barrier) => Where::EndedEarly(publish),
                _ => Where::Ended,
            };
        }
    }

    /// Whether a publish up to this one has no answer.
    fn is_barred(&self, barrier: u64) -> bool {
        self.messages.iter().any(|sent| {
            let Where::Live(publish) = sent.place else { return false };
            sent.answered.is_none() && publish.0 <= barrier
        })
    }

    fn release_ids(&mut self) {
        for number in 0..self.messages.len() {
            let sent = &self.messages[number];
            if let (Where::EndedEarly(_), Some((_, barrier))) = (sent.place, sent.answered)
                && !self.is_barred(barrier)
            {
                self.messages[number].place = Where::Ended;
            }
        }
    }

    pub(crate) fn check(&self) {
        let held: Vec<_> = self.messages.iter().filter(|sent| sent.is_held()).collect();
        let bytes = held.iter().map(|sent| sent.bytes).sum();
        assert_eq!((self.window.held(), self.window.held_bytes()), (held.len(), bytes));
        assert!(held.len() <= 2 * LIMITS.messages && (bytes <= LIMITS.bytes || held.len() == 1));
        assert_eq!(self.window.unanswered(), held.iter().filter(|sent| sent.is_unanswered()).count());
        let waiting = held.iter().filter(|sent| sent.place == Where::Waiting).count();
        assert_eq!(self.window.resends_waiting(), waiting);
        assert_eq!(self.window.stray_returns(), self.strays);
        assert_eq!(self.window.is_idle(), held.is_empty());
        for sent in &held {
            assert!(sent.expired || sent.deadline > at(self.now), "{} is held past its deadline", sent.id);
            if let Some((_, barrier)) = sent.answered {
                assert!(self.is_barred(barrier), "{} waits for nobody", sent.id);
            }
        }
        let running = held.iter().filter(|sent| !sent.expired);
        let late: BTreeSet<_> = running.map(|sent| sent.deadline).collect();
        if let Some(deadline) = self.window.next_deadline() {
            assert_eq!(Some(&deadline), late.first());
        } else {
            assert!(late.is_empty());
        }
    }

    /// The broker is well again: everything that is held ends.
    pub(crate) fn finish(&mut self) {
        self.lose_channel();
        while self.window.resends_waiting() > 0 {
            self.resend();
        }
        self.read(usize::MAX);
        while !self.unconfirmed.is_empty() {
            self.confirm(&[0]);
        }
        while !self.completed.is_empty() {
            self.see(0);
        }
        assert!(self.window.is_idle());
        assert!(self.messages.iter().all(|sent| sent.place == Where::Ended), "a message has no outcome");
    }
}

fn pick<T>(at: usize, of: &[T]) -> &T {
    &of[at % of.len()]
}
