//! `producer send`: each line is confirmed, or said not to be.

use std::time::{Duration, Instant};

use correio_broker_config::{
    cli::{Exit, print_error},
    delay_name,
};
use correio_message::Message;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    Stop,
    args::{LineArgs, SendArgs},
    connect,
    input::{Input, InputError},
    report::Report,
    shape,
    target::{Target, quoted},
    unsent::{Keeper, UnsentError},
};
use crate::{OnHole, Outcome, Producer, ProducerSettings, Receipt, SendError, SendFailure};

const PAYLOAD_LIMIT: usize = 16 * 1024 * 1024;

pub(crate) async fn run(args: SendArgs) -> Result<Exit, Stop> {
    let LineArgs { file, rate, broker, origin, .. } = &args.line;
    let target = Target::of(&args.line.destination)?;
    let input = match &args.again {
        Some(path) => Input::again(path, &target, *rate),
        None => Input::lines(file.as_deref(), shape(&args.line, target)?, *rate, PAYLOAD_LIMIT).await,
    };
    let mut input = input.map_err(Stop::usage)?;
    let keeper = args.unsent.clone().map(|path| Keeper::new(path, args.again.as_deref()));
    let mut keeper = keeper.transpose().map_err(Stop::usage)?;
    let window = args.window as usize;
    let adjust = |settings: ProducerSettings| {
        // What failed is said and kept; nobody is here to decide about its key.
        settings.window(window).confirm_deadline(args.confirm_deadline).on_hole(OnHole::Void)
    };
    let producer = match connect(broker, origin, adjust).await {
        Ok(producer) => producer,
        Err(stop) => {
            if let Some(keeper) = keeper {
                keeper.abandon();
            }
            return Err(stop);
        }
    };
    let mut book = Book { report: Report::new(), keeper: keeper.as_mut(), wants_subscriber: args.require_subscriber };
    let ended = send_all(&producer, &args, &mut input, &mut book, window).await;
    let report = book.report;
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
    let hint = report.saw("312").then(|| way_out(&args)).flatten();
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

type Sent = (Message, Result<Outcome, SendError>, Instant);

/// What becomes of each line is counted, and what did not make it is kept.
struct Book<'k> {
    report: Report,
    keeper: Option<&'k mut Keeper>,
    /// An event that nobody subscribed to did not make it.
    wants_subscriber: bool,
}

impl Book<'_> {
    fn on_ended(&mut self, sent: Sent) -> Result<(), UnsentError> {
        let (message, ended, started) = sent;
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(error) => return self.on_not_sent(&error),
        };
        if !self.wants_subscriber && is_without_subscriber(&message, &outcome) {
            self.report.on_nobody_subscribed();
            return Ok(());
        }
        self.report.on_outcome(&outcome, started.elapsed());
        match &mut self.keeper {
            Some(keeper) if !outcome.is_confirmed() => keeper.keep(&message, outcome.to_string()),
            _ => Ok(()),
        }
    }

    fn on_not_sent(&mut self, error: &SendError) -> Result<(), UnsentError> {
        self.report.on_not_sent(&error.cause.to_string());
        match &mut self.keeper {
            Some(keeper) => keeper.keep(&error.message, error.cause.to_string()),
            None => Ok(()),
        }
    }
}

/// For an event that is normal. That there is no exchange (404) is not.
fn is_without_subscriber(message: &Message, outcome: &Outcome) -> bool {
    let nobody = matches!(outcome, Outcome::Unroutable { reason, .. } if reason.starts_with("312"));
    nobody && !message.destination.wants_somebody()
}

