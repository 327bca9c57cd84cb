//! The first words of an AMQP conversation: is a broker there, and which version is it?
//!
//! A broker introduces itself before it asks for a login: the client sends the protocol header, the broker answers
//! `connection.start` with its properties (AMQP 0-9-1, section 4.2.2). lapin keeps those to itself.

use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Asks whoever listens on this port of 127.0.0.1 for its version.
pub(crate) async fn ask_version(port: u16) -> io::Result<String> {
    timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if head[0] != METHOD_FRAME || size > LONGEST_START {
            return Err(not_a_broker());
        }
        let mut payload = vec![0; size];
        stream.read_exact(&mut payload).await?;
        version_in(&payload).ok_or_else(not_a_broker)
    })
    .await
    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Finds the field `version` (a long string) in the server properties of `connection.start`.
fn version_in(start: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = start.windows(FIELD.len()).position(|bytes| bytes == FIELD)? + FIELD.len();
    let size = u32::from_be_bytes(start.get(at..at + 4)?.try_into().ok()?) as usize;
    let version = start.get(at + 4..at.checked_add(4)?.checked_add(size)?)?;
    String::from_utf8(version.to_vec()).ok()
}

fn not_a_broker() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "whoever listens there does not speak AMQP 0-9-1")
}

const PATIENCE: Duration = Duration::from_secs(5);
const METHOD_FRAME: u8 = 1;
const LONGEST_START: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn the_version_is_read_from_the_server_properties() {
        let start = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x20\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8";
        assert_eq!(version_in(start).as_deref(), Some("3.10.8"));
    }

    #[test]
    fn a_cut_off_answer_has_no_version() {
        assert_eq!(version_in(b"\x07versionS\x00\x00\x00\x063.1"), None);
        assert_eq!(version_in(b"\x07versionS\xff\xff"), None);
        assert_eq!(version_in(b""), None);
    }
}
