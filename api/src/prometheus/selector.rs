//! Series selectors, as `match[]` has them: `up{job="node", instance=~"a.*"}`. Pure.
//!
//! Names beyond letters and digits stand in quotes: `{"dotted.name", "a label"="x"}`.

use orzo_labels::{METRIC_NAME, Matcher};

/// Matchers of one selector; more are a mistake.
const MATCHERS_MAX: usize = 100;

/// Reads a selector. At least one matcher must not match an empty label, so that nobody asks for everything by mistake.
pub(super) fn parse(text: &str) -> Result<Vec<Matcher>, String> {
    let mut reader = Reader { rest: text.trim() };
    let mut matchers = Vec::new();
    let name = reader.word(|c| c == ':' || c == '_' || c.is_ascii_alphanumeric());
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("`{name}` is not a name"));
    }
    if !name.is_empty() {
        matchers.push(Matcher::equal(METRIC_NAME, name));
    }
    if reader.take("{") {
        while !reader.take("}") {
            let matcher = reader.matcher()?;
            if matcher.name() == METRIC_NAME && !name.is_empty() {
                return Err("the series' name stands twice".to_owned());
            }
            matchers.push(matcher);
            if matchers.len() > MATCHERS_MAX {
                return Err(format!("more than {MATCHERS_MAX} matchers"));
            }
            if !reader.take(",") && !reader.rest.starts_with('}') {
                return Err(reader.unexpected("`,` or `}`"));
            }
        }
    }
    if !reader.rest.is_empty() {
        return Err(reader.unexpected("the end"));
    }
    if matchers.iter().all(|matcher| matcher.accepts("")) {
        return Err("match[] must contain at least one non-empty matcher".to_owned());
    }
    Ok(matchers)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn word(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.rest.chars().next() {
            Some(found) => format!("expected {expected}, found `{found}`"),
            None => format!("expected {expected}, it ends"),
        }
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let is_quoted = self.rest.starts_with(['"', '\'', '`']);
        let name = if is_quoted {
            self.quoted()?
        } else {
            let name = self.word(|c| c == '_' || c.is_ascii_alphanumeric());
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(self.unexpected("a label's name"));
            }
            name.to_owned()
        };
        // A quoted text alone is the series' name.
        if is_quoted && self.rest.starts_with([',', '}']) {
            return Ok(Matcher::equal(METRIC_NAME, name));
        }
        let text = |error: orzo_labels::MatcherError| error.to_string();
        if self.take("=~") {
            Matcher::matching(name, &self.quoted()?).map_err(text)
        } else if self.take("!~") {
            Matcher::not_matching(name, &self.quoted()?).map_err(text)
        } else if self.take("!=") {
            Ok(Matcher::not_equal(name, self.quoted()?))
        } else if self.take("=") {
            Ok(Matcher::equal(name, self.quoted()?))
        } else {
            Err(self.unexpected("`=`, `!=`, `=~` or `!~`"))
        }
    }

    /// A text in quotes with Go's escapes; between backquotes nothing is one.
    fn quoted(&mut self) -> Result<String, String> {
        let mut characters = self.rest.char_indices();
        let quote = match characters.next() {
            Some((_, quote @ ('"' | '\'' | '`'))) => quote,
            _ => return Err(self.unexpected("a text in quotes")),
        };
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            match character {
                character if character == quote => {
                    self.rest = self.rest[at + character.len_utf8()..].trim_start();
                    return Ok(text);
                }
                '\\' if quote != '`' => {
                    let (_, escaped) = characters.next().ok_or("a text ends in an escape")?;
                    let mut code = |digits: usize| {
                        let digits: String = characters.by_ref().take(digits).map(|(_, digit)| digit).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        code.ok_or_else(|| format!("`{digits}` is not a character"))
                    };
                    text.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'a' => '\u{7}',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'v' => '\u{b}',
                        'x' => code(2)?,
                        'u' => code(4)?,
                        'U' => code(8)?,
                        '\\' | '"' | '\'' => escaped,
                        other => return Err(format!("`\\{other}` is not an escape")),
                    });
                }
                character => text.push(character),
            }
        }
        Err("a text has no closing quote".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str, name: &str, value: &str) -> bool {
        let matchers = parse(text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
        matchers.iter().filter(|matcher| matcher.name() == name).all(|matcher| matcher.accepts(value))
    }

    #[test]
    fn selectors_are_read_as_prometheus_reads_them() {
        assert!(accepts("up", METRIC_NAME, "up") && !accepts("up", METRIC_NAME, "down"));
        assert!(accepts(" job:up:sum { a = \"1\" , } ", "a", "1"));
        assert!(accepts(r#"{a=~"x|y",b!='\'\u00e9'}"#, "b", "e") && !accepts(r#"{a="1",b!='\'\u00e9'}"#, "b", "'é"));
        assert!(accepts(r#"{"dotted.name","a label"!~`\d+`}"#, "a label", "x"));
        assert!(!accepts(r#"{"dotted.name","a label"!~`\d+`}"#, "a label", "12"));
        assert_eq!(parse(r#"{__name__="up",a=""}"#).map(|matchers| matchers.len()), Ok(2));
    }

    #[test]
    fn what_is_no_selector_says_where() {
        for text in [
            "",
            "{}",
            "{a=\"\"}",
            "{a=~\".*\"}",
            "up{",
            "up{a}",
            "up{a=1}",
            "up{a=\"1\" b=\"2\"}",
            "up{a=\"1\"} x",
            "1up",
            "up{__name__=\"x\"}",
            "up{a=\"\\q\"}",
            "up{a=\"",
            "up{a=~\"(\"}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("up{a=1}").expect_err("refused"), "expected a text in quotes, found `1`");
    }
}
