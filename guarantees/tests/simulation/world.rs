//! Everything around the shell: the time, chance, the broker, and who writes down what happens.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use correio_message::MessageId;

use crate::{
    broker::{Answered, Broker, Link, Published, Reading},
    chance::Chance,
    ledger::{Ledger, Outcome},
    numbers::Numbers,
    seen::{Seen, Sight},
};

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) broker: Broker,
    pub(crate) ledger: Ledger,
    pub(crate) seen: Seen,
    /// Cut connections of which the broker has not read everything.
    pub(crate) late: Vec<usize>,
    pub(crate) trace: Trace,
    /// What happened.
    pub(crate) told: Vec<String>,
}

/// Who wants to read what happens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Trace {
    #[default]
    Off,
    Kept,
    /// At once, so that it can be read up to a panic.
    Printed,
}

impl World {
    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        match self.trace {
            Trace::Off => {}
            Trace::Kept => self.told.push(format!("{:>5}  {}", self.now, what())),
            // Past the test harness, which keeps to itself what is printed by a test that succeeds.
            Trace::Printed => writeln!(io::stdout(), "{:>5}  {}", self.now, what()).unwrap_or_default(),
        }
    }

    /// The broker reads so many sendings of this connection.
    pub(crate) fn read(&mut self, connection: usize, count: usize) {
        for _ in 0..count {
            let Some((Published { sending, number, .. }, reading)) = self.broker.read(connection) else { return };
            let is_late = self.broker.link(connection) == Link::Cut;
            self.say(|| {
                let late = if is_late { " late" } else { "" };
                format!("the broker reads #{number}{late} on connection {connection}: {reading:?}")
            });
            if is_late {
                self.seen.note(Sight::LateOriginal);
                if self.ledger.messages[number].outcome.is_some() {
                    self.seen.note(Sight::LateAfterItsEnd);
                }
            }
            self.ledger.on_read(sending, reading, is_late);
            match reading {
                Reading::Full(full) => {
                    self.seen.note(Sight::Nack);
                    let key = self.ledger.messages[number].key;
                    if self.broker.routes[key].queues & !full != 0 {
                        self.seen.note(Sight::NackedInPart);
                    }
                }
                Reading::NoQueue => self.seen.note(Sight::Return),
                Reading::NoExchange | Reading::Forbidden => self.seen.note(Sight::ChannelError),
                Reading::Taken => {}
            }
        }
    }

    /// The broker reads late what is left of a connection that was cut.
    pub(crate) fn read_late(&mut self, count: usize) {
        if self.late.is_empty() {
            return;
        }
        let at = self.chance.below(self.late.len());
        let connection = self.late[at];
        self.read(connection, count);
        if self.broker.on_the_wire(connection) == 0 {
            self.late.swap_remove(at);
        }
    }

    /// A caller is told what became of a message.
    pub(crate) fn on_outcome(&mut self, number: usize, outcome: Outcome) {
        let (is_answered, has_missed) = self.ledger.was_answered_and_missed(number);
        self.seen.note(match outcome {
            Outcome::Confirmed => Sight::Confirmed,
            Outcome::Unroutable => Sight::Unroutable,
            Outcome::Refused => Sight::Refused,
            Outcome::Unknown { tries: 0 } => Sight::NeverSent,
            Outcome::Unknown { .. } => Sight::Unknown,
        });
        match outcome {
            Outcome::Unknown { .. } if is_answered => self.seen.note(Sight::AcknowledgedButUnknown),
            Outcome::Confirmed if has_missed => self.seen.note(Sight::RefusalUnheard),
            _ => {}
        }
        self.ledger.on_ended(number, outcome, self.now);
    }

    /// The broker has confirmed something.
    pub(crate) fn on_broker_answered(&mut self, Answered { multiple, is_out_of_order }: Answered) {
        if multiple {
            self.seen.note(Sight::AnswerMultiple);
        }
        if is_out_of_order {
            self.seen.note(Sight::AnswerOutOfOrder);
        }
    }

    /// The client has lost this connection; the broker may still read a part of what it wrote.
    pub(crate) fn cut(&mut self, connection: usize, arrived: usize) {
        self.broker.cut(connection, arrived);
        if self.broker.on_the_wire(connection) > 0 {
            self.late.push(connection);
        }
    }
}

/// The ids that messages can have.
pub(crate) fn id(name: usize) -> MessageId {
    static IDS: LazyLock<Vec<MessageId>> =
        LazyLock::new(|| (0..Numbers::MOST).map(|n| MessageId::new(format!("id-{n}")).unwrap()).collect());
    IDS[name].clone()
}
