//! Work queues for journeys: made as a user makes them, filled with messages whose sending is confirmed.

use std::{num::NonZeroU32, time::Duration};

use correio_broker_config::{Address, parking_queue_name};
use correio_lab::broker::{Login, Node};
use correio_message::{DeadLetter, DeadReason, Destination, Durability, Envelope, Message, ShortText, dead_letter};
use correio_producer::{Producer, ProducerSettings};

use crate::programs::Program;

/// A work queue with retry and parking queues, made by `broker apply`. Give each test a name of its own.
#[derive(Debug)]
pub struct WorkQueue<'n> {
    node: &'n Node,
    name: String,
}

impl<'n> WorkQueue<'n> {
    /// Many consumers share it.
    pub async fn shared(node: &'n Node, name: &str) -> Self {
        Self::made(node, name, &[]).await
    }

    /// One consumer at a time.
    pub async fn ordered(node: &'n Node, name: &str) -> Self {
        Self::made(node, name, &["--ordered"]).await
    }

    async fn made(node: &'n Node, name: &str, more: &[&str]) -> Self {
        let args = ["apply", "--queue", name].into_iter().chain(more.iter().copied());
        let applied =
            Program::new("broker").args(args).env("AMQP_URL", node.amqp_url(Login::Lab)).finish(PATIENCE).await;
        assert_eq!(applied.code, Some(0), "broker apply: {applied}");
        node.note_declared();
        Self { node, name: name.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A message to it.
    #[must_use]
    pub fn message(&self, payload: impl Into<bytes::Bytes>) -> Message {
        Message::new(Destination::queue(&self.name).expect("a short name"), payload)
    }

    /// Puts messages into it and waits until each is confirmed.
    pub async fn fill(&self, messages: impl IntoIterator<Item = Message>) {
        let producer = self.producer(Login::Producer).await;
        let mut receipts = Vec::new();
        for message in messages {
            receipts.push(producer.submit(message).await.expect("handed in"));
        }
        for receipt in receipts {
            let outcome = receipt.await.expect("published");
            assert!(outcome.is_confirmed(), "{outcome}");
        }
        producer.close(PATIENCE).await;
    }

    /// Puts a message for each line into it.
    pub async fn fill_lines<'l>(&self, lines: impl IntoIterator<Item = &'l str>) {
        self.fill(lines.into_iter().map(|line| self.message(line.to_owned()))).await;
    }

    /// Parks messages as a consumer would have, and waits until each is confirmed.
    pub async fn park(&self, messages: impl IntoIterator<Item = Message>, reason: DeadReason) {
        self.forward(messages.into_iter().map(|message| self.letter(message, reason))).await;
    }

    /// A message as a consumer would have parked it.
    #[must_use]
    pub fn letter(&self, message: Message, reason: DeadReason) -> Envelope {
        let queue = ShortText::new(&self.name).expect("a short name");
        let parking = parking_queue_name(&queue).expect("a short name");
        let letter = DeadLetter {
            reason,
            error: "no stock".to_owned(),
            queue,
            at_us: 1_700_000_001_000_000,
            attempts: NonZeroU32::new(6).expect("not zero"),
            first_failed_at_us: Some(1_700_000_000_000_000),
            remembered_for_us: None,
        };
        dead_letter(&message.encode(Durability::Persistent), parking, &letter)
    }

    /// Publishes envelopes as they are, and waits until each is confirmed.
    pub async fn forward(&self, envelopes: impl IntoIterator<Item = Envelope>) {
        let producer = self.producer(Login::Lab).await;
        let mut receipts = Vec::new();
        for envelope in envelopes {
            receipts.push(producer.forward(envelope).await.expect("handed in"));
        }
        for receipt in receipts {
            let outcome = receipt.await.expect("published");
            assert!(outcome.is_confirmed(), "{outcome}");
        }
        producer.close(PATIENCE).await;
    }

    /// How many messages are ready in it.
    pub async fn depth(&self) -> u64 {
        self.node.queue_depth(&self.name).await.expect("a depth")
    }

    /// How many dead letters are ready in its parking queue.
    pub async fn dead(&self) -> u64 {
        self.node.queue_depth(&format!("{}.dead", self.name)).await.expect("a depth")
    }

    /// Waits until nobody holds a dead letter: the broker notices the end of a killed process a moment later.
    pub async fn until_no_letter_is_held(&self) {
        let parking = format!("{}.dead", self.name);
        let given_back = async {
            loop {
                let queues = self.node.list_queues().await.expect("the queues");
                if queues.iter().any(|(name, _, held)| *name == parking && *held == 0) {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(PATIENCE, given_back).await.is_ok(), "letters of {} are held", self.name);
    }

    /// Waits until as many messages are ready in it.
    pub async fn until_depth(&self, wanted: impl Fn(u64) -> bool) {
        let reached = async {
            while !wanted(self.depth().await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("{} holds {}", self.name, self.depth().await);
        }
    }

    async fn producer(&self, login: Login) -> Producer {
        let address = Address::parse(&self.node.amqp_url(login)).expect("an address");
        Producer::connect(ProducerSettings::new(address, "tests").expect("a short origin")).await.expect("connected")
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
