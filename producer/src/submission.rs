//! A message on its way from the caller to the channel that publishes it.

use std::{borrow::Cow, sync::Arc, time::Duration};

use correio_message::{Durability, Envelope, Key, Lifetime, Message, MessageId, Route};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};

use crate::{delay::Delayed, error::SendFailure, holes::Decision, outcome::Outcome, receipt::Promise};

/// What waits to be published, and whom to tell.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: MessageId,
    pub(crate) cargo: Cargo,
    pub(crate) bytes: usize,
    pub(crate) taken: Instant,
    /// Its outcome is known by then.
    pub(crate) deadline: Instant,
    /// Past this it is not published any more: it has expired, or is a request whose sender has stopped waiting.
    pub(crate) expires: Option<Instant>,
    pub(crate) reply: Option<Promise>,
    /// Its share of the buffer, given back when this is dropped.
    pub(crate) room: OwnedSemaphorePermit,
}

/// How it ended: what left has an outcome, what did not comes back.
pub(crate) type Answer = Result<Outcome, Box<NeverLeft>>;

#[derive(Debug)]
pub(crate) struct NeverLeft {
    pub(crate) cargo: Cargo,
    pub(crate) cause: SendFailure,
    /// Until its sender has read it, it is held here.
    _room: OwnedSemaphorePermit,
}

impl Submission {
    /// Nobody wants it any more.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Gives it back to its sender, and its room when that has read it.
    pub(crate) fn give_back(self, cause: SendFailure) {
        let Self { cargo, reply, room, .. } = self;
        if let Some(reply) = reply {
            // A dropped receipt: its owner does not want to know.
            let _ = reply.send(Err(Box::new(NeverLeft { cargo, cause, _room: room })));
        }
    }
}

/// What is to be published.
#[derive(Debug)]
pub(crate) enum Cargo {
    /// An application's message: numbered and encoded when its turn comes.
    Message(Box<Message>),
    /// One that arrives later, and has no number: what waits is overtaken.
    Delayed(Box<Delayed>),
    /// A copy that is complete as it is.
    Envelope(Box<Envelope>),
}

impl Cargo {
    /// Its wire form. Numbers have been given by now.
    pub(crate) fn envelope(&self, durability: Durability) -> Cow<'_, Envelope> {
        match self {
            Self::Message(message) => Cow::Owned(message.encode(durability)),
            Self::Delayed(delayed) => Cow::Owned(delayed.encode()),
            Self::Envelope(envelope) => Cow::Borrowed(envelope),
        }
    }

    /// Where it is published to.
    pub(crate) fn route(&self) -> Route {
        match self {
            Self::Message(message) => message.destination.route(),
            Self::Delayed(delayed) => delayed.route(),
            Self::Envelope(envelope) => envelope.route.clone(),
        }
    }

    /// The message that its sender handed in, to be given back.
    pub(crate) fn into_message(self) -> Box<Message> {
        match self {
            Self::Message(message) => message,
            Self::Delayed(delayed) => Box::new(delayed.message),
            Self::Envelope(_) => unreachable!("a message was put in"),
        }
    }

    /// The line of a message that will be numbered.
    pub(crate) fn line(&self) -> Option<(Route, Key)> {
        match self {
            Self::Message(message) => {
                let key = message.key.clone()?;
                Some((message.destination.route(), key))
            }
            Self::Envelope(_) | Self::Delayed(_) => None,
        }
    }

    /// Roughly how many bytes holding it takes, the client library's own copy of the body included.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Message(message) => weight_of(message),
            Self::Delayed(delayed) => weight_of(&delayed.message),
            Self::Envelope(envelope) => 512 + 2 * envelope.body.len() + envelope.properties.weight(),
        }
    }
}

fn weight_of(message: &Message) -> usize {
    512 + 2 * message.payload.len() + message.headers_weight()
}

/// How long what is handed in may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For room in the buffer.
    pub(crate) room: Duration,
    /// For an answer, once it is in.
    pub(crate) answer: Duration,
    /// Past this it need not be published any more.
    pub(crate) expires: Option<Instant>,
}

impl Patience {
    /// The same, and not past the end of the message's lifetime, which begins now, nor past its deadline.
    pub(crate) fn until_end_of(self, message: &Message) -> Self {
        let lifetime = message.lifetime.map(Lifetime::as_duration);
        let until_deadline = message.deadline_us.map(|at| Duration::from_micros(at.saturating_sub(crate::now_us())));
        let Some(left) = lifetime.into_iter().chain(until_deadline).min() else { return self };
        let end = Instant::now() + left;
        Self { room: self.room.min(left), expires: Some(self.expires.map_or(end, |expires| expires.min(end))), ..self }
    }
}

/// Room for bytes, which the lanes of a producer share.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    permits: Arc<Semaphore>,
    bytes: usize,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(bytes)), bytes }
    }

    /// How many bytes are taken.
    #[cfg(feature = "metrics")]
    pub(crate) fn used(&self) -> usize {
        self.bytes.saturating_sub(self.permits.available_permits())
    }
}

/// The caller's end of a bounded buffer, by bytes and by count.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    queue: mpsc::Sender<Entry>,
    room: Room,
}

/// What callers hand in, in their order: a decision about a key counts for what is handed in after it.
#[derive(Debug)]
pub(crate) enum Entry {
    Submission(Submission),
    Decision(Decision),
}

/// Room for the bytes and a place in the queue.
type Entrance<'b> = (OwnedSemaphorePermit, mpsc::Permit<'b, Entry>);

impl Buffer {
    pub(crate) fn new(messages: usize, room: Room) -> (Self, mpsc::Receiver<Entry>) {
        let (queue, receiver) = mpsc::channel(messages);
        (Self { queue, room }, receiver)
    }

