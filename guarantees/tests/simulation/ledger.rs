//! The judge: it knows what was handed in, what was sent, what the broker made of it and what the shell has heard, and
//! holds what the machine says against that.

use correio_guarantees::{Publish, WindowAdmission, WindowLimits};

use crate::{
    broker::{KEYS, QUEUES, QueueSet, Reading},
    lane::Lane,
    law::{Broken, Law},
    numbers::Numbers,
};

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Confirmed,
    Unroutable,
    Refused,
    Unknown { tries: u32 },
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: usize,
    pub(crate) key: usize,
    pub(crate) bytes: usize,
    pub(crate) deadline: u64,
    tries: u32,
    last: Option<usize>,
    /// Its nack or its return was heard.
    is_certain: bool,
    /// The queues of its route that did not take it at some reading.
    missed: QueueSet,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) number: usize,
    pub(crate) publish: Publish,
    reading: Option<Reading>,
    is_answered: bool,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) messages: Vec<Message>,
    pub(crate) sendings: Vec<Sending>,
    pub(crate) broken: Option<Broken>,
    /// The only law that is looked at, if not all are.
    watched: Option<Law>,
    limits: WindowLimits,
    lane: Lane,
    /// No message below this one is without an end.
    lowest_unended: usize,
    gives_up: bool,
}

impl Ledger {
    pub(crate) fn new(limits: WindowLimits, watched: Option<Law>) -> Self {
        Self {
            messages: Vec::new(),
            sendings: Vec::new(),
            broken: None,
            watched,
            limits,
            lane: Lane::default(),
            lowest_unended: 0,
            gives_up: false,
        }
    }

    pub(crate) fn hand_in(&mut self, id: usize, key: usize, bytes: usize, deadline: u64) -> usize {
        self.messages.push(Message {
            id,
            key,
            bytes,
            deadline,
            tries: 0,
            last: None,
            is_certain: false,
            missed: 0,
            outcome: None,
        });
        self.messages.len() - 1
    }

    /// What the machine says of the next message.
    pub(crate) fn on_admission(&mut self, number: usize, admission: WindowAdmission) {
        if admission != WindowAdmission::Now {
            return;
        }
        let Message { id, bytes, .. } = self.messages[number];
        let mut held = self.lane.held;
        if let Some(other) = held.find(|other| self.messages[*other].id == id) {
            self.break_law(Law::OneOfAnId, || format!("#{number} is let in while #{other} with the same id is held"));
        }
        let (unanswered, held_bytes) = (self.lane.unanswered.len(), self.held_bytes());
        let fits = self.lane.held.is_empty() || held_bytes + bytes <= self.limits.bytes;
        if let Some(older) = self.lane.waiting().first() {
            self.break_law(Law::OldestFirst, || format!("#{number} is let in while #{older} waits to be sent again"));
        }
        if unanswered >= self.limits.messages || !fits {
            let what = || format!("#{number} is let in with {unanswered} unanswered and {held_bytes} bytes held");
            self.break_law(Law::LimitsHold, what);
        }
    }

    /// The shell is about to publish this; the number of the sending.
    pub(crate) fn on_sent(&mut self, number: usize, publish: Publish) -> usize {
        if let Some(older) = self.lane.waiting().first().filter(|older| *older < number) {
            self.break_law(Law::OldestFirst, || format!("#{number} is sent before #{older}, which waits"));
        }
        if let Some(youngest) = self.lane.youngest.filter(|youngest| *youngest >= number) {
            self.break_law(Law::OldestFirst, || format!("#{number} is sent after #{youngest}"));
        }
        if self.lane.highest.is_some_and(|highest| highest >= publish) {
            self.break_law(Law::PublishesAreNew, || format!("{publish:?} of #{number} was used before"));
        }
        if self.messages[number].is_certain {
            self.break_law(Law::CertainIsNotSentAgain, || format!("#{number} is sent again after its nack or return"));
        }
        let sending = self.sendings.len();
        self.sendings.push(Sending { number, publish, reading: None, is_answered: false });
        let message = &mut self.messages[number];
        message.tries += 1;
        message.last = Some(sending);
        if message.outcome.is_none() {
            self.lane.on_sent(number, publish);
        }
        sending
    }

    /// The broker has read this sending; `is_late`: on a connection that was cut.
    pub(crate) fn on_read(&mut self, sending: usize, reading: Reading, is_late: bool) {
        let number = self.sendings[sending].number;
        self.sendings[sending].reading = Some(reading);
        let message = &mut self.messages[number];
        match reading {
            Reading::Full(full) => message.missed |= full,
            Reading::NoQueue => message.missed = QueueSet::MAX,
            Reading::Taken | Reading::NoExchange | Reading::Forbidden => {}
        }
        if let Some(outcome) = message.outcome
            && !is_late
        {
            self.break_law(Law::EndedLandsNoMore, || format!("#{number} lands after it ended as {outcome:?}"));
        }
    }

    /// The shell has seen the confirm of this sending.
    pub(crate) fn on_answered(&mut self, sending: usize) {
        let Sending { number, reading, is_answered, .. } = &mut self.sendings[sending];
        let (number, is_nack) = (*number, matches!(reading, Some(Reading::Full(_))));
        *is_answered = true;
        let message = &mut self.messages[number];
        if message.last == Some(sending) && self.lane.live.contains(number) {
            message.is_certain |= is_nack;
            self.lane.unanswered.remove(number);
        }
    }

    /// The shell has seen the return of this message.
    pub(crate) fn on_returned(&mut self, number: usize) {
        self.messages[number].is_certain |= self.lane.live.contains(number);
    }

    pub(crate) fn on_channel_lost(&mut self) {
        self.lane.on_channel_lost();
    }

