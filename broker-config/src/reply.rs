//! What a broker's refusal means: AMQP's reply codes, each with its scope and the way out. Codes are matched, never
//! texts, which differ by version.

use std::fmt;

use lapin::ErrorKind;

/// Why the broker, or the connection to it, said no.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyCause {
    /// 403: the user may not do this.
    AccessRefused {
        /// What the broker said.
        said: String,
    },
    /// 404: no such exchange or queue.
    NotFound {
        /// What the broker said.
        said: String,
    },
    /// 405: another connection has it for itself.
    Locked {
        /// What the broker said.
        said: String,
    },
    /// 406: it exists otherwise than asked for, or the message is not as it must be.
    PreconditionFailed {
        /// What the broker said.
        said: String,
    },
    /// 530: not in this virtual host, or not in this state.
    NotAllowed {
        /// What the broker said.
        said: String,
    },
    /// 541: the broker could not do it.
    InternalError {
        /// What the broker said.
        said: String,
    },
    /// 320: an operator or a shutdown closed the connection.
    ConnectionForced {
        /// What the broker said.
        said: String,
    },
    /// Any other reply code.
    Other {
        /// The code.
        code: u16,
        /// What the broker said.
        said: String,
    },
    /// The broker sent what the AMQP client cannot read. Known case: a message with a text property (its id, its
    /// type, the name of a header) that is not UTF-8; the connection ends before any code of ours sees it.
    Unreadable {
        /// What the client said.
        reason: String,
    },
    /// No reply at all: the connection or channel was gone, or something went wrong on the way.
    Lost {
        /// What happened.
        reason: String,
    },
}

/// How much a refusal takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyScope {
    /// The channel is closed; everything unanswered on it is unknown.
    Channel,
    /// The connection is closed, with all its channels.
    Connection,
}

impl ReplyCause {
    /// What an error of lapin's means.
    #[doc(hidden)]
    #[must_use]
    pub fn of(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(reply) => Self::of_code(reply.get_id(), reply.get_message().as_str()),
            ErrorKind::ParsingError(_) => Self::Unreadable { reason: error.to_string() },
            _ => Self::Lost { reason: error.to_string() },
        }
    }

    /// What a reply code with its text means.
    #[must_use]
    pub fn of_code(code: u16, said: &str) -> Self {
        let said = said.to_owned();
        match code {
            403 => Self::AccessRefused { said },
            404 => Self::NotFound { said },
            405 => Self::Locked { said },
            406 => Self::PreconditionFailed { said },
            530 => Self::NotAllowed { said },
            541 => Self::InternalError { said },
            320 => Self::ConnectionForced { said },
            code => Self::Other { code, said },
        }
    }

    /// AMQP's number for it; `None` if there was no reply.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        Some(match self {
            Self::AccessRefused { .. } => 403,
            Self::NotFound { .. } => 404,
            Self::Locked { .. } => 405,
            Self::PreconditionFailed { .. } => 406,
            Self::NotAllowed { .. } => 530,
            Self::InternalError { .. } => 541,
            Self::ConnectionForced { .. } => 320,
            Self::Other { code, .. } => *code,
            Self::Unreadable { .. } | Self::Lost { .. } => return None,
        })
    }

    /// What ended with it.
    #[must_use]
    pub fn scope(&self) -> ReplyScope {
        match self {
            Self::AccessRefused { .. }
            | Self::NotFound { .. }
            | Self::Locked { .. }
            | Self::PreconditionFailed { .. } => ReplyScope::Channel,
            // 311, 312, 313: the other codes that AMQP 0-9-1 calls channel errors.
            Self::Other { code: 311..=313, .. } => ReplyScope::Channel,
            _ => ReplyScope::Connection,
        }
    }

    /// Whether the same request would be refused again: what is asked for is wrong, not the moment.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::AccessRefused { .. }
            | Self::NotFound { .. }
            | Self::PreconditionFailed { .. }
            | Self::NotAllowed { .. } => true,
            Self::Locked { .. }
            | Self::InternalError { .. }
            | Self::ConnectionForced { .. }
            | Self::Other { .. }
            | Self::Unreadable { .. }
            | Self::Lost { .. } => false,
        }
    }

    /// What the broker said, or what happened.
    #[must_use]
    pub fn said(&self) -> &str {
        match self {
            Self::AccessRefused { said }
            | Self::NotFound { said }
            | Self::Locked { said }
            | Self::PreconditionFailed { said }
            | Self::NotAllowed { said }
            | Self::InternalError { said }
            | Self::ConnectionForced { said }
            | Self::Other { said, .. } => said,
            Self::Unreadable { reason } | Self::Lost { reason } => reason,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn way_out(&self) -> &'static str {
        match self {
            Self::AccessRefused { .. } => {
                "use a user with the permission, or give it one (broker-config/rabbitmq/definitions.json shows what each \
                 user needs)"
            }
            Self::NotFound { .. } => {
                "create it: `cargo broker apply --queue NAME` makes a work queue with its company; `cargo broker check \
                 --queue NAME` says what is missing"
            }
            Self::Locked { .. } => "another connection uses it exclusively: stop that one, or take another name",
            Self::PreconditionFailed { .. } => {
                "it exists with other arguments, which AMQP cannot change: delete it when it is empty and apply again, or \
                 take another name (`cargo broker check` shows the difference)"
            }
            Self::NotAllowed { .. } => "check the virtual host in the URL and the user's permissions in it",
            Self::InternalError { .. } => "look into the broker's log; a queue whose node is down answers like this",
            Self::ConnectionForced { .. } => {
                "the broker is stopping, or an operator closed the connection: it will be tried again"
            }
            Self::Other { .. } => "look into the broker's log",
            Self::Unreadable { .. } => {
                "a message whose id, type or other text property is not UTF-8 does this: find it in the dashboard (the \
                 queue's “Get messages”) and take it off, as it will end every connection that receives it"
            }
            Self::Lost { .. } => "it will be tried again on a new connection",
        }
    }
}

impl fmt::Display for ReplyCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.said(), self.way_out())
    }
}

impl std::error::Error for ReplyCause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_errors_are_told_from_connection_errors_by_their_code() {
        for (code, scope) in [
            (311, ReplyScope::Channel),
            (320, ReplyScope::Connection),
            (403, ReplyScope::Channel),
            (404, ReplyScope::Channel),
            (405, ReplyScope::Channel),
            (406, ReplyScope::Channel),
            (501, ReplyScope::Connection),
            (504, ReplyScope::Connection),
            (530, ReplyScope::Connection),
            (541, ReplyScope::Connection),
        ] {
            let cause = ReplyCause::of_code(code, "said");
            assert_eq!((cause.code(), cause.scope()), (Some(code), scope));
        }
    }
}
