//! Rows under headings, for people.

use std::fmt;

/// A table: every column is as wide as its widest cell.
#[derive(Debug)]
pub struct TextTable {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Without rows yet.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// One more row: a cell for each heading.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([self.headings[column].len()]).max().unwrap_or_default()
    }

    /// A column in which every cell is a number, or nothing: it stands to the right.
    fn is_of_numbers(&self, column: usize) -> bool {
        let is_number = |cell: &String| cell.starts_with(|letter: char| letter.is_ascii_digit()) || cell == "-";
        let mut cells = self.rows.iter().filter_map(|row| row.get(column)).peekable();
        cells.peek().is_some() && cells.all(is_number)
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<(usize, bool)> =
            (0..self.headings.len()).map(|column| (self.width(column), self.is_of_numbers(column))).collect();
        let headings: Vec<String> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let cells = row.iter().zip(&columns).map(|(cell, (width, of_numbers))| match of_numbers {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A time that has passed, in two units at most: `3h 12m`.
pub fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h"),
    }
}

/// The time of day, UTC, of a time in seconds since 1970.
pub fn clock(unix_time: u64) -> String {
    let second = unix_time % 86_400;
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// A number that may not be known.
pub fn or_dash<T: ToString>(number: Option<T>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// Bytes in three digits: `44M`, `1.2G`.
pub fn bytes(count: u64) -> String {
    let mib = count as f64 / f64::from(1 << 20);
    match mib {
        mib if mib >= 1000.0 => format!("{:.1}G", mib / 1024.0),
        mib if mib >= 10.0 => format!("{mib:.0}M"),
        mib => format!("{mib:.1}M"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_numbers_stand_to_the_right() {
        let mut table = TextTable::new(&["SLOT", "STATE", "PID"]);
        table.row(["0".into(), "ready".into(), "-".into()]);
        table.row(["12".into(), "ready, drained".into(), "4711".into()]);
        let expected = "SLOT  STATE            PID\n   0  ready              -\n  12  ready, drained  4711\n";
        assert_eq!(table.to_string(), expected);
        assert_eq!(TextTable::new(&["A", "B"]).to_string(), "A  B\n");
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        for (seconds, text) in [
            (-1.0, "0s"),
            (59.9, "59s"),
            (61.0, "1m 01s"),
            (3600.0, "1h 00m"),
            (86_399.0, "23h 59m"),
            (90_000.0, "1d 01h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
