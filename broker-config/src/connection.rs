//! The supervised connection: pooled, named, with a heartbeat, and no await without a deadline.
//!
//! lapin's own recovery stays off. A channel is leased with its connection; after any doubt both are thrown
//! away, and the next lease is a new one. Who leases decides when to try again ([`Backoff`](crate::Backoff)) and
//! what to subscribe anew; what to declare anew is said once ([`Connections::declaring`]).

use std::{future::Future, sync::Arc, time::Duration};

use deadpool::{
    Runtime,
    managed::{Object, Pool, PoolError, TimeoutType},
};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    address::Address,
    backoff::Backoff,
    connect_error::{ConnectError, Step},
    declare::{DeclareError, declare_all},
    dial::Dialer,
    server_version::ServerVersion,
    topology::Topology,
};

/// What a connection is for. Publishing and consuming never share one: a broker that is short of memory
/// stops reading from publishers, and would not read the acknowledgements either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Publishing.
    Publish,
    /// Consuming.
    Consume,
    /// Declaring and checking.
    Admin,
}

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// The name that the dashboard shows: see [`ConnectionSettings::new`].
    pub name: String,
    /// Two of these without a sign of life end the connection. The URL's own wins.
    pub heartbeat: Duration,
    /// The most that TCP and AMQP handshake may take. The URL's own wins.
    pub connect_timeout: Duration,
    /// The most that any one question to the broker may take: opening or closing a channel, declaring.
    pub channel_timeout: Duration,
    /// The most to wait for a connection that somebody else holds.
    pub wait_timeout: Duration,
    /// The most connections at once: 1 to 4.
    pub at_most: usize,
}

/// Connections to one broker, made when asked for.
///
/// Each new connection is tried at the next node of the address, beginning with the first: a dead one costs one attempt.
/// The password file and the files of TLS, if there are any, are read anew for each.
pub struct Connections {
    address: Address,
    settings: ConnectionSettings,
    topology: Option<Topology>,
    // Made at the first use, which is inside a runtime; `new` may be outside.
    pool: OnceCell<Pool<Dialer>>,
    server: OnceCell<ServerVersion>,
}

/// A channel of one's own with the connection it is on.
///
/// Dropped, it takes the connection out of the pool, so that the next lease is a new one: that is the safe end.
/// [`give_back`](Self::give_back) is for a channel without doubt, [`close`](Self::close) for the last one.
#[doc(hidden)]
pub struct LeasedChannel {
    channel: lapin::Channel,
    lease: Option<Object<Dialer>>,
    address: Address,
    channel_timeout: Duration,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Admin => "admin",
        }
    }
}

impl ConnectionSettings {
    /// Safe settings under the name `PROGRAM ORIGIN @HOST/PID PURPOSE`, as in `producer shop @ana/4711 publish`.
    #[must_use]
    pub fn new(program: &str, origin: &str, purpose: Purpose) -> Self {
        let origin = if origin.is_empty() { String::new() } else { format!("{origin} ") };
        Self {
            name: format!("{program} {origin}@{}/{} {}", host_name(), std::process::id(), purpose.word()),
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            channel_timeout: Duration::from_secs(10),
            wait_timeout: Duration::from_secs(10),
            at_most: 1,
        }
    }
}

impl Connections {
    /// Connections to a broker. Nothing is connected yet.
    #[must_use]
    pub fn new(address: Address, settings: ConnectionSettings) -> Self {
        Self { address, settings, topology: None, pool: OnceCell::new(), server: OnceCell::new() }
    }

    /// Declares this on each new connection before anybody gets a channel of it: a broker that has lost it has it again
    /// after the reconnect that the loss makes necessary. The user needs configure rights on all of it, also on what is
    /// there already.
    #[must_use]
    pub fn declaring(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }

