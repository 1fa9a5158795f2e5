//! What is shown in a terminal: lines that are never wider than it, columns that go where there is no room, and numbers
//! for people.
//!
//! All but [`size`] is pure. Widths are columns of the terminal; a wide character takes two.

use std::io::IsTerminal;

use unicode_width::UnicodeWidthStr;

/// Spaces between two columns.
pub(super) const GAP: usize = 2;
/// Of a terminal that does not say how large it is.
const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// A column of a table.
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Where there is no room the column with the largest rank goes first.
    pub(super) rank: usize,
    /// A text, of which at least so many columns are shown; without it a number, which is shown whole.
    pub(super) text_least: Option<usize>,
}

/// Columns and lines of the terminal that standard output is; `None` if it is none.
pub(super) fn size() -> Option<(usize, usize)> {
    let stdout = std::io::stdout();
    let size = || terminal_size::terminal_size_of(&stdout);
    stdout.is_terminal().then(|| size().map_or(SIZE_DEFAULT, |(width, height)| (width.0.into(), height.0.into())))
}

/// A text within so many columns; an ellipsis stands for what is cut off. Control characters, which a terminal would obey,
/// are replaced.
pub(super) fn fit(text: &str, width: usize) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let text: String = text.chars().map(shown).collect();
    if text.width() <= width {
        return text;
    }
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    match ends.take_while(|end| text[..*end].width() < width).last() {
        Some(end) => format!("{}…", &text[..end]),
        None => "…".repeat(width.min(1)),
    }
}

/// A text in exactly so many columns.
pub(super) fn padded(text: &str, width: usize, is_right: bool) -> String {
    let text = fit(text, width);
    let spaces = " ".repeat(width.saturating_sub(text.width()));
    if is_right { spaces + &text } else { text + &spaces }
}

/// Parts with commas between them, on as many lines as they need.
pub(super) fn wrapped(parts: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        let comma = if place + 1 < parts.len() { "," } else { "" };
        let part = fit(&format!("{part}{comma}"), width);
        match lines.last_mut().filter(|line| line.width() + 1 + part.width() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(&part);
            }
            None => lines.push(part),
        }
    }
    lines
}

/// A line for the titles and one for each row, none wider than `width`.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let all = || std::iter::once(&titles).chain(rows);
    let wanted = |place: usize| all().filter_map(|row| row.get(place)).map(|cell| cell.width()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..columns.len()).map(wanted).collect();
    let least = |place: usize, wanted: usize| columns[place].text_least.map_or(wanted, |least| least.min(wanted));
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let gaps = |kept: &[usize]| GAP * kept.len().saturating_sub(1);
    while kept.len() > 1 && kept.iter().map(|&at| least(at, widths[at])).sum::<usize>() + gaps(&kept) > width {
        let last = kept.iter().copied().max_by_key(|&at| columns[at].rank);
        kept.retain(|&at| Some(at) != last);
    }
    // The longest texts give first.
    while kept.iter().map(|&at| widths[at]).sum::<usize>() + gaps(&kept) > width {
        let spare = |at: usize| widths[at].saturating_sub(least(at, widths[at]));
        match kept.iter().copied().filter(|&at| spare(at) > 0).max_by_key(|&at| widths[at]) {
            Some(at) => widths[at] -= 1,
            None => break,
        }
    }
    let line = |row: &Vec<String>| {
        let cells = kept.iter().map(|&at| {
            let cell = row.get(at).map_or("", String::as_str);
            padded(cell, widths[at].min(width), columns[at].text_least.is_none())
        });
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    all().map(line).collect()
}

/// The shortest beginnings of ids, of eight characters at least, that tell them apart as well as the ids do.
pub(super) fn short_ids(ids: &[&str]) -> Vec<String> {
    const LEAST: usize = 8;
    let distinct = |length: usize| {
        let cut = |id: &&str| id.chars().take(length).collect::<String>();
        ids.iter().map(cut).collect::<std::collections::BTreeSet<_>>().len()
    };
    let longest = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0);
    let length = (LEAST..longest).find(|length| distinct(*length) == distinct(longest)).unwrap_or(longest);
    ids.iter().map(|id| id.chars().take(length).collect()).collect()
}

/// Bytes: `812B`, `1.2KiB`, `16GiB`.
pub(super) fn bytes(value: f64) -> String {
    let (mut value, mut unit) = (value, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value.abs() < 999.5 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    // Three digits at most, and none after the point where there are two before it.
    let decimals = if value.abs() < 9.95 && unit != "B" { 1 } else { 0 };
    format!("{value:.decimals$}{unit}")
}

/// A number with four digits: `0.01235`, `98.2`, `12.35k`, `1.2e-7`.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 {
        return if size == 0.0 { "0".to_owned() } else { value.to_string() };
    }
    if !(0.01..1e15).contains(&size) {
        return format!("{value:.1e}");
    }
    let (value, unit) = match size {
        size if size < 1e4 => (value, ""),
        size if size < 1e6 => (value / 1e3, "k"),
        size if size < 1e9 => (value / 1e6, "M"),
        size if size < 1e12 => (value / 1e9, "G"),
        _ => (value / 1e12, "T"),
    };
    let decimals = (3 - value.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_columns_and_cannot_command_the_terminal() {
        assert_eq!(fit("web-1", 5), "web-1");
        assert_eq!(fit("web-01", 5), "web-…");
        // Wide characters take two columns.
        assert_eq!((fit("日本語", 5), fit("日本語", 6)), ("日本…".to_owned(), "日本語".to_owned()));
        assert_eq!((fit("abc", 1), fit("abc", 0)), ("…".to_owned(), String::new()));
        assert_eq!(fit("a\x1b[2Jb", 20), "a\u{fffd}[2Jb");
        assert_eq!((padded("a", 3, true), padded("a", 3, false)), ("  a".to_owned(), "a  ".to_owned()));
        let parts = ["a=1", "b=2", "a long one"].map(str::to_owned);
        assert_eq!(wrapped(&parts, 9), ["a=1, b=2,", "a long o…"]);
    }

    #[test]
    fn columns_go_by_rank_and_texts_are_cut_before() {
        let column = |title, rank, text_least| Column { title, rank, text_least };
        let columns = [column("name", 0, Some(4)), column("much", 1, None), column("more", 2, None)];
        let rows = [vec!["a long name".to_owned(), "1".to_owned(), "200".to_owned()]];
        assert_eq!(table(&columns, &rows, 80), ["name         much  more", "a long name     1   200"]);
        assert_eq!(table(&columns, &rows, 18), ["name    much  more", "a lon…     1   200"]);
        assert_eq!(table(&columns, &rows, 15), ["name       much", "a long n…     1"]);
        assert_eq!(table(&columns, &rows, 3), ["na…", "a …"]);
    }

    #[test]
    fn numbers_are_short_and_ids_as_long_as_they_must_be() {
        for (value, text) in [
            (0.0, "0"),
            (0.0123456, "0.01235"),
            (98.2, "98.2"),
            (1234.0, "1234"),
            (12_345.0, "12.35k"),
            (-2e6, "-2M"),
            (1.5e-7, "1.5e-7"),
            (3e20, "3.0e20"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(short(value), text);
        }
        for (value, text) in
            [(0.0, "0B"), (812.4, "812B"), (1000.0, "1.0KiB"), (12.6 * 1024.0, "13KiB"), (5e18, "4441PiB")]
        {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(short_ids(&["0123456789", "0123456789", "abcdefghij"]), ["01234567", "01234567", "abcdefgh"]);
        assert_eq!(short_ids(&["0123456789", "0123456788"]), ["0123456789", "0123456788"]);
    }
}
