//! `info`: series with the labels of what describes them, such as `target_info` of OpenTelemetry.
//!
//! A series is described by those info series that have its `instance` and `job`. At each time the newest of these counts,
//! for each metric of that kind; two of the same age are an error, as are two that disagree on a label.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    Labels, Series,
    column::{Column, is_present},
    error::QueryError,
    labels::NAME,
    matching::merge_same,
    source::{Matcher, MatcherGroup},
};

/// What describes series unless the query names something else.
pub(crate) const TARGET_INFO: &str = "target_info";
/// The labels by which a series and what describes it belong together.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Which labels are added, and what they must be.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Which metrics describe, and what is said of the labels that they add; without a word of these all are added.
    groups: Vec<MatcherGroup>,
}

impl Wanted {
    /// From the second argument, if there is one: what is wanted; its groups are the series that describe.
    pub(crate) fn of(said: Option<Vec<MatcherGroup>>) -> Self {
        let mut groups = said.unwrap_or_else(|| vec![Vec::new()]);
        for group in &mut groups {
            if !group.iter().any(|matcher| matcher.name == NAME) {
                group.push(Matcher::equal(NAME, TARGET_INFO));
            }
        }
        Self { groups }
    }

    pub(crate) fn groups(&self) -> &[MatcherGroup] {
        &self.groups
    }

    /// What is said of the labels.
    fn of_labels(&self) -> impl Iterator<Item = &Matcher> {
        self.groups.iter().flatten().filter(|matcher| matcher.name != NAME)
    }

    /// Whether a label is added.
    fn adds(&self, name: &str) -> bool {
        let mut said = self.of_labels().peekable();
        said.peek().is_none() || said.any(|matcher| matcher.name == name)
    }

    /// Whether a series without any added label stays.
    fn allows_nothing(&self) -> bool {
        self.of_labels().all(|matcher| matcher.is_match(""))
    }

    /// Whether a series is of a metric that describes.
    fn describes(&self, labels: &Labels) -> bool {
        let is_own = |matcher: &Matcher| matcher.name != NAME || matcher.is_match(labels.get(NAME));
        self.groups.iter().any(|group| group.iter().all(is_own))
    }
}

/// Adds labels to series; `times` are the describing series with the times of their samples as values.
pub(crate) fn enriched(
    series: Vec<Series>,
    times: &[Series],
    wanted: &Wanted,
    count: usize,
) -> Result<Vec<Series>, QueryError> {
    let identity = |labels: &Labels| labels.filter(|name| IDENTIFYING.contains(&name));
    let mut described: HashMap<Labels, Vec<usize>> = HashMap::new();
    for (at, one) in times.iter().enumerate() {
        described.entry(identity(&one.labels)).or_default().push(at);
    }
    let mut out = Vec::with_capacity(series.len());
    for one in series {
        if wanted.describes(&one.labels) {
            out.push(one);
            continue;
        }
        let own = identity(&one.labels);
        // Without an identity there is nothing that could describe it.
        let describing = if own.is_empty() { &[][..] } else { described.get(&own).map_or(&[][..], Vec::as_slice) };
        // Mostly the same series describe it at all times: columns by what they say.
        let mut columns: BTreeMap<Vec<usize>, Column> = BTreeMap::new();
        for (at, value) in one.column.iter() {
            let newest = newest(describing, times, at)?;
            columns.entry(newest).or_insert_with(|| Column::absent(count)).0[at] = value;
        }
        for (describing, column) in columns {
            let added = added(&one.labels, describing.iter().map(|at| &times[*at].labels), wanted)?;
            if added.is_empty() && !wanted.allows_nothing() {
                continue;
            }
            let labels = added.iter().fold(one.labels.clone(), |labels, (name, value)| labels.with(name, value));
            out.push(Series { labels, column });
        }
    }
    merge_same(out)
}

/// Of each metric that describes, the series whose sample is the newest at one time.
fn newest(describing: &[usize], times: &[Series], at: usize) -> Result<Vec<usize>, QueryError> {
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    for one in describing.iter().copied().filter(|one| is_present(times[*one].column.0[at])) {
        let time = |one: usize| times[one].column.0[at];
        match newest.get_mut(times[one].labels.get(NAME)) {
            None => {
                newest.insert(times[one].labels.get(NAME), one);
            }
            Some(other) if time(*other) < time(one) => *other = one,
            Some(other) if time(*other) > time(one) => {}
            Some(other) => {
                return Err(QueryError::execution(format!(
                    "found duplicate series for info metric: existing {}, new {}, both at {} s",
                    times[*other].labels,
                    times[one].labels,
                    time(one),
                )));
            }
        }
    }
    Ok(newest.into_values().collect())
}

/// The labels that describing series add to one.
fn added<'a>(
    own: &Labels,
    describing: impl Iterator<Item = &'a Labels>,
    wanted: &Wanted,
) -> Result<Vec<(&'a str, &'a str)>, QueryError> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    let owned: HashSet<&str> = own.iter().map(|(name, _)| &**name).collect();
    for (name, value) in describing.flat_map(Labels::iter) {
        if &**name == NAME || !wanted.adds(name) {
            continue;
        }
        if added.get(&**name).is_some_and(|other| *other != &**value) {
            return Err(QueryError::execution(format!("conflicting label: {name}")));
        }
        if !owned.contains(&**name) {
            added.insert(name, value);
        }
    }
    Ok(added.into_iter().collect())
}
