//! Who receives: each way of addressing on a real broker, with users who may do no more than they need.

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc, time::Duration};

use correio_consumer::{ConsumeError, Context, DeclareError, Message, Processing, RetrySchedule, Verdict};
use correio_lab::broker::{Login, Node, NodeOptions, for_each, for_each_own};
use correio_message::Destination;
use correio_producer::{Outcome, Producer};
use correio_tests::{
    consuming::{Running, Seen, until, until_depth},
    programs::{Program, Ran},
    queues::{fresh, until_consumers},
    subscribers::{Whose, letter, nobodys, note, nothing_left_in, queues_with, send_to, sender},
};
use serde_json::Value;
use tokio::sync::Barrier;

const CLOSE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

fn mailbox(name: &str) -> (Whose, Destination) {
    (Whose::Mailbox(name.to_owned()), Destination::mailbox(name).unwrap())
}

fn group(pattern: impl Into<String>, name: impl Into<String>) -> Whose {
    Whose::Group(pattern.into(), name.into())
}

fn topic(key: impl AsRef<str>) -> Destination {
    Destination::topic(key).unwrap()
}

fn numbers(tag: &str, what: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{tag} {what} {n:03}")).collect()
}

/// What somebody saw, without the test's own tag: how many of each kind.
fn kinds(seen: &Seen) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for text in seen.all() {
        *kinds.entry(text.split(' ').nth(1).unwrap_or_default().to_owned()).or_default() += 1;
    }
    kinds
}

async fn close(producer: Producer) {
    producer.close(CLOSE).await;
}

// Who gets what

