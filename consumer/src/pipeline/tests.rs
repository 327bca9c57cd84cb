//! The contract of the pipeline, told by histories: no broker, no clock, no handler that really runs.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, NonZeroU64},
    time::Duration,
};

use correio_guarantees::{DuplicateDetector, GapPolicy};
use correio_message::{Destination, Durability, Key, Line, Message, MessageId, Sequence, Voids, header};
use uuid::Uuid;

use super::*;
use crate::{copies::NotCopied, handled_log::LogError};

/// A pipeline with a log, a clock and a broker that remembers what was acknowledged.
struct History {
    pipeline: Pipeline,
    log: DuplicateDetector,
    log_works: bool,
    now: Moment,
    tag: u64,
    running: Vec<(Ticket, Context)>,
    publishing: Vec<(Ticket, Envelope)>,
    given_back: Vec<u64>,
    acknowledged: BTreeSet<u64>,
    delivered: BTreeSet<u64>,
    ended: Option<ConsumeError>,
    closes: usize,
}

fn rules(processing: Processing) -> Rules {
    let short = |text: &str| ShortText::new(text).unwrap();
    let mut handlers = Handlers::default();
    handlers.on(short("known"), |_: Message| async { Ok::<_, String>(()) });
    let delays = if processing.is_ordered() {
        Vec::new()
    } else {
        processing.retry().delays().into_iter().map(|delay| (delay, short(&format!("q.retry.{delay:?}")))).collect()
    };
    Rules {
        queue: short("q"),
        subscription: "q".into(),
        processing,
        acknowledgement: Acknowledgement::AfterHandling,
        deduplicate: true,
        company: Company { parking: short("q.dead"), can_park: true, delays },
        stop_after_count: None,
        handlers: Arc::new(handlers),
        stopping: CancellationToken::new(),
        jitter: || 0.0,
    }
}

fn independent(at_once: u16, retries: u32) -> Processing {
    Processing::Independent {
        at_once: NonZeroU16::new(at_once).unwrap(),
        retry: RetrySchedule::default().with_retries(retries),
    }
}

fn ordered(keys_at_once: u16, parked: u16) -> Processing {
    Processing::OrderedByKey {
        keys_at_once: NonZeroU16::new(keys_at_once).unwrap(),
        parked: NonZeroU16::new(parked).unwrap(),
        gap_deadline: Duration::from_secs(10),
        gap_policy: GapPolicy::Skip,
        retry: RetrySchedule::default(),
    }
}

fn message(id: &str) -> Message {
    Message::new(Destination::queue("q").unwrap(), id.to_owned())
        .with_id(MessageId::new(id).unwrap())
        .with_type(ShortText::new("known").unwrap())
}

fn numbered(id: &str, key: &str, number: u64) -> Message {
    let line = Line { source: Uuid::from_u128(1), stream: "s".into(), key: Key::new(key).unwrap() };
    let number = NonZeroU64::new(number).unwrap();
    Message { sequence: Some(Sequence { line, number, voids: Voids::default() }), ..message(id) }
}

impl History {
    fn with(rules: Rules) -> Self {
        let now = Moment::now();
        let mut pipeline = Pipeline::new(rules, Counts::default());
        pipeline.on_subscribed(now.at);
        Self {
            pipeline,
            log: DuplicateDetector::new(1_000, Duration::from_secs(3_600)),
            log_works: true,
            now,
            tag: 0,
            running: Vec::new(),
            publishing: Vec::new(),
            given_back: Vec::new(),
            acknowledged: BTreeSet::new(),
            delivered: BTreeSet::new(),
            ended: None,
            closes: 0,
        }
    }

    fn of(processing: Processing) -> Self {
        Self::with(rules(processing))
    }

    fn deliver(&mut self, message: &Message) -> u64 {
        self.deliver_envelope(message.encode(Durability::Persistent))
    }

