//! Numbers and durations of a text, before the parser sees it: what Prometheus takes and the parser does not is written so
//! that it does, and what the parser would choke on is refused by name.

use std::borrow::Cow;

/// Prometheus counts a duration's nanoseconds in 63 bits: 292 years.
const DURATION_SECONDS_MAX: f64 = 9_223_372_036.0;
/// The units of durations, as they must follow each other, and their milliseconds.
const UNITS: [(&str, f64); 7] = [
    ("y", 31_536_000_000.0),
    ("w", 604_800_000.0),
    ("d", 86_400_000.0),
    ("h", 3_600_000.0),
    ("m", 60_000.0),
    ("s", 1_000.0),
    ("ms", 1.0),
];

/// Where in a text a number stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// A value among others.
    Value,
    /// Behind `offset`.
    Offset,
    /// A range or a resolution.
    Brackets,
}

/// The text with its numbers as the parser knows them: `1_000` without underscores, a duration of nothing as `0`.
pub(crate) fn prepared(text: &str) -> Result<Cow<'_, str>, String> {
    let mut out = String::with_capacity(text.len());
    let (mut quote, mut escaped, mut is_comment) = (None, false, false);
    let (mut brackets, mut is_offset) = (0_usize, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut end = c.len_utf8();
        if let Some(open) = quote {
            quote = quote.filter(|_| escaped || c != open);
            escaped = !escaped && c == '\\' && open != '`';
        } else if is_comment || c == '#' {
            is_comment = c != '\n';
        } else if matches!(c, '"' | '\'' | '`') {
            quote = Some(c);
        } else if is_part(c, brackets > 0) {
            end = word_end(rest, brackets > 0);
            let word = &rest[..end];
            let place = match (brackets, is_offset) {
                (0, false) => Place::Value,
                (0, true) => Place::Offset,
                _ => Place::Brackets,
            };
            is_offset = word.eq_ignore_ascii_case("offset");
            match written(word, place)? {
                Some(word) => out.push_str(&word),
                None => out.push_str(word),
            }
            rest = &rest[end..];
            continue;
        } else {
            brackets = match c {
                '[' => brackets + 1,
                ']' => brackets.saturating_sub(1),
                _ => brackets,
            };
            // A sign may stand between `offset` and its duration.
            is_offset &= c.is_whitespace() || matches!(c, '+' | '-');
        }
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    Ok(if out == text { text.into() } else { out.into() })
}

/// Names may hold colons; between brackets they part a range from its resolution.
fn is_part(c: char, in_brackets: bool) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.') || c == ':' && !in_brackets
}

/// Where a word ends; an exponent's sign belongs to its number.
fn word_end(rest: &str, in_brackets: bool) -> usize {
    let end_from = |from: usize| rest[from..].find(|c| !is_part(c, in_brackets)).map_or(rest.len(), |at| from + at);
    let end = end_from(0);
    let word = &rest[..end];
    let is_hexadecimal = word.starts_with("0x") || word.starts_with("0X");
    let mantissa = word.strip_suffix(['e', 'E']).filter(|part| !is_hexadecimal && part.starts_with(is_start));
    let has_digits = mantissa.is_some_and(|part| part.chars().all(|c| is_start(c) || c == '_'));
    let mut behind = rest[end..].chars();
    match (behind.next(), behind.next()) {
        (Some('+' | '-'), Some(digit)) if has_digits && digit.is_ascii_digit() => end_from(end + 1),
        _ => end,
    }
}

fn is_start(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

/// A number or duration as the parser knows it; `None` if it is left as it is, or is something else.
fn written(word: &str, place: Place) -> Result<Option<String>, String> {
    if place == Place::Offset && matches!(word.to_ascii_lowercase().as_str(), "inf" | "nan") {
        return Err("duration out of range".to_owned());
    }
    if !word.starts_with(is_start) {
        return Ok(None);
    }
    if let Some(milliseconds) = duration(word) {
        check_duration(milliseconds / 1e3, place)?;
        return Ok((milliseconds == 0.0).then(|| "0".to_owned()));
    }
    let plain = has_underscores(word).then(|| word.replace('_', ""));
    let Ok(number) = plain.as_deref().unwrap_or(word).parse::<f64>() else { return Ok(plain) };
    if place != Place::Value {
        check_duration(number, place)?;
    } else if number.is_infinite() {
        return Err(format!("number out of range: {word}"));
    }
    Ok(plain)
}

fn check_duration(seconds: f64, place: Place) -> Result<(), String> {
    if seconds > DURATION_SECONDS_MAX {
        return Err("duration out of range".to_owned());
    }
    match seconds == 0.0 && place == Place::Brackets {
        true => Err("duration must be greater than 0".to_owned()),
        false => Ok(()),
    }
}

/// The milliseconds of a duration such as `1h30m`.
fn duration(word: &str) -> Option<f64> {
    let (mut rest, mut units, mut sum) = (word, UNITS.as_slice(), 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let count: f64 = rest[..digits].parse().ok()?;
        let behind = &rest[digits..];
        let unit = &behind[..behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len())];
        let at = units.iter().position(|(name, _)| *name == unit)?;
        sum += count * units[at].1;
        (rest, units) = (&behind[unit.len()..], &units[at + 1..]);
    }
    Some(sum)
}

/// A number, decimal or hexadecimal, with single underscores between digits.
fn has_underscores(word: &str) -> bool {
    let hexadecimal = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let digits = hexadecimal.map_or(word, |digits| digits.strip_prefix('_').unwrap_or(digits));
    let is_digit = |c: char| if hexadecimal.is_some() { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
    let is_part = |c: char| is_digit(c) || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    let starts_and_ends = |part: &str| part.starts_with(is_digit) && part.ends_with(is_digit);
    word.contains('_') && digits.split('_').all(|part| starts_and_ends(part) && part.chars().all(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_parser_knows_them_and_nothing_else_is() {
        for (text, expected) in [
            ("up offset 0s + 0h0m", "up offset 0 + 0"),
            ("a:0s[5m:30s] - 1_0e-1_0", "a:0s[5m:30s] - 10e-10"),
            ("x{l=\"0s 1_0\"} # 0s\n * 0s", "x{l=\"0s 1_0\"} # 0s\n * 0"),
            ("a0s + rate(b[1h30m] offset -0s)", "a0s + rate(b[1h30m] offset -0)"),
            ("0xfe-1 + 1e-3 + 5m", "0xfe-1 + 1e-3 + 5m"),
        ] {
            assert_eq!(prepared(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_too_long_or_nothing_is_refused_and_no_panic_of_the_parser() {
        for (text, expected) in [
            ("up[1e30]", "duration out of range"),
            ("up[5m:1e30]", "duration out of range"),
            ("up offset 1e30", "duration out of range"),
            ("up offset -1e+30", "duration out of range"),
            ("up offset inf", "duration out of range"),
            ("up OFFSET NaN", "duration out of range"),
            ("up[293y]", "duration out of range"),
            ("up[99999999999999999999y]", "duration out of range"),
            ("up[0]", "duration must be greater than 0"),
            ("up[5m:0s]", "duration must be greater than 0"),
            ("1e400", "number out of range: 1e400"),
        ] {
            assert_eq!(prepared(text), Err(expected.to_owned()), "{text}");
        }
        assert!(prepared("inf + nan + up offset 292y").is_ok());
    }
}
