//! Why there is no TLS, in words that say what to do.

use std::{fmt, io, path::PathBuf, sync::Arc};

/// Why TLS with a broker did not come about.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// This program was built without TLS.
    #[error("this program was built without TLS: build it with the cargo feature `tls` of correio-broker-config")]
    NotBuiltIn,
    /// A file of the settings cannot be read.
    #[error("the {file} {} cannot be read: {source}", .path.display())]
    CannotRead {
        /// Which file.
        file: TlsFile,
        /// Its name.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A file of the settings does not hold what it should.
    #[error("the {file} {} holds no {} in PEM form{}", .path.display(), .file.content(), Because(.said))]
    NothingInFile {
        /// Which file.
        file: TlsFile,
        /// Its name.
        path: PathBuf,
        /// What is wrong with it, where something is there.
        said: String,
    },
    /// The client's key is not that of its certificate.
    #[error("the key {} is not that of the certificate {}", .key.display(), .certificate.display())]
    KeyDoesNotMatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// No CA file is given, and this machine has no authorities that it trusts.
    #[error(
        "this machine has no trusted authorities{}: install them (the package ca-certificates), or name the broker's with \
         cacertfile in the URL", Because(.said)
    )]
    NoAuthorities {
        /// What was said on looking for them.
        said: String,
    },
    /// Nothing that a certificate could have.
    #[error("“{name}” is neither a DNS name nor an IP address, so that no certificate can be for it")]
    ServerName {
        /// The name that was to be verified.
        name: String,
    },
    /// Nobody who is trusted vouches for the server.
    #[error(
        "the server's certificate comes from an unknown authority: name that authority's certificate with cacertfile in the URL"
    )]
    UnknownAuthority,
    /// The server's certificate is for another name.
    #[error(
        "the server's certificate is not for “{wanted}”{}: connect by that name, or say with server_name_indication in the URL \
         which name is meant", Presented(.presented)
    )]
    WrongName {
        /// The name that was asked for.
        wanted: String,
        /// The names that the certificate has, as far as is known.
        presented: Vec<String>,
    },
    /// The server's certificate is past its time.
    #[error("the server's certificate has expired: renew it (or is this machine's clock wrong?)")]
    Expired,
    /// The time of the server's certificate has not come.
    #[error("the server's certificate is not valid yet: is this machine's clock wrong?")]
    NotYetValid,
    /// The server's certificate is no good for another reason.
    #[error("the server's certificate is not accepted: {said}")]
    BadCertificate {
        /// The reason.
        said: String,
    },
    /// The broker asks for a client certificate, and none is given.
    #[error("the broker demands a client certificate: name one and its key with certfile and keyfile in the URL")]
    ClientCertificateWanted,
    /// The broker does not accept the client certificate.
    #[error(
        "the broker does not accept the client certificate ({said}): it must come from an authority that the broker trusts, and be \
         in its time"
    )]
    ClientCertificateRefused {
        /// The broker's alert.
        said: String,
    },
    /// The broker refuses TLS as it is offered here.
    #[error("the broker refuses TLS as it is offered: {said}")]
    Refused {
        /// The broker's alert, or what the two have not in common.
        said: String,
    },
    /// The other side answers, and not in TLS.
    #[error("the other side does not speak TLS: is it the TLS port (5671; 5672 is that of plain amqp://)?")]
    NotTls,
    /// The other side speaks TLS, and was spoken to without.
    #[error("the other side speaks TLS: write amqps:// instead of amqp://")]
    Wanted,
    /// The connection ended in the middle of it.
    #[error(
        "the other side ended the connection during the TLS handshake ({said}). A broker that is starting or stopping does so too"
    )]
    Ended {
        /// What the system said.
        said: String,
    },
}

/// A file that TLS is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsFile {
    /// The authorities to trust: `cacertfile`.
    Authorities,
    /// The client's certificate: `certfile`.
    ClientCertificate,
    /// Its key: `keyfile`.
    ClientKey,
}

impl TlsError {
    /// Whether trying again without changing anything is hopeless. Only a handshake that ended in the middle may succeed
    /// the next time.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Ended { .. })
    }
}

impl TlsFile {
    fn content(self) -> &'static str {
        match self {
            Self::Authorities | Self::ClientCertificate => "certificate",
            Self::ClientKey => "private key (without a passphrase)",
        }
    }
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorities => "CA file",
            Self::ClientCertificate => "client certificate file",
            Self::ClientKey => "client key file",
        })
    }
}

struct Because<'a>(&'a String);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

struct Presented<'a>(&'a Vec<String>);

impl fmt::Display for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " but for {}", self.0.join(", ")) }
    }
}
