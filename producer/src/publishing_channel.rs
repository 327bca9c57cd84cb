//! The channel with confirms: the only place that decides the order on the wire.
//!
//! One task owns the channel and everything about it. What to do is decided by the
//! [`ConfirmWindow`]; this only publishes, listens and reports.

use std::{pin::pin, sync::Arc, time::Duration};

use correio_broker_config::{Backoff, Connections, LeasedChannel};
use correio_guarantees::{
    Answer as Confirm, ConfirmWindow, CulpritSearch, DeadlineAction, Ended, Publish, Suspicion, WindowAdmission,
    WindowLimits,
};
use correio_message::{Durability, Lifetime, MessageId, Sequence};
use futures_util::StreamExt;
use lapin::{Channel, Confirmation, Event, options::ConfirmSelectOptions};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::yield_now,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    confirms::Confirms,
    connecting::{Fault, STEP_DEADLINE, reconnect},
    counts::{Counters, one},
    frame::Frame,
    health::HealthReport,
    outcome::Outcome,
    outgoing::{Outgoing, Ready},
    receipt::Promise,
    settings::ProducerSettings,
    submission::Cargo,
};

pub(crate) struct PublishingChannel {
    connections: Arc<Connections>,
    backoff: Backoff,
    /// The channel that is served has answered something: the next loss is met with a new one at once.
    is_answered: bool,
    /// So many channels in a row were lost soon after they were opened.
    short_lived: u32,
    opened_at: Instant,
    outgoing: Outgoing,
    window: ConfirmWindow<Held>,
    /// For the message that makes the broker close its channels.
    search: CulpritSearch,
    counters: Arc<Counters>,
    health: HealthReport,
    /// Callers hand in no more.
    closing: CancellationToken,
    /// What has no answer will not be waited for.
    give_up: CancellationToken,
}

/// What is kept of a message until its outcome, to send it again.
pub(crate) struct Held {
    pub(crate) cargo: Cargo,
    pub(crate) sequence: Option<Sequence>,
    /// When it expires: each sending has what is left until then.
    pub(crate) expires: Option<Instant>,
    pub(crate) reply: Option<Promise>,
    /// Its share of the buffer, until it has ended; what is ours takes none.
    pub(crate) _room: Option<OwnedSemaphorePermit>,
    pub(crate) purpose: Purpose,
}

impl Held {
    /// As it is to be published now.
    fn frame(&self) -> Frame {
        let frame = Frame::of(&self.cargo.envelope(Durability::Persistent));
        match self.expires {
            Some(expires) => frame.expiring_after(Lifetime::left(expires.saturating_duration_since(Instant::now()))),
            None => frame,
        }
    }
}

/// Why something is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody handed it in.
    Message,
    /// It fills holes, and is tried so often so far.
    Marker { tries: u32 },
}

/// Why a channel is no longer served.
enum End {
    /// All is done and nobody will send more.
    Finished,
    /// The channel or its connection is gone, or has to go.
    Lost(Fault),
}

impl PublishingChannel {
    pub(crate) fn new(
        settings: &ProducerSettings,
        connections: Arc<Connections>,
        outgoing: Outgoing,
        health: HealthReport,
        counters: Arc<Counters>,
        closing: CancellationToken,
        give_up: CancellationToken,
    ) -> Self {
        let window = settings.window_of_a_channel();
        Self {
            connections,
            backoff: Backoff::new(),
            is_answered: false,
            short_lived: 0,
            opened_at: Instant::now(),
            outgoing,
            // Bytes are bounded before, where callers wait for room: all that is accepted counts, not only what is published.
            window: ConfirmWindow::new(WindowLimits { messages: window, bytes: usize::MAX }),
            search: CulpritSearch::new(),
            counters,
            health,
            closing,
            give_up,
        }
    }

