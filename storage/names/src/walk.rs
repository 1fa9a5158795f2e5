//! Series and what they are called, page by page: first metrics of the index, then label sets. Whoever reads points as tables
//! walks here, so that all of them see the same series under the same names.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use orzo_index::{Catalog, CatalogRow, CatalogWanted, Index};
use orzo_labels::{LabelIndex, METRIC_NAME, Matcher, SharedLabels};
use orzo_model::SeriesId;

use crate::NamesError;

/// Label sets of one page.
const LABELLED_AT_ONCE: usize = 4096;
/// What is in the names of books that are not a project's own, such as those of native histograms: their points are words
/// of histograms, and no numbers that anybody sums.
const NOT_A_PROJECT: char = '\u{1}';

/// What may be said of a series, as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// UUID of the metric; none of label sets.
    MetricId,
    /// The metric's name, or the label `__name__`.
    Meter,
    /// The metric's unit.
    Unit,
    /// Its archive policy.
    ArchivePolicy,
    /// UUID of the resource.
    ResourceId,
    /// The text that the resource was created with.
    OriginalResourceId,
    /// Its type.
    ResourceType,
    /// Who owns it, or has written the label set.
    ProjectId,
    /// Whose it is within the project.
    UserId,
}

/// Which series are wanted: those of which all of this holds.
#[derive(Clone, Debug, Default)]
pub struct NamesWanted {
    /// Only these numbers, sorted; `None`: whichever.
    pub series: Option<Vec<i64>>,
    /// Names that must be one of some texts; each list sorted.
    pub texts: Vec<(Name, Vec<String>)>,
}

impl NamesWanted {
    fn of(&self, name: Name) -> Option<&Vec<String>> {
        self.texts.iter().find(|(one, _)| *one == name).map(|(_, texts)| texts)
    }

    fn has_series(&self, series: SeriesId) -> bool {
        self.series.as_ref().is_none_or(|all| i64::try_from(series.0).is_ok_and(|one| all.binary_search(&one).is_ok()))
    }

    fn has(&self, named: &Named) -> bool {
        let has = |(name, texts): &(Name, Vec<String>)| {
            named.text(*name).is_some_and(|text| texts.binary_search_by(|one| one.as_str().cmp(text)).is_ok())
        };
        self.has_series(named.series()) && self.texts.iter().all(has)
    }
}

/// A series and its names.
pub enum Named {
    /// A metric.
    Metric(Box<CatalogRow>),
    /// A label set of a project.
    Labelled {
        /// Its number.
        series: SeriesId,
        /// Who has written it.
        project: Arc<str>,
        /// Names and values, by name.
        labels: SharedLabels,
    },
}

impl Named {
    /// Its number.
    pub fn series(&self) -> SeriesId {
        match self {
            Self::Metric(row) => row.series,
            Self::Labelled { series, .. } => *series,
        }
    }

    /// What is said of it.
    pub fn text(&self, name: Name) -> Option<&str> {
        match self {
            Self::Metric(row) => match name {
                Name::MetricId => Some(&row.id),
                Name::Meter => row.name.as_deref(),
                Name::Unit => row.unit.as_deref(),
                Name::ArchivePolicy => Some(&row.archive_policy),
                Name::ResourceId => row.resource_id.as_deref(),
                Name::OriginalResourceId => row.original_resource_id.as_deref(),
                Name::ResourceType => row.resource_type.as_deref(),
                Name::ProjectId => row.project_id.as_deref(),
                Name::UserId => row.user_id.as_deref(),
            },
            Self::Labelled { project, labels, .. } => match name {
                Name::Meter => labels.iter().find(|(name, _)| &**name == METRIC_NAME).map(|(_, value)| &**value),
                Name::ProjectId => Some(project),
                _ => None,
            },
        }
    }

    /// Since when its resource exists and until when it did, in microseconds, where that is known.
    pub fn life(&self) -> (Option<i64>, Option<i64>) {
        match self {
            Self::Metric(row) => (row.started_at, row.ended_at),
            Self::Labelled { .. } => (None, None),
        }
    }

    /// Its labels, or its resource's attributes as texts; by name.
    pub fn each_label(&self, mut each: impl FnMut(&str, &str)) {
        match self {
            Self::Labelled { labels, .. } => labels.iter().for_each(|(name, value)| each(name, value)),
            Self::Metric(row) => {
                let attributes = row.attributes.as_deref().and_then(|text| serde_json::from_str(text).ok());
                let attributes: serde_json::Map<String, serde_json::Value> = attributes.unwrap_or_default();
                for (name, value) in &attributes {
                    if let Some(text) = attribute_text(value) {
                        each(name, &text);
                    }
                }
            }
        }
    }

