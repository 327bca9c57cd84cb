//! TLS from this side, made with rustls: its settings from files, the handshake, and what its errors mean.

use std::{fs, io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        AlertDescription, CertificateError, ClientConfig, Error as RustlsError, RootCertStore,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName,
            pem::{Error as PemError, PemObject as _},
        },
    },
};

use crate::{
    tls::{ClientCertificate, TlsSettings},
    tls_error::{TlsError, TlsFile},
};

/// Makes TLS on this socket, with the server verified under `host` or the name that the settings give.
///
/// Dropped, it ends the socket.
pub(crate) async fn handshake(
    socket: TcpStream,
    settings: &TlsSettings,
    host: &str,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = settings.server_name().unwrap_or(host);
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName { name: name.to_owned() })?;
    let loading = settings.clone();
    let config = tokio::task::spawn_blocking(move || load(&loading))
        .await
        .map_err(|stopped| TlsError::Ended { said: stopped.to_string() })??;
    TlsConnector::from(Arc::new(config)).connect(server_name, socket).await.map_err(|error| {
        meaning(&error, settings, name).unwrap_or_else(|| match error.kind() {
            // What rustls makes of anything that is no TLS record.
            io::ErrorKind::InvalidData => TlsError::NotTls,
            _ => TlsError::Ended { said: error.to_string() },
        })
    })
}

/// What TLS says in an error of its socket; `None` if the error is not of TLS.
///
/// Also to be asked after the handshake: in TLS 1.3 a server looks at the client's certificate only then.
pub(crate) fn meaning(error: &io::Error, settings: &TlsSettings, name: &str) -> Option<TlsError> {
    let error = error.get_ref()?.downcast_ref::<RustlsError>()?;
    Some(match error {
        RustlsError::InvalidCertificate(cause) => of_certificate(cause, name),
        RustlsError::InvalidMessage(_) => TlsError::NotTls,
        RustlsError::AlertReceived(alert) => of_alert(*alert, settings.client().is_some()),
        error => TlsError::Refused { said: error.to_string() },
    })
}

fn of_certificate(cause: &CertificateError, name: &str) -> TlsError {
    let wrong_name = |presented: &[String]| TlsError::WrongName {
        wanted: name.to_owned(),
        presented: presented.iter().map(|name| shown(name)).collect(),
    };
    match cause {
        CertificateError::UnknownIssuer => TlsError::UnknownAuthority,
        CertificateError::NotValidForName => wrong_name(&[]),
        CertificateError::NotValidForNameContext { presented, .. } => wrong_name(presented),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsError::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsError::NotYetValid,
        cause => TlsError::BadCertificate { said: cause.to_string() },
    }
}

fn of_alert(alert: AlertDescription, has_certificate: bool) -> TlsError {
    let said = format!("{alert:?}");
    match alert {
        AlertDescription::CertificateRequired => TlsError::ClientCertificateWanted,
        // In TLS 1.2 a server has no better word for the certificate that did not come.
        AlertDescription::HandshakeFailure if !has_certificate => TlsError::Refused {
            said: format!(
                "{said}; perhaps it demands a client certificate, which certfile and keyfile in the URL name"
            ),
        },
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError
            if has_certificate =>
        {
            TlsError::ClientCertificateRefused { said }
        }
        AlertDescription::InternalError | AlertDescription::UserCanceled | AlertDescription::CloseNotify => {
            TlsError::Ended { said }
        }
        _ => TlsError::Refused { said },
    }
}

