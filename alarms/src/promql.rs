//! Binds a PromQL query to a project: `label="value"` is added to every selector.
//!
//! Reads the whole query by PromQL's grammar and refuses what it does not understand, so that no selector can be
//! written in a way that is passed on without the label. Text in, text out; it knows no Prometheus.

/// Deeper parentheses are not written by people.
const DEPTH_MAX: usize = 64;

const AGGREGATIONS: [&str; 14] = [
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "limitk",
    "limit_ratio",
];

/// The query with `label="value"` in every selector, or why it is no query.
pub(crate) fn scoped(query: &str, label: &str, value: &str) -> Result<String, String> {
    let tokens = tokens(query)?;
    let matcher = format!("{label}={}", serde_json::Value::from(value));
    let mut binder = Binder { tokens: &tokens, place: 0, out: Vec::new(), matcher };
    binder.bind()?;
    Ok(binder.out.join(" "))
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    Name(&'a str),
    Number(&'a str),
    Text(&'a str),
    Sign(&'a str),
}

impl<'a> Token<'a> {
    fn as_str(&self) -> &'a str {
        match self {
            Self::Name(text) | Self::Number(text) | Self::Text(text) | Self::Sign(text) => text,
        }
    }

    fn is_word(&self, words: &[&str]) -> bool {
        matches!(self, Self::Name(name) if words.iter().any(|word| name.eq_ignore_ascii_case(word)))
    }
}

fn tokens(query: &str) -> Result<Vec<Token<'_>>, String> {
    let bytes = query.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let first = bytes[at];
        if first.is_ascii_whitespace() {
            at += 1;
        } else if first == b'#' {
            at = query[at..].find('\n').map_or(bytes.len(), |length| at + length);
        } else if first.is_ascii_alphabetic() || first == b'_' || first == b':' {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
            at += bytes[at..].iter().take_while(|byte| is_part(**byte)).count();
            tokens.push(Token::Name(&query[start..at]));
        } else if first.is_ascii_digit() || (first == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)) {
            // Numbers and durations: 1.5e-3, 0x1f, 5m, 1h30m.
            while at < bytes.len() {
                let exponent_sign = (bytes[at] == b'-' || bytes[at] == b'+')
                    && matches!(bytes[at - 1], b'e' | b'E')
                    && !query[start..at].starts_with("0x");
                if bytes[at].is_ascii_alphanumeric() || bytes[at] == b'.' || bytes[at] == b'_' || exponent_sign {
                    at += 1;
                } else {
                    break;
                }
            }
            tokens.push(Token::Number(&query[start..at]));
        } else if matches!(first, b'"' | b'\'' | b'`') {
            at += 1;
            loop {
                match bytes.get(at) {
                    None => return Err("a text does not end".into()),
                    Some(b'\\') if first != b'`' => at += 2,
                    Some(byte) if *byte == first => break,
                    Some(b'\n') if first != b'`' => return Err("a text does not end on its line".into()),
                    Some(_) => at += 1,
                }
            }
            at += 1;
            tokens.push(Token::Text(query.get(start..at).ok_or("a text does not end")?));
        } else {
            let two = query.get(at..at + 2).filter(|two| ["==", "!=", ">=", "<=", "=~", "!~"].contains(two));
            let one = query.get(at..at + 1).filter(|one| "+-*/%^()[]{},<>=@:".contains(one));
            let sign =
                two.or(one).ok_or_else(|| format!("unexpected `{}`", query[at..].chars().next().unwrap_or(' ')))?;
            at += sign.len();
            tokens.push(Token::Sign(sign));
        }
    }
    Ok(tokens)
}

struct Binder<'t, 'q> {
    tokens: &'t [Token<'q>],
    place: usize,
    out: Vec<String>,
    matcher: String,
}

