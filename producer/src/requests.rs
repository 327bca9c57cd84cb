//! The requests in flight: who waits for which reply.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use correio_guarantees::{Matched, PendingReplies, Requested};
use correio_message::{DecodeError, Envelope, Message, MessageId};
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    counts::{Counters, one},
    request_error::RequestError,
};

/// What the callers of `request` and the task that owns the reply queue share.
#[derive(Debug)]
pub(crate) struct Requests {
    places: Semaphore,
    waiting: Mutex<Waiting>,
    /// Something is due before what was due first until now.
    earlier: Notify,
    idle: Notify,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Waiting {
    pending: PendingReplies,
    callers: BTreeMap<MessageId, Caller>,
    begun: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Caller {
    /// Tells two requests of one id apart, of which the first has ended.
    number: u64,
    tell: oneshot::Sender<Ended>,
}

/// How the waiting for a reply ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Replied(Box<Message>),
    Unreadable(DecodeError),
    DeadlinePassed,
    Closed,
}

/// A request that waits for its reply. Dropped, it does not any more.
#[derive(Debug)]
pub(crate) struct InFlight<'r> {
    requests: &'r Requests,
    id: MessageId,
    number: u64,
}

impl Requests {
    pub(crate) fn new(at_once: usize, counters: Arc<Counters>) -> Self {
        Self {
            places: Semaphore::new(at_once),
            waiting: Mutex::default(),
            earlier: Notify::new(),
            idle: Notify::new(),
            counters,
        }
    }

