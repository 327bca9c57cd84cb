//! The table at the end.

use super::Half;

/// The halves as a table, a line each, with a heading.
#[must_use]
pub fn table(halves: &[Half]) -> String {
    let heading = HEADING.map(str::to_owned);
    let rows: Vec<[String; COLUMNS]> = std::iter::once(heading).chain(halves.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for (number, cells) in rows.iter().enumerate() {
        // The name of a lesson stands once.
        let again = number > 1 && cells[0] == rows[number - 1][0];
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let cell = if column == 0 && again { "" } else { cell };
            let pad = " ".repeat(width - cell.chars().count());
            let is_number = (2..COLUMNS - 1).contains(&column);
            let (before, after) = if is_number { (pad.as_str(), "") } else { ("", pad.as_str()) };
            text.push_str(&format!("{before}{cell}{after}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn row(half: &Half) -> [String; COLUMNS] {
    let figures = half.figures();
    [
        half.lesson.to_owned(),
        half.setting.to_owned(),
        figures.sent.to_string(),
        figures.confirmed.map_or("–".to_owned(), |confirmed| confirmed.to_string()),
        figures.handled.to_string(),
        figures.lost.to_string(),
        figures.doubled.to_string(),
        figures.out_of_order.to_string(),
        figures.dead.to_string(),
        half.done.to_owned(),
    ]
}

const COLUMNS: usize = 10;
const HEADING: [&str; COLUMNS] =
    ["lesson", "half", "sent", "confirmed", "handled", "lost", "doubled", "out of order", "dead", "what was done"];
