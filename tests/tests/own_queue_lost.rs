//! Own queues under faults: nobody there for too long, a deleted queue, a killed broker, cut connections.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use correio_broker_config::{Address, ConnectionSettings, Connections, Presence, Purpose, delete, ensure, renew};
use correio_consumer::{ConsumeError, Context, DeclareError, Deduplication, Message};
use correio_lab::{
    broker::{Login, Node, NodeOptions, for_each, for_each_own},
    faults::{Direction, Ending, Proxy, Which},
};
use correio_message::Destination;
use correio_producer::{Outcome, Producer};
use correio_tests::{
    consuming::{Running, Seen, until, until_depth},
    programs::{Program, Ran},
    queues::{fresh, plain},
    scale,
    subscribers::{
        Whose, confirmed, letter, nobodys, note, nothing_left_in, producer_at, queues_with, send_to, sender, submit,
    },
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// An expiry that a test can wait for, and that a busy machine does not use up between two steps.
const BRIEF: Duration = Duration::from_secs(3);

fn mailbox(name: &str) -> (Whose, Destination) {
    (Whose::Mailbox(name.to_owned()), Destination::mailbox(name).unwrap())
}

fn numbers(tag: &str, count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("{tag} {n:05}")).collect()
}

fn connections(node: &Node) -> Connections {
    let address = Address::parse(&node.amqp_url(Login::Consumer)).unwrap();
    Connections::new(address, ConnectionSettings::new("tests", "", Purpose::Admin))
}

/// Fails what is called so at its first attempts, and notes what is done.
fn fails(seen: &Seen, called: &'static str, attempts: u32) -> impl correio_consumer::Handler<(Message, Context)> {
    let seen = seen.clone();
    move |message: Message, context: Context| {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let fails = text.contains(called) && context.attempt().get() <= attempts;
        if !fails {
            seen.note(&message);
        }
        async move { if fails { Err("not yet") } else { Ok(()) } }
    }
}

