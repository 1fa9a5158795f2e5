//! Archive policies: granularities × timespans × aggregation methods, and the rules that choose one by a metric's
//! name. Pure. The arithmetic and the texts are Gnocchi 4.7's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    IndexError,
    spans::{SPAN_MICROS_MAX, python_float},
};

/// Methods of a policy that names none.
pub const DEFAULT_METHODS: &[&str] = &["mean", "min", "max", "sum", "std", "count"];
const NAMED_METHODS: &[&str] = &["mean", "sum", "last", "max", "min", "std", "median", "first", "count"];
/// Definitions of one policy at most; each multiplies the work of a read without granularity.
const DEFINITION_ITEMS_MAX: usize = 64;

/// One line of a policy: how finely and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyItem {
    /// Bucket width in microseconds.
    pub granularity_us: u64,
    /// How long buckets are kept, in microseconds, counted back from the newest one; `None`: for ever.
    pub timespan_us: Option<u64>,
    /// How many buckets that is.
    pub points: Option<u64>,
}

impl PolicyItem {
    /// From any two of the three; the granularity alone means for ever.
    pub fn new(
        granularity: Option<Duration>,
        points: Option<i64>,
        timespan: Option<Duration>,
    ) -> Result<Self, IndexError> {
        let refuse = |text: &str| Err(IndexError::refused(text));
        if points.is_some_and(|points| points <= 0) {
            return refuse("Number of points should be > 0");
        }
        if granularity.is_some_and(|span| span.as_micros() == 0) {
            return refuse("Granularity should be > 0");
        }
        if timespan.is_some_and(|span| span.as_micros() == 0) {
            return refuse("Timespan should be > 0");
        }
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX).min(i64::MAX as u64);
        let points = points.map(|points| points as u64);
        Ok(match (granularity.map(micros), points, timespan.map(micros)) {
            (Some(granularity_us), None, None) => Self { granularity_us, timespan_us: None, points: None },
            (Some(granularity_us), Some(points), None) => {
                let timespan = granularity_us.saturating_mul(points);
                if timespan > SPAN_MICROS_MAX {
                    return refuse("timespan (granularity × points) must be at most 9223372036.854775 seconds");
                }
                Self { granularity_us, timespan_us: Some(timespan), points: Some(points) }
            }
            (Some(granularity_us), None, Some(timespan)) => {
                let points = timespan / granularity_us;
                if points == 0 {
                    return refuse("Calculated number of points is < 0");
                }
                Self { granularity_us, timespan_us: Some(granularity_us * points), points: Some(points) }
            }
            (None, Some(points), Some(timespan)) => {
                let granularity_us = timespan / points;
                if granularity_us == 0 {
                    return refuse("Granularity should be > 0");
                }
                Self { granularity_us, timespan_us: Some(timespan), points: Some(points) }
            }
            (Some(granularity_us), Some(points), Some(timespan)) => {
                if granularity_us.checked_mul(points) != Some(timespan) {
                    return refuse("timespan ≠ granularity × points");
                }
                Self { granularity_us, timespan_us: Some(timespan), points: Some(points) }
            }
            (None, _, _) => return refuse("At least two of granularity/points/timespan must be provided"),
        })
    }

    /// Bucket width.
    pub fn granularity(&self) -> Duration {
        Duration::from_micros(self.granularity_us)
    }

    /// How long buckets are kept.
    pub fn timespan(&self) -> Option<Duration> {
        self.timespan_us.map(Duration::from_micros)
    }
}

/// How a metric's points are aggregated and for how long the aggregates are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivePolicy {
    /// Its name.
    pub name: String,
    /// How many of the coarsest buckets late points may reach back in Gnocchi. Orzo keeps raw points and takes them all.
    pub back_window: u32,
    /// Lines in the order of creation; no granularity twice.
    pub definition: Vec<PolicyItem>,
    /// Methods as they were given: names, `*`, `-name`, `+name`.
    pub given_methods: Vec<String>,
    /// Methods that these amount to, in a stable order.
    pub aggregation_methods: Vec<String>,
}

