//! Names by which somebody is reached, each checked once.

use std::fmt;

use crate::text::{ShortText, TooLong};

/// The name of one particular receiver, such as `ana` (unicast). Its queue is `correio.mailbox.NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxName(ShortText);

/// What an event is published under, such as `flight.ATL.LAX` (multicast): words between dots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicKey(ShortText);

/// Which events a group wants, such as `flight.*.LAX`: `*` stands for exactly one word, `#` for any number of words, none
/// included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern(ShortText);

/// Why somebody cannot be reached by this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// Nothing was named.
    #[error("the {what} is empty")]
    Empty {
        /// What was to be named.
        what: &'static str,
    },
    /// It is over 255 bytes, or its queue's name would be.
    #[error("the {what}: {cause}")]
    TooLong {
        /// What was to be named.
        what: &'static str,
        /// How long it is.
        #[source]
        cause: TooLong,
    },
    /// The name of its queue would mean something else.
    #[error("“{name}” cannot be a {what}: {because}")]
    Reserved {
        /// What was to be named.
        what: &'static str,
        /// The name.
        name: String,
        /// What it means.
        because: &'static str,
    },
    /// A wildcard where a key is wanted.
    #[error("“{key}” is a pattern, and an event is published under a key: `*` and `#` are for who subscribes")]
    PatternForKey {
        /// What was given.
        key: String,
    },
    /// A wildcard as a part of a word.
    #[error(
        "the pattern “{pattern}” has “{word}”: `*` stands for one whole word between dots, `#` for any number of them"
    )]
    PartOfWord {
        /// What was given.
        pattern: String,
        /// The word.
        word: String,
    },
}

impl MailboxName {
    /// What the name of every mailbox's queue starts with.
    pub const PREFIX: &str = "correio.mailbox.";

    /// Takes a name.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] if it is empty or too long, or its queue's name would mean something else.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        checked_name(MAILBOX, name.as_ref(), Self::PREFIX).map(Self)
    }

    /// Of the name of a mailbox's queue.
    pub(crate) fn of_queue(queue: &ShortText) -> Option<Self> {
        Self::new(queue.as_str().strip_prefix(Self::PREFIX)?).ok()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name of its queue, which is its routing key on `correio.queue` too.
    #[must_use]
    pub fn queue(&self) -> ShortText {
        ShortText::new(format!("{}{}", Self::PREFIX, self.0))
            .unwrap_or_else(|_| unreachable!("checked when it was made"))
    }
}

impl TopicKey {
    /// Takes a key.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] if it is empty or over 255 bytes, or a pattern.
    pub fn new(key: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        let key = key.as_ref();
        if key.is_empty() {
            return Err(InvalidAddress::Empty { what: TOPIC_KEY });
        }
        if key.split('.').any(|word| word == "*" || word == "#") {
            return Err(InvalidAddress::PatternForKey { key: key.to_owned() });
        }
        ShortText::new(key).map(Self).map_err(|cause| InvalidAddress::TooLong { what: TOPIC_KEY, cause })
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The key, as a route wants it.
    #[must_use]
    pub fn text(&self) -> &ShortText {
        &self.0
    }
}

impl TopicPattern {
    /// Takes a pattern.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] if it is empty or over 255 bytes, or a wildcard is a part of a word.
    pub fn new(pattern: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        let pattern = pattern.as_ref();
        if pattern.is_empty() {
            return Err(InvalidAddress::Empty { what: TOPIC_PATTERN });
        }
        if let Some(word) = pattern.split('.').find(|word| word.len() > 1 && word.contains(['*', '#'])) {
            return Err(InvalidAddress::PartOfWord { pattern: pattern.to_owned(), word: word.to_owned() });
        }
        ShortText::new(pattern).map(Self).map_err(|cause| InvalidAddress::TooLong { what: TOPIC_PATTERN, cause })
    }

    /// The pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The pattern, as a binding wants it.
    #[must_use]
    pub fn text(&self) -> &ShortText {
        &self.0
    }