// Nobody there for too long

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_keeps_its_mail_for_as_long_as_it_says_and_after_that_the_next_start_says_that_it_begins_empty() {
    for_each(async |node| {
        let tag = fresh("away");
        let (whose, to) = mailbox(&tag);
        let producer = sender(node).await;
        let start = async |seen: &Seen| {
            Running::begin(whose.at(node).expires(6 * SECOND).on_any(fails(seen, "doomed", 9))).await
        };
        let seen = Seen::default();
        let (startup, running) = start(&seen).await;
        assert!(startup.begins_empty);
        send_to(&producer, &to, ["doomed"]).await;
        running.until(|tally| tally.dead == 1).await;
        running.stop().await;
        // Away for less than it may be.
        let mail = numbers(&tag, 20);
        send_to(&producer, &to, &mail).await;
        let left = Instant::now();
        while left.elapsed() < SECOND {
            assert_eq!(node.queue_depth(&whose.queue()).await.unwrap(), 20);
        }
        let (startup, running) = start(&seen).await;
        assert!(!startup.begins_empty);
        until(|| seen.len() == 20, || format!("{}", seen.len())).await;
        running.stop().await;
        assert_eq!(seen.sorted(), mail);
        until_depth(node, &format!("{}.dead", whose.queue()), 1).await;
        // And for longer.
        send_to(&producer, &to, ["too late"]).await;
        let gone = async {
            while node.queue_depth(&whose.queue()).await.is_ok() {
                sleep(SECOND / 50).await;
            }
        };
        assert!(timeout(PATIENCE, gone).await.is_ok(), "it has not expired");
        let outcome = producer.send(letter(&to, "nobody")).await.unwrap();
        assert!(matches!(outcome, Outcome::Unroutable { .. }), "{outcome}");
        let seen = Seen::default();
        let (startup, running) = start(&seen).await;
        assert!(startup.begins_empty);
        assert!(startup.warnings(&whose.queue())[0].contains("begins empty"));
        send_to(&producer, &to, ["new"]).await;
        until(|| seen.len() == 1, || format!("{:?}", seen.all())).await;
        running.stop().await;
        assert_eq!(seen.all(), ["new"]);
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_consumer_is_there_the_queues_around_it_stay_and_without_renewal_they_go() {
    for_each(async |node| {
        let tag = fresh("renewed");
        let (whose, to) = mailbox(&format!("{tag}.mail"));
        let seen = Seen::default();
        let builder = whose.at(node).expires(BRIEF).on_any(fails(&seen, "doomed", 9));
        let (_, running) = Running::begin(builder).await;
        // Broken on purpose: the same queues, and a consumer of the first one that renews nothing.
        let (other, _) = mailbox(&format!("{tag}.other"));
        let (connection, channel) = plain(node).await;
        let connections = connections(node);
        let own = other.own().expiring_after(BRIEF).unwrap();
        assert_eq!(ensure(&connections, &own).await.unwrap(), Presence::MadeNow);
        let _consuming = channel
            .basic_consume(own.name().as_str().into(), "idle".into(), Default::default(), Default::default())
            .await
            .unwrap();
        let producer = sender(node).await;
        send_to(&producer, &to, ["doomed"]).await;
        running.until(|tally| tally.dead == 1).await;
        // The broker looks for expired queues every five seconds.
        let expired = async {
            while node.queue_depth(&format!("{}.dead", other.queue())).await.is_ok() {
                sleep(SECOND / 20).await;
            }
        };
        assert!(timeout(PATIENCE, expired).await.is_ok(), "the queues without renewal have not expired");
        // Its own is there still: somebody consumes from it.
        assert_eq!(node.queue_depth(&other.queue()).await.unwrap(), 0);
        assert_eq!(queues_with(node, &format!("{tag}.mail")).await.len(), 4);
        assert_eq!(node.queue_depth(&format!("{}.dead", whose.queue())).await.unwrap(), 1, "made anew, and empty");
        // A retry and a dead letter find their queues.
        send_to(&producer, &to, ["doomed too", "fine"]).await;
        running.until(|tally| tally.handled == 1 && tally.dead == 2).await;
        assert_eq!(seen.all(), ["fine"]);
        let counts = running.stop().await.counts;
        assert_eq!((counts.retried, counts.unconfirmed_copies, counts.resubscribed), (6, 0, 0));
        connection.close(200, "OK".into()).await.unwrap();
        connections.close().await;
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewing_takes_no_message_out_of_its_place() {
    for_each(async |node| {
        let count = scale::of(1_000, 5);
        let tag = fresh("renewing");
        let (whose, to) = mailbox(&tag);
        let seen = Seen::default();
        let (_, running) = Running::begin(whose.at(node).breaker(None).on_any(fails(&seen, "", 2))).await;
        let (connections, own) = (connections(node), whose.own());
        let producer = sender(node).await;
        let renewing = async {
            loop {
                renew(&connections, &own).await.unwrap();
            }
        };
        let working = async {
            send_to(&producer, &to, numbers(&tag, count)).await;
            running.until(|tally| tally.handled + tally.dead >= count).await;
        };
        tokio::select! {
            () = renewing => {}
            () = working => {}
        }
        let counts = running.stop().await.counts;
        assert_eq!((seen.sorted(), counts.retried, counts.dead), (numbers(&tag, count), 2 * count, 0));
        nothing_left_in(node, &tag).await;
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_started_again_and_again_keeps_its_dead_letters() {
    for_each(async |node| {
        let tag = fresh("restarted");
        let (whose, to) = mailbox(&tag);
        // It never lives until its next renewal is due. The broker looks for expired queues every five seconds.
        let begin =
            async || Running::begin(whose.at(node).expires(BRIEF).on_any(fails(&Seen::default(), "doomed", 9))).await;
        let (_, mut running) = begin().await;
        let producer = sender(node).await;
        send_to(&producer, &to, ["doomed"]).await;
        running.until(|tally| tally.dead == 1).await;
        let began = Instant::now();
        while began.elapsed() < 2 * BRIEF + 5 * SECOND {
            running.stop().await;
            let (startup, next) = begin().await;
            assert!(!startup.begins_empty);
            running = next;
            sleep(BRIEF / 8).await;
        }
        assert_eq!(node.queue_depth(&format!("{}.dead", whose.queue())).await.unwrap(), 1);
        running.stop().await;
        producer.close(CLOSE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_expiry_than_the_queue_was_made_with_is_refused_and_the_argument_named() {
    for_each(async |node| {
        let tag = fresh("otherwise");
        let cases = [mailbox(&tag).0, Whose::Group(format!("{tag}.#"), tag.clone()), Whose::Listener(tag.clone())];
        for whose in cases {
            let (_, running) = Running::begin(whose.at(node).on_any(note(&Seen::default(), &tag))).await;
            running.stop().await;
            let other = whose.at(node).expires(60 * SECOND).on_any(note(&Seen::default(), &tag));
            let refused = Running::start(other).ended().await.expect_err("made otherwise");
            let ConsumeError::Declare(cause) = &refused else { panic!("{refused}") };
            assert!(matches!(&**cause, DeclareError::Differs { .. }), "{refused}");
            assert!(refused.to_string().contains("x-expires"), "{refused}");

            let ran = consume(node, &whose, &["--expires", "60", "--idle", "1"]).await;
            assert_eq!(ran.code, Some(2), "{ran}");
            assert!(ran.stderr.contains("x-expires") && ran.stderr.contains(&whose.queue()), "{ran}");
        }
    })
    .await;
}

async fn consume(node: &Node, whose: &Whose, more: &[&str]) -> Ran {
    Program::new("consumer")
        .args(["run"])
        .args(whose.args())
        .args(more)
        .env("AMQP_URL", node.amqp_url(Login::Consumer))
        .finish(PATIENCE)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_gone_again_before_its_consumer_has_subscribed_is_made_again() {
    for_each(async |node| {
        let tag = fresh("early");
        let (whose, to) = mailbox(&tag);
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        // The queue is made on the first connection; until the second one is up there is no subscription.
        proxy.delay(Which::Number(2), Direction::ClientToBroker, SECOND / 4);
        let url = node.amqp_url_through(Login::Consumer, proxy.address());
        let seen = Seen::default();
        let running = Running::start(whose.consumer(&url).on_any(note(&seen, &tag)));
        until(|| proxy.counts().connections >= 2, || "no second connection".to_owned()).await;
        proxy.stall(true);
        node.delete_queue(&whose.queue()).await.unwrap();
        proxy.pass();
        let producer = sender(node).await;
        let reached = async {
            while seen.is_empty() {
                // Unroutable while there is no queue.
                let _ = producer.send(letter(&to, &numbers(&tag, 1)[0])).await.unwrap();
                sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = timeout(Duration::from_secs(20), reached).await.is_ok();
        assert!(in_time, "it has not subscribed: {:?}", running.tally());
        running.stop().await;
        proxy.stop().await;
        producer.close(CLOSE).await;
    })
    .await;
}

// Gone while its consumer is there

#[tokio::test(flavor = "multi_thread")]
async fn own_queues_that_somebody_deletes_are_made_again_by_their_consumer() {
    for_each(async |node| {
        let tag = fresh("deleted");
        let (ana, to_ana) = mailbox(&tag);
        let events = Whose::Group(format!("{tag}.#"), tag.clone());
        let to_events = Destination::topic(format!("{tag}.x")).unwrap();
        let producer = sender(node).await;
        for (whose, to) in [(ana, to_ana), (events, to_events)] {
            let seen = Seen::default();
            let (_, running) = Running::begin(whose.at(node).on_any(fails(&seen, "retried", 1))).await;
            send_to(&producer, &to, ["first"]).await;
            running.until(|tally| tally.handled == 1).await;
            let connections = connections(node);
            delete(&connections, &whose.own()).await.unwrap();
            connections.close().await;
            running.until(|tally| tally.resubscribed >= 1).await;
            send_to(&producer, &to, ["second", "retried"]).await;
            running.until(|tally| tally.handled == 3).await;
            let counts = running.stop().await.counts;
            assert_eq!((counts.retried, counts.unconfirmed_copies), (1, 0));
            assert_eq!(seen.sorted(), ["first", "retried", "second"]);
        }
        producer.close(CLOSE).await;
    })
    .await;
}

// Each mode under load, through faults

/// A subscription at work, and what its handlers did.
struct Subscriber {
    what: &'static str,
    whose: Option<Whose>,
    running: Running,
    seen: Seen,
}

/// Two groups with overlapping patterns, a mailbox, a listener with and one without a name.
async fn subscribers(url: &str, tag: &str, dedup: fn() -> Deduplication) -> Vec<Subscriber> {
    let all = [
        ("mailbox", Some(Whose::Mailbox(tag.to_owned()))),
        ("some events", Some(Whose::Group(format!("{tag}.*.LAX"), format!("{tag}.some")))),
        ("all events", Some(Whose::Group(format!("{tag}.#"), format!("{tag}.all")))),
        ("listener", Some(Whose::Listener(tag.to_owned()))),
        ("passing by", None),
    ];
    let mut subscribers = Vec::new();
    for (what, whose) in all {
        let builder = match &whose {
            Some(whose) => whose.consumer(url),
            None => nobodys(url).broadcast_while_here(),
        };
        let seen = Seen::default();
        let (see, of): (_, Arc<str>) = (seen.clone(), tag.into());
        // One in twenty fails once, so that retries are under way too.
        let handler = move |message: Message, context: Context| {
            let (see, of) = (see.clone(), Arc::clone(&of));
            async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if !message.payload.starts_with(of.as_bytes()) {
                    return Ok(());
                }
                if message.payload.ends_with(b"13") && context.attempt().get() == 1 {
                    return Err("not yet");
                }
                see.note(&message);
                Ok(())
            }
        };
        let (_, running) = Running::begin(builder.deduplication(dedup()).on_any(handler)).await;
        subscribers.push(Subscriber { what, whose, running, seen });
    }
    subscribers
}

/// What is sent to whom, and which of the subscribers are to have it.
fn addresses(tag: &str) -> [(&'static str, Destination, &'static [&'static str]); 4] {
    [
        ("letter", Destination::mailbox(tag).unwrap(), &["mailbox"]),
        ("lax", Destination::topic(format!("{tag}.ATL.LAX")).unwrap(), &["some events", "all events"]),
        ("jfk", Destination::topic(format!("{tag}.ATL.JFK")).unwrap(), &["all events"]),
        ("news", Destination::Everyone, &["listener", "passing by"]),
    ]
}

/// Sends so many to each address, and says which are confirmed.
async fn send_to_each(producer: &Producer, tag: &str, count: u64) -> Vec<(&'static [&'static str], BTreeSet<String>)> {
    let mut all = Vec::new();
    for (kind, to, whom) in addresses(tag) {
        all.push((whom, submit(producer, &to, numbers(&format!("{tag} {kind}"), count)).await));
    }
    let mut sent = Vec::new();
    for (whom, receipts) in all {
        sent.push((whom, confirmed(receipts).await));
    }
    sent
}

/// Waits until every subscriber has every confirmed message that is for it, and checks that each has it once.
async fn each_has_its_own_once(
    node: &Node,
    tag: &str,
    subscribers: Vec<Subscriber>,
    sent: &[(&'static [&'static str], BTreeSet<String>)],
) {
    let mut left = Vec::new();
    for Subscriber { what, whose, running, seen } in subscribers {
        let wanted: BTreeSet<&String> =
            sent.iter().filter(|(whom, _)| whom.contains(&what)).flat_map(|(_, confirmed)| confirmed).collect();
        let lacks = || {
            let has: BTreeSet<String> = seen.all().into_iter().collect();
            wanted.iter().filter(|id| !has.contains(**id)).count()
        };
        until(|| lacks() == 0, || format!("{what} lacks {} of {}: {:?}", lacks(), wanted.len(), running.tally())).await;
        let counts = running.stop().await.counts;
        let all = seen.sorted();
        let distinct: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!((distinct.len(), counts.dead), (all.len(), 0), "{what}: each once");
        assert!(counts.resubscribed >= 1, "{what}: {counts:?}");
        println!("{what}: {} confirmed, {} handled, {} duplicates", wanted.len(), all.len(), counts.duplicates);
        left.extend(whose.map(|whose| (what, whose, distinct)));
    }
    // What the sender sent again may stand there still: nothing but what was handled before.
    let drained = left.into_iter().map(async |(what, whose, handled)| {
        let again = Seen::default();
        let builder = whose.at(node).stop_when_idle(SECOND).on_any(note(&again, tag));
        Running::start(builder).ended().await.expect("a good end");
        assert!(again.all().iter().all(|id| handled.contains(id)), "{what}: {:?}", again.all());
    });
    join_all(drained).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_kill_and_restart_of_the_broker_every_subscription_has_each_confirmed_message_once() {
    for_each_own(NodeOptions::default(), async |node| {
        let count = scale::of(5_000, 20);
        let tag = fresh("restart");
        let subscribers = subscribers(&node.amqp_url(Login::Consumer), &tag, Deduplication::default).await;
        let producer = sender(node).await;
        node.settle_before_kill().await;
        let sending = async { send_to_each(&producer, &tag, count).await };
        let killing = async {
            let part = count / 4;
            until(|| subscribers[0].seen.len() as u64 >= part, || subscribers[0].seen.len().to_string()).await;
            node.kill_at_once().await.unwrap();
            node.restart().await.unwrap();
        };
        let (sent, ()) = tokio::join!(sending, killing);
        for (whom, confirmed) in &sent {
            assert_eq!(confirmed.len() as u64, count, "{whom:?}: the rest was sent again");
        }
        each_has_its_own_once(node, &tag, subscribers, &sent).await;
        producer.close(CLOSE).await;
        // The nameless one left nothing, and nothing stands in any queue, dead letters included.
        let left = queues_with(node, "correio.").await;
        assert_eq!((left.len(), left.iter().map(|(_, messages)| messages).sum::<u64>()), (4 * 4, 0), "{left:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_cut_connections_every_subscription_has_each_confirmed_message_once() {
    for_each(async |node| {
        let count = scale::of(5_000, 20);
        let tag = fresh("cut");
        let proxy = Proxy::start(node.amqp_address()).await.unwrap();
        let url = node.amqp_url_through(Login::Consumer, proxy.address());
        let subscribers = subscribers(&url, &tag, Deduplication::default).await;
        let producer = producer_at(&node.amqp_url_through(Login::Producer, proxy.address())).await;
        let sending = async { send_to_each(&producer, &tag, count).await };
        let cutting = async {
            for part in 1..=3 {
                let reached = count * part / 4;
                until(|| subscribers[2].seen.len() as u64 >= reached, || subscribers[2].seen.len().to_string()).await;
                assert!(proxy.cut(Ending::Reset).await > 0);
            }
        };
        let (sent, ()) = tokio::join!(sending, cutting);
        for (whom, confirmed) in &sent {
            assert_eq!(confirmed.len() as u64, count, "{whom:?}: the rest was sent again");
        }
        each_has_its_own_once(node, &tag, subscribers, &sent).await;
        producer.close(CLOSE).await;
        proxy.stop().await;
        nothing_left_in(node, &tag).await;
    })
    .await;
}

/// Each subscriber handles five messages whose acknowledgements are lost with the connection; says how often each handled them.
async fn acknowledgements_lost(node: &Node, dedup: fn() -> Deduplication) -> Vec<(&'static str, usize)> {
    let tag = fresh("acks");
    let proxy = Proxy::start(node.amqp_address()).await.unwrap();
    let subscribers = subscribers(&node.amqp_url_through(Login::Consumer, proxy.address()), &tag, dedup).await;
    let producer = sender(node).await;
    // One each first: a subscription that is not there yet would not be deaf.
    for (_, to, _) in addresses(&tag) {
        send_to(&producer, &to, [format!("{tag} first {to:?}")]).await;
    }
    let all = &subscribers;
    let all_saw = |count: usize| {
        until(
            move || all.iter().all(|one| one.seen.len() >= count * if one.what == "all events" { 2 } else { 1 }),
            || format!("{:?}", all.iter().map(|one| one.seen.all()).collect::<Vec<_>>()),
        )
    };
    all_saw(1).await;
    // Deliveries still come; what the consumers say does not arrive.
    proxy.swallow(Direction::ClientToBroker);
    send_to_each(&producer, &tag, 5).await;
    all_saw(6).await;
    proxy.cut(Ending::Reset).await;
    for Subscriber { what, whose, running, seen } in &subscribers {
        let sent = if *what == "all events" { 12 } else { 6 };
        let again = sent / 6 * 5;
        until(
            || running.tally().duplicates >= again || seen.len() as u64 >= sent + again,
            || format!("{what}: {:?}", running.tally()),
        )
        .await;
        if let Some(whose) = whose {
            until_depth(node, &whose.queue(), 0).await;
        }
    }
    let mut saw = Vec::new();
    for Subscriber { what, running, seen, .. } in subscribers {
        running.stop().await;
        saw.push((what, seen.len()));
    }
    proxy.stop().await;
    producer.close(CLOSE).await;
    saw
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_because_its_acknowledgement_was_lost_has_one_effect_in_each_subscription() {
    for_each(async |node| {
        let saw = acknowledgements_lost(node, Deduplication::default).await;
        let wanted = [("mailbox", 6), ("some events", 6), ("all events", 12), ("listener", 6), ("passing by", 6)];
        assert_eq!(saw, wanted);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_on_purpose_without_deduplication_it_has_two_in_each() {
    for_each(async |node| {
        for (what, count) in acknowledgements_lost(node, || Deduplication::Off).await {
            let sent = if what == "all events" { 12 } else { 6 };
            assert!(count >= sent + sent / 6 * 5, "{what}: {count}");
        }
    })
    .await;
}
