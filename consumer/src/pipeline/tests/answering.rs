//! Who asked gets one answer, and nobody works for somebody who has gone.

use super::*;
use crate::reply::Reply;

const ANSWERS: &str = "correio.reply.x";

/// Asked now, with so much time for an answer.
fn request(h: &History, id: &str, time: Duration) -> Message {
    Message {
        reply_to: ShortText::new(ANSWERS).ok(),
        sent_at_us: Some(h.now.unix_us),
        deadline_us: Some(h.now.unix_us + time.as_micros() as u64),
        ..message(id)
    }
}

fn answer(envelope: &Envelope) -> Message {
    assert_eq!(envelope.route.to_string(), format!("correio.reply/{ANSWERS}"));
    envelope.decode().unwrap().message
}

#[test]
fn the_answer_is_confirmed_before_the_request_is_acknowledged_and_carries_its_correlation() {
    let mut h = History::of(independent(4, 5));
    let tag = h.deliver(&request(&h, "a", SECOND));
    h.end_with("a", Ok(Reply::new("42").into_answer()));
    assert!(h.acknowledged.is_empty());
    let sent = h.confirm(Ok(()));
    let said = answer(&sent);
    assert_eq!((said.payload, said.correlation_id), ("42".into(), ShortText::new("a").ok()));
    assert_eq!(sent.properties.expiration.as_ref().map(ShortText::as_str), Some("1000"), "nobody reads it later");
    assert_eq!(h.acknowledged, BTreeSet::from([tag]));
    assert_eq!((h.tally().handled, h.tally().replied), (1, 1));
}

#[test]
fn who_asks_is_told_that_it_is_done_and_who_does_not_ask_is_told_nothing() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "a", SECOND));
    h.done("a");
    let said = answer(&h.confirm(Ok(())));
    assert!(said.payload.is_empty() && said.error.is_none());
    h.deliver(&message("b"));
    h.end_with("b", Ok(Reply::new("42").into_answer()));
    assert!(h.publishing.is_empty());
    assert_eq!(h.acknowledged.len(), 2);
}

#[test]
fn a_request_that_fails_for_good_is_parked_and_answered_with_its_error() {
    let mut h = History::of(independent(4, 0));
    h.deliver(&request(&h, "a", SECOND));
    h.fail("a");
    assert_eq!(h.confirm(Ok(())).route.exchange, "correio.dead");
    assert_eq!(
        h.acknowledged.len(),
        1,
        "the letter is safe, and for want of an answer there shall not be a second one"
    );
    let error = answer(&h.confirm(Ok(()))).error.unwrap();
    assert_eq!(error.to_string(), "failed: no stock");
    assert_eq!((h.acknowledged.len(), h.tally().dead, h.tally().replied), (1, 1, 1));
}

#[test]
fn an_error_that_the_handler_returns_is_the_answer_and_no_failure() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "a", SECOND));
    h.end_with("a", Ok(Reply::error("no-funds", "12 are missing").into_answer()));
    assert_eq!(answer(&h.confirm(Ok(()))).error.unwrap().to_string(), "no-funds: 12 are missing");
    h.deliver(&request(&h, "b", SECOND));
    h.end("b", Ok(Verdict::Drop { reason: "why not".into() }));
    assert_eq!(answer(&h.confirm(Ok(()))).error.unwrap().to_string(), "dropped: why not");
    assert_eq!((h.tally().handled, h.tally().dropped, h.tally().retried, h.acknowledged.len()), (1, 1, 0, 2));
}

#[test]
fn a_request_is_not_begun_when_its_time_is_over_wherever_it_waited() {
    let mut h = History::of(independent(1, 5));
    h.deliver(&request(&h, "first", 5 * SECOND));
    h.deliver(&request(&h, "waits", SECOND));
    h.pass(2 * SECOND);
    h.done("first");
    h.confirm(Ok(()));
    let over = Message { deadline_us: Some(h.now.unix_us), ..request(&h, "over", SECOND) };
    h.deliver(&over);
    assert!(h.running().is_empty() && h.publishing.is_empty());
    assert_eq!((h.tally().late_requests, h.acknowledged.len()), (2, 3));
}

#[test]
fn a_retry_past_the_deadline_is_not_waited_for() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "patient", 10 * SECOND));
    h.fail("patient");
    assert_eq!(h.confirm(Ok(())).route.exchange, "correio.retry");
    h.deliver(&request(&h, "hasty", SECOND));
    h.fail("hasty");
    assert_eq!(h.confirm(Ok(())).route.exchange, "correio.dead");
    assert!(answer(&h.confirm(Ok(()))).error.unwrap().text.contains("deadline"));
    assert_eq!((h.tally().retried, h.tally().dead), (1, 1));
}

#[test]
fn an_answer_that_nobody_can_have_is_counted_and_the_request_is_done() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "gone", SECOND));
    h.done("gone");
    h.confirm(Err("no queue"));
    assert!(h.publishing.is_empty());
    assert_eq!((h.tally().unanswered, h.acknowledged.len()), (1, 1));
}

