//! The brokers that tests run on, named by the environment.
//!
//! `CORREIO_BROKERS=NAME=COMMAND;NAME=COMMAND`, where a command is one that [`Server::from_command`] understands, `auto` for
//! what [`Server::discover`] finds, or `debian` for the packages of this Debian or Ubuntu. Unset, there is one broker, found by discovery. A broker that is named and cannot start
//! is an error, and a panic in the test helpers: a test that silently does not run proves nothing.

use super::{LabError, Node, NodeOptions, Server};
use futures_util::future::join_all;
use std::{collections::BTreeMap, env, sync::Mutex, sync::PoisonError};
use tokio::sync::OnceCell;

/// A broker that tests are to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    name: String,
    command: Option<String>,
}

impl Broker {
    /// What the environment calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts a node of this broker for one test alone.
    ///
    /// # Errors
    ///
    /// As [`Server::from_command`] or [`Server::discover`], and [`Node::start_from`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn start(&self, options: NodeOptions) -> Result<Node, LabError> {
        let server = match &self.command {
            Some(command) => Server::from_word(command).await?,
            None => Server::discover().await?,
        };
        Node::start_from(&server, &self.name, options).await
    }

    /// The node that all tests of this process share; the first call starts it. It runs until the process ends.
    ///
    /// Whoever shares it does not kill, pause or restart it, and uses queue names of their own.
    ///
    /// # Errors
    ///
    /// As [`Broker::start`]. The next call tries again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: another test goes on with the start.
    pub async fn shared(&self) -> Result<&'static Node, LabError> {
        let cell: &'static OnceCell<Node> = {
            let mut cells = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(self.name.clone()).or_insert_with(|| Box::leak(Box::new(OnceCell::new())))
        };
        cell.get_or_try_init(|| self.start(NodeOptions::default())).await
    }
}

/// All the brokers that tests are to run on; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brokers(Vec<Broker>);

impl Brokers {
    /// Reads `CORREIO_BROKERS`.
    ///
    /// # Errors
    ///
    /// [`LabError::BadBrokerList`] when it cannot be read or names a broker twice.
    pub fn from_env() -> Result<Self, LabError> {
        match env::var("CORREIO_BROKERS") {
            Ok(list) if !list.trim().is_empty() => Self::parse(&list),
            _ => Ok(Self(vec![Broker { name: "rabbitmq".to_owned(), command: None }])),
        }
    }

    /// Reads a list in the form of `CORREIO_BROKERS`.
    ///
    /// # Errors
    ///
    /// As [`Brokers::from_env`].
    pub fn parse(list: &str) -> Result<Self, LabError> {
        let refuse = |entry: &str, why: &str| LabError::BadBrokerList { entry: entry.to_owned(), why: why.to_owned() };
        let mut brokers: Vec<Broker> = Vec::new();
        for entry in list.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, command) = entry.split_once('=').ok_or_else(|| refuse(entry, "has no `=`"))?;
            let (name, command) = (name.trim(), command.trim());
            if name.is_empty() || command.is_empty() {
                return Err(refuse(entry, "lacks a name or a command"));
            }
            if brokers.iter().any(|broker| broker.name == name) {
                return Err(refuse(entry, "names a broker for the second time"));
            }
            brokers.push(Broker { name: name.to_owned(), command: (command != "auto").then(|| command.to_owned()) });
        }
        if brokers.is_empty() { Err(refuse(list, "names no broker")) } else { Ok(Self(brokers)) }
    }

    /// The brokers, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = &Broker> {
        self.0.iter()
    }

    /// The broker of this name.
    ///
    /// # Errors
    ///
    /// [`LabError::UnknownBroker`] with the names that exist.
    pub fn named(&self, name: &str) -> Result<&Broker, LabError> {
        self.0.iter().find(|broker| broker.name == name).ok_or_else(|| LabError::UnknownBroker {
            name: name.to_owned(),
            known: self.0.iter().map(|broker| broker.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Runs a test on each broker that the environment names, on the node that all tests of this process share.
///
/// # Panics
///
/// When a named broker cannot be had, with the reason; and as the test does, after naming the broker on standard error.
pub async fn for_each(test: impl AsyncFn(&'static Node)) {
    for broker in named_brokers().iter() {
        let node = broker.shared().await.unwrap_or_else(|error| panic!("broker {}: {error}", broker.name));
        let _on = On::broker(node);
        test(node).await;
    }
}

/// Runs a test on each broker that the environment names, on a node of its own that the test may kill: on all of them at once, as
/// such a test mostly waits for its node.
///
/// # Panics
///
/// As [`for_each`].
pub async fn for_each_own(options: NodeOptions, test: impl AsyncFn(&Node)) {
    join_all(named_brokers().iter().map(|broker| on_its_own(broker, &options, &test))).await;
}

/// As [`for_each_own`], on one broker after the other: for tests that count what is left in their runtime.
///
/// # Panics
///
/// As [`for_each`].
pub async fn for_each_own_in_turn(options: NodeOptions, test: impl AsyncFn(&Node)) {
    for broker in named_brokers().iter() {
        on_its_own(broker, &options, &test).await;
    }
}

async fn on_its_own(broker: &Broker, options: &NodeOptions, test: &impl AsyncFn(&Node)) {
    let node = broker.start(options.clone()).await.unwrap_or_else(|error| panic!("broker {}: {error}", broker.name));
    {
        let _on = On::broker(&node);
        test(&node).await;
    }
    node.close().await.unwrap_or_else(|error| panic!("broker {}: {error}", broker.name));
}

/// The shared node of the broker of this name.
///
/// # Panics
///
/// When the environment does not name it, or it cannot be had.
pub async fn shared_node(name: &str) -> &'static Node {
    let brokers = named_brokers();
    let broker = brokers.named(name).unwrap_or_else(|error| panic!("{error}"));
    broker.shared().await.unwrap_or_else(|error| panic!("broker {name}: {error}"))
}

fn named_brokers() -> Brokers {
    Brokers::from_env().unwrap_or_else(|error| panic!("{error}"))
}

/// Says on which broker a test failed: of those that run at once, that which is said first.
struct On(String);

impl On {
    fn broker(node: &Node) -> Self {
        Self(format!("{} (RabbitMQ {})", node.name(), node.version()))
    }
}

impl Drop for On {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the test failed on broker {}", self.0);
        }
    }
}

static SHARED: Mutex<BTreeMap<String, &'static OnceCell<Node>>> = Mutex::new(BTreeMap::new());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_brokers_in_its_order() {
        let brokers = Brokers::parse("3.10=auto; 4.3=/opt/rabbit server ;").expect("a list");
        assert_eq!(brokers.iter().map(Broker::name).collect::<Vec<_>>(), ["3.10", "4.3"]);
        assert_eq!(brokers.named("3.10").expect("named").command, None);
        assert_eq!(brokers.named("4.3").expect("named").command.as_deref(), Some("/opt/rabbit server"));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error_that_shows_the_entry() {
        for (list, shown) in
            [("4.3", "`4.3`"), ("=auto", "`=auto`"), ("a=", "`a=`"), ("a=auto;a=docker", "`a=docker`"), (";", "`;`")]
        {
            let error = Brokers::parse(list).expect_err(list).to_string();
            assert!(error.contains(shown), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_shows_the_known_ones() {
        let brokers = Brokers::parse("3.10=auto;4.3=auto").expect("a list");
        assert!(brokers.named("5").expect_err("unknown").to_string().ends_with("3.10, 4.3"));
    }
}