/// Reads the files. A certificate's renewal is seen with the next connection.
fn load(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Refused { said: error.to_string() })?
        .with_root_certificates(authorities(settings)?);
    let Some(ClientCertificate { certificate, key }) = settings.client() else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates(TlsFile::ClientCertificate, certificate)?;
    let bytes = read(TlsFile::ClientKey, key)?;
    // What is wrong with a key is not shown.
    let no_key = || TlsError::NothingInFile { file: TlsFile::ClientKey, path: key.clone(), said: String::new() };
    let private_key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| no_key())?;
    config.with_client_auth_cert(chain, private_key).map_err(|error| match error {
        RustlsError::InconsistentKeys(_) => {
            TlsError::KeyDoesNotMatch { certificate: certificate.clone(), key: key.clone() }
        }
        RustlsError::InvalidCertificate(cause) => TlsError::NothingInFile {
            file: TlsFile::ClientCertificate,
            path: certificate.clone(),
            said: cause.to_string(),
        },
        _ => no_key(),
    })
}

fn authorities(settings: &TlsSettings) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let Some(path) = settings.ca_file() else {
        let found = rustls_native_certs::load_native_certs();
        // Some of a machine's certificates may be too old for rustls; the others still count.
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let said = found.errors.first().map(ToString::to_string).unwrap_or_default();
            return Err(TlsError::NoAuthorities { said });
        }
        return Ok(store);
    };
    for certificate in certificates(TlsFile::Authorities, path)? {
        store.add(certificate).map_err(|error| TlsError::NothingInFile {
            file: TlsFile::Authorities,
            path: path.to_owned(),
            said: error.to_string(),
        })?;
    }
    Ok(store)
}

fn certificates(file: TlsFile, path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let nothing = |said| TlsError::NothingInFile { file, path: path.to_owned(), said };
    let bytes = read(file, path)?;
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| nothing(error.to_string()))?;
    if found.is_empty() { Err(nothing(String::new())) } else { Ok(found) }
}

fn read(file: TlsFile, path: &std::path::Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::CannotRead { file, path: path.to_owned(), source: Arc::new(source) })
}

/// Into terminals: whoever answers there may be anybody.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(error: RustlsError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn a_demand_for_a_certificate_is_told_from_the_refusal_of_one() {
        let bare = TlsSettings::new();
        let with = TlsSettings::new().with_client_certificate("c", "k");
        let alert = |alert, settings| meaning(&io(RustlsError::AlertReceived(alert)), settings, "h");
        let wanted = alert(AlertDescription::CertificateRequired, &bare);
        assert!(matches!(wanted, Some(TlsError::ClientCertificateWanted)), "{wanted:?}");
        let old_way = alert(AlertDescription::HandshakeFailure, &bare).unwrap();
        assert!(old_way.to_string().contains("certfile"), "{old_way}");
        let refused = alert(AlertDescription::UnknownCA, &with);
        assert!(matches!(refused, Some(TlsError::ClientCertificateRefused { .. })), "{refused:?}");
    }

    #[test]
    fn an_error_of_the_socket_alone_is_none_of_tls() {
        assert!(meaning(&io::ErrorKind::ConnectionReset.into(), &TlsSettings::new(), "h").is_none());
    }

    #[test]
    fn a_file_that_is_missing_empty_or_something_else_is_named_with_what_is_wrong() {
        let folder = std::env::temp_dir().join(format!("correio-tls-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let error = |settings| load(&settings).unwrap_err();

        let gone = folder.join("gone.pem");
        let missing = error(TlsSettings::new().with_ca_file(&gone));
        assert!(matches!(missing, TlsError::CannotRead { file: TlsFile::Authorities, .. }), "{missing:?}");
        assert!(missing.to_string().contains(gone.to_str().unwrap()), "{missing}");

        let text = folder.join("text.pem");
        fs::write(&text, "s3cret, but no certificate").unwrap();
        let nothing = error(TlsSettings::new().with_ca_file(&text));
        assert!(matches!(nothing, TlsError::NothingInFile { file: TlsFile::Authorities, .. }), "{nothing:?}");
        let rubbish = folder.join("rubbish.pem");
        fs::write(&rubbish, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let broken = error(TlsSettings::new().with_ca_file(&rubbish));
        assert!(matches!(broken, TlsError::NothingInFile { .. }), "{broken:?}");
        assert!(missing.is_permanent() && nothing.is_permanent() && !nothing.to_string().contains("s3cret"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
