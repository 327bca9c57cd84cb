//! Where the broker is, and as whom. A password goes in and reaches the broker; nothing here prints it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    address_source::Source, amqp_url::UrlParts, connect_error::ConnectError, node_address::NodeAddress,
    password::Password, percent::percent_encode, tls::TlsSettings,
};

/// Where a broker is and who asks.
///
/// A broker may have several nodes: then [`Connections`](crate::Connections) tries them in turn, beginning with the first.
/// Its [`Debug`](fmt::Debug) and [`Display`](fmt::Display) forms show `***` for the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Never empty.
    nodes: Vec<NodeAddress>,
    tls: Option<TlsSettings>,
    vhost: String,
    user: String,
    password: Password,
    heartbeat: Option<Duration>,
    connect_timeout: Option<Duration>,
    source: Source,
}

impl Address {
    /// An address on the virtual host `/`, without TLS.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            nodes: vec![NodeAddress::new(host, port)],
            tls: None,
            vhost: "/".to_owned(),
            user: user.into(),
            password: Password::Fixed(password.into()),
            heartbeat: None,
            connect_timeout: None,
            source: Source::Explicit,
        }
    }

    /// What a URL says, with what it may leave out.
    pub(crate) fn of_parts(parts: UrlParts, user: &str, password: Password, source: Source) -> Self {
        Self {
            nodes: parts.nodes,
            tls: parts.tls,
            vhost: parts.vhost,
            user: parts.user.unwrap_or_else(|| user.to_owned()),
            password,
            heartbeat: parts.heartbeat,
            connect_timeout: parts.connect_timeout,
            source,
        }
    }

    /// The same broker, another virtual host.
    #[must_use]
    pub fn with_vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// The same broker, as another user.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = user.into();
        self.password = Password::Fixed(password.into());
        self
    }

    /// The same user, whose password is in this file, without its last newline. It is read for each new connection, so
    /// that a password that was changed is used from the next one on.
    #[must_use]
    pub fn with_password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password = Password::InFile(path.into());
        self
    }

    /// The same broker, with these nodes besides those that it has.
    #[must_use]
    pub fn with_nodes(mut self, further: impl IntoIterator<Item = NodeAddress>) -> Self {
        self.nodes.extend(further);
        self
    }

    /// The same broker, over TLS; its ports stay as they are. Connecting needs the cargo feature `tls`.
    #[must_use]
    pub fn with_tls(mut self, settings: TlsSettings) -> Self {
        self.tls = Some(settings);
        self
    }

    /// The nodes in the order of their turns; at least one.
    #[must_use]
    pub fn nodes(&self) -> &[NodeAddress] {
        &self.nodes
    }

    /// The host of the first node.
    #[must_use]
    pub fn host(&self) -> &str {
        self.nodes[0].host()
    }

    /// The port of the first node.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.nodes[0].port()
    }

    /// What TLS is made with; `None` without TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsSettings> {
        self.tls.as_ref()
    }

    /// The same, with the node alone whose turn it is.
    pub(crate) fn at_node(&self, turn: usize) -> Self {
        Self { nodes: vec![self.nodes[turn % self.nodes.len()].clone()], ..self.clone() }
    }

    /// The virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// As whom.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether the password or the certificate that is shown may be another one the next time.
    pub(crate) fn has_changing_credentials(&self) -> bool {
        self.password.file().is_some() || self.tls.as_ref().is_some_and(|tls| tls.client().is_some())
    }

    #[cfg(test)]
    pub(crate) fn password(&self) -> String {
        self.password.read().unwrap()
    }

    pub(crate) async fn password_now(&self) -> Result<String, ConnectError> {
        self.password.read_now().await.map_err(|source| ConnectError::PasswordFile {
            address: self.to_string(),
            path: self.password.file().unwrap_or(Path::new("")).to_owned(),
            source: Arc::new(source),
        })
    }

    /// Where it was taken from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// The heartbeat that the URL asks for (`?heartbeat=SECONDS`).
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    /// The time to connect that the URL allows (`?connection_timeout=MILLISECONDS`).
    #[must_use]
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The URL *with its password*: for the environment of a child process, never for a person or a log. A password file is
    /// read for it, and stands for no password if it cannot be.
    #[must_use]
    pub fn url_with_password(&self) -> String {
        let (scheme, query) = match &self.tls {
            Some(settings) => ("amqps", tls_query(settings)),
            None => ("amqp", String::new()),
        };
        let (user, password) = (percent_encode(&self.user), percent_encode(&self.password.read().unwrap_or_default()));
        // An IPv6 address is encoded rather than bracketed: lapin's own parser takes only that.
        let node = |node: &NodeAddress| format!("{}:{}", percent_encode(node.host()), node.port());
        let nodes = self.nodes.iter().map(node).collect::<Vec<_>>().join(",");
        format!("{scheme}://{user}:{password}@{nodes}/{}{query}", percent_encode(&self.vhost))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        let nodes = self.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        write!(f, "{scheme}://{}:***@{nodes}", percent_encode(&self.user))?;
        if self.vhost == "/" { Ok(()) } else { write!(f, "/{}", percent_encode(&self.vhost)) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self}, {:?})", self.source)
    }
}

