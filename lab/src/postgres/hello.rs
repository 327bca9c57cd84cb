//! The first words of a conversation with PostgreSQL: does it let us in, and which version is it?
//!
//! A start-up packet is answered by `AuthenticationOk`, the server's settings and `ReadyForQuery` (PostgreSQL's manual,
//! "Message Formats").

use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Asks the server on this port of 127.0.0.1 for its version, as a client of the database `correio`.
pub(super) async fn ask_version(port: u16) -> io::Result<String> {
    timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let words = b"user\0correio\0database\0correio\0\0";
        let mut packet = (8 + words.len() as u32).to_be_bytes().to_vec();
        packet.extend(PROTOCOL_3.to_be_bytes());
        packet.extend(words);
        stream.write_all(&packet).await?;
        let mut version = None;
        loop {
            let (kind, body) = message(&mut stream).await?;
            match kind {
                b'R' if body != LET_IN => return Err(io::Error::other("it wants a password")),
                b'S' => version = version.or_else(|| setting(&body, "server_version")),
                b'E' => return Err(io::Error::other(reason(&body))),
                b'Z' => break,
                _ => {}
            }
        }
        stream.write_all(&GOOD_BYE).await?;
        version.ok_or_else(|| io::Error::other("it does not tell its version"))
    })
    .await
    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let size = stream.read_u32().await? as usize;
    if !(4..LONGEST).contains(&size) {
        return Err(io::Error::other("who answers does not speak as PostgreSQL does"));
    }
    let mut body = vec![0; size - 4];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// The first word of the value, as Debian adds its own version: `15.18 (Debian 15.18-0+deb12u1)`.
fn setting(status: &[u8], wanted: &str) -> Option<String> {
    let mut words = status.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let (name, value) = (words.next()?, words.next()?);
    (name == wanted).then(|| value.split(' ').next().unwrap_or_default().to_owned())
}

fn reason(error: &[u8]) -> String {
    let fields = error.split(|byte| *byte == 0);
    let said = fields.filter_map(|field| field.strip_prefix(b"M")).map(String::from_utf8_lossy).next();
    said.map_or("it refuses without a reason".to_owned(), std::borrow::Cow::into_owned)
}

const PROTOCOL_3: u32 = 3 << 16;
const LET_IN: [u8; 4] = [0; 4];
const GOOD_BYE: [u8; 5] = [b'X', 0, 0, 0, 4];
const LONGEST: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_told_without_the_distributions_own() {
        let status = b"server_version\x0015.18 (Debian 15.18-0+deb12u1)\0";
        assert_eq!(setting(status, "server_version").as_deref(), Some("15.18"));
        assert_eq!(setting(b"TimeZone\0GMT\0", "server_version"), None);
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let error = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        assert_eq!(reason(error), "the database system is starting up");
    }
}
