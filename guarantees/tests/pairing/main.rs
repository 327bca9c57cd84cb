//! What goes wrong between a publish and its outcome: confirms in any order, returns on a stranger's confirm, nacks,
//! lost channels, silence.

mod model;
#[path = "../support/mod.rs"]
mod support;

use correio_guarantees::{Answer, ConfirmWindow, DeadlineAction, Pronounced, WindowAdmission, WindowLimits};
use correio_message::MessageId;
use model::{Run, op};
use proptest::{collection::vec, prelude::*};
use support::{at, cases};

const LIMITS: WindowLimits = WindowLimits { messages: 4, bytes: 100 };

fn id(name: impl ToString) -> MessageId {
    MessageId::new(name.to_string()).unwrap()
}

fn window() -> ConfirmWindow<&'static str> {
    ConfirmWindow::new(LIMITS)
}

fn ends<M>(window: &mut ConfirmWindow<M>) -> Vec<(String, Pronounced)> {
    window.take_ended().into_iter().map(|ended| (ended.id.to_string(), ended.pronounced)).collect()
}

fn unroutable() -> Pronounced {
    Pronounced::Unroutable { reason: "NO_ROUTE".into() }
}

#[test]
fn a_lone_publish_is_pronounced_at_once() {
    let mut window = window();
    let publish = window.on_publishing(id("a"), "a", 1, at(10));
    window.on_answered(publish, Answer::Ack);
    assert_eq!(ends(&mut window), [("a".into(), Pronounced::Confirmed)]);
    assert!(window.is_idle());
}

#[test]
fn a_returned_message_is_unroutable_even_when_another_confirm_brings_the_return() {
    let mut window = window();
    let nobody = window.on_publishing(id("nobody"), "", 1, at(10));
    let there = window.on_publishing(id("there"), "", 1, at(10));
    window.on_answered(nobody, Answer::Ack);
    assert_eq!(ends(&mut window), [], "its return may ride on the confirm that is still out");
    window.on_returned(&id("nobody"), "NO_ROUTE".into());
    window.on_answered(there, Answer::Ack);
    assert_eq!(ends(&mut window), [("nobody".into(), unroutable()), ("there".into(), Pronounced::Confirmed)]);
}

#[test]
fn what_is_published_after_an_answer_does_not_delay_its_pronouncement() {
    let mut window = window();
    let first = window.on_publishing(id(1), "", 1, at(10));
    let second = window.on_publishing(id(2), "", 1, at(10));
    window.on_answered(second, Answer::Ack);
    window.on_publishing(id(3), "", 1, at(10));
    window.on_answered(first, Answer::Nack);
    // The second was seen before the third was out; the first was answered while it was.
    assert_eq!(ends(&mut window), [("2".into(), Pronounced::Confirmed)]);
}

#[test]
fn a_confirm_for_an_old_channel_confirms_nothing() {
    let mut window = window();
    let old = window.on_publishing(id("a"), "a", 1, at(10));
    window.on_channel_lost();
    window.on_answered(old, Answer::Ack);
    let (new, message) = window.next_resend().unwrap();
    assert_eq!((*message, new != old), ("a", true));
    window.on_answered(old, Answer::Ack);
    assert!(!window.is_current(old) && window.is_current(new));
    assert_eq!((ends(&mut window), window.unanswered()), (vec![], 1));
}

#[test]
fn a_message_acknowledged_but_not_pronounced_when_its_channel_is_lost_is_sent_again() {
    let mut window = window();
    window.on_publishing(id(1), "1", 1, at(10));
    let second = window.on_publishing(id(2), "2", 1, at(10));
    window.on_answered(second, Answer::Ack);
    window.on_channel_lost();
    assert_eq!(window.resends_waiting(), 2);
    assert_eq!(window.next_resend().map(|(_, message)| *message), Some("1"));
    assert_eq!(window.next_resend().map(|(_, message)| *message), Some("2"));
}

