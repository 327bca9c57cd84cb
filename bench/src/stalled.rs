//! How much memory `submit` takes when the broker has stopped reading: measured in a process of its own.
//!
//! The child sends some messages to their confirms and says that it is warm; then nothing moves on its connections any more, and
//! it hands in all the others. Each is accepted when there is room for it, ends unknown or comes back at its deadline, and
//! so makes room for the next: all of them pass through the buffer, over one dead connection and the attempts at others.

use std::{process::Stdio, time::Duration};

use correio_lab::{
    broker::{Login, Node},
    faults::Proxy,
};
use correio_message::Message;
use correio_producer::{Address, Outcome, Producer, ProducerSettings, Receipt, SendError, SendFailure};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines, stdin},
    sync::mpsc,
    time::timeout,
};

use crate::{
    Error,
    child::{STALLED, URL, itself},
    usage::resident,
    verdict, way,
};

/// What the child found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Messages handed in while the broker was stalled.
    pub messages: u64,
    /// Of these, ended otherwise than unknown or given back: nothing can have been confirmed.
    pub wrong: u64,
    /// Resident memory before the stall, in bytes.
    pub baseline: u64,
    /// Resident memory at its highest, the baseline included.
    pub highest: u64,
}

impl Peak {
    /// Whether the memory stayed within what it may take.
    #[must_use]
    pub fn verdict(&self) -> String {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let figure = format!("{:.1} MiB", mebibytes(self.highest));
        let wanted = format!("at most {:.0} MiB", mebibytes(ALLOWED));
        let of = format!(
            "peak resident memory: {} messages through submit against a stalled broker (before: {:.1} MiB)",
            self.messages,
            mebibytes(self.baseline)
        );
        verdict::line(self.highest <= ALLOWED, &figure, &wanted, &of)
    }
}

/// Runs the child against a proxy that stalls.
///
/// # Errors
///
/// When the child fails or says nothing in time.
pub async fn measure(node: &Node, queue: &str, messages: u64, size: usize) -> Result<Peak, Error> {
    let proxy = Proxy::start(node.amqp_address()).await?;
    let mut command = itself(&[STALLED, queue, &messages.to_string(), &size.to_string()])?;
    command.env(URL, node.amqp_url_through(Login::Lab, proxy.address()));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the child has no pipes".into());
    };
    let mut told = BufReader::new(output).lines();
    next_line(&mut told).await?;
    proxy.stall(true);
    input.write_all(b"stalled\n").await?;
    let line = next_line(&mut told).await?;
    drop(input);
    child.wait().await?;
    proxy.stop().await;
    let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let [wrong, baseline, highest] = numbers[..] else { return Err(format!("the child told {line:?}").into()) };
    Ok(Peak { messages, wrong, baseline, highest })
}

/// What the child does.
///
/// # Errors
///
/// When a message is not accepted, or is not confirmed before the stall.
pub async fn in_child(url: &str, queue: &str, messages: u64, size: usize) -> Result<(), Error> {
    let settings = ProducerSettings::new(Address::parse(url)?, "bench")?;
    let destination = way::to(queue)?;
    // Each has a body of its own, as an application's messages have.
    let message = || Message::new(destination.clone(), vec![b'x'; size]);
    let first = Producer::connect(settings.clone()).await?;
    for _ in 0..WARM_UP {
        if !first.send(message()).await?.is_confirmed() {
            return Err("not confirmed before the stall".into());
        }
    }
    first.close(SAID).await;
    let producer = Producer::connect(settings.confirm_deadline(ANSWER)).await?;
    let (baseline, _) = resident()?;
    println!("warm");
    let mut input = BufReader::new(stdin()).lines();
    next_line(&mut input).await?;
    tokio::spawn(async move {
        // Without its parent, nobody would end this process.
        while let Ok(Some(_)) = input.next_line().await {}
        std::process::exit(1);
    });
    // Read as they come: what comes back takes room until then.
    let (accepted, mut receipts) = mpsc::unbounded_channel::<Receipt>();
    let reading = tokio::spawn(async move {
        let mut wrong = 0;
        while let Some(receipt) = receipts.recv().await {
            wrong += u64::from(!is_right(&receipt.await));
        }
        wrong
    });
    for _ in 0..messages {
        match producer.submit(message()).await {
            Ok(receipt) => accepted.send(receipt)?,
            Err(error) => {
                eprintln!("not accepted: {error}");
                // The pending read of the standard input would hold up a polite end.
                std::process::exit(1);
            }
        }
    }
    drop(accepted);
    let wrong = reading.await?;
    let (_, highest) = resident()?;
    println!("{wrong} {baseline} {highest}");
    Ok(())
}

/// Nothing can have been confirmed: it was published, and nobody knows; or its turn never came, and here it is back.
fn is_right(end: &Result<Outcome, SendError>) -> bool {
    match end {
        Ok(outcome) => matches!(outcome, Outcome::Unknown { .. }),
        Err(error) => matches!(error.cause, SendFailure::NotPublished { .. }),
    }
}

async fn next_line(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>) -> Result<String, Error> {
    timeout(SAID, lines.next_line()).await??.ok_or_else(|| "the other process has ended".into())
}

/// Sent, and confirmed, before the stall.
pub const WARM_UP: u64 = 1_000;
/// The byte budget that a producer has unless told otherwise, and 32 MiB for all else.
const ALLOWED: u64 = (64 + 32) << 20;
/// How long a message may wait for its confirm: so often does all that is held make room.
const ANSWER: Duration = Duration::from_millis(100);
const SAID: Duration = Duration::from_secs(900);