    /// A place among those in flight, held until the request ends.
    pub(crate) async fn place(&self) -> Result<SemaphorePermit<'_>, RequestError> {
        self.places.acquire().await.map_err(|_| RequestError::Closed)
    }

    /// Waits for the reply to this id from now on.
    pub(crate) fn begin(
        &self,
        id: &MessageId,
        deadline: Instant,
    ) -> Result<(InFlight<'_>, oneshot::Receiver<Ended>), RequestError> {
        let (tell, ended) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(RequestError::Closed);
        }
        match waiting.pending.on_requested(id.clone(), deadline.into_std()) {
            Requested::Pending => {}
            Requested::SameIdPending => return Err(RequestError::SameIdPending { id: id.clone() }),
        }
        waiting.begun += 1;
        let number = waiting.begun;
        waiting.callers.insert(id.clone(), Caller { number, tell });
        let is_first_due = waiting.pending.next_deadline() == Some(deadline.into_std());
        drop(waiting);
        one(&self.counters.requests);
        if is_first_due {
            self.earlier.notify_one();
        }
        Ok((InFlight { requests: self, id: id.clone(), number }, ended))
    }

    /// A reply came.
    pub(crate) fn on_reply(&self, reply: &Envelope) {
        let named = reply.properties.correlation_id.as_ref().and_then(|text| MessageId::new(text).ok());
        let mut waiting = self.lock();
        let caller = match waiting.pending.on_reply(named.as_ref(), Instant::now().into_std()) {
            Matched::Matched => named.as_ref().and_then(|id| waiting.callers.remove(id)),
            Matched::Late => {
                drop(waiting);
                one(&self.counters.late_replies);
                tracing::debug!(correlation = ?named, "a reply that nobody waits for");
                return;
            }
        };
        let is_idle = waiting.pending.is_empty();
        // Reading it takes longer than the others should wait.
        drop(waiting);
        one(&self.counters.replies);
        if let Some(caller) = caller {
            caller.tell(match reply.decode() {
                Ok(decoded) => Ended::Replied(Box::new(decoded.message)),
                Err(error) => Ended::Unreadable(error),
            });
        }
        self.on_fewer(is_idle);
    }

    /// Ends what is past its deadline, whenever that is. Never ends itself.
    pub(crate) async fn expire_in_time(&self) {
        loop {
            let next = self.lock().pending.next_deadline().map(Instant::from_std);
            tokio::select! {
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = self.earlier.notified() => continue,
            }
            let mut waiting = self.lock();
            let expired = waiting.pending.on_deadline(Instant::now().into_std());
            let callers: Vec<_> = expired.iter().filter_map(|id| waiting.callers.remove(id)).collect();
            let is_idle = waiting.pending.is_empty();
            drop(waiting);
            callers.into_iter().for_each(|caller| caller.tell(Ended::DeadlinePassed));
            self.on_fewer(is_idle);
        }
    }

    /// Nobody new is let in; those in flight go on.
    pub(crate) fn close(&self) {
        self.places.close();
        self.lock().is_closed = true;
    }

    /// Waits until none is in flight. For one waiter.
    pub(crate) async fn idle(&self) {
        while !self.lock().pending.is_empty() {
            self.idle.notified().await;
        }
    }

    /// Those in flight get no reply any more.
    pub(crate) fn end_all(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        let callers = std::mem::take(&mut waiting.callers);
        callers.keys().for_each(|id| waiting.pending.on_abandoned(id));
        drop(waiting);
        callers.into_values().for_each(|caller| caller.tell(Ended::Closed));
        self.idle.notify_one();
    }

    fn on_fewer(&self, is_idle: bool) {
        if is_idle {
            self.idle.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    fn tell(self, ended: Ended) {
        // One that is just being dropped does not want to know.
        let _ = self.tell.send(ended);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut waiting = self.requests.lock();
        // It may have ended, and another request may wait under its id by now.
        if waiting.callers.get(&self.id).is_some_and(|caller| caller.number == self.number) {
            waiting.callers.remove(&self.id);
            waiting.pending.on_abandoned(&self.id);
            let is_idle = waiting.pending.is_empty();
            drop(waiting);
            self.requests.on_fewer(is_idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use correio_message::{Destination, Durability, ShortText};
    use tokio::time::timeout;

    use super::*;

    fn requests() -> Requests {
        Requests::new(10, Arc::default())
    }

    fn id(text: &str) -> MessageId {
        MessageId::new(text).unwrap()
    }

    fn reply_to(id: &str) -> Envelope {
        let mut message = Message::new(Destination::queue("r").unwrap(), id.to_owned());
        message.correlation_id = ShortText::new(id).ok();
        message.encode(Durability::Persistent)
    }

    fn in_a(second: u64) -> Instant {
        Instant::now() + Duration::from_secs(second)
    }

    #[tokio::test]
    async fn each_gets_its_own_reply_whatever_the_order_and_the_rest_is_late() {
        let requests = requests();
        let (_a, a) = requests.begin(&id("a"), in_a(9)).unwrap();
        let (_b, b) = requests.begin(&id("b"), in_a(9)).unwrap();
        for reply in ["b", "c", "", "a", "a"] {
            requests.on_reply(&reply_to(reply));
        }
        for (ended, payload) in [(a, "a"), (b, "b")] {
            let Ended::Replied(reply) = ended.await.unwrap() else { panic!("no reply") };
            assert_eq!(reply.payload, payload);
        }
        let counts = requests.counters.read();
        assert_eq!((counts.requests, counts.replies, counts.late_replies), (2, 2, 3));
        timeout(Duration::from_secs(1), requests.idle()).await.expect("none is in flight");
    }

    #[tokio::test]
    async fn a_dropped_request_leaves_nothing_and_touches_no_later_one_of_its_id() {
        let requests = requests();
        let (first, _) = requests.begin(&id("a"), in_a(9)).unwrap();
        assert!(matches!(requests.begin(&id("a"), in_a(9)), Err(RequestError::SameIdPending { .. })));
        requests.on_reply(&reply_to("a"));
        let (second, _) = requests.begin(&id("a"), in_a(9)).unwrap();
        drop(first);
        assert_eq!(requests.lock().pending.len(), 1, "that one had ended");
        drop(second);
        let waiting = requests.lock();
        assert!(waiting.pending.is_empty() && waiting.callers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn each_ends_at_its_own_deadline_also_one_that_is_due_before_those_that_came_earlier() {
        let requests = requests();
        let (_a, late) = requests.begin(&id("a"), in_a(60)).unwrap();
        let waiting = async {
            tokio::task::yield_now().await;
            let (_b, soon) = requests.begin(&id("b"), in_a(1)).unwrap();
            let began = Instant::now();
            assert!(matches!(soon.await.unwrap(), Ended::DeadlinePassed));
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            assert!(matches!(late.await.unwrap(), Ended::DeadlinePassed));
        };
        tokio::select! { () = requests.expire_in_time() => {}, () = waiting => {} }
    }

    #[tokio::test]
    async fn closed_it_lets_nobody_in_and_those_in_flight_wait_until_it_gives_up() {
        let requests = requests();
        let (_a, mut ended) = requests.begin(&id("a"), in_a(9)).unwrap();
        requests.close();
        assert!(matches!(requests.begin(&id("b"), in_a(9)), Err(RequestError::Closed)));
        assert!(matches!(requests.place().await, Err(RequestError::Closed)));
        assert!(ended.try_recv().is_err(), "it goes on waiting");
        requests.end_all();
        assert!(matches!(ended.await.unwrap(), Ended::Closed));
    }
}
