//! The producer's loop around the confirm window, as its publishing channel drives it, without sockets and with a
//! clock that the history moves.

use std::collections::VecDeque;

use correio_guarantees::{CulpritSearch, DeadlineAction, Ended, Pronounced, Publish, Suspicion, WindowAdmission};

use crate::{
    broker::{Frame, Published},
    client::{Client, Completed},
    ledger::Outcome,
    machine::Machine,
    numbers::Numbers,
    seen::Sight,
    support::at,
    world::{World, id},
};

pub(crate) struct Shell<W> {
    window: W,
    /// Handed in and not published, in order.
    queue: VecDeque<usize>,
    queue_limit: usize,
    client: Option<Client>,
    search: CulpritSearch,
    /// The last that had to wait because its id was held.
    waited: Option<usize>,
    reading: Reading,
    /// Confirms that completed on channels that are gone, and some that were seen.
    old: Vec<Completed>,
}

/// In which order the shell sees confirms that have completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// That in which they completed.
    AsCompleted,
    /// That of their publishes, each waited for, as the producer does.
    AsPublished,
    Anyhow,
}

/// Why a channel is no longer served.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The broker closed it because of one of the messages on it.
    OfOneMessage {
        missing: bool,
    },
    Gone,
    Silent,
}

impl<W: Machine> Shell<W> {
    pub(crate) fn new(window: W, queue_limit: usize, reading: Reading) -> Self {
        Self {
            window,
            queue: VecDeque::new(),
            queue_limit,
            client: None,
            search: CulpritSearch::new(),
            waited: None,
            reading,
            old: Vec::new(),
        }
    }

    pub(crate) fn wants_more(&self) -> bool {
        self.queue.len() < self.queue_limit
    }

    /// A caller hands a message in.
    pub(crate) fn hand_in(&mut self, number: usize) {
        self.queue.push_back(number);
    }

    pub(crate) fn connection(&self) -> Option<usize> {
        self.client.as_ref().map(|client| client.connection)
    }

    /// One round of the loop: puts on the wire what the window admits, and tells what has ended.
    pub(crate) fn turn(&mut self, world: &mut World) {
        if self.window.resends_waiting() > 0 {
            // Asking changes nothing: what is new is not let in before what waits.
            self.ask_for_the_next(world);
        }
        self.publish_what_fits(world);
        self.pronounce(world);
        let window = &self.window;
        let counts = [window.held(), window.held_bytes(), window.unanswered(), window.resends_waiting()];
        world.ledger.check_counts(counts);
    }

    pub(crate) fn connect(&mut self, world: &mut World) {
        if self.client.is_none() {
            let connection = world.broker.connect();
            world.say(|| format!("connection {connection}"));
            self.client = Some(Client::new(connection));
        }
    }

    /// The client library takes so many frames from the socket.
    pub(crate) fn receive(&mut self, count: usize, world: &mut World) {
        let Some(client) = &mut self.client else { return };
        for _ in 0..count {
            let Some(frame) = world.broker.next_frame(client.connection) else { return };
            world.say(|| match frame {
                Frame::Return { number } => format!("the client gets the return of #{number}"),
                other => format!("the client gets {other:?}"),
            });
            client.receive(frame, &mut world.chance);
        }
    }

    /// The shell sees so many of the confirms that have completed, and behind them that the channel was closed.
    pub(crate) fn see(&mut self, count: usize, world: &mut World) {
        for _ in 0..count {
            let Some(client) = &mut self.client else { break };
            let at = match self.reading {
                Reading::AsCompleted => Some(0),
                Reading::AsPublished => client.oldest(),
                Reading::Anyhow => Some(world.chance.below(client.completed.len())),
            };
            if at.is_some_and(|at| at > 0) {
                world.seen.note(Sight::SeenOutOfOrder);
            }
            if let Some(completed) = at.and_then(|at| client.completed.remove(at)) {
                if world.chance.one_in(16) {
                    self.old.push(Completed { returned: None, ..completed });
                }
                self.on_confirmation(completed, world);
                continue;
            }
            if let Some(missing) = client.closed {
                self.lose(Fault::OfOneMessage { missing }, world);
            }
            break;
        }
        self.pronounce(world);
    }

    /// A confirm of a channel that is gone is reported all the same, or one is reported again.
    pub(crate) fn see_an_old_answer(&mut self, world: &mut World) {
        if let Some(completed) = self.old.pop() {
            world.seen.note(Sight::OldAnswer);
            self.on_confirmation(completed, world);
            self.pronounce(world);
        }
    }

    /// The connection is cut: what was on its way is lost, but for a part that the broker may still read.
    pub(crate) fn cut(&mut self, world: &mut World) {
        let Some(connection) = self.connection() else { return };
        world.seen.note(Sight::Cut);
        let (frames, confirms) = (world.chance.below(5), world.chance.below(5));
        self.receive(frames, world);
        self.see(confirms, world);
        if self.connection() == Some(connection) {
            let arrived = world.chance.below(world.broker.on_the_wire(connection) + 1);
            world.cut(connection, arrived);
            self.lose(Fault::Gone, world);
        }
    }

    /// Time has passed.
    pub(crate) fn on_time(&mut self, is_broker_slow: bool, world: &mut World) {
        let now = at(world.now);
        let in_front = self.queue.front().map(|number| at(world.ledger.messages[*number].deadline));
        let next = in_front.into_iter().chain(self.window.next_deadline()).min();
        if next.is_some_and(|next| next <= now) {
            while let Some(&number) = self.queue.front()
                && at(world.ledger.messages[number].deadline) <= now
            {
                self.queue.pop_front();
                self.tell_never_sent(number, world);
            }
            let action = self.window.on_deadline(now);
            if action == DeadlineAction::KillChannel
                && let Some(connection) = self.connection()
            {
                world.seen.note(Sight::Killed);
                world.ledger.on_kill(world.now);
                // The socket is shut before anything else is said. What the broker's machine has by then, a slow
                // broker may still read.
                let arrived = if is_broker_slow { world.chance.below(3) } else { 0 };
                world.cut(connection, arrived);
                self.lose(Fault::Silent, world);
            }
            self.pronounce(world);
        }
        world.ledger.check_deadlines(world.now);
    }

