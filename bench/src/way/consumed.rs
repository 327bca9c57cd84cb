//! Consuming from a queue that is full, each message once.
//!
//! Timed from the broker's answer to the subscription to the end of the connection: it is closed by request and answer behind the
//! last acknowledgement, so that by then the broker has read all of them. What closing costs is in it for everybody, ours with
//! a second connection for copies.

pub(super) mod lapin;
pub(super) mod ours;

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use bytes::Bytes;
use correio_message::{Key, Message, ShortText};
use correio_producer::{Address, Producer, ProducerSettings, Receipt};

use super::ours::{CLOSED, to};
use crate::{
    Error, Load,
    sample::{Ends, Sample},
};

/// Unsettled deliveries at once, for everybody: what a consumer of ours asks for that orders by key and is not told otherwise.
pub const PREFETCH: u16 = 320;
/// Among so many keys the messages are spread.
pub const KEYS: u64 = 1_000;

/// Fills the queue as our producer does it: with ids, keys and sequences, a number in front of each payload.
///
/// # Errors
///
/// When a message is not confirmed.
pub async fn fill(url: &str, queue: &str, load: Load) -> Result<(), Error> {
    // A producer of its own for each filling, so that its lines begin at 1: a consumer that meets them later waits a little for
    // what was before.
    let settings = ProducerSettings::new(Address::parse(url)?, "bench")?.window(WINDOW);
    let producer = Producer::connect(settings).await?;
    let destination = to(queue)?;
    let kind = ShortText::new("bench")?;
    let mut payload = load.payload();
    let mut receipts: VecDeque<Receipt> = VecDeque::with_capacity(WINDOW);
    for number in 0..load.messages {
        let place = payload.first_chunk_mut().ok_or(TOO_SMALL)?;
        *place = number.to_be_bytes();
        let key = Key::new(format!("key-{}", scattered(number) % KEYS))?;
        let message = Message::new(destination.clone(), Bytes::copy_from_slice(&payload));
        receipts.push_back(producer.submit(message.with_type(kind.clone()).with_key(key)).await?);
        if receipts.len() >= WINDOW {
            confirmed(receipts.pop_front()).await?;
        }
    }
    while !receipts.is_empty() {
        confirmed(receipts.pop_front()).await?;
    }
    producer.close(CLOSED).await;
    Ok(())
}

async fn confirmed(receipt: Option<Receipt>) -> Result<(), Error> {
    let Some(receipt) = receipt else { return Ok(()) };
    let outcome = receipt.await?;
    if outcome.is_confirmed() { Ok(()) } else { Err(format!("the queue was not filled: {outcome:?}").into()) }
}

/// Numbers that follow each other lie far apart, without a pattern (SplitMix64).
pub(crate) fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Which messages were read.
pub(in crate::way) struct Seen {
    messages: u64,
    bits: Vec<AtomicU64>,
    consumed: AtomicU64,
    wrong: AtomicU64,
}

impl Seen {
    pub(in crate::way) fn none_of(messages: u64) -> Self {
        let bits = (0..messages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { messages, bits, consumed: AtomicU64::new(0), wrong: AtomicU64::new(0) }
    }

    pub(in crate::way) fn on_message(&self, payload: &[u8]) {
        let number = payload.first_chunk().map(|number| u64::from_be_bytes(*number)).filter(|n| *n < self.messages);
        let is_new = number.is_some_and(|number| {
            let bit = 1 << (number % 64);
            self.bits[(number / 64) as usize].fetch_or(bit, Ordering::Relaxed) & bit == 0
        });
        let count = if is_new { &self.consumed } else { &self.wrong };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::way) fn ends(&self) -> Ends {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ends { consumed: now(&self.consumed), wrong: now(&self.wrong), ..Ends::default() }
    }
}

/// Runs a way on a runtime that has one thread.
pub(super) async fn on_one_thread(
    url: &str,
    queue: &str,
    load: Load,
    way: impl AsyncFn(&str, &str, Load) -> Result<Sample, Error> + Send + 'static,
) -> Result<Sample, Error> {
    let (url, queue) = (url.to_owned(), queue.to_owned());
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(way(&url, &queue, load))
    });
    tokio::task::spawn_blocking(|| thread.join()).await?.map_err(|_| "the thread panicked")?
}

const WINDOW: usize = 1_000;
const TOO_SMALL: &str = "a message that is consumed needs 8 bytes for its number";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_read_twice_is_wrong_and_so_is_one_that_nobody_sent() {
        let seen = Seen::none_of(65);
        for number in [0_u64, 64, 64, 65] {
            seen.on_message(&number.to_be_bytes());
        }
        seen.on_message(b"short");
        assert_eq!(seen.ends(), Ends { consumed: 2, wrong: 3, ..Ends::default() });
    }

    #[test]
    fn everybody_has_the_prefetch_of_a_consumer_that_orders_by_key() {
        assert_eq!(correio_consumer::Processing::ordered_by_key().prefetch(), PREFETCH);
        assert_eq!(ours::independent_processing().prefetch(), PREFETCH);
    }
}
