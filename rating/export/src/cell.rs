//! A value of a table, and how it is written in text.

use orzo_model::Timestamp;
use orzo_rating::BigDecimal;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Nothing.
    Null,
    /// Text, which may be anybody's.
    Text(String),
    /// A number.
    Decimal(BigDecimal),
    /// A moment.
    Time(Timestamp),
    /// A count.
    Integer(i64),
}

/// What kind of values a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Text,
    /// Decimals.
    Decimal,
    /// Moments.
    Time,
    /// Counts.
    Integer,
}

impl Cell {
    /// Text, or nothing where it is empty.
    pub(crate) fn text(text: &str) -> Self {
        if text.is_empty() { Self::Null } else { Self::Text(text.to_owned()) }
    }

    /// As a spreadsheet's cell: what it would execute begins with an apostrophe, which it takes as "this is text".
    pub(crate) fn for_sheet(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => defused(text),
            Self::Decimal(number) => plain(number),
            Self::Time(time) => time.zulu_secs(),
            Self::Integer(count) => count.to_string(),
        }
    }
}

/// Texts that spreadsheets take for formulas, made texts again.
pub(crate) fn defused(text: &str) -> String {
    let is_formula = text.trim_start().starts_with(['=', '+', '-', '@', '\t', '\r', '|', '%'])
        || text.starts_with(['\t', '\r', '\n']);
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

/// A number without exponent, with a point, so that no reader takes a column of whole prices for integers.
pub(crate) fn plain(number: &BigDecimal) -> String {
    let text = number.normalized().to_plain_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// A number as JSON takes it, with all its digits. (Written by hand: a number of any length is none of serde's.)
pub(crate) fn json_number(number: &BigDecimal) -> String {
    number.normalized().to_plain_string()
}

/// A text as JSON.
pub(crate) fn json_text(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_execute_is_text() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =cmd|' /C calc'!A0", "|x", "\n=1"] {
            assert!(defused(text).starts_with('\''), "{text:?}");
        }
        for text in ["web-1", "a=b", "", "10.0.0.1", "ü"] {
            assert_eq!(defused(text), text);
        }
    }

    #[test]
    fn numbers_are_plain() {
        for (text, expected) in
            [("1", "1.0"), ("1e3", "1000.0"), ("0.10", "0.1"), ("-2.5e-8", "-0.000000025"), ("0", "0.0")]
        {
            assert_eq!(plain(&text.parse().expect("a number")), expected);
        }
    }
}