    fn deliver_envelope(&mut self, envelope: Envelope) -> u64 {
        self.tag += 1;
        self.delivered.insert(self.tag);
        self.pipeline.on_delivery(Delivery { tag: self.tag, redelivered: false, envelope }, self.now);
        self.go_on();
        self.tag
    }

    fn go_on(&mut self) {
        loop {
            self.pipeline.advance(self.now);
            let effects = self.pipeline.take_effects();
            let mut is_quiet = effects.is_empty();
            for effect in effects {
                match effect {
                    Effect::Handle { ticket, context, .. } => self.running.push((ticket, context)),
                    Effect::Publish { ticket, copy } => self.publishing.push((ticket, copy)),
                    Effect::GiveBack { tag } => {
                        self.given_back.push(tag);
                        self.pipeline.on_given_back(tag);
                    }
                    Effect::CloseChannel => self.closes += 1,
                    Effect::End(error) => self.ended = Some(error),
                }
            }
            while let Some(call) = self.pipeline.next_log_call(self.now.at) {
                is_quiet = false;
                let answer = self.answer(call);
                self.pipeline.on_log_answer(answer, self.now);
            }
            if is_quiet {
                break;
            }
        }
        let (acks, _) = self.pipeline.take_acks(self.now.at, true);
        for Ack { tag, multiple } in acks {
            let covered: Vec<u64> =
                self.delivered.iter().copied().filter(|d| *d == tag || (multiple && *d < tag)).collect();
            self.acknowledged.extend(covered);
        }
    }

    fn answer(&mut self, call: LogCall) -> LogAnswer {
        let failed = || LogError { step: "test", cause: "down".into() };
        let at = self.now.at;
        match call {
            LogCall::Abandon(ids) if self.log_works => {
                ids.iter().for_each(|id| self.log.on_abandoned(id));
                LogAnswer::Abandoned(Ok(()))
            }
            LogCall::Remember(ids) if self.log_works => {
                ids.iter().for_each(|id| self.log.on_handled(id, at));
                LogAnswer::Remembered(Ok(()))
            }
            LogCall::Admit(ids) if self.log_works => {
                LogAnswer::Admitted(Ok(ids.into_iter().map(|id| self.log.admit(id, at)).collect()))
            }
            LogCall::Abandon(_) => LogAnswer::Abandoned(Err(failed())),
            LogCall::Remember(_) => LogAnswer::Remembered(Err(failed())),
            LogCall::Admit(_) => LogAnswer::Admitted(Err(failed())),
        }
    }

    fn running(&self) -> Vec<String> {
        let name = |(_, context): &(Ticket, Context)| context.id().map_or_else(|| "-".into(), ToString::to_string);
        self.running.iter().map(name).collect()
    }

    fn end(&mut self, id: &str, result: Result<Verdict, Failure>) {
        let at = self.running().iter().position(|running| running == id).unwrap_or_else(|| panic!("{id} runs"));
        let (ticket, _) = self.running.remove(at);
        self.pipeline.on_result(ticket, result, self.now);
        self.go_on();
    }

    fn done(&mut self, id: &str) {
        self.end(id, Ok(Verdict::Done));
    }

    fn fail(&mut self, id: &str) {
        self.end(id, Err(Failure::Handler { error: "no stock".into() }));
    }

    fn confirm(&mut self, outcome: Result<(), &str>) -> Envelope {
        let (ticket, copy) = self.publishing.remove(0);
        let outcome = outcome.map_err(|cause| match cause {
            "no queue" => NotCopied::NoQueue(cause.to_owned()),
            _ => NotCopied::Unconfirmed(cause.to_owned()),
        });
        self.pipeline.on_copy(ticket, outcome, self.now);
        self.go_on();
        copy
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.unix_us += time.as_micros() as u64;
        self.pipeline.on_deadline(self.now);
        self.go_on();
    }

