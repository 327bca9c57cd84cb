//! Five lessons on a private node: lost, acknowledged, retried, duplicated, ordered. Each first without, then with the
//! guarantee, by real processes of ours under real faults, judged by what they printed and wrote.
//!
//! Start reading at [`run`]; a lesson is one file.

mod account;
mod acknowledged;
mod args;
mod command;
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
mod table;
mod verdict;

pub use args::DemoArgs;
pub use error::LessonError;
pub use half::{Act, Figures, Half};
pub use lesson::Lesson;
pub use programs::Programs;
pub use run::{Ran, run};
pub use seed::Choices;
pub use table::table;
pub use verdict::{Broken, Damage, judge};
