//! What the user sees: tables and colors on a terminal, plain lines and JSON elsewhere.

use std::io::{self, IsTerminal, Write};

use console::{measure_text_width, style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Prints a line.
///
/// # Errors
/// When standard output cannot be written.
pub fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints a line about the work, apart from its result.
pub fn note(text: &str) {
    // Nothing is lost when nobody listens.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a line about work that begins, where no bar shows it.
pub fn begin(text: &str) {
    if !io::stderr().is_terminal() {
        note(text);
    }
}

/// Prints a value as JSON.
///
/// # Errors
/// When standard output cannot be written.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// Prints rows: aligned under a header on a terminal, separated by tabs and bare elsewhere.
///
/// # Errors
/// When standard output cannot be written.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let stdout = io::stdout();
    let on_terminal = stdout.is_terminal();
    let mut out = stdout.lock();
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|c| clean(c)))
        .collect();
    if !on_terminal {
        return rows
            .iter()
            .try_for_each(|row| writeln!(out, "{}", row.join("\t")));
    }
    let width = |i: usize| {
        let cells = rows.iter().map(|row| measure_text_width(&row[i]));
        cells
            .chain([measure_text_width(header[i])])
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    writeln!(out, "{}", style(aligned(&header, &widths)).bold())?;
    rows.iter().try_for_each(|row| {
        let cells = row.each_ref().map(String::as_str);
        writeln!(out, "{}", aligned(&cells, &widths))
    })
}

fn aligned<const N: usize>(cells: &[&str; N], widths: &[usize; N]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(
            ' ',
            width + 2 - measure_text_width(cell),
        ));
    }
    text.trim_end().to_owned()
}

/// A file may have a line break or an escape sequence in its name; the terminal must not see it.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// A bar with rate and time left, drawn on a terminal only.
pub fn progress(what: &'static str, total: usize) -> ProgressBar {
    let template = "{msg:20} [{bar:30}] {human_pos}/{human_len}  {per_sec}  {eta} left";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total as u64).with_style(style.progress_chars("=> "));
    bar.set_message(what);
    bar
}

/// `12345` as `12,345`.
pub fn count(n: usize) -> String {
    indicatif::HumanCount(n as u64).to_string()
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Transparent errors repeat what their source says.
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_under_wide_characters() {
        let widths = [4, 1];
        assert_eq!(aligned(&["\u{1f600}", "a"], &widths), "\u{1f600}    a");
        assert_eq!(aligned(&["abcd", "a"], &widths), "abcd  a");
    }

    #[test]
    fn a_file_name_cannot_speak_to_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
