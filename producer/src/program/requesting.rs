//! `producer request`: lines in, replies out in the order of the lines.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use correio_broker_config::cli::{Exit, print_error};
use correio_message::{Destination, Message, MessageId, ShortText};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::Serialize;

use super::{
    Stop,
    args::RequestArgs,
    connect,
    input::{Input, InputError},
    latency::Latency,
    lines::Shape,
    sending::signals,
    target::{Target, quoted},
};
use crate::{Counts, Producer, RequestError};

const PAYLOAD_LIMIT: usize = 16 * 1024 * 1024;
/// For the confirms of requests that nobody waits for any more, and for the reply queue to go.
const CLOSE: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: RequestArgs) -> Result<Exit, Stop> {
    let to = match (&args.to, &args.mailbox) {
        (Some(queue), _) => Destination::queue(queue).map_err(Stop::usage)?,
        (None, name) => Destination::mailbox(name.as_deref().unwrap_or_default()).map_err(Stop::usage)?,
    };
    let message_type = args.message_type.as_ref().map(ShortText::new).transpose().map_err(Stop::usage)?;
    let shape = Shape { target: Target::One(to), message_type, key_field: None, id_field: None };
    let mut input = Input::lines(args.file.as_deref(), shape, None, PAYLOAD_LIMIT).await.map_err(Stop::usage)?;
    let at_once = args.in_flight as usize;
    let producer = connect(&args.broker, &args.origin, |settings| settings.requests_at_once(at_once)).await?;
    let mut replies = Replies::new(&args);
    let ended = ask_all(&producer, &mut input, &mut replies, &args).await;
    producer.close(CLOSE).await;
    let all_replied = replies.failed.is_empty();
    replies.finish(&producer.counts());
    match ended {
        Ok(()) if all_replied => Ok(Exit::Success),
        Ok(()) => Ok(Exit::Incomplete),
        Err(halt) => {
            print_error(&halt);
            eprintln!("stopped: after line {} nothing more was asked", halt.last_asked());
            Ok(halt.exit())
        }
    }
}

/// Why asking stopped before the end of the input.
#[derive(Debug, thiserror::Error)]
enum Halt {
    #[error("{source}")]
    Input { last: u64, source: InputError },
    #[error("{reason}; it would be so with each line")]
    Hopeless { last: u64, reason: String },
    #[error("stopped by a signal")]
    Signal { last: u64 },
    #[error("nobody reads standard output any more")]
    ReaderGone { last: u64 },
}

impl Halt {
    fn last_asked(&self) -> u64 {
        match self {
            Self::Input { last, .. }
            | Self::Hopeless { last, .. }
            | Self::Signal { last }
            | Self::ReaderGone { last } => *last,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Input { .. } | Self::Hopeless { .. } => Exit::Usage,
            Self::Signal { .. } | Self::ReaderGone { .. } => Exit::Incomplete,
        }
    }
}

/// One line that was asked.
struct Asked {
    line: u64,
    id: MessageId,
    after: Duration,
    reply: Result<Message, RequestError>,
}

async fn ask_all(
    producer: &Producer,
    input: &mut Input,
    replies: &mut Replies<'_>,
    args: &RequestArgs,
) -> Result<(), Halt> {
    let at_once = args.in_flight as usize;
    let mut in_flight = FuturesUnordered::new();
    let mut stop = signals();
    let halted = loop {
        let message = {
            let mut reading = std::pin::pin!(input.next());
            loop {
                if let Some(halt) = replies.halt() {
                    break Err(halt);
                }
                // One slow reply holds back those behind it: as many as that, and no more.
                let has_room = in_flight.len() < at_once && in_flight.len() + replies.held.len() < HELD_BACK * at_once;
                tokio::select! {
                    biased;
                    Some(asked) = in_flight.next(), if !in_flight.is_empty() => replies.on_ended(asked),
                    read = &mut reading, if has_room => {
                        break read.map_err(|source| Halt::Input { last: replies.asked, source });
                    }
                    Some(()) = stop.recv() => break Err(Halt::Signal { last: replies.asked }),
                }
            }
        };
        match message {
            Ok(Some(message)) => {
                replies.asked += 1;
                in_flight.push(ask(producer, replies.asked, message, args.deadline));
            }
            Ok(None) => break Ok(()),
            Err(halt) => break Err(halt),
        }
    };
    loop {
        tokio::select! {
            asked = in_flight.next() => match asked {
                Some(asked) => replies.on_ended(asked),
                None => break,
            },
            // Once more: what has no reply now gets none.
            Some(()) = stop.recv() => producer.close(Duration::ZERO).await,
        }
    }
    halted.and_then(|()| replies.halt().map_or(Ok(()), Err))
}

