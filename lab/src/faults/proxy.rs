//! The proxy: listens, accepts, and takes orders.

use super::{
    Counts, Direction, Ending, Which,
    connection::Connection,
    rules::{Loss, Rules, Tally},
};
use crate::broker::free_port;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// A TCP proxy to one broker that does damage when it is told to.
///
/// Each order works at once, on connections that are open and, where it says so, on those to come. [`Proxy::stop`] ends it and waits;
/// dropping it ends it without waiting.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    ending: CancellationToken,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    rules: watch::Sender<Rules>,
    tally: Mutex<Tally>,
}

impl Proxy {
    /// Starts a proxy to this address on a free port of 127.0.0.1. It passes everything.
    ///
    /// # Errors
    ///
    /// When no port can be listened on.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let port = free_port().map_err(io::Error::other)?;
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { target, rules: watch::Sender::new(Rules::default()), tally: Mutex::default() });
        let ending = CancellationToken::new();
        let accepting = tokio::spawn(accept(listener, address, Arc::clone(&shared), ending.clone()));
        Ok(Self { address, shared, ending, accepting: Some(accepting) })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every rule: whatever is open or comes from now on passes. What was swallowed stays lost, and a connection of which a
    /// direction was swallowed stays deaf: its bytes would make no sense to the other side any more.
    pub fn pass(&self) {
        self.tally(|tally| tally.loss = None);
        self.shared.rules.send_modify(|rules| {
            (rules.refusing, rules.stalled, rules.losing_confirms) = (false, false, false);
            rules.delays.clear();
        });
    }

    /// Cuts all open connections, waits until they are gone, and says how many they were. New ones are accepted.
    ///
    /// # Cancel safety
    ///
    /// The connections are cut even if this future is dropped.
    pub async fn cut(&self, ending: Ending) -> usize {
        self.cut_those(|_| true, ending).await
    }

    /// Cuts the connection that was accepted as this number, counted from 1. Says whether there was one.
    ///
    /// # Cancel safety
    ///
    /// The connection is cut even if this future is dropped.
    pub async fn cut_number(&self, number: u64, ending: Ending) -> bool {
        self.cut_those(|open| open == number, ending).await > 0
    }

    /// Refuses new connections, as if nobody listened there, or accepts them again. Open ones are not touched.
    ///
    /// # Cancel safety
    ///
    /// The order stands even if this future is dropped.
    pub async fn refuse_new(&self, refuse: bool) {
        self.shared.rules.send_modify(|rules| rules.refusing = refuse);
        let mut watching = self.shared.rules.subscribe();
        let _ = timeout(PATIENCE, watching.wait_for(|rules| rules.deaf == refuse)).await;
    }

    /// Delivers nothing either way, on open connections and on new ones, which are accepted; or goes on where it stopped.
    pub fn stall(&self, stalled: bool) {
        self.shared.rules.send_modify(|rules| rules.stalled = stalled);
    }

    /// Throws away for ever what the connections that are open now say in this direction. New ones are not touched.
    pub fn swallow(&self, direction: Direction) {
        self.shared.rules.send_modify(|rules| {
            let open: Vec<u64> = rules.live.keys().copied().collect();
            rules.swallowed.extend(open.into_iter().map(|number| (number, direction)));
        });
    }

    /// Delays every byte in this direction by so much. Bytes keep their order; zero ends the delay.
    pub fn delay(&self, which: Which, direction: Direction, delay: Duration) {
        self.shared.rules.send_modify(|rules| {
            rules.delays.insert((which, direction), delay);
        });
    }

    /// Lets `through` more publishes pass, over all connections, and swallows those after them, each message whole. With
    /// `then_cut` the connection is reset as soon as so many have been swallowed, and the rule ends there; without, it
    /// stands until [`Proxy::pass`].
    pub fn lose_publishes(&self, through: u64, then_cut: Option<u64>) {
        self.tally(|tally| tally.loss = Some(Loss { still_through: through, until_cut: then_cut }));
    }

    /// Throws away the broker's confirms (`basic.ack`, `basic.nack`) and passes everything else, or ends that.
    pub fn lose_confirms(&self, lose: bool) {
        self.shared.rules.send_modify(|rules| rules.losing_confirms = lose);
    }

    /// What has passed and what has not.
    pub fn counts(&self) -> Counts {
        self.tally(|tally| tally.counts)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.rules.borrow().live.len()
    }

    /// Ends the proxy and its connections, and waits for the last of its tasks.
    ///
    /// # Cancel safety
    ///
    /// The proxy ends even if this future is dropped.
    pub async fn stop(mut self) {
        self.ending.cancel();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.await;
        }
    }

    async fn cut_those(&self, those: impl Fn(u64) -> bool, ending: Ending) -> usize {
        let mut numbers = Vec::new();
        self.shared.rules.send_modify(|rules| {
            for (number, cut) in rules.live.iter_mut().filter(|(number, _)| those(**number)) {
                *cut = Some(ending);
                numbers.push(*number);
            }
        });
        let mut watching = self.shared.rules.subscribe();
        let gone = watching.wait_for(|rules| !numbers.iter().any(|number| rules.live.contains_key(number)));
        let _ = timeout(PATIENCE, gone).await;
        numbers.len()
    }

    fn tally<T>(&self, look: impl FnOnce(&mut Tally) -> T) -> T {
        look(&mut self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ending.cancel();
    }
}