/// The settings of TLS as a URL's query, as they are read from one.
fn tls_query(settings: &TlsSettings) -> String {
    let path = |path: &Path| percent_encode(&path.to_string_lossy());
    let client = settings.client();
    let pairs = [
        ("cacertfile", settings.ca_file().map(path)),
        ("certfile", client.map(|client| path(&client.certificate))),
        ("keyfile", client.map(|client| path(&client.key))),
        ("server_name_indication", settings.server_name().map(percent_encode)),
    ];
    let pairs: Vec<String> =
        pairs.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}"))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_printed_by_nothing() {
        let address = Address::parse("amqp://u:s3cret@h/v").unwrap();
        for shown in [format!("{address}"), format!("{address:?}"), format!("{address:#?}")] {
            assert!(!shown.contains("s3cret") && shown.contains("***"), "{shown}");
        }
        for wrong in [
            "amqp://u:s3cret@h:p/",
            "amqp://u:s3/cret@h",
            "http://u:s3cret@h",
            "amqp://u:s3cret@h/a/b",
            "amqp://:s3cret@",
        ] {
            let error = Address::parse(wrong).unwrap_err();
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(!shown.contains("cret"), "{shown}");
            }
        }
    }

    #[test]
    fn all_nodes_are_shown_and_each_has_its_turn() {
        let address = Address::parse("amqp://u:p@one,[::2]:2,three:3/v").unwrap();
        assert_eq!(address.to_string(), "amqp://u:***@one:5672,[::2]:2,three:3/v");
        assert_eq!((address.host(), address.port()), ("one", 5672));
        let turns: Vec<String> = (0..4).map(|turn| address.at_node(turn).to_string()).collect();
        let at = |node| format!("amqp://u:***@{node}/v");
        assert_eq!(turns, [at("one:5672"), at("[::2]:2"), at("three:3"), at("one:5672")]);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_url_with_tls_reads_back_as_the_same_address() {
        let settings = TlsSettings::new()
            .with_ca_file("/a b/c&d.pem")
            .with_client_certificate("/cert.pem", "/key.pem")
            .with_server_name("broker.example");
        for settings in [TlsSettings::new(), settings] {
            let address = Address::new("h", 5671, "u", "p").with_tls(settings);
            assert!(address.to_string().starts_with("amqps://u:***@h:5671"), "{address}");
            assert_eq!(Address::parse(&address.url_with_password()).unwrap(), address);
        }
    }

    #[test]
    fn the_url_for_a_child_process_reads_back_as_the_same_address() {
        for address in
            [Address::new("localhost", 5672, "u", "p"), Address::new("::1", 1, "ü@:/", "a b%#?/@:").with_vhost("a/b")]
        {
            let nodes = [NodeAddress::new("::2", 2), NodeAddress::new("three", 3)];
            let several = address.clone().with_nodes(nodes);
            for address in [address, several] {
                assert_eq!(Address::parse(&address.url_with_password()).unwrap(), address);
            }
        }
    }
}
