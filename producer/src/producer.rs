//! The handle that an application sends with.

mod delaying;
mod requesting;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use correio_broker_config::{ConnectError, ConnectionSettings, Connections, OwnQueue, Purpose};
use correio_message::{Envelope, Key, Message, MessageId};
use tokio::{
    sync::{Mutex, OnceCell, watch},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[cfg(feature = "metrics")]
use crate::reporting::Reporting;
use crate::{
    counts::{Counters, Counts, one},
    error::{ForwardError, KeyConflict, SendError, SendFailure},
    firing_channel::FiringChannel,
    health::{Health, HealthReport, HealthWatch},
    holes::{Choice, Decision, HoleRegistry, NoSuchHole},
    outcome::Outcome,
    outgoing::{Outgoing, OutgoingRules},
    publishing_channel::PublishingChannel,
    receipt::{ForwardReceipt, Pending, Receipt},
    reply_channel::Readiness,
    requests::Requests,
    settings::ProducerSettings,
    submission::{Buffer, Cargo, Entry, Patience, Room},
    telemetry::Publishing,
};

/// Sends messages and says truthfully what became of each.
///
/// Cheap to clone: all clones share the connections, the confirm window and the numbering, so that messages of one
/// key keep the order in which they were handed in. Two programs, or two `Producer::connect`s, have no order
/// between them.
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ProducerSettings,
    counters: Arc<Counters>,
    /// To the channels with confirms, all of which share one room.
    confirmed: Vec<Buffer>,
    holes: HoleRegistry,
    health: watch::Sender<Health>,
    #[cfg(feature = "metrics")]
    reporting: Reporting,
    fired: OnceCell<Buffer>,
    fire_connections: Arc<Connections>,
    requests: Arc<Requests>,
    /// Of the task that owns the reply queue, once there is one.
    replies: std::sync::Mutex<Option<watch::Receiver<Readiness>>>,
    reply_queue: OwnQueue,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Callers hand in no more.
    closing: CancellationToken,
    /// What is still without an answer will not be waited for.
    give_up: CancellationToken,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last handle is gone: its tasks finish what they have, and end.
        self.closing.cancel();
    }
}

