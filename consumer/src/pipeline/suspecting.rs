//! What came back too often is handled alone, and what kills its consumers is parked.

use std::sync::Arc;

use correio_guarantees::{Judgement, Returns, Room, Suspects, SuspicionLimits};
use correio_message::{DeadReason, Envelope, MessageId, given_back, header};

use super::{Delivery, Effect, Moment, Pipeline};
use crate::{
    context::Received,
    held::{Copy, Ticket},
    processing::{Acknowledgement, Processing},
};

/// The suspects of a consumer.
pub(super) struct Suspected {
    judge: Suspects,
    /// The queue has one active consumer at a time: whoever ends a subscription to widen it hands the queue to who stands by.
    in_turn: bool,
    /// Held outside of everything until nothing else is held.
    aside: Option<Delivery>,
    /// To be given back once the subscription asks for one at a time: now they would be here again at once.
    to_give_back: Vec<Delivery>,
    /// Taken in: nothing else is, until it ends.
    at_work: Option<Ticket>,
    /// The broker has all acknowledgements: a death now brings back nothing that is settled.
    is_clear: bool,
}

impl Suspected {
    pub(super) fn new(processing: &Processing, acknowledgement: Acknowledgement, single_active: bool) -> Self {
        // What is acknowledged on receipt never comes back.
        let in_turn = processing.is_ordered() || single_active || acknowledgement == Acknowledgement::OnDelivery;
        Self {
            in_turn,
            judge: if in_turn {
                Suspects::in_turn(SuspicionLimits::IN_TURN)
            } else {
                Suspects::one_by_one(SuspicionLimits::default())
            },
            aside: None,
            to_give_back: Vec::new(),
            at_work: None,
            is_clear: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.aside.is_none() && self.to_give_back.is_empty()
    }
}

impl Pipeline {
    /// Looks at a delivery before it is taken in; `None`: nothing more is to be done with it now.
    pub(super) fn look_at(&mut self, delivery: Delivery, now: Moment) -> Option<Delivery> {
        if self.rules.acknowledgement == Acknowledgement::OnDelivery {
            return Some(delivery);
        }
        let id = id_of(&delivery.envelope);
        let suspected = &mut self.suspected;
        if suspected.in_turn
            && suspected.judge.wanted() != suspected.judge.room()
            && suspected.judge.room() == Room::Full
        {
            // It goes back with the channel.
            return None;
        }
        match suspected.judge.judge(delivery.returns(), id.as_ref()) {
            Judgement::Innocent => return Some(delivery),
            Judgement::Killer => self.park_killer(delivery, now),
            Judgement::Suspect if suspected.in_turn && suspected.judge.room() == Room::Full => {
                if let Some(id) = &id {
                    suspected.judge.on_survived(id);
                }
                tracing::warn!("a message came back too often: everything goes back, and is handed out one by one");
                self.effects.push(Effect::CloseChannel);
            }
            Judgement::Suspect if suspected.aside.is_none() => suspected.aside = Some(delivery),
            Judgement::Suspect => suspected.to_give_back.push(delivery),
        }
        None
    }

    /// Parks a killer, unless the log says that it was handled: by one that was gone before the broker was told.
    fn park_killer(&mut self, Delivery { tag, redelivered, envelope }: Delivery, now: Moment) {
        let returns = returns(&envelope).all();
        let decoded = envelope.decode();
        let sequence = match &decoded {
            Ok(decoded) => decoded.message.sequence.clone(),
            Err(error) => error.sequence.as_deref().cloned(),
        };
        let id = decoded.as_ref().ok().and_then(|decoded| self.handled_id(&decoded.message));
        let received = decoded.ok().map(|decoded| Arc::new(Received { decoded, redelivered }));
        let ticket = self.hold(Some(tag), envelope, received, id);
        if let Some(sequence) = &sequence {
            self.order.on_filled(sequence, now.at);
        }
        if let Some(held) = self.held.get_mut(&ticket) {
            held.accused = Some(returns);
        }
        self.ask_about(ticket, now);
    }

    /// Asks the log whether what is accused was handled.
    pub(super) fn ask_about(&mut self, ticket: Ticket, now: Moment) {
        self.busy += 1;
        match self.new_claim(ticket) {
            Some(claim) => self.log.to_admit.push((ticket, claim)),
            None => self.convict(ticket, now),
        }
    }

    /// It was not handled.
    pub(super) fn convict(&mut self, ticket: Ticket, now: Moment) {
        self.busy -= 1;
        self.abandon(ticket);
        let returns = self.held.get_mut(&ticket).and_then(|held| held.accused.take()).unwrap_or_default();
        self.park(ticket, DeadReason::Killer, guilt(returns), now);
    }

    /// Takes a suspect in when it is the only one.
    pub(super) fn take_suspect_in(&mut self, now: Moment) {
        if !self.held.is_empty() || !self.suspected.is_clear || self.stopping {
            return;
        }
        if let Some(delivery) = self.suspected.aside.take() {
            self.on_suspect(&delivery.envelope, delivery.returns().all());
            let before = self.last_ticket;
            self.take_in(delivery, now);
            self.suspected.at_work = (self.last_ticket > before).then_some(Ticket(self.last_ticket));
        }
    }

    fn on_suspect(&mut self, envelope: &Envelope, returns: u32) {
        self.suspected.is_clear = false;
        self.counts.suspected(1);
        let id = envelope.properties.message_id.as_ref().map(tracing::field::display);
        tracing::warn!(message = id, returns, "a message came back too often: it is handled alone");
    }