    /// The broker's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    /// Leases a connection, made if there is none, and opens a fresh channel on it.
    ///
    /// It waits at most for the sum of the wait, connect and channel timeouts, on a new connection for one more channel timeout
    /// for each item that is declared on it, and tries once, at one node: see [`Backoff`](crate::Backoff) for trying again.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; [`is_permanent`](ConnectError::is_permanent) says whether trying again can help.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a connection that is being made is abandoned, and ends by its own deadline.
    pub async fn channel(&self) -> Result<LeasedChannel, ConnectError> {
        let lease = self.pool().await.get().await.map_err(|e| self.explain(e))?;
        let is_new = Object::metrics(&lease).recycle_count == 0;
        let leased =
            match bounded(Step::OpenChannel, self.settings.channel_timeout, lease.address(), lease.create_channel())
                .await
            {
                Ok(channel) => LeasedChannel {
                    channel,
                    address: lease.address().clone(),
                    lease: Some(lease),
                    channel_timeout: self.settings.channel_timeout,
                },
                Err(error) => {
                    // A connection on which no channel opens is no good to anybody.
                    drop(Object::take(lease));
                    return Err(error);
                }
            };
        if is_new && let Some(topology) = &self.topology {
            declare_all(&leased, topology).await.map_err(|error| match error {
                DeclareError::Connect(error) => error,
                error => ConnectError::NotDeclared(Arc::new(error)),
            })?;
        }
        Ok(leased)
    }

    /// Which broker this is: asked once, on a short connection of its own that needs no login.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if nobody answers in time, or not in AMQP 0-9-1.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn server_version(&self) -> Result<&ServerVersion, ConnectError> {
        self.server.get_or_try_init(|| ServerVersion::ask(&self.address, self.connect_timeout())).await
    }

    /// As [`channel`](Self::channel), tried again with growing pauses until the time is up: for the first connection of a
    /// program, whose broker may still be starting.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: the last one when the time is up, or at once one that trying again does not cure.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`channel`](Self::channel) is.
    pub async fn channel_within(&self, time: Duration) -> Result<LeasedChannel, ConnectError> {
        let until = Instant::now() + time;
        let mut backoff = Backoff::new();
        loop {
            let error = match timeout_at(until, self.channel()).await {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(error)) => error,
                Err(_) => {
                    let (step, address) = (Step::Connect, self.address.to_string());
                    return Err(ConnectError::TimedOut { step, after: time, address });
                }
            };
            let pause = backoff.next_delay();
            if error.is_permanent() || Instant::now() + pause >= until {
                return Err(error);
            }
            tracing::info!(%error, ?pause, "no connection yet, trying again");
            sleep(pause).await;
        }
    }

    /// Closes every pooled connection politely, each within the channel timeout; leased ones end with their lease.
    /// Later calls answer [`ConnectError::ShutDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, the connections end all the same, without waiting.
    pub async fn close(&self) {
        let pool = self.pool().await;
        // Before closing the pool, which would drop them without a word to the broker.
        let idle = pool.retain(|_, _| false).removed;
        pool.close();
        for connection in idle {
            let closing = connection.close(REPLY_SUCCESS, "OK".into());
            let within = self.settings.channel_timeout;
            if let Err(error) = bounded(Step::CloseConnection, within, connection.address(), closing).await {
                tracing::debug!(%error, "a connection that was given up anyway");
            }
        }
    }

    async fn pool(&self) -> &Pool<Dialer> {
        self.pool.get_or_init(|| async { self.make_pool() }).await
    }

    fn make_pool(&self) -> Pool<Dialer> {
        let heartbeat = self.address.heartbeat().unwrap_or(self.settings.heartbeat);
        let dialer = Dialer::new(&self.address, &self.settings.name, heartbeat, self.connect_timeout());
        Pool::builder(dialer)
            .max_size(self.settings.at_most.clamp(1, 4))
            .wait_timeout(Some(self.settings.wait_timeout))
            // Making a connection is bounded by the dialer, which knows the node and the step.
            .recycle_timeout(Some(self.settings.channel_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .unwrap_or_else(|_| unreachable!("building fails only when timeouts lack a runtime"))
    }

    fn connect_timeout(&self) -> Duration {
        self.address.connect_timeout().unwrap_or(self.settings.connect_timeout)
    }

    fn explain(&self, error: PoolError<ConnectError>) -> ConnectError {
        let timed_out = |step, after| ConnectError::TimedOut { step, after, address: self.address.to_string() };
        match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => timed_out(Step::WaitForConnection, self.settings.wait_timeout),
            PoolError::Timeout(TimeoutType::Create) => timed_out(Step::Connect, self.connect_timeout()),
            PoolError::Timeout(TimeoutType::Recycle) => timed_out(Step::Recycle, self.settings.channel_timeout),
            PoolError::Closed => ConnectError::ShutDown,
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                ConnectError::Closed { address: self.address.to_string(), reason: error.to_string() }
            }
        }
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the pool: its dialer knows the password.
        f.debug_struct("Connections").field("address", &self.address).field("settings", &self.settings).finish()
    }
}

