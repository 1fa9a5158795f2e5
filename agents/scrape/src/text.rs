//! Prometheus' text format 0.0.4 and OpenMetrics 1, read line by line without a copy of the page: samples with their exemplars,
//! and what the page says of names (`# TYPE`, `# HELP`, `# UNIT`). Pure.

use std::borrow::Cow;

/// Labels of one line; a line with more is no exporter's.
const LABELS_MAX: usize = 256;

/// Which of the two forms a page is in: they write times differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Times in milliseconds.
    Text,
    /// Times in seconds, and an end that says so.
    OpenMetrics,
}

impl Form {
    /// By a page's content type.
    pub fn of(content_type: &str) -> Self {
        match content_type.trim_start().starts_with("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }
}

/// A sample as its line has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    /// Name of the metric.
    pub name: Cow<'a, str>,
    /// Names and values of the labels, in the line's order.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The value.
    pub value: f64,
    /// Milliseconds since the epoch, if the line says so.
    pub at_ms: Option<i64>,
    /// One observation behind it (OpenMetrics).
    pub exemplar: Option<LineExemplar<'a>>,
}

/// An exemplar as its line has it.
#[derive(Clone, Debug, PartialEq)]
pub struct LineExemplar<'a> {
    /// Names and values of its labels.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// What was observed.
    pub value: f64,
    /// Milliseconds since the epoch, if the line says so.
    pub at_ms: Option<i64>,
}

/// What a page says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark<'a> {
    /// Its type.
    Type(&'a str),
    /// What it is; backslashes as they stand.
    Help(&'a str),
    /// Its unit.
    Unit(&'a str),
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} cannot be read: {what}")]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Reads a page; `take` gets each sample, `tell` each name that something is said of. Whatever `take` says no to ends it.
pub fn read<'a, E: From<LineError>>(
    page: &'a str,
    form: Form,
    mut tell: impl FnMut(&'a str, Remark<'a>),
    mut take: impl FnMut(Line<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut has_ended = false;
    for (place, text) in page.split('\n').enumerate() {
        let wrong = |what| LineError { line: place + 1, what };
        let text = text.trim_end_matches('\r');
        if form == Form::OpenMetrics && has_ended && !text.is_empty() {
            return Err(wrong("there is more after the end").into());
        }
        if text.trim().is_empty() {
            continue;
        }
        if let Some(remark) = text.trim_start().strip_prefix('#') {
            has_ended |= remark.trim() == "EOF";
            if let Some((name, remark)) = remark_of(remark) {
                tell(name, remark);
            }
            continue;
        }
        take(Scan { rest: text.trim_start(), form }.line().map_err(wrong)?)?;
    }
    // A page that was cut short is told from a whole one.
    if form == Form::OpenMetrics && !has_ended {
        return Err(LineError { line: page.lines().count(), what: "it does not end with # EOF" }.into());
    }
    Ok(())
}

/// `TYPE name counter`; what is no such remark is a comment.
fn remark_of(text: &str) -> Option<(&str, Remark<'_>)> {
    let (word, rest) = text.trim_start().split_once([' ', '\t'])?;
    let rest = rest.trim_start();
    let (name, said) = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => rest.split_once([' ', '\t']).unwrap_or((rest, "")),
    };
    let said = said.trim();
    let remark = match word {
        "TYPE" => Remark::Type(said),
        "HELP" => Remark::Help(said),
        "UNIT" => Remark::Unit(said),
        _ => return None,
    };
    (!name.is_empty()).then_some((name, remark))
}

struct Scan<'a> {
    rest: &'a str,
    form: Form,
}

