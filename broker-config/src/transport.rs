//! The byte stream that AMQP runs on: a socket, or TLS on one, made here and not by lapin.
//!
//! Made here, what goes wrong before AMQP begins is seen as it was, ends with the future that waits for it, and costs no
//! thread; and lapin's own TLS, with all that it would bring, stays out.

use std::{
    io,
    net::TcpStream as StdTcpStream,
    os::fd::AsFd as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    address::Address,
    connect_error::{ConnectError, Step},
    frames::{Checked, Frames},
    tls_error::TlsError,
};

/// A connected socket whose frames are looked at before they are read.
pub(crate) struct Transport {
    socket: Socket,
    frames: Frames,
    /// The beginning of a frame that is not whole yet.
    held: Vec<u8>,
    /// How many bytes that will have.
    wanted: usize,
    /// Looked at, and to be read from here on.
    ready: Vec<u8>,
    read: usize,
}

/// A connected socket, with TLS on it if the address says so.
enum Socket {
    Plain(Plain),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// A socket without TLS, which knows TLS when it meets it.
struct Plain {
    socket: TcpStream,
    is_answered: bool,
}

/// When a step has to be done, and how long that was from the beginning.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    at: Instant,
    after: std::time::Duration,
}

impl Until {
    pub(crate) fn after(after: std::time::Duration) -> Self {
        Self { at: Instant::now() + after, after }
    }

    /// Awaits a step towards this address, no longer than that.
    pub(crate) async fn bound<T>(
        self,
        step: Step,
        address: &Address,
        asked: impl Future<Output = T>,
    ) -> Result<T, ConnectError> {
        let timed_out = |_| ConnectError::TimedOut { step, after: self.after, address: address.to_string() };
        timeout_at(self.at, asked).await.map_err(timed_out)
    }
}

impl Transport {
    /// Connects to the first node of the address, and makes TLS if that is asked for. Dropped before it is done, it leaves nothing
    /// behind.
    pub(crate) async fn open(address: &Address, until: Until) -> Result<Self, ConnectError> {
        let node = (address.host(), address.port());
        let connected = until.bound(Step::Connect, address, TcpStream::connect(node)).await?;
        let no_broker = |error| ConnectError::no_broker(address, Arc::new(error));
        let socket = connected.map_err(no_broker)?;
        socket.set_nodelay(true).map_err(no_broker)?;
        let Some(settings) = address.tls() else {
            return Ok(Self::on(Socket::Plain(Plain { socket, is_answered: false })));
        };
        #[cfg(feature = "tls")]
        {
            let shaking = crate::tls_client::handshake(socket, settings, address.host());
            let secured = until.bound(Step::Tls, address, shaking).await?;
            secured
                .map(|stream| Self::on(Socket::Tls(Box::new(stream))))
                .map_err(|cause| ConnectError::tls(address, cause))
        }
        #[cfg(not(feature = "tls"))]
        {
            let _ = settings;
            Err(ConnectError::tls(address, TlsError::NotBuiltIn))
        }
    }

    fn on(socket: Socket) -> Self {
        Self { socket, frames: Frames::default(), held: Vec::new(), wanted: 0, ready: Vec::new(), read: 0 }
    }

    /// A second handle on the socket, to shut it with.
    pub(crate) fn socket(&self) -> io::Result<StdTcpStream> {
        let socket = match &self.socket {
            Socket::Plain(plain) => &plain.socket,
            #[cfg(feature = "tls")]
            Socket::Tls(stream) => stream.get_ref().0,
        };
        Ok(socket.as_fd().try_clone_to_owned()?.into())
    }
}

/// What an error of this stream says about TLS; `None` if it is none of TLS.
pub(crate) fn tls_meaning(error: &io::Error, address: &Address) -> Option<TlsError> {
    if error.get_ref().is_some_and(|inner| inner.is::<SpeaksTls>()) {
        return Some(TlsError::Wanted);
    }
    #[cfg(feature = "tls")]
    if let Some(settings) = address.tls() {
        return crate::tls_client::meaning(error, settings, settings.server_name().unwrap_or(address.host()));
    }
    let _ = address;
    None
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        loop {
            if this.read < this.ready.len() {
                let some = (this.ready.len() - this.read).min(buf.remaining());
                buf.put_slice(&this.ready[this.read..this.read + some]);
                this.read += some;
                return Poll::Ready(Ok(()));
            }
            let is_over = if this.wanted < buf.remaining() {
                ready!(this.read_in_place(cx, buf))?
            } else {
                ready!(this.read_aside(cx))?
            };
            if is_over || buf.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Transport {
    /// Reads into the reader's own buffer, behind what was held, and holds what is not whole. Says whether that was the end.
    fn read_in_place(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let start = buf.filled().len();
        buf.put_slice(&self.held);
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if !matches!(polled, Poll::Ready(Ok(()))) {
            buf.set_filled(start);
            return polled.map_ok(|()| false);
        }
        self.held.clear();
        if buf.filled().len() == before {
            // What was held is handed on as it is: it will never be whole.
            return Poll::Ready(Ok(true));
        }
        let fresh = &mut buf.filled_mut()[start..];
        let Checked { good, wanted } = self.frames.check(fresh);
        self.held.extend_from_slice(&fresh[good..]);
        self.wanted = wanted;
        buf.set_filled(start + good);
        Poll::Ready(Ok(false))
    }

    /// The same for a frame for which the reader has no room.
    fn read_aside(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut chunk = [0; CHUNK];
        let mut buf = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(buf.filled());
        let is_over = buf.filled().is_empty();
        let Checked { good, wanted } =
            if is_over { Checked { good: bytes.len(), wanted: 0 } } else { self.frames.check(&mut bytes) };
        self.held.extend_from_slice(&bytes[good..]);
        self.wanted = wanted;
        bytes.truncate(good);
        (self.ready, self.read) = (bytes, 0);
        Poll::Ready(Ok(is_over && self.ready.is_empty()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => {
                let before = buf.filled().len();
                ready!(Pin::new(&mut plain.socket).poll_read(cx, buf))?;
                let is_first = !std::mem::replace(&mut plain.is_answered, true);
                if is_first && buf.filled()[before..].starts_with(TLS_ALERT) {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, SpeaksTls)));
                }
                Poll::Ready(Ok(()))
            }
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(&mut plain.socket).poll_write(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(&mut plain.socket).poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(&mut plain.socket).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The first answer to plain AMQP was an alert of TLS.
#[derive(Debug, thiserror::Error)]
#[error("the other side speaks TLS")]
struct SpeaksTls;

/// Record type “alert”, version 3 of SSL, which TLS still calls itself. AMQP begins with `A` or with a method frame (1).
const TLS_ALERT: &[u8] = &[21, 3];
/// How much of a large frame is read at once.
const CHUNK: usize = 16 * 1024;