impl ArchivePolicy {
    /// A checked policy; `methods` `None` takes `defaults`.
    pub fn new(
        name: &str,
        back_window: u32,
        definition: Vec<PolicyItem>,
        methods: Option<Vec<String>>,
        defaults: &[String],
    ) -> Result<Self, IndexError> {
        check_definition(&definition)?;
        let given = methods.unwrap_or_else(|| defaults.to_vec());
        for (place, method) in given.iter().enumerate() {
            let bare = method.strip_prefix(['+', '-']).unwrap_or(method);
            if method != "*" && !is_method(bare) {
                let place = place.to_string();
                let reason = format!("not a valid value for dictionary value @ data['aggregation_methods'][{place}]");
                return Err(IndexError::invalid_input(reason, &["aggregation_methods", &place]));
            }
        }
        let aggregation_methods = effective_methods(&given, defaults);
        Ok(Self { name: name.to_owned(), back_window, definition, given_methods: given, aggregation_methods })
    }

    /// Its lines, coarsest first: the order of answers.
    pub fn coarse_first(&self) -> Vec<PolicyItem> {
        let mut items = self.definition.clone();
        items.sort_by_key(|item| std::cmp::Reverse(item.granularity_us));
        items
    }

    /// The line with this granularity.
    pub fn item(&self, granularity: Duration) -> Option<PolicyItem> {
        self.definition.iter().find(|item| item.granularity() == granularity).copied()
    }

    /// Whether it answers this method.
    pub fn has_method(&self, method: &str) -> bool {
        self.aggregation_methods.iter().any(|known| known == method)
    }

    /// The policy after a change of anything: granularities and methods come and go. Raw points are kept, so that what is
    /// new is answered for the past as well.
    pub fn rebuilt(
        &self,
        definition: Vec<PolicyItem>,
        back_window: u32,
        methods: Option<Vec<String>>,
        defaults: &[String],
    ) -> Result<Self, IndexError> {
        let methods = methods.unwrap_or_else(|| self.given_methods.clone());
        Self::new(&self.name, back_window, definition, Some(methods), defaults)
    }

    /// The definition after a change that may only change timespans.
    pub fn with_definition(&self, definition: Vec<PolicyItem>, back_window: u32) -> Result<Self, IndexError> {
        check_definition(&definition)?;
        let refuse = |reason: String| {
            IndexError::refused(format!("Archive policy {} does not support change: {reason}", self.name))
        };
        if definition.len() != self.definition.len() {
            return Err(refuse("Cannot add or drop granularities".into()));
        }
        let sorted = |items: &[PolicyItem]| {
            let mut widths: Vec<u64> = items.iter().map(|item| item.granularity_us).collect();
            widths.sort_unstable();
            widths
        };
        for (old, new) in sorted(&self.definition).into_iter().zip(sorted(&definition)) {
            if old != new {
                let width = python_float(old as f64 / 1e6);
                return Err(refuse(format!("{width} granularity interval was changed")));
            }
        }
        Ok(Self { definition, back_window, ..self.clone() })
    }
}

fn check_definition(definition: &[PolicyItem]) -> Result<(), IndexError> {
    if definition.is_empty() {
        let reason = "length of value must be at least 1 for dictionary value @ data['definition']";
        return Err(IndexError::invalid_input(reason, &["definition"]));
    }
    if definition.len() > DEFINITION_ITEMS_MAX {
        return Err(IndexError::refused(format!(
            "More than {DEFINITION_ITEMS_MAX} granularities in one archive policy"
        )));
    }
    let mut seen = std::collections::HashSet::new();
    for item in definition {
        if !seen.insert(item.granularity_us) {
            let width = python_float(item.granularity_us as f64 / 1e6);
            return Err(IndexError::refused(format!("More than one archive policy uses granularity `{width}'")));
        }
    }
    Ok(())
}

/// Whether `method` is an aggregation method: a name, `1pct` to `99pct`, or one of these after `rate:`.
pub fn is_method(method: &str) -> bool {
    let bare = method.strip_prefix("rate:").unwrap_or(method);
    NAMED_METHODS.contains(&bare) || percent(bare).is_some()
}

/// The percentage of `95pct`.
pub fn percent(method: &str) -> Option<u8> {
    let digits = method.strip_suffix("pct")?;
    let number: u8 = digits.parse().ok()?;
    ((1..=99).contains(&number) && !digits.starts_with(['0', '+'])).then_some(number)
}