impl<'a> Scan<'a> {
    fn line(mut self) -> Result<Line<'a>, &'static str> {
        let mut name = Cow::Borrowed(self.word());
        let mut labels = Vec::new();
        self.blanks();
        if self.eat('{') {
            self.labels(&mut name, &mut labels)?;
        }
        if name.is_empty() {
            return Err("it has no name");
        }
        // An exemplar follows a `#`; it is no part of the sample.
        let (rest, exemplar) = match self.rest.split_once(" # ") {
            Some((rest, exemplar)) => (rest, Scan { rest: exemplar, form: self.form }.exemplar()),
            None => (self.rest, None),
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next().ok_or("it has no value")?.parse().map_err(|_| "its value is no number")?;
        let at_ms = words.next().map(|text| self.time(text)).transpose()?;
        match words.next() {
            Some(_) => Err("there is more after the time"),
            None => Ok(Line { name, labels, value, at_ms, exemplar }),
        }
    }

    /// `{labels} value [time]`. What is wrong with it takes nothing from its sample.
    fn exemplar(mut self) -> Option<LineExemplar<'a>> {
        let (mut name, mut labels) = (Cow::Borrowed("exemplar"), Vec::new());
        self.blanks();
        if !self.eat('{') {
            return None;
        }
        self.labels(&mut name, &mut labels).ok()?;
        let mut words = self.rest.split_ascii_whitespace();
        let value = words.next()?.parse().ok()?;
        let at_ms = words.next().map(|text| self.time(text)).transpose().ok()?;
        words.next().is_none().then_some(LineExemplar { labels, value, at_ms })
    }

