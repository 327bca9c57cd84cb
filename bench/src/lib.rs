//! Speed beside peers, in one run: ratios of medians, never a single absolute time.

pub mod confirmed;
pub mod table;

/// What is measured: so many messages of so many bytes, so often.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages a run.
    pub messages: u64,
    /// Bytes of each payload.
    pub size: usize,
    /// Unanswered messages at once.
    pub window: usize,
}

/// Whatever went wrong while measuring.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
