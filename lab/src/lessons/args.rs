//! What the lessons are asked for.

use clap::Args;

use super::Lesson;

/// Which lessons, and how they are shown.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// The lessons to run, in this order; all of them without any.
    #[arg(value_enum, value_name = "LESSON")]
    pub lessons: Vec<Lesson>,

    /// Hold each state until Enter (15 seconds without a terminal), and say what to look at in the dashboard.
    #[arg(long)]
    pub watch: bool,

    /// Keep the node at the end, until Ctrl-C.
    #[arg(long)]
    pub stay: bool,

    /// The number that every choice comes from: the same one makes the same messages fail.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Print a JSON object for each half, and the table as one.
    #[arg(long)]
    pub json: bool,
}
