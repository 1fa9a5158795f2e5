//! Posted measures read straight into a column, without a tree in between. Pure.
//!
//! This reads the shape that clients send: objects with `timestamp` and `value`, texts without escapes, times that are
//! all dates or all seconds. Whatever else there is gives `None`; then the body is read again, slowly, by the rules and
//! with the words of `posted.rs`. What is read here means the same there.

use orzo_index::spans::{MEASURE_MICROS_MAX, time_of_seconds};
use orzo_model::{Measure, Timestamp};
use orzo_query::{MeasuresColumn, NamedMetric};
use uuid::Uuid;

/// Days from the first of March of the year 0 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// `{metric id: measures}`.
pub(super) fn by_metric(body: &str) -> Option<(Vec<Uuid>, MeasuresColumn)> {
    let mut scanner = Scanner::new(body);
    let (mut ids, mut column) = (Vec::new(), MeasuresColumn::default());
    scanner.object(|scanner, id| {
        ids.push(Uuid::try_parse(id).ok()?);
        scanner.measures(&mut column)
    })?;
    scanner.end()?;
    Some((ids, column))
}

/// `{resource: {metric name: measures, or {"measures", "archive_policy_name", "unit"}}}`.
pub(super) fn by_resource(body: &str) -> Option<(Vec<NamedMetric>, MeasuresColumn)> {
    let mut scanner = Scanner::new(body);
    let (mut metrics, mut column) = (Vec::new(), MeasuresColumn::default());
    scanner.object(|scanner, resource| {
        scanner.object(|scanner, name| {
            let mut metric =
                NamedMetric { resource: resource.to_owned(), name: name.to_owned(), ..NamedMetric::default() };
            if name.contains('/') {
                return None;
            }
            if scanner.peek() == Some(b'[') {
                scanner.measures(&mut column)?;
            } else {
                let mut has_measures = false;
                scanner.object(|scanner, key| {
                    match key {
                        "measures" if !has_measures => {
                            has_measures = true;
                            scanner.measures(&mut column)?;
                        }
                        "archive_policy_name" => metric.archive_policy_name = Some(scanner.text()?.to_owned()),
                        "unit" => {
                            let unit = scanner.text()?;
                            (unit.len() <= super::body::UNIT_CHARACTERS_MAX).then_some(())?;
                            metric.unit = Some(unit.to_owned());
                        }
                        _ => return None,
                    }
                    Some(())
                })?;
                has_measures.then_some(())?;
            }
            metrics.push(metric);
            Some(())
        })
    })?;
    scanner.end()?;
    Some((metrics, column))
}

/// Measures of one metric.
pub(super) fn measures(body: &str) -> Option<Vec<Measure>> {
    let mut scanner = Scanner::new(body);
    let mut column = MeasuresColumn::default();
    scanner.measures(&mut column)?;
    scanner.end()?;
    Some(column.measures)
}

