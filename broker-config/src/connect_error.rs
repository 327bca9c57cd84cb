//! Why there is no connection, in words that say what to do.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use lapin::ErrorKind;

use crate::{address::Address, declare::DeclareError, reply::ReplyCause, tls_error::TlsError, transport::tls_meaning};

/// Why there is no connection or channel. Addresses in it show no password.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing answers there.
    #[error(
        "no broker answers at {address}: {source}. Start one (`docker compose up -d --wait`, or `cargo demo broker`) or \
         name another with --amqp-url or AMQP_URL"
    )]
    NoBroker {
        /// Where.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Something answers there, and it is no broker, or one that is just starting or stopping.
    #[error(
        "the other side at {address} ended the handshake, or does not speak AMQP 0-9-1. Is it the AMQP port (5672; \
         15672 is the dashboard's, 5671 that of TLS, for which the URL begins with amqps)? A broker that is starting or stopping answers like this too"
    )]
    NotAmqp {
        /// Where.
        address: String,
    },
    /// The broker does not know this user with this password.
    #[error(
        "the broker at {address} refuses the login of user “{user}”: check the user and the password in --amqp-url, \
         AMQP_URL, AMQP_PASSWORD_FILE or AMQP_PASSWORD"
    )]
    Credentials {
        /// Where.
        address: String,
        /// Who.
        user: String,
    },
    /// The file with the password cannot be read.
    #[error("the password for {address} cannot be read from the file {}: {source}", .path.display())]
    PasswordFile {
        /// Where it is for.
        address: String,
        /// The file's name.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// TLS with the broker did not come about.
    #[error("no TLS with {address}: {cause}")]
    Tls {
        /// Where.
        address: String,
        /// Why.
        #[source]
        cause: Box<TlsError>,
    },
    /// The virtual host is not there, or not for this user.
    #[error(
        "the broker at {address} does not let user “{user}” into the virtual host “{vhost}”: {said}. Name one that \
         exists at the end of the URL (`/` is %2F or nothing), or give the user permissions there"
    )]
    Vhost {
        /// Where.
        address: String,
        /// Which virtual host.
        vhost: String,
        /// Who.
        user: String,
        /// What the broker said.
        said: String,
    },
    /// An await took longer than it may.
    #[error("{step} took longer than {after:?} at {address}: the broker is overloaded, blocked or unreachable")]
    TimedOut {
        /// What was waited for.
        step: Step,
        /// How long.
        after: Duration,
        /// Where.
        address: String,
    },
    /// The broker answered no.
    #[error("the broker at {address} refuses: {cause}")]
    Refused {
        /// Where.
        address: String,
        /// Its answer.
        cause: ReplyCause,
    },
    /// The connection ended meanwhile.
    #[error("the connection to {address} ended: {reason}")]
    Closed {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// What was to be declared on each connection cannot be had.
    #[error(transparent)]
    NotDeclared(Arc<DeclareError>),
    /// These connections were closed by their owner.
    #[error("these connections are closed")]
    ShutDown,
}

/// What an await of the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A connection that somebody else still holds.
    WaitForConnection,
    /// TCP and AMQP handshake.
    Connect,
    /// The handshake of TLS between the two.
    Tls,
    /// The check of a connection that was given back.
    Recycle,
    /// The opening of a channel.
    OpenChannel,
    /// The declaring of an exchange, a queue or a binding.
    Declare,
    /// The subscribing to a queue.
    Subscribe,
    /// The reading that renews a queue's lease.
    Renew,
    /// The deleting of a queue.
    Delete,
    /// The closing of a channel.
    CloseChannel,
    /// The closing of a connection.
    CloseConnection,
}

impl ConnectError {
    /// Whether trying again without changing anything is hopeless: wrong credentials, a wrong certificate, wrong virtual host,
    /// closed by the owner.
    ///
    /// Said of a first attempt. Who was connected before may have met a limit of the user's or the virtual host's,
    /// for which the broker has the same code (530) as for one that is not there.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Credentials { .. } | Self::PasswordFile { .. } | Self::Vhost { .. } | Self::ShutDown => true,
            Self::Tls { cause, .. } => cause.is_permanent(),
            Self::Refused { cause, .. } => cause.is_permanent(),
            Self::NotDeclared(error) => error.is_permanent(),
            Self::NoBroker { .. } | Self::NotAmqp { .. } | Self::TimedOut { .. } | Self::Closed { .. } => false,
        }
    }

    /// Whether it is the password, or a certificate, that is refused or cannot be read: what is borne only for a while by
    /// who was connected before ([`Patience`](crate::Patience)).
    pub(crate) fn is_refused_login(&self) -> bool {
        match self {
            Self::Credentials { .. } | Self::PasswordFile { .. } => true,
            Self::Tls { cause, .. } => cause.is_permanent(),
            _ => false,
        }
    }

    pub(crate) fn tls(address: &Address, cause: TlsError) -> Self {
        Self::Tls { address: address.to_string(), cause: Box::new(cause) }
    }

    pub(crate) fn no_broker(address: &Address, source: Arc<io::Error>) -> Self {
        Self::NoBroker { address: address.to_string(), source }
    }

    pub(crate) fn not_amqp(address: &Address) -> Self {
        Self::NotAmqp { address: address.to_string() }
    }

    /// What an error of the handshake means.
    pub(crate) fn of_handshake(error: &lapin::Error, address: &Address, connect_timeout: Duration) -> Self {
        let place = address.to_string();
        let cause = match error.kind() {
            ErrorKind::IOError(source) => {
                if let Some(cause) = tls_meaning(source, address) {
                    return Self::tls(address, cause);
                }
                return match source.kind() {
                    io::ErrorKind::TimedOut => {
                        Self::TimedOut { step: Step::Connect, after: connect_timeout, address: place }
                    }
                    // What lapin, and TLS, make of an end of the stream before the handshake's.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => Self::not_amqp(address),
                    _ => Self::no_broker(address, source.clone()),
                };
            }
            ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => return Self::not_amqp(address),
            ErrorKind::ProtocolError(_) => ReplyCause::of(error),
            _ => return Self::Closed { address: place, reason: error.to_string() },
        };
        match cause {
            ReplyCause::AccessRefused { .. } => Self::Credentials { address: place, user: address.user().to_owned() },
            ReplyCause::NotAllowed { said } => {
                Self::Vhost { address: place, vhost: address.vhost().to_owned(), user: address.user().to_owned(), said }
            }
            cause => Self::Refused { address: place, cause },
        }
    }

    /// What an error on an open connection means.
    pub(crate) fn of_channel(error: &lapin::Error, address: &Address) -> Self {
        let place = address.to_string();
        match error.kind() {
            ErrorKind::ProtocolError(_) => Self::Refused { address: place, cause: ReplyCause::of(error) },
            _ => Self::Closed { address: place, reason: error.to_string() },
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WaitForConnection => "waiting for a free connection",
            Self::Connect => "connecting",
            Self::Tls => "agreeing on TLS",
            Self::Recycle => "checking a used connection",
            Self::OpenChannel => "opening a channel",
            Self::Declare => "declaring",
            Self::Subscribe => "subscribing",
            Self::Renew => "renewing a queue's lease",
            Self::Delete => "deleting a queue",
            Self::CloseChannel => "closing a channel",
            Self::CloseConnection => "closing the connection",
        })
    }
}