    /// Whatever is left has no answer and will have none.
    pub(crate) fn give_up(&mut self, world: &mut World) {
        world.ledger.on_give_up();
        if let Some(connection) = self.connection() {
            world.cut(connection, 0);
            self.lose(Fault::Gone, world);
        }
        while let Some(number) = self.queue.pop_front() {
            self.tell_never_sent(number, world);
        }
        for _ in 0..Numbers::MOST {
            let Some(deadline) = self.window.next_deadline() else { break };
            // There is no channel to kill.
            let _ = self.window.on_deadline(deadline);
            self.pronounce(world);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.window.is_idle()
    }

    /// Nothing is held and nothing is waited for.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_done() && self.window.held() == 0 && self.window.next_deadline().is_none()
    }

    fn publish_what_fits(&mut self, world: &mut World) {
        while let Some(connection) = self.connection() {
            if self.window.unanswered() == 0 {
                self.search.on_all_answered();
            }
            if !self.search.may_publish() {
                return;
            }
            let Some((publish, number)) = self.next_publish(world) else { return };
            self.search.on_publishing();
            let sending = world.ledger.on_sent(number, publish);
            let key = world.ledger.messages[number].key;
            world.say(|| format!("#{number} is published as {} on connection {connection}", publish.0));
            world.broker.write(connection, Published { sending, number, key });
            if let Some(client) = &mut self.client {
                client.on_published(sending);
            }
        }
    }

    /// First what is sent again, then what is new.
    fn next_publish(&mut self, world: &mut World) -> Option<(Publish, usize)> {
        if let Some((publish, number)) = self.window.next_resend() {
            world.seen.note(Sight::Resent);
            return Some((publish, number));
        }
        let (number, admission) = self.ask_for_the_next(world)?;
        if admission == WindowAdmission::SameIdOutstanding && self.waited.replace(number) != Some(number) {
            world.seen.note(Sight::SameIdWaited);
        }
        if admission != WindowAdmission::Now || world.ledger.broken.is_some() {
            return None;
        }
        self.queue.pop_front();
        let message = &world.ledger.messages[number];
        let name = id(message.id);
        Some((self.window.on_publishing(name, number, message.bytes, at(message.deadline)), number))
    }

    fn ask_for_the_next(&self, world: &mut World) -> Option<(usize, WindowAdmission)> {
        let number = *self.queue.front()?;
        let message = &world.ledger.messages[number];
        let admission = self.window.admission(&id(message.id), message.bytes);
        world.ledger.on_admission(number, admission);
        Some((number, admission))
    }

    fn on_confirmation(&mut self, Completed { sending, answer, returned }: Completed, world: &mut World) {
        let (number, publish) = (world.ledger.sendings[sending].number, world.ledger.sendings[sending].publish);
        // The return is some message's, not necessarily this one's.
        if let Some(returned) = returned
            && self.window.is_current(publish)
        {
            if returned != number {
                world.seen.note(Sight::ReturnWithAStranger);
            }
            world.say(|| format!("the shell sees the return of #{returned}"));
            world.ledger.on_returned(returned);
            self.window.on_returned(&id(world.ledger.messages[returned].id), "312 NO_ROUTE".to_owned());
        }
        world.say(|| format!("the shell sees {answer:?} for #{number}, published as {}", publish.0));
        world.ledger.on_answered(sending);
        self.window.on_answered(publish, answer);
    }

    fn lose(&mut self, fault: Fault, world: &mut World) {
        world.say(|| format!("the channel is lost: {fault:?}"));
        if let Some(client) = self.client.take() {
            self.old.extend(client.completed);
        }
        let waited_before = self.window.resends_waiting();
        self.window.on_channel_lost();
        world.ledger.on_channel_lost();
        match fault {
            Fault::OfOneMessage { missing } => {
                // As the shell does: those that were on the channel wait in front of those that were not sent again yet.
                let suspects = self.window.resends_waiting().saturating_sub(waited_before);
                if self.search.on_fault(suspects) == Suspicion::Found
                    && let Some(id) = self.window.first_waiting()
                    && let Some(culprit) = self.window.withdraw(&id)
                {
                    world.seen.note(Sight::CulpritFound);
                    self.tell(culprit, if missing { Outcome::Unroutable } else { Outcome::Refused }, world);
                }
            }
            Fault::Gone | Fault::Silent => self.search.on_channel_lost(),
        }
        self.pronounce(world);
    }

    fn pronounce(&mut self, world: &mut World) {
        for Ended { message: number, tries, pronounced, .. } in self.window.take_ended() {
            world.ledger.check_tries(number, tries);
            let outcome = match pronounced {
                Pronounced::Confirmed => Outcome::Confirmed,
                Pronounced::Unroutable { .. } => Outcome::Unroutable,
                Pronounced::Refused => Outcome::Refused,
                Pronounced::Unknown { tries } => Outcome::Unknown { tries },
            };
            self.tell(number, outcome, world);
        }
    }

    fn tell_never_sent(&self, number: usize, world: &mut World) {
        self.tell(number, Outcome::Unknown { tries: 0 }, world);
    }

    fn tell(&self, number: usize, outcome: Outcome, world: &mut World) {
        world.say(|| format!("#{number} ends: {outcome:?}"));
        world.on_outcome(number, outcome);
    }
}