/// How the times of one list are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Seconds,
    Date,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.byte()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// A text without escapes and control characters.
    fn text(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
        (rest[length] == b'"').then_some(())?;
        let text = self.text.get(self.at..self.at + length)?;
        self.at += length + 1;
        Some(text)
    }

    /// `{key: ..., key: ...}`; `value` reads what stands behind each key.
    fn object(&mut self, mut value: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.peek()? == b'}' {
            return self.take(b'}');
        }
        loop {
            let key = self.text()?;
            self.take(b':')?;
            value(self, key)?;
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.take(b'}'),
            }
        }
    }

    /// A number in JSON's grammar.
    fn number(&mut self) -> Option<f64> {
        self.peek()?;
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.digits();
        let is_leading_zero = whole > 1 && self.text.as_bytes()[self.at - whole] == b'0';
        if whole == 0 || is_leading_zero {
            return None;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            (self.digits() > 0).then_some(())?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            (self.digits() > 0).then_some(())?;
        }
        // A number too large for a double is refused by the slow reader.
        self.text[start..self.at].parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// How many digits stand here; they are passed.
    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// `[{"timestamp": T, "value": V}, ...]` of one metric.
    fn measures(&mut self, column: &mut MeasuresColumn) -> Option<()> {
        self.take(b'[')?;
        if self.peek()? == b']' {
            column.end_metric();
            return self.take(b']');
        }
        let mut form = None;
        loop {
            let (mut time, mut number) = (None, None);
            self.object(|scanner, key| {
                match key {
                    "timestamp" if time.is_none() => time = Some(scanner.time(&mut form)?),
                    "value" if number.is_none() => number = Some(scanner.number()?),
                    _ => return None,
                }
                Some(())
            })?;
            column.measures.push(Measure { timestamp: time?, value: number? });
            match self.peek()? {
                b',' => self.at += 1,
                _ => break,
            }
        }
        column.end_metric();
        self.take(b']')
    }

    fn time(&mut self, form: &mut Option<Form>) -> Option<Timestamp> {
        let (time, found) = match self.peek()? {
            b'"' => (date(self.text()?)?, Form::Date),
            _ => (time_of_seconds(self.number()?).ok()?, Form::Seconds),
        };
        (*form.get_or_insert(found) == found && time.micros() <= MEASURE_MICROS_MAX).then_some(time)
    }
}