    fn lose_channel(&mut self) {
        self.pipeline.on_channel_lost();
        self.go_on();
        (self.tag, self.delivered, self.acknowledged) = (0, BTreeSet::new(), BTreeSet::new());
    }

    fn subscribe(&mut self) {
        assert!(self.pipeline.may_subscribe());
        self.pipeline.on_subscribed(self.now.at);
    }

    fn tally(&self) -> crate::Tally {
        self.pipeline.counts.now()
    }
}

const SECOND: Duration = Duration::from_secs(1);

// Acknowledging

#[test]
fn a_message_is_acknowledged_only_after_its_handler_succeeded() {
    let mut h = History::of(independent(4, 5));
    let tag = h.deliver(&message("a"));
    assert!(h.acknowledged.is_empty());
    h.done("a");
    assert!(h.acknowledged.contains(&tag));
    assert_eq!(h.tally().handled, 1);
}

#[test]
fn no_acknowledgement_reaches_over_a_message_that_is_still_at_work_or_waits() {
    let mut h = History::of(ordered(4, 16));
    let first = h.deliver(&numbered("a1", "a", 1));
    let parked = h.deliver(&numbered("b2", "b", 2));
    let failed = h.deliver(&message("free"));
    let last = h.deliver(&numbered("c1", "c", 1));
    h.done("a1");
    h.done("c1");
    h.fail("free");
    assert_eq!(h.acknowledged, BTreeSet::from([first, last]));
    assert!(!h.acknowledged.contains(&parked) && !h.acknowledged.contains(&failed));
}

#[test]
fn a_message_is_remembered_before_it_is_acknowledged() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.log_works = false;
    h.done("a");
    h.pass(SECOND * 5);
    assert!(h.acknowledged.is_empty(), "acknowledged without being remembered");
    h.log_works = true;
    h.pass(SECOND);
    assert_eq!(h.acknowledged.len(), 1);
    assert_eq!(h.tally().handled, 1);
}

#[test]
fn nothing_is_begun_while_the_log_is_down_and_everything_is_when_it_is_back() {
    let mut h = History::of(independent(4, 5));
    h.log_works = false;
    for id in ["a", "b"] {
        h.deliver(&message(id));
    }
    assert!(h.running().is_empty());
    h.log_works = true;
    h.pass(SECOND);
    assert_eq!(h.running(), ["a", "b"]);
}

// Duplicates

#[test]
fn a_message_whose_handler_failed_is_not_a_duplicate_when_it_comes_back() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.fail("a");
    let copy = h.confirm(Ok(()));
    h.deliver_envelope(copy);
    assert_eq!(h.running(), ["a"]);
    assert_eq!(h.tally().duplicates, 0);
}

#[test]
fn a_second_delivery_of_a_handled_message_is_acknowledged_and_not_handled() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.done("a");
    let second = h.deliver(&message("a"));
    assert!(h.running().is_empty() && h.acknowledged.contains(&second));
    assert_eq!(h.tally().duplicates, 1);
}

#[test]
fn a_second_copy_while_the_first_is_unsettled_is_acknowledged_at_once_and_the_first_kept() {
    for at_once in [1, 4] {
        let mut h = History::of(independent(at_once, 5));
        let other = h.deliver(&message("other"));
        let first = h.deliver(&message("a"));
        let second = h.deliver(&message("a"));
        assert_eq!(h.acknowledged, BTreeSet::from([second]), "{first} {other}");
        assert_eq!(h.running().len(), usize::from(at_once).min(2));
    }
}

#[test]
fn with_deduplication_off_a_second_copy_is_handled_too() {
    let mut h = History::with(Rules { deduplicate: false, ..rules(independent(4, 5)) });
    h.deliver(&message("a"));
    h.deliver(&message("a"));
    assert_eq!(h.running(), ["a", "a"]);
}

