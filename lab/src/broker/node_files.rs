//! The files that a node boots from: RabbitMQ's configuration, its plugins and its definitions.
//!
//! With the project's files the node has the exchanges, queues and users that everybody has, in the same words; only what
//! says where the node lives (ports, logs, limits) is replaced. Without them it is empty: one vhost, the same users.

use super::{
    LabError,
    node::Login,
    tls_listener::{self, TlsListener},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Where a node listens and what it reads.
#[derive(Clone, Debug)]
pub(crate) struct Files<'a> {
    /// The project's own configuration and definitions, or an empty broker.
    pub(crate) project: bool,
    /// Address and port for AMQP.
    pub(crate) amqp: (&'a str, u16),
    /// Address and port of the dashboard, if it has one.
    pub(crate) dashboard: Option<(&'a str, u16)>,
    /// The listener with TLS, if there is one, with its address and port.
    pub(crate) tls: Option<(&'a TlsListener, (&'a str, u16))>,
    /// Where the node itself sees the folder with these files.
    pub(crate) seen_at: &'a Path,
    /// The password of the lab's own user.
    pub(crate) lab_password: &'a str,
}

impl Files<'_> {
    /// Writes `rabbitmq.conf`, `enabled_plugins` and `definitions.json` into the folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), LabError> {
        let definitions = self.definitions()?;
        let plugins = if self.dashboard.is_some() { "[rabbitmq_management].\n" } else { "[].\n" };
        for (name, text) in [
            ("rabbitmq.conf", self.configuration()),
            ("enabled_plugins", plugins.to_owned()),
            ("definitions.json", definitions),
        ] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(LabError::file("write", &path))?;
        }
        match self.tls {
            Some((listener, _)) => listener.copy_into(folder),
            None => Ok(()),
        }
    }

    fn configuration(&self) -> String {
        let mut text = String::new();
        for line in project_configuration(self.project).lines().map(str::trim) {
            let dashboards = line.starts_with("management") || line.starts_with("prometheus");
            let replaced = REPLACED.iter().any(|key| line.starts_with(key)) || (dashboards && self.dashboard.is_none());
            if !line.is_empty() && !line.starts_with('#') && !replaced {
                text.push_str(line);
                text.push('\n');
            }
        }
        let (address, port) = self.amqp;
        text.push_str(&format!("listeners.tcp.1 = {address}:{port}\n"));
        text.push_str(&format!("load_definitions = {}\n", self.seen_at.join("definitions.json").display()));
        if let Some((listener, listens)) = self.tls {
            text.push_str(&listener.configuration(listens, self.seen_at));
        }
        if let Some((address, port)) = self.dashboard {
            text.push_str(&format!("management.tcp.ip = {address}\nmanagement.tcp.port = {port}\n"));
        }
        text.push_str(LIMITS);
        text
    }

    fn definitions(&self) -> Result<String, LabError> {
        let mut definitions = if self.project { project_definitions()? } else { empty_definitions() };
        let permissions = everywhere(&definitions, Login::Lab);
        append(&mut definitions, "users", vec![user(Login::Lab, self.lab_password)]);
        append(&mut definitions, "permissions", permissions);
        Ok(definitions.to_string())
    }
}

fn empty_definitions() -> Value {
    let mut definitions = json!({ "vhosts": [{ "name": "/" }], "users": [], "permissions": [] });
    for login in [Login::Producer, Login::Consumer, Login::Student] {
        let permissions = everywhere(&definitions, login);
        append(&mut definitions, "users", vec![user(login, login.project_password())]);
        append(&mut definitions, "permissions", permissions);
    }
    definitions
}

fn user(login: Login, password: &str) -> Value {
    json!({ "name": login.name(), "password": password, "tags": ["administrator"] })
}

fn everywhere(definitions: &Value, login: Login) -> Vec<Value> {
    let vhosts = definitions["vhosts"].as_array().into_iter().flatten();
    vhosts
        .map(|vhost| json!({ "user": login.name(), "vhost": vhost["name"], "configure": ".*", "write": ".*", "read": ".*" }))
        .collect()
}

fn append(definitions: &mut Value, list: &str, items: Vec<Value>) {
    if !definitions[list].is_array() {
        definitions[list] = json!([]);
    }
    if let Some(present) = definitions[list].as_array_mut() {
        present.extend(items);
    }
}

fn project_configuration(project: bool) -> &'static str {
    if project {
        include_str!("../../../broker-config/rabbitmq/rabbitmq.conf")
    } else {
        "raft.wal_max_size_bytes = 64000000\n"
    }
}

fn project_definitions() -> Result<Value, LabError> {
    let text = include_str!("../../../broker-config/rabbitmq/definitions.json");
    serde_json::from_str(text).map_err(|error| LabError::Unreadable {
        step: "reading broker-config/rabbitmq/definitions.json".to_owned(),
        answer: error.to_string(),
    })
}

/// Every file that a node may have.
pub(crate) const NODE_FILES: [&str; 6] = [
    "rabbitmq.conf",
    "enabled_plugins",
    "definitions.json",
    tls_listener::AUTHORITIES,
    tls_listener::CERTIFICATE,
    tls_listener::KEY,
];

/// Keys of the project's `rabbitmq.conf` that say where a node lives; here it lives elsewhere.
const REPLACED: &[&str] = &[
    "listeners.",
    "ssl_options.",
    "management.tcp.",
    "management.ssl.",
    "management.listener.",
    "management.load_definitions",
    "prometheus.tcp.",
    "prometheus.ssl.",
    "load_definitions",
    "definitions.",
    "log.",
    "default_",
    "cluster_",
    "vm_memory_high_watermark",
    "total_memory_available_override_value",
    "disk_free_limit",
];

/// A node of the lab shares its machine with a build: it may use a gigabyte, and stops short of a full disk.
const LIMITS: &str = "log.console = false\nlog.file.level = info\nvm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 50MB\n";
