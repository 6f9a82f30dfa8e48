//! Sizes below each other, and a name behind them.

use std::fmt::Display;
use std::io::{self, Write};

use indicatif::HumanBytes;

use crate::command::list::one_line;

/// A column of sizes: `≤1023.99 MiB` is the longest.
const WIDTH: usize = 12;

/// A size as it stands in a column.
pub(in crate::command) fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        bytes => HumanBytes(bytes).to_string(),
    }
}

/// Titles, and what the lines below are.
pub(in crate::command) fn head(titles: &[&str], last: &str, out: &mut impl Write) -> io::Result<()> {
    titles.iter().try_for_each(|title| write!(out, "{title:>WIDTH$}"))?;
    writeln!(out, "  {last}")
}

/// One line. The name stands last, where it may be as long as it is; it may come from a database, so it must not drive the terminal.
pub(in crate::command) fn line(cells: &[String], name: impl Display, out: &mut impl Write) -> io::Result<()> {
    cells.iter().try_for_each(|cell| write!(out, "{cell:>WIDTH$}"))?;
    writeln!(out, "  {}", one_line(&name.to_string()))
}