/// `YYYY-MM-DDTHH:MM:SS[.fraction][Z|±HH:MM]`, not before 1970.
fn date(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let two = |at: usize| -> Option<i64> {
        let (tens, ones) = (bytes.get(at)?.wrapping_sub(b'0'), bytes.get(at + 1)?.wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    let separated = is(4, b"-") && is(7, b"-") && is(10, b"T ") && is(13, b":") && is(16, b":");
    separated.then_some(())?;
    let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 31,
    };
    let is_time = hour < 24 && minute < 60 && second < 60;
    (year >= 1970 && (1..=12).contains(&month) && (1..=days_in_month).contains(&day) && is_time).then_some(())?;
    let mut at = 19;
    let mut micros = 0;
    if is(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        (1..=9).contains(&digits).then_some(())?;
        // What is finer than a microsecond is cut.
        for place in 0..6 {
            let digit = if place < digits { i64::from(bytes[at + 1 + place] - b'0') } else { 0 };
            micros = micros * 10 + digit;
        }
        at += 1 + digits;
    }
    let offset_s = match &bytes[at..] {
        b"" | b"Z" | b"+00:00" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two(at + 1)?, two(at + 4)?);
            (hours < 24 && minutes < 60).then_some(())?;
            if *sign == b'-' { -(hours * 3600 + minutes * 60) } else { hours * 3600 + minutes * 60 }
        }
        _ => return None,
    };
    // Days by Hinnant's algorithm: years begin in March, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year / 400 * 146_097 + year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + day_of_year - EPOCH_DAYS;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    (seconds >= 0).then(|| Timestamp::from_micros(seconds * 1_000_000 + micros))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::posted;
    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    #[test]
    fn the_common_shape_is_read_and_everything_else_is_left_to_the_slow_reader() {
        let read = measures(
            r#" [ {"timestamp": "2015-03-06T14:33:57", "value": 43.1}, {"value":-12e1 ,"timestamp":
            "2015-03-06T14:34:12.1234567+01:00"} ] "#,
        );
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        assert_eq!(
            read,
            Some(vec![
                Measure { timestamp: time("2015-03-06T14:33:57"), value: 43.1 },
                Measure { timestamp: time("2015-03-06T13:34:12.123456"), value: -120.0 },
            ])
        );
        assert_eq!(measures("[]"), Some(vec![]));
        for body in [
            r#"[{"timestamp": 1, "value": "3"}]"#,
            r#"[{"timestamp": 1, "value": NaN}]"#,
            r#"[{"timestamp": 1, "value": 01}]"#,
            r#"[{"timestamp": 1, "value": 1.}]"#,
            r#"[{"timestamp": 1, "value": 1, "unit": "B"}]"#,
            r#"[{"timestamp": 1, "value": 1}, {"timestamp": "2015-03-06T14:33:57", "value": 1}]"#,
            r#"[{"timestamp": "-1 minute", "value": 1}]"#,
            r#"[{"timestamp": "2015-02-29T14:33:57", "value": 1}]"#,
            r#"[{"timestamp": "2015-03-06T24:00:00", "value": 1}]"#,
            r#"[{"timestamp": "1969-12-31T23:59:59", "value": 1}]"#,
            r#"[{"timestamp": "2015-03-06T14:33:5\u0037", "value": 1}]"#,
            r#"[{"timestamp": 1, "value": 1}] x"#,
            r#"[{"timestamp": 1}]"#,
            r#"[{"timestamp": 1, "value": 1},]"#,
            "[",
            "1",
        ] {
            assert_eq!(measures(body), None, "{body}");
        }
        assert!(by_resource(r#"{"vm": {"cpu": {"unit": "B"}}}"#).is_none(), "no measures");
    }

    fn posted_measures() -> impl Strategy<Value = Value> {
        let seconds = prop::collection::vec((0.0f64..4e9, any::<f64>()), 0..5);
        let dates = prop::collection::vec((0i64..4_000_000_000_000_000, -1e9f64..1e9, 0u8..4), 0..5);
        let value = |number: f64| if number.is_finite() { json!(number) } else { json!(0) };
        prop_oneof![
            seconds.prop_map(move |rows| {
                rows.into_iter().map(|(time, number)| json!({"timestamp": time, "value": value(number)})).collect()
            }),
            dates.prop_map(move |rows| {
                let text = |micros, form| {
                    let time = Timestamp::from_micros(micros);
                    match form {
                        0 => time.isoformat(),
                        1 => time.zulu_micros(),
                        2 => time.naive(),
                        _ => time.to_chrono().format("%Y-%m-%d %H:%M:%S").to_string(),
                    }
                };
                rows.into_iter()
                    .map(|(time, number, form)| json!({"timestamp": text(time, form), "value": value(number)}))
                    .collect()
            }),
        ]
    }

    proptest! {
        #[test]
        fn both_readers_read_the_same(
            lists in prop::collection::vec(posted_measures(), 0..4),
            spaces in any::<bool>(),
        ) {
            let text = |json: &Value| match spaces {
                true => serde_json::to_string_pretty(json).expect("text"),
                false => json.to_string(),
            };
            let by_id: serde_json::Map<String, Value> = lists
                .iter()
                .enumerate()
                .map(|(place, list)| (Uuid::from_u128(place as u128).to_string(), list.clone()))
                .collect();
            let body = Value::Object(by_id);
            let fast = by_metric(&text(&body)).expect("the common shape");
            prop_assert_eq!(fast, posted::slow_by_metric(&body, NOW).expect("measures"));
            let by_name: serde_json::Map<String, Value> = lists
                .iter()
                .enumerate()
                .map(|(place, list)| match place % 2 {
                    0 => (format!("m{place}"), list.clone()),
                    _ => (format!("m{place}"), json!({"measures": list, "unit": "B", "archive_policy_name": "low"})),
                })
                .collect();
            let body = json!({"vm": by_name});
            let fast = by_resource(&text(&body)).expect("the common shape");
            prop_assert_eq!(fast, posted::slow_by_resource(&body, NOW).expect("measures"));
        }

        #[test]
        fn no_text_breaks_the_reader_and_what_it_reads_the_slow_one_reads_too(
            text in "[\\[\\]{}\":,0-9a-z .\\-TZ+]{0,60}",
        ) {
            if let Some(fast) = measures(&text) {
                let json: Value = serde_json::from_str(&text).expect("JSON");
                prop_assert_eq!(fast, posted::slow_measures(&json, NOW).expect("measures"));
            }
        }
    }
}
