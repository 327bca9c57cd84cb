//! The loop around a pipeline: it carries out what the pipeline asks for and reports what happened. No opinions.

use std::{
    future::Future,
    pin::{Pin, pin},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt, StreamExt, future::try_join_all, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "metrics")]
use crate::reporting::Whereabouts;
use crate::{
    counts::Ended,
    error::ConsumeError,
    link::{Answer, Link, Looking},
    lookout::{Look, Lookout},
    pipeline::{Effect, Moment, Pipeline},
    work::{Done, Work},
};

/// A pipeline, what it has under way, and how it ends.
pub(crate) struct Subscription {
    pub(crate) pipeline: Pipeline,
    pub(crate) work: Work,
    pub(crate) idle: Option<Duration>,
    pub(crate) drain_deadline: Duration,
    /// Cancelled when the consumer is to stop.
    pub(crate) stop: CancellationToken,
    /// What the pipeline wants to end with.
    pub(crate) failure: Option<ConsumeError>,
    /// What is on its way to the socket of the channel that is served.
    pub(crate) frames: Frames,
    /// Whether the subscription still stands, when nothing comes.
    pub(crate) lookout: Lookout,
    /// A suspect waits for what is on its way.
    pub(crate) is_clearing: bool,
    #[cfg(feature = "metrics")]
    pub(crate) whereabouts: Whereabouts,
}

/// Why a channel is not served any longer.
#[derive(Debug)]
pub(crate) enum Over {
    /// The consumer stops; the channel is good.
    Stopping(Ended),
    /// The consumer ends with [`Subscription::failure`]; the channel is good.
    Failing,
    /// The pipeline wants everything on this channel to go back; the channel is good.
    Closing,
    /// The channel is gone.
    Lost(String),
}

