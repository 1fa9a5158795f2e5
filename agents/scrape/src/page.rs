//! From a target's page to its samples: labels of the target, the time of the slot, what has vanished since the last page,
//! and the report on the scrape itself. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use orzo_model::{Exemplar, MetricMetadata, Timestamp};

use crate::{
    LabelledPoint, Labels, ScrapeError,
    text::{self, Form, Line, LineExemplar, Remark},
};

/// The NaN that says that a series has ended.
pub(crate) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// The label that is a series' name.
const NAME: &str = "__name__";

/// What a page has.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) points: Vec<LabelledPoint>,
    /// Series whose time is the slot; only they can become stale.
    pub(crate) series: HashSet<Labels>,
    /// What names mean.
    pub(crate) metadata: BTreeMap<String, MetricMetadata>,
}

/// Reads a page that was fetched for a slot.
pub(crate) fn read<'p>(
    page: &'p str,
    form: Form,
    own: &[(String, String)],
    slot: Timestamp,
    samples_max: usize,
) -> Result<Page, ScrapeError> {
    let mut found = Page::default();
    let mut said: BTreeMap<&'p str, (&'p str, &'p str, &'p str)> = BTreeMap::new();
    let tell = |name: &'p str, remark: Remark<'p>| {
        // A page of remarks only is no larger in memory than its samples may be.
        if said.len() >= samples_max && !said.contains_key(name) {
            return;
        }
        let one = said.entry(name).or_default();
        match remark {
            Remark::Type(kind) => one.0 = kind,
            Remark::Help(help) => one.1 = help,
            Remark::Unit(unit) => one.2 = unit,
        }
    };
    text::read(page, form, tell, |mut line| {
        if found.points.len() >= samples_max {
            return Err(ScrapeError::TooManySamples { samples_max });
        }
        let at = line.at_ms.map_or(slot, |millis| Timestamp::from_micros(millis.saturating_mul(1000)));
        let (value, has_time) = (line.value, line.at_ms.is_some());
        let exemplar = line.exemplar.take().and_then(|one| exemplar_of(one, line.at_ms, slot));
        let labels = labels_of(line, own);
        if !has_time {
            found.series.insert(labels.clone());
        }
        found.points.push(LabelledPoint { labels, at, value, exemplar });
        Ok(())
    })?;
    let about = |(name, (kind, help, unit)): (&str, (&str, &str, &str))| {
        // OpenMetrics calls `unknown` what the older form calls `untyped`, and both escape line ends in helps.
        let help = help.replace("\\n", "\n").replace("\\\\", "\\");
        (name.to_owned(), MetricMetadata::new(kind, &help, unit))
    };
    found.metadata = said.into_iter().map(about).collect();
    Ok(found)
}

/// An exemplar's time is its own, its sample's, or the slot. One that is too long is none.
fn exemplar_of(one: LineExemplar<'_>, at_ms: Option<i64>, slot: Timestamp) -> Option<Exemplar> {
    let at = one.at_ms.or(at_ms).map_or(slot, |millis| Timestamp::from_micros(millis.saturating_mul(1000)));
    let labels = one.labels.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
    Exemplar::new(labels.collect(), one.value, at)
}

/// A line's labels and the target's. Where both have one, the line's is kept under `exported_...`, as in Prometheus.
fn labels_of(line: Line<'_>, own: &[(String, String)]) -> Labels {
    let is_own = |name: &str| own.iter().any(|(own, _)| own == name);
    let mut labels: Labels = own.to_vec();
    for (name, value) in line.labels {
        // An empty label is none, and the name is not a label's to give.
        if value.is_empty() || name == NAME {
            continue;
        }
        let mut name = name.into_owned();
        while is_own(&name) {
            name.insert_str(0, "exported_");
        }
        labels.push((name, value.into_owned()));
    }
    labels.push((NAME.to_owned(), line.name.into_owned()));
    labels.sort();
    labels.dedup_by(|a, b| a.0 == b.0);
    labels
}

