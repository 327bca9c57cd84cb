//! Dead letters as lines: for people, and as JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    dead_letters::{DeadLetterSummary, Replayed},
    program::time::rfc3339,
};

/// A letter for people, in three lines. Nothing in it can move a terminal's cursor.
pub(crate) fn in_words(letter: &DeadLetterSummary) -> String {
    let id = letter.id.as_ref().map_or("(no id)".to_owned(), |id| shown(id.as_str()));
    let of_type = letter.message_type.as_ref().map_or("(no type)".to_owned(), |t| shown(t.as_str()));
    let mut head = format!("{id}  {of_type}  {}", letter.reason);
    if let Some(attempts) = letter.attempts {
        head.push_str(&format!(" after {attempts} attempt{}", if attempts.get() == 1 { "" } else { "s" }));
    }
    if let Some(at) = letter.at.and_then(rfc3339) {
        head.push_str(&format!(", parked {at}"));
    }
    if let Some(first) = letter.first_failed_at.and_then(rfc3339) {
        head.push_str(&format!(", first failed {first}"));
    }
    let rest = if letter.size > letter.payload_start.len() { "…" } else { "" };
    let payload = match text_start(letter) {
        Some(text) => shown(text),
        None => format!("(not UTF-8) {}", STANDARD.encode(&letter.payload_start)),
    };
    let route = shown(&letter.original.to_string());
    format!("{head}\n    {}\n    sent to {route}, {} bytes: {payload}{rest}\n", shown(&letter.error), letter.size)
}

/// A letter for programs.
pub(crate) fn as_json(letter: &DeadLetterSummary) -> Value {
    let mut object = json!({
        "id": letter.id.as_ref().map(|id| id.as_str()),
        "type": letter.message_type.as_ref().map(|t| t.as_str()),
        "origin": letter.origin.as_ref().map(|o| o.as_str()),
        "reason": letter.reason.as_str(),
        "error": letter.error,
        "attempts": letter.attempts,
        "first_failed_at": letter.first_failed_at.and_then(rfc3339),
        "at": letter.at.and_then(rfc3339),
        "exchange": letter.original.exchange.as_str(),
        "routing_key": letter.original.routing_key.as_str(),
        "size": letter.size,
    });
    match text_start(letter) {
        Some(text) => object["payload_start"] = text.into(),
        None => object["payload_start_base64"] = STANDARD.encode(&letter.payload_start).into(),
    }
    object
}

/// What a replay did, for people.
pub(crate) fn replayed_in_words(queue: &str, done: &Replayed) -> String {
    let mut words = format!("replayed {}", done.replayed);
    if done.kept_count > 0 {
        words.push_str(&format!(", still parked although wanted {}", done.kept_count));
    }
    if done.passed_over > 0 {
        words.push_str(&format!(", not wanted {}", done.passed_over));
    }
    if done.ended_early {
        words.push_str(", ended before all were seen");
    }
    words.push_str(&format!(" ({queue})\n"));
    for kept in &done.kept {
        let id = kept.id.as_ref().map_or("(no id)".to_owned(), |id| shown(id.as_str()));
        words.push_str(&format!("    {id}: {}\n", shown(&kept.why)));
    }
    let unnamed = done.kept_count as usize - done.kept.len();
    if unnamed > 0 {
        words.push_str(&format!("    and {unnamed} more\n"));
    }
    words
}

/// What a replay did, for programs.
pub(crate) fn replayed_as_json(done: &Replayed) -> Value {
    let kept: Vec<Value> =
        done.kept.iter().map(|kept| json!({ "id": kept.id.as_ref().map(|id| id.as_str()), "why": kept.why })).collect();
    json!({
        "replayed": done.replayed,
        "kept": kept,
        "kept_count": done.kept_count,
        "passed_over": done.passed_over,
        "ended_early": done.ended_early,
    })
}

/// The start of the payload as text, if it is text as far as it goes.
fn text_start(letter: &DeadLetterSummary) -> Option<&str> {
    let start = &letter.payload_start;
    match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        // The preview may end inside a character.
        Err(e) if e.error_len().is_none() && letter.size > start.len() => {
            std::str::from_utf8(&start[..e.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// A text from elsewhere on one line: line breaks and other control characters are spelled out.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use bytes::Bytes;
    use correio_message::{DeadReason, MessageId, Route, ShortText};

    use super::*;
    use crate::dead_letters::Kept;

    fn letter(payload: &'static [u8], size: usize) -> DeadLetterSummary {
        let text = |text| ShortText::new(text).unwrap();
        DeadLetterSummary {
            id: Some(MessageId::new("a-1").unwrap()),
            message_type: Some(text("order.placed")),
            origin: None,
            reason: DeadReason::Failed,
            error: "no stock:\n\u{1b}[2J out".into(),
            attempts: std::num::NonZeroU32::new(6),
            first_failed_at: None,
            at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
            original: Route { exchange: text("correio.queue"), routing_key: text("orders") },
            size,
            payload_start: Bytes::from_static(payload),
        }
    }

    #[test]
    fn a_letter_in_words_cannot_move_the_cursor() {
        assert_eq!(
            in_words(&letter(b"{\"n\":1}", 7)),
            "a-1  order.placed  failed after 6 attempts, parked 1970-01-01T00:00:01Z\n    \
             no stock:\\n\\u{1b}[2J out\n    sent to correio.queue/orders, 7 bytes: {\"n\":1}\n"
        );
    }

    #[test]
    fn a_preview_that_ends_inside_a_character_is_text_and_other_bytes_are_base64() {
        assert_eq!(as_json(&letter("aé".as_bytes().split_last().unwrap().1, 3))["payload_start"], "a");
        assert_eq!(as_json(&letter(b"\xff", 1))["payload_start_base64"], "/w==");
    }

    #[test]
    fn what_stays_parked_is_named_with_its_reason() {
        let kept = vec![Kept { id: MessageId::new("a-1").ok(), why: "unroutable: NO_ROUTE".into() }];
        let done = Replayed { replayed: 2, kept, kept_count: 3, passed_over: 1, ended_early: false };
        assert_eq!(
            replayed_in_words("orders", &done),
            "replayed 2, still parked although wanted 3, not wanted 1 (orders)\n    a-1: unroutable: NO_ROUTE\n    \
             and 2 more\n"
        );
    }
}