async fn ask(producer: &Producer, line: u64, mut message: Message, deadline: Duration) -> Asked {
    let started = Instant::now();
    let id = message.id.get_or_insert_with(crate::fresh_id).clone();
    let reply = producer.request(message, deadline).await;
    Asked { line, id, after: started.elapsed(), reply }
}

/// What has come back so far.
struct Replies<'a> {
    args: &'a RequestArgs,
    started: Instant,
    asked: u64,
    replied: u64,
    /// By the kind of their failure.
    failed: BTreeMap<&'static str, u64>,
    latency: Latency,
    /// Lines of output whose turn has not come, by the line that was asked; one without a reply may print nothing.
    held: BTreeMap<u64, Option<String>>,
    printed: u64,
    has_hinted: bool,
    hopeless: Option<String>,
    reader_gone: bool,
}

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'l> {
    line: u64,
    id: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure<'l>>,
}

#[derive(Serialize)]
struct Failure<'l> {
    kind: &'static str,
    /// What the service itself calls its error.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_kind: Option<&'l str>,
    text: String,
}

impl<'a> Replies<'a> {
    fn new(args: &'a RequestArgs) -> Self {
        Self {
            args,
            started: Instant::now(),
            asked: 0,
            replied: 0,
            failed: BTreeMap::new(),
            latency: Latency::new(),
            held: BTreeMap::new(),
            printed: 0,
            has_hinted: false,
            hopeless: None,
            reader_gone: false,
        }
    }

    fn on_ended(&mut self, asked: Asked) {
        let Asked { line, id, after, reply } = asked;
        let text = match &reply {
            Ok(reply) if self.args.json => Ok(self.json(line, &id, Ok(reply))),
            Ok(reply) => as_line(reply).ok_or_else(|| {
                let why = "its reply is no line of text: it has a line break in it, or is not UTF-8; take --json";
                ("unprintable", why.to_owned())
            }),
            Err(error) => Err((kind(error), error.to_string())),
        };
        let text = match text {
            Ok(text) => {
                self.replied += 1;
                self.latency.note(after);
                Some(text)
            }
            Err((kind, why)) => {
                *self.failed.entry(kind).or_default() += 1;
                match &reply {
                    Err(error) if self.args.json => Some(self.json(line, &id, Err(error))),
                    _ => {
                        eprintln!("line {line}: {why}");
                        None
                    }
                }
            }
        };
        if let Err(error) = &reply {
            self.hint(error);
            self.hopeless = self.hopeless.take().or_else(|| hopeless(error));
        }
        self.held.insert(line, text);
        self.print_what_has_its_turn();
    }

    fn json(&self, line: u64, id: &MessageId, reply: Result<&Message, &RequestError>) -> String {
        let mut object = Line { line, id: id.as_str(), reply: None, reply_base64: None, error: None };
        match reply {
            Ok(reply) => match std::str::from_utf8(&reply.payload) {
                Ok(text) => object.reply = Some(text),
                Err(_) => object.reply_base64 = Some(STANDARD.encode(&reply.payload)),
            },
            Err(RequestError::Remote(error)) => {
                let (remote_kind, text) = (Some(error.kind.as_str()), error.text.clone());
                object.error = Some(Failure { kind: "remote", remote_kind, text });
            }
            Err(error) => {
                object.error = Some(Failure { kind: kind(error), remote_kind: None, text: error.to_string() });
            }
        }
        serde_json::to_string(&object).unwrap_or_default()
    }

