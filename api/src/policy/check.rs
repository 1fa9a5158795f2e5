//! The language of oslo.policy's rules, read and decided: `role:admin or (project_id:%(project_id)s and not rule:x)`.
//! Pure. A check of a field that the thing does not have is false.

use orzo_model::Caller;
use serde_json::Value;

use super::{Action, Target, actions::ACTIONS};

/// Longest rule; Gnocchi's have some dozens of characters.
const RULE_BYTES_MAX: usize = 4096;
/// Deeper nesting is an accident.
const DEPTH_MAX: usize = 32;

/// All rules; the first are the policies, in the order of [`ACTIONS`].
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) checks: Vec<Check>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Check {
    /// `@`, or nothing at all.
    Always,
    /// `!`
    Never,
    Not(Box<Check>),
    And(Vec<Check>),
    Or(Vec<Check>),
    /// `rule:name`, by its place.
    Rule(usize),
    /// `role:name`
    Role(Template),
    /// `user_id:%(user_id)s`, `'text':%(field)s`
    Same(Left, Template),
}

/// What a field of the thing is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Left {
    /// A text in quotes, or a word such as `True`.
    Literal(String),
    /// Something about the caller.
    Credential(String),
}

/// A text with fields of the thing in it: `%(project_id)s`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Field(String),
}

/// What callers have; a rule that asks for something else is mistyped.
const CREDENTIALS: [&str; 8] =
    ["user", "user_id", "user_name", "project_id", "project_name", "domain_id", "is_admin", "system_scope"];

impl Rules {
    /// Whether the caller may.
    pub(super) fn decides(&self, action: Action, caller: &Caller, target: Target<'_>) -> bool {
        debug_assert_eq!(ACTIONS[action as usize].0, action);
        self.holds(&self.checks[action as usize], caller, target)
    }

    fn holds(&self, check: &Check, caller: &Caller, target: Target<'_>) -> bool {
        match check {
            Check::Always => true,
            Check::Never => false,
            Check::Not(inner) => !self.holds(inner, caller, target),
            Check::And(parts) => parts.iter().all(|part| self.holds(part, caller, target)),
            Check::Or(parts) => parts.iter().any(|part| self.holds(part, caller, target)),
            // Cycles are refused when the rules are read.
            Check::Rule(place) => self.holds(&self.checks[*place], caller, target),
            Check::Role(role) => {
                role.fill(target).is_some_and(|role| caller.roles.iter().any(|own| own.eq_ignore_ascii_case(&role)))
            }
            Check::Same(left, right) => {
                let left = match left {
                    Left::Literal(text) => Some(text.clone()),
                    Left::Credential(name) => credential(caller, name),
                };
                left.is_some_and(|left| right.fill(target) == Some(left))
            }
        }
    }
}

/// Something about the caller; `None` if it has none.
fn credential(caller: &Caller, name: &str) -> Option<String> {
    match name {
        "user" => Some(caller.creator()),
        "user_id" => Some(caller.user_id.clone()),
        "user_name" => Some(caller.user_name.clone()),
        "project_id" => caller.project_id.clone(),
        "project_name" => caller.project_name.clone(),
        "domain_id" => caller.user_domain_id.clone(),
        "is_admin" => Some(if caller.is_admin() { "True" } else { "False" }.to_owned()),
        // A bare administrator is one of the whole system, as in Gnocchi's basic mode.
        "system_scope" => (!caller.has_projects() && caller.is_admin()).then(|| "all".to_owned()),
        _ => None,
    }
}

/// A value as Python's `%s` writes it.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("%(") {
            let end = rest[at..].find(")s").ok_or_else(|| format!("`{text}` has a `%(` without `)s`"))? + at;
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            pieces.push(Piece::Field(rest[at + 2..end].to_owned()));
            rest = &rest[end + 2..];
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    fn fill(&self, target: Target<'_>) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Field(name) => text.push_str(&target.field(name)?),
            }
        }
        Some(text)
    }
}

/// Reads a rule; `place_of` finds other rules.
pub(super) fn parse(text: &str, place_of: &dyn Fn(&str) -> Option<usize>) -> Result<Check, String> {
    if text.len() > RULE_BYTES_MAX {
        return Err(format!("longer than {RULE_BYTES_MAX} bytes"));
    }
    if text.trim().is_empty() {
        return Ok(Check::Always);
    }
    let tokens = tokens(text);
    let mut reader = Reader { tokens: &tokens, at: 0, place_of };
    let check = reader.alternatives(0)?;
    match reader.tokens.get(reader.at) {
        None => Ok(check),
        Some(token) => Err(format!("`{token}` is not expected here")),
    }
}

/// Words, with parentheses of their own; a quoted text may hold spaces.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for word in words(text) {
        let inner = word.trim_start_matches('(');
        tokens.extend((0..word.len() - inner.len()).map(|_| "(".to_owned()));
        // The parenthesis of `%(field)s` is never at the end.
        let bare = inner.trim_end_matches(')');
        if !bare.is_empty() {
            tokens.push(bare.to_owned());
        }
        tokens.extend((0..inner.len() - bare.len()).map(|_| ")".to_owned()));
    }
    tokens
}

fn words(text: &str) -> Vec<&str> {
    let (mut words, mut start, mut quote) = (Vec::new(), None, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => {
                quote = Some(c);
                start.get_or_insert(at);
            }
            (None, c) if c.is_whitespace() => words.extend(start.take().map(|start| &text[start..at])),
            (None, _) => {
                start.get_or_insert(at);
            }
        }
    }
    words.extend(start.map(|start| &text[start..]));
    words
}

