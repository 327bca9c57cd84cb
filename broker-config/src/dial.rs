//! Makes one AMQP connection, and leaves nothing behind when it does not come about.
//!
//! A pool manager of our own rather than deadpool-lapin's, which takes the address as text (its `Debug` prints the
//! password, and an IPv6 address becomes “localhost”), and which leaves lapin's thread and socket behind for every
//! handshake that a frozen broker does not answer: lapin itself has no deadline there.

use std::{
    io,
    net::{Shutdown, TcpStream},
    ops::Deref,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_rs::TokioRuntime;
use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};

use crate::address::Address;

/// Makes connections to one address under one name.
pub(crate) struct Dialer {
    uri: AMQPUri,
    name: String,
    connect_timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(address: &Address, name: &str, heartbeat: Duration, connect_timeout: Duration) -> Self {
        let seconds = heartbeat.as_secs().clamp(1, u16::MAX.into());
        let uri = AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: address.user().to_owned(), password: address.password().to_owned() },
                host: address.host().to_owned(),
                port: address.port(),
            },
            vhost: address.vhost().to_owned(),
            query: AMQPQueryString { heartbeat: u16::try_from(seconds).ok(), ..AMQPQueryString::default() },
        };
        Self { uri, name: name.to_owned(), connect_timeout }
    }
}

/// A connection and its socket. Dropped, it ends at once, whatever is still queued on it: lapin alone would keep its
/// thread, its socket and what it holds for as long as a blocked or frozen broker does not read.
pub(crate) struct Dialed {
    connection: Connection,
    socket: Option<TcpStream>,
}

impl Deref for Dialed {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Dialed {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // It fails only if it has ended already, as after a polite close.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Manager for Dialer {
    type Type = Dialed;
    type Error = lapin::Error;

    async fn create(&self) -> Result<Dialed, lapin::Error> {
        let handshake = Handshake::default();
        let (socket, connect_timeout) = (handshake.socket.clone(), self.connect_timeout);
        let connect = async move |uri: AMQPUri, runtime: TokioRuntime| {
            let place = runtime.to_socket_addrs((uri.authority.host, uri.authority.port));
            let stream = tokio::time::timeout(connect_timeout, AsyncTcpStream::connect(&runtime, place))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            if let AsyncTcpStream::Plain(stream) = &stream {
                socket.on_connected(stream.get_ref().as_fd().try_clone_to_owned()?.into())?;
            }
            Ok(stream)
        };
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let runtime = TokioRuntime::tokio_current();
        let connection = Connection::connector(self.uri.clone(), runtime, connect, properties).await?;
        Ok(Dialed { connection, socket: handshake.socket.on_done() })
    }

    async fn recycle(&self, connection: &mut Dialed, _: &Metrics) -> RecycleResult<lapin::Error> {
        if connection.status().connected() { Ok(()) } else { Err(RecycleError::message("the connection has ended")) }
    }
}

/// A handshake under way. Dropped before it is done, which is how a deadline ends it, it shuts the socket, so that
/// lapin's thread reads the end of the stream and ends too.
#[derive(Default)]
struct Handshake {
    socket: Arc<Socket>,
}

#[derive(Default)]
struct Socket(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Connecting,
    Connected(TcpStream),
    Done,
    Abandoned,
}

impl Socket {
    fn on_connected(&self, socket: TcpStream) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Abandoned) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        *state = State::Connected(socket);
        Ok(())
    }

    fn on_done(&self) -> Option<TcpStream> {
        match std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Done) {
            State::Connected(socket) => Some(socket),
            State::Connecting | State::Done | State::Abandoned => None,
        }
    }

    fn on_abandoned(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Connected(socket) = std::mem::replace(&mut *state, State::Abandoned) {
            // It fails only if the other side has ended it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if !matches!(*self.socket.0.lock().unwrap_or_else(PoisonError::into_inner), State::Done) {
            self.socket.on_abandoned();
        }
    }
}