    /// Whether an event under this key is wanted.
    #[must_use]
    pub fn matches(&self, key: &TopicKey) -> bool {
        let pattern: Vec<&str> = self.as_str().split('.').collect();
        // Which ends of the pattern are reached after the words so far.
        let mut reached = vec![false; pattern.len() + 1];
        reached[0] = true;
        skip_nothing(&pattern, &mut reached);
        for word in key.as_str().split('.') {
            let mut next = vec![false; pattern.len() + 1];
            for (at, wanted) in pattern.iter().enumerate().filter(|(at, _)| reached[*at]) {
                match *wanted {
                    "#" => next[at] = true,
                    wanted if wanted == "*" || wanted == word => next[at + 1] = true,
                    _ => {}
                }
            }
            skip_nothing(&pattern, &mut next);
            reached = next;
        }
        reached[pattern.len()]
    }
}

/// `#` stands for no word, too.
fn skip_nothing(pattern: &[&str], reached: &mut [bool]) {
    for (at, wanted) in pattern.iter().enumerate() {
        if reached[at] && *wanted == "#" {
            reached[at + 1] = true;
        }
    }
}

/// A name that becomes the last part of a queue's, which has queues of its own around it.
///
/// # Errors
///
/// [`InvalidAddress`] if it is empty or too long, or the queue's name would mean something else.
pub fn checked_name(what: &'static str, name: &str, prefix: &str) -> Result<ShortText, InvalidAddress> {
    let reserved = |because| Err(InvalidAddress::Reserved { what, name: name.to_owned(), because });
    match name {
        "" => return Err(InvalidAddress::Empty { what }),
        n if n.ends_with(".dead") => return reserved("its queue would be the parking queue of another"),
        n if n.contains(".retry.") => return reserved("its queue would be a retry queue of another"),
        n if n.contains(['[', ']']) => return reserved("brackets stand around a group's pattern"),
        n if n.contains(char::is_control) => return reserved("it has a control character"),
        _ => {}
    }
    ShortText::new(format!("{prefix}{name}{LONGEST_COMPANY}"))
        .and_then(|_| ShortText::new(name))
        .map_err(|cause| InvalidAddress::TooLong { what, cause })
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TopicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const MAILBOX: &str = "mailbox's name";
const TOPIC_KEY: &str = "topic's key";
const TOPIC_PATTERN: &str = "topic's pattern";
/// The queues around it have its name with more behind.
const LONGEST_COMPANY: &str = ".retry.43200m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_has_a_queue_of_its_own_and_a_name_that_would_mean_another_is_refused() {
        let name = MailboxName::new("ana@example.com").unwrap();
        assert_eq!(name.queue(), "correio.mailbox.ana@example.com");
        assert_eq!(MailboxName::of_queue(&name.queue()), Some(name));
        for wrong in ["", "ana.dead", "ana.retry.1s", "a\nb", "[a]", &"x".repeat(230)] {
            assert!(MailboxName::new(wrong).is_err(), "{wrong}");
        }
        assert!(MailboxName::new("x".repeat(226)).is_ok());
        for other in ["orders", "correio.mailbox.", "correio.group.g.[x]", "correio.mailbox.ana.dead"] {
            assert_eq!(MailboxName::of_queue(&ShortText::new(other).unwrap()), None, "{other}");
        }
    }

    #[test]
    fn a_pattern_is_no_key_and_a_wildcard_is_a_whole_word() {
        assert!(TopicKey::new("flight.ATL.LAX").is_ok());
        assert!(TopicKey::new("a*b.#1").is_ok(), "data may hold such words; they stand for themselves");
        for pattern in ["flight.*.LAX", "#", "flight.#"] {
            assert!(matches!(TopicKey::new(pattern), Err(InvalidAddress::PatternForKey { .. })), "{pattern}");
            assert!(TopicPattern::new(pattern).is_ok());
        }
        let wrong = TopicPattern::new("flight*.LAX").expect_err("no whole word").to_string();
        assert!(wrong.contains("“flight*”"), "{wrong}");
        for empty in [TopicKey::new("").is_err(), TopicPattern::new("").is_err()] {
            assert!(empty);
        }
        assert!(TopicKey::new("x".repeat(256)).is_err() && TopicPattern::new("x".repeat(256)).is_err());
    }

    #[test]
    fn patterns_match_as_the_brokers_topic_exchange_does() {
        let matches =
            |pattern: &str, key: &str| TopicPattern::new(pattern).unwrap().matches(&TopicKey::new(key).unwrap());
        for (pattern, key) in [
            ("flight.*.LAX", "flight.ATL.LAX"),
            ("flight.#", "flight"),
            ("flight.#", "flight.ATL.LAX"),
            ("#", "anything.at.all"),
            ("#.LAX", "LAX"),
            ("a.#.b.#.c", "a.b.b.c"),
            ("*", "one"),
            ("flight..LAX", "flight..LAX"),
        ] {
            assert!(matches(pattern, key), "{pattern} {key}");
        }
        for (pattern, key) in [
            ("flight.*.LAX", "flight.LAX"),
            ("flight.*.LAX", "flight.A.B.LAX"),
            ("flight.#", "flights.ATL"),
            ("*", "two.words"),
            ("a.#.b.#.c", "a.c.b"),
        ] {
            assert!(!matches(pattern, key), "{pattern} {key}");
        }
    }
}