/// An end for each series that was there and is not any more.
pub(crate) fn vanished(before: &HashSet<Labels>, now: &HashSet<Labels>, slot: Timestamp) -> Vec<LabelledPoint> {
    let gone = before.difference(now);
    gone.map(|labels| LabelledPoint { labels: labels.clone(), at: slot, value: STALE, exemplar: None }).collect()
}

/// How many series are new.
pub(crate) fn added(before: &HashSet<Labels>, now: &HashSet<Labels>) -> usize {
    now.difference(before).count()
}

/// What is told of each scrape.
pub(crate) fn report(
    own: &[(String, String)],
    slot: Timestamp,
    is_up: bool,
    seconds: f64,
    samples: usize,
    added: usize,
) -> Vec<LabelledPoint> {
    let rows = HashMap::from([
        ("up", f64::from(u8::from(is_up))),
        ("scrape_duration_seconds", seconds),
        ("scrape_samples_scraped", samples as f64),
        ("scrape_samples_post_metric_relabeling", samples as f64),
        ("scrape_series_added", added as f64),
    ]);
    rows.into_iter()
        .map(|(name, value)| {
            let mut labels = own.to_vec();
            labels.push((NAME.to_owned(), name.to_owned()));
            labels.sort();
            LabelledPoint { labels, at: slot, value, exemplar: None }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn shown(points: &[LabelledPoint]) -> Vec<String> {
        let one = |point: &LabelledPoint| {
            let labels: Vec<String> = point.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} {} {}", labels.join(","), point.value, point.at.micros() / 1000)
        };
        let mut shown: Vec<String> = points.iter().map(one).collect();
        shown.sort();
        shown
    }

    #[test]
    fn what_names_mean_and_what_is_behind_values_is_read() {
        let page = "# TYPE took histogram\n# UNIT took seconds\n# HELP took How\\nlong.\ntook_bucket{le=\"1\"} 4 # {t=\"x\"} 0.5\n\
                    took_count 4 9 # {t=\"y\"} 0.7 8.5\n# EOF\n";
        let found = read(page, Form::OpenMetrics, &[], Timestamp::from_secs(100), 10).expect("a page");
        let exemplars: Vec<_> = found.points.iter().filter_map(|point| point.exemplar.as_ref()).collect();
        assert_eq!((exemplars[0].value, exemplars[0].at), (0.5, Timestamp::from_secs(100)));
        assert_eq!((exemplars[1].labels[0].1.as_str(), exemplars[1].at.micros()), ("y", 8_500_000));
        assert_eq!(found.metadata["took"], MetricMetadata::new("histogram", "How\nlong.", "seconds"));
        assert_eq!(found.metadata.len(), 1);
    }

    #[test]
    fn a_target_names_its_series_and_ends_what_is_gone() {
        let own = [pair("instance", "h:1"), pair("job", "node")];
        let slot = Timestamp::from_secs(100);
        let first = read("a{job=\"x\",empty=\"\"} 1\nb 2 5000\nc 3\n", Form::Text, &own, slot, 10).expect("a page");
        assert_eq!(
            shown(&first.points),
            [
                "__name__=a,exported_job=x,instance=h:1,job=node 1 100000",
                "__name__=b,instance=h:1,job=node 2 5000",
                "__name__=c,instance=h:1,job=node 3 100000",
            ]
        );
        let later = Timestamp::from_secs(115);
        let second = read("c 4\nd 5\n", Form::Text, &own, later, 10).expect("a page");
        // What has a time of its own ends by its own times.
        let gone = vanished(&first.series, &second.series, later);
        assert_eq!(shown(&gone), ["__name__=a,exported_job=x,instance=h:1,job=node NaN 115000"]);
        assert_eq!(gone[0].value.to_bits(), STALE.to_bits());
        assert_eq!(added(&first.series, &second.series), 1);
        assert_eq!(vanished(&second.series, &HashSet::new(), later).len(), 2);
        assert!(matches!(
            read("a 1\nb 1\n", Form::Text, &own, slot, 1),
            Err(ScrapeError::TooManySamples { samples_max: 1 })
        ));
    }
}
