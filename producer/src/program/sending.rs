//! `producer send`: each line is confirmed, or said not to be.

use std::time::{Duration, Instant};

use correio_broker_config::cli::{Exit, print_error};
use correio_message::Message;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    Stop,
    args::SendArgs,
    connect, destination,
    input::{Input, InputError},
    report::Report,
    unsent::{Keeper, UnsentError},
};
use crate::{Outcome, Producer, ProducerSettings, Receipt, SendError, SendFailure};

const PAYLOAD_LIMIT: usize = 16 * 1024 * 1024;

pub(crate) async fn run(args: SendArgs) -> Result<Exit, Stop> {
    let to = destination(&args.line).map_err(Stop::usage)?;
    let input = match &args.again {
        Some(path) => Input::again(&args.line, path, &to),
        None => Input::lines(&args.line, to, PAYLOAD_LIMIT).await,
    };
    let mut input = input.map_err(Stop::usage)?;
    let keeper = args.unsent.clone().map(|path| Keeper::new(path, args.again.as_deref()));
    let mut keeper = keeper.transpose().map_err(Stop::usage)?;
    let window = args.window as usize;
    let adjust = |settings: ProducerSettings| settings.window(window).confirm_deadline(args.confirm_deadline);
    let producer = match connect(&args.line, adjust).await {
        Ok(producer) => producer,
        Err(stop) => {
            if let Some(keeper) = keeper {
                keeper.abandon();
            }
            return Err(stop);
        }
    };
    let mut report = Report::new();
    let ended = send_all(&producer, &mut input, &mut report, keeper.as_mut(), window).await;
    producer.close(args.confirm_deadline).await;

    let counts = producer.counts();
    let kept = match (keeper, &ended) {
        // It could not be written: what lies there is left as it is.
        (Some(keeper), Err(Halt::Unsent(_))) => Ok(keeper.kept),
        (Some(keeper), _) => keeper.finish(input.into_rest()),
        (None, _) => Ok(0),
    };
    let exit = report.exit(false, &counts);
    let confirmed = report.confirmed();
    let queue = args.line.to.as_deref();
    let hint = report.saw("312").then(|| way_out(queue, &args)).flatten();
    report.finish_sent(&counts, *kept.as_ref().unwrap_or(&0), args.line.json);
    kept.map_err(Stop::usage)?;
    if let Some(hint) = hint {
        eprintln!("{hint}");
    }
    match ended {
        Ok(()) => Ok(exit),
        Err(halt) => {
            print_error(&halt);
            match halt.line() {
                Some(line) => {
                    eprintln!("stopped: {confirmed} lines were confirmed; from line {line} on nothing more was sent");
                }
                None => eprintln!("stopped: {confirmed} lines were confirmed"),
            }
            Ok(halt.exit())
        }
    }
}

/// Why sending stopped before the end of the input.
#[derive(Debug, thiserror::Error)]
enum Halt {
    #[error(transparent)]
    Input(InputError),
    #[error("line {line}: {source}")]
    NotSent { line: u64, source: SendError },
    #[error("{reason}; it would be so with each line")]
    Hopeless { line: u64, reason: String },
    #[error("stopped by a signal after line {line}")]
    Signal { line: u64 },
    #[error(transparent)]
    Unsent(UnsentError),
}

impl Halt {
    /// The first line of the input that was not sent.
    fn line(&self) -> Option<u64> {
        Some(match self {
            Self::Input(InputError::Line { line, .. }) | Self::NotSent { line, .. } => *line,
            Self::Input(InputError::Read { line, .. }) | Self::Signal { line } | Self::Hopeless { line, .. } => {
                line + 1
            }
            Self::Input(_) | Self::Unsent(_) => return None,
        })
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Input(_) | Self::Hopeless { .. } => Exit::Usage,
            Self::NotSent { source, .. }
                if matches!(source.cause, SendFailure::NoRoom { .. } | SendFailure::Closed) =>
            {
                Exit::Incomplete
            }
            Self::NotSent { .. } => Exit::Usage,
            Self::Signal { .. } | Self::Unsent(_) => Exit::Incomplete,
        }
    }
}

type Sent = (Message, Outcome, Instant);

