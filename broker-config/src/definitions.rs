//! RabbitMQ's own files: one set that boots on 3.10, 4.0 and 4.3.
//!
//! `definitions.json` is generated from [`Topology::shipped`] and [`users`]; the file in the repository is compared
//! with it by a test. `rabbitmq.conf` and `enabled_plugins` are written by hand, without a key that 3.10 does not know.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use correio_message::Exchange;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{exchange::kind_of, topology::Topology};

/// The plugins that the broker is to run: the dashboard and metrics, both of which RabbitMQ ships.
pub const ENABLED_PLUGINS: &str = include_str!("../rabbitmq/enabled_plugins");

/// A user of the shipped definitions. The password is the name: for a laptop, where the compose file binds the
/// ports to 127.0.0.1. Anywhere else change them (`rabbitmqctl change_password`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, and the password.
    pub name: &'static str,
    /// What it may see in the dashboard.
    pub tag: Option<&'static str>,
    /// Which names it may declare and delete.
    pub configure: &'static str,
    /// Which names it may publish to, or bind a queue of.
    pub write: &'static str,
    /// Which names it may consume from, or bind to.
    pub read: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

/// The users, each with the least that its work needs. There is no `guest`.
#[must_use]
pub fn users() -> [User; 4] {
    [
        User {
            name: "producer",
            tag: None,
            // The queues for the answers to its own requests: their names have a UUID that only the requester knows.
            configure: r"^correio\.reply\.",
            // Never `amq.default`: through it one can publish into every queue. `correio.retry` reaches none that
            // `correio.queue` does not, only later.
            write: r"^correio\.(queue|retry|topic|broadcast)$|^correio\.reply\.",
            read: r"^correio\.reply($|\.)",
            purpose: "publishes, and reads the answers to its requests",
        },
        User {
            name: "consumer",
            tag: None,
            configure: r"^correio\.(group|mailbox|broadcast|reply)\.",
            // `correio.queue` for replayed dead letters, the names with a further part to bind its own queues.
            write: r"^correio\.(queue|retry|dead|reply)$|^correio\.(group|mailbox|broadcast|reply)\.",
            // Any queue, as `broker apply --queue` makes new ones; delay queues too, whose presence tells a shared work
            // queue from an ordered one.
            read: r"^(?!amq\.)",
            purpose: "consumes, retries, parks and replays",
        },
        User {
            name: "operator",
            tag: Some("management"),
            configure: r"^(?!amq\.)",
            write: r"^(?!amq\.)",
            read: r"^(?!amq\.)",
            purpose: "declares exchanges and queues: the program `broker`",
        },
        User {
            name: "student",
            // `management` shows only one's own connections and channels; the lessons look at the others'.
            tag: Some("monitoring"),
            configure: NOTHING,
            write: NOTHING,
            // Who may read a queue may purge it too: dead letters are looked at with `consumer dead-letters list`.
            read: NOTHING,
            purpose: "looks at the dashboard",
        },
    ]
}

/// The contents of `definitions.json`: the same text every time.
#[must_use]
pub fn definitions_json(topology: &Topology) -> String {
    let vhost = "/";
    let permission = |user: &User| {
        json!({
            "user": user.name, "vhost": vhost,
            "configure": user.configure, "write": user.write, "read": user.read,
        })
    };
    let exchange = |exchange: &Exchange| {
        json!({
            "name": exchange.as_str(), "vhost": vhost, "type": kind_of(*exchange).as_str(),
            "durable": true, "auto_delete": false, "internal": false, "arguments": {},
        })
    };
    let queues = topology.queues().iter().map(|queue| {
        json!({
            "name": queue.name().as_str(), "vhost": vhost,
            "durable": true, "auto_delete": false, "arguments": queue.arguments(),
        })
    });
    let bindings = topology.bindings().iter().map(|binding| {
        json!({
            "source": binding.route.exchange.as_str(), "vhost": vhost,
            "destination": binding.queue.as_str(), "destination_type": "queue",
            "routing_key": binding.route.routing_key.as_str(), "arguments": {},
        })
    });
    let all = json!({
        "vhosts": [{ "name": vhost }],
        "users": users().iter().map(user_json).collect::<Vec<_>>(),
        "permissions": users().iter().map(permission).collect::<Vec<_>>(),
        "topic_permissions": [],
        "parameters": [],
        "policies": [],
        "exchanges": topology.exchanges().iter().map(exchange).collect::<Vec<_>>(),
        "queues": queues.collect::<Vec<_>>(),
        "bindings": bindings.collect::<Vec<_>>(),
    });
    // A value of texts, numbers and maps with text keys always has a JSON form.
    let mut text = serde_json::to_string_pretty(&all).unwrap_or_default();
    text.push('\n');
    text
}

/// The contents of `rabbitmq.conf`, with the definitions at `definitions`. It names no port: the defaults are the
/// compose file's, and who runs a node of their own appends lines.
#[must_use]
pub fn rabbitmq_conf(definitions: &Path) -> String {
    RABBITMQ_CONF.replace(DEFINITIONS_IN_COMPOSE, &definitions.display().to_string())
}

/// RabbitMQ's hash of a password: base64(salt ‖ SHA-256(salt ‖ password)).
///
/// The salt is a part of the hash of the user's name, so that the same file comes out every time. That is no secret
/// lost: these passwords stand in the README.
fn user_json(user: &User) -> Value {
    let digest = Sha256::digest(user.name);
    let salt = &digest[..4];
    let salted = Sha256::digest([salt, user.name.as_bytes()].concat());
    json!({
        "name": user.name,
        "password_hash": STANDARD.encode([salt, &salted[..]].concat()),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        // An array: 3.10 takes both forms, 4.x only this one.
        "tags": user.tag.into_iter().collect::<Vec<_>>(),
    })
}

const NOTHING: &str = "^$";
const RABBITMQ_CONF: &str = include_str!("../rabbitmq/rabbitmq.conf");
const DEFINITIONS_IN_COMPOSE: &str = "/etc/rabbitmq/definitions.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_in_the_repository_are_those_of_the_topology() {
        let written = include_str!("../rabbitmq/definitions.json");
        assert!(
            written == definitions_json(&Topology::shipped()),
            "broker-config/rabbitmq/definitions.json is stale. Write it anew:\n\n    \
             cargo broker definitions > broker-config/rabbitmq/definitions.json\n"
        );
    }

    #[test]
    fn the_configuration_can_name_definitions_elsewhere() {
        let conf = rabbitmq_conf(Path::new("/somewhere/else.json"));
        assert!(conf.contains("\nload_definitions = /somewhere/else.json\n"), "{conf}");
    }

    #[test]
    fn no_user_may_write_to_the_default_exchange_and_none_is_guest() {
        for user in users() {
            assert_ne!(user.name, "guest");
            assert!(user.write == NOTHING || user.write.starts_with(r"^correio\.") || user.write == r"^(?!amq\.)");
        }
    }
}
