//! Where the messages of a run come from.

use std::{
    collections::VecDeque,
    io::IsTerminal,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use correio_message::Message;
use tokio::{
    fs::File,
    io::{AsyncBufRead, BufReader},
    time::{Instant, sleep_until},
};

use super::{
    lines::{LineError, Shape, next_line},
    target::Target,
    unsent::{self, UnsentError},
};

/// The messages of a run, one after another, no faster than asked for.
pub(crate) struct Input {
    from: From,
    name: String,
    limit: usize,
    pace: Option<Pace>,
    /// The number of the line that `next` gave last.
    pub(crate) line: u64,
    size: Option<Size>,
}

/// How much there is in all, as far as it is known before the end.
#[derive(Clone, Copy)]
enum Size {
    Messages(u64),
    /// Of a file, and how many of them are read.
    Bytes {
        all: u64,
        read: u64,
    },
}

enum From {
    Lines(Box<dyn AsyncBufRead + Unpin + Send>, Shape),
    Again(VecDeque<Message>),
}

/// The input cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {path}: {source}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("cannot read on in {name} after line {line}: {source}")]
    Read { name: String, line: u64, source: std::io::Error },
    #[error("line {line} of {name} was not sent: {cause}")]
    Line { name: String, line: u64, cause: LineError },
    #[error(transparent)]
    Again(#[from] UnsentError),
}

impl Input {
    /// Lines of a file, or of standard input.
    pub(crate) async fn lines(
        file: Option<&Path>,
        shape: Shape,
        rate: Option<NonZeroU32>,
        limit: usize,
    ) -> Result<Self, InputError> {
        let mut size = None;
        let (reader, name): (Box<dyn AsyncBufRead + Unpin + Send>, _) = match file {
            Some(path) => {
                let opened = File::open(path).await;
                let file = opened.map_err(|source| InputError::Open { path: path.to_owned(), source })?;
                let regular = file.metadata().await.ok().filter(std::fs::Metadata::is_file);
                size = regular.map(|file| Size::Bytes { all: file.len(), read: 0 });
                (Box::new(BufReader::with_capacity(64 * 1024, file)), path.display().to_string())
            }
            None => {
                if std::io::stdin().is_terminal() {
                    eprintln!("reading messages from the terminal, one a line; Ctrl-D ends");
                }
                (Box::new(BufReader::with_capacity(64 * 1024, tokio::io::stdin())), "the input".to_owned())
            }
        };
        Ok(Self { from: From::Lines(reader, shape), name, limit, pace: rate.map(Pace::new), line: 0, size })
    }

    /// What an earlier run kept.
    pub(crate) fn again(path: &Path, target: &Target, rate: Option<NonZeroU32>) -> Result<Self, InputError> {
        let messages = unsent::read(path, target)?;
        let (name, pace) = (path.display().to_string(), rate.map(Pace::new));
        let size = Some(Size::Messages(messages.len() as u64));
        Ok(Self { from: From::Again(messages.into()), name, limit: usize::MAX, pace, line: 0, size })
    }

    /// The next message, when its time has come; `None` at the end.
    ///
    /// Not cancel safe: a line half read is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>, InputError> {
        let message = match &mut self.from {
            From::Again(messages) => {
                if let (Some(pace), false) = (&mut self.pace, messages.is_empty()) {
                    pace.wait().await;
                }
                messages.pop_front()
            }
            From::Lines(reader, shape) => {
                let line = self.line + 1;
                let read = next_line(reader, self.limit).await.map_err(|source| InputError::Read {
                    name: self.name.clone(),
                    line: self.line,
                    source,
                })?;
                let of_line = |cause| InputError::Line { name: self.name.clone(), line, cause };
                let message =
                    read.map(|text| text.and_then(|text| shape.message(&text))).transpose().map_err(of_line)?;
                if let (Some(pace), true) = (&mut self.pace, message.is_some()) {
                    pace.wait().await;
                }
                message
            }
        };
        // Only now: a line given up while it waits for its time was not sent, and the report says from which line on.
        self.line += u64::from(message.is_some());
        if let (Some(Size::Bytes { read, .. }), Some(message)) = (&mut self.size, &message) {
            *read += message.payload.len() as u64 + 1;
        }
        Ok(message)
    }

    /// How many messages there will be in all, as it looks from here: lines are as long as those before them.
    pub(crate) fn expected(&self) -> Option<u64> {
        match self.size? {
            Size::Messages(messages) => Some(messages),
            Size::Bytes { read: 0, .. } => None,
            Size::Bytes { all, read } => {
                u64::try_from(u128::from(self.line) * u128::from(all.max(read)) / u128::from(read)).ok()
            }
        }
    }

    /// What was kept by an earlier run and has not been given out.
    pub(crate) fn into_rest(self) -> impl Iterator<Item = Message> {
        match self.from {
            From::Again(messages) => messages,
            // Lines that were not read are where they were.
            From::Lines(..) => VecDeque::new(),
        }
        .into_iter()
    }
}

/// Evenly spread sending.
struct Pace {
    between: Duration,
    next: Option<Instant>,
}

impl Pace {
    fn new(per_second: NonZeroU32) -> Self {
        Self { between: Duration::from_secs(1) / per_second.get(), next: None }
    }

    async fn wait(&mut self) {
        let now = Instant::now();
        let at = self.next.unwrap_or(now);
        sleep_until(at).await;
        // Time lost to a slow broker is caught up with by at most one second's worth.
        self.next = Some((at + self.between).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now)));
    }
}

#[cfg(test)]
mod tests {
    use correio_message::Destination;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_line_given_up_while_it_waits_for_its_time_is_not_counted() {
        let shape = Shape {
            target: Target::One(Destination::queue("orders").unwrap()),
            message_type: None,
            key_field: None,
            id_field: None,
        };
        let pace = Some(Pace::new(NonZeroU32::MIN));
        let from = From::Lines(Box::new(&b"one\ntwo\n"[..]), shape);
        let size = Some(Size::Bytes { all: 12, read: 0 });
        let mut input = Input { from, name: "a test".to_owned(), limit: 100, pace, line: 0, size };
        assert_eq!(input.expected(), None);

        assert!(input.next().await.unwrap().is_some());
        assert!(timeout(Duration::from_millis(20), input.next()).await.is_err());
        assert_eq!(input.line, 1);
        assert_eq!(input.expected(), Some(3), "one line of four bytes, of twelve");
    }
}