impl Producer {
    /// Connects, and keeps connected from then on: after a loss the connection is made again and what was
    /// unanswered is sent again with the same id.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if there is no broker before the connect deadline, or at once if the broker does not let
    /// this user in or does not let it declare what is to be declared.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn connect(settings: ProducerSettings) -> Result<Self, ConnectError> {
        let connect = |at_most| {
            let named = ConnectionSettings::new("producer", settings.origin.as_str(), Purpose::Publish);
            let named = ConnectionSettings { at_most, ..named };
            let connections = Connections::new(settings.address.clone(), named);
            Arc::new(match &settings.topology {
                Some(topology) => connections.declaring(topology.clone()),
                None => connections,
            })
        };
        let (connections, fire_connections) = (connect(settings.channels), connect(1));
        let until = Instant::now() + settings.connect_deadline;
        let mut leases = Vec::with_capacity(settings.channels);
        for _ in 0..settings.channels {
            leases.push(connections.channel_within(until.saturating_duration_since(Instant::now())).await?);
        }
        let counters = Arc::new(Counters::default());
        let (closing, give_up) = (CancellationToken::new(), CancellationToken::new());
        let (room, health) = (Room::new(settings.buffer_bytes), watch::Sender::new(Health::default()));
        let (mut confirmed, mut tasks) = (Vec::new(), Vec::new());
        let holes = HoleRegistry::default();
        #[cfg(feature = "metrics")]
        let reporting = Reporting::begin(&settings.origin, counters.clone(), &health, room.clone());
        for (number, lease) in leases.into_iter().enumerate() {
            let (buffer, submissions) = Buffer::new(PLACES, room.clone());
            let rules = OutgoingRules {
                channel: number,
                queue_limit: settings.window_of_a_channel(),
                on_hole: settings.on_hole,
                registry: holes.clone(),
                confirm_deadline: settings.confirm_deadline,
                declared: settings.topology.clone(),
            };
            let channel = PublishingChannel::new(
                &settings,
                connections.clone(),
                Outgoing::new(rules, submissions, counters.clone()),
                HealthReport::new(health.clone()),
                counters.clone(),
                closing.clone(),
                give_up.clone(),
            );
            confirmed.push(buffer);
            tasks.push(tokio::spawn(channel.run(lease)));
        }
        let reply_queue = OwnQueue::replies(&fresh_source().to_string())
            .unwrap_or_else(|_| unreachable!("a UUID is short, and has none of what is reserved"));
        let shared = Shared {
            requests: Arc::new(Requests::new(settings.requests_at_once, counters.clone())),
            replies: std::sync::Mutex::default(),
            reply_queue,
            settings,
            counters,
            confirmed,
            holes,
            health,
            #[cfg(feature = "metrics")]
            reporting,
            fired: OnceCell::new(),
            fire_connections,
            tasks: Mutex::new(tasks),
            closing,
            give_up,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sends one message and waits for the broker's answer.
    ///
    /// At least once: [`Outcome::Confirmed`] is never said of a message that is on no queue. Waits at most the room
    /// deadline and then the confirm deadline.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the message never left this process. It carries the message back.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: once polled, the message may be with the broker even if this future is dropped. Give it an
    /// id of your own ([`Message::with_id`], [`fresh_id`](crate::fresh_id)), send it again with that, and the
    /// consumer handles it once.
    pub async fn send(&self, message: Message) -> Result<Outcome, SendError> {
        self.submit(message).await?.await
    }

    /// Hands one message in and returns at once when there is room; the [`Receipt`] tells later what became of it.
    ///
    /// Messages of one key are put on the wire in the order in which their `submit` calls were made.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the message never left this process. It carries the message back.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe until it returns: a dropped call has handed in nothing.
    pub async fn submit(&self, message: Message) -> Result<Receipt, SendError> {
        self.submit_with(message, self.patience()).await
    }

    /// As [`submit`](Self::submit), and never waits: without room it says so at once. For senders that have something better
    /// to do than to wait, or something to shed.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the message never left this process, with [`SendFailure::Full`] if there is no room. It carries the
    /// message back.
    pub fn try_submit(&self, mut message: Message) -> Result<Receipt, SendError> {
        let id = self.complete(&mut message);
        if let Err(cause) = self.fits(&message) {
            return Err(SendError { message: Box::new(message), cause });
        }
        let span = Publishing::of_message("publish", &id, &mut message);
        let (reply, pending) = Pending::new(id.clone(), span.clone());
        let patience = self.patience().until_end_of(&message);
        let lane = self.lane(&id, message.key.as_ref());
        let put = lane.put_now(id, Cargo::Message(Box::new(message)), patience, Some(reply));
        put.map_err(|(cargo, cause)| {
            span.on_failure(&cause);
            refused((cargo, cause))
        })?;
        one(&self.shared.counters.accepted);
        Ok(Receipt(pending))
    }

    async fn submit_with(&self, mut message: Message, patience: Patience) -> Result<Receipt, SendError> {
        let id = self.complete(&mut message);
        if let Err(cause) = self.fits(&message) {
            return Err(SendError { message: Box::new(message), cause });
        }
        let span = Publishing::of_message("publish", &id, &mut message);
        let patience = patience.until_end_of(&message);
        let lane = self.lane(&id, message.key.as_ref());
        self.accept(lane, id, Cargo::Message(Box::new(message)), patience, span).await.map(Receipt).map_err(refused)
    }

    /// Hands in an envelope that is complete as it is: a copy for a retry, a dead letter or a replay. Only the id
    /// is made, where there is none. It is not numbered: a copy keeps the number of its original.
    ///
    /// # Errors
    ///
    /// [`ForwardError`] if it never left this process. It carries the envelope back.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe until it returns, as [`Producer::submit`] is.
    pub async fn forward(&self, mut envelope: Envelope) -> Result<ForwardReceipt, ForwardError> {
        let said = envelope.properties.message_id.as_ref().and_then(|text| MessageId::new(text).ok());
        let id = said.unwrap_or_else(|| {
            let id = crate::fresh_id();
            envelope.properties.message_id = Some(id.to_text());
            id
        });
        // No payload limit of ours: what the broker has once taken, a copy of it fits too.
        if let Err(cause) = headers_fit(envelope.properties.weight()) {
            return Err(ForwardError { envelope: Box::new(envelope), cause });
        }
        let span = Publishing::of_copy(&id, &envelope);
        let lane = self.lane(&id, None);
        let accepted = self.accept(lane, id, Cargo::Envelope(Box::new(envelope)), self.patience(), span).await;
        accepted.map(ForwardReceipt).map_err(|(cargo, cause)| match cargo {
            Cargo::Envelope(envelope) => ForwardError { envelope, cause },
            Cargo::Message(_) | Cargo::Delayed(_) => unreachable!("an envelope was put in"),
        })
    }

    /// Sends a message again that left a hole in the order of its key, under its id and its number: what its key's consumer
    /// waits for. The key goes on behind it: what was handed in before this call still comes back, what is handed in after it is
    /// taken.
    ///
    /// # Errors
    ///
    /// [`NoSuchHole`] if no key is stopped by this message.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe until it returns: a dropped call has decided nothing.
    pub async fn resend(&self, id: &MessageId) -> Result<Receipt, NoSuchHole> {
        // The message has its span, and its sender's context in its headers.
        let (reply, pending) = Pending::new(id.clone(), Publishing::none());
        self.decide(id, Choice::Resend(reply.made(Instant::now()))).await?;
        Ok(Receipt(pending))
    }

    /// Gives a message up that left a hole in the order of its key: nobody is to wait for its number. That travels on the
    /// key's next message, or on a marker of its own if none comes for a moment. The key goes on.
    ///
    /// # Errors
    ///
    /// [`NoSuchHole`] if no key is stopped by this message.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe until it returns: a dropped call has decided nothing.
    pub async fn void(&self, id: &MessageId) -> Result<(), NoSuchHole> {
        self.decide(id, Choice::Void).await
    }

    async fn decide(&self, id: &MessageId, choice: Choice) -> Result<(), NoSuchHole> {
        let shared = &self.shared;
        let lane = &shared.confirmed[shared.holes.channel_of(id)?];
        let place = lane.place().await.ok_or_else(|| NoSuchHole { id: id.clone() })?;
        shared.holes.take(id)?;
        place.send(Entry::Decision(Decision { id: id.clone(), choice }));
        Ok(())
    }

    /// The messages that left a hole in the order of their keys and wait for a decision, in no particular order.
    #[must_use]
    pub fn holes(&self) -> Vec<MessageId> {
        self.shared.holes.ids()
    }

    /// Hands one message to the connection and never learns what became of it: fire and forget.
    ///
    /// At most once: the message may be lost, on the way or because no queue is there, and nobody is told. It is
    /// transient and, key or not, has no number: nobody could say which numbers were lost.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the message never left this process; past the deadline for room it is dropped and counted.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe until it returns: a dropped call has handed in nothing.
    pub async fn fire(&self, mut message: Message) -> Result<MessageId, SendError> {
        let id = self.complete(&mut message);
        if let Err(cause) = self.fits(&message) {
            return Err(SendError { message: Box::new(message), cause });
        }
        let shared = &self.shared;
        if shared.confirmed.iter().any(Buffer::is_closed) {
            return Err(SendError { message: Box::new(message), cause: SendFailure::Closed });
        }
        let buffer = shared.fired.get_or_init(|| self.open_fire()).await;
        let span = Publishing::of_message("fire", &id, &mut message);
        let patience = self.patience().until_end_of(&message);
        match buffer.put(id.clone(), Cargo::Message(Box::new(message)), patience, None).await {
            Ok(()) => Ok(id),
            Err(given_back) => {
                one(&shared.counters.fire_dropped);
                span.on_failure(&given_back.1);
                Err(refused(given_back))
            }
        }
    }

    /// Whether the channels with confirms are open, and whether the broker reads from them: now, and whenever that changes.
    #[must_use]
    pub fn health(&self) -> HealthWatch {
        HealthWatch::of(&self.shared.health)
    }

    /// What this producer has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Takes nothing new, lets what was handed in come to its outcome and requests to their replies, deletes the reply queue
    /// and closes the connections.
    ///
    /// Waits at most `within`, and then some seconds for the connections to end; what has no answer by then ends
    /// [`Outcome::Unknown`], and a request [`RequestError::Closed`](crate::RequestError::Closed).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped, it leaves a producer that takes nothing new and ends by itself.
    pub async fn close(&self, within: Duration) {
        let shared = &self.shared;
        for lane in &shared.confirmed {
            lane.close();
        }
        shared.requests.close();
        if let Some(fired) = shared.fired.get() {
            fired.close();
        }
        shared.closing.cancel();
        let until = Instant::now() + within;
        let mut tasks = shared.tasks.lock().await;
        for mut task in tasks.drain(..) {
            if timeout_at(until, &mut task).await.is_err() {
                shared.give_up.cancel();
                // Giving up takes closing a connection, whose own deadlines are shorter than this.
                if timeout(GIVING_UP, &mut task).await.is_err() {
                    task.abort();
                }
            }
        }
        // What an application that ends now has counted last.
        #[cfg(feature = "metrics")]
        shared.reporting.report();
    }

    /// Fills in what the sender left out.
    fn complete(&self, message: &mut Message) -> MessageId {
        let id = message.id.get_or_insert_with(crate::fresh_id).clone();
        if message.origin.is_none() {
            message.origin = Some(self.shared.settings.origin.clone());
        }
        if message.sent_at_us.is_none() {
            message.sent_at_us = Some(crate::now_us());
        }
        // Numbers are given by the channel that decides the order, and by nothing else.
        message.sequence = None;
        id
    }

    fn fits(&self, message: &Message) -> Result<(), SendFailure> {
        let (size, limit) = (message.payload.len(), self.shared.settings.payload_limit);
        if size > limit {
            return Err(SendFailure::TooLarge { size, limit });
        }
        if let Some(what) = KeyConflict::of(message) {
            return Err(SendFailure::KeyWith { what });
        }
        headers_fit(message.headers_weight())
    }

    /// As the settings say.
    fn patience(&self) -> Patience {
        let settings = &self.shared.settings;
        Patience { room: settings.room_deadline, answer: settings.confirm_deadline, expires: None }
    }

    /// To the channel of its key, or where it has none, of its id: the same id twice is seen by the same channel.
    fn lane(&self, id: &MessageId, key: Option<&Key>) -> &Buffer {
        let lanes = &self.shared.confirmed;
        if let [only] = &lanes[..] {
            return only;
        }
        let mut hasher = DefaultHasher::new();
        match key {
            Some(key) => key.hash(&mut hasher),
            None => id.hash(&mut hasher),
        }
        &lanes[(hasher.finish() % lanes.len() as u64) as usize]
    }

    async fn accept(
        &self,
        lane: &Buffer,
        id: MessageId,
        cargo: Cargo,
        patience: Patience,
        span: Publishing,
    ) -> Result<Pending, (Cargo, SendFailure)> {
        let (reply, pending) = Pending::new(id.clone(), span.clone());
        let put = lane.put(id, cargo, patience, Some(reply)).await;
        put.inspect_err(|(_, cause)| span.on_failure(cause))?;
        one(&self.shared.counters.accepted);
        Ok(pending)
    }

    async fn open_fire(&self) -> Buffer {
        let shared = &self.shared;
        let (buffer, submissions) = Buffer::new(PLACES, Room::new(shared.settings.buffer_bytes));
        let channel = FiringChannel::new(
            shared.fire_connections.clone(),
            submissions,
            shared.counters.clone(),
            shared.closing.clone(),
            shared.give_up.clone(),
        );
        let mut tasks = shared.tasks.lock().await;
        if shared.closing.is_cancelled() {
            // Closed meanwhile, and nobody would wait for it.
            buffer.close();
        } else {
            tasks.push(tokio::spawn(channel.run()));
        }
        buffer
    }
}

/// How many messages may stand between the callers and the channel's task.
const PLACES: usize = 256;
/// Room for properties in one frame: RabbitMQ negotiates 128 KiB.
const HEADERS_LIMIT: usize = 100 * 1024;
/// How long a task may take to give up.
const GIVING_UP: Duration = Duration::from_secs(15);

fn refused((cargo, cause): (Cargo, SendFailure)) -> SendError {
    SendError { message: cargo.into_message(), cause }
}

fn headers_fit(size: usize) -> Result<(), SendFailure> {
    if size > HEADERS_LIMIT {
        return Err(SendFailure::HeadersTooLarge { size, limit: HEADERS_LIMIT });
    }
    Ok(())
}

/// A source is one running producer.
pub(crate) fn fresh_source() -> Uuid {
    Uuid::now_v7()
}
