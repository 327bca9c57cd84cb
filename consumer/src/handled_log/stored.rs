//! How ids stand in a database: short, local in an index, and different when they differ.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use correio_guarantees::HandledId;
use correio_message::{MessageId, ShortText};
use uuid::Uuid;

/// What an id becomes. A UUID in its usual spelling (lowercase, hyphens) is its 16 bytes: a third of its text, and version 7
/// ones, which grow with time, lie side by side in an index. Anything else, a UUID spelt otherwise included, is its
/// text behind a mark, and never 16 bytes long.
pub(super) fn stored(id: &MessageId) -> Vec<u8> {
    let text = id.as_str();
    if let Some(uuid) = usual_uuid(text) {
        return uuid.into_bytes().to_vec();
    }
    let mut bytes = Vec::with_capacity(text.len() + 2);
    bytes.push(TEXT);
    bytes.extend_from_slice(text.as_bytes());
    if bytes.len() == 16 {
        // One byte more, and another mark, lest it be taken for a text that ends with that byte.
        bytes[0] = TEXT_OF_15;
        bytes.push(0);
    }
    bytes
}

fn usual_uuid(text: &str) -> Option<Uuid> {
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return None;
    }
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(uuid)
}

const TEXT: u8 = b't';
const TEXT_OF_15: u8 = b'f';

/// Who handles and whose message it is: in the database a number, as it is the same for very many ids.
pub(super) type Source = (Arc<str>, Option<ShortText>);

/// The numbers of sources that are known to be committed.
#[derive(Debug, Default)]
pub(super) struct Sources {
    known: Mutex<HashMap<Source, i64>>,
}

impl Sources {
    pub(super) fn number(&self, id: &HandledId) -> Option<i64> {
        self.known().get(&source(id)).copied()
    }

    /// Those without a number, each once.
    pub(super) fn missing<'a>(&self, ids: impl Iterator<Item = &'a HandledId>) -> HashSet<Source> {
        let known = self.known();
        ids.map(source).filter(|source| !known.contains_key(source)).collect()
    }

    pub(super) fn learn(&self, source: Source, number: i64) {
        let mut known = self.known();
        // Whoever sends chooses its origin: any number of them must not fill the memory.
        if known.len() >= MOST_SOURCES {
            known.clear();
        }
        known.insert(source, number);
    }

    /// After an error: the database that comes back may be another one, restored from a copy, with other numbers.
    pub(super) fn forget(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Source, i64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn source(id: &HandledId) -> Source {
    (id.subscription.clone(), id.origin.clone())
}

const MOST_SOURCES: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(text: &str) -> Vec<u8> {
        stored(&MessageId::new(text).unwrap())
    }

    #[test]
    fn a_uuid_in_its_usual_spelling_takes_16_bytes_and_in_another_it_is_another_id() {
        let usual = "0190b2a4-7c1e-7d3a-9f00-0123456789ab";
        assert_eq!(of(usual).len(), 16);
        let others =
            [usual.to_uppercase(), usual.replace('-', ""), format!("{{{usual}}}"), format!("urn:uuid:{usual}")];
        for other in &others {
            assert_ne!(of(other).len(), 16, "{other}");
        }
        assert_eq!(others.iter().map(|other| of(other)).collect::<BTreeSet<_>>().len(), others.len());
    }

    #[test]
    fn texts_that_differ_are_stored_differently_whatever_their_length() {
        let mut texts: Vec<String> = (1..40).map(|length| "x".repeat(length)).collect();
        texts.extend(
            ["a", "A", "x\0", "\0x", "fxxxxxxxxxxxxxxx", "txxxxxxxxxxxxxxx", "xxxxxxxxxxxxxx\0"].map(str::to_owned),
        );
        texts.extend(["xxxxxxxxxxxxxxx\0", "fxxxxxxxxxxxxxx", "txxxxxxxxxxxxxx"].map(str::to_owned));
        let stored: BTreeSet<_> = texts.iter().map(|text| of(text)).collect();
        assert_eq!(stored.len(), texts.len());
        assert!(stored.iter().all(|bytes| bytes.len() != 16), "16 bytes are a UUID's");
    }
}