#[test]
fn two_origins_that_both_count_from_one_are_both_handled() {
    let mut h = History::of(independent(4, 5));
    for origin in ["shop", "warehouse"] {
        h.deliver(&Message { origin: ShortText::new(origin).ok(), ..message("1") });
    }
    assert_eq!(h.running(), ["1", "1"]);
}

#[test]
fn messages_without_an_id_are_each_handled_and_counted() {
    let mut h = History::of(independent(4, 5));
    for _ in 0..2 {
        h.deliver(&Message { id: None, ..message("x") });
    }
    assert_eq!(h.running(), ["-", "-"]);
    assert_eq!(h.tally().without_id, 2);
}

// Retries and dead letters

#[test]
fn the_original_is_acknowledged_only_after_the_retry_copy_is_confirmed() {
    let mut h = History::of(independent(4, 5));
    let tag = h.deliver(&message("a"));
    h.fail("a");
    assert!(h.acknowledged.is_empty());
    let copy = h.confirm(Ok(()));
    assert!(h.acknowledged.contains(&tag));
    assert_eq!(copy.route.to_string(), "correio.retry/q.retry.1s");
    assert_eq!(copy.decode().unwrap().attempt.get(), 2);
    assert_eq!(copy.properties.expiration, ShortText::new("1000").ok());
}

#[test]
fn a_copy_that_is_not_confirmed_is_published_again_with_growing_pauses_and_at_last_its_message_given_back() {
    let mut h = History::of(independent(4, 5));
    let tag = h.deliver(&message("a"));
    h.fail("a");
    let mut pauses = 0;
    while h.given_back.is_empty() {
        h.confirm(Err("unknown"));
        assert!(h.publishing.is_empty(), "published again at once: a hot loop");
        if h.given_back.is_empty() {
            h.pass(Duration::from_millis(999));
            assert!(h.publishing.is_empty(), "published again within a second");
            pauses += 1;
            h.pass(SECOND * 64);
        }
    }
    assert!(pauses >= 5);
    assert_eq!(h.given_back, [tag]);
    assert!(h.acknowledged.is_empty());
    assert_eq!(h.tally().handed_back, 1);
}

#[test]
fn without_its_delay_queue_a_message_is_retried_in_place_with_the_same_attempts_and_delays() {
    let mut h = History::of(independent(4, 1));
    h.deliver(&message("a"));
    h.fail("a");
    h.confirm(Err("no queue"));
    h.pass(Duration::from_millis(999));
    assert!(h.running().is_empty() && h.acknowledged.is_empty());
    h.pass(Duration::from_millis(1));
    assert_eq!((h.running.len(), h.running[0].1.attempt().get()), (1, 2));
    h.fail("a");
    assert_eq!(h.confirm(Ok(())).route.to_string(), "correio.dead/q.dead");
    assert_eq!((h.tally().retried, h.tally().dead), (1, 1));
}

#[test]
fn when_the_parking_queue_is_gone_the_consumer_tries_for_a_while_and_then_ends() {
    let mut h = History::of(independent(4, 0));
    let tag = h.deliver(&message("a"));
    h.fail("a");
    let began = h.now.at;
    while h.ended.is_none() {
        h.confirm(Err("no queue"));
        assert!(h.publishing.is_empty());
        h.pass(SECOND * 64);
    }
    assert!(h.now.at - began > SECOND * 60);
    assert_eq!(h.given_back, [tag]);
}

#[test]
fn an_ordered_message_whose_copy_cannot_be_published_goes_back_with_its_channel() {
    let mut h = History::of(Processing::OrderedByKey {
        keys_at_once: NonZeroU16::MIN,
        parked: NonZeroU16::MIN,
        gap_deadline: SECOND,
        gap_policy: GapPolicy::Skip,
        retry: RetrySchedule::none(),
    });
    h.deliver(&numbered("a", "k", 1));
    h.fail("a");
    while h.closes == 0 {
        h.confirm(Err("refused"));
        h.pass(SECOND * 64);
    }
    assert!(h.given_back.is_empty() && h.acknowledged.is_empty());
}

