//! One connection through the proxy: two directions, each read, judged and written in its order.

use super::{
    frames::{Sieve, Stopped},
    rules::{Direction, Ending, Judge, Rules, Tally},
};
use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

/// What a connection needs to know to run.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    pub(crate) number: u64,
    pub(crate) rules: &'a watch::Sender<Rules>,
    pub(crate) tally: &'a Mutex<Tally>,
    /// Whether the client greeted in AMQP 0-9-1. Anything else passes as plain bytes.
    pub(crate) amqp: AtomicBool,
}

/// Why a direction ends.
enum End {
    /// The one who speaks has said all.
    Said,
    /// A message was to be the last before a cut.
    Cut,
    /// One of the two sides is gone.
    Broken,
}

impl Connection<'_> {
    /// Passes bytes until both sides have said all, one is gone, or a rule cuts.
    pub(crate) async fn run(&self, mut client: TcpStream, mut broker: TcpStream) {
        let ending = {
            let (from_client, to_client) = client.split();
            let (from_broker, to_broker) = broker.split();
            let mut watching = self.rules.subscribe();
            tokio::select! {
                biased;
                cut = watching.wait_for(|rules| rules.cut(self.number).is_some()) => {
                    let ending = cut.ok().and_then(|rules| rules.cut(self.number));
                    self.count_cut();
                    ending.unwrap_or(Ending::Finish)
                }
                ending = self.both(from_client, to_broker, from_broker, to_client) => ending,
            }
        };
        match ending {
            Ending::Reset => drop(client.set_zero_linger()),
            Ending::Finish => drop(client.shutdown().await),
        }
        drop(client);
        let _ = timeout(LAST_WORDS, say_goodbye(broker)).await;
    }

    async fn both(
        &self,
        from_client: ReadHalf<'_>,
        to_broker: WriteHalf<'_>,
        from_broker: ReadHalf<'_>,
        to_client: WriteHalf<'_>,
    ) -> Ending {
        let out = self.direction(Direction::ClientToBroker, from_client, to_broker);
        let back = self.direction(Direction::BrokerToClient, from_broker, to_client);
        tokio::pin!(out, back);
        let (first, out_ended) = tokio::select! {
            end = &mut out => (end, true),
            end = &mut back => (end, false),
        };
        let silent = if out_ended { Direction::BrokerToClient } else { Direction::ClientToBroker };
        let last = match first {
            // Nobody hears the other side any more.
            End::Said if self.rules.borrow().swallows(self.number, silent) => End::Said,
            // The other side may still have something to say.
            End::Said if out_ended => back.await,
            End::Said => out.await,
            gone => gone,
        };
        match last {
            End::Said => Ending::Finish,
            End::Broken => Ending::Reset,
            End::Cut => {
                self.count_cut();
                Ending::Reset
            }
        }
    }

    async fn direction(&self, direction: Direction, from: ReadHalf<'_>, to: WriteHalf<'_>) -> End {
        // Between reading and writing lies the delay; what is under way is bounded by the number of pieces.
        let (read, written) = mpsc::channel(PIECES);
        let reading = self.read(direction, from, read);
        let writing = self.write(direction, to, written);
        tokio::pin!(reading, writing);
        tokio::select! {
            end = &mut writing => end,
            _ = &mut reading => writing.await,
        }
    }

    async fn read(
        &self,
        direction: Direction,
        mut from: ReadHalf<'_>,
        pieces: mpsc::Sender<(Instant, io::Result<Vec<u8>>)>,
    ) {
        let mut rules = self.rules.subscribe();
        loop {
            if rules.wait_for(|rules| !rules.stalled).await.is_err() {
                return;
            }
            let mut piece = vec![0; PIECE];
            let read = from.read(&mut piece).await.map(|length| {
                piece.truncate(length);
                piece
            });
            let due = Instant::now() + rules.borrow().delay(self.number, direction);
            let last = !matches!(&read, Ok(piece) if !piece.is_empty());
            if pieces.send((due, read)).await.is_err() || last {
                return;
            }
        }
    }

    async fn write(
        &self,
        direction: Direction,
        mut to: WriteHalf<'_>,
        mut pieces: mpsc::Receiver<(Instant, io::Result<Vec<u8>>)>,
    ) -> End {
        let mut rules = self.rules.subscribe();
        let mut sieve = None;
        let mut judge = Judge::default();
        let mut onward = Vec::new();
        let mut first = true;
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            let (swallowed, losing_confirms) = match rules.wait_for(|rules| !rules.stalled).await {
                Ok(rules) => (rules.swallows(self.number, direction), rules.losing_confirms),
                Err(_) => return End::Broken,
            };
            let Ok(piece) = piece else { return End::Broken };
            if piece.is_empty() {
                if swallowed {
                    // The end of the stream is swallowed too: the other side does not learn that this one is gone.
                    std::future::pending::<()>().await;
                }
                return if to.shutdown().await.is_ok() { End::Said } else { End::Broken };
            }
            if first && self.speaks_amqp(direction, &piece) {
                sieve = Some(Sieve::new(direction == Direction::ClientToBroker));
            }
            first = false;
            onward.clear();
            let stopped = match &mut sieve {
                None if swallowed => Ok(()),
                None => {
                    onward.extend_from_slice(&piece);
                    Ok(())
                }
                Some(sieve) => {
                    let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
                    sieve.pass(&piece, &mut onward, |frame| {
                        judge.decide(frame, direction, swallowed, losing_confirms, &mut tally)
                    })
                }
            };
            if stopped == Err(Stopped::NotAmqp) {
                // Broken frames: from here on bytes are only bytes. What the sieve made of this piece is unknown, so all is passed.
                tracing::warn!(connection = self.number, ?direction, "not AMQP 0-9-1: passing bytes unread");
                sieve = None;
                onward.clear();
                onward.extend_from_slice(&piece);
            }
            if !onward.is_empty() && to.write_all(&onward).await.is_err() {
                return End::Broken;
            }
            if stopped == Err(Stopped::Cut) {
                return End::Cut;
            }
        }
        End::Broken
    }

    /// The client's first bytes decide for both directions: a broker says nothing before it was spoken to.
    fn speaks_amqp(&self, direction: Direction, piece: &[u8]) -> bool {
        if direction == Direction::ClientToBroker {
            let greets = piece.iter().zip(b"AMQP").all(|(said, expected)| said == expected);
            self.amqp.store(greets, Ordering::Relaxed);
        }
        self.amqp.load(Ordering::Relaxed)
    }

    fn count_cut(&self) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).counts.cut += 1;
    }
}

/// Ends the stream and listens until the broker has too. Closing at once would turn the end of stream into a reset as soon as the
/// broker says anything, and with a reset it forgets what it has not read yet.
async fn say_goodbye(mut broker: TcpStream) {
    let _ = broker.shutdown().await;
    let mut unheard = [0; 1024];
    while let Ok(1..) = broker.read(&mut unheard).await {}
}

const LAST_WORDS: Duration = Duration::from_secs(2);
const PIECE: usize = 16 * 1024;
const PIECES: usize = 64;
