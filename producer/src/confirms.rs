//! The publishes that wait for their confirms, in the order in which they were published.
//!
//! Only the oldest is waited for: what the client library says of the others is taken when their turn comes. So a publish whose
//! frames were written, and one that is confirmed out of turn, wake nobody. That confirms are reported in this order and not in
//! that in which they completed is one of the ways in which the confirm window pairs returns rightly.

use std::{
    collections::VecDeque,
    future::poll_fn,
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
    under_way: VecDeque<ReusableBoxFuture<'c, Answered>>,
    /// Those that are over, for their memory.
    spare: Vec<ReusableBoxFuture<'c, Answered>>,
}

impl<'c> Confirms<'c> {
    pub(crate) fn new(channel: &'c Channel) -> Self {
        Self { channel, under_way: VecDeque::new(), spare: Vec::new() }
    }

    /// Puts a message on the wire behind those before it. What is said of it at once, if anything: that the channel is gone.
    pub(crate) fn publish(&mut self, publish: Publish, frame: Frame) -> Option<Answered> {
        let sending = send_frame(self.channel, publish, frame);
        let mut sending = match self.spare.pop() {
            Some(mut spare) => {
                spare.set(sending);
                spare
            }
            None => ReusableBoxFuture::new(sending),
        };
        // The first poll queues the frames, so polling here keeps the order on the wire.
        match sending.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answered) => Some(answered),
            Poll::Pending => {
                self.under_way.push_back(sending);
                None
            }
        }
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
        let answered = ready!(oldest.poll(context));
        self.spare.extend(self.under_way.pop_front());
        Poll::Ready(answered)
    }

    /// What was said of any of them already, when no more of them will be waited for.
    pub(crate) fn all_now(&mut self) -> Vec<Answered> {
        let mut context = Context::from_waker(Waker::noop());
        let said = self.under_way.drain(..).filter_map(|mut sending| match sending.poll(&mut context) {
            Poll::Ready(answered) => Some(answered),
            Poll::Pending => None,
        });
        said.collect()
    }
}