    /// Puts the cargo in if there is room now.
    pub(crate) fn put_now(
        &self,
        id: MessageId,
        cargo: Cargo,
        patience: Patience,
        reply: Option<Promise>,
    ) -> Result<(), (Cargo, SendFailure)> {
        let bytes = cargo.weight();
        match self.enter_now(self.share(bytes)) {
            Some(entrance) => {
                Self::send(entrance, id, cargo, bytes, patience, reply);
                Ok(())
            }
            None if self.is_closed() => Err((cargo, SendFailure::Closed)),
            None => Err((cargo, SendFailure::Full)),
        }
    }

    /// Waits for room, in the order of the callers, and puts the cargo in. Given back if there is none in time.
    ///
    /// Cancel safe up to the moment it returns: before, nothing was put in.
    pub(crate) async fn put(
        &self,
        id: MessageId,
        cargo: Cargo,
        patience: Patience,
        reply: Option<Promise>,
    ) -> Result<(), (Cargo, SendFailure)> {
        let wait = patience.room;
        let bytes = cargo.weight();
        let share = self.share(bytes);
        // The usual case takes no timer. A half that succeeds alone is given back before anything is waited for: held while
        // waiting for the other, it could starve those who hold that.
        let entrance = match self.enter_now(share) {
            Some(entrance) => Ok(entrance),
            None => {
                let until = Instant::now() + wait;
                timeout_at(until, self.enter(share)).await.unwrap_or(Err(SendFailure::NoRoom { waited: wait }))
            }
        };
        match entrance {
            Ok(entrance) => {
                Self::send(entrance, id, cargo, bytes, patience, reply);
                Ok(())
            }
            Err(failure) => Err((cargo, failure)),
        }
    }

    fn send(
        (room, place): Entrance<'_>,
        id: MessageId,
        cargo: Cargo,
        bytes: usize,
        patience: Patience,
        reply: Option<Promise>,
    ) {
        let taken = Instant::now();
        let reply = reply.map(|reply| reply.made(taken));
        let (deadline, expires) = (taken + patience.answer, patience.expires);
        place.send(Entry::Submission(Submission { id, cargo, bytes, taken, deadline, expires, reply, room }));
    }

    /// What is larger than the whole buffer takes all of it.
    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.room.bytes)).unwrap_or(u32::MAX)
    }

    /// A place for something that takes no room.
    pub(crate) async fn place(&self) -> Option<mpsc::Permit<'_, Entry>> {
        self.queue.reserve().await.ok()
    }

    fn enter_now(&self, share: u32) -> Option<Entrance<'_>> {
        let room = self.room.permits.clone().try_acquire_many_owned(share).ok()?;
        let place = self.queue.try_reserve().ok()?;
        Some((room, place))
    }

    /// Room first, then a place: places are given back by the channel's task alone, which waits for neither.
    async fn enter(&self, share: u32) -> Result<Entrance<'_>, SendFailure> {
        let room = self.room.permits.clone().acquire_many_owned(share).await.map_err(|_| SendFailure::Closed)?;
        let place = self.queue.reserve().await.map_err(|_| SendFailure::Closed)?;
        Ok((room, place))
    }

    /// No one else is let in; what is in, stays in.
    pub(crate) fn close(&self) {
        self.room.permits.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.room.permits.is_closed() || self.queue.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use correio_message::{Destination, Message, ShortText, Value};

    use super::*;

    fn cargo(bytes: usize) -> Cargo {
        Cargo::Message(Box::new(Message::new(Destination::queue("q").unwrap(), vec![0; bytes])))
    }

    #[test]
    fn the_headers_of_a_message_take_room_too() {
        let mut message = Message::new(Destination::queue("q").unwrap(), "x");
        let without = weight_of(&message);
        message.headers.insert(ShortText::new("note").unwrap(), Value::text("x".repeat(10_000)));
        assert!(weight_of(&message) >= without + 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_with_a_deadline_waits_no_longer_than_that_for_room_and_expires_then() {
        let minute = Duration::from_secs(60);
        let patience = Patience { room: minute, answer: minute, expires: None };
        let mut message = Message::new(Destination::queue("q").unwrap(), "x");
        assert_eq!(patience.until_end_of(&message).expires, None);
        message.deadline_us = Some(crate::now_us() + 10_000_000);
        let shortened = patience.until_end_of(&message);
        assert!(shortened.room <= minute / 6 && shortened.room > minute / 12, "{shortened:?}");
        assert!(shortened.expires.is_some_and(|expires| expires <= Instant::now() + minute / 6));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_wait_for_room_hold_no_place_that_another_waits_for() {
        // Room for one message at a time, and places for two.
        let (buffer, mut taken) = Buffer::new(2, Room::new(cargo(1_000).weight()));
        let second = Duration::from_secs(1);
        let put = |number: u128| {
            let buffer = buffer.clone();
            let id = MessageId::from(uuid::Uuid::from_u128(number));
            let patience = Patience { room: second, answer: second, expires: None };
            tokio::spawn(async move { buffer.put(id, cargo(1_000), patience, None).await.is_ok() })
        };
        // The channel's task has the first and holds its room.
        let first = put(0);
        let mut held = taken.recv().await;
        let callers: Vec<_> = (1..=2).map(put).collect();
        tokio::task::yield_now().await;
        for _ in 0..2 {
            drop(held.take());
            let next = tokio::time::timeout(second / 2, taken.recv()).await;
            held = next.expect("room was given back, and nothing moves");
        }
        assert!(first.await.unwrap());
        for caller in callers {
            assert!(caller.await.unwrap());
        }
    }
}