    /// [`Self::each_label`] as a JSON object of texts, added to a buffer.
    pub fn write_labels(&self, json: &mut Vec<u8>) {
        json.push(b'{');
        let mut is_first = true;
        self.each_label(|name, value| {
            if !std::mem::take(&mut is_first) {
                json.push(b',');
            }
            serde_json::to_writer(&mut *json, name).expect("a text goes into memory");
            json.push(b':');
            serde_json::to_writer(&mut *json, value).expect("a text goes into memory");
        });
        json.push(b'}');
    }
}

/// An attribute's value as a text; `None`: there is none.
pub fn attribute_text(value: &serde_json::Value) -> Option<Cow<'_, str>> {
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.into()),
        other => Some(other.to_string().into()),
    }
}

/// A walk through all names that are wanted.
pub struct Names<'s> {
    wanted: &'s NamesWanted,
    metrics: Option<Catalog<'s>>,
    labels: Option<&'s LabelIndex>,
    /// Projects, what labels must be, and where the next page begins.
    left: VecDeque<(Arc<str>, Vec<Matcher>, u32)>,
}

impl<'s> Names<'s> {
    /// Begins at the first of them.
    pub fn new(index: &'s Index, labels: Option<&'s LabelIndex>, wanted: &'s NamesWanted) -> Self {
        let mut walk = Self::of_labels(labels, wanted);
        let of = |name| wanted.of(name).cloned();
        walk.metrics = Some(index.catalog(&CatalogWanted {
            series: wanted.series.clone(),
            ids: of(Name::MetricId),
            resource_ids: of(Name::ResourceId),
            original_resource_ids: of(Name::OriginalResourceId),
            names: of(Name::Meter),
            project_ids: of(Name::ProjectId),
        }));
        walk
    }

    /// Label sets only.
    pub(crate) fn of_labels(labels: Option<&'s LabelIndex>, wanted: &'s NamesWanted) -> Self {
        // A label set has a name and an owner, and nothing else that a resource has.
        let may_be_labelled = wanted.texts.iter().all(|(name, _)| matches!(name, Name::Meter | Name::ProjectId));
        let labels = labels.filter(|_| may_be_labelled);
        let left = labels.map(|labels| places(labels, wanted)).unwrap_or_default();
        Self { wanted, metrics: None, labels, left }
    }

    /// The next page, perhaps an empty one; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Named>>, NamesError> {
        if let Some(metrics) = &mut self.metrics {
            match metrics.next().await? {
                Some(rows) => {
                    let named = rows.into_iter().map(|row| Named::Metric(Box::new(row)));
                    return Ok(Some(named.filter(|named| self.wanted.has(named)).collect()));
                }
                None => self.metrics = None,
            }
        }
        let (Some(labels), Some((project, matchers, from))) = (self.labels, self.left.pop_front()) else {
            return Ok(None);
        };
        let is_wanted = |series: SeriesId| self.wanted.has_series(series);
        let (found, next) = labels.find_page(&project, &matchers, is_wanted, from, LABELLED_AT_ONCE);
        if let Some(next) = next {
            self.left.push_front((project.clone(), matchers, next));
        }
        let named =
            found.into_iter().map(|(series, labels)| Named::Labelled { series, project: project.clone(), labels });
        Ok(Some(named.filter(|named| self.wanted.has(named)).collect()))
    }

    /// Whether what comes next are label sets.
    pub(crate) fn is_past_metrics(&self) -> bool {
        self.metrics.is_none()
    }
}

/// Projects whose label sets are series of numbers.
pub(crate) fn projects(labels: &LabelIndex) -> impl Iterator<Item = Arc<str>> {
    labels.projects().into_iter().filter(|project| !project.contains(NOT_A_PROJECT))
}

/// Where to look for label sets: in each project, for each name.
fn places(labels: &LabelIndex, wanted: &NamesWanted) -> VecDeque<(Arc<str>, Vec<Matcher>, u32)> {
    let (owners, meters) = (wanted.of(Name::ProjectId), wanted.of(Name::Meter));
    let is_wanted =
        |project: &Arc<str>| owners.as_ref().is_none_or(|owners| owners.iter().any(|owner| **owner == **project));
    let mut places = VecDeque::new();
    for project in projects(labels).filter(is_wanted) {
        match &meters {
            None => places.push_back((project, Vec::new(), 0)),
            // Nothing is called nothing: such a label is not there.
            Some(meters) => places.extend(
                meters
                    .iter()
                    .filter(|meter| !meter.is_empty())
                    .map(|meter| (project.clone(), vec![Matcher::equal(METRIC_NAME, meter.as_str())], 0)),
            ),
        }
    }
    places
}