    /// Serves one channel after another until all is done.
    pub(crate) async fn run(mut self, first: LeasedChannel) {
        let mut lease = Some(first);
        while let Some(leased) = lease.take() {
            let channel = leased.channel();
            let selecting = timeout(STEP_DEADLINE, channel.confirm_select(ConfirmSelectOptions::default()));
            let end = match self.meanwhile(selecting).await {
                Some(Ok(Ok(()))) => self.serve(&leased).await,
                Some(Ok(Err(error))) => End::Lost(Fault::of(&error)),
                Some(Err(_)) => End::Lost(Fault::Silent("confirm.select")),
                None => End::Lost(Fault::Closing),
            };
            let fault = match end {
                End::Finished => {
                    if let Err(error) = leased.close().await {
                        tracing::debug!(%error, "all is confirmed, and the connection did not close politely");
                    }
                    break;
                }
                End::Lost(fault) => fault,
            };
            match &fault {
                // The message's outcome says it, or its owner wanted it.
                Fault::OfOneMessage { .. } | Fault::Closing => tracing::debug!(%fault, "the publishing channel ended"),
                _ => tracing::warn!(%fault, held = self.window.held(), "the publishing channel ended"),
            }
            leased.discard();
            self.health.on_lost();
            one(&self.counters.channels_lost);
            self.on_lost(&fault);
            if self.give_up.is_cancelled() || self.is_done() {
                break;
            }
            lease = self.next_lease(&fault).await;
            if lease.is_some() {
                one(&self.counters.reconnected);
            }
        }
        self.end_all();
    }

    /// A new channel; at once if the last one was of use. A broker that takes connections and answers nothing is tried with
    /// growing pauses: each try would send all of the window again.
    async fn next_lease(&mut self, fault: &Fault) -> Option<LeasedChannel> {
        if self.opened_at.elapsed() >= GOOD_WHILE {
            self.backoff.on_success();
            self.short_lived = 0;
        }
        self.short_lived += 1;
        let pause = match fault {
            // A search goes through many, and none of them is in doubt. Without an end to the culprits it must not be a storm.
            Fault::OfOneMessage { .. } if self.short_lived <= SEARCHING => Duration::ZERO,
            Fault::OfOneMessage { .. } => BREATH,
            _ if self.is_answered && self.short_lived <= LUCKLESS => Duration::ZERO,
            _ => self.backoff.next_delay(),
        };
        self.is_answered = false;
        let connections = self.connections.clone();
        let connecting = async move {
            sleep(pause).await;
            reconnect(&connections).await
        };
        // Refused for too long: what waits ends, and nothing more is taken.
        self.meanwhile(Box::pin(connecting)).await?.ok()
    }

