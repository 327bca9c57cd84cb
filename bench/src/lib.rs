//! Speed beside peers, in one run: ratios, never a single absolute time.
//!
//! Each [`Way`] of sending or consuming runs in a process of its own, so that the CPU time told is that of the client alone. The ways take
//! turns, round after round; a [ratio](rounds::Rounds::ratio) divides what one way did by what its peer did in the same round, and the
//! median over the rounds is what counts: it holds when the machine's speed drifts.
//!
//! All peers of a comparison publish to the same queue with the same properties, headers and flags; or they consume, from the
//! same queue, messages of the same producer with the same prefetch. Every count is checked against what stands on the queue. Wrong counts and wrong outcomes are failures; a speed that was [wanted](verdict::WANTED) and not
//! reached is said and is none, because a check that depends on a busy machine's clock decides nothing.

pub mod amqplib;
pub mod child;
pub mod cpus;
pub mod disk;
pub mod half_load;
pub mod look_up;
pub mod peers;
pub mod rabbitmq_c;
pub mod resequencing;
pub mod rounds;
pub mod sample;
pub mod stalled;
pub mod table;
pub mod usage;
pub mod verdict;
mod way;

pub use way::{Group, Way, consumed};

/// What is measured: so many messages of so many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages a run.
    pub messages: u64,
    /// Bytes of each payload.
    pub size: usize,
    /// Unanswered messages at once.
    pub window: usize,
}

impl Load {
    /// The body of each message.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        (0..self.size).map(|i| b'a' + (i % 26) as u8).collect()
    }
}

/// Whatever went wrong while measuring.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
