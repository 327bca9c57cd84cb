//! What was not confirmed, kept so that it can be sent again as the same message.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use correio_message::{Destination, Key, Message, MessageId, Route, ShortText};
use serde::{Deserialize, Serialize};

use super::target::Target;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unsent {
    id: String,
    /// Where it was to go: with a template, each somewhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exchange: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routing_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    message_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// A file of unsent lines that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnsentError {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} already holds unsent lines: send them with --again {path}, or name another file for --unsent")]
    NotEmpty { path: PathBuf },
    #[error("line {line} of {path} is not what --unsent writes: {why}")]
    NotOurs { path: PathBuf, line: usize, why: String },
}

impl Unsent {
    pub(crate) fn of(message: &Message, outcome: String) -> Self {
        let text = |text: &Option<ShortText>| text.as_ref().map(ToString::to_string);
        let (payload, payload_base64) = match std::str::from_utf8(&message.payload) {
            Ok(payload) => (Some(payload.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&message.payload))),
        };
        let Route { exchange, routing_key } = message.destination.route();
        Self {
            exchange: Some(exchange.to_string()),
            routing_key: Some(routing_key.to_string()),
            id: message.id.as_ref().map(ToString::to_string).unwrap_or_default(),
            key: message.key.as_ref().map(ToString::to_string),
            message_type: text(&message.message_type),
            content_type: text(&message.content_type),
            outcome,
            payload,
            payload_base64,
        }
    }

    fn into_message(self, target: &Target) -> Result<Message, String> {
        let destination = match target {
            Target::One(destination) => destination.clone(),
            Target::ByLine(_) => self.destination()?,
        };
        let payload = match (self.payload, self.payload_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).map_err(|e| format!("payload_base64: {e}"))?,
            _ => return Err("either payload or payload_base64 is wanted".to_owned()),
        };
        let short = |text: Option<String>| text.map(ShortText::new).transpose().map_err(|e| e.to_string());
        let mut message = Message::new(destination, payload);
        message.id = Some(MessageId::new(self.id).map_err(|e| e.to_string())?);
        message.key = self.key.map(Key::new).transpose().map_err(|e| e.to_string())?;
        message.message_type = short(self.message_type)?;
        message.content_type = short(self.content_type)?;
        Ok(message)
    }

    fn destination(&self) -> Result<Destination, String> {
        let (Some(exchange), Some(routing_key)) = (&self.exchange, &self.routing_key) else {
            return Err(
                "it does not say where the message was to go: name one destination for all, as with --to".to_owned()
            );
        };
        let short = |text: &String| ShortText::new(text).map_err(|error| error.to_string());
        Ok(Destination::of_route(&Route { exchange: short(exchange)?, routing_key: short(routing_key)? }))
    }
}

/// Reads all of what an earlier run kept: it is checked before anything is sent.
pub(crate) fn read(path: &Path, target: &Target) -> Result<Vec<Message>, UnsentError> {
    let read_error = |source| UnsentError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read_error)?;
    let mut messages = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(read_error)?;
        let not_ours = |why| UnsentError::NotOurs { path: path.to_owned(), line: index + 1, why };
        let unsent: Unsent = serde_json::from_str(&line).map_err(|e| not_ours(e.to_string()))?;
        messages.push(unsent.into_message(target).map_err(not_ours)?);
    }
    Ok(messages)
}

/// The file, made when the first line is kept.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    /// Written beside it and renamed at the end, when the file is the very one that is being sent again.
    beside: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    pub(crate) kept: u64,
}

