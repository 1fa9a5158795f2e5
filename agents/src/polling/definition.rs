//! `polling.yaml`: which meters are polled how often. Ceilometer's format and rules.
//!
//! In: the file's text. Out: [`Polling`], or an error that names file, line and key. Pure.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::selection::MeterSelection;

/// Polling definitions are some KiB; a generated one with thousands of sources stays below this.
const FILE_BYTES_MAX: usize = 1 << 20;
/// A week: a longer interval is a slip of units.
const INTERVAL_S_MAX: u64 = 7 * 86_400;
/// What is polled when nobody says otherwise.
const SHIPPED: &str = include_str!("default.yaml");

/// What to poll.
#[derive(Clone, Debug)]
pub struct Polling {
    /// Sources, in the file's order.
    pub sources: Vec<Source>,
    /// What the file asks for and this agent does not do, in words with file and line; to be told at start.
    pub ignored: Vec<String>,
}

/// Meters that are polled at the same interval.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name, for people.
    pub name: String,
    /// Time between polls.
    pub interval: Duration,
    /// Which meters.
    pub meters: MeterSelection,
}

/// What is wrong with a polling definition, and where.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {reason}")]
pub struct PollingError {
    /// File as it was named by who read it.
    pub file: String,
    /// Line, from 1; 0 if the whole file is meant.
    pub line: u64,
    /// Column, from 1; 0 if the whole file is meant.
    pub column: u64,
    /// What is wrong.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sources: Vec<SourceEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceEntry {
    name: Spanned<String>,
    interval: Spanned<serde_json::Value>,
    meters: Spanned<Vec<Spanned<String>>>,
    resources: Option<Spanned<Vec<String>>>,
    discovery: Option<Spanned<Vec<String>>>,
    group_id_coordination_expression: Option<Spanned<String>>,
}

impl Polling {
    /// Everything, every ten seconds.
    pub fn shipped() -> Self {
        Self::parse("default.yaml", SHIPPED).expect("the shipped definition is tested")
    }

    /// Reads a definition; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, PollingError> {
        let error = |location: Location, reason: String| PollingError {
            file: file.to_owned(),
            line: location.line(),
            column: location.column(),
            reason,
        };
        if text.len() > FILE_BYTES_MAX {
            return Err(error(Location::UNKNOWN, format!("the file is larger than {FILE_BYTES_MAX} bytes")));
        }
        let options = serde_saphyr::options! { with_snippet: false };
        let parsed: File = serde_saphyr::from_str_with_options(text, options)
            .map_err(|e| error(e.location().unwrap_or(Location::UNKNOWN), reason(&e)))?;
        let mut polling = Self { sources: Vec::new(), ignored: Vec::new() };
        for entry in &parsed.sources {
            let name = entry.name.value.clone();
            if polling.sources.iter().any(|source| source.name == name) {
                return Err(error(entry.name.referenced, format!("two sources are called `{name}`")));
            }
            let interval = interval(&entry.interval.value).map_err(|why| error(entry.interval.referenced, why))?;
            let meters = meters(entry).map_err(|(location, why)| error(location, why))?;
            polling.sources.push(Source { name: name.clone(), interval, meters });
            for (key, location) in entry.ignored() {
                let at = format!("{file}:{}:{}", location.line(), location.column());
                polling.ignored.push(format!("{at}: `{key}` of source `{name}` has no effect on this agent"));
            }
        }
        if polling.sources.is_empty() {
            return Err(error(Location::UNKNOWN, "`sources` is empty: nothing would be polled".to_owned()));
        }
        Ok(polling)
    }

    /// Meters by interval: one loop polls all sources of the same interval together.
    pub fn by_interval(&self) -> BTreeMap<Duration, Vec<&MeterSelection>> {
        let mut intervals: BTreeMap<Duration, Vec<&MeterSelection>> = BTreeMap::new();
        for source in &self.sources {
            intervals.entry(source.interval).or_default().push(&source.meters);
        }
        intervals
    }

    /// The intervals at which any of `meters` is polled, each with those that are.
    pub fn plan<'m>(&self, meters: &[&'m str]) -> BTreeMap<Duration, Vec<&'m str>> {
        let mut plan = BTreeMap::new();
        for (interval, selections) in self.by_interval() {
            let chosen = |meter: &&str| selections.iter().any(|selection| selection.includes(meter));
            let chosen: Vec<&str> = meters.iter().copied().filter(chosen).collect();
            if !chosen.is_empty() {
                plan.insert(interval, chosen);
            }
        }
        plan
    }
}