    /// Whether a suspect waits only for the broker to have all acknowledgements: else its death would bring back what is settled.
    pub(crate) fn waits_for_acks(&self) -> bool {
        self.suspected.aside.is_some() && self.held.is_empty() && !self.stopping && !self.suspected.is_clear
    }

    /// The broker has all acknowledgements.
    pub(crate) fn on_acks_taken(&mut self) {
        self.suspected.is_clear = true;
    }

    /// Whether a suspect is to be handled, or is at work.
    pub(super) fn has_suspect(&self) -> bool {
        self.suspected.aside.is_some() || self.suspected.at_work.is_some_and(|ticket| self.held.contains_key(&ticket))
    }

    /// The subscription that is to replace the present one on its channel.
    pub(crate) fn resubscription(&self) -> Option<Room> {
        let judge = &self.suspected.judge;
        // Not beside a suspect; and an ordered queue is reordered by the end of a subscription that holds anything.
        let is_held_up = if self.suspected.in_turn {
            !self.is_empty() || judge.room() == Room::Full
        } else {
            self.wanted_room() == Room::Full && self.has_suspect()
        };
        let wanted = self.wanted_room();
        (wanted != judge.room() && !is_held_up && !self.stopping).then_some(wanted)
    }

    fn wanted_room(&self) -> Room {
        if self.is_withdrawn() { Room::One } else { self.suspected.judge.wanted() }
    }

    /// How many unsettled deliveries the next subscription asks for.
    pub(crate) fn prefetch(&self) -> u16 {
        match self.wanted_room() {
            Room::One => 1,
            Room::Full => self.rules.budget.prefetch,
        }
    }

    /// The subscription was replaced.
    pub(crate) fn on_resubscribed(&mut self, room: Room) {
        self.suspected.judge.on_subscribed(room);
        if self.suspected.in_turn {
            self.give_suspects_back();
        } else {
            self.send_suspects_back();
        }
    }

    /// Of a new channel.
    pub(super) fn on_room(&mut self) {
        let room = self.wanted_room();
        self.suspected.judge.on_subscribed(room);
    }

    /// Nothing new is begun: suspects neither.
    pub(super) fn leave_suspects(&mut self) {
        let aside = self.suspected.aside.take();
        self.suspected.to_give_back.extend(aside);
        self.give_suspects_back();
    }

    fn give_suspects_back(&mut self) {
        if self.rules.processing.is_ordered() {
            // They go back with the channel.
            self.suspected.to_give_back.clear();
        }
        for delivery in std::mem::take(&mut self.suspected.to_give_back) {
            self.counts.not_started(1);
            self.effects.push(Effect::GiveBack { tag: delivery.tag });
        }
    }

    /// As copies: who takes them next must not count this as a death.
    fn send_suspects_back(&mut self) {
        for delivery in std::mem::take(&mut self.suspected.to_give_back) {
            let (id, returns) = (id_of(&delivery.envelope), delivery.returns());
            let judge = &mut self.suspected.judge;
            let counted = judge.unexcused(returns, id.as_ref());
            if let Some(id) = &id {
                judge.on_copied(id);
            }
            let envelope = given_back(&delivery.envelope, self.rules.queue.clone(), counted);
            let ticket = self.hold(Some(delivery.tag), delivery.envelope, None, None);
            self.copy(ticket, Copy::GivenBack { envelope });
        }
    }

    /// The channel is gone and everything on it comes back, and we live: none of it has killed us.
    pub(super) fn on_suspects_lost(&mut self) {
        let suspected = &mut self.suspected;
        suspected.judge.on_channel_lost();
        let set_apart: Vec<_> = suspected.aside.take().into_iter().chain(suspected.to_give_back.drain(..)).collect();
        let held = self.held.values().filter(|held| held.tag.is_some()).map(|held| &*held.envelope);
        for id in held.chain(set_apart.iter().map(|delivery| &delivery.envelope)).filter_map(id_of) {
            suspected.judge.on_survived(&id);
        }
        suspected.is_clear = false;
    }
}

impl Delivery {
    /// How often it came back to its queue unsettled, by the broker's count. Who publishes may have written it too: it counts
    /// only in what was delivered before.
    pub(super) fn returns(&self) -> Returns {
        let returns = returns(&self.envelope);
        if self.redelivered { returns } else { Returns { counted: 0, ..returns } }
    }
}

/// Of a quorum queue; others do not count.
fn returns(envelope: &Envelope) -> Returns {
    let headers = &envelope.properties.headers;
    let number = |name| {
        let number = headers.get(name).and_then(correio_message::Value::as_integer);
        number.map_or(0, |number| u32::try_from(number.max(0)).unwrap_or(u32::MAX))
    };
    Returns { counted: number(COUNTED), carried: number(header::RETURNS) }
}

fn id_of(envelope: &Envelope) -> Option<MessageId> {
    envelope.properties.message_id.as_ref().and_then(|id| MessageId::new(id.as_str()).ok())
}

fn guilt(returns: u32) -> String {
    format!(
        "it came back to its queue {returns} times, lately handled alone: whoever took it was gone before it was settled, so it \
         is taken to end the processes that handle it"
    )
}

/// RabbitMQ's own, absent at the first delivery. `basic.nack` raises it before 4.3; the end of a channel does on all.
const COUNTED: &str = "x-delivery-count";