impl Keeper {
    /// `again`: the file being sent again, which may be the same; what is still unsent then takes its place.
    pub(crate) fn new(path: PathBuf, again: Option<&Path>) -> Result<Self, UnsentError> {
        let same = again == Some(path.as_path());
        if !same && std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            return Err(UnsentError::NotEmpty { path });
        }
        let beside = same.then(|| {
            let mut name = path.clone().into_os_string();
            name.push(".new");
            PathBuf::from(name)
        });
        let mut keeper = Self { path, beside, file: None, kept: 0 };
        // Opened now, so that a folder that is not there shows before anything is sent.
        keeper.open()?;
        Ok(keeper)
    }

    /// Keeps one line, on disk when this returns.
    pub(crate) fn keep(&mut self, message: &Message, outcome: String) -> Result<(), UnsentError> {
        let line = serde_json::to_string(&Unsent::of(message, outcome)).unwrap_or_default();
        let path = self.path.clone();
        let file = self.open()?;
        writeln!(file, "{line}").and_then(|()| file.flush()).map_err(|source| UnsentError::Write { path, source })?;
        self.kept += 1;
        Ok(())
    }

    /// Keeps what was not even tried, and puts the file in its place; an empty one is removed.
    pub(crate) fn finish(mut self, rest: impl Iterator<Item = Message>) -> Result<u64, UnsentError> {
        for message in rest {
            self.keep(&message, "not sent".to_owned())?;
        }
        self.file = None;
        let written = self.beside.as_ref().unwrap_or(&self.path);
        let result = match (&self.beside, self.kept) {
            (None, 0) => std::fs::remove_file(written),
            (Some(new), 0) => std::fs::remove_file(new).and_then(|()| std::fs::remove_file(&self.path)),
            (Some(new), _) => std::fs::rename(new, &self.path),
            (None, _) => Ok(()),
        };
        result.map_err(|source| UnsentError::Write { path: self.path.clone(), source })?;
        Ok(self.kept)
    }

    /// Nothing was sent: the file goes again, and one that is to be sent again stays as it was.
    pub(crate) fn abandon(mut self) {
        self.file = None;
        // It is empty; if it stays, the next run takes it all the same.
        let _ = std::fs::remove_file(self.beside.as_ref().unwrap_or(&self.path));
    }

    fn open(&mut self) -> Result<&mut BufWriter<File>, UnsentError> {
        let path = self.beside.as_ref().unwrap_or(&self.path);
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                BufWriter::new(File::create(path).map_err(|source| UnsentError::Write { path: path.clone(), source })?)
            }
        };
        Ok(self.file.insert(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::template::TopicTemplate;

    #[test]
    fn a_kept_line_is_the_same_message_again_bytes_included() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unsent.ndjson");
        let destination = Destination::queue("orders").unwrap();
        let target = Target::One(destination.clone());
        let mut message = Message::new(destination, vec![0xff, 0x00]);
        message.id = Some(MessageId::new("7").unwrap());
        message.key = Some(Key::new("k").unwrap());
        let mut keeper = Keeper::new(path.clone(), None).unwrap();
        keeper.keep(&message, "unknown".to_owned()).unwrap();
        assert_eq!(keeper.finish(std::iter::empty()).unwrap(), 1);
        assert_eq!(read(&path, &target).unwrap(), [message]);
        assert!(matches!(Keeper::new(path.clone(), None), Err(UnsentError::NotEmpty { .. })));
        // Stopped before it was tried again, it is still there.
        let rest = read(&path, &target).unwrap().into_iter();
        assert_eq!(Keeper::new(path.clone(), Some(&path)).unwrap().finish(rest).unwrap(), 1);
        assert_eq!(read(&path, &target).unwrap().len(), 1);
        Keeper::new(path.clone(), Some(&path)).unwrap().abandon();
        assert_eq!(read(&path, &target).unwrap().len(), 1);
        assert_eq!(Keeper::new(path.clone(), Some(&path)).unwrap().finish(std::iter::empty()).unwrap(), 0);
        assert!(!path.exists(), "all of it was sent");
    }

    #[test]
    fn a_line_of_a_template_goes_again_where_it_was_to_go_and_one_address_for_all_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unsent.ndjson");
        let event = |key: &str| {
            let message = Message::new(Destination::topic(key).unwrap(), "x");
            message.with_id(MessageId::new(key).unwrap())
        };
        let mut keeper = Keeper::new(path.clone(), None).unwrap();
        keeper.keep(&event("a.1"), "refused".to_owned()).unwrap();
        keeper.finish([event("a.2")].into_iter()).unwrap();
        let by_line = Target::ByLine(TopicTemplate::parse("a.{n}").unwrap());
        assert_eq!(read(&path, &by_line).unwrap(), [event("a.1"), event("a.2")]);
        let one = Target::One(Destination::topic("b").unwrap());
        assert!(
            read(&path, &one).unwrap().iter().all(|message| message.destination == Destination::topic("b").unwrap())
        );

        std::fs::write(&path, "{\"id\":\"1\",\"outcome\":\"unknown\",\"payload\":\"x\"}\n").unwrap();
        assert!(read(&path, &one).is_ok(), "as it was written before it said where");
        assert!(read(&path, &by_line).unwrap_err().to_string().contains("does not say where"));
    }
}