async fn send_all(
    producer: &Producer,
    args: &SendArgs,
    input: &mut Input,
    book: &mut Book<'_>,
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
                        if let Err(error) = book.on_ended(sent) {
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
                book.report.on_expected(input.expected());
                message
            }
            Ok(None) => break Ok(()),
            Err(Halt::Signal { .. }) => break Err(Halt::Signal { line: input.line }),
            Err(halt) => break Err(halt),
        };
        match send_one(producer, args.line.dressed(message), args.after).await {
            // The first goes alone: a missing exchange or right shows once, not with every line.
            Ok((message, receipt, started)) if first => {
                first = false;
                let outcome = of_first(receipt, &mut stop, producer).await;
                let hopeless = outcome.as_ref().ok().and_then(hopeless);
                if let Err(error) = book.on_ended((message, outcome, started)) {
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
                if let Err(error) = book.on_not_sent(&source) {
                    break Err(Halt::Unsent(error));
                }
                break Err(Halt::NotSent { line: input.line, source });
            }
        }
    };
    loop {
        tokio::select! {
            sent = on_the_way.next() => match sent {
                Some(sent) => book.on_ended(sent).map_err(Halt::Unsent)?,
                None => return halted,
            },
            // Once more: what has no answer now is unknown.
            Some(()) = stop.recv() => producer.close(Duration::ZERO).await,
        }
    }
}

async fn of_first(
    mut receipt: Receipt,
    stop: &mut mpsc::Receiver<()>,
    producer: &Producer,
) -> Result<Outcome, SendError> {
    tokio::select! {
        outcome = &mut receipt => return outcome,
        Some(()) = stop.recv() => producer.close(Duration::ZERO).await,
    }
    receipt.await
}

async fn send_one(
    producer: &Producer,
    mut message: Message,
    after: Option<Duration>,
) -> Result<(Message, Receipt, Instant), SendError> {
    let started = Instant::now();
    // The id is needed here too, should the line have to be kept.
    message.id.get_or_insert_with(crate::fresh_id);
    let handed_in = message.clone();
    let receipt = match after {
        Some(delay) => producer.submit_after(handed_in, delay).await?,
        None => producer.submit(handed_in).await?,
    };
    Ok((message, receipt, started))
}

/// An answer that every further line would get too: the broker's reply codes 403 and 404.
fn hopeless(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Unroutable { reason, .. } if reason.starts_with("404") => {
            Some(format!("{reason}: `broker apply` makes our exchanges, and --exchange wants one that is there"))
        }
        Outcome::Refused { reason, .. } if reason.starts_with("403") => {
            Some(format!("{reason}: the user in --amqp-url or AMQP_URL lacks the right to write there"))
        }
        _ => None,
    }
}

/// Nobody is there: what makes somebody.
fn way_out(args: &SendArgs) -> Option<String> {
    let destination = &args.line.destination;
    let nobody = if let (Some(queue), Some(delay)) = (&destination.to, args.after) {
        let (queue, delay) = (quoted(queue), delay_name(delay));
        format!(
            "queue {queue} has no such delay, or is not there: broker apply --queue {queue} --delays {delay} makes both"
        )
    } else if let Some(queue) = &destination.to {
        let queue = quoted(queue);
        format!(
            "no queue is bound to the exchange correio.queue as {queue}: make one with: broker apply --queue {queue}; one of \
             your own is reached by --exchange and --routing-key"
        )
    } else if let (Some(name), Some(delay)) = (&destination.mailbox, args.after) {
        let (name, delay) = (quoted(name), delay_name(delay));
        format!("the mailbox {name} has no retry after {delay}, which its owner sets, or nobody has made it")
    } else if let Some(name) = &destination.mailbox {
        let name = quoted(name);
        format!("nobody has made the mailbox {name}: its owner does with: consumer run --mailbox {name}")
    } else if destination.broadcast {
        "nobody listens: a listener begins with: consumer run --broadcast".to_owned()
    } else if destination.topic.is_some() || destination.topic_template.is_some() {
        "nobody has subscribed to some of the keys: a group does with: consumer run --topic PATTERN --group NAME"
            .to_owned()
    } else {
        return None;
    };
    Some(
        nobody
            + &match &args.unsent {
                Some(path) => format!(
                    "; then: producer send {}{} --again {}",
                    destination.as_options(),
                    args.manner_as_options(),
                    quoted(&path.display().to_string())
                ),
                None => "; --unsent FILE keeps what is not confirmed".to_owned(),
            },
    )
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
