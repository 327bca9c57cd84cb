//! How a producer behaves. The defaults are safe in production: confirms on, durable, every wait bounded.

use std::time::Duration;

use correio_broker_config::{Address, Topology};
use correio_message::{ShortText, TooLong};

use crate::holes::OnHole;

/// How a [`Producer`](crate::Producer) behaves.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    pub(crate) address: Address,
    pub(crate) origin: ShortText,
    pub(crate) window: usize,
    pub(crate) channels: usize,
    pub(crate) on_hole: OnHole,
    pub(crate) buffer_bytes: usize,
    pub(crate) payload_limit: usize,
    pub(crate) room_deadline: Duration,
    pub(crate) confirm_deadline: Duration,
    pub(crate) connect_deadline: Duration,
    pub(crate) requests_at_once: usize,
    pub(crate) topology: Option<Topology>,
}

impl ProducerSettings {
    /// A producer for this broker, under the name of the application.
    ///
    /// The origin goes with every message (`app_id`) and is a part of its identity: two applications that both
    /// count their ids from 1 do not take each other's messages for duplicates.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if the origin is over 255 bytes.
    pub fn new(address: Address, origin: impl AsRef<str>) -> Result<Self, TooLong> {
        Ok(Self {
            address,
            origin: ShortText::new(origin)?,
            window: 1_000,
            channels: 1,
            on_hole: OnHole::default(),
            buffer_bytes: 64 * 1024 * 1024,
            payload_limit: 16 * 1024 * 1024,
            room_deadline: Duration::from_secs(30),
            confirm_deadline: Duration::from_secs(30),
            connect_deadline: Duration::from_secs(30),
            requests_at_once: 1_000,
            topology: None,
        })
    }

    /// How many messages may be unanswered at once (1,000, the most that still gains; at least 1).
    #[must_use]
    pub fn window(mut self, messages: usize) -> Self {
        self.window = messages.clamp(1, 100_000);
        self
    }

    /// Over how many channels messages are spread, 1 to 4 (1): each has a connection of its own and a share of the window, so that
    /// one that is lost, or closed for a message's fault, holds up only its share.
    ///
    /// One key stays on one channel, so that order by key is kept. Messages without a key that go over different channels
    /// have no order between them.
    #[must_use]
    pub fn channels(mut self, channels: usize) -> Self {
        self.channels = channels.clamp(1, 4);
        self
    }

    /// What happens to a key when a message of it is not on its queue for certain ([`OnHole::Stop`]).
    #[must_use]
    pub fn on_hole(mut self, on_hole: OnHole) -> Self {
        self.on_hole = on_hole;
        self
    }

    pub(crate) fn window_of_a_channel(&self) -> usize {
        self.window.div_ceil(self.channels)
    }

    /// How many bytes of messages may be held in all: waiting, unanswered, or not yet pronounced (64 MiB). A
    /// single message that is larger is sent alone.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes.clamp(1, u32::MAX as usize);
        self
    }

    /// The largest payload (16 MiB, RabbitMQ's own limit from 4.0 on).
    #[must_use]
    pub fn payload_limit(mut self, bytes: usize) -> Self {
        self.payload_limit = bytes;
        self
    }

    /// How long a call waits for room in the buffer (30 s).
    #[must_use]
    pub fn room_deadline(mut self, deadline: Duration) -> Self {
        self.room_deadline = deadline;
        self
    }

    /// How long after it was accepted a message may go without an answer, resends included (30 s): then its
    /// outcome is [`Unknown`](crate::Outcome::Unknown), or it comes back if its turn to be published never came.
    #[must_use]
    pub fn confirm_deadline(mut self, deadline: Duration) -> Self {
        self.confirm_deadline = deadline;
        self
    }

    /// How long [`Producer::connect`](crate::Producer::connect) tries to reach the broker (30 s).
    #[must_use]
    pub fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.connect_deadline = deadline;
        self
    }

    /// How many [`request`](crate::Producer::request)s may wait for their replies at once (1,000; at least 1). Further ones wait
    /// for a place, within their deadlines.
    #[must_use]
    pub fn requests_at_once(mut self, requests: usize) -> Self {
        self.requests_at_once = requests.clamp(1, 100_000);
        self
    }

    /// Declare this on each new connection, the first one and those after a loss (nothing). The user needs configure rights
    /// on it, which the compose file's `producer` has not: there `cargo broker apply` declares.
    #[must_use]
    pub fn declare(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }
}
