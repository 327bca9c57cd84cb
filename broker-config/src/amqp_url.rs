//! The parts of an AMQP URL (<https://www.rabbitmq.com/docs/uri-spec>), each wrong one named.

use std::time::Duration;

/// What an AMQP URL says.
pub(crate) struct UrlParts {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) vhost: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
}

/// Which part of an AMQP URL is wrong. None of them shows what could be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what it is")]
pub enum UrlError {
    #[error("it has no scheme: write amqp://USER:PASSWORD@HOST[:PORT][/VHOST]")]
    NoScheme,
    #[error("its scheme is “{scheme}” and must be “amqp”")]
    Scheme { scheme: String },
    #[error(
        "amqps:// (TLS) is not built in yet: use amqp:// inside a trusted network, or a local TLS tunnel such as stunnel"
    )]
    Tls,
    #[error("it names no host: write amqp://USER:PASSWORD@HOST")]
    NoHost,
    #[error("the host's “[” has no “]”: an IPv6 address is written [::1]")]
    HostBracket,
    #[error("its host contains a character that no host name has")]
    Host,
    #[error("its port is not a number between 1 and 65535 (a “:” in a password is written %3A)")]
    Port,
    #[error("there is a “/”, “?” or “#” before the “@”: in a user name or password write %2F, %3F, %23")]
    UnescapedPassword,
    #[error("its virtual host has a “/” inside: write %2F for it")]
    VhostSlash,
    #[error("its virtual host is {length} bytes and RabbitMQ takes at most 255")]
    VhostTooLong { length: usize },
    #[error("its {part} has a “%” that no two hexadecimal digits of UTF-8 text follow")]
    Percent { part: &'static str },
    #[error(
        "it has a parameter “{name}”, and only heartbeat (seconds) and connection_timeout (milliseconds) are known"
    )]
    Parameter { name: String },
    #[error("its parameter {name} is not a whole number from 1 to {most}")]
    Number { name: &'static str, most: u64 },
}

impl UrlParts {
    pub(crate) fn localhost() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: DEFAULT_PORT,
            vhost: "/".to_owned(),
            user: None,
            password: None,
            heartbeat: None,
            connect_timeout: None,
        }
    }

    pub(crate) fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.trim().split_once("://").ok_or(UrlError::NoScheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "amqp" => {}
            "amqps" => return Err(UrlError::Tls),
            // Only a word can be shown: anything longer may be a password in the wrong place.
            word if word.len() <= 12 && word.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                return Err(UrlError::Scheme { scheme: word.to_owned() });
            }
            _ => return Err(UrlError::NoScheme),
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, after) = rest.split_at(end);
        if after.contains('@') {
            return Err(UrlError::UnescapedPassword);
        }
        // The last “@”: one inside a password is clear enough to be let through.
        let (login, place) = authority.rsplit_once('@').map_or((None, authority), |(l, p)| (Some(l), p));
        let (user, password) = match login.map(|l| l.split_once(':').map_or((l, None), |(u, p)| (u, Some(p)))) {
            Some((user, password)) => (Some(user).filter(|u| !u.is_empty()), password),
            None => (None, None),
        };
        let (host, port) = split_port(place)?;
        let (path, query) = after.split_once('?').unwrap_or((after, ""));
        let mut parts = Self {
            host: percent_decode(host, "host")?,
            port: port.map_or(Ok(DEFAULT_PORT), |p| p.parse().ok().filter(|p| *p > 0).ok_or(UrlError::Port))?,
            vhost: vhost(path.split('#').next().unwrap_or_default())?,
            user: user.map(|u| percent_decode(u, "user name")).transpose()?,
            password: password.map(|p| percent_decode(p, "password")).transpose()?,
            heartbeat: None,
            connect_timeout: None,
        };
        if parts.host.is_empty() {
            return Err(UrlError::NoHost);
        }
        if parts.host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c)) {
            return Err(UrlError::Host);
        }
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "heartbeat" => parts.heartbeat = Some(Duration::from_secs(number("heartbeat", value, 65_535)?)),
                "connection_timeout" => {
                    let most = 600_000;
                    parts.connect_timeout = Some(Duration::from_millis(number("connection_timeout", value, most)?));
                }
                _ => return Err(UrlError::Parameter { name: name.chars().take(32).collect() }),
            }
        }
        Ok(parts)
    }
}