impl<'q> Binder<'_, 'q> {
    fn bind(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        let mut wants_operand = true;
        while let Some(token) = self.peek().cloned() {
            if depth > DEPTH_MAX {
                return Err(format!("parentheses deeper than {DEPTH_MAX}"));
            }
            if wants_operand {
                match &token {
                    Token::Number(_) | Token::Text(_) => {
                        self.copy();
                        wants_operand = false;
                    }
                    Token::Sign("+" | "-") => self.copy(),
                    Token::Sign("(") => {
                        self.copy();
                        depth += 1;
                    }
                    // A function without arguments.
                    Token::Sign(")") if depth > 0 && self.follows_call() => {
                        self.copy();
                        depth -= 1;
                        wants_operand = false;
                    }
                    Token::Sign("{") => {
                        self.selector()?;
                        wants_operand = false;
                    }
                    Token::Name(_) if self.next_is("(") => {
                        self.copy();
                        self.copy();
                        depth += 1;
                    }
                    Token::Name(_)
                        if token.is_word(&AGGREGATIONS)
                            && self.tokens.get(self.place + 1).is_some_and(|next| next.is_word(&["by", "without"])) =>
                    {
                        self.copy();
                        self.copy();
                        self.labels()?;
                        if self.peek() != Some(&Token::Sign("(")) {
                            return Err(format!("expected ( after {}", token.as_str()));
                        }
                        self.copy();
                        depth += 1;
                    }
                    Token::Name(_) if token.is_word(&["inf", "nan"]) => {
                        self.copy();
                        wants_operand = false;
                    }
                    Token::Name(_) => {
                        self.copy();
                        self.selector()?;
                        wants_operand = false;
                    }
                    other => return Err(format!("unexpected `{}`", other.as_str())),
                }
                continue;
            }
            match &token {
                Token::Sign(")") if depth > 0 => {
                    self.copy();
                    depth -= 1;
                }
                Token::Sign(",") if depth > 0 => {
                    self.copy();
                    wants_operand = true;
                }
                Token::Sign("[") => self.range()?,
                Token::Sign("@") => self.at()?,
                Token::Sign("+" | "-" | "*" | "/" | "%" | "^" | "==" | "!=" | ">" | "<" | ">=" | "<=") => {
                    self.operator()?;
                    wants_operand = true;
                }
                Token::Name(_) if token.is_word(&["and", "or", "unless", "atan2"]) => {
                    self.operator()?;
                    wants_operand = true;
                }
                Token::Name(_) if token.is_word(&["by", "without"]) => {
                    self.copy();
                    self.labels()?;
                }
                Token::Name(_) if token.is_word(&["offset"]) => {
                    self.copy();
                    if self.peek() == Some(&Token::Sign("-")) {
                        self.copy();
                    }
                    match self.peek() {
                        Some(Token::Number(_)) => self.copy(),
                        _ => return Err("expected a duration after offset".into()),
                    }
                }
                other => return Err(format!("unexpected `{}`", other.as_str())),
            }
        }
        match (wants_operand, depth) {
            (false, 0) => Ok(()),
            (true, _) => Err("it ends too early".into()),
            (false, _) => Err("a parenthesis is not closed".into()),
        }
    }

    fn peek(&self) -> Option<&Token<'q>> {
        self.tokens.get(self.place)
    }

    fn next_is(&self, sign: &str) -> bool {
        matches!(self.tokens.get(self.place + 1), Some(Token::Sign(next)) if *next == sign)
    }

    fn copy(&mut self) {
        if let Some(token) = self.tokens.get(self.place) {
            self.out.push(token.as_str().to_owned());
            self.place += 1;
        }
    }

    /// Whether the tokens before are `name (`.
    fn follows_call(&self) -> bool {
        self.place >= 2
            && self.tokens[self.place - 1] == Token::Sign("(")
            && matches!(self.tokens[self.place - 2], Token::Name(_))
    }

    /// `{...}`, or nothing: the matchers of a selector, with ours before them.
    fn selector(&mut self) -> Result<(), String> {
        if self.peek() != Some(&Token::Sign("{")) {
            self.out.push(format!("{{{}}}", self.matcher));
            return Ok(());
        }
        self.place += 1;
        self.out.push(format!("{{{}", self.matcher));
        loop {
            match self.peek() {
                Some(Token::Sign("}")) => {
                    self.copy();
                    return Ok(());
                }
                Some(Token::Name(name)) if !name.contains(':') => {
                    self.out.push(",".into());
                    self.copy();
                    self.comparison()?;
                }
                // A quoted name: of a metric, or of a label if it is compared.
                Some(Token::Text(_)) => {
                    self.out.push(",".into());
                    self.copy();
                    if matches!(self.peek(), Some(Token::Sign("=" | "!=" | "=~" | "!~"))) {
                        self.comparison()?;
                    }
                }
                Some(other) => return Err(format!("unexpected `{}` among the matchers", other.as_str())),
                None => return Err("the matchers do not end".into()),
            }
            match self.peek() {
                Some(Token::Sign(",")) => self.place += 1,
                Some(Token::Sign("}")) => {}
                _ => return Err("expected , or } after a matcher".into()),
            }
        }
    }

    fn comparison(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(Token::Sign("=" | "!=" | "=~" | "!~")) => self.copy(),
            _ => return Err("expected =, !=, =~ or !~ in a matcher".into()),
        }
        match self.peek() {
            Some(Token::Text(_)) => {
                self.copy();
                Ok(())
            }
            _ => Err("expected a quoted text in a matcher".into()),
        }
    }

    /// `(a, b)`: names of labels.
    fn labels(&mut self) -> Result<(), String> {
        if self.peek() != Some(&Token::Sign("(")) {
            return Err("expected ( before labels".into());
        }
        self.copy();
        loop {
            match self.peek() {
                Some(Token::Sign(")")) => {
                    self.copy();
                    return Ok(());
                }
                Some(Token::Name(_) | Token::Text(_) | Token::Sign(",")) => self.copy(),
                _ => return Err("expected names of labels".into()),
            }
        }
    }

    /// `[5m]` or `[1h:5m]`.
    fn range(&mut self) -> Result<(), String> {
        self.copy();
        loop {
            match self.peek() {
                Some(Token::Sign("]")) => {
                    self.copy();
                    return Ok(());
                }
                Some(Token::Number(_) | Token::Sign(":")) => self.copy(),
                // `[1h:5m]` is read as 1h and the name `:5m`.
                Some(Token::Name(name)) if name.starts_with(':') => self.copy(),
                _ => return Err("expected a duration".into()),
            }
        }
    }

    /// `@ 1609746000`, `@ start()`.
    fn at(&mut self) -> Result<(), String> {
        self.copy();
        if self.peek() == Some(&Token::Sign("-")) {
            self.copy();
        }
        match self.peek() {
            Some(Token::Number(_)) => self.copy(),
            Some(token) if token.is_word(&["start", "end"]) && self.next_is("(") => {
                self.copy();
                self.copy();
                if self.peek() != Some(&Token::Sign(")")) {
                    return Err("expected ) after @".into());
                }
                self.copy();
            }
            _ => return Err("expected a time after @".into()),
        }
        Ok(())
    }

    /// A binary operator with `bool`, `on`, `ignoring`, `group_left` and `group_right`.
    fn operator(&mut self) -> Result<(), String> {
        self.copy();
        if self.peek().is_some_and(|token| token.is_word(&["bool"])) {
            self.copy();
        }
        if self.peek().is_some_and(|token| token.is_word(&["on", "ignoring"])) {
            self.copy();
            self.labels()?;
            if self.peek().is_some_and(|token| token.is_word(&["group_left", "group_right"])) {
                self.copy();
                if self.peek() == Some(&Token::Sign("(")) {
                    self.labels()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(query: &str) -> String {
        scoped(query, "project", "p1").unwrap_or_else(|error| panic!("{query}: {error}")).replace(' ', "")
    }

    #[test]
    fn every_selector_gets_the_label() {
        for (query, expected) in [
            ("up", r#"up{project="p1"}"#),
            (r#"up{job="x"}"#, r#"up{project="p1",job="x"}"#),
            (r#"{__name__=~".+"}"#, r#"{project="p1",__name__=~".+"}"#),
            (r#"{"my.metric",a="b",}"#, r#"{project="p1","my.metric",a="b"}"#),
            ("rate(cpu[5m]) > 3", r#"rate(cpu{project="p1"}[5m])>3"#),
            ("sum by (host) (cpu)", r#"sumby(host)(cpu{project="p1"})"#),
            ("sum(cpu) by (host)", r#"sum(cpu{project="p1"})by(host)"#),
            ("a + on(x) group_left(y) b", r#"a{project="p1"}+on(x)group_left(y)b{project="p1"}"#),
            ("a and b or c unless d", r#"a{project="p1"}andb{project="p1"}orc{project="p1"}unlessd{project="p1"}"#),
            ("-a", r#"-a{project="p1"}"#),
            ("time() - a offset 5m", r#"time()-a{project="p1"}offset5m"#),
            ("max_over_time(a[1h:5m] @ end())", r#"max_over_time(a{project="p1"}[1h:5m]@end())"#),
            ("1 + 2.5e-3", "1+2.5e-3"),
            // A metric may be called like an operator.
            ("and and and", r#"and{project="p1"}andand{project="p1"}"#),
            ("sum", r#"sum{project="p1"}"#),
            ("a == bool b # c", r#"a{project="p1"}==boolb{project="p1"}"#),
            (r#"label_replace(a, "x", "$1", "y", "(.*)")"#, r#"label_replace(a{project="p1"},"x","$1","y","(.*)")"#),
        ] {
            assert_eq!(bound(query), expected, "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for query in [
            "",
            "a b",
            "a{",
            "a{b=c}",
            r#"a{b="c" or d="e"}"#,
            "sum(a",
            "a)",
            "(",
            "a +",
            "f(a,)",
            "a[b]",
            "a offset b",
            "a; b",
            "\"",
            "a{b=\"c}",
            "()",
            "ü",
        ] {
            assert!(scoped(query, "project", "p1").is_err(), "{query}");
        }
        assert!(scoped(&"(".repeat(100_000), "project", "p1").is_err());
    }

    #[test]
    fn a_value_cannot_end_its_quotes() {
        assert_eq!(scoped("a", "project", "x\"} or b{y=\"").expect("bound"), r#"a {project="x\"} or b{y=\""}"#);
    }
}
