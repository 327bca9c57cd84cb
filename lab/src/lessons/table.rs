//! The table at the end.

use super::Half;

/// The halves as a table, a line each, with a heading.
#[must_use]
pub fn table(halves: &[Half]) -> String {
    let heading = HEADING.map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(halves.iter().map(|half| row(half).to_vec())).collect();
    aligned(&rows)
}

/// Rows in columns, the first one a heading: texts to the left, numbers (and what stands for one) to the right; what the
/// first column repeats stands once.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or_default())
        .collect();
    let is_number = |column: usize| {
        let mut cells = rows.iter().skip(1).map(|row| cell(row, column)).peekable();
        cells.peek().is_some() && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()) || cell == "–")
    };
    let numbers: Vec<bool> = (0..columns).map(is_number).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let again = number > 1 && cell(row, 0) == cell(&rows[number - 1], 0);
        for (column, width) in widths.iter().enumerate() {
            let cell = if column == 0 && again { String::new() } else { cell(row, column) };
            let pad = " ".repeat(width - cell.chars().count());
            let (before, after) = if numbers[column] { (pad.as_str(), "") } else { ("", pad.as_str()) };
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