    fn print_what_has_its_turn(&mut self) {
        let mut text = String::new();
        while let Some(line) = self.held.remove(&(self.printed + 1)) {
            self.printed += 1;
            if let Some(line) = line {
                text.push_str(&line);
                text.push('\n');
            }
        }
        if text.is_empty() || self.reader_gone {
            return;
        }
        let mut out = std::io::stdout().lock();
        self.reader_gone = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err();
    }

    /// Nobody lives there: what makes somebody, once.
    fn hint(&mut self, error: &RequestError) {
        let args = self.args;
        let hint = match error {
            RequestError::NoSuchService { reason } if reason.starts_with("312") => match (&args.to, &args.mailbox) {
                (Some(queue), _) => {
                    let queue = quoted(queue);
                    format!(
                        "there is no queue {queue}: make one with: broker apply --queue {queue}; and somebody who replies: \
                         consumer run --from {queue} --exec COMMAND"
                    )
                }
                (None, name) => {
                    let name = quoted(name.as_deref().unwrap_or_default());
                    format!(
                        "nobody has made the mailbox {name}: its owner does, and replies, with: consumer run --mailbox {name} \
                         --exec COMMAND"
                    )
                }
            },
            _ => return,
        };
        if !std::mem::replace(&mut self.has_hinted, true) {
            eprintln!("{hint}");
        }
    }

    /// Why no further line is to be asked.
    fn halt(&mut self) -> Option<Halt> {
        let last = self.asked;
        if self.reader_gone {
            return Some(Halt::ReaderGone { last });
        }
        self.hopeless.take().map(|reason| Halt::Hopeless { last, reason })
    }

    fn finish(self, counts: &Counts) {
        let seconds = self.started.elapsed().as_secs_f64();
        let per_second = self.replied as f64 / seconds.max(1e-9);
        let (replied, asked) = (self.replied, self.asked);
        let mut text = format!("{replied} of {asked} have a reply, in {seconds:.1} s ({per_second:.0} a second)\n");
        for (kind, count) in &self.failed {
            let _ = writeln!(text, "  {kind} {count}");
        }
        if counts.late_replies > 0 {
            let _ = writeln!(text, "  replies that came too late, or twice: {}", counts.late_replies);
        }
        if let Some(latency) = self.latency.percentiles() {
            let _ = writeln!(text, "  replied after {latency}");
        }
        eprint!("{text}");
    }
}

/// A reply as one line; the newline that a command has put at its end is the line's own.
fn as_line(reply: &Message) -> Option<String> {
    let text = std::str::from_utf8(&reply.payload).ok()?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    (!line.contains('\n')).then(|| line.to_owned())
}

fn kind(error: &RequestError) -> &'static str {
    match error {
        RequestError::NotSent(_) | RequestError::SameIdPending { .. } => "not-sent",
        RequestError::NoReplyQueue(_) => "no-reply-queue",
        RequestError::NoSuchService { .. } => "no-such-service",
        RequestError::Refused { .. } => "refused",
        RequestError::DeadlinePassed { .. } => "deadline-passed",
        RequestError::Remote(_) => "remote",
        RequestError::UnreadableReply(_) => "unreadable-reply",
        RequestError::Closed => "closed",
    }
}

/// An answer that every further line would get too.
fn hopeless(error: &RequestError) -> Option<String> {
    match error {
        RequestError::NoSuchService { reason } if reason.starts_with("404") => {
            Some(format!("{reason}: `broker apply` makes our exchanges"))
        }
        RequestError::Refused { reason } if reason.starts_with("403") => {
            Some(format!("{reason}: the user in --amqp-url or AMQP_URL lacks the right to write there"))
        }
        RequestError::NoReplyQueue(error) if error.is_permanent() => Some(error.to_string()),
        _ => None,
    }
}

/// So many times what may be in flight may wait in all, what waits to be printed included.
const HELD_BACK: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_line_or_it_is_none() {
        let of = |payload: &[u8]| as_line(&Message::new(Destination::queue("q").unwrap(), payload.to_vec()));
        assert_eq!(of(b"42").as_deref(), Some("42"));
        assert_eq!(of(b"42\n").as_deref(), Some("42"), "as a command prints it");
        assert_eq!(of(b"").as_deref(), Some(""));
        assert_eq!((of(b"4\n2"), of(b"\n\n"), of(&[0xff])), (None, None, None));
    }
}
