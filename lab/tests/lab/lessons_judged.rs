//! A lesson that shows nothing fails: without the guarantee there is damage in every act, with it there is none.

use correio_lab::lessons::{Act, Choices, Damage, Figures, Half, Lesson, judge, table};

fn half(guarded: bool, figures: &[Figures]) -> Half {
    let acts = figures.iter().map(|figures| Act { name: "an act", figures: *figures }).collect();
    Half { lesson: "lost", guarded, setting: "fire", done: "the line was cut", acts }
}

fn said(guarded: bool, damage: Damage, figures: &[Figures]) -> String {
    judge(&half(guarded, figures), damage).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// 100 messages, all confirmed and handled once.
fn well() -> Figures {
    Figures { sent: 100, confirmed: Some(100), handled: 100, ..Figures::default() }
}

#[test]
fn an_unguarded_half_without_damage_fails() {
    for damage in [Damage::Lost, Damage::Doubled, Damage::OutOfOrder, Damage::DeadBeyond(0)] {
        assert_eq!(
            said(false, damage, &[well()]),
            "lost, fire, an act: the fault did no damage, so the lesson shows nothing"
        );
    }
}

#[test]
fn one_act_without_damage_fails_although_another_has_some() {
    let lost = Figures { lost: 50, handled: 50, ..well() };
    assert_eq!(said(false, Damage::Lost, &[lost]), "");
    assert!(said(false, Damage::Lost, &[lost, well()]).contains("shows nothing"));
}

#[test]
fn other_damage_than_the_lesson_is_about_shows_nothing() {
    let doubled = Figures { doubled: 1, handled: 101, ..well() };
    assert!(said(false, Damage::Lost, &[doubled]).contains("shows nothing"));
}

#[test]
fn a_guarded_half_with_any_damage_fails_and_names_it() {
    assert_eq!(said(true, Damage::Lost, &[well()]), "");
    let of = |damaged| said(true, Damage::Lost, &[damaged]);
    assert!(of(Figures { lost: 1, handled: 99, ..well() }).ends_with("1 lost although the guarantee was on"));
    assert!(of(Figures { doubled: 2, handled: 102, ..well() }).contains("2 doubled"));
    assert!(of(Figures { dead: 3, handled: 97, ..well() }).contains("3 dead"));
    assert!(of(Figures { handled: 0, told: 100, confirmed: Some(0), ..well() }).contains("without a single message"));
}

#[test]
fn order_is_asked_for_only_where_it_was_promised() {
    let overtaken = Figures { out_of_order: 5, ..well() };
    assert_eq!(said(true, Damage::Lost, &[overtaken]), "");
    assert!(said(true, Damage::OutOfOrder, &[overtaken]).contains("5 out of order"));
}

#[test]
fn the_hopeless_message_is_parked_in_both_halves_and_no_damage() {
    let dead = |dead| Figures { dead, handled: 100 - dead, ..well() };
    assert_eq!(said(false, Damage::DeadBeyond(1), &[dead(11)]), "");
    assert!(said(false, Damage::DeadBeyond(1), &[dead(1)]).contains("shows nothing"));
    assert_eq!(said(true, Damage::DeadBeyond(1), &[dead(1)]), "");
    assert!(said(true, Damage::DeadBeyond(1), &[dead(2)]).contains("1 dead"));
    assert!(said(true, Damage::DeadBeyond(1), &[dead(0)]).contains("hopeless and not parked"));
}

#[test]
fn messages_from_nowhere_fail_either_half() {
    let strange = Figures { strange: 1, lost: 1, ..well() };
    for guarded in [false, true] {
        assert!(said(guarded, Damage::Lost, &[strange]).contains("should be on no queue"));
    }
}

#[test]
fn nothing_sent_shows_nothing() {
    assert!(said(true, Damage::Lost, &[Figures::default()]).contains("nothing was sent"));
    assert!(said(true, Damage::Lost, &[]).contains("nothing was sent"));
}

#[test]
fn the_table_adds_the_acts_and_stands_in_columns() {
    let fired = Figures { sent: 1000, confirmed: None, handled: 500, lost: 500, ..Figures::default() };
    let text = table(&[half(false, &[fired, fired]), half(true, &[well()])]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with("lost "), "{text}");
    assert!(lines[2].starts_with("     "), "the name of a lesson stands once: {text}");
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(cells[..9], ["lost", "fire", "2000", "–", "1000", "1000", "0", "0", "0"], "{text}");
    let end_of = |line: &str, word: &str| line.find(word).map(|at| line[..at + word.len()].chars().count());
    assert_eq!(end_of(lines[0], "sent"), end_of(lines[1], "2000"), "{text}");
    assert_eq!(end_of(lines[0], "sent"), end_of(lines[2], " 100"), "{text}");
    assert!(lines.iter().all(|line| line.trim_end() == *line), "{text}");
}

#[test]
fn the_same_seed_makes_the_same_choices_and_each_lesson_its_own() {
    let drawn = |seed, lesson| {
        let mut choices = Choices::new(seed, lesson);
        std::iter::repeat_with(|| choices.number(100)).take(8).collect::<Vec<_>>()
    };
    assert_eq!(drawn(7, "retried"), drawn(7, "retried"));
    assert_ne!(drawn(7, "retried"), drawn(8, "retried"));
    assert_ne!(drawn(7, "retried"), drawn(7, "ordered"));
    assert!(drawn(7, "retried").iter().all(|number| (1..=100).contains(number)));
    let mut shuffled = [1, 2, 3];
    Choices::new(7, "ordered").shuffle(&mut shuffled);
    shuffled.sort_unstable();
    assert_eq!(shuffled, [1, 2, 3]);
}

#[test]
fn every_lesson_tells_a_short_story_with_its_price() {
    for lesson in Lesson::ALL {
        let story = lesson.story();
        assert!(story.len() <= 3, "{}", lesson.name());
        assert!(story.iter().all(|line| line.chars().count() <= 125), "{}", lesson.name());
        assert!(story.join(" ").contains("Price"), "{}", lesson.name());
    }
}