#[test]
fn without_retries_left_a_message_is_parked_with_its_reason_and_then_acknowledged() {
    let mut h = History::of(independent(4, 0));
    let tag = h.deliver(&message("a"));
    h.fail("a");
    assert!(h.acknowledged.is_empty());
    let letter = h.confirm(Ok(()));
    assert_eq!(letter.route.to_string(), "correio.dead/q.dead");
    assert_eq!(correio_message::DeadLetter::of(&letter).unwrap().error, "no stock");
    assert!(h.acknowledged.contains(&tag));
    assert_eq!(h.tally().dead, 1);
}

#[test]
fn a_replayed_dead_letter_is_not_taken_for_a_duplicate() {
    let mut h = History::of(independent(4, 0));
    h.deliver(&message("a"));
    h.fail("a");
    let letter = h.confirm(Ok(()));
    h.deliver_envelope(correio_message::replay(&letter, ShortText::new("q").unwrap()));
    assert_eq!(h.running(), ["a"]);
}

#[test]
fn what_cannot_be_read_and_what_nobody_handles_is_parked_at_once_untouched() {
    let mut h = History::of(independent(4, 5));
    let mut unreadable = message("a").encode(Durability::Persistent);
    unreadable.properties.headers.insert(ShortText::new(header::ATTEMPT).unwrap(), correio_message::Value::text("x"));
    h.deliver_envelope(unreadable);
    let letter = h.confirm(Ok(()));
    assert_eq!(correio_message::DeadLetter::of(&letter).unwrap().reason, DeadReason::Unreadable);
    assert_eq!(letter.body, "a");
    h.deliver(&Message { message_type: ShortText::new("strange").ok(), ..message("b") });
    let letter = h.confirm(Ok(()));
    assert_eq!(correio_message::DeadLetter::of(&letter).unwrap().reason, DeadReason::UnknownType);
    assert!(h.running().is_empty());
    assert_eq!(h.acknowledged.len(), 2);
}

#[test]
fn with_no_parking_queue_the_message_is_given_back_and_the_consumer_ends() {
    let mut rules = rules(independent(4, 0));
    rules.company.can_park = false;
    let mut h = History::with(rules);
    let tag = h.deliver(&message("a"));
    h.fail("a");
    assert_eq!(h.given_back, [tag]);
    assert!(
        h.ended.as_ref().is_some_and(|end| end.to_string().contains("message a") && end.to_string().contains("q.dead"))
    );
}

#[test]
fn a_dropped_message_is_acknowledged_and_counted() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&message("a"));
    h.end("a", Ok(Verdict::Drop { reason: "old".into() }));
    assert_eq!((h.acknowledged.len(), h.tally().dropped, h.tally().handled), (1, 1, 0));
}

// Order

