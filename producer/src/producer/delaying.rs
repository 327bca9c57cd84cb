//! Sending what is to arrive later.

use std::time::Duration;

use correio_message::Message;

use super::{Producer, refused};
use crate::{
    delay::Delayed,
    error::{KeyConflict, SendError, SendFailure},
    outcome::Outcome,
    receipt::Receipt,
    submission::Cargo,
    telemetry::Publishing,
};

impl Producer {
    /// Sends one message that is to come to its queue after a delay, and waits for the broker's answer.
    ///
    /// It waits in the broker, in a delay queue of its work queue or mailbox: [`Outcome::Confirmed`] means that it is there, as
    /// safe as on the queue itself. It comes never early, and then as any other message does: as its first attempt, under its id and
    /// with its route. Retries that wait in the same queue may hold it up by at most a fifth of the delay (before RabbitMQ 4.3 those of
    /// a high priority for longer). One that is sent twice waits twice, and is handled once.
    ///
    /// A queue has the delays that it was made with: those of its retries (1, 2, 4, 8 and 16 s unless said otherwise), and what
    /// `broker apply --queue orders --delays 30s,5m` adds. Another delay is [`Outcome::Unroutable`], with a reason that
    /// names those and that command.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the message never left this process. It carries the message back. With [`SendFailure::NotDelayable`]:
    /// for a topic, a broadcast or an exchange of one's own there is no delay queue, nor is there for a message with a lifetime. With
    /// [`SendFailure::KeyWith`]: what waits is overtaken.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe, as [`send`](Self::send) is not.
    pub async fn send_after(&self, message: Message, delay: Duration) -> Result<Outcome, SendError> {
        self.submit_after(message, delay).await?.await
    }

    /// Hands one message in that is to come to its queue after a delay, as [`send_after`](Self::send_after) does, and returns at
    /// once when there is room.
    ///
    /// # Errors
    ///
    /// As [`send_after`](Self::send_after).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe until it returns: a dropped call has handed in nothing.
    pub async fn submit_after(&self, mut message: Message, delay: Duration) -> Result<Receipt, SendError> {
        let id = self.complete(&mut message);
        let queue = match (&message.key, Delayed::queue_for(&message, delay)) {
            (Some(_), _) => Err(SendFailure::KeyWith { what: KeyConflict::Delay }),
            (None, Err(why)) => Err(SendFailure::NotDelayable(why)),
            (None, Ok(queue)) => self.fits(&message).map(|()| queue),
        };
        let queue = match queue {
            Ok(queue) => queue,
            Err(cause) => return Err(SendError { message: Box::new(message), cause }),
        };
        let span = Publishing::of_message("publish", &id, &mut message);
        let lane = self.lane(&id, None);
        let cargo = Cargo::Delayed(Box::new(Delayed::new(message, queue, delay)));
        self.accept(lane, id, cargo, self.patience(), span).await.map(Receipt).map_err(refused)
    }
}