#[test]
fn a_return_or_a_nack_that_was_seen_is_certain_when_the_channel_is_lost() {
    let mut window = window();
    window.on_publishing(id("silent"), "", 1, at(10));
    window.on_publishing(id("returned"), "", 1, at(10));
    let nacked = window.on_publishing(id("nacked"), "", 1, at(10));
    window.on_returned(&id("returned"), "NO_ROUTE".into());
    window.on_answered(nacked, Answer::Nack);
    window.on_channel_lost();
    assert_eq!(ends(&mut window), [("returned".into(), unroutable()), ("nacked".into(), Pronounced::Refused)]);
    assert_eq!(window.resends_waiting(), 1);
}

#[test]
fn a_deadline_kills_the_channel_first_and_then_says_unknown() {
    let mut window = window();
    window.on_publishing(id("a"), "", 1, at(10));
    assert_eq!(window.next_deadline(), Some(at(10)));
    assert_eq!(window.on_deadline(at(9)), DeadlineAction::None);
    assert_eq!(window.on_deadline(at(10)), DeadlineAction::KillChannel);
    assert_eq!((window.next_deadline(), ends(&mut window)), (None, vec![]));
    window.on_channel_lost();
    assert_eq!(ends(&mut window), [("a".into(), Pronounced::Unknown { tries: 1 })]);
    assert_eq!(window.next_resend(), None);
}

#[test]
fn a_message_waiting_to_be_sent_again_is_unknown_at_its_deadline() {
    let mut window = window();
    window.on_publishing(id("a"), "", 1, at(10));
    window.on_channel_lost();
    window.next_resend();
    window.on_channel_lost();
    assert_eq!(window.on_deadline(at(10)), DeadlineAction::None);
    assert_eq!(ends(&mut window), [("a".into(), Pronounced::Unknown { tries: 2 })]);
}

#[test]
fn a_second_publish_of_an_id_waits_while_a_return_could_still_name_the_first() {
    let mut window = window();
    let slow = window.on_publishing(id("slow"), "", 1, at(100));
    let quick = window.on_publishing(id("quick"), "", 1, at(10));
    window.on_answered(quick, Answer::Ack);
    assert_eq!(window.on_deadline(at(10)), DeadlineAction::None);
    assert_eq!(ends(&mut window), [("quick".into(), Pronounced::Unknown { tries: 1 })]);
    assert_eq!(window.admission(&id("quick"), 1), WindowAdmission::SameIdOutstanding);
    window.on_answered(slow, Answer::Ack);
    assert_eq!(window.admission(&id("quick"), 1), WindowAdmission::Now);
}

#[test]
fn a_message_larger_than_the_window_is_let_in_alone() {
    let mut window = window();
    assert_eq!(window.admission(&id("large"), 1_000), WindowAdmission::Now);
    window.on_publishing(id("large"), "", 1_000, at(10));
    assert_eq!(window.admission(&id("small"), 1), WindowAdmission::Full);
}

#[test]
fn nothing_new_overtakes_what_waits_to_be_sent_again() {
    let mut window = window();
    window.on_publishing(id("old"), "", 1, at(10));
    window.on_channel_lost();
    assert_eq!(window.admission(&id("new"), 1), WindowAdmission::Full);
    window.next_resend();
    assert_eq!(window.admission(&id("new"), 1), WindowAdmission::Now);
}

#[test]
fn the_message_that_ended_the_channel_can_be_withdrawn_and_the_innocent_are_sent_again() {
    let mut window = window();
    window.on_publishing(id("culprit"), "culprit", 1, at(10));
    window.on_publishing(id("innocent"), "innocent", 1, at(10));
    window.on_channel_lost();
    assert_eq!(window.first_waiting(), Some(&id("culprit")));
    assert_eq!(window.withdraw(&id("culprit")), Some(("culprit", 1)));
    assert_eq!(window.withdraw(&id("culprit")), None);
    assert_eq!(window.next_resend().map(|(_, message)| *message), Some("innocent"));
    assert_eq!(window.first_waiting(), None);
    assert_eq!((window.held(), window.held_bytes()), (1, 1));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_message_has_exactly_one_outcome_and_it_is_its_own(
        in_order in any::<bool>(),
        history in vec(op(), 1..60),
    ) {
        let mut run = Run::new(in_order);
        for op in history {
            run.step(op);
            run.check();
        }
        run.finish();
    }
}
