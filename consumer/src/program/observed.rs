//! The program as others see it over HTTP: `--metrics-addr`.
//!
//! Nobody who connects can hold the program up: connections are few, each has one request and some seconds, and all of them end
//! with the program.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    HealthWatch,
    program::probes::{Probes, Pulse},
};

/// The server. It has to be closed.
#[derive(Debug)]
pub(crate) struct Observed {
    address: SocketAddr,
    stop: CancellationToken,
    /// Ends what is still connected then.
    cut: CancellationToken,
    serving: JoinHandle<()>,
}

/// Why nobody can look.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    #[error("--metrics-addr {address}: {cause}; take another port, or 0 for any that is free")]
    Address { address: SocketAddr, cause: io::Error },
    #[error("--metrics-addr: no metrics can be collected: {0}")]
    Metrics(String),
}

impl Observed {
    /// Collects the metrics of this process from now on, and serves them and the probes.
    ///
    /// # Errors
    ///
    /// [`ObserveError`] if the address is taken or none of this machine's.
    pub(crate) async fn at(address: SocketAddr, health: HealthWatch, pulse: Pulse) -> Result<Self, ObserveError> {
        let refused = |cause| ObserveError::Address { address, cause };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let recorder = recorder().map_err(|error| ObserveError::Metrics(error.to_string()))?;
        let metrics = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| ObserveError::Metrics(error.to_string()))?;
        Self::serve(listener, Probes { metrics, health, pulse }).map_err(refused)
    }

    fn serve(listener: TcpListener, probes: Probes) -> io::Result<Self> {
        let (address, stop, cut) = (listener.local_addr()?, CancellationToken::new(), CancellationToken::new());
        let upkeep = probes.metrics.clone();
        let listener = Few { listener, room: Arc::new(Semaphore::new(AT_MOST)), cut: cut.clone() };
        let serving = axum::serve(listener, probes.router()).with_graceful_shutdown(stop.clone().cancelled_owned());
        let serving = async move {
            let serving = serving.into_future();
            tokio::pin!(serving);
            loop {
                tokio::select! {
                    // It never fails: what goes wrong with one connection ends that one.
                    _ = &mut serving => return,
                    // Else what nobody reads would be kept.
                    () = sleep(UPKEEP) => upkeep.run_upkeep(),
                }
            }
        };
        Ok(Self { address, stop, cut, serving: tokio::spawn(serving) })
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers what was asked already, and ends; soon, whatever those who are connected do.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        if timeout(LAST_ANSWERS, &mut self.serving).await.is_err() {
            self.cut.cancel();
            // Every connection is at its end now. A panic in one of them is no reason to fail.
            let _ = self.serving.await;
        }
    }
}

fn recorder() -> Result<metrics_exporter_prometheus::PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new().set_buckets(&BUCKETS)?.build_recorder())
}

/// Accepts no more connections than it can bear.
struct Few {
    listener: TcpListener,
    room: Arc<Semaphore>,
    cut: CancellationToken,
}

impl Listener for Few {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        // The others wait at the operating system's, until one has ended.
        let Ok(room) = self.room.clone().acquire_owned().await else { return std::future::pending().await };
        // It waits a little when there are no more file descriptors.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let cut = self.cut.clone();
        let over = Box::pin(async move {
            let _ = timeout(LIFETIME, cut.cancelled()).await;
        });
        (Brief { stream, over, is_over: false, _room: room }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection whose time is limited: after that, reading and writing fail.
struct Brief {
    stream: TcpStream,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_over: bool,
    _room: OwnedSemaphorePermit,
}

impl Brief {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.is_over = self.is_over || self.over.as_mut().poll(context).is_ready();
        if self.is_over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Brief {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Brief {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// In seconds: from an answer out of memory to the longest that a handler may take by default, and somewhat more.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];
/// How many may look at once.
const AT_MOST: usize = 32;
/// How long asking and answering may take.
const LIFETIME: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How long those who have asked may take for the last answers.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
const UPKEEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::health::HealthReport;

    async fn observed(health: &HealthReport) -> Observed {
        let metrics = recorder().unwrap().handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Observed::serve(listener, Probes { metrics, health: health.watch(), pulse: Pulse::new() }).unwrap()
    }

    async fn connect(observed: &Observed) -> TcpStream {
        TcpStream::connect(observed.address()).await.unwrap()
    }

    /// The whole answer, up to the end of the connection.
    async fn ask(observed: &Observed, request: &str) -> String {
        let mut stream = connect(observed).await;
        stream.write_all(format!("{request} HTTP/1.1\r\nhost: here\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end").unwrap();
        answer
    }

    #[tokio::test]
    async fn each_path_has_its_answer_and_follows_what_is_so() {
        let health = HealthReport::new(Instant::now());
        let observed = observed(&health).await;
        for (request, status, words) in [
            ("GET /livez", "200 OK", "alive\n"),
            ("GET /readyz", "503 Service Unavailable", "it has not subscribed yet\n"),
            ("GET /metrics", "200 OK", "text/plain; version=0.0.4"),
            ("HEAD /livez", "200 OK", "text/plain"),
            ("GET /", "404 Not Found", "there is /metrics, /livez and /readyz\n"),
            ("POST /livez", "405 Method Not Allowed", ""),
        ] {
            let answer = ask(&observed, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words), "{request}: {answer}");
        }
        health.on_subscribed();
        assert!(ask(&observed, "GET /readyz").await.ends_with("subscribed\n"));
        health.on_stopping();
        assert!(ask(&observed, "GET /readyz").await.contains("503 "));
        observed.close().await;
    }

    #[tokio::test]
    async fn who_connects_and_asks_nothing_keeps_neither_others_nor_the_end_waiting() {
        let observed = observed(&HealthReport::new(Instant::now())).await;
        let mut silent = Vec::new();
        for _ in 0..AT_MOST {
            let mut stream = connect(&observed).await;
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: h").await.unwrap();
            silent.push(stream);
        }
        // Answered when the time of one of those is over.
        assert!(ask(&observed, "GET /livez").await.contains("alive"));
        let late = connect(&observed).await;
        timeout(PATIENCE, observed.close()).await.expect("it ends");
        drop((silent, late));
    }

    #[tokio::test]
    async fn a_request_without_an_end_is_refused() {
        let observed = observed(&HealthReport::new(Instant::now())).await;
        let mut stream = connect(&observed).await;
        let line = format!("x: {}\r\n", "y".repeat(10_000));
        let mut sent = 0;
        let writing = async {
            stream.write_all(b"GET /livez HTTP/1.1\r\n").await?;
            loop {
                stream.write_all(line.as_bytes()).await?;
                sent += line.len();
            }
        };
        let ended: io::Result<()> = timeout(PATIENCE, writing).await.expect("an end");
        assert!(ended.is_err());
        assert!(sent < 20_000_000, "{sent} bytes of headers were taken");
        observed.close().await;
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let watch = HealthReport::new(Instant::now()).watch();
        let said = Observed::at(address, watch, Pulse::new()).await.expect_err("refused").to_string();
        assert!(said.contains(&address.to_string()) && said.contains("another port"), "{said}");
    }

    const PATIENCE: Duration = Duration::from_secs(20);
}