    fn time(&self, text: &str) -> Result<i64, &'static str> {
        const WRONG: &str = "its time is no number";
        match self.form {
            Form::Text => text.parse().map_err(|_| WRONG),
            Form::OpenMetrics => {
                let seconds: f64 = text.parse().map_err(|_| WRONG)?;
                // A cast of a float saturates, and the store refuses what is no time.
                Some((seconds * 1000.0).round() as i64).filter(|_| seconds.is_finite()).ok_or(WRONG)
            }
        }
    }

    fn labels(
        &mut self,
        name: &mut Cow<'a, str>,
        labels: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<(), &'static str> {
        loop {
            self.blanks();
            if self.eat('}') {
                return Ok(());
            }
            if labels.len() >= LABELS_MAX {
                return Err("it has too many labels");
            }
            let is_quoted = self.rest.starts_with('"');
            let label = if is_quoted { self.quoted()? } else { Cow::Borrowed(self.word()) };
            if label.is_empty() {
                return Err("a label has no name");
            }
            self.blanks();
            if self.eat('=') {
                self.blanks();
                labels.push((label, self.quoted()?));
            } else if is_quoted && name.is_empty() {
                // A name that PromQL did not know before stands among the labels.
                *name = label;
            } else {
                return Err("a label has no value");
            }
            self.blanks();
            if !self.eat(',') && !self.rest.starts_with('}') {
                return Err("its labels do not end");
            }
        }
    }

    fn word(&mut self) -> &'a str {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, &'static str> {
        const OPEN: &str = "a text does not end";
        let text = self.rest.strip_prefix('"').ok_or("a label's value is no text")?;
        let mut out = String::new();
        let mut from = 0;
        let mut places = text.bytes().enumerate();
        while let Some((at, byte)) = places.next() {
            match byte {
                b'"' => {
                    self.rest = &text[at + 1..];
                    if from == 0 {
                        return Ok(Cow::Borrowed(&text[..at]));
                    }
                    out.push_str(&text[from..at]);
                    return Ok(Cow::Owned(out));
                }
                b'\\' => {
                    out.push_str(&text[from..at]);
                    match places.next().ok_or(OPEN)?.1 {
                        b'n' => out.push('\n'),
                        b'\\' => out.push('\\'),
                        b'"' => out.push('"'),
                        _ => return Err("a text has an unknown escape"),
                    }
                    from = at + 2;
                }
                _ => {}
            }
        }
        Err(OPEN)
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(page: &str, form: Form) -> Result<Vec<String>, LineError> {
        let mut out = Vec::new();
        let shown = |labels: &[(Cow<'_, str>, Cow<'_, str>)]| {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            labels.join("|")
        };
        let mut remarks = Vec::new();
        read(
            page,
            form,
            |name, remark| remarks.push(format!("{name} {remark:?}")),
            |line| {
                let exemplar = line
                    .exemplar
                    .as_ref()
                    .map(|one| format!(" # [{}] {} {:?}", shown(&one.labels), one.value, one.at_ms));
                let labels = shown(&line.labels);
                out.push(format!(
                    "{} [{labels}] {} {:?}{}",
                    line.name,
                    line.value,
                    line.at_ms,
                    exemplar.unwrap_or_default()
                ));
                Ok::<_, LineError>(())
            },
        )?;
        out.extend(remarks);
        Ok(out)
    }

    #[test]
    fn pages_are_read_in_both_forms() {
        let text = "# HELP up Whether.\n# TYPE up gauge\nup 1\n\nhits_total{a=\"x\",b=\"q\\\"\\\\\\n,}\",} 2.5e3 1700000000123\r\n\
                    up{} NaN\n  spaced { a = \"b\" } +Inf\n{\"dotted.name\",\"a b\"=\"c\"} -Inf\n";
        assert_eq!(
            lines(text, Form::Text).expect("a page"),
            [
                "up [] 1 None",
                "hits_total [a=x|b=q\"\\\n,}] 2500 Some(1700000000123)",
                "up [] NaN None",
                "spaced [a=b] inf None",
                "dotted.name [a b=c] -inf None",
                "up Help(\"Whether.\")",
                "up Type(\"gauge\")",
            ]
        );
        let open = "# TYPE took histogram\ntook_bucket{le=\"1\"} 4 1700000000.25 # {trace=\"x\"} 0.5 1\n# UNIT took s\n\
             took_count 4 # {a=\"b # c\"} 2\ntook_sum 1 # {a=\"} 1\n# EOF\n";
        assert_eq!(
            lines(open, Form::OpenMetrics).expect("a page"),
            [
                "took_bucket [le=1] 4 Some(1700000000250) # [trace=x] 0.5 Some(1000)",
                "took_count [] 4 None # [a=b # c] 2 None",
                "took_sum [] 1 None",
                "took Type(\"histogram\")",
                "took Unit(\"s\")",
            ]
        );
        assert_eq!(Form::of("application/openmetrics-text; version=1.0.0"), Form::OpenMetrics);
        assert_eq!(Form::of("text/plain; version=0.0.4"), Form::Text);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (page, form, line, what) in [
            ("up", Form::Text, 1, "it has no value"),
            ("up 1\nup x", Form::Text, 2, "its value is no number"),
            ("up 1 x", Form::Text, 1, "its time is no number"),
            ("up 1 1 1", Form::Text, 1, "there is more after the time"),
            ("up{a=\"b\" 1", Form::Text, 1, "its labels do not end"),
            ("up{a=\"b} 1", Form::Text, 1, "a text does not end"),
            ("up{a=\"\\x\"} 1", Form::Text, 1, "a text has an unknown escape"),
            ("up{a} 1", Form::Text, 1, "a label has no value"),
            ("up{=\"b\"} 1", Form::Text, 1, "a label has no name"),
            ("{a=\"b\"} 1", Form::Text, 1, "it has no name"),
            ("<html>", Form::Text, 1, "it has no name"),
            ("up 1\n", Form::OpenMetrics, 1, "it does not end with # EOF"),
            ("# EOF\nup 1\n", Form::OpenMetrics, 2, "there is more after the end"),
            ("up 1 NaN\n# EOF\n", Form::OpenMetrics, 1, "its time is no number"),
        ] {
            assert_eq!(lines(page, form), Err(LineError { line, what }), "{page}");
        }
        let many: String = (0..=LABELS_MAX).map(|number| format!("a{number}=\"\",")).collect();
        assert!(lines(&format!("up{{{many}}} 1"), Form::Text).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(page in "(up|\\{|\\}|a|=|\"|,|\\\\|#| |1|\n|é|EOF){0,40}") {
            let _ = lines(&page, Form::Text);
            let _ = lines(&page, Form::OpenMetrics);
        }
    }
}