#[tokio::test(flavor = "multi_thread")]
async fn each_address_reaches_whom_it_means_once_and_nobody_else_and_leaves_nothing_behind() {
    for_each(async |node| {
        let tag = fresh("who");
        let (ana, to_ana) = mailbox(&format!("{tag}.ana"));
        let (bo, to_bo) = mailbox(&format!("{tag}.bo"));
        let west = group(format!("{tag}.*.LAX"), format!("{tag}.west"));
        let all = group(format!("{tag}.#"), format!("{tag}.all"));
        let (lea, max) = (Whose::Listener(format!("{tag}.lea")), Whose::Listener(format!("{tag}.max")));
        let mut subscribers = Vec::new();
        for whose in [&ana, &bo, &west, &all, &lea, &max] {
            let seen = Seen::default();
            let (startup, running) = Running::begin(whose.at(node).on_any(note(&seen, &tag))).await;
            assert!(startup.begins_empty && startup.is_complete(), "{whose:?}: {startup:?}");
            subscribers.push((running, seen));
        }
        let passing_by = Seen::default();
        let nameless = nobodys(&node.amqp_url(Login::Consumer)).broadcast_while_here();
        let (startup, nameless) = Running::begin(nameless.on_any(note(&passing_by, &tag))).await;
        assert!(!startup.begins_empty, "it never was there before");

        let producer = sender(node).await;
        for (to, what, count) in [
            (&to_ana, "ana", 20),
            (&to_bo, "bo", 10),
            (&topic(format!("{tag}.ATL.LAX")), "lax", 30),
            (&topic(format!("{tag}.ATL.JFK")), "jfk", 40),
            (&Destination::Everyone, "everyone", 50),
        ] {
            send_to(&producer, to, numbers(&tag, what, count)).await;
        }
        let wanted: [&[(&str, usize)]; 6] = [
            &[("ana", 20)],
            &[("bo", 10)],
            &[("lax", 30)],
            &[("lax", 30), ("jfk", 40)],
            &[("everyone", 50)],
            &[("everyone", 50)],
        ];
        let everyone: &[(&str, usize)] = &[("everyone", 50)];
        let of = |kinds: &[(&str, usize)]| {
            kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect::<BTreeMap<_, _>>()
        };
        until(
            || {
                subscribers.iter().zip(wanted).all(|((_, seen), wanted)| kinds(seen) == of(wanted))
                    && kinds(&passing_by) == of(everyone)
            },
            || format!("{:?}, {:?}", subscribers.iter().map(|(_, s)| kinds(s)).collect::<Vec<_>>(), kinds(&passing_by)),
        )
        .await;
        assert!(nameless.stop().await.is_clean());
        for ((running, seen), wanted) in subscribers.into_iter().zip(wanted) {
            assert!(running.stop().await.is_clean());
            let mut once = seen.sorted();
            once.dedup();
            assert_eq!((once.len(), kinds(&seen)), (seen.len(), of(wanted)), "each once, and nothing came after");
        }
        let left = queues_with(node, &tag).await;
        assert_eq!(left.len(), 6 * 4, "each with two retry queues and a parking queue: {left:?}");
        nothing_left_in(node, &tag).await;
        close(producer).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_a_name_has_missed_what_came_before_and_leaves_no_queue() {
    // A node of its own, where nobody else listens.
    for_each_own(NodeOptions::default(), async |node| {
        let producer = sender(node).await;
        let early = producer.send(letter(&Destination::Everyone, "early")).await.unwrap();
        assert!(matches!(early, Outcome::Unroutable { .. }), "{early}");
        let seen = Seen::default();
        let builder = nobodys(&node.amqp_url(Login::Consumer)).broadcast_while_here();
        let (_, running) = Running::begin(builder.on_any(note(&seen, ""))).await;
        let here = numbers("", "here", 5);
        send_to(&producer, &Destination::Everyone, &here).await;
        until(|| seen.len() == 5, || format!("{:?}", seen.all())).await;
        assert_eq!(queues_with(node, "correio.broadcast.").await.len(), 4);
        running.stop().await;
        assert_eq!(seen.sorted(), here);
        assert_eq!(queues_with(node, "correio.broadcast.").await, []);

        // Its dead letters stay, and nothing else that would go on listening.
        let fails = |_: Message| std::future::ready(Err::<(), _>("no"));
        let none = Processing::Independent { at_once: NonZeroU16::MIN, retry: RetrySchedule::none() };
        let failing = nobodys(&node.amqp_url(Login::Consumer)).broadcast_while_here().processing(none);
        let (_, failing) = Running::begin(failing.on_any(fails)).await;
        send_to(&producer, &Destination::Everyone, &numbers("", "fails", 1)).await;
        failing.until(|tally| tally.dead == 1).await;
        failing.stop().await;
        let left = queues_with(node, "correio.broadcast.").await;
        assert!(left.len() == 1 && left[0].0.ends_with(".dead"), "{left:?}");
        let late = producer.send(letter(&Destination::Everyone, "late")).await.unwrap();
        assert!(matches!(late, Outcome::Unroutable { .. }), "{late}");
        close(producer).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_its_events() {
    for_each(async |node| {
        let tag = fresh("shared");
        let whose = group(format!("{tag}.#"), &tag);
        let both = Arc::new(Barrier::new(2));
        let (first, second) = (Seen::default(), Seen::default());
        let member = |seen: &Seen| {
            let (seen, both) = (seen.clone(), Arc::clone(&both));
            whose.at(node).on_any(move |message: Message| {
                let (seen, both) = (seen.clone(), Arc::clone(&both));
                async move {
                    let is_first = seen.is_empty();
                    seen.note(&message);
                    if is_first {
                        // Nobody goes on before the other has one, too.
                        both.wait().await;
                    }
                    Ok::<_, String>(())
                }
            })
        };
        let (_, one) = Running::begin(member(&first)).await;
        let (startup, two) = Running::begin(member(&second)).await;
        assert!(!startup.begins_empty, "the group was there");
        until_consumers(node, &whose.queue(), 2).await;
        let producer = sender(node).await;
        send_to(&producer, &topic(format!("{tag}.x")), numbers(&tag, "x", 200)).await;
        until(|| first.len() + second.len() == 200, || format!("{} and {}", first.len(), second.len())).await;
        for running in [one, two] {
            running.stop().await;
        }
        let mut together = [first.all(), second.all()].concat();
        together.sort();
        assert_eq!(together, numbers(&tag, "x", 200));
        assert!(!first.is_empty() && !second.is_empty());
        close(producer).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_consumer_of_a_mailbox_or_a_listener_stands_by_and_takes_over() {
    for_each(async |node| {
        let tag = fresh("stand-by");
        let (whose, to) = mailbox(&tag);
        for (whose, to) in [(whose, to), (Whose::Listener(tag.clone()), Destination::Everyone)] {
            let (first, second) = (Seen::default(), Seen::default());
            let see = first.clone();
            let of = tag.clone();
            // The last one is never done: its consumer dies with it.
            let working = whose.at(node).on_any(move |message: Message| {
                let ours = message.payload.starts_with(of.as_bytes());
                if ours {
                    see.note(&message);
                }
                let stuck = ours && message.payload.ends_with(b"010");
                async move {
                    if stuck {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, String>(())
                }
            });
            let (_, working) = Running::begin(working).await;
            until_consumers(node, &whose.queue(), 1).await;
            let (_, standing_by) = Running::begin(whose.at(node).on_any(note(&second, &tag))).await;
            until_consumers(node, &whose.queue(), 2).await;
            let producer = sender(node).await;
            let before = numbers(&tag, "before", 10);
            send_to(&producer, &to, &before).await;
            until(|| first.len() == 10, || format!("{}", first.len())).await;
            working.until(|tally| tally.handled >= 9).await;
            assert_eq!((first.sorted(), second.len()), (before, 0));
            working.kill().await;
            let after = numbers(&tag, "then", 10);
            send_to(&producer, &to, &after).await;
            // The one it was stuck with; of those handled before, what was not acknowledged yet comes too.
            let has_all = || {
                let taken_over = second.all();
                let has = |wanted: &String| taken_over.contains(wanted);
                after.iter().all(has) && taken_over.iter().any(|text| text.ends_with("before 010"))
            };
            until(has_all, || format!("{:?}", second.all())).await;
            standing_by.stop().await;
            close(producer).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_a_message_is_unroutable_and_where_somebody_was_it_waits() {
    for_each(async |node| {
        let tag = fresh("nobody");
        let producer = sender(node).await;
        let (whose, to) = mailbox(&tag);
        let events = group(format!("{tag}.#"), &tag);
        let key = topic(format!("{tag}.x"));
        for to in [&to, &key] {
            let outcome = producer.send(letter(to, "lost")).await.unwrap();
            assert!(matches!(outcome, Outcome::Unroutable { .. }), "{to:?}: {outcome}");
        }
        for (whose, to) in [(&whose, &to), (&events, &key)] {
            let (startup, running) = Running::begin(whose.at(node).on_any(note(&Seen::default(), &tag))).await;
            assert!(startup.begins_empty);
            running.stop().await;
            send_to(&producer, to, numbers(&tag, "waits", 10)).await;
            let seen = Seen::default();
            let (startup, running) = Running::begin(whose.at(node).on_any(note(&seen, &tag))).await;
            assert!(!startup.begins_empty, "it was there");
            until(|| seen.len() == 10, || format!("{}", seen.len())).await;
            running.stop().await;
            assert_eq!(seen.sorted(), numbers(&tag, "waits", 10));
        }
        close(producer).await;
    })
    .await;
}

// Retries and dead letters are a subscription's own

/// Fails each message at its first attempts, and notes every attempt.
fn fails(seen: &Seen, of: &str, attempts: u32) -> impl correio_consumer::Handler<(Message, Context)> {
    let (seen, of): (_, Arc<str>) = (seen.clone(), of.into());
    move |message: Message, context: Context| {
        let ours = message.payload.starts_with(of.as_bytes());
        if ours {
            seen.note_attempt(&message, &context);
        }
        async move { if ours && context.attempt().get() <= attempts { Err("not yet") } else { Ok(Verdict::Done) } }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_reaches_only_the_subscription_that_failed_and_so_does_a_dead_letter() {
    for_each(async |node| {
        let tag = fresh("once");
        let pairs = [
            (group(format!("{tag}.#"), format!("{tag}.a")), group(format!("{tag}.#"), format!("{tag}.b"))),
            (Whose::Listener(format!("{tag}.a")), Whose::Listener(format!("{tag}.b"))),
        ];
        let producer = sender(node).await;
        for ((failing, fine), to) in pairs.into_iter().zip([topic(format!("{tag}.x")), Destination::Everyone]) {
            let (retried, once) = (Seen::default(), Seen::default());
            let (_, one) = Running::begin(failing.at(node).on_any(fails(&retried, &tag, 2))).await;
            let (_, other) = Running::begin(fine.at(node).on_any(fails(&once, &tag, 0))).await;
            send_to(&producer, &to, numbers(&tag, "again", 1)).await;
            one.until(|tally| tally.retried >= 2 && tally.handled >= 1).await;
            until(|| retried.len() >= 3 && !once.is_empty(), || format!("{:?}", retried.all())).await;
            let text = &numbers(&tag, "again", 1)[0];
            assert_eq!(retried.all(), [1, 2, 3].map(|attempt| format!("{text}#{attempt}")));
            assert_eq!(once.all(), [format!("{text}#1")]);
            one.stop().await;

            let doomed = Seen::default();
            let (_, one) = Running::begin(failing.at(node).on_any(fails(&doomed, &tag, 9))).await;
            send_to(&producer, &to, numbers(&tag, "never", 1)).await;
            one.until(|tally| tally.dead == 1).await;
            assert!(!one.stop().await.is_clean());
            until(|| once.len() == 2, || format!("{:?}", once.all())).await;
            assert!(other.stop().await.is_clean());
            assert_eq!((doomed.len(), once.len()), (4, 2));
            for (whose, letters) in [(&failing, 1), (&fine, 0)] {
                until_depth(node, &format!("{}.dead", whose.queue()), letters).await;
                until_depth(node, &whose.queue(), 0).await;
            }
        }
        close(producer).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letters_of_a_mailbox_a_group_and_a_listener_are_listed_and_replayed_to_it_alone() {
    for_each(async |node| {
        let tag = fresh("letters");
        let (ana, to_ana) = mailbox(&tag);
        let key = format!("{tag}.x");
        let cases = [
            (ana, None, to_ana),
            (group(format!("{tag}.*"), &tag), Some(group(format!("{tag}.#"), &tag)), topic(&key)),
            (Whose::Listener(tag.clone()), Some(Whose::Listener(format!("{tag}.2"))), Destination::Everyone),
        ];
        let producer = sender(node).await;
        for (whose, other, to) in cases {
            let undisturbed = Seen::default();
            let other = match &other {
                Some(other) => Some(Running::begin(other.at(node).on_any(note(&undisturbed, &tag))).await.1),
                None => None,
            };
            let (_, running) = Running::begin(whose.at(node).on_any(fails(&Seen::default(), &tag, 9))).await;
            send_to(&producer, &to, numbers(&tag, "never", 2)).await;
            running.until(|tally| tally.dead == 2).await;
            running.stop().await;

            let listed = letters(node, "list", &whose, &["--json"]).await;
            assert_eq!(listed.code, Some(0), "{listed}");
            let told: Vec<Value> = listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let mut ids: Vec<_> = told.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect();
            ids.sort();
            assert_eq!(ids, numbers(&tag, "never", 2));
            assert!(told.iter().all(|letter| letter["reason"] == "failed" && letter["attempts"] == 4), "{listed}");
            let replayed = letters(node, "replay", &whose, &[]).await;
            assert_eq!(replayed.code, Some(0), "{replayed}");
            assert!(replayed.stdout.starts_with("replayed 2 "), "{replayed}");

            let seen = Seen::default();
            let (_, running) = Running::begin(whose.at(node).on_any(fails(&seen, &tag, 0))).await;
            until(|| seen.len() == 2, || format!("{:?}", seen.all())).await;
            assert!(running.stop().await.is_clean());
            assert_eq!(
                seen.sorted(),
                numbers(&tag, "never", 2).iter().map(|text| format!("{text}#1")).collect::<Vec<_>>()
            );
            if let Some(other) = other {
                assert!(other.stop().await.is_clean());
                assert_eq!(undisturbed.sorted(), numbers(&tag, "never", 2), "once, before the replay");
            }
            until_depth(node, &format!("{}.dead", whose.queue()), 0).await;
        }
        close(producer).await;
    })
    .await;
}

async fn letters(node: &Node, what: &str, whose: &Whose, more: &[&str]) -> Ran {
    Program::new("consumer")
        .args(["dead-letters", what])
        .args(whose.args())
        .args(more)
        .env("AMQP_URL", node.amqp_url(Login::Consumer))
        .finish(PATIENCE)
        .await
}

// What a user may not do

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_subscribe_is_told_which_right_is_lacking() {
    for_each(async |node| {
        let tag = fresh("forbidden");
        let all = [mailbox(&tag).0, group(format!("{tag}.#"), &tag), Whose::Listener(tag.clone())];
        for was_there in [false, true] {
            for whose in &all {
                if was_there {
                    let (_, running) = Running::begin(whose.at(node).on_any(note(&Seen::default(), &tag))).await;
                    running.stop().await;
                }
                for login in [Login::Producer, Login::Student] {
                    let builder = whose.consumer(&node.amqp_url(login)).on_any(note(&Seen::default(), &tag));
                    let refused = Running::start(builder).ended().await.expect_err("no rights");
                    let ConsumeError::Declare(cause) = &refused else { panic!("{whose:?}: {refused}") };
                    assert!(matches!(&**cause, DeclareError::Forbidden { .. }), "{refused}");
                    let said = refused.to_string();
                    for named in [
                        format!("user “{}” may not declare", login.name()),
                        format!("the right to configure {}", whose.queue()),
                        "`consumer`".to_owned(),
                    ] {
                        assert!(said.contains(&named), "{named}: {said}");
                    }
                }
            }
            if !was_there {
                assert_eq!(queues_with(node, &tag).await, [], "nothing half made is left");
            }
        }
        let nameless = nobodys(&node.amqp_url(Login::Producer)).broadcast_while_here();
        let builder = nameless.on_any(note(&Seen::default(), &tag));
        let refused = Running::start(builder).ended().await.expect_err("no rights").to_string();
        assert!(refused.contains("the right to configure correio.broadcast."), "{refused}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_consume_cannot_publish_events_or_broadcasts_and_is_told_so() {
    for_each(async |node| {
        let tag = fresh("reader");
        let whose = group(format!("{tag}.#"), &tag);
        let (_, running) = Running::begin(whose.at(node).on_any(note(&Seen::default(), &tag))).await;
        let reader = correio_tests::subscribers::producer_at(&node.amqp_url(Login::Consumer)).await;
        for (to, exchange) in
            [(topic(format!("{tag}.x")), "correio.topic"), (Destination::Everyone, "correio.broadcast")]
        {
            let outcome = reader.send(letter(&to, "no")).await.unwrap();
            let Outcome::Refused { reason, .. } = &outcome else { panic!("{outcome}") };
            assert!(reason.contains(exchange) && reason.contains("403"), "{reason}");
        }
        close(reader).await;
        assert_eq!(running.stop().await.counts.received, 0);
        until_depth(node, &whose.queue(), 0).await;
    })
    .await;
}