impl SourceEntry {
    /// Keys that are Ceilometer's and fine, but steer discovery and partitioning, which this agent does otherwise.
    fn ignored(&self) -> Vec<(&'static str, Location)> {
        let at = |key, location: Option<Location>| location.map(|location| (key, location));
        [
            at("resources", self.resources.as_ref().filter(|list| !list.value.is_empty()).map(|l| l.referenced)),
            at("discovery", self.discovery.as_ref().filter(|list| !list.value.is_empty()).map(|l| l.referenced)),
            at(
                "group_id_coordination_expression",
                self.group_id_coordination_expression.as_ref().map(|text| text.referenced),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A whole number of seconds, greater than 0; Ceilometer accepts the digits as text, too.
fn interval(value: &serde_json::Value) -> Result<Duration, String> {
    let seconds = value.as_u64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    match seconds {
        Some(seconds) if (1..=INTERVAL_S_MAX).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`interval` is {value}; expected whole seconds from 1 to {INTERVAL_S_MAX}")),
    }
}

/// Ceilometer's rules: names, or `*`, or exclusions, or `*` with exclusions.
fn meters(entry: &SourceEntry) -> Result<MeterSelection, (Location, String)> {
    let list = &entry.meters;
    if list.value.is_empty() {
        return Err((list.referenced, "`meters` is empty".to_owned()));
    }
    let is_excluded = |meter: &str| meter.starts_with('!');
    let is_wildcard = |meter: &str| meter == "*";
    let has = |kind: &dyn Fn(&str) -> bool| list.value.iter().any(|meter| kind(&meter.value));
    for meter in &list.value {
        let text = meter.value.as_str();
        let wrong = if text.is_empty() || text == "!" {
            Some("a meter's name is empty".to_owned())
        } else if is_excluded(text) || is_wildcard(text) {
            None
        } else if has(&is_excluded) {
            Some(format!("`{text}` is included while others are excluded; a source does one or the other"))
        } else if has(&is_wildcard) {
            Some(format!("`{text}` is listed beside `*`, which includes it already"))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err((meter.referenced, wrong));
        }
    }
    let mut selection = MeterSelection::default();
    for meter in &list.value {
        selection.add(&meter.value).map_err(|why| (meter.referenced, why))?;
    }
    Ok(selection)
}

/// The library's words, with the key that was probably meant.
fn reason(error: &serde_saphyr::Error) -> String {
    let words = error.to_string();
    // The place is told by `PollingError` already.
    let words = words.split_once(" at line ").map_or(words.as_str(), |(words, _)| words);
    match crate::settings::nearest_key(words) {
        Some(key) => format!("{words} (did you mean `{key}`?)"),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Polling::parse("polling.yaml", text).unwrap_err().to_string()
    }

    fn source(meters: &str) -> String {
        format!("sources:\n  - name: a\n    interval: 300\n    meters: {meters}\n")
    }

    #[test]
    fn the_shipped_definition_polls_everything_every_ten_seconds() {
        let polling = Polling::shipped();
        let plan = polling.plan(&["cpu", "hardware.cpu.util"]);
        assert_eq!(plan, BTreeMap::from([(Duration::from_secs(10), vec!["cpu", "hardware.cpu.util"])]));
    }

    #[test]
    fn a_file_of_ceilometers() {
        let text = "---\nsources:\n    - name: some_pollsters\n      interval: 300\n      meters:\n        - power.state\n        \
                    - cpu\n        - disk.device.read.*\n    - name: others\n      interval: 60\n      meters: ['!cpu', '!power.*']\n";
        let polling = Polling::parse("polling.yaml", text).unwrap();
        let meters = ["power.state", "cpu", "memory", "disk.device.read.bytes", "disk.device.write.bytes"];
        let plan = polling.plan(&meters);
        assert_eq!(
            plan,
            BTreeMap::from([
                (Duration::from_secs(60), vec!["memory", "disk.device.read.bytes", "disk.device.write.bytes"]),
                (Duration::from_secs(300), vec!["power.state", "cpu", "disk.device.read.bytes"]),
            ])
        );
        assert!(polling.ignored.is_empty());
    }

    #[test]
    fn errors_say_where() {
        for (text, expected) in [
            (
                "sources:\n  - name: a\n    interval: 0\n    meters: ['*']\n",
                "polling.yaml:3:15: `interval` is 0; expected",
            ),
            ("sources:\n  - name: a\n    interval: 1.5\n    meters: ['*']\n", "polling.yaml:3:15: `interval` is 1.5;"),
            (&source("[]"), "polling.yaml:4:13: `meters` is empty"),
            (&source("['cpu', '!memory']"), "polling.yaml:4:14: `cpu` is included while others are excluded"),
            (&source("['*', 'memory']"), "polling.yaml:4:19: `memory` is listed beside `*`"),
            (&source("['']"), "polling.yaml:4:14: a meter's name is empty"),
            (&source("['a[']"), "polling.yaml:4:14: "),
            ("sources: []\n", "polling.yaml:0:0: `sources` is empty"),
        ] {
            let got = error(text);
            assert!(got.starts_with(expected), "{got}\nshould start with\n{expected}");
        }
        let two = format!("{}{}", source("['*']"), &source("['*']")["sources:\n".len()..]);
        assert!(error(&two).starts_with("polling.yaml:5:11: two sources are called `a`"), "{}", error(&two));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_line_and_nearest_key() {
        let got = error("sources:\n  - name: a\n    intervall: 10\n    meters: ['*']\n");
        assert!(got.starts_with("polling.yaml:3:5: "), "{got}");
        assert!(got.ends_with("(did you mean `interval`?)"), "{got}");
        assert!(error("sources: {").starts_with("polling.yaml:"));
    }

    #[test]
    fn what_is_not_done_is_told() {
        let text = format!("{}    discovery: [local_instances]\n    resources: []\n", source("['*']"));
        let polling = Polling::parse("polling.yaml", &text).unwrap();
        assert_eq!(polling.ignored.len(), 1);
        assert!(
            polling.ignored[0].starts_with("polling.yaml:5:16: `discovery` of source `a`"),
            "{:?}",
            polling.ignored
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z:\\[\\]{}*!&' \n-]{0,120}") {
            let _ = Polling::parse("polling.yaml", &text);
        }
    }
}
