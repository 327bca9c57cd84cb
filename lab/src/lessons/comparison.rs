//! A lesson that compares ways of sending, instead of switching one guarantee off and on.

use serde::Serialize;

use super::{Broken, table::aligned};

/// What a lesson that compares has shown: a table of its own.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The lesson's name.
    pub lesson: &'static str,
    /// What stands in each column.
    pub heading: Vec<&'static str>,
    /// A way of sending in each row.
    pub rows: Vec<Vec<String>>,
    /// What is not as it should be; nothing if all is.
    #[serde(skip)]
    pub wrong: Vec<Broken>,
}

impl Comparison {
    pub(crate) fn new(lesson: &'static str, heading: &[&'static str]) -> Self {
        Self { lesson, heading: heading.to_vec(), rows: Vec::new(), wrong: Vec::new() }
    }

    /// Something must hold, or the lesson does not show what it is there to show.
    pub(crate) fn holds(&mut self, row: &'static str, is_so: bool, otherwise: impl FnOnce() -> String) {
        if !is_so {
            self.wrong.push(Broken::of(self.lesson, row, "what it means", otherwise()));
        }
    }

    /// As people read it: texts to the left, numbers to the right.
    pub(crate) fn in_columns(&self) -> String {
        let heading = self.heading.iter().map(ToString::to_string).collect();
        let rows: Vec<Vec<String>> = std::iter::once(heading).chain(self.rows.iter().cloned()).collect();
        aligned(&rows)
    }
}
