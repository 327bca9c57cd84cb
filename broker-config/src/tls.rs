//! What TLS is made with: whom to trust, as whom to come, and which name the server must have.

use std::path::{Path, PathBuf};

/// The settings of `amqps://`. The server is always verified: there is no setting to leave that out.
///
/// The files are read again for each new connection, so that renewed certificates are used from the next one on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    ca_file: Option<PathBuf>,
    client: Option<ClientCertificate>,
    server_name: Option<String>,
}

/// A client certificate with its key, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsSettings {
    /// Trusts whom this machine trusts, verifies the server under the host's name, and shows no certificate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these authorities (PEM) and no others.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Shows this certificate, followed by those between it and its authority (PEM), if the broker asks for one; the key (PEM)
    /// may be in the same file.
    #[must_use]
    pub fn with_client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client = Some(ClientCertificate { certificate: certificate.into(), key: key.into() });
        self
    }

    /// The name that the server's certificate must have, where that is not the host's.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    pub(crate) fn client(&self) -> Option<&ClientCertificate> {
        self.client.as_ref()
    }

    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}
