//! The client library's part, as lapin does it: `multiple` completes in no order, and a return is handed over with
//! whichever confirm completes next.

use std::collections::VecDeque;

use correio_guarantees::Answer;

use crate::{broker::Frame, chance::Chance};

/// The channel that is served.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) connection: usize,
    /// Published and not confirmed, in order.
    unconfirmed: Vec<usize>,
    /// Returned messages that no confirm has carried yet.
    returns: VecDeque<usize>,
    pub(crate) completed: VecDeque<Completed>,
    /// The broker has closed the channel for one message's fault: there was no exchange for it, or it was not allowed.
    pub(crate) closed: Option<bool>,
}

/// A confirm that has completed, and the return that came with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completed {
    pub(crate) sending: usize,
    pub(crate) answer: Answer,
    pub(crate) returned: Option<usize>,
}

impl Client {
    pub(crate) fn new(connection: usize) -> Self {
        Self { connection, unconfirmed: Vec::new(), returns: VecDeque::new(), completed: VecDeque::new(), closed: None }
    }

    pub(crate) fn on_published(&mut self, sending: usize) {
        self.unconfirmed.push(sending);
    }

    pub(crate) fn receive(&mut self, frame: Frame, chance: &mut Chance) {
        match frame {
            Frame::Return { number } => self.returns.push_back(number),
            Frame::Confirm { sending, multiple: false, answer } => {
                self.unconfirmed.retain(|open| *open != sending);
                self.complete(sending, answer);
            }
            Frame::Confirm { sending, multiple: true, answer } => {
                let mut up_to = self.unconfirmed.partition_point(|open| *open <= sending);
                while up_to > 0 {
                    let next = self.unconfirmed.remove(chance.below(up_to));
                    self.complete(next, answer);
                    up_to -= 1;
                }
            }
            Frame::Close { missing } => self.closed = Some(missing),
        }
    }

    /// Where the oldest stands, if it has completed. Behind the end of a channel nothing is waited for.
    pub(crate) fn oldest(&self) -> Option<usize> {
        let (at, oldest) = self.completed.iter().enumerate().min_by_key(|(_, completed)| completed.sending)?;
        let is_next = self.unconfirmed.iter().all(|open| *open > oldest.sending);
        (is_next || self.closed.is_some()).then_some(at)
    }

    fn complete(&mut self, sending: usize, answer: Answer) {
        let returned = self.returns.pop_front();
        self.completed.push_back(Completed { sending, answer, returned });
    }
}