impl Subscription {
    /// Serves a channel until it is over. Nothing of an earlier one is at work.
    pub(crate) async fn serve<L: Link>(&mut self, link: &mut L) -> Over {
        let mut active_at = Instant::now();
        self.pipeline.on_subscribed(active_at.into_std());
        #[cfg(feature = "metrics")]
        self.whereabouts.on_subscribed(true);
        self.lookout.on_subscribed(active_at.into_std());
        // One timer for all the looks that never come to pass: a busy loop has no time to set one at each turn.
        let mut look_at = pin!(sleep_until(active_at));
        let mut looking: Option<Looking> = None;
        loop {
            let now = Moment::now();
            self.pipeline.on_deadline(now);
            if let Some(over) = self.carry_out(link, now) {
                return over;
            }
            if self.pipeline.has_reached_its_count() {
                return Over::Stopping(Ended::CountReached);
            }
            if let Some(room) = self.pipeline.resubscription() {
                match link.resubscribe(self.pipeline.prefetch()).await {
                    Ok(left) => left.into_iter().for_each(|delivery| self.pipeline.on_delivery(delivery, now)),
                    Err(cause) => return Over::Lost(cause),
                }
                self.pipeline.on_resubscribed(room);
                continue;
            }
            let idle_at = self.idle_at(active_at);
            let wake = self.pipeline.next_deadline().map(Instant::from_std).into_iter().chain(idle_at).min();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Over::Stopping(Ended::Stopped),
                sent = self.frames.next() => if let Err(cause) = sent { return Over::Lost(cause) },
                done = self.work.next() => {
                    active_at = Instant::now();
                    self.on_done(done);
                }
                delivery = link.next(), if self.pipeline.has_room() => {
                    active_at = Instant::now();
                    self.lookout.on_delivery(active_at.into_std());
                    match delivery {
                        Some(Ok(delivery)) => self.pipeline.on_delivery(delivery, Moment::now()),
                        Some(Err(cause)) => return Over::Lost(cause),
                        None => return Over::Lost("the broker ended the subscription: is the queue gone?".to_owned()),
                    }
                    self.take_what_is_ready(link);
                }
                () = until(wake) => {
                    if idle_at.is_some_and(|at| at <= Instant::now()) {
                        return Over::Stopping(Ended::Idle);
                    }
                }
                look = seen(&mut looking) => {
                    let (is_empty_handed, now) = (self.pipeline.is_empty(), Instant::now().into_std());
                    if let Some(lost) = self.lookout.on_look(look, is_empty_handed, now) {
                        return Over::Lost(lost.to_owned());
                    }
                }
                () = &mut look_at, if looking.is_none() && self.lookout.next_look().is_some() => {
                    match self.lookout.next_look().map(Instant::from_std) {
                        Some(later) if later > Instant::now() => look_at.as_mut().reset(later),
                        _ => looking = Some(link.look()),
                    }
                }
            }
        }
    }

    /// When the wait for anything to come is over.
    fn idle_at(&self, active_at: Instant) -> Option<Instant> {
        let since = self.pipeline.retry_due().map_or(active_at, |due| active_at.max(Instant::from_std(due)));
        // What is held wakes the loop by itself, and then the time counts anew.
        self.idle.filter(|_| self.pipeline.is_empty()).map(|idle| since + idle)
    }

    fn on_done(&mut self, done: Done) {
        let now = Moment::now();
        let mut next = Some(done);
        while let Some(done) = next {
            match done {
                Done::Handler(ticket, result) => self.pipeline.on_result(ticket, result, now),
                Done::Aborted(ticket) => self.pipeline.on_aborted(ticket),
                Done::Copy(ticket, outcome) => self.pipeline.on_copy(ticket, outcome, now),
                Done::Log(answer) => self.pipeline.on_log_answer(answer, now),
            }
            next = self.work.try_next();
        }
    }

    /// Deliveries that are here already are taken at once: each turn of the loop costs more than a message.
    fn take_what_is_ready<L: Link>(&mut self, link: &mut L) {
        let now = Moment::now();
        for _ in 0..BATCH {
            if !self.pipeline.has_room() {
                return;
            }
            match link.next().now_or_never() {
                Some(Some(Ok(delivery))) => self.pipeline.on_delivery(delivery, now),
                // An end comes again when it is awaited.
                _ => return,
            }
        }
    }

    /// Carries out what the pipeline asks for, until it asks for nothing.
    fn carry_out<L: Link>(&mut self, link: &L, now: Moment) -> Option<Over> {
        let mut over = None;
        loop {
            self.pipeline.advance(now);
            let effects = self.pipeline.take_effects();
            let is_quiet = effects.is_empty();
            for effect in effects {
                match effect {
                    Effect::Handle { ticket, handler, context } => self.work.handle(ticket, handler, context),
                    Effect::Publish { ticket, copy } => self.work.publish(ticket, *copy),
                    Effect::GiveBack { tag } => {
                        self.frames.put(link.give_back(tag), 0);
                        self.pipeline.on_given_back(tag);
                    }
                    Effect::CloseChannel => over = over.or(Some(Over::Closing)),
                    Effect::End(failure) => {
                        self.failure.get_or_insert(failure);
                        over = Some(Over::Failing);
                    }
                }
            }
            let mut is_asked = false;
            while let Some(call) = self.pipeline.next_log_call(now.at) {
                is_asked = true;
                match self.work.ask(call) {
                    Some(answer) => self.pipeline.on_log_answer(answer, now),
                    None => break,
                }
            }
            if is_quiet && !is_asked && !self.clears_the_way(link, now) {
                break;
            }
        }
        self.acknowledge(link, now, false);
        #[cfg(feature = "metrics")]
        self.whereabouts.tell(&self.pipeline, &self.work);
        over
    }

    /// Whether a suspect may begin now: everything that is settled is acknowledged, and the broker has taken that in.
    fn clears_the_way<L: Link>(&mut self, link: &L, now: Moment) -> bool {
        if !self.pipeline.waits_for_acks() {
            return false;
        }
        if !std::mem::replace(&mut self.is_clearing, true) {
            self.acknowledge(link, now, true);
            self.frames.put(link.round_trip(), 0);
        }
        let is_clear = self.frames.is_empty();
        if is_clear {
            self.is_clearing = false;
            self.pipeline.on_acks_taken();
        }
        is_clear
    }

    fn acknowledge<L: Link>(&mut self, link: &L, now: Moment, all: bool) {
        let (acks, covered) = self.pipeline.take_acks(now.at, all);
        if !acks.is_empty() {
            let acks = acks.into_iter().map(|ack| link.ack(ack));
            self.frames.put(Box::pin(try_join_all(acks).map(|sent| sent.map(drop))), covered);
        }
    }

    /// Drives what is under way while there is no channel, until it is as wanted.
    pub(crate) async fn without_channel_until(&mut self, wanted: impl Fn(&Pipeline) -> bool) {
        loop {
            let now = Moment::now();
            self.pipeline.on_deadline(now);
            let _ = self.carry_out(&NoLink, now);
            if wanted(&self.pipeline) {
                return;
            }
            let wake = self.pipeline.next_deadline().map(Instant::from_std);
            tokio::select! {
                biased;
                done = self.work.next() => self.on_done(done),
                () = until(wake) => {}
            }
        }
    }

    /// The channel is gone: waits for what was at work on it, so that a message that comes again finds its first handling
    /// ended. Handlers end by their own deadline; one that blocks its thread past it is left behind.
    pub(crate) async fn on_lost(&mut self, handler_deadline: Duration) {
        self.leave_the_channel();
        let (stop, drain_deadline) = (self.stop.clone(), self.drain_deadline);
        let stopped = async {
            stop.cancelled().await;
            sleep(drain_deadline).await;
        };
        tokio::select! {
            biased;
            () = self.without_channel_until(Pipeline::may_subscribe) => return,
            () = sleep(handler_deadline + GRACE) => {}
            () = stopped => {}
        }
        self.abort_handlers().await;
    }

    fn leave_the_channel(&mut self) {
        #[cfg(feature = "metrics")]
        self.whereabouts.on_subscribed(false);
        self.pipeline.count_lost_acks(std::mem::take(&mut self.frames).unanswered());
        self.is_clearing = false;
        self.pipeline.on_channel_lost();
    }

    async fn abort_handlers(&mut self) {
        for done in self.work.abort_handlers(Instant::now() + GRACE).await {
            self.on_done(done);
        }
    }

    /// Stops: begins nothing new, finishes what was begun, settles it, gives the rest back and closes the channel.
    /// Bounded by the drain deadline and a little more for the last frames.
    pub(crate) async fn drain<L: Link>(&mut self, mut link: L, ordered: bool) {
        let until_then = Instant::now() + self.drain_deadline;
        self.pipeline.on_stopping();
        // An ordered subscription is never cancelled: with unsettled deliveries that reorders the queue. What it still
        // delivers stays unread and goes back with the channel.
        let mut is_open = !ordered;
        if is_open {
            self.frames.put(link.cancel(), 0);
        }
        let lost = loop {
            let now = Moment::now();
            self.pipeline.on_deadline(now);
            let _ = self.carry_out(&link, now);
            if self.pipeline.is_drained() && !is_open {
                break None;
            }
            let wake = self.pipeline.next_deadline().map(Instant::from_std);
            tokio::select! {
                biased;
                sent = self.frames.next() => if let Err(cause) = sent { break Some(cause) },
                delivery = link.next(), if is_open => match delivery {
                    Some(Ok(delivery)) => self.pipeline.on_delivery(delivery, Moment::now()),
                    Some(Err(cause)) => break Some(cause),
                    None => is_open = false,
                },
                done = self.work.next() => self.on_done(done),
                () = until(wake) => {}
                () = sleep_until(until_then) => break None,
            }
        };
        if let Some(cause) = lost {
            tracing::warn!(cause, "the channel was lost while stopping: what is finished now comes again");
            drop(link);
            self.drain_without_channel(until_then).await;
            return;
        }
        self.abort_handlers().await;
        let now = Moment::now();
        self.pipeline.on_drain_over(now.at);
        let _ = self.carry_out(&link, now);
        self.acknowledge(&link, now, true);
        let last = Instant::now() + GRACE;
        while !self.frames.is_empty() {
            tokio::select! {
                sent = self.frames.next() => if sent.is_err() { break },
                () = sleep_until(last) => break,
            }
        }
        self.pipeline.count_lost_acks(std::mem::take(&mut self.frames).unanswered());
        link.close().await;
        self.leave_the_log().await;
    }

    /// Stops while there is no channel: finishes what was begun, and remembers it.
    pub(crate) async fn drain_without_channel(&mut self, until_then: Instant) {
        self.leave_the_channel();
        self.pipeline.on_stopping();
        // Past the deadline, what is not finished is stopped.
        let _ = timeout_at(until_then, self.without_channel_until(Pipeline::is_drained)).await;
        self.abort_handlers().await;
        self.pipeline.on_drain_over(Moment::now().at);
        self.leave_the_log().await;
    }

    /// Gives claims up that are still held, so that another consumer with the same log need not wait for them.
    async fn leave_the_log(&mut self) {
        // A log that does not answer lets claims run out by itself.
        let _ = timeout(GRACE, self.without_channel_until(|pipeline| !pipeline.owes_log())).await;
    }
}