fn split_port(place: &str) -> Result<(&str, Option<&str>), UrlError> {
    if let Some(inside) = place.strip_prefix('[') {
        let (host, rest) = inside.split_once(']').ok_or(UrlError::HostBracket)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(UrlError::Port),
        };
    }
    Ok(place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))))
}

/// `amqp://host/` is strictly the virtual host with no name. Nobody means that: it is `/`, as without the slash.
fn vhost(path: &str) -> Result<String, UrlError> {
    let name = match path.strip_prefix('/').unwrap_or(path) {
        "" | "/" => return Ok("/".to_owned()),
        name if name.contains('/') => return Err(UrlError::VhostSlash),
        name => percent_decode(name, "virtual host")?,
    };
    if name.len() > 255 {
        return Err(UrlError::VhostTooLong { length: name.len() });
    }
    Ok(name)
}

fn number(name: &'static str, value: &str, most: u64) -> Result<u64, UrlError> {
    value.parse().ok().filter(|n| (1..=most).contains(n)).ok_or(UrlError::Number { name, most })
}

fn percent_decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(UrlError::Percent { part });
        };
        bytes.push((high * 16 + low) as u8);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Percent { part })
}

pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

const DEFAULT_PORT: u16 = 5672;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> UrlError {
        UrlParts::parse(url).err().unwrap_or_else(|| panic!("{url} was accepted"))
    }

    #[test]
    fn every_part_is_read_and_decoded() {
        let parts =
            UrlParts::parse("amqp://us%65r:p%40:@w@[::1]:77/a%2Fb?heartbeat=5&connection_timeout=1500").unwrap();
        assert_eq!((parts.host.as_str(), parts.port, parts.vhost.as_str()), ("::1", 77, "a/b"));
        assert_eq!((parts.user.as_deref(), parts.password.as_deref()), (Some("user"), Some("p@:@w")));
        assert_eq!(parts.heartbeat, Some(Duration::from_secs(5)));
        assert_eq!(parts.connect_timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn no_path_one_slash_and_its_escape_all_mean_the_default_virtual_host() {
        for url in ["amqp://h", "amqp://h/", "amqp://h//", "amqp://h/%2f", "amqp://h?heartbeat=3"] {
            assert_eq!(UrlParts::parse(url).unwrap().vhost, "/", "{url}");
        }
    }

    #[test]
    fn each_wrong_part_is_named() {
        assert_eq!(error("localhost:5672"), UrlError::NoScheme);
        assert_eq!(error("http://h"), UrlError::Scheme { scheme: "http".to_owned() });
        assert_eq!(error("amqps://h"), UrlError::Tls);
        assert_eq!(error("amqp://"), UrlError::NoHost);
        assert_eq!(error("amqp://u:p@/v"), UrlError::NoHost);
        assert_eq!(error("amqp://h:0"), UrlError::Port);
        assert_eq!(error("amqp://h:70000"), UrlError::Port);
        assert_eq!(error("amqp://u:a/b@h"), UrlError::UnescapedPassword);
        assert_eq!(error("amqp://[::1"), UrlError::HostBracket);
        assert_eq!(error("amqp://a b"), UrlError::Host);
        assert_eq!(error("amqp://h/a/b"), UrlError::VhostSlash);
        assert_eq!(error("amqp://h/%zz"), UrlError::Percent { part: "virtual host" });
        assert_eq!(error("amqp://h/%ff"), UrlError::Percent { part: "virtual host" });
        assert_eq!(error(&format!("amqp://h/{}", "x".repeat(256))), UrlError::VhostTooLong { length: 256 });
        assert_eq!(error("amqp://h?verify=1"), UrlError::Parameter { name: "verify".to_owned() });
        assert_eq!(error("amqp://h?heartbeat=x"), UrlError::Number { name: "heartbeat", most: 65_535 });
    }
}