#[test]
fn an_answer_that_is_not_confirmed_is_sent_again_as_long_as_somebody_waits_for_it() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "a", 5 * SECOND));
    h.done("a");
    h.confirm(Err("silence"));
    assert!(h.publishing.is_empty() && h.acknowledged.is_empty());
    h.pass(SECOND);
    h.confirm(Err("silence"));
    h.pass(2 * SECOND);
    h.confirm(Ok(()));
    assert_eq!((h.tally().replied, h.acknowledged.len()), (1, 1));

    h.deliver(&request(&h, "b", SECOND));
    h.done("b");
    h.confirm(Err("silence"));
    h.pass(SECOND);
    h.confirm(Err("silence"));
    assert!(h.publishing.is_empty(), "nobody waits for it any more");
    assert_eq!((h.tally().unanswered, h.acknowledged.len()), (1, 2));
}

#[test]
fn an_answer_that_cannot_be_sent_is_an_error_for_who_asked() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "a", SECOND));
    h.done("a");
    h.confirm(Err("too large"));
    let error = answer(&h.confirm(Ok(()))).error.unwrap();
    assert_eq!(error.to_string(), "unsendable: too large");
    assert_eq!((h.tally().replied, h.acknowledged.len()), (1, 1));
}

#[test]
fn where_answers_are_refused_only_the_first_one_is_tried() {
    let mut h = History::of(independent(4, 5));
    for id in ["a", "b"] {
        h.deliver(&request(&h, id, SECOND));
        h.done(id);
        if id == "a" {
            h.confirm(Err("refused: 403 ACCESS_REFUSED"));
        }
    }
    assert!(h.publishing.is_empty());
    assert_eq!((h.tally().unanswered, h.acknowledged.len()), (2, 2));
}

#[test]
fn a_failed_request_whose_time_is_over_when_it_comes_back_is_parked_and_not_forgotten() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "a", 10 * SECOND));
    h.fail("a");
    let copy = h.confirm(Ok(()));
    h.pass(11 * SECOND);
    h.deliver_envelope(copy);
    assert!(h.running().is_empty());
    assert_eq!(h.confirm(Ok(())).route.exchange, "correio.dead");
    assert_eq!((h.tally().dead, h.tally().late_requests), (1, 0));
}

#[test]
fn who_asks_again_under_an_id_that_was_handled_is_told_so() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "a", SECOND));
    h.done("a");
    h.confirm(Ok(()));
    h.deliver(&request(&h, "a", 10 * SECOND));
    assert_eq!(answer(&h.confirm(Ok(()))).error.unwrap().kind, "already-handled");
    assert_eq!((h.tally().handled, h.tally().duplicates, h.acknowledged.len()), (1, 1, 2));
}

#[test]
fn stopping_without_a_channel_waits_for_the_answers_that_are_owed() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "a", 10 * SECOND));
    h.lose_channel();
    h.done("a");
    assert!(h.pipeline.may_subscribe(), "nothing here is at work");
    h.pipeline.on_stopping();
    assert!(!h.pipeline.is_drained());
    h.confirm(Ok(()));
    assert!(h.pipeline.is_drained());
    assert_eq!(h.tally().replied, 1);
}

#[test]
fn an_answer_is_given_although_the_channel_is_lost_and_the_request_that_comes_again_is_not_worked_on() {
    let mut h = History::of(independent(4, 5));
    for id in ["at work", "answering"] {
        h.deliver(&request(&h, id, 10 * SECOND));
    }
    h.done("answering");
    h.lose_channel();
    h.done("at work");
    assert_eq!(h.publishing.len(), 2);
    h.confirm(Ok(()));
    h.confirm(Ok(()));
    h.subscribe();
    for id in ["at work", "answering"] {
        h.deliver(&request(&h, id, 10 * SECOND));
    }
    assert!(h.running().is_empty());
    for _ in 0..2 {
        assert_eq!(answer(&h.confirm(Ok(()))).error.unwrap().kind, "already-handled", "late for who has its answer");
    }
    assert_eq!((h.tally().duplicates, h.acknowledged.len()), (2, 2));
}

#[test]
fn an_answer_that_is_asked_for_in_the_turn_in_which_the_channel_goes_is_not_forgotten() {
    let mut h = History::of(independent(4, 5));
    h.deliver(&request(&h, "a", SECOND));
    let (ticket, _) = h.running.remove(0);
    h.pipeline.on_result(ticket, Ok(Reply::new("42").into_answer()), h.now);
    while let Some(call) = h.pipeline.next_log_call(h.now.at) {
        let answer = h.answer(call);
        h.pipeline.on_log_answer(answer, h.now);
    }
    h.lose_channel();
    assert_eq!(h.publishing.len(), 1);
}

#[test]
fn what_is_done_and_only_not_answered_when_stopping_takes_too_long_is_not_given_back() {
    let mut h = History::of(independent(4, 5));
    let tag = h.deliver(&request(&h, "a", SECOND));
    h.done("a");
    h.pipeline.on_stopping();
    assert!(!h.pipeline.is_drained(), "its answer is waited for");
    h.pipeline.on_drain_over(h.now.at);
    h.go_on();
    assert!(h.given_back.is_empty());
    assert_eq!((h.acknowledged.clone(), h.tally().unanswered), (BTreeSet::from([tag]), 1));
}
