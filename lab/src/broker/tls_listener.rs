//! A listener for AMQP over TLS.

use super::LabError;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How a node speaks TLS. The files (PEM) are copied when the node is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsListener {
    /// The authorities whose client certificates it trusts.
    pub authorities: PathBuf,
    /// Its own certificate.
    pub certificate: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// Whether it lets in only who shows a certificate.
    pub demands_client_certificate: bool,
}

impl TlsListener {
    pub(crate) fn copy_into(&self, folder: &Path) -> Result<(), LabError> {
        for (from, to) in [(&self.authorities, AUTHORITIES), (&self.certificate, CERTIFICATE), (&self.key, KEY)] {
            fs::copy(from, folder.join(to)).map_err(LabError::file("copy", from))?;
        }
        Ok(())
    }

    /// Its lines of `rabbitmq.conf`, for a node that sees its files in that folder.
    pub(crate) fn configuration(&self, (address, port): (&str, u16), folder: &Path) -> String {
        let path = |file: &str| folder.join(file).display().to_string();
        let (authorities, certificate, key) = (path(AUTHORITIES), path(CERTIFICATE), path(KEY));
        let demands = self.demands_client_certificate;
        format!(
            "listeners.ssl.1 = {address}:{port}\n\
             ssl_options.cacertfile = {authorities}\n\
             ssl_options.certfile = {certificate}\n\
             ssl_options.keyfile = {key}\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = {demands}\n"
        )
    }
}

pub(crate) const AUTHORITIES: &str = "tls-authorities.pem";
pub(crate) const CERTIFICATE: &str = "tls-certificate.pem";
pub(crate) const KEY: &str = "tls-key.pem";
