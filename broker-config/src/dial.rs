//! Makes one AMQP connection, and leaves nothing behind when it does not come about.
//!
//! A pool manager of our own rather than deadpool-lapin's, which takes the address as text (its `Debug` prints the
//! password, and an IPv6 address becomes “localhost”), and which leaves lapin's thread and socket behind for every
//! handshake that a frozen broker does not answer: lapin itself has no deadline there.

use std::{
    io,
    net::{Shutdown, TcpStream},
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_rs::Runtime;
use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};

use crate::{
    address::Address,
    connect_error::{ConnectError, Step},
    reactor::{self, Kit},
    transport::{Transport, Until},
};

/// Makes connections to the nodes of one address in turn, under one name.
pub(crate) struct Dialer {
    address: Address,
    /// How many connections were tried: says whose turn it is.
    tried: AtomicUsize,
    name: String,
    heartbeat: Duration,
    connect_timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(address: &Address, name: &str, heartbeat: Duration, connect_timeout: Duration) -> Self {
        Self { address: address.clone(), tried: AtomicUsize::new(0), name: name.to_owned(), heartbeat, connect_timeout }
    }

    /// The address of the node whose turn it is, alone.
    fn next_node(&self) -> Address {
        self.address.at_node(self.tried.fetch_add(1, Ordering::Relaxed))
    }

    async fn dial(&self) -> Result<Dialed, ConnectError> {
        let address = self.next_node();
        let until = Until::after(self.connect_timeout);
        let uri = until.bound(Step::Connect, &address, self.uri(&address)).await??;
        let transport = Transport::open(&address, until).await?;
        // From here on the stream is lapin's thread's. This shuts it when the handshake is given up, so that the thread reads the
        // end of the stream and ends too.
        let socket = transport.socket().map_err(|error| ConnectError::no_broker(&address, Arc::new(error)))?;
        let socket = ShutWhenDropped(socket);
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let connecting = Connection::connector(uri, reactor::current(), once(transport), properties);
        let connection = until
            .bound(Step::Connect, &address, connecting)
            .await?
            .map_err(|error| ConnectError::of_handshake(&error, &address, self.connect_timeout))?;
        Ok(Dialed { _socket: socket, connection, address })
    }

    /// lapin's form of it, with the password as it is now.
    async fn uri(&self, address: &Address) -> Result<AMQPUri, ConnectError> {
        let seconds = self.heartbeat.as_secs().clamp(1, u16::MAX.into());
        Ok(AMQPUri {
            // Of no account: TLS is made here.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: address.user().to_owned(), password: address.password_now().await? },
                host: address.host().to_owned(),
                port: address.port(),
            },
            vhost: address.vhost().to_owned(),
            query: AMQPQueryString { heartbeat: u16::try_from(seconds).ok(), ..AMQPQueryString::default() },
        })
    }
}

/// A connection and its socket. Dropped, it ends at once, whatever is still queued on it: lapin alone would keep its
/// thread, its socket and what it holds for as long as a blocked or frozen broker does not read.
pub(crate) struct Dialed {
    // First, so that it is dropped first.
    _socket: ShutWhenDropped,
    connection: Connection,
    address: Address,
}

impl Dialed {
    /// The address of the node that it is to, alone.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }
}

impl Deref for Dialed {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Manager for Dialer {
    type Type = Dialed;
    type Error = ConnectError;

    fn create(&self) -> impl Future<Output = Result<Dialed, ConnectError>> + Send {
        // On the heap: a handshake is large, and whoever leases a channel would carry it.
        Box::pin(self.dial())
    }

    async fn recycle(&self, connection: &mut Dialed, _: &Metrics) -> RecycleResult<ConnectError> {
        if connection.status().connected() { Ok(()) } else { Err(RecycleError::message("the connection has ended")) }
    }
}

/// Hands the stream out once. lapin asks again when it ends before the broker has said a word, and is told that it is over.
fn once(
    transport: Transport,
) -> impl AsyncFn(AMQPUri, Runtime<Kit>) -> lapin::Result<AsyncTcpStream<Transport>> + Send + Sync + 'static {
    let transport = Mutex::new(Some(transport));
    async move |_, _| {
        let transport = transport.lock().unwrap_or_else(PoisonError::into_inner).take();
        transport.map(AsyncTcpStream::Plain).ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted).into())
    }
}

/// A handle on a socket that ends it, whoever else has one.
struct ShutWhenDropped(TcpStream);

impl Drop for ShutWhenDropped {
    fn drop(&mut self) {
        // It fails only if it has ended already, as after a polite close.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
