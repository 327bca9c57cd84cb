//! A copy (retry, dead letter, replay) is the same message: nothing of it gets lost, and nothing rides along that makes
//! the broker refuse, lose or reroute it.

mod wire;

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use correio_message::{
    Attempt, DeadLetter, DeadReason, Destination, Durability, Envelope, Headers, Key, Lifetime, Message, MessageId,
    Original, Properties, Route, Sequence, ShortText, Value, Voids, dead_letter, given_back, header, replay, retry,
};
use proptest::{collection::vec, prelude::*, sample::select};
use wire::{BROKERS, REASONS, config, foreign, letter, message, number, plain, stranger, text};

/// One step on a message's way, with what it says.
#[derive(Clone, Debug)]
enum Step {
    Retry(Duration, Attempt),
    DeadLetter(DeadLetter),
    Replay,
    GivenBack(u32),
}

impl Step {
    fn of(&self, arrived: &Envelope) -> Envelope {
        match self {
            Self::Retry(wait, attempt) => retry(arrived, text("orders.retry.1s"), *wait, *attempt),
            Self::DeadLetter(letter) => dead_letter(arrived, text("orders.dead"), letter),
            Self::Replay => replay(arrived, text("orders")),
            Self::GivenBack(returns) => given_back(arrived, text("orders"), *returns),
        }
    }
}

fn attempt() -> impl Strategy<Value = Attempt> {
    (1u32.., 0..=i64::MAX as u64).prop_map(|(number, first_failed_at_us)| Attempt {
        number: NonZeroU32::new(number).unwrap(),
        first_failed_at_us,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<Duration>(), attempt()).prop_map(|(wait, attempt)| Step::Retry(wait, attempt)),
        letter().prop_map(Step::DeadLetter),
        Just(Step::Replay),
        any::<u32>().prop_map(Step::GivenBack),
    ]
}

/// What the broker does on the way from the delay queue back: another route, no expiry, headers of its own.
fn come_back(mut sent: Envelope) -> Envelope {
    sent.route = Route { exchange: text("correio.queue"), routing_key: text("orders") };
    sent.properties.expiration = None;
    sent.properties.headers.extend(moved_by_the_broker(&[(
        "orders.retry.1s",
        "expired",
        "correio.retry",
        "orders.retry.1s",
    )]));
    sent
}

fn walk(start: Envelope, steps: &[Step]) -> Envelope {
    steps.iter().fold(start, |at, step| come_back(step.of(&at)))
}

/// What the broker does with a message whose first sending was delayed.
fn come_from_the_delay_queue(sent: Envelope) -> Envelope {
    assert_eq!(sent.route.to_string(), "correio.retry/orders.retry.1s");
    come_back(sent)
}

/// The message without what these copies take away: a replay, the deadline.
fn arrived_before(start: &Envelope, steps: &[Step]) -> Envelope {
    let mut start = start.clone();
    if steps.iter().any(|step| matches!(step, Step::Replay)) {
        start.properties.headers.remove(header::DEADLINE_US);
    }
    start
}