struct Reader<'a> {
    tokens: &'a [String],
    at: usize,
    place_of: &'a dyn Fn(&str) -> Option<usize>,
}

impl Reader<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|token| token.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn alternatives(&mut self, depth: usize) -> Result<Check, String> {
        let mut parts = vec![self.conjunction(depth)?];
        while self.take("or") {
            parts.push(self.conjunction(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Check::Or(parts) })
    }

    fn conjunction(&mut self, depth: usize) -> Result<Check, String> {
        let mut parts = vec![self.term(depth)?];
        while self.take("and") {
            parts.push(self.term(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Check::And(parts) })
    }

    fn term(&mut self, depth: usize) -> Result<Check, String> {
        if depth >= DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        if self.take("not") {
            return Ok(Check::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.take("(") {
            let inside = self.alternatives(depth + 1)?;
            return if self.take(")") { Ok(inside) } else { Err("a `)` is missing".to_owned()) };
        }
        let token = self.tokens.get(self.at).ok_or("a check is missing at the end")?;
        self.at += 1;
        self.check(token)
    }

    fn check(&self, token: &str) -> Result<Check, String> {
        match token {
            "@" => return Ok(Check::Always),
            "!" => return Ok(Check::Never),
            _ => {}
        }
        let wrong = || format!("`{token}` is not a check such as role:admin, rule:name or project_id:%(project_id)s");
        let (kind, pattern) = match token.strip_prefix(['\'', '"']) {
            Some(rest) => {
                let end = rest.find(['\'', '"']).ok_or_else(wrong)?;
                let pattern = rest[end + 1..].strip_prefix(':').ok_or_else(wrong)?;
                return Ok(Check::Same(Left::Literal(rest[..end].to_owned()), Template::parse(pattern)?));
            }
            None => token.split_once(':').ok_or_else(wrong)?,
        };
        match kind {
            "role" => Ok(Check::Role(Template::parse(pattern)?)),
            "rule" => (self.place_of)(pattern).map(Check::Rule).ok_or_else(|| format!("there is no rule `{pattern}`")),
            "http" | "https" => Err(format!("`{token}`: rules are not decided by other servers here")),
            "True" | "False" | "None" => Ok(Check::Same(Left::Literal(kind.to_owned()), Template::parse(pattern)?)),
            kind if !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Check::Same(Left::Literal(kind.to_owned()), Template::parse(pattern)?))
            }
            // oslo.policy's own spelling of the administrator.
            "is_admin" if pattern == "1" => {
                Ok(Check::Same(Left::Credential(kind.to_owned()), Template::parse("True")?))
            }
            kind if CREDENTIALS.contains(&kind) => {
                Ok(Check::Same(Left::Credential(kind.to_owned()), Template::parse(pattern)?))
            }
            kind => Err(format!("`{kind}` is nothing that is known of a caller; known: {}", CREDENTIALS.join(", "))),
        }
    }
}

/// Whether following `rule:` from `start` leads back to it.
pub(super) fn is_cyclic(checks: &[Check], start: usize) -> bool {
    let mut seen = vec![false; checks.len()];
    let mut waiting = vec![&checks[start]];
    while let Some(check) = waiting.pop() {
        match check {
            Check::Rule(place) if *place == start => return true,
            Check::Rule(place) if !std::mem::replace(&mut seen[*place], true) => waiting.push(&checks[*place]),
            Check::Not(inner) => waiting.push(inner),
            Check::And(parts) | Check::Or(parts) => waiting.extend(parts),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use orzo_model::Standing;

    use super::*;

    fn read(text: &str) -> Result<Check, String> {
        parse(text, &|name| (name == "known").then_some(7))
    }

    fn holds(text: &str) -> bool {
        let mut caller = Caller::named("jd", Standing::Name);
        caller.roles = vec!["reader".to_owned()];
        caller.project_id = Some("p1".to_owned());
        let rules = Rules { checks: Vec::new() };
        let fields = [("project_id", "p1"), ("type", "instance"), ("other", "p2")];
        rules.holds(&read(text).unwrap_or_else(|error| panic!("{text}: {error}")), &caller, Target::Fields(&fields))
    }

    #[test]
    fn rules_are_read_and_decided_as_oslo_does() {
        for text in [
            "",
            "@",
            "role:reader",
            "role:READER and project_id:%(project_id)s",
            "not role:admin",
            "role:admin or (role:reader and not project_id:%(other)s)",
            "(role:admin) or (role:reader)",
            "'instance':%(type)s",
            "\"instance\":%(type)s and user_id:jd",
            "role:admin and role:x or role:reader",
            "is_admin:False",
            "NOT ! AND @",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "!",
            "role:admin",
            "project_id:%(missing)s",
            "project_id:%(other)s",
            "role:reader and not @",
            "role:admin and (role:reader or @)",
            "is_admin:True",
            "is_admin:1",
            "system_scope:all",
        ] {
            assert!(!holds(text), "{text}");
        }
        assert_eq!(read("rule:known"), Ok(Check::Rule(7)));
    }

    #[test]
    fn what_is_not_a_rule_is_refused() {
        for text in [
            "role:admin or",
            "and role:admin",
            "(role:admin",
            "role:admin)",
            "role:admin role:x",
            "admin",
            "rule:unknown",
            "projekt_id:%(project_id)s",
            "project_id:%(project_id",
            "http://decider/",
            "'x'",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&"(".repeat(1000)).is_err());
        assert!(read(&"not ".repeat(100)).is_err());
        assert!(read(&"role:a or ".repeat(1000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[a-z_%()s:'\"@! ]{0,60}") {
            let _ = read(&text);
        }
    }
}
