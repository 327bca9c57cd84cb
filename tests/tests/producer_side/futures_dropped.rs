//! What every future of a producer promises when it is dropped, at each of its await points: it is polled once, twice and so on until
//! it is done, with the broker answering between, and dropped there.

use std::{
    collections::BTreeSet,
    future::{poll_fn, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use correio_consumer::{Message as Incoming, Reply};
use correio_lab::{
    broker::{Login, Node, QueueKind, for_each},
    faults::{Ending, Proxy},
};
use correio_producer::{
    Address, Counts, Destination, Health, Key, Message, MessageId, Outcome, Producer, ProducerSettings, Receipt, Route,
    SendFailure, ShortText, fresh_id,
};
use correio_tests::{
    consuming::{Running, consumer, shared},
    queues::{by_id, exchange_with, fresh, take_all},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::Notify,
    task::unconstrained,
    time::{Instant, sleep, timeout},
};

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// More await points than any of them has.
const MANY: usize = 500;

/// Where a future is dropped: after so many polls, at once or when it would be polled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    polls: usize,
    woken: bool,
}

impl Place {
    /// One place after another.
    fn all() -> impl Iterator<Item = Self> + use<> {
        let first = Self { polls: 0, woken: false };
        let later = (1..MANY).flat_map(|polls| [false, true].map(|woken| Self { polls, woken }));
        std::iter::once(first).chain(later)
    }

    /// Polls this future and drops it there; what it came to, if it was done before. `meanwhile` happens when it waits for the first
    /// time and is not dropped at once.
    async fn out<T>(self, future: impl Future<Output = T>, meanwhile: impl FnOnce()) -> Option<T> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        // Else it waits now and then for no other reason than to let others run.
        let mut future = Box::pin(unconstrained(future));
        let mut meanwhile = Some(meanwhile);
        for poll in 1..=self.polls {
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(done);
            }
            if poll == self.polls && !self.woken {
                return None;
            }
            if let Some(meanwhile) = meanwhile.take() {
                meanwhile();
            }
            timeout(PATIENCE, woken.0.notified()).await.expect("something that it waits for");
        }
        None
    }
}

#[derive(Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// A producer with little room, behind a proxy that can keep it waiting.
struct Narrow {
    proxy: Proxy,
    producer: Producer,
}

impl Narrow {
    async fn connect(node: &Node, manner: impl FnOnce(ProducerSettings) -> ProducerSettings) -> Self {
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let address = Address::parse(&node.amqp_url_through(Login::Lab, proxy.address())).unwrap();
        let settings =
            ProducerSettings::new(address, "tests").unwrap().confirm_deadline(PATIENCE).room_deadline(PATIENCE);
        let producer = Producer::connect(manner(settings)).await.unwrap();
        producer.health().until(Health::is_good).await.unwrap();
        Self { proxy, producer }
    }

    /// Nothing is answered from here on, and there is no room left. The receipts of what took it.
    fn fill(&self, to: &Destination) -> Vec<Receipt> {
        self.proxy.stall(true);
        let mut receipts = Vec::new();
        loop {
            match self.producer.try_submit(Message::new(to.clone(), vec![b'x'; 1_000])) {
                Ok(receipt) => receipts.push(receipt),
                Err(full) => {
                    assert_eq!(full.cause, SendFailure::Full);
                    return receipts;
                }
            }
        }
    }

    /// Everything is answered again, and everything that was taken comes to its end.
    async fn drain(&self, receipts: Vec<Receipt>) -> u64 {
        self.proxy.stall(false);
        let count = receipts.len() as u64;
        for receipt in receipts {
            assert!(timeout(PATIENCE, receipt).await.expect("in time").expect("it left").is_confirmed());
        }
        self.settled().await;
        count
    }