async fn accept(listener: TcpListener, address: SocketAddr, shared: Arc<Shared>, ending: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut rules = shared.rules.subscribe();
    let mut listener = Some(listener);
    loop {
        tokio::select! {
            () = ending.cancelled() => break,
            Some(_) = connections.join_next() => {}
            refusing = told_otherwise(&mut rules, listener.is_some()) => {
                listener = if refusing { None } else { listen_again(address).await };
                shared.rules.send_modify(|rules| rules.deaf = listener.is_none());
            }
            (client, number) = next(&listener, &shared) => {
                connections.spawn(serve(client, number, Arc::clone(&shared)));
            }
        }
    }
    connections.shutdown().await;
}

/// Waits until the listener is to be opened or closed.
async fn told_otherwise(rules: &mut watch::Receiver<Rules>, listening: bool) -> bool {
    rules.wait_for(|rules| rules.refusing == listening).await.is_ok_and(|rules| rules.refusing)
}

/// The next client, under its number; never, while nobody listens.
async fn next(listener: &Option<TcpListener>, shared: &Shared) -> (TcpStream, u64) {
    let Some(listener) = listener else { return std::future::pending().await };
    let client = loop {
        match listener.accept().await {
            Ok((client, _)) => break client,
            // Too many open files, or a client that was gone before its turn.
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    };
    let number = {
        let counts = &mut shared.tally.lock().unwrap_or_else(PoisonError::into_inner).counts;
        counts.connections += 1;
        counts.connections
    };
    shared.rules.send_modify(|rules| {
        rules.live.insert(number, None);
    });
    (client, number)
}

/// The port lies where nobody else takes one, so this fails only for a moment.
async fn listen_again(address: SocketAddr) -> Option<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Some(listener),
        Err(_) => {
            tokio::time::sleep(LOOK_AGAIN).await;
            None
        }
    }
}

async fn serve(client: TcpStream, number: u64, shared: Arc<Shared>) {
    match timeout(PATIENCE, TcpStream::connect(shared.target)).await {
        Ok(Ok(broker)) => {
            // A proxy that gathers small packets would add delays that nobody ordered.
            let _ = (client.set_nodelay(true), broker.set_nodelay(true));
            let amqp = AtomicBool::new(false);
            Connection { number, rules: &shared.rules, tally: &shared.tally, amqp }.run(client, broker).await;
        }
        // No broker there: the client sees its connection broken.
        _ => drop(client.set_zero_linger()),
    }
    shared.rules.send_modify(|rules| rules.forget(number));
}

const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
