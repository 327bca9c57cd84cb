//! Dead letters as lines: for people, and as JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    dead_letters::{DeadLetterGroup, DeadLetterSummary, Kept, Purged, ReplayPlan, Replayed},
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

/// Letters of one reason and type, for people, in two lines.
pub(crate) fn group_in_words(group: &DeadLetterGroup) -> String {
    let of_type = group.message_type.as_ref().map_or("(no type)".to_owned(), |t| shown(t.as_str()));
    let mut head = format!("{:>7}  {}  {of_type}", group.count, group.reason);
    if let Some(oldest) = group.oldest_failure.and_then(rfc3339) {
        head.push_str(&format!(", first failure {oldest}"));
    }
    if let Some(latest) = group.latest_failure.and_then(rfc3339) {
        head.push_str(&format!(", last parked {latest}"));
    }
    let id = group.example.as_ref().map_or("(no id)".to_owned(), |id| shown(id.as_str()));
    format!("{head}\n         such as {id}: {}\n", shown(&group.error))
}

/// Letters of one reason and type, for programs.
pub(crate) fn group_as_json(group: &DeadLetterGroup) -> Value {
    json!({
        "count": group.count,
        "reason": group.reason.as_str(),
        "type": group.message_type.as_ref().map(|t| t.as_str()),
        "oldest_failure": group.oldest_failure.and_then(rfc3339),
        "latest_failure": group.latest_failure.and_then(rfc3339),
        "example": group.example.as_ref().map(|id| id.as_str()),
        "error": group.error,
    })
}

/// What a replay did, for people.
pub(crate) fn replayed_in_words(queue: &str, done: &Replayed) -> String {
    let mut words = format!("replayed {}", done.replayed);
    if done.kept_count > 0 {
        words.push_str(&format!(", still parked although wanted {}", done.kept_count));
    }
    words.push_str(&of_the_others(queue, done.passed_over, done.ended_early()));
    words.push_str(&kept_in_words(&done.kept, done.kept_count));
    words
}

/// What a replay did, for programs.
pub(crate) fn replayed_as_json(done: &Replayed) -> Value {
    json!({
        "replayed": done.replayed,
        "kept": kept_as_json(&done.kept),
        "kept_count": done.kept_count,
        "passed_over": done.passed_over,
        "ended_early": done.ended_early(),
    })
}

/// What a replay would do, for people.
pub(crate) fn plan_in_words(queue: &str, plan: &ReplayPlan) -> String {
    let mut words = "would replay ".to_owned();
    let mut to: Vec<_> = plan.to.iter().map(|(queue, count)| format!("{count} to {}", shown(queue.as_str()))).collect();
    if plan.to_others > 0 {
        to.push(format!("{} to other queues", plan.to_others));
    }
    words.push_str(if to.is_empty() { "0" } else { "" });
    words.push_str(&to.join(", "));
    if plan.kept_count > 0 {
        words.push_str(&format!(", would leave although wanted {}", plan.kept_count));
    }
    words.push_str(&of_the_others(queue, plan.passed_over, plan.ended_early()));
    words.push_str(&kept_in_words(&plan.kept, plan.kept_count));
    words
}

/// What a replay would do, for programs.
pub(crate) fn plan_as_json(plan: &ReplayPlan) -> Value {
    let to: serde_json::Map<_, _> = plan.to.iter().map(|(queue, n)| (queue.to_string(), (*n).into())).collect();
    json!({
        "dry_run": true,
        "would_replay": to,
        "would_replay_to_others": plan.to_others,
        "kept": kept_as_json(&plan.kept),
        "kept_count": plan.kept_count,
        "passed_over": plan.passed_over,
        "ended_early": plan.ended_early(),
    })
}

/// What a purge did, for people.
pub(crate) fn purged_in_words(queue: &str, done: &Purged) -> String {
    format!("removed {}{}", done.removed, of_the_others(queue, done.passed_over, done.ended_early()))
}

fn of_the_others(queue: &str, passed_over: u32, ended_early: bool) -> String {
    let mut words = String::new();
    if passed_over > 0 {
        words.push_str(&format!(", not wanted {passed_over}"));
    }
    if ended_early {
        words.push_str(", ended before all were seen");
    }
    words.push_str(&format!(" ({queue})\n"));
    words
}

fn kept_in_words(kept: &[Kept], count: u32) -> String {
    let mut words = String::new();
    for kept in kept {
        let id = kept.id.as_ref().map_or("(no id)".to_owned(), |id| shown(id.as_str()));
        words.push_str(&format!("    {id}: {}\n", shown(&kept.why)));
    }
    let unnamed = count as usize - kept.len();
    if unnamed > 0 {
        words.push_str(&format!("    and {unnamed} more\n"));
    }
    words
}

fn kept_as_json(kept: &[Kept]) -> Vec<Value> {
    kept.iter().map(|kept| json!({ "id": kept.id.as_ref().map(|id| id.as_str()), "why": kept.why })).collect()
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
pub(super) fn shown(text: &str) -> String {
    spelled(text, |_| false)
}

/// A text from elsewhere with its line breaks and tabs, each further line behind `indent`; other control characters are spelled out.
pub(super) fn shown_lines(text: &str, indent: &str) -> String {
    spelled(text, |character| matches!(character, '\n' | '\t')).replace('\n', &format!("\n{indent}"))
}

fn spelled(text: &str, as_it_is: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !as_it_is(character) {
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
    use crate::dead_letters::{DeadLetterGroups, LookEnd};

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
            remembered_for: None,
            queue: None,
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
    fn a_group_tells_how_many_when_and_the_error_of_one_of_them() {
        let mut groups = DeadLetterGroups::default();
        for _ in 0..2 {
            groups.add(&letter(b"", 0));
        }
        let group = groups.largest_first().remove(0);
        assert_eq!(
            group_in_words(&group),
            "      2  failed  order.placed, first failure 1970-01-01T00:00:01Z, last parked 1970-01-01T00:00:01Z\n         \
             such as a-1: no stock:\\n\\u{1b}[2J out\n"
        );
        assert_eq!(group_as_json(&group)["count"], 2);
    }

    #[test]
    fn a_plan_says_how_many_go_where_and_what_would_stay() {
        let to = [("orders", 3), ("there", 1)].map(|(queue, n)| (ShortText::new(queue).unwrap(), n)).into();
        let kept = vec![Kept { id: None, why: "parked 2 h ago".into() }];
        let plan = ReplayPlan { to, kept, kept_count: 1, passed_over: 4, ..ReplayPlan::default() };
        assert_eq!(
            plan_in_words("orders", &plan),
            "would replay 3 to orders, 1 to there, would leave although wanted 1, not wanted 4 (orders)\n    \
             (no id): parked 2 h ago\n"
        );
        assert_eq!(plan_in_words("orders", &ReplayPlan::default()), "would replay 0 (orders)\n");
    }

    #[test]
    fn what_stays_parked_is_named_with_its_reason() {
        let kept = vec![Kept { id: MessageId::new("a-1").ok(), why: "unroutable: NO_ROUTE".into() }];
        let done = Replayed { replayed: 2, kept, kept_count: 3, passed_over: 1, ended: LookEnd::AllSeen };
        assert_eq!(
            replayed_in_words("orders", &done),
            "replayed 2, still parked although wanted 3, not wanted 1 (orders)\n    a-1: unroutable: NO_ROUTE\n    \
             and 2 more\n"
        );
    }
}