/// Dropped in the middle, it leaves no claims behind: another consumer with the same log would wait for them for ever.
impl Drop for Subscription {
    fn drop(&mut self) {
        let (done, open) = self.pipeline.claims();
        self.work.leave(done, open);
    }
}

impl Moment {
    pub(crate) fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { at: Instant::now().into_std(), unix_us: since_1970.as_micros().try_into().unwrap_or(u64::MAX) }
    }
}

/// Frames that are on their way to the socket, and how many messages each batch of acknowledgements stands for.
#[derive(Default)]
pub(crate) struct Frames {
    sending: FuturesUnordered<Sending>,
    covered: usize,
}

/// What became of a frame, and how many messages' acknowledgements it was.
type Sending = Pin<Box<dyn Future<Output = (Result<(), String>, usize)> + Send>>;

impl Frames {
    /// Starts a frame: polled once here, it is on the channel, in the order of these calls.
    fn put(&mut self, mut frame: Answer, covered: usize) {
        let started = (&mut frame).now_or_never();
        if let Some(Ok(())) = started {
            return;
        }
        self.covered += covered;
        self.sending.push(Box::pin(async move {
            match started {
                Some(sent) => (sent, covered),
                None => (frame.await, covered),
            }
        }));
    }

    /// The next one that is sent, or is known not to be; pends while none is on its way.
    async fn next(&mut self) -> Result<(), String> {
        match self.sending.next().await {
            Some((sent, covered)) => {
                if sent.is_ok() {
                    self.covered -= covered;
                }
                sent
            }
            None => std::future::pending().await,
        }
    }