/// All 216 methods.
pub fn all_methods() -> Vec<String> {
    let plain: Vec<String> =
        NAMED_METHODS.iter().map(|&m| m.to_owned()).chain((1..=99).map(|n| format!("{n}pct"))).collect();
    plain.iter().cloned().chain(plain.iter().map(|method| format!("rate:{method}"))).collect()
}

fn effective_methods(given: &[String], defaults: &[String]) -> Vec<String> {
    let mut methods: Vec<String> = if given.iter().any(|method| method == "*") {
        all_methods()
    } else if given.iter().all(|method| method.starts_with(['+', '-'])) {
        defaults.to_vec()
    } else {
        given.iter().filter(|method| !method.starts_with(['+', '-'])).cloned().collect()
    };
    for method in given {
        if let Some(removed) = method.strip_prefix('-') {
            methods.retain(|known| known != removed);
        } else if let Some(added) = method.strip_prefix('+') {
            methods.push(added.to_owned());
        }
    }
    let mut seen = std::collections::HashSet::new();
    methods.retain(|method| seen.insert(method.clone()));
    methods
}

/// Chooses a policy for metrics that are made without naming one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivePolicyRule {
    /// Its name.
    pub name: String,
    /// A glob (Python's fnmatch) over metric names.
    pub metric_pattern: String,
    /// The policy that it chooses.
    pub archive_policy_name: String,
}

/// Sorts rules into the order in which they are tried and listed: pattern descending (so that `*`, which sorts before
/// letters, comes last), then name.
pub fn sort_rules(rules: &mut [ArchivePolicyRule]) {
    rules.sort_by(|a, b| b.metric_pattern.cmp(&a.metric_pattern).then_with(|| a.name.cmp(&b.name)));
}

/// The first rule that matches, of rules in order.
pub fn match_rule<'a>(rules: &'a [ArchivePolicyRule], metric_name: &str) -> Option<&'a ArchivePolicyRule> {
    rules.iter().find(|rule| glob_matches(&rule.metric_pattern, metric_name))
}