fn own(headers: &Headers) -> Headers {
    let reserved = |name: &str| header::is_ours(name) || header::is_brokers(name);
    headers.iter().filter(|(name, _)| !reserved(name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// Our headers that are the message's, not its way's: one of a later version too.
fn ours(headers: &Headers) -> Headers {
    const OF_THE_WAY: [&str; 12] = [
        header::ATTEMPT,
        header::FIRST_FAILED_AT_US,
        header::RETURNS,
        header::EXCHANGE,
        header::ROUTING_KEY,
        header::USER,
        header::EXPIRATION,
        header::DEAD_REASON,
        header::DEAD_ERROR,
        header::DEAD_QUEUE,
        header::DEAD_AT_US,
        header::RETENTION_US,
    ];
    let kept = |name: &str| header::is_ours(name) && !OF_THE_WAY.contains(&name);
    headers.iter().filter(|(name, _)| kept(name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// `x-death` and its companions as RabbitMQ writes them: (queue, reason, exchange, routing key), the latest first.
fn moved_by_the_broker(deaths: &[(&str, &str, &str, &str)]) -> Headers {
    let tables = deaths.iter().map(|(queue, reason, exchange, routing_key)| {
        Value::Table(Headers::from([
            (text("count"), Value::I64(1)),
            (text("reason"), Value::text(reason)),
            (text("queue"), Value::text(queue)),
            (text("time"), Value::Timestamp(1_700_000_000)),
            (text("exchange"), Value::text(exchange)),
            (text("routing-keys"), Value::List(vec![Value::text(routing_key), Value::text("a CC key")])),
        ]))
    });
    let first = deaths.last().unwrap();
    Headers::from([
        (text("x-death"), Value::List(tables.collect())),
        (text("x-first-death-queue"), Value::text(first.0)),
        (text("x-first-death-reason"), Value::text(first.1)),
        (text("x-first-death-exchange"), Value::text(first.2)),
    ])
}

/// One test for each property that every copy keeps.
macro_rules! a_copy_keeps {
    ($($name:ident: $property:ident,)+) => {
        proptest! {
            #![proptest_config(config())]
            $(
                #[test]
                fn $name(arrived in plain(), step in step()) {
                    prop_assert_eq!(step.of(&arrived).properties.$property, arrived.properties.$property);
                }
            )+
        }
    };
}

a_copy_keeps! {
    a_copy_keeps_the_id: message_id,
    a_copy_keeps_the_type: message_type,
    a_copy_keeps_the_origin: app_id,
    a_copy_keeps_the_correlation: correlation_id,
    a_copy_keeps_where_an_answer_goes: reply_to,
    a_copy_keeps_the_content_type: content_type,
    a_copy_keeps_the_content_encoding: content_encoding,
    a_copy_keeps_the_timestamp: timestamp,
    a_copy_keeps_the_priority: priority,
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_copy_keeps_the_body(arrived in plain(), step in step()) {
        prop_assert_eq!(step.of(&arrived).body, arrived.body);
    }

    #[test]
    fn a_copy_keeps_the_senders_own_headers(arrived in foreign(), step in step()) {
        prop_assert_eq!(own(&step.of(&arrived).properties.headers), own(&arrived.properties.headers));
    }

    #[test]
    fn a_copy_keeps_our_headers_even_those_that_it_cannot_read(arrived in foreign(), step in step()) {
        let expected = ours(&arrived_before(&arrived, std::slice::from_ref(&step)).properties.headers);
        prop_assert_eq!(ours(&step.of(&arrived).properties.headers), expected);
    }

    // Who replays a request wants it done, although nobody waits for its answer any more.
    #[test]
    fn a_replay_has_no_deadline_and_every_other_copy_keeps_it(mut message in message(), step in step()) {
        message.deadline_us = Some(7);
        let copied = step.of(&message.encode(Durability::Persistent)).decode().unwrap().message.deadline_us;
        prop_assert_eq!(copied, if matches!(step, Step::Replay) { None } else { Some(7) });
    }

    // The broker closes the channel over a `user_id` that is not the login, again and again.
    #[test]
    fn a_copy_leaves_the_user_id_out(arrived in plain(), step in step()) {
        prop_assert_eq!(step.of(&arrived).properties.user_id, None);
    }

    // A parked letter with an expiry vanishes; a replayed one could before it is handled.
    #[test]
    fn a_dead_letter_and_a_replay_never_expire(arrived in plain(), letter in letter()) {
        prop_assert_eq!(Step::DeadLetter(letter).of(&arrived).properties.expiration, None);
        prop_assert_eq!(Step::Replay.of(&arrived).properties.expiration, None);
    }

    // The expiry of the sender would cut the wait short. Anything but digits closes the channel with 406.
    #[test]
    fn a_retry_expires_after_its_own_wait_and_never_early(
        arrived in plain(), wait in any::<Duration>(), attempt in attempt()
    ) {
        let expiration = Step::Retry(wait, attempt).of(&arrived).properties.expiration.unwrap();
        prop_assert!(expiration.as_str().bytes().all(|byte| byte.is_ascii_digit()), "{}", expiration);
        let millis: u64 = expiration.as_str().parse().unwrap();
        prop_assert!(Duration::from_millis(millis) >= wait.min(Attempt::MAX_WAIT));
        prop_assert!(Duration::from_millis(millis) < wait.saturating_add(Duration::from_millis(1)));
        prop_assert!(millis <= u64::from(u32::MAX));
    }

    // With CC or BCC the broker would route the copy again; with `x-death` 3.10 drops it as a cycle.
    #[test]
    fn a_copy_leaves_out_whatever_is_the_brokers(
        mut arrived in stranger(), step in step(), brokers in vec((select(&BROKERS[..]), wire::value()), 0..5)
    ) {
        arrived.properties.headers.extend(brokers.into_iter().map(|(name, value)| (text(name), value)));
        let copy = step.of(&arrived);
        let left = copy.properties.headers.keys().map(ShortText::as_str).find(|name| {
            name.starts_with("x-") || ["CC", "BCC"].contains(name)
        });
        prop_assert_eq!(left, None);
    }

    #[test]
    fn a_copy_is_persistent_even_of_a_message_that_was_not(arrived in plain(), step in step()) {
        prop_assert_eq!(step.of(&arrived).properties.delivery_mode, Some(2));
    }

    #[test]
    fn a_copy_goes_through_the_exchange_of_its_kind_to_the_queue_named(arrived in plain(), step in step()) {
        let expected = match step {
            Step::Retry(..) => "correio.retry/orders.retry.1s",
            Step::DeadLetter(_) => "correio.dead/orders.dead",
            Step::Replay | Step::GivenBack(_) => "correio.queue/orders",
        };
        prop_assert_eq!(step.of(&arrived).route.to_string(), expected);
    }

    // It was not handled, and whatever it has come through counts when it comes again.
    #[test]
    fn what_is_given_back_is_as_far_on_its_way_as_it_was_and_says_its_returns(
        arrived in plain(), wait in any::<Duration>(), attempt in attempt(), returns in any::<[u32; 2]>()
    ) {
        let come = walk(arrived, &[Step::Retry(wait, attempt), Step::GivenBack(returns[0]), Step::GivenBack(returns[1])]);
        let decoded = come.decode().unwrap();
        prop_assert_eq!(
            (decoded.attempt, decoded.first_failed_at_us), (attempt.number, Some(attempt.first_failed_at_us))
        );
        prop_assert_eq!(come.properties.headers.get(header::RETURNS), Some(&Value::I64(returns[1].into())));
        let again = Step::Retry(wait, attempt).of(&come);
        prop_assert_eq!(again.properties.headers.get(header::RETURNS), None, "whoever handled it lives");
    }

    #[test]
    fn the_original_route_user_and_expiry_travel_through_any_chain_of_copies(
        start in stranger(), steps in vec(step(), 1..6)
    ) {
        let original = Original {
            route: start.route.clone(),
            user: start.properties.user_id.clone(),
            expiration: start.properties.expiration.clone(),
        };
        prop_assert_eq!(walk(start, &steps).decode().unwrap().original, original);
    }

    #[test]
    fn a_message_is_the_same_after_any_chain_of_copies(message in message(), steps in vec(step(), 1..6)) {
        let sent = message.encode(Durability::Persistent);
        let expected = arrived_before(&sent, &steps).decode().unwrap().message;
        prop_assert_eq!(walk(sent, &steps).decode().unwrap().message, expected);
    }

    #[test]
    fn a_delayed_message_comes_as_its_first_attempt_addressed_as_it_was_sent(
        message in message(), delay in any::<Duration>(), steps in vec(step(), 0..4)
    ) {
        let message = Message { lifetime: None, ..message };
        let sent = message.encode_delayed(text("orders.retry.1s"), delay);
        let millis: u64 = sent.properties.expiration.as_ref().unwrap().as_str().parse().unwrap();
        prop_assert!(Duration::from_millis(millis) >= delay.min(Lifetime::MAX.as_duration()), "never early");
        prop_assert!(millis == 1 || Duration::from_millis(millis) < delay.saturating_add(Duration::from_millis(1)));
        prop_assert!(millis <= u64::from(u32::MAX));
        let decoded = come_from_the_delay_queue(sent.clone()).decode().unwrap();
        prop_assert_eq!(&decoded.message, &message);
        prop_assert_eq!((decoded.attempt.get(), decoded.first_failed_at_us), (1, None));
        prop_assert_eq!(decoded.original.route, message.destination.route());
        prop_assert_eq!(sent.properties.delivery_mode, Some(2));
        // And its retries, dead letters and replays are those of any other message.
        let arrived = come_from_the_delay_queue(sent);
        let expected = arrived_before(&arrived, &steps).decode().unwrap().message;
        prop_assert_eq!(walk(arrived, &steps).decode().unwrap().message, expected);
    }

    #[test]
    fn copies_of_copies_grow_nothing(start in foreign(), steps in vec(step(), 1..6), last in step()) {
        let [walked, straight] = [walk(start.clone(), &steps), arrived_before(&start, &steps)].map(|arrived| {
            let mut copy = last.of(&arrived);
            if matches!(last, Step::GivenBack(_)) {
                // The one copy that takes them over.
                for way in [header::ATTEMPT, header::FIRST_FAILED_AT_US] {
                    copy.properties.headers.remove(way);
                }
            }
            copy
        });
        prop_assert_eq!(walked, straight);
    }

    #[test]
    fn a_retry_says_which_attempt_it_is_for_and_since_when_it_fails(
        message in message(), steps in vec(step(), 0..4), wait in any::<Duration>(), attempt in attempt()
    ) {
        let at = walk(message.encode(Durability::Persistent), &steps);
        let decoded = Step::Retry(wait, attempt).of(&at).decode().unwrap();
        prop_assert_eq!(decoded.attempt, attempt.number);
        prop_assert_eq!(decoded.first_failed_at_us, Some(attempt.first_failed_at_us));
    }

    #[test]
    fn a_replay_counts_its_attempts_anew(message in message(), steps in vec(step(), 0..4)) {
        let at = walk(message.encode(Durability::Persistent), &steps);
        let decoded = Step::Replay.of(&at).decode().unwrap();
        prop_assert_eq!((decoded.attempt.get(), decoded.first_failed_at_us), (1, None));
    }

    #[test]
    fn only_a_parked_message_is_a_dead_letter(message in message(), steps in vec(step(), 0..4), last in step()) {
        let at = walk(message.encode(Durability::Persistent), &steps);
        let copy = last.of(&at);
        prop_assert_eq!(DeadLetter::of(&copy).is_some(), matches!(last, Step::DeadLetter(_)));
    }

    #[test]
    fn a_dead_letter_reads_back_as_it_was_written(
        arrived in foreign(), steps in vec(step(), 0..4), letter in letter()
    ) {
        let parked = Step::DeadLetter(letter.clone()).of(&walk(arrived, &steps));
        prop_assert_eq!(DeadLetter::of(&parked), Some(letter));
    }

    #[test]
    fn the_attempts_of_a_dead_letter_are_those_that_its_message_had(message in message(), letter in letter()) {
        let parked = Step::DeadLetter(letter.clone()).of(&message.encode(Durability::Persistent));
        let decoded = parked.decode().unwrap();
        prop_assert_eq!((decoded.attempt, decoded.first_failed_at_us), (letter.attempts, letter.first_failed_at_us));
    }
}

fn failed(error: impl Into<String>) -> DeadLetter {
    DeadLetter {
        reason: DeadReason::Failed,
        error: error.into(),
        queue: text("orders"),
        at_us: 2,
        attempts: NonZeroU32::MIN,
        first_failed_at_us: Some(1),
        remembered_for_us: None,
    }
}

/// A numbered message as a consumer gets it from its work queue.
fn arrived() -> Envelope {
    let mut message = Message::new(Destination::queue("orders").unwrap(), "x");
    message.id = MessageId::new("a-1").ok();
    let line = correio_message::Line {
        source: uuid::Uuid::nil(),
        stream: message.destination.route().stream(),
        key: Key::new("k").unwrap(),
    };
    message.sequence = Some(Sequence { line, number: number(4), voids: Voids::default() });
    message.encode(Durability::Persistent)
}

/// A message as it stands on `orders.dead` after the broker put it there.
fn parked_by_the_broker(mut arrived: Envelope, deaths: &[(&str, &str, &str, &str)]) -> Envelope {
    arrived.route = Route { exchange: text("correio.dead"), routing_key: text("orders.dead") };
    arrived.properties.headers.extend(moved_by_the_broker(deaths));
    arrived
}

#[test]
fn of_a_long_error_4096_bytes_are_kept_and_no_character_is_cut() {
    let read = |error: String| DeadLetter::of(&Step::DeadLetter(failed(error)).of(&arrived())).unwrap().error;
    assert_eq!(read("x".repeat(4_096)).len(), 4_096);
    assert_eq!(read("x".repeat(1_000_000)).len(), 4_096);
    let umlauts = read(format!("x{}", "ü".repeat(4_000)));
    assert_eq!(umlauts.len(), 4_095);
    assert!(umlauts.ends_with('ü'));
}

#[test]
fn every_reason_has_a_name_of_its_own_on_the_wire_and_to_read() {
    let names: std::collections::BTreeSet<_> = REASONS.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), REASONS.len());
    assert_eq!(DeadReason::TimedOut.to_string(), "timed-out");
}

#[test]
fn a_reason_of_a_later_version_is_another_one() {
    let mut parked = Step::DeadLetter(failed("")).of(&arrived());
    parked.properties.headers.insert(text(header::DEAD_REASON), Value::text("bored"));
    assert_eq!(DeadLetter::of(&parked).unwrap().reason, DeadReason::Other);
}

#[test]
fn a_letter_whose_other_headers_are_unreadable_is_a_letter_still() {
    let mut parked = Step::DeadLetter(failed("")).of(&arrived());
    for broken in [header::DEAD_ERROR, header::DEAD_QUEUE, header::DEAD_AT_US, header::RETENTION_US, header::ATTEMPT] {
        parked.properties.headers.insert(text(broken), Value::Void);
    }
    let letter = DeadLetter::of(&parked).unwrap();
    assert_eq!((letter.reason, letter.queue.as_str(), letter.at_us), (DeadReason::Failed, "", 0));
    parked.properties.headers.insert(text(header::DEAD_QUEUE), Value::text("q".repeat(256)));
    assert_eq!(DeadLetter::of(&parked).unwrap().queue, text(""));
}

#[test]
fn a_message_that_nobody_parked_is_no_dead_letter() {
    assert_eq!(DeadLetter::of(&arrived()), None);
}

#[test]
fn a_letter_that_the_broker_parked_names_its_work_queue_and_the_brokers_reason() {
    let deaths = [("orders", "delivery_limit", "correio.queue", "orders")];
    let letter = DeadLetter::of(&parked_by_the_broker(arrived(), &deaths)).unwrap();
    assert_eq!((letter.reason, letter.queue.as_str()), (DeadReason::Broker, "orders"));
    assert_eq!(letter.error, "moved by the broker: delivery_limit");
}

#[test]
fn a_letter_with_nothing_but_the_first_death_is_read_by_that() {
    let mut parked = parked_by_the_broker(arrived(), &[("orders", "rejected", "correio.queue", "orders")]);
    parked.properties.headers.remove("x-death");
    let letter = DeadLetter::of(&parked).unwrap();
    assert_eq!((letter.queue.as_str(), letter.error.as_str()), ("orders", "moved by the broker: rejected"));
}

// Its first death was the end of a wait in the delay queue: a replay to there would be unroutable.
#[test]
fn a_letter_that_the_broker_parked_after_a_retry_names_its_work_queue_and_not_the_delay_queue() {
    let failed_once = Attempt { number: NonZeroU32::new(2).unwrap(), first_failed_at_us: 9 };
    let retried = come_back(Step::Retry(Duration::from_secs(1), failed_once).of(&arrived()));
    let parked = parked_by_the_broker(
        retried,
        &[
            ("orders", "delivery_limit", "correio.queue", "orders"),
            ("orders.retry.1s", "expired", "correio.retry", "orders.retry.1s"),
        ],
    );
    let letter = DeadLetter::of(&parked).unwrap();
    assert_eq!((letter.queue.as_str(), letter.error.as_str()), ("orders", "moved by the broker: delivery_limit"));
    assert_eq!((letter.attempts, letter.first_failed_at_us), (failed_once.number, Some(9)));

    // From 3.13 on the broker says it outright.
    let mut newer = parked;
    newer.properties.headers.remove("x-death");
    newer.properties.headers.insert(text("x-last-death-queue"), Value::text("orders"));
    newer.properties.headers.insert(text("x-last-death-reason"), Value::text("delivery_limit"));
    assert_eq!(DeadLetter::of(&newer).unwrap().queue, letter.queue);
}

#[test]
fn a_letter_that_the_broker_parked_is_replayed_as_the_same_message_on_the_same_line() {
    let sent = arrived();
    let parked = parked_by_the_broker(sent.clone(), &[("orders", "delivery_limit", "correio.queue", "orders")]);
    let replayed = Step::Replay.of(&parked).decode().unwrap();
    assert_eq!(replayed.message, sent.decode().unwrap().message);
    assert_eq!(parked.decode().unwrap().message, replayed.message);
}

#[test]
fn the_expiry_that_the_broker_took_away_is_still_the_originals() {
    let mut parked = parked_by_the_broker(arrived(), &[("orders", "expired", "correio.queue", "orders")]);
    let Some(Value::List(deaths)) = parked.properties.headers.get_mut("x-death") else { unreachable!() };
    let Value::Table(death) = &mut deaths[0] else { unreachable!() };
    death.insert(text("original-expiration"), Value::text("5000"));
    assert_eq!(Original::of(&parked).expiration, Some(text("5000")));
}

// Whoever never was a copy has been checked by the broker by its `user_id` alone.
#[test]
fn a_message_that_is_no_copy_cannot_pass_its_own_headers_off_as_the_originals() {
    let mut arrived = arrived();
    arrived.properties.headers.insert(text(header::USER), Value::text("admin"));
    arrived.properties.headers.insert(text(header::EXPIRATION), Value::text("1"));
    let original = Step::Replay.of(&arrived).decode().unwrap().original;
    assert_eq!((original.user, original.expiration), (None, None));
}

#[test]
fn a_message_without_any_properties_can_be_parked_and_replayed() {
    let route = Route { exchange: text(""), routing_key: text("orders") };
    let bare = Envelope { route: route.clone(), properties: Properties::default(), body: Bytes::new() };
    let replayed = Step::Replay.of(&Step::DeadLetter(failed("?")).of(&bare)).decode().unwrap();
    assert_eq!((replayed.message.id, replayed.original.route), (None, route));
}

#[test]
fn a_wait_is_rounded_up_to_the_millisecond_and_cut_at_what_the_broker_takes() {
    let attempt = Attempt { number: NonZeroU32::new(2).unwrap(), first_failed_at_us: 1 };
    let written = |wait| Step::Retry(wait, attempt).of(&arrived()).properties.expiration.unwrap();
    assert_eq!(written(Duration::ZERO), "0");
    assert_eq!(written(Duration::from_micros(1_000_001)), "1001");
    assert_eq!(written(Duration::MAX), "4294967295");
}
