//! The query of an AMQP URL (<https://www.rabbitmq.com/docs/uri-query-parameters>): what TLS is made with, and times.

use std::time::Duration;

use crate::{amqp_url::UrlError, percent::percent_decode, tls::TlsSettings};

/// The parameters after the `?`.
#[derive(Default)]
pub(crate) struct Query {
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    ca_file: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    server_name: Option<String>,
    /// A parameter that only TLS has.
    of_tls: Option<&'static str>,
}

impl Query {
    pub(crate) fn parse(query: &str) -> Result<Self, UrlError> {
        let mut read = Self::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "heartbeat" => read.heartbeat = Some(Duration::from_secs(number("heartbeat", value, 65_535)?)),
                "connection_timeout" => {
                    let most = 600_000;
                    read.connect_timeout = Some(Duration::from_millis(number("connection_timeout", value, most)?));
                }
                "cacertfile" => read.ca_file = Some(read.text_of_tls("cacertfile", value)?),
                "certfile" => read.certificate = Some(read.text_of_tls("certfile", value)?),
                "keyfile" => read.key = Some(read.text_of_tls("keyfile", value)?),
                "server_name_indication" => {
                    read.server_name = Some(read.text_of_tls("server_name_indication", value)?);
                }
                "verify" => match read.text_of_tls("verify", value)?.as_str() {
                    "verify_peer" => {}
                    "verify_none" => return Err(UrlError::VerifyNone),
                    _ => return Err(UrlError::Verify),
                },
                name if name.contains('@') => return Err(UrlError::UnescapedPassword),
                _ => return Err(UrlError::Parameter { name: name.chars().take(32).collect() }),
            }
        }
        Ok(read)
    }

    /// What they make of TLS.
    pub(crate) fn tls(&self, is_wanted: bool) -> Result<Option<TlsSettings>, UrlError> {
        if !is_wanted {
            return self.of_tls.map_or(Ok(None), |name| Err(UrlError::TlsParameter { name }));
        }
        let mut settings = TlsSettings::new();
        if let Some(path) = &self.ca_file {
            settings = settings.with_ca_file(path);
        }
        if let Some(name) = &self.server_name {
            settings = settings.with_server_name(name);
        }
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Ok(Some(settings.with_client_certificate(certificate, key))),
            (None, None) => Ok(Some(settings)),
            (Some(_), None) => Err(UrlError::HalfACertificate { given: "certfile", missing: "keyfile" }),
            (None, Some(_)) => Err(UrlError::HalfACertificate { given: "keyfile", missing: "certfile" }),
        }
    }

    fn text_of_tls(&mut self, name: &'static str, value: &str) -> Result<String, UrlError> {
        self.of_tls = Some(name);
        if value.is_empty() { Err(UrlError::Empty { name }) } else { percent_decode(value, name) }
    }
}

fn number(name: &'static str, value: &str, most: u64) -> Result<u64, UrlError> {
    value.parse().ok().filter(|n| (1..=most).contains(n)).ok_or(UrlError::Number { name, most })
}
