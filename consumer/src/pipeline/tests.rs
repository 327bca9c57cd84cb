//! The contract of the pipeline, told by histories: no broker, no clock, no handler that really runs.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, NonZeroU64},
    time::Duration,
};

use correio_guarantees::{DuplicateDetector, Failure, GapPolicy, RetrySchedule, Verdict};
use correio_message::{Destination, Durability, Key, Line, Message, MessageId, Sequence, Voids, header};
use uuid::Uuid;

use super::*;
use crate::{
    copies::NotCopied,
    handled_log::LogError,
    reply::{Answer, IntoAnswer},
};

mod acknowledging;
mod answering;
mod breaking;
mod duplicates;
mod ending;
mod failing;
mod ordering;
mod suspecting;

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
        budget: Budget { prefetch: processing.prefetch(), largest: 1_000_000, bytes: usize::MAX },
        queue: short("q"),
        subscription: "q".into(),
        processing,
        acknowledgement: Acknowledgement::AfterHandling,
        deduplicate: true,
        breaker: Some(BreakerLimits::default()),
        in_transactions: false,
        retention: Some(Duration::from_secs(3_600)),
        company: Company { parking: short("q.dead"), can_park: true, delays },
        stop_after_count: None,
        handlers: Arc::new(handlers),
        stopping: CancellationToken::new(),
        single_active: false,
        lease: Duration::from_secs(90),
        jitter: || 0.0,
        first_fence: 1_000,
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
                    Effect::Publish { ticket, copy } => self.publishing.push((ticket, *copy)),
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
        if self.pipeline.waits_for_acks() {
            self.pipeline.on_acks_taken();
            self.go_on();
        }
    }

    fn answer(&mut self, call: LogCall) -> LogAnswer {
        let failed = || LogError { step: "test", cause: "down".into() };
        let at = self.now.at;
        match call {
            LogCall::Abandon(claims) if self.log_works => {
                claims.iter().for_each(|claim| self.log.on_abandoned(claim));
                LogAnswer::Abandoned(Ok(()))
            }
            LogCall::Remember(claims) if self.log_works => {
                LogAnswer::Remembered(Ok(claims.iter().map(|claim| self.log.on_handled(claim, at)).collect()))
            }
            LogCall::Admit { claims, lease } if self.log_works => {
                LogAnswer::Admitted(Ok(claims.into_iter().map(|claim| self.log.admit(claim, lease, at)).collect()))
            }
            LogCall::Abandon(_) => LogAnswer::Abandoned(Err(failed())),
            LogCall::Remember(_) => LogAnswer::Remembered(Err(failed())),
            LogCall::Transact(_) => unreachable!("none of these histories has transactions"),
            LogCall::Admit { .. } => LogAnswer::Admitted(Err(failed())),
        }
    }

    fn running(&self) -> Vec<String> {
        let name = |(_, context): &(Ticket, Context)| context.id().map_or_else(|| "-".into(), ToString::to_string);
        self.running.iter().map(name).collect()
    }

    fn end(&mut self, id: &str, result: Result<Verdict, Failure>) {
        self.end_with(id, result.map(IntoAnswer::into_answer));
    }

    fn end_with(&mut self, id: &str, result: Result<Answer, Failure>) {
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
            "too large" => NotCopied::Unsendable(cause.to_owned()),
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