    /// What was accepted has ended.
    async fn settled(&self) -> Counts {
        let until = Instant::now() + PATIENCE;
        loop {
            let counts = self.producer.counts();
            let ended = counts.confirmed + counts.unroutable + counts.refused + counts.unknown + counts.not_published;
            if ended == counts.accepted {
                return counts;
            }
            assert!(Instant::now() < until, "something never ends: {counts:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// No connection is left, although nobody waits for that.
async fn until_closed(proxy: &Proxy) {
    let until = Instant::now() + PATIENCE;
    while proxy.open() > 0 {
        assert!(Instant::now() < until, "{} connections are left", proxy.open());
        sleep(Duration::from_millis(5)).await;
    }
}

fn to(exchange: &str, queue: &str) -> Destination {
    let (exchange, routing_key) = (ShortText::new(exchange).unwrap(), ShortText::new(queue).unwrap());
    Destination::Route(Route { exchange, routing_key })
}

async fn classic(node: &Node) -> String {
    let queue = fresh("q");
    node.declare_queue(&queue, QueueKind::Classic).await.unwrap();
    queue
}

/// A call that hands one message in.
type Call = for<'a> fn(&'a Producer, Message) -> BoxFuture<'a, Later>;

/// What a call returns: it tells later whether the message was confirmed.
struct Later(BoxFuture<'static, bool>);

impl Later {
    fn when(answer: impl Future<Output = bool> + Send + 'static) -> Self {
        Self(answer.boxed())
    }
}

/// The calls that have handed in nothing when they are dropped.
const HAND_IN: [(&str, Call); 3] = [
    ("submit", |producer, message| {
        async move {
            let receipt = producer.submit(message).await.expect("room in time");
            Later::when(async move { receipt.await.expect("it left").is_confirmed() })
        }
        .boxed()
    }),
    ("submit_after", |producer, message| {
        async move {
            let receipt = producer.submit_after(message, Duration::from_millis(200)).await.expect("room in time");
            Later::when(async move { receipt.await.expect("it left").is_confirmed() })
        }
        .boxed()
    }),
    ("forward", |producer, message| {
        async move {
            let copy = message.encode(correio_message::Durability::Persistent);
            let receipt = producer.forward(copy).await.expect("room in time");
            Later::when(async move { receipt.await.expect("it left").is_confirmed() })
        }
        .boxed()
    }),
];

/// Those that have handed in all of it or nothing.
const SEND: [(&str, Call); 2] = [
    ("send", |producer, message| {
        async move {
            let outcome = producer.send(message).await.expect("it left");
            Later::when(ready(outcome.is_confirmed()))
        }
        .boxed()
    }),
    ("send_after", |producer, message| {
        async move {
            let outcome = producer.send_after(message, Duration::from_millis(200)).await.expect("it left");
            Later::when(ready(outcome.is_confirmed()))
        }
        .boxed()
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_has_handed_in_nothing_a_dropped_send_all_or_nothing_and_both_give_their_room_back() {
    for_each(async |node| {
        let (queue, filler) = (shared(node, "dropped").await, classic(node).await);
        let narrow = Narrow::connect(node, |settings| settings.buffer_bytes(30_000)).await;
        let (mut wanted, mut possible, mut room) = (BTreeSet::new(), BTreeSet::new(), None);
        let calls = HAND_IN.map(|call| (call, true)).into_iter().chain(SEND.map(|call| (call, false)));
        for ((what, call), promises_nothing) in calls {
            // With room, and without.
            for is_full in [false, true] {
                for place in Place::all() {
                    let before = narrow.producer.counts().accepted;
                    let receipts = if is_full { narrow.fill(&to("", &filler)) } else { Vec::new() };
                    let id = fresh_id();
                    let message =
                        Message::new(Destination::queue(&queue).unwrap(), vec![b'x'; 1_000]).with_id(id.clone());
                    let called = place.out(call(&narrow.producer, message), || narrow.proxy.stall(false)).await;
                    let ended = called.is_some();
                    if let Some(Later(answer)) = called {
                        narrow.proxy.stall(false);
                        assert!(timeout(PATIENCE, answer).await.expect("an answer"), "{what} {place:?}");
                        wanted.insert(id.to_string());
                    } else if !promises_nothing {
                        possible.insert(id.to_string());
                    }
                    let filled = narrow.drain(receipts).await;
                    let counts = narrow.settled().await;
                    let handed_in = counts.accepted - before - filled;
                    let most = u64::from(ended || !promises_nothing);
                    assert!((u64::from(ended)..=most).contains(&handed_in), "{what} {place:?}: {handed_in} of one");
                    if is_full {
                        assert_eq!(*room.get_or_insert(filled), filled, "{what} {place:?}: its room is not given back");
                    }
                    if ended {
                        assert!(place.polls > usize::from(is_full), "{what} never waited");
                        break;
                    }
                }
            }
        }
        let counts = narrow.producer.counts();
        assert_eq!((counts.confirmed, counts.not_published), (counts.accepted, 0), "{counts:?}");
        let on_queue = counts.accepted - u64::try_from(take_all(node, &filler).await.len()).unwrap();
        narrow.producer.close(CLOSE).await;
        narrow.proxy.stop().await;
        // Those with a delay come by themselves.
        let until = Instant::now() + PATIENCE;
        while node.queue_depth(&queue).await.unwrap() < on_queue {
            assert!(Instant::now() < until, "{on_queue} are to come");
            sleep(Duration::from_millis(20)).await;
        }
        let there = by_id(&take_all(node, &queue).await);
        assert!(there.values().all(|copies| *copies == 1), "{there:?}");
        let there: BTreeSet<_> = there.into_keys().collect();
        let strange: Vec<_> = there.iter().filter(|id| !wanted.contains(*id) && !possible.contains(*id)).collect();
        assert!(wanted.is_subset(&there) && strange.is_empty(), "never handed in, and on the queue: {strange:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_fire_has_handed_in_nothing_and_gives_its_room_back() {
    for_each(async |node| {
        let queue = classic(node).await;
        let narrow = Narrow::connect(node, |settings| settings.buffer_bytes(30_000)).await;
        let message = |id: &MessageId| Message::new(to("", &queue), vec![b'x'; 1_000]).with_id(id.clone());
        let once = Place { polls: 1, woken: false };
        let mut wanted = BTreeSet::new();
        for place in Place::all() {
            // Nobody to connect to: what is fired stays in the buffer.
            narrow.proxy.refuse_new(true).await;
            narrow.proxy.cut(Ending::Reset).await;
            narrow.proxy.stall(true);
            let mut taken_without_pause = 0;
            while taken_without_pause < 2_000 {
                let id = fresh_id();
                match once.out(narrow.producer.fire(message(&id)), || ()).await {
                    Some(fired) => assert!(fired.is_ok(), "handed in"),
                    None => break,
                }
                wanted.insert(id.to_string());
                taken_without_pause += 1;
            }
            assert!(taken_without_pause < 2_000, "there is room for everything");
            let id = fresh_id();
            let ended = place.out(narrow.producer.fire(message(&id)), || narrow.proxy.pass()).await;
            narrow.proxy.refuse_new(false).await;
            narrow.proxy.pass();
            if ended.is_some() {
                wanted.insert(id.to_string());
            }
            let last = fresh_id();
            timeout(PATIENCE, narrow.producer.fire(message(&last))).await.expect("room in time").expect("handed in");
            wanted.insert(last.to_string());
            let until = Instant::now() + PATIENCE;
            loop {
                let counts = narrow.producer.counts();
                if counts.fired + counts.fire_dropped == wanted.len() as u64 {
                    break;
                }
                assert!(Instant::now() < until, "{} were handed in: {counts:?}", wanted.len());
                sleep(Duration::from_millis(2)).await;
            }
            if ended.is_some() {
                break;
            }
        }
        narrow.producer.close(CLOSE).await;
        narrow.proxy.stop().await;
        for id in by_id(&take_all(node, &queue).await).into_keys() {
            assert!(wanted.contains(&id), "never handed in, and on the queue: {id}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_decision_has_decided_nothing() {
    for_each(async |node| {
        let (exchange, queue) = (fresh("x"), classic(node).await);
        exchange_with(node, &exchange, &[]).await;
        // The places run out before the bytes do.
        let narrow = Narrow::connect(node, |settings| settings.window(4)).await;
        for resends in [true, false] {
            let (mut places, mut never_waited) = (Place::all(), 0);
            while let Some(place) = places.next() {
                let key = Key::new(fresh("k")).unwrap();
                let lost =
                    narrow.producer.submit(Message::new(to(&exchange, &queue), "x").with_key(key)).await.unwrap();
                let id = lost.id().clone();
                assert!(matches!(lost.await.unwrap(), Outcome::Unroutable { .. }));
                let receipts = narrow.fill(&to("", &queue));
                let deciding = async {
                    if resends {
                        narrow.producer.resend(&id).await.map(Some)
                    } else {
                        narrow.producer.void(&id).await.map(|()| None)
                    }
                };
                let decided = place.out(deciding, || narrow.proxy.stall(false)).await;
                assert_eq!(narrow.producer.holes().contains(&id), decided.is_none(), "{resends} {place:?}");
                narrow.drain(receipts).await;
                let Some(decided) = decided else {
                    // Nothing was decided, so that it can be.
                    timeout(PATIENCE, narrow.producer.void(&id)).await.expect("in time").expect("a hole");
                    continue;
                };
                if let Some(receipt) = decided.expect("a hole") {
                    let outcome = timeout(PATIENCE, receipt).await.expect("in time").expect("it left");
                    assert!(matches!(outcome, Outcome::Unroutable { .. }), "{outcome}");
                    timeout(PATIENCE, narrow.producer.void(&id)).await.expect("in time").expect("a hole again");
                }
                if place.polls > 1 {
                    break;
                }
                // The channel's task took one more after there was no place: it had not to wait. Once more.
                never_waited += 1;
                assert!(never_waited < 20, "it never waits");
                places = Place::all();
            }
        }
        narrow.producer.close(CLOSE).await;
        narrow.proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_is_polled_and_left_goes_on_waiting_and_a_dropped_one_loses_only_the_outcome() {
    for_each(async |node| {
        let queue = classic(node).await;
        let narrow = Narrow::connect(node, |settings| settings).await;
        for number in 1.. {
            let mut receipt = narrow.producer.submit(Message::new(to("", &queue), "x")).await.unwrap();
            let place = Place { polls: usize::try_from(number).unwrap() - 1, woken: number % 2 == 0 };
            let done = place.out(poll_fn(|context| Pin::new(&mut receipt).poll(context)), || ()).await;
            if done.is_none() && number % 3 != 0 {
                assert!(timeout(PATIENCE, receipt).await.expect("in time").expect("it left").is_confirmed());
            }
            assert_eq!(narrow.settled().await.confirmed, number);
            if done.is_some() && number > 6 {
                break;
            }
        }
        let confirmed = narrow.producer.counts().confirmed;
        assert_eq!(take_all(node, &queue).await.len() as u64, confirmed);
        narrow.producer.close(CLOSE).await;
        narrow.proxy.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_request_leaves_nothing_behind_and_the_next_one_has_its_place_and_its_own_reply() {
    for_each(async |node| {
        let queue = shared(node, "asked").await;
        let echo =
            |question: Incoming| async move { Ok::<_, String>(Reply::new([b"to ", &question.payload[..]].concat())) };
        let service = Running::start(consumer(node, &queue).on_any(echo));
        let ask = |text: String| Message::new(Destination::queue(&queue).unwrap(), text);
        let (mut dropped, mut places) = (0, 0);
        // The first request of a producer makes its reply queue, the next ones find it.
        for is_first in [true, false] {
            let mut narrow = None;
            for place in Place::all() {
                if is_first || narrow.is_none() {
                    narrow = Some(Narrow::connect(node, |settings| settings.requests_at_once(1)).await);
                }
                let Some(Narrow { proxy, producer }) = &narrow else { unreachable!() };
                if !is_first && places == 0 {
                    let first = producer.request(ask("first".into()), PATIENCE).await.expect("a reply");
                    assert_eq!(&first.payload[..], b"to first");
                }
                places += 1;
                let text = format!("{is_first} {place:?}");
                let reply = place.out(producer.request(ask(text.clone()), PATIENCE), || ()).await;
                if let Some(reply) = reply {
                    assert_eq!(reply.expect("a reply").payload, format!("to {text}"));
                    break;
                }
                dropped += 1;
                let next = producer.request(ask(format!("after {text}")), PATIENCE);
                let next = timeout(PATIENCE, next).await.expect("in time").expect("a place and a reply");
                assert_eq!(next.payload, format!("to after {text}"));
                if is_first {
                    producer.close(CLOSE).await;
                    until_closed(proxy).await;
                }
            }
            let Some(narrow) = narrow else { unreachable!() };
            narrow.producer.close(CLOSE).await;
            places = 0;
        }
        assert!(dropped > 4, "{dropped} await points");
        service.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_close_leaves_a_producer_that_takes_nothing_new_and_ends_by_itself() {
    for_each(async |node| {
        let queue = classic(node).await;
        // With a broker that answers, and with one that does not.
        for is_silent in [false, true] {
            for place in Place::all() {
                let deadline = if is_silent { Duration::from_millis(300) } else { PATIENCE };
                let narrow = Narrow::connect(node, |settings| settings.channels(2).confirm_deadline(deadline)).await;
                narrow.proxy.stall(is_silent);
                let message = || Message::new(to("", &queue), "x");
                let receipts: Vec<_> = (0..50).map(|_| narrow.producer.try_submit(message()).unwrap()).collect();
                let closed = place.out(narrow.producer.close(CLOSE), || ()).await;
                if place.polls == 0 {
                    // Nobody has begun.
                    assert!(narrow.producer.try_submit(message()).is_ok());
                } else {
                    let refused = narrow.producer.submit(message()).await.expect_err("it is closing");
                    assert_eq!(refused.cause, SendFailure::Closed);
                }
                for receipt in receipts {
                    let outcome = timeout(PATIENCE, receipt).await.expect("in time");
                    assert!(is_silent || outcome.expect("it left").is_confirmed(), "{place:?}");
                }
                // Once more does no harm.
                if place.polls > 1 {
                    timeout(PATIENCE, narrow.producer.close(CLOSE)).await.expect("in time");
                }
                let Narrow { proxy, producer } = narrow;
                drop(producer);
                // A stalled proxy does not notice that anybody has gone.
                proxy.stall(false);
                until_closed(&proxy).await;
                proxy.stop().await;
                if closed.is_some() {
                    break;
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connect_leaves_no_connection() {
    for_each(async |node| {
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let address = Address::parse(&node.amqp_url_through(Login::Lab, proxy.address())).unwrap();
        let settings = ProducerSettings::new(address, "tests").unwrap().channels(2);
        for place in Place::all() {
            let connected = place.out(Producer::connect(settings.clone()), || ()).await;
            let is_done = connected.is_some();
            if let Some(producer) = connected {
                producer.unwrap().close(CLOSE).await;
            }
            until_closed(&proxy).await;
            if is_done {
                break;
            }
        }
        proxy.stop().await;
    })
    .await;
}
