//! The envelope of a Correio message, and its mapping to AMQP 0-9-1 properties.
//!
//! Pure: no network, no clock, no randomness. A [`Message`] is what an application sends and what its handler
//! gets; an [`Envelope`] is the same message as it stands on the wire; [`Envelope::decode`] and
//! [`Message::encode`] lead from one to the other and lose nothing of ours. [`header`] lists every header we write.

mod address;
mod copy;
mod death;
mod decode;
mod encode;
pub mod header;
mod id;
mod message;
mod payload;
mod properties;
mod sequence;
mod text;
mod unfit;
mod urgency;

pub use address::{InvalidAddress, MailboxName, TopicKey, TopicPattern, checked_name};
pub use copy::{Attempt, DeadLetter, DeadReason, Original, dead_letter, given_back, lightened, replay, retry};
pub use decode::{DecodeError, DecodeFailure, Decoded};
pub use encode::Durability;
pub use id::{InvalidMessageId, MessageId};
pub use message::{Destination, Exchange, Message, ReplyError, Route};
pub use payload::{Json, PayloadError};
pub use properties::{Envelope, Headers, Properties, Value};
pub use sequence::{InvalidVoids, Key, Line, Sequence, Voids};
pub use text::{ShortText, TooLong};
pub use unfit::{MAX_DEPTH, SUBSTITUTE};
pub use urgency::{InvalidLifetime, Lifetime, Priority};
