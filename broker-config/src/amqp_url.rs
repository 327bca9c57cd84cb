//! The parts of an AMQP URL (<https://www.rabbitmq.com/docs/uri-spec>), each wrong one named.

use std::time::Duration;

use crate::{amqp_query::Query, node_address::NodeAddress, percent::percent_decode, tls::TlsSettings};

/// What an AMQP URL says.
pub(crate) struct UrlParts {
    /// At least one.
    pub(crate) nodes: Vec<NodeAddress>,
    pub(crate) tls: Option<TlsSettings>,
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
    #[error("it has no scheme: write amqp://USER:PASSWORD@HOST[:PORT][,HOST[:PORT]…][/VHOST], with TLS amqps://")]
    NoScheme,
    #[error("its scheme is “{scheme}” and must be “amqp” or “amqps”")]
    Scheme { scheme: String },
    #[error(
        "amqps:// (TLS) is not built into this program: build it with the cargo feature `tls` of correio-broker-config"
    )]
    TlsNotBuiltIn,
    #[error("its parameter {name} is one of TLS, and TLS is what amqps:// says")]
    TlsParameter { name: &'static str },
    #[error(
        "it has verify=verify_none: the server is always verified; name its authority's certificate with cacertfile"
    )]
    VerifyNone,
    #[error("its parameter verify can only be verify_peer, which is so without it too")]
    Verify,
    #[error("it has {given} without {missing}: a client certificate needs both, which may be the same file")]
    HalfACertificate { given: &'static str, missing: &'static str },
    #[error("its parameter {name} is empty")]
    Empty { name: &'static str },
    #[error("it names no host, or none between two commas: write amqp://USER:PASSWORD@HOST or HOST1,HOST2")]
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
        "it has a parameter “{name}”, and only heartbeat (seconds), connection_timeout (milliseconds) and, with amqps://, \
         cacertfile, certfile, keyfile, server_name_indication and verify=verify_peer are known"
    )]
    Parameter { name: String },
    #[error("its parameter {name} is not a whole number from 1 to {most}")]
    Number { name: &'static str, most: u64 },
}

impl UrlParts {
    pub(crate) fn localhost() -> Self {
        Self {
            nodes: vec![NodeAddress::new("localhost", PORT)],
            tls: None,
            vhost: "/".to_owned(),
            user: None,
            password: None,
            heartbeat: None,
            connect_timeout: None,
        }
    }

    pub(crate) fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.trim().split_once("://").ok_or(UrlError::NoScheme)?;
        let default_port = match scheme.to_ascii_lowercase().as_str() {
            "amqp" => PORT,
            "amqps" if cfg!(feature = "tls") => TLS_PORT,
            "amqps" => return Err(UrlError::TlsNotBuiltIn),
            // Only a word can be shown: anything longer may be a password in the wrong place.
            word if word.len() <= 12 && word.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                return Err(UrlError::Scheme { scheme: word.to_owned() });
            }
            _ => return Err(UrlError::NoScheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, after) = rest.split_at(end);
        let (path, query) = after.split_once('?').unwrap_or((after, ""));
        // The last “@”: one inside a password is clear enough to be let through.
        let (login, place) = authority.rsplit_once('@').map_or((None, authority), |(l, p)| (Some(l), p));
        // A file's name may have one in it.
        if path.contains('@') || (login.is_none() && query.contains('@')) {
            return Err(UrlError::UnescapedPassword);
        }
        let (user, password) = match login.map(|l| l.split_once(':').map_or((l, None), |(u, p)| (u, Some(p)))) {
            Some((user, password)) => (Some(user).filter(|u| !u.is_empty()), password),
            None => (None, None),
        };
        let query = Query::parse(query)?;
        Ok(Self {
            nodes: place.split(',').map(|place| node(place, default_port)).collect::<Result<_, _>>()?,
            tls: query.tls(default_port == TLS_PORT)?,
            vhost: vhost(path.split('#').next().unwrap_or_default())?,
            user: user.map(|u| percent_decode(u, "user name")).transpose()?,
            password: password.map(|p| percent_decode(p, "password")).transpose()?,
            heartbeat: query.heartbeat,
            connect_timeout: query.connect_timeout,
        })
    }
}

fn node(place: &str, default_port: u16) -> Result<NodeAddress, UrlError> {
    let (host, port) = split_port(place)?;
    let port = port.map_or(Ok(default_port), |p| p.parse().ok().filter(|p| *p > 0).ok_or(UrlError::Port))?;
    let host = percent_decode(host, "host")?;
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@,".contains(c)) {
        return Err(UrlError::Host);
    }
    Ok(NodeAddress::new(host, port))
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

const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

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
        assert_eq!((parts.nodes, parts.vhost.as_str()), (vec![NodeAddress::new("::1", 77)], "a/b"));
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
        assert_eq!(error("amqp://a,,b"), UrlError::NoHost);
        assert_eq!(error("amqp://a,b:x"), UrlError::Port);
        assert_eq!(error("amqp://a%2Cb"), UrlError::Host);
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
        assert_eq!(error("amqp://h?channel_max=1"), UrlError::Parameter { name: "channel_max".to_owned() });
        assert_eq!(error("amqp://u:a@b?c@h"), UrlError::UnescapedPassword);
        assert_eq!(error("amqp://h?heartbeat=x"), UrlError::Number { name: "heartbeat", most: 65_535 });
    }

    #[test]
    fn several_nodes_stand_between_commas_each_with_its_port_or_the_usual_one() {
        let nodes = |url| UrlParts::parse(url).unwrap().nodes;
        let expected = [NodeAddress::new("one", 5672), NodeAddress::new("::2", 2), NodeAddress::new("::3", 5672)];
        assert_eq!(nodes("amqp://u:p,q@one,[::2]:2,[::3]/v"), expected);
        assert_eq!(UrlParts::parse("amqp://u:p,q@one,two").unwrap().password.as_deref(), Some("p,q"));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_the_feature_the_error_names_it() {
        assert_eq!(error("amqps://h"), UrlError::TlsNotBuiltIn);
        assert!(error("amqps://h").to_string().contains("`tls`"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_has_its_own_port_and_its_parameters_and_cannot_be_made_blind() {
        let parts = UrlParts::parse("amqps://one,two:77/v").unwrap();
        assert_eq!(parts.nodes, [NodeAddress::new("one", 5671), NodeAddress::new("two", 77)]);
        assert_eq!(parts.tls, Some(TlsSettings::new()));
        let url =
            "amqps://u:p@h?cacertfile=/a%20b/c@d.pem&certfile=c&keyfile=k&server_name_indication=n&verify=verify_peer";
        let settings =
            TlsSettings::new().with_ca_file("/a b/c@d.pem").with_client_certificate("c", "k").with_server_name("n");
        assert_eq!(UrlParts::parse(url).unwrap().tls, Some(settings));

        assert_eq!(error("amqps://h?verify=verify_none"), UrlError::VerifyNone);
        assert_eq!(error("amqps://h?verify=no"), UrlError::Verify);
        assert_eq!(error("amqp://h?cacertfile=c"), UrlError::TlsParameter { name: "cacertfile" });
        assert_eq!(error("amqps://h?cacertfile="), UrlError::Empty { name: "cacertfile" });
        let (given, missing) = ("certfile", "keyfile");
        assert_eq!(error("amqps://h?certfile=c"), UrlError::HalfACertificate { given, missing });
        let (given, missing) = (missing, given);
        assert_eq!(error("amqps://h?keyfile=c"), UrlError::HalfACertificate { given, missing });
    }
}
