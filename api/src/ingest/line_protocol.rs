//! InfluxDB's line protocol: `measurement,tag=value field=1,other=2i 1510581804179554816`.
//!
//! A body comes in; out come its lines one by one, borrowing from it where nothing was escaped. A line that cannot be
//! read is told with its number and does not take the others with it. What measurement, tags and fields mean to a store
//! this file does not know.

use std::borrow::Cow;

/// Tags and fields of one line together; wider lines are mistakes.
const PAIRS_MAX: usize = 10_000;

/// A value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FieldValue {
    /// A number; integers beyond 2^53 lose their last digits, as in every store of doubles.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A text, which is no measure.
    Text,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line<'a> {
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) measurement: Cow<'a, str>,
    pub(crate) tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(crate) fields: Vec<(Cow<'a, str>, FieldValue)>,
    /// In the unit that the request says.
    pub(crate) timestamp: Option<i64>,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: {what}")]
pub(crate) struct LineError {
    /// Counted from 1.
    pub(crate) number: usize,
    /// What is wrong with it.
    pub(crate) what: &'static str,
}

/// Reads the lines of a body; empty ones and comments are passed over.
pub(crate) struct Lines<'a> {
    text: &'a str,
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The lines of a text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, number: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Whether a line ends here.
    fn is_at_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n' | b'\r'))
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        self.at = memchr::memchr(b'\n', &self.text.as_bytes()[self.at..]).map_or(self.text.len(), |end| self.at + end);
    }

    /// Text up to one of `ends` that is not escaped.
    fn name(&mut self, ends: &[u8]) -> Result<Cow<'a, str>, &'static str> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut is_escaped = false;
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b'\n' | b'\r' => break,
                b'\\' if matches!(bytes.get(self.at + 1), Some(b',' | b' ' | b'=' | b'\\' | b'"')) => {
                    is_escaped = true;
                    self.at += 2;
                }
                byte if ends.contains(&byte) => break,
                _ => self.at += 1,
            }
        }
        if self.at == start {
            return Err("a name or a tag's value is missing");
        }
        let raw = &self.text[start..self.at];
        Ok(if is_escaped { Cow::Owned(unescaped(raw)) } else { Cow::Borrowed(raw) })
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), &'static str> {
        if self.peek() != Some(byte) {
            return Err(what);
        }
        self.at += 1;
        Ok(())
    }

    fn line(&mut self) -> Result<Line<'a>, &'static str> {
        let measurement = self.name(b", ")?;
        let mut tags = Vec::new();
        while self.peek() == Some(b',') {
            self.at += 1;
            let name = self.name(b"=, ")?;
            self.expect(b'=', "a tag has no value")?;
            tags.push((name, self.name(b", ")?));
            if tags.len() > PAIRS_MAX {
                return Err("it has too many tags");
            }
        }
        self.expect(b' ', "there are no fields")?;
        self.skip_spaces();
        let mut fields = Vec::new();
        loop {
            let name = self.name(b"=, ")?;
            self.expect(b'=', "a field has no value")?;
            fields.push((name, self.field_value()?));
            if fields.len() > PAIRS_MAX {
                return Err("it has too many fields");
            }
            if self.peek() != Some(b',') {
                break;
            }
            self.at += 1;
        }
        let mut timestamp = None;
        if self.peek() == Some(b' ') {
            self.skip_spaces();
            if !self.is_at_end() {
                timestamp = Some(self.token().parse().map_err(|_| "the time is not a number")?);
                self.skip_spaces();
            }
        }
        if !self.is_at_end() {
            return Err("there is more behind the time");
        }
        Ok(Line { number: self.number, measurement, tags, fields, timestamp })
    }

    /// Text up to a comma, a space or the end.
    fn token(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| matches!(byte, b',' | b' ' | b'\n' | b'\r')).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn field_value(&mut self) -> Result<FieldValue, &'static str> {
        if self.peek() == Some(b'"') {
            return self.quoted();
        }
        let token = self.token();
        match token {
            "t" | "T" | "true" | "True" | "TRUE" => return Ok(FieldValue::Boolean(true)),
            "f" | "F" | "false" | "False" | "FALSE" => return Ok(FieldValue::Boolean(false)),
            _ => {}
        }
        if let Some(digits) = token.strip_suffix('i') {
            return digits.parse::<i64>().map(|value| FieldValue::Number(value as f64)).map_err(|_| "not an integer");
        }
        if let Some(digits) = token.strip_suffix('u') {
            return digits.parse::<u64>().map(|value| FieldValue::Number(value as f64)).map_err(|_| "not an integer");
        }
        // Rust reads `inf` and `nan` as well, which are no numbers here.
        let is_number = token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        match token.parse::<f64>() {
            Ok(value) if is_number => Ok(FieldValue::Number(value)),
            _ => Err("a field's value is neither a number nor true, false or a text in quotes"),
        }
    }

    fn quoted(&mut self) -> Result<FieldValue, &'static str> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => return Ok(FieldValue::Text),
                b'\\' if self.at < bytes.len() => self.at += 1,
                b'\n' => self.number += 1,
                _ => {}
            }
        }
        Err("a text has no closing quote")
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.peek()?;
            self.number += 1;
            self.skip_spaces();
            if self.is_at_end() || self.peek() == Some(b'#') {
                self.skip_line();
                self.at = (self.at + 1).min(self.text.len());
                continue;
            }
            let number = self.number;
            let line = self.line().map(|line| Line { number, ..line });
            // A broken escape may stand in the middle of a character.
            while !self.text.is_char_boundary(self.at) {
                self.at += 1;
            }
            self.skip_line();
            self.at = (self.at + 1).min(self.text.len());
            return Some(line.map_err(|what| LineError { number, what }));
        }
    }
}

