//! Connections of a test, and what they answer.

use std::{net::SocketAddr, time::Duration};

use correio_broker_config::{Address, ConnectError, ConnectionSettings, Connections, Purpose, TlsError};
use correio_lab::broker::{Login, Node};

/// Longer than any of these attempts may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn address_at(node: &Node, host: &str, port: u16) -> Address {
    Address::new(host, port, Login::Producer.name(), node.password(Login::Producer))
}

/// The node's port with TLS, under the name that its certificate has.
pub(crate) fn over_tls(node: &Node) -> Address {
    address_at(node, "localhost", tls_port(node).port())
}

pub(crate) fn tls_port(node: &Node) -> SocketAddr {
    node.tls_address().expect("the node has one")
}

pub(crate) fn connections(address: Address, connect_timeout: Duration) -> Connections {
    let settings = ConnectionSettings { connect_timeout, ..ConnectionSettings::new("tests", "", Purpose::Admin) };
    Connections::new(address, settings)
}

/// Connects and closes again; an error that trying again does not cure comes at once.
pub(crate) async fn reach(address: Address) -> Result<(), ConnectError> {
    let connections = connections(address, DEADLINE);
    // Were it tried again, the error would come only after all of this.
    let channel = tokio::time::timeout(DEADLINE, connections.channel_within(5 * DEADLINE)).await.expect("bounded")?;
    channel.close().await
}

/// Why TLS did not come about, and would not the next time either.
pub(crate) async fn refusal(address: Address) -> TlsError {
    let shown = address.to_string();
    let error = reach(address).await.expect_err("refused");
    assert!(error.to_string().contains(&shown), "{error} says where");
    assert!(error.is_permanent(), "{error}");
    match error {
        ConnectError::Tls { cause, .. } => *cause,
        other => panic!("{other:?}"),
    }
}