async fn send_all(
    producer: &Producer,
    input: &mut Input,
    report: &mut Report,
    mut keeper: Option<&mut Keeper>,
    window: usize,
) -> Result<(), Halt> {
    let mut on_the_way = FuturesUnordered::new();
    let mut stop = signals();
    let mut first = true;
    let halted = loop {
        let message = {
            let mut reading = std::pin::pin!(input.next());
            loop {
                tokio::select! {
                    biased;
                    Some(sent) = on_the_way.next(), if !on_the_way.is_empty() => {
                        if let Err(error) = ended(sent, report, keeper.as_deref_mut()) {
                            break Err(Halt::Unsent(error));
                        }
                    }
                    // Not more receipts than can be under way: the input waits instead.
                    read = &mut reading, if on_the_way.len() < 2 * window => break read.map_err(Halt::Input),
                    _ = stop.recv() => break Err(Halt::Signal { line: 0 }),
                }
            }
        };
        let message = match message {
            Ok(Some(message)) => {
                report.on_expected(input.expected());
                message
            }
            Ok(None) => break Ok(()),
            Err(Halt::Signal { .. }) => break Err(Halt::Signal { line: input.line }),
            Err(halt) => break Err(halt),
        };
        match send_one(producer, message).await {
            // The first goes alone: a missing exchange or right shows once, not with every line.
            Ok((message, receipt, started)) if first => {
                first = false;
                let outcome = of_first(receipt, &mut stop, producer).await;
                let hopeless = hopeless(&outcome);
                if let Err(error) = ended((message, outcome, started), report, keeper.as_deref_mut()) {
                    break Err(Halt::Unsent(error));
                }
                if let Some(reason) = hopeless {
                    break Err(Halt::Hopeless { line: input.line, reason });
                }
            }
            Ok((message, receipt, started)) => {
                on_the_way.push(async move { (message, receipt.await, started) });
            }
            Err(source) => {
                report.on_not_sent(&source.cause.to_string());
                if let Some(keeper) = keeper.as_deref_mut()
                    && let Err(error) = keeper.keep(&source.message, source.cause.to_string())
                {
                    break Err(Halt::Unsent(error));
                }
                break Err(Halt::NotSent { line: input.line, source });
            }
        }
    };
    loop {
        tokio::select! {
            sent = on_the_way.next() => match sent {
                Some(sent) => ended(sent, report, keeper.as_deref_mut()).map_err(Halt::Unsent)?,
                None => return halted,
            },
            // Once more: what has no answer now is unknown.
            Some(()) = stop.recv() => producer.close(Duration::ZERO).await,
        }
    }
}

async fn of_first(mut receipt: Receipt, stop: &mut mpsc::Receiver<()>, producer: &Producer) -> Outcome {
    tokio::select! {
        outcome = &mut receipt => return outcome,
        Some(()) = stop.recv() => producer.close(Duration::ZERO).await,
    }
    receipt.await
}

async fn send_one(producer: &Producer, mut message: Message) -> Result<(Message, Receipt, Instant), SendError> {
    let started = Instant::now();
    // The id is needed here too, should the line have to be kept.
    message.id.get_or_insert_with(crate::fresh_id);
    let receipt = producer.submit(message.clone()).await?;
    Ok((message, receipt, started))
}

fn ended(sent: Sent, report: &mut Report, keeper: Option<&mut Keeper>) -> Result<(), UnsentError> {
    let (message, outcome, started) = sent;
    report.on_outcome(&outcome, started.elapsed());
    match keeper {
        Some(keeper) if !outcome.is_confirmed() => keeper.keep(&message, outcome.to_string()),
        _ => Ok(()),
    }
}

/// An answer that every further line would get too: the broker's reply codes 403 and 404.
fn hopeless(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Unroutable { reason } if reason.starts_with("404") => {
            Some(format!("{reason}: `broker apply` makes our exchanges, and --exchange wants one that is there"))
        }
        Outcome::Refused { reason } if reason.starts_with("403") => {
            Some(format!("{reason}: the user in --amqp-url or AMQP_URL lacks the right to write there"))
        }
        _ => None,
    }
}

fn way_out(queue: Option<&str>, args: &SendArgs) -> Option<String> {
    let queue = queue?;
    let again = match &args.unsent {
        Some(path) => format!("; then: producer send --to {queue} --again {}", path.display()),
        None => "; --unsent FILE keeps what is not confirmed".to_owned(),
    };
    Some(format!(
        "no queue is bound to the exchange correio.queue as “{queue}”: make one with: broker apply --queue {queue}; one of \
         your own is reached by --exchange and --routing-key{again}"
    ))
}

/// SIGINT and SIGTERM: the first ends the reading, and what is under way still comes to its outcome; the second ends that.
pub(super) fn signals() -> mpsc::Receiver<()> {
    let (heard, stop) = mpsc::channel(1);
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        loop {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            if heard.send(()).await.is_err() {
                return;
            }
        }
    });
    stop
}