fn unescaped(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut characters = raw.chars().peekable();
    while let Some(character) = characters.next() {
        match characters.peek() {
            Some(&next @ (',' | ' ' | '=' | '\\' | '"')) if character == '\\' => {
                out.push(next);
                characters.next();
            }
            _ => out.push(character),
        }
    }
    out
}

/// The unit of a request's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    Minutes,
    Hours,
}

impl Precision {
    /// As InfluxDB 1 and 2 write it; nothing means nanoseconds.
    pub(crate) fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("ns") {
            "" | "n" | "ns" => Some(Self::Nanoseconds),
            "u" | "us" | "µ" | "µs" => Some(Self::Microseconds),
            "ms" => Some(Self::Milliseconds),
            "s" => Some(Self::Seconds),
            "m" => Some(Self::Minutes),
            "h" => Some(Self::Hours),
            _ => None,
        }
    }

    /// Microseconds since the epoch, cut towards the past; `None` if they do not fit.
    pub(crate) fn micros(self, timestamp: i64) -> Option<i64> {
        match self {
            Self::Nanoseconds => Some(timestamp.div_euclid(1000)),
            Self::Microseconds => Some(timestamp),
            Self::Milliseconds => timestamp.checked_mul(1000),
            Self::Seconds => timestamp.checked_mul(1_000_000),
            Self::Minutes => timestamp.checked_mul(60_000_000),
            Self::Hours => timestamp.checked_mul(3_600_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<Line<'_>, LineError>> {
        Lines::new(text).collect()
    }

    fn one(text: &str) -> Line<'_> {
        let mut lines = read(text);
        assert_eq!(lines.len(), 1, "{text}");
        lines.pop().expect("one").expect(text)
    }

    fn pair<'a, T>(name: &'a str, value: T) -> (Cow<'a, str>, T) {
        (Cow::Borrowed(name), value)
    }

    #[test]
    fn a_line_has_its_parts() {
        let line = one(
            "mymetric,host=foobar,mytag=myvalue field=123,b=43i,c=t,d=\"a, b=c\",e=-1.5e3,f=7u 1510581804179554816",
        );
        assert_eq!(line.measurement, "mymetric");
        assert_eq!(line.tags, [pair("host", Cow::Borrowed("foobar")), pair("mytag", Cow::Borrowed("myvalue"))]);
        let number = FieldValue::Number;
        let expected = [
            pair("field", number(123.0)),
            pair("b", number(43.0)),
            pair("c", FieldValue::Boolean(true)),
            pair("d", FieldValue::Text),
            pair("e", number(-1500.0)),
            pair("f", number(7.0)),
        ];
        assert_eq!(line.fields, expected);
        assert_eq!(line.timestamp, Some(1_510_581_804_179_554_816));
        assert!(matches!(line.measurement, Cow::Borrowed(_)));
        assert_eq!(one("cpu v=1").timestamp, None);
        assert_eq!(one("cpu  v=1  -5 ").timestamp, Some(-5));
    }

    #[test]
    fn escapes_are_undone_and_other_backslashes_stay() {
        let line = one(r#"my\ m\,x,a\=b=c\ d\,e\\,path=C:\dir f\ g=1"#);
        assert_eq!(line.measurement, "my m,x");
        assert_eq!(line.tags, [pair("a=b", Cow::from(r"c d,e\")), pair("path", Cow::from(r"C:\dir"))]);
        assert_eq!(line.fields[0].0, "f g");
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_takes_no_other_with_it() {
        let text = "# a comment\n\na v=1\nb\nc v=nan\r\nd v=\"two\nlines\",w=2\r\ne v=1 x\nf v=1 1 1\ng,t v=1\n,x=y v=1\nh v=\nlast v=1";
        let lines = read(text);
        let names: Vec<_> = lines.iter().flatten().map(|line| (line.number, &*line.measurement)).collect();
        assert_eq!(names, [(3, "a"), (6, "d"), (13, "last")]);
        let errors: Vec<_> = lines.iter().filter_map(|line| line.as_ref().err()).map(|error| error.number).collect();
        assert_eq!(errors, [4, 5, 8, 9, 10, 11, 12]);
        assert_eq!(lines[1].as_ref().expect_err("b").to_string(), "line 4: there are no fields");
    }

    #[test]
    fn any_text_is_read_to_its_end() {
        // Every cut of a text with everything in it, characters of several bytes included.
        let text = "mé\\ x,täg=\\é vä=\"q\\\"é\",w=1i 5\n\\";
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let _ = read(&text[..end]);
        }
        assert!(read("a v=\"open").pop().expect("one").is_err());
    }

    #[test]
    fn times_have_a_unit() {
        let of = |text| Precision::parse(text).and_then(|precision| precision.micros(1_500));
        assert_eq!(of(None), Some(1));
        assert_eq!(of(Some("u")), Some(1_500));
        assert_eq!(of(Some("ms")), Some(1_500_000));
        assert_eq!(of(Some("h")), Some(5_400_000_000_000));
        assert_eq!(of(Some("weeks")), None);
        assert_eq!(Precision::Hours.micros(i64::MAX), None);
        assert_eq!(Precision::Nanoseconds.micros(-1), Some(-1));
    }
}