#[test]
fn messages_of_a_key_are_handled_in_the_order_sent_however_they_arrive() {
    let mut h = History::of(ordered(4, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.done("a1");
    h.deliver(&numbered("a3", "a", 3));
    h.deliver(&numbered("a2", "a", 2));
    assert_eq!(h.running(), ["a2"]);
    h.done("a2");
    assert_eq!(h.running(), ["a3"]);
}

#[test]
fn a_failed_message_keeps_its_place_and_only_its_key_waits_without_holding_a_handler() {
    let mut h = History::of(ordered(1, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.deliver(&numbered("a2", "a", 2));
    h.deliver(&numbered("b1", "b", 1));
    h.fail("a1");
    assert_eq!(h.running(), ["b1"]);
    h.done("b1");
    assert!(h.running().is_empty(), "a2 overtook a1");
    h.pass(SECOND);
    assert_eq!(h.running(), ["a1"]);
    assert_eq!(h.running[0].1.attempt().get(), 2);
    h.done("a1");
    assert_eq!(h.running(), ["a2"]);
    assert!(h.publishing.is_empty());
}

#[test]
fn a_duplicate_a_dead_letter_and_an_unreadable_message_leave_no_gap() {
    let mut h = History::of(ordered(4, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.done("a1");
    h.deliver(&numbered("a1", "a", 1));
    h.deliver(&numbered("a2", "a", 2));
    h.end("a2", Ok(Verdict::DeadLetter { reason: "no".into() }));
    h.confirm(Ok(()));
    let mut unreadable = numbered("a3", "a", 3).encode(Durability::Persistent);
    unreadable.properties.headers.insert(ShortText::new(header::ATTEMPT).unwrap(), correio_message::Value::text("x"));
    h.deliver_envelope(unreadable);
    h.confirm(Ok(()));
    h.deliver(&numbered("a4", "a", 4));
    assert_eq!(h.running(), ["a4"]);
    assert_eq!((h.tally().gaps, h.tally().duplicates), (0, 1));
}

#[test]
fn a_gap_is_waited_for_then_given_up_and_counted_and_what_comes_late_is_handled_and_counted() {
    let mut h = History::of(ordered(4, 16));
    h.deliver(&numbered("a1", "a", 1));
    h.done("a1");
    h.deliver(&numbered("a3", "a", 3));
    h.pass(SECOND * 9);
    assert!(h.running().is_empty());
    h.pass(SECOND);
    assert_eq!(h.running(), ["a3"]);
    h.done("a3");
    h.deliver(&numbered("a2", "a", 2));
    h.done("a2");
    assert_eq!((h.tally().gaps, h.tally().out_of_order, h.tally().handled), (1, 1, 3));
}

#[test]
fn without_order_a_retried_message_is_overtaken() {
    let mut h = History::of(independent(1, 5));
    h.deliver(&numbered("a1", "a", 1));
    h.deliver(&numbered("a2", "a", 2));
    h.fail("a1");
    assert_eq!(h.running(), ["a2"]);
}

#[test]
fn the_prefetch_always_exceeds_what_may_be_parked() {
    for (keys, parked) in [(1, 1), (1, 60_000), (16, 256), (60_000, 60_000)] {
        assert!(ordered(keys, parked).prefetch() > parked);
    }
    // And so a consumer that is full of waiting messages still gets the one that they wait for.
    let mut h = History::of(ordered(1, 4));
    h.deliver(&numbered("a1", "a", 1));
    h.done("a1");
    for n in 3..=4 {
        h.deliver(&numbered(&format!("a{n}"), "a", n));
    }
    assert!(h.pipeline.has_room());
    h.deliver(&numbered("a2", "a", 2));
    assert_eq!(h.running(), ["a2"]);
}

// Losing the channel

#[test]
fn what_is_finished_after_its_channel_is_lost_is_remembered_and_acknowledges_nothing_on_the_next_one() {
    let mut h = History::of(independent(2, 5));
    for id in ["a", "b", "c"] {
        h.deliver(&message(id));
    }
    h.lose_channel();
    assert!(!h.pipeline.may_subscribe());
    h.done("a");
    h.fail("b");
    assert!(h.running().is_empty(), "c was begun although it comes again");
    h.subscribe();
    let tags = ["x", "a", "b", "c"].map(|id| h.deliver(&message(id)));
    assert_eq!(h.running(), ["x", "b"]);
    assert_eq!(h.acknowledged, BTreeSet::from([tags[1]]), "the duplicate alone is acknowledged");
    assert_eq!((h.tally().handled, h.tally().duplicates, h.tally().lost_acks), (1, 1, 1));
}

#[test]
fn after_a_lost_channel_order_goes_on_with_what_was_not_handled() {
    let mut h = History::of(ordered(4, 16));
    for n in 1..=3 {
        h.deliver(&numbered(&format!("a{n}"), "a", n));
    }
    h.done("a1");
    h.lose_channel();
    h.done("a2");
    h.subscribe();
    h.deliver(&numbered("a2", "a", 2));
    h.deliver(&numbered("a3", "a", 3));
    assert_eq!(h.running(), ["a3"]);
    assert_eq!((h.tally().gaps, h.tally().out_of_order, h.tally().duplicates), (0, 0, 1));
}

#[test]
fn a_claim_whose_admission_comes_after_the_channel_was_lost_is_given_up() {
    let mut h = History::of(independent(2, 5));
    h.log_works = false;
    h.deliver(&message("a"));
    h.lose_channel();
    h.log_works = true;
    h.pass(SECOND);
    assert!(h.running().is_empty());
    h.subscribe();
    h.deliver(&message("a"));
    assert_eq!(h.running(), ["a"]);
}

// Stopping

#[test]
fn stopping_finishes_what_was_begun_and_gives_the_rest_back() {
    let mut h = History::of(independent(1, 5));
    let tags = ["a", "b"].map(|id| h.deliver(&message(id)));
    h.pipeline.on_stopping();
    h.go_on();
    let late = h.deliver(&message("late"));
    assert_eq!(h.given_back, [tags[1], late]);
    assert!(!h.pipeline.is_drained());
    h.done("a");
    assert!(h.pipeline.is_drained());
    assert_eq!(h.acknowledged, BTreeSet::from([tags[0]]));
    assert_eq!((h.tally().not_started, h.tally().handed_back), (2, 0));
}

#[test]
fn stopping_an_ordered_consumer_gives_nothing_back_one_by_one() {
    let mut h = History::of(ordered(1, 16));
    for n in 1..=3 {
        h.deliver(&numbered(&format!("a{n}"), "a", n));
    }
    h.pipeline.on_stopping();
    h.go_on();
    h.done("a1");
    assert!(h.pipeline.is_drained() && h.running().is_empty());
    h.pipeline.on_drain_over();
    h.go_on();
    assert!(h.given_back.is_empty());
    assert_eq!((h.acknowledged.len(), h.tally().not_started), (1, 2));
}

#[test]
fn no_more_messages_are_begun_than_the_count_asked_for() {
    let stop_after_count = NonZeroU64::new(2);
    let mut h = History::with(Rules { stop_after_count, ..rules(independent(4, 5)) });
    for id in ["a", "b", "c"] {
        h.deliver(&message(id));
    }
    assert_eq!(h.running(), ["a", "b"]);
    h.done("a");
    h.fail("b");
    h.confirm(Ok(()));
    assert_eq!(h.running(), ["c"], "a retry sent round makes room");
    h.done("c");
    assert!(h.pipeline.has_reached_its_count());
}

// Acknowledging on receipt

#[test]
fn on_receipt_means_before_handling_and_what_fails_is_parked_without_retry() {
    let acknowledgement = Acknowledgement::OnDelivery;
    let mut h = History::with(Rules { acknowledgement, ..rules(independent(4, 5)) });
    let tag = h.deliver(&message("a"));
    assert!(h.acknowledged.contains(&tag));
    h.fail("a");
    assert_eq!(h.confirm(Ok(())).route.to_string(), "correio.dead/q.dead");
    assert_eq!((h.tally().retried, h.tally().dead), (0, 1));
}

#[test]
fn what_was_acknowledged_on_receipt_is_handled_although_its_channel_is_lost_or_the_consumer_stops() {
    let acknowledgement = Acknowledgement::OnDelivery;
    let mut h = History::with(Rules { acknowledgement, ..rules(independent(1, 5)) });
    for id in ["a", "b", "c"] {
        h.deliver(&message(id));
    }
    h.lose_channel();
    h.done("a");
    h.subscribe();
    h.pipeline.on_stopping();
    h.go_on();
    h.done("b");
    assert!(!h.pipeline.is_drained());
    h.done("c");
    assert!(h.pipeline.is_drained());
    assert_eq!((h.tally().handled, h.tally().lost), (3, 0));
}