/// Python's `fnmatch`: `*`, `?`, `[seq]`, `[!seq]`; no escapes, a bracket that is not closed is itself. Works without
/// recursion, in the product of the lengths at most, so that a hostile pattern cannot hang it.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => match bracket(&pattern, p) {
                Some((end, class)) => class.matches(text[t]).then_some(end),
                None => (text[t] == '[').then_some(p + 1),
            },
            Some(&literal) => (literal == text[t]).then_some(p + 1),
            None => None,
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((star_p, star_t))) => {
                p = star_p + 1;
                t = star_t + 1;
                star = Some((star_p, star_t + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

struct Class<'a> {
    negated: bool,
    members: &'a [char],
}

impl Class<'_> {
    fn matches(&self, c: char) -> bool {
        let mut found = false;
        let mut i = 0;
        while i < self.members.len() {
            if i + 2 < self.members.len() && self.members[i + 1] == '-' {
                found |= (self.members[i]..=self.members[i + 2]).contains(&c);
                i += 3;
            } else {
                found |= self.members[i] == c;
                i += 1;
            }
        }
        found != self.negated
    }
}

fn bracket(pattern: &[char], open: usize) -> Option<(usize, Class<'_>)> {
    let negated = pattern.get(open + 1) == Some(&'!');
    let first = open + 1 + usize::from(negated);
    // A `]` right after the opening is a member.
    let close = (first + 1..pattern.len()).find(|&i| pattern[i] == ']')?;
    Some((close + 1, Class { negated, members: &pattern[first..close] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n))
    }

    fn defaults() -> Vec<String> {
        DEFAULT_METHODS.iter().map(|&m| m.to_owned()).collect()
    }

    #[test]
    fn any_two_of_three_make_an_item() {
        let item = PolicyItem::new(seconds(60), Some(10), None).expect("valid");
        assert_eq!(item.timespan(), seconds(600));
        let item = PolicyItem::new(seconds(60), None, seconds(150)).expect("valid");
        assert_eq!((item.points, item.timespan()), (Some(2), seconds(120)));
        let item = PolicyItem::new(None, Some(10), seconds(600)).expect("valid");
        assert_eq!(item.granularity(), Duration::from_secs(60));
        let item = PolicyItem::new(seconds(60), None, None).expect("valid");
        assert_eq!((item.points, item.timespan()), (None, None));
        for (granularity, points, timespan, text) in [
            (seconds(60), Some(10), seconds(601), "timespan ≠ granularity × points"),
            (None, Some(10), None, "At least two of granularity/points/timespan must be provided"),
            (seconds(60), Some(0), None, "Number of points should be > 0"),
            (seconds(60), None, seconds(1), "Calculated number of points is < 0"),
        ] {
            assert_eq!(PolicyItem::new(granularity, points, timespan).expect_err(text).to_string(), text);
        }
    }

    #[test]
    fn methods_are_added_and_taken_away_from_what_they_start_with() {
        let methods =
            |given: &[&str]| effective_methods(&given.iter().map(|&m| m.to_owned()).collect::<Vec<_>>(), &defaults());
        assert_eq!(all_methods().len(), 216);
        assert_eq!(methods(&["*"]).len(), 216);
        assert_eq!(methods(&["*", "-mean"]).len(), 215);
        assert_eq!(methods(&["-mean", "+last"]), ["min", "max", "sum", "std", "count", "last"]);
        assert_eq!(methods(&["mean", "+last"]), ["mean", "last"]);
        let bad = ArchivePolicy::new(
            "x",
            0,
            vec![PolicyItem::new(seconds(1), None, None).expect("valid")],
            Some(vec!["no".into()]),
            &defaults(),
        );
        assert!(bad.expect_err("no such method").to_string().contains("not a valid value"));
        assert!(is_method("rate:95pct") && !is_method("0pct") && !is_method("100pct") && !is_method("rate:rate:mean"));
    }

    #[test]
    fn a_definition_may_change_its_timespans_only() {
        let item = |g: u64, p: i64| PolicyItem::new(seconds(g), Some(p), None).expect("valid");
        let policy = ArchivePolicy::new("a", 0, vec![item(1, 60), item(60, 60)], None, &defaults()).expect("valid");
        assert!(policy.with_definition(vec![item(60, 90), item(1, 10)], 3).is_ok());
        let text = policy.with_definition(vec![item(1, 60)], 0).expect_err("dropped").to_string();
        assert_eq!(text, "Archive policy a does not support change: Cannot add or drop granularities");
        let text = policy.with_definition(vec![item(2, 60), item(60, 60)], 0).expect_err("changed").to_string();
        assert_eq!(text, "Archive policy a does not support change: 1.0 granularity interval was changed");
        let twice = ArchivePolicy::new("a", 0, vec![item(60, 1), item(60, 2)], None, &defaults());
        assert_eq!(twice.expect_err("twice").to_string(), "More than one archive policy uses granularity `60.0'");
    }

    #[test]
    fn rules_are_tried_from_the_longest_pattern_down() {
        let rule = |name: &str, pattern: &str| ArchivePolicyRule {
            name: name.into(),
            metric_pattern: pattern.into(),
            archive_policy_name: "low".into(),
        };
        let mut rules = vec![rule("default", "*"), rule("disk", "disk.*"), rule("io", "disk.io.*")];
        sort_rules(&mut rules);
        assert_eq!(match_rule(&rules, "disk.io.rate").map(|r| r.name.as_str()), Some("io"));
        assert_eq!(match_rule(&rules, "disk.read").map(|r| r.name.as_str()), Some("disk"));
        assert_eq!(match_rule(&rules, "cpu").map(|r| r.name.as_str()), Some("default"));
        assert!(match_rule(&rules[..1], "cpu").is_none());
    }

    #[test]
    fn globs_match_as_fnmatch_does() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("cpu*", "cpu_util", true),
            ("c?u", "cpu", true),
            ("[ab]x", "bx", true),
            ("[!ab]x", "bx", false),
            ("[a-c]x", "bx", true),
            ("[]x]", "]", true),
            ("[x", "[x", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("disk.*.rate", "disk.read.bytes.rate", true),
            ("**", "x", true),
        ] {
            assert_eq!(glob_matches(pattern, text), matches, "{pattern} {text}");
        }
    }
}