    /// The producer waits for no answer any more.
    pub(crate) fn on_give_up(&mut self) {
        self.gives_up = true;
    }

    /// The machine, or the shell, says how this message ended.
    pub(crate) fn on_ended(&mut self, number: usize, outcome: Outcome, now: u64) {
        let Message { tries, deadline, last, .. } = self.messages[number];
        let reading = last.and_then(|last| self.sendings[last].reading);
        let unlike = || format!("#{number} ended as {outcome:?}; of its last sending: {reading:?}");
        match (outcome, reading) {
            (Outcome::Confirmed, Some(Reading::Taken))
            | (Outcome::Unroutable, Some(Reading::NoQueue | Reading::NoExchange))
            | (Outcome::Refused, Some(Reading::Full(_) | Reading::Forbidden)) => {}
            (Outcome::Confirmed, _) => self.break_law(Law::ConfirmedIsOnItsQueues, unlike),
            (Outcome::Unroutable, _) => self.break_law(Law::UnroutableReachedNoQueue, unlike),
            (Outcome::Refused, _) => self.break_law(Law::RefusedWasRefused, unlike),
            (Outcome::Unknown { tries: said }, _) => {
                self.check_tries(number, said);
                if now < deadline && !self.gives_up {
                    self.break_law(Law::UnknownAtItsDeadline, || format!("#{number} had time until {deadline}"));
                }
            }
        }
        if let Some(earlier) = self.messages[number].outcome.replace(outcome) {
            let what = || format!("#{number} ended as {earlier:?} and then as {outcome:?} (sent {tries} times)");
            self.break_law(Law::OneOutcomeEach, what);
        }
        self.lane.on_ended(number);
        while self.messages.get(self.lowest_unended).is_some_and(|message| message.outcome.is_some()) {
            self.lowest_unended += 1;
        }
    }

    /// How often the machine says that this was sent.
    pub(crate) fn check_tries(&mut self, number: usize, said: u32) {
        let tries = self.messages[number].tries;
        if said != tries {
            self.break_law(Law::TriesAreSendings, || format!("#{number} was sent {tries} times, not {said}"));
        }
    }

    /// The machine's own counts: messages held, their bytes, unanswered, waiting to be sent again.
    pub(crate) fn check_counts(&mut self, said: [usize; 4]) {
        let Lane { held, unanswered, .. } = self.lane;
        let naive = [held.len(), self.held_bytes(), unanswered.len(), self.lane.waiting().len()];
        if said != naive {
            let what = || format!("held, bytes, unanswered, waiting: said {said:?}, counted {naive:?}");
            self.break_law(Law::CountsAreTrue, what);
        }
        if naive[0] > 2 * self.limits.messages || (naive[1] > self.limits.bytes && naive[0] > 1) {
            self.break_law(Law::LimitsHold, || format!("{} messages and {} bytes are held", naive[0], naive[1]));
        }
    }

    /// The machine wants the channel ended.
    pub(crate) fn on_kill(&mut self, now: u64) {
        let mut unanswered = self.lane.unanswered;
        if !unanswered.any(|number| self.messages[number].deadline <= now) {
            self.break_law(Law::KilledForALateAnswer, || "no answer is late on this channel".to_owned());
        }
    }

    /// The shell has looked at the time. All wait equally long, so the oldest speaks for the others.
    pub(crate) fn check_deadlines(&mut self, now: u64) {
        let number = self.lowest_unended;
        if self.messages.get(number).is_some_and(|message| message.deadline <= now) {
            self.break_law(Law::NothingPastItsDeadline, || format!("#{number} has no end at {now}"));
        }
    }

    /// Nothing more will happen: what is on the queues, in order, and whether the window is idle.
    pub(crate) fn check_end(&mut self, queues: &[Vec<usize>; QUEUES], is_idle: bool) {
        if !is_idle {
            self.break_law(Law::IdleAtTheEnd, || "the window is not idle".to_owned());
        }
        let mut queued = Numbers::default();
        for (queue, content) in queues.iter().enumerate() {
            let mut here = Numbers::default();
            let mut youngest: [Option<usize>; KEYS] = [None; KEYS];
            for &number in content {
                let Message { key, missed, outcome, .. } = self.messages[number];
                let counts = outcome == Some(Outcome::Confirmed) && missed >> queue & 1 == 0;
                if here.contains(number) || !counts {
                    queued.insert(number);
                    continue;
                }
                here.insert(number);
                if let Some(before) = youngest[key].filter(|before| *before > number) {
                    let what = || format!("#{number} of key {key} lies behind #{before} on queue {queue}");
                    self.break_law(Law::OrderOnTheQueue, what);
                }
                youngest[key] = youngest[key].max(Some(number));
                queued.insert(number);
            }
        }
        for number in 0..self.messages.len() {
            match self.messages[number].outcome {
                None => self.break_law(Law::OneOutcomeEach, || format!("#{number} has no outcome")),
                Some(Outcome::Confirmed) if !queued.contains(number) => {
                    self.break_law(Law::ConfirmedIsOnItsQueues, || format!("#{number} is on no queue"));
                }
                Some(_) => {}
            }
        }
    }

    /// Whether the answer to its last sending was seen, and whether a queue ever missed it.
    pub(crate) fn was_answered_and_missed(&self, number: usize) -> (bool, bool) {
        let Message { last, missed, .. } = self.messages[number];
        (last.is_some_and(|last| self.sendings[last].is_answered), missed != 0)
    }

    fn held_bytes(&self) -> usize {
        self.lane.held.map(|number| self.messages[number].bytes).sum()
    }

    fn break_law(&mut self, law: Law, what: impl FnOnce() -> String) {
        if self.broken.is_none() && self.watched.is_none_or(|watched| watched == law) {
            self.broken = Some(Broken { law, what: what() });
        }
    }
}
