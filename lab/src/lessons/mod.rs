//! Lessons on a private node, by real processes of ours under real faults, judged by what they printed and wrote. Five go
//! first without, then with a guarantee: lost, acknowledged, retried, duplicated, ordered. Two compare: the ways of addressing,
//! and asking with sending.
//!
//! Start reading at [`run`]; a lesson is one file.

mod account;
mod acknowledged;
mod addressing;
mod args;
mod command;
mod comparison;
mod duplicated;
mod error;
mod evidence;
mod half;
mod held;
mod lesson;
mod lost;
mod ordered;
mod plain_client;
mod programs;
mod retried;
mod run;
mod running;
mod seed;
mod show;
mod stage;
mod synchronous;
mod table;
mod verdict;

pub use args::DemoArgs;
pub use comparison::Comparison;
pub use error::LessonError;
pub use half::{Act, Figures, Half};
pub use lesson::{Kind, Lesson};
pub use programs::Programs;
pub use run::{Ran, run};
pub use seed::Choices;
pub use table::table;
pub use verdict::{Broken, Damage, judge};
