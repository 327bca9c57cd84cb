//! What passed through the proxy, and what did not.

/// Counts since the proxy was started, over all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that the proxy cut.
    pub cut: u64,
    /// Messages from the client whose `basic.publish` went on to the broker.
    pub publishes_forwarded: u64,
    /// Messages from the client that were thrown away.
    pub publishes_swallowed: u64,
    /// `basic.ack` and `basic.nack` frames from the broker that went on to the client. One with `multiple` answers many messages.
    pub confirms_forwarded: u64,
    /// `basic.ack` and `basic.nack` frames from the broker that were thrown away.
    pub confirms_dropped: u64,
}
