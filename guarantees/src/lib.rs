//! The guarantees of Correio as pure state machines.
//!
//! A machine is told what happened (`on_…`), is asked questions (plain nouns), says when it next wants to be woken
//! (`next_deadline`) and never does anything itself. There is no network here, no clock, no randomness and no
//! order that a hash decides, so the same history always has the same end, and tests run millions of them.
//!
//! | Machine | What it keeps |
//! |---|---|
//! | [`ConfirmWindow`] | each published message has exactly one outcome, and it is its own |
//! | [`RetrySchedule`] | when to try again, and when to stop |
//! | [`DuplicateDetector`] | the same message has one effect |
//! | [`Resequencer`] | messages of one line are released in the order sent, and nothing waits without bound |
//! | [`KeyLanes`] | one message of a key at a time, keys take turns |
//! | [`AckPlanner`] | few acknowledgements, none for what is not settled |
//! | [`PendingReplies`] | each request ends once, and no reply goes to another request |
//! | [`CulpritSearch`] | the message that closes its channels is found, and the innocent go on |
//! | [`Breaker`] | handling pauses while everything fails, and nobody is blamed for it |
//! | [`Suspects`] | the message that kills its consumers is found and parked, and the innocent are handled |
//! | [`decide`] → [`Settlement`] | what happens to a handled message |

mod ack_planner;
mod breaker;
mod confirm_window;
mod culprit_search;
mod duplicate_detector;
mod key_lanes;
mod pending_replies;
mod resequencer;
mod retry_schedule;
mod settlement;
mod suspects;

pub use ack_planner::{Ack, AckPlanner};
pub use breaker::{Breaker, BreakerLimits, Pace, Tripped};
pub use confirm_window::{
    Answer, ConfirmWindow, DeadlineAction, Ended, Pronounced, Publish, WindowAdmission, WindowLimits,
};
pub use culprit_search::{CulpritSearch, Suspicion};
pub use duplicate_detector::{Admission, Claim, DuplicateDetector, Fence, HandledId, Standing};
pub use key_lanes::KeyLanes;
pub use pending_replies::{Matched, PendingReplies, Requested};
pub use resequencer::{Gap, GapCause, GapPolicy, Place, Resequencer, ResequencerLimits, Step};
pub use retry_schedule::{InvalidSchedule, RetrySchedule, jittered};
pub use settlement::{Failure, Retrying, Ruling, Settlement, Verdict, decide, spare};
pub use suspects::{Judgement, Returns, Room, Suspects, SuspicionLimits};
