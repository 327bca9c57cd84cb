//! The publishes that wait for their confirms, in the order in which they were published.
//!
//! Only the oldest is waited for: what the client library says of the others is taken when their turn comes. So a publish whose
//! frames were written, and one that is confirmed out of turn, wake nobody. The confirm window pairs returns rightly in this order too.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    task::{Context, Poll, Waker, ready},
};

use correio_guarantees::Publish;
use lapin::{Channel, Confirmation};
use tokio_util::sync::ReusableBoxFuture;

use crate::frame::{Frame, send_frame};

/// What the client library said of one publish.
pub(crate) type Answered = (Publish, lapin::Result<Confirmation>);

pub(crate) struct Confirms<'c> {
    channel: &'c Channel,
    under_way: VecDeque<Sending<'c>>,
    /// Those that are over, for their memory.
    spare: Vec<ReusableBoxFuture<'c, Answered>>,
}

enum Sending<'c> {
    UnderWay(ReusableBoxFuture<'c, Answered>),
    /// It was found answered before its turn.
    Said(Box<Answered>),
}

impl<'c> Confirms<'c> {
    pub(crate) fn new(channel: &'c Channel) -> Self {
        Self { channel, under_way: VecDeque::new(), spare: Vec::new() }
    }

    /// Puts a message on the wire behind those before it.
    ///
    /// # Errors
    ///
    /// What is said of it at once: the channel is gone.
    pub(crate) fn publish(&mut self, publish: Publish, frame: Frame) -> lapin::Result<()> {
        let sending = send_frame(self.channel, publish, frame);
        let mut sending = match self.spare.pop() {
            Some(mut spare) => {
                spare.set(sending);
                spare
            }
            None => ReusableBoxFuture::new(sending),
        };
        // The first poll queues the frames, so polling here keeps the order on the wire.
        self.under_way.push_back(match sending.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready((_, Err(error))) => return Err(error),
            Poll::Ready(answered) => Sending::Said(Box::new(answered)),
            Poll::Pending => Sending::UnderWay(sending),
        });
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// What is said of the oldest. Never, while there is none.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Answered {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The same, if it was said already.
    pub(crate) fn now(&mut self) -> Option<Answered> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answered) => Some(answered),
            Poll::Pending => None,
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Answered> {
        let Some(oldest) = self.under_way.front_mut() else { return Poll::Pending };
        if let Sending::UnderWay(oldest) = oldest {
            let answered = ready!(oldest.poll(context));
            if let Some(Sending::UnderWay(over)) = self.under_way.pop_front() {
                self.spare.push(over);
            }
            return Poll::Ready(answered);
        }
        match self.under_way.pop_front() {
            Some(Sending::Said(answered)) => Poll::Ready(*answered),
            _ => Poll::Pending,
        }
    }

    /// What was said already of any of them, out of turn: before something is decided about those that nothing was said of.
    pub(crate) fn all_now(&mut self) -> Vec<Answered> {
        let mut context = Context::from_waker(Waker::noop());
        let mut said = Vec::new();
        for sending in mem::take(&mut self.under_way) {
            match sending {
                Sending::Said(answered) => said.push(*answered),
                Sending::UnderWay(mut sending) => match sending.poll(&mut context) {
                    Poll::Ready(answered) => said.push(answered),
                    Poll::Pending => self.under_way.push_back(Sending::UnderWay(sending)),
                },
            }
        }
        said
    }
}
