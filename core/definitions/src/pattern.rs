//! Matching of event types and meter names: Python's `fnmatch` globs and `re.match` patterns.
//!
//! The patterns run in linear time. Python's look-ahead, which Ceilometer's own meter file uses once
//! (`compute.instance.(?!create.start|update).*`), is split into two ordinary patterns; where that would not mean
//! the same it is refused.

use regex::{Regex, RegexBuilder};

/// Compiled size of a pattern at most; a definition file has hundreds of them.
const REGEX_BYTES_MAX: usize = 256 * 1024;

/// A pattern as `re.match` takes it: anchored at the start, open at the end.
#[derive(Clone, Debug)]
pub struct Pattern {
    matches: Regex,
    unless: Option<Regex>,
}

/// A glob as `fnmatch` takes it: `*`, `?`, `[abc]`, `[!abc]`, whole text, case counts.
#[derive(Clone, Debug)]
pub struct Glob {
    matches: Regex,
}

impl Pattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(start) = text.find("(?!") else {
            return Ok(Self { matches: regex(&format!("^(?:{text})"))?, unless: None });
        };
        let before = &text[..start];
        // Only before a look-ahead of one certain width are "A(?!B)C" and "AC but not AB" the same.
        if before.contains(['*', '+', '?', '{', '|', '(', '[', '\\']) {
            return Err("a look-ahead is understood only after plain characters and dots".to_owned());
        }
        let inner = &text[start + 3..];
        let length = closing(inner).ok_or("missing `)` of the look-ahead")?;
        let (forbidden, after) = (&inner[..length], &inner[length + 1..]);
        if after.contains("(?!") || after.contains("(?=") || after.contains('|') {
            return Err("only one look-ahead is understood, and no alternatives after it".to_owned());
        }
        Ok(Self {
            matches: regex(&format!("^(?:{before}{after})"))?,
            unless: Some(regex(&format!("^(?:{before}(?:{forbidden}))"))?),
        })
    }

    /// Whether the start of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.matches.is_match(text) && !self.unless.as_ref().is_some_and(|unless| unless.is_match(text))
    }
}

impl Glob {
    /// Reads a glob. Every text is one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pattern = String::from("(?s)^");
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '*' => pattern.push_str(".*"),
                '?' => pattern.push('.'),
                '[' => match set_length(rest) {
                    Some(length) => {
                        let set = &rest[..length];
                        rest = &rest[length + 1..];
                        let (negated, set) = set.strip_prefix('!').map_or((false, set), |set| (true, set));
                        pattern.push('[');
                        if negated {
                            pattern.push('^');
                        }
                        for c in set.chars() {
                            // `-` keeps its meaning of a range; everything else stands for itself.
                            if !c.is_alphanumeric() && c != '-' && c != '_' {
                                pattern.push('\\');
                            }
                            pattern.push(c);
                        }
                        pattern.push(']');
                    }
                    None => pattern.push_str("\\["),
                },
                other => pattern.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
            }
        }
        pattern.push('$');
        Ok(Self { matches: regex(&pattern)? })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.matches.is_match(text)
    }
}

/// Whether the text has characters that are special in a glob.
pub(crate) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Compiles with our size limit; the error is one line.
pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build().map_err(|error| {
        let text = error.to_string();
        format!("bad regex: {}", text.lines().last().unwrap_or_default().trim())
    })
}

/// Length of a glob's set up to its `]`; a `]` right at the start belongs to the set.
fn set_length(rest: &str) -> Option<usize> {
    let skip = if rest.starts_with("!]") { 2 } else { usize::from(rest.starts_with(']')) };
    rest.get(skip..)?.find(']').map(|at| at + skip)
}

/// Where the group that is open at the start of `text` closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' if depth == 0 => return Some(at),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_at_the_start_only() {
        let pattern = Pattern::parse("volume.create.*").expect("a pattern");
        assert!(pattern.is_match("volume.create.end"));
        assert!(!pattern.is_match("my.volume.create.end"));
        let pattern = Pattern::parse("image.update").expect("a pattern");
        assert!(pattern.is_match("image.update.something"));
        assert!(!Pattern::parse("a|b").expect("a pattern").is_match("xb"));
    }

    #[test]
    fn the_look_ahead_of_ceilometers_meters_is_understood() {
        let pattern = Pattern::parse("compute.instance.(?!create.start|update).*").expect("a pattern");
        assert!(pattern.is_match("compute.instance.create.end"));
        assert!(pattern.is_match("compute.instance.exists"));
        assert!(!pattern.is_match("compute.instance.create.start"));
        assert!(!pattern.is_match("compute.instance.update"));
        assert!(!pattern.is_match("compute.metrics.update"));
        assert!(Pattern::parse("a*(?!b)c").is_err());
        assert!(Pattern::parse("a(?!b").is_err());
    }

    #[test]
    fn globs_are_those_of_fnmatch() {
        for (glob, text, expected) in [
            ("compute.instance.*", "compute.instance.create.end", true),
            ("compute.instance.*", "xcompute.instance.create", false),
            ("*http.*", "objectstore.http.request", true),
            ("a.b", "axb", false),
            ("a?c", "abc", true),
            ("a[bc]d", "abd", true),
            ("a[!bc]d", "abd", false),
            ("a[!bc]d", "axd", true),
            ("a[b-d]", "ac", true),
            ("a[", "a[", true),
            ("{a,b}", "a", false),
            ("a*", "a/b", true),
            ("A*", "abc", false),
        ] {
            assert_eq!(Glob::parse(glob).expect(glob).is_match(text), expected, "{glob} {text}");
        }
    }
}