impl LeasedChannel {
    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &lapin::Channel {
        &self.channel
    }

    /// The connection it is on, for its events.
    #[must_use]
    pub fn connection(&self) -> &lapin::Connection {
        self.lease.as_ref().unwrap_or_else(|| unreachable!("the lease is taken only by what ends it"))
    }

    /// Whether the broker has said that it reads nothing from this connection for now.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.connection().status().blocked()
    }

    /// The address of the node that it is on, alone.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Throws channel and connection away, at once: the socket is shut, and what is unanswered is unknown. Bytes that the
    /// broker's machine has received already may still be read by a broker that is slow.
    pub fn discard(self) {
        drop(self);
    }

    /// Closes the channel and returns the connection to the pool. Only for a channel without doubt: everything on
    /// it is answered.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the closing is not answered in time; the connection is then thrown away.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it throws the connection away.
    pub async fn give_back(mut self) -> Result<(), ConnectError> {
        self.close_channel().await?;
        drop(self.lease.take());
        Ok(())
    }

    /// Closes the channel and its connection politely, and waits for both.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if a closing is not answered in time; the connection is then thrown away.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it throws the connection away.
    pub async fn close(mut self) -> Result<(), ConnectError> {
        self.close_channel().await?;
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let connection = Object::take(lease);
        let closing = connection.close(REPLY_SUCCESS, "OK".into());
        bounded(Step::CloseConnection, self.channel_timeout, &self.address, closing).await
    }

    /// Opens a new channel on the same connection in place of one that the broker has closed.
    pub(crate) async fn reopen(&mut self) -> Result<(), ConnectError> {
        self.channel = self.bounded(Step::OpenChannel, self.connection().create_channel()).await?;
        Ok(())
    }

    /// Awaits the broker's answer, at most as long as opening a channel may take.
    pub(crate) async fn bounded<T>(
        &self,
        step: Step,
        asked: impl Future<Output = Result<T, lapin::Error>>,
    ) -> Result<T, ConnectError> {
        bounded(step, self.channel_timeout, &self.address, asked).await
    }

    async fn close_channel(&self) -> Result<(), ConnectError> {
        if !self.channel.status().connected() {
            // Closed by its user already, who had reasons for when.
            return Ok(());
        }
        self.bounded(Step::CloseChannel, self.channel.close(REPLY_SUCCESS, "OK".into())).await
    }
}

impl Drop for LeasedChannel {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            // Shuts the socket; nothing waits.
            drop(Object::take(lease));
        }
    }
}

impl std::fmt::Debug for LeasedChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeasedChannel").field("address", &self.address).finish_non_exhaustive()
    }
}

/// This machine's name, as connections and consumer tags show it.
#[must_use]
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).unwrap_or_else(|| "host".to_owned())
}

pub(crate) async fn bounded<T>(
    step: Step,
    after: Duration,
    address: &Address,
    asked: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, ConnectError> {
    match tokio::time::timeout(after, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ConnectError::of_channel(&error, address)),
        Err(_) => Err(ConnectError::TimedOut { step, after, address: address.to_string() }),
    }
}

const REPLY_SUCCESS: u16 = 200;
