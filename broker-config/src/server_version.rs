//! Which broker this is, by its own words.
//!
//! A broker introduces itself before it asks for a login (`connection.start`, AMQP 0-9-1 section 1.4.2.1). lapin keeps
//! that to itself, so this asks on a short connection of its own; the broker logs that it was left.

use std::{fmt, io, sync::Arc, time::Duration};

use lapin::types::{AMQPValue, parsing::parse_field_table};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use crate::{
    address::Address,
    connect_error::{ConnectError, Step},
    transport::{Transport, Until, tls_meaning},
};

/// A broker's product and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// `RabbitMQ`, hopefully.
    pub product: String,
    /// The version as the broker writes it, such as `4.3.6`.
    pub version: String,
}

impl ServerVersion {
    /// Asks the broker, which needs no login: one node after the other until one answers, each within an equal part of what is
    /// left of the time.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], that of the last node, if nobody answers in time, or not in AMQP 0-9-1.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ask(address: &Address, within: Duration) -> Result<Self, ConnectError> {
        let until = Instant::now() + within;
        let count = address.nodes().len();
        let mut turn = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let part = left / u32::try_from(count - turn).unwrap_or(u32::MAX);
            match Box::pin(Self::ask_node(&address.at_node(turn), part)).await {
                Err(error) if turn + 1 < count => tracing::debug!(%error, "no version from this node, asking the next"),
                answer => return answer,
            }
            turn += 1;
        }
    }

    async fn ask_node(address: &Address, within: Duration) -> Result<Self, ConnectError> {
        let until = Until::after(within);
        let transport = Transport::open(address, until).await?;
        let answer = until.bound(Step::Connect, address, introduction(transport)).await?;
        let start = answer.map_err(|error| match tls_meaning(&error, address) {
            Some(cause) => ConnectError::tls(address, cause),
            None if error.kind() == io::ErrorKind::InvalidData => ConnectError::not_amqp(address),
            None => ConnectError::no_broker(address, Arc::new(error)),
        })?;
        Self::in_start(&start).ok_or_else(|| ConnectError::not_amqp(address))
    }

    /// The major and minor number; `None` if the broker writes its version in no known way.
    #[must_use]
    pub fn major_minor(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// Reads `connection.start`: class, method, two version numbers, then the server's properties.
    fn in_start(method: &[u8]) -> Option<Self> {
        let properties = method.strip_prefix(START)?.get(2..)?;
        let (_, properties) = parse_field_table(properties).ok()?;
        let text = |name| match properties.inner().get(name) {
            Some(AMQPValue::LongString(text)) => Some(text.to_string()),
            _ => None,
        };
        Some(Self { product: text("product")?, version: text("version")? })
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Into terminals: whoever answers there may be anybody.
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
        write!(f, "{} {}", clean(&self.product), clean(&self.version))
    }
}

/// The payload of the first frame that the broker sends.
async fn introduction(mut stream: Transport) -> io::Result<Vec<u8>> {
    stream.write_all(PROTOCOL_HEADER).await?;
    stream.flush().await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.map_err(cut_short)?;
    let [kind, channel @ .., a, b, c, d] = head;
    let size = u32::from_be_bytes([a, b, c, d]) as usize;
    if kind != METHOD_FRAME || channel != [0, 0] || size > LONGEST_START {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload).await.map_err(cut_short)?;
    Ok(payload)
}

fn cut_short(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => io::ErrorKind::InvalidData.into(),
        _ => error,
    }
}

const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
const METHOD_FRAME: u8 = 1;
const START: &[u8] = &[0, 10, 0, 10];
const LONGEST_START: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_and_version_are_read_from_the_servers_properties() {
        let start = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x28\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8";
        let version = ServerVersion::in_start(start).unwrap();
        assert_eq!((version.to_string().as_str(), version.major_minor()), ("RabbitMQ 3.10.8", Some((3, 10))));
        for cut in 0..start.len() {
            assert_eq!(ServerVersion::in_start(&start[..cut]), None);
        }
    }
}
