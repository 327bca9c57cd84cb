//! Whether a lesson kept its promise: damage in every act without the guarantee, none with it.

use super::{Act, Half};

/// What a lesson is about: the figure in which its damage shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Messages that were neither handled nor parked, and of which nobody was told.
    Lost,
    /// Messages that had more than one effect.
    Doubled,
    /// Messages handled after a later one of their key.
    OutOfOrder,
    /// Messages parked although trying again would have helped: those past this number.
    DeadBeyond(u64),
}

/// A half of a lesson that did not show what it is there to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{lesson}, {half}, {act}: {what}")]
pub struct Broken {
    lesson: &'static str,
    half: &'static str,
    act: String,
    what: String,
}

impl Broken {
    pub(crate) fn of(lesson: &'static str, half: &'static str, act: &str, what: String) -> Self {
        Self { lesson, half, act: act.to_owned(), what }
    }
}

/// What is wrong with a half, act by act; nothing if it showed what it should.
#[must_use]
pub fn judge(half: &Half, damage: Damage) -> Vec<Broken> {
    let mut broken = Vec::new();
    if half.acts.is_empty() {
        let (act, what) = ("no act".to_owned(), "nothing was sent".to_owned());
        broken.push(Broken { lesson: half.lesson, half: half.setting, act, what });
    }
    for act in &half.acts {
        let mut say = |what: String| {
            let act = act.name.to_owned();
            broken.push(Broken { lesson: half.lesson, half: half.setting, act, what });
        };
        if act.figures.sent == 0 {
            say("nothing was sent".to_owned());
        } else if act.figures.strange > 0 {
            say(format!("{} messages were handled that should be on no queue", act.figures.strange));
        } else if !half.guarded && damage_in(act, damage) == 0 {
            say("the fault did no damage, so the lesson shows nothing".to_owned());
        } else if half.guarded {
            for (number, what) in guarded_faults(act, damage) {
                say(format!("{number} {what} although the guarantee was on"));
            }
        }
    }
    broken
}

fn damage_in(act: &Act, damage: Damage) -> u64 {
    let figures = &act.figures;
    match damage {
        Damage::Lost => figures.lost,
        Damage::Doubled => figures.doubled,
        Damage::OutOfOrder => figures.out_of_order,
        Damage::DeadBeyond(hopeless) => figures.dead.saturating_sub(hopeless),
    }
}

/// With its guarantee on, a lesson may show no other damage either.
fn guarded_faults(act: &Act, damage: Damage) -> impl Iterator<Item = (u64, &'static str)> {
    let figures = &act.figures;
    let hopeless = if let Damage::DeadBeyond(hopeless) = damage { hopeless } else { 0 };
    // Order was promised only where it is the lesson.
    let out_of_order = if damage == Damage::OutOfOrder { figures.out_of_order } else { 0 };
    [
        (u64::from(figures.handled == 0), "acts without a single message handled"),
        (figures.lost, "lost"),
        (figures.doubled, "doubled"),
        (out_of_order, "out of order"),
        (figures.dead.saturating_sub(hopeless), "dead"),
        (hopeless.saturating_sub(figures.dead), "hopeless and not parked"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
}