    async fn serve(&mut self, leased: &LeasedChannel) -> End {
        let channel = leased.channel();
        let mut confirms = Confirms::new(channel);
        let mut events = pin!(leased.connection().events_listener());
        let mut given_up = pin!(self.give_up.clone().cancelled_owned());
        let mut closing = pin!(self.closing.clone().cancelled_owned());
        let mut timer = pin!(sleep(STEP_DEADLINE));
        let mut batch = Vec::with_capacity(BATCH);
        self.opened_at = Instant::now();
        self.health.on_open();
        // What was said before anybody listened.
        self.health.on_blocked(leased.is_blocked());
        loop {
            if let Err(fault) = self.publish_what_fits(channel, &mut confirms, &mut batch) {
                return End::Lost(self.last_words(channel, confirms, fault).await);
            }
            self.pronounce();
            if self.is_done() {
                return End::Finished;
            }
            let deadline = self.next_deadline();
            // A timer is set only to be earlier: that it rings too early costs less than to set it for each message.
            if let Some(deadline) = deadline
                && (deadline < timer.deadline() || timer.is_elapsed())
            {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                biased; // answers first: they free the room that messages wait for
                answer = confirms.next() => {
                    let mut next = Some(answer);
                    while let Some((publish, confirmation)) = next {
                        match confirmation {
                            Ok(confirmation) => self.on_confirmation(publish, confirmation),
                            Err(error) => return End::Lost(self.last_words(channel, confirms, Fault::of(&error)).await),
                        }
                        next = confirms.now();
                    }
                    self.pronounce();
                    // Those who waited for these outcomes run first, so that what they send next goes out in one write and not
                    // in one each (bench/ shows what that is worth).
                    yield_now().await;
                    self.outgoing.take_what_is_ready();
                }
                () = self.outgoing.receive(), if self.outgoing.wants_more() => {}
                () = &mut timer, if deadline.is_some() => {
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        // Some of those that are late may be answered, and only not have had their turn.
                        self.take_out_of_turn(&mut confirms);
                    }
                    if self.on_deadline() == DeadlineAction::KillChannel {
                        return End::Lost(Fault::Silent("a confirm"));
                    }
                }
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(%reason, "the broker reads nothing from this connection for now");
                        self.health.on_blocked(true);
                    }
                    Event::ConnectionUnblocked => self.health.on_blocked(false),
                    // Noticed also while nothing is under way: the next message finds a channel.
                    Event::Error(error) if !channel.status().connected() => {
                        return End::Lost(self.last_words(channel, confirms, Fault::of(&error)).await);
                    }
                    _ => {}
                },
                () = &mut closing, if !self.outgoing.is_closed() => self.outgoing.close(),
                () = &mut given_up => {
                    self.take_out_of_turn(&mut confirms);
                    return End::Lost(Fault::Closing);
                }
            }
        }
    }

    fn take_out_of_turn(&mut self, confirms: &mut Confirms<'_>) {
        for (publish, confirmation) in confirms.all_now() {
            // An error is every later publish's too, and so the next one's.
            if let Ok(confirmation) = confirmation {
                self.on_confirmation(publish, confirmation);
            }
        }
    }

    /// What the channel still says when it ends: answers that were there already, and why the broker closed it. A publish on
    /// a closed channel learns only that it is closed.
    async fn last_words(&mut self, channel: &Channel, mut confirms: Confirms<'_>, fault: Fault) -> Fault {
        let mut fault = fault;
        let until = Instant::now() + STEP_DEADLINE;
        let mut said = Vec::new();
        while !channel.status().connected()
            && !confirms.is_empty()
            && let Ok(next) = timeout_at(until, confirms.next()).await
        {
            said.push(next);
        }
        said.extend(confirms.all_now());
        for (publish, confirmation) in said {
            match confirmation {
                Ok(confirmation) => self.on_confirmation(publish, confirmation),
                Err(error) => {
                    let cause = Fault::of(&error);
                    if matches!(cause, Fault::OfOneMessage { .. }) {
                        fault = cause;
                    }
                }
            }
        }
        fault
    }

    /// Puts on the wire what the window admits: first what is sent again, in its original order, then what is new.
    ///
    /// In batches: the client library's thread is woken by the first of each, and does not fall asleep again between two.
    fn publish_what_fits(
        &mut self,
        channel: &Channel,
        confirms: &mut Confirms<'_>,
        batch: &mut Vec<(Publish, Frame)>,
    ) -> Result<(), Fault> {
        loop {
            if !channel.status().connected() {
                // Nothing is taken that could not leave.
                return Err(Fault::Gone("the channel was closed".to_owned()));
            }
            while batch.len() < BATCH
                && let Some(next) = self.next_frame()
            {
                batch.push(next);
            }
            if batch.is_empty() {
                return Ok(());
            }
            for (publish, frame) in batch.drain(..) {
                confirms.publish(publish, frame).map_err(|error| Fault::of(&error))?;
            }
        }
    }

    fn next_frame(&mut self) -> Option<(Publish, Frame)> {
        if self.window.unanswered() == 0 {
            self.search.on_all_answered();
        }
        if !self.search.may_publish() {
            return None;
        }
        if let Some((publish, held)) = self.window.next_resend() {
            self.search.on_publishing();
            one(&self.counters.resent);
            return Some((publish, held.frame()));
        }
        let (id, bytes) = self.outgoing.next()?;
        if self.window.admission(id, bytes) != WindowAdmission::Now {
            // No room; or the same id is outstanding, and what came after it must not overtake it.
            return None;
        }
        let Ready { id, held, bytes, deadline } = self.outgoing.take_next(self.window.is_idle())?;
        self.search.on_publishing();
        let frame = held.frame();
        let publish = self.window.on_publishing(id, held, bytes, deadline.into_std());
        Some((publish, frame))
    }

    fn on_confirmation(&mut self, publish: Publish, confirmation: Confirmation) {
        let (answer, returned) = match confirmation {
            Confirmation::Ack(returned) => (Confirm::Ack, returned),
            Confirmation::Nack(returned) => (Confirm::Nack, returned),
            // Confirms were selected, so this cannot be. Left unanswered, the message is not called confirmed.
            Confirmation::NotRequested => return,
        };
        // The return is some message's, not necessarily this one's: lapin hands it over with the next confirm.
        if let Some(returned) = returned
            && self.window.is_current(publish)
            && let Some(id) = returned.properties.message_id().as_ref().and_then(|id| MessageId::new(id.as_str()).ok())
        {
            self.window.on_returned(&id, format!("{} {}", returned.reply_code, returned.reply_text));
        }
        self.window.on_answered(publish, answer);
        self.is_answered = true;
    }

    fn on_lost(&mut self, fault: &Fault) {
        let waited_before = self.window.resends_waiting();
        self.window.on_channel_lost();
        match fault {
            Fault::OfOneMessage { missing, reason } => {
                // Those that were on the channel wait in front of those that were not sent again yet.
                let suspects = self.window.resends_waiting() - waited_before;
                if self.search.on_fault(suspects) == Suspicion::Found
                    && let Some(id) = self.window.first_waiting().cloned()
                    && let Some((held, tries)) = self.window.withdraw(&id)
                {
                    let reason = reason.clone();
                    let outcome = if *missing {
                        Outcome::Unroutable { reason, tries }
                    } else {
                        Outcome::Refused { reason, tries }
                    };
                    self.outgoing.on_ended(id, held, outcome);
                }
            }
            _ => self.search.on_channel_lost(),
        }
        self.pronounce();
    }

    /// Waits for something while no channel is served: takes what callers hand in, as far as there is room, and lets
    /// deadlines pass. `None`: given up, or nothing is left to do.
    async fn meanwhile<T>(&mut self, awaited: impl Future<Output = T>) -> Option<T> {
        let mut awaited = std::pin::pin!(awaited);
        loop {
            self.pronounce();
            if self.is_done() {
                return None;
            }
            let deadline = self.next_deadline();
            tokio::select! {
                come = &mut awaited => return Some(come),
                () = self.outgoing.receive(), if self.outgoing.wants_more() => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    // There is no channel to kill.
                    let _ = self.on_deadline();
                }
                () = self.closing.cancelled(), if !self.outgoing.is_closed() => self.outgoing.close(),
                () = self.give_up.cancelled() => return None,
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = self.window.next_deadline().map(Instant::from_std);
        self.outgoing.next_deadline().into_iter().chain(held).min()
    }

    fn on_deadline(&mut self) -> DeadlineAction {
        let now = Instant::now();
        self.outgoing.on_deadline(now);
        self.window.on_deadline(now.into_std())
    }

    fn pronounce(&mut self) {
        for Ended { id, message, tries, pronounced } in self.window.take_ended() {
            self.outgoing.on_ended(id, message, Outcome::of(pronounced, tries));
        }
        self.outgoing.tell();
    }

    fn is_done(&self) -> bool {
        self.outgoing.is_done() && self.window.is_idle()
    }

    /// Whatever is left has no answer and will have none.
    fn end_all(&mut self) {
        self.outgoing.end_all();
        self.window.on_channel_lost();
        while let Some(deadline) = self.window.next_deadline() {
            // There is no channel to kill.
            let _ = self.window.on_deadline(deadline);
        }
        self.pronounce();
        self.outgoing.forget_holes();
    }
}

/// So many messages are made ready before the first of them is handed to the client library.
const BATCH: usize = 64;
/// A channel that served so long was a good one.
const GOOD_WHILE: Duration = Duration::from_secs(10);
/// So many channels in a row may end soon for a message's fault before each new one waits for a moment.
const SEARCHING: u32 = 32;
const BREATH: Duration = Duration::from_millis(100);
/// So many channels in a row may be lost soon, each after some answers, before new ones come with growing pauses.
const LUCKLESS: u32 = 3;