    fn is_empty(&self) -> bool {
        self.sending.is_empty()
    }

    /// How many messages' acknowledgements are not known to have been sent.
    fn unanswered(&self) -> usize {
        self.covered
    }
}

/// No channel: what would be put on it is dropped.
struct NoLink;

impl Link for NoLink {
    async fn next(&mut self) -> Option<Result<crate::pipeline::Delivery, String>> {
        std::future::pending().await
    }

    fn ack(&self, _: correio_guarantees::Ack) -> Answer {
        Box::pin(std::future::ready(Ok(())))
    }

    fn give_back(&self, _: u64) -> Answer {
        Box::pin(std::future::ready(Ok(())))
    }

    fn cancel(&self) -> Answer {
        Box::pin(std::future::ready(Ok(())))
    }

    fn look(&self) -> Looking {
        Box::pin(std::future::ready(Look::Unanswered))
    }

    fn round_trip(&self) -> Answer {
        Box::pin(std::future::ready(Ok(())))
    }

    async fn resubscribe(&mut self, _: u16) -> Result<Vec<crate::pipeline::Delivery>, String> {
        Ok(Vec::new())
    }

    async fn close(self) {}
}

/// What a look that is under way has seen; it is then over.
async fn seen(looking: &mut Option<Looking>) -> Look {
    let Some(look) = looking else { return std::future::pending().await };
    let seen = look.await;
    *looking = None;
    seen
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// How many deliveries are taken in one turn of the loop.
const BATCH: usize = 64;
/// What is left for last frames and for handlers that are being stopped.
const GRACE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

#[cfg(test)]
mod tests;
