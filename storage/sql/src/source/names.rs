//! Series and what they are called, page by page: first metrics of the index, then label sets.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use orzo_index::{Catalog, CatalogRow, CatalogWanted};
use orzo_labels::{LabelIndex, Matcher, SharedLabels};
use orzo_model::SeriesId;

use super::Source;
use crate::{
    error::SqlError,
    tables::{Column, Wanted},
};

/// Label sets of one page.
const LABELLED_AT_ONCE: usize = 4096;
/// What is in the names of books that are not a project's own, such as those of native histograms: their points are words
/// of histograms, and no numbers that anybody sums.
const NOT_A_PROJECT: char = '\u{1}';
/// The label with a series' name.
const NAME: &str = "__name__";

/// A series and its names.
pub(super) enum Named {
    /// A metric.
    Metric(Box<CatalogRow>),
    /// A label set of a project.
    Labelled { series: SeriesId, project: Arc<str>, labels: SharedLabels },
}

impl Named {
    /// Its number.
    pub(super) fn series(&self) -> SeriesId {
        match self {
            Self::Metric(row) => row.series,
            Self::Labelled { series, .. } => *series,
        }
    }

    /// What stands in a column of texts.
    pub(super) fn text(&self, column: Column) -> Option<&str> {
        match self {
            Self::Metric(row) => match column {
                Column::MetricId => Some(&row.id),
                Column::Meter => row.name.as_deref(),
                Column::Unit => row.unit.as_deref(),
                Column::ArchivePolicy => Some(&row.archive_policy),
                Column::ResourceId => row.resource_id.as_deref(),
                Column::OriginalResourceId => row.original_resource_id.as_deref(),
                Column::ResourceType => row.resource_type.as_deref(),
                Column::ProjectId => row.project_id.as_deref(),
                Column::UserId => row.user_id.as_deref(),
                _ => None,
            },
            Self::Labelled { project, labels, .. } => match column {
                Column::Meter => labels.iter().find(|(name, _)| &**name == NAME).map(|(_, value)| &**value),
                Column::ProjectId => Some(project),
                _ => None,
            },
        }
    }

    /// Its labels, or its resource's attributes as texts.
    pub(super) fn each_label(&self, mut each: impl FnMut(&str, &str)) {
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
}

/// An attribute's value as a text; `None`: there is none.
pub(super) fn attribute_text(value: &serde_json::Value) -> Option<Cow<'_, str>> {
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.into()),
        other => Some(other.to_string().into()),
    }
}

/// A walk through all names that are wanted.
pub(super) struct Names<'s> {
    wanted: &'s Wanted,
    /// Sorted texts of columns that must be one of them.
    texts: Vec<(Column, Vec<String>)>,
    metrics: Option<Catalog<'s>>,
    labels: Option<&'s LabelIndex>,
    /// Projects, what labels must be, and where the next page begins.
    left: VecDeque<(Arc<str>, Vec<Matcher>, u32)>,
}

impl<'s> Names<'s> {
    pub(super) fn new(source: &'s Source, wanted: &'s Wanted) -> Self {
        let of = |column| wanted.texts_of(column);
        let catalog = source.index.catalog(&CatalogWanted {
            series: wanted.series.clone(),
            ids: of(Column::MetricId),
            resource_ids: of(Column::ResourceId),
            original_resource_ids: of(Column::OriginalResourceId),
            names: of(Column::Meter),
            project_ids: of(Column::ProjectId),
        });
        let columns: Vec<Column> = wanted.texts.iter().map(|one| one.column).collect();
        let texts = columns.iter().filter_map(|column| Some((*column, of(*column)?))).collect();
        // A label set has a name and an owner, and nothing else that a resource has.
        let may_be_labelled = columns.iter().all(|column| matches!(column, Column::Meter | Column::ProjectId));
        let labels = source.labels.as_deref().filter(|_| may_be_labelled);
        let left = labels.map(|labels| places(labels, wanted)).unwrap_or_default();
        Self { wanted, texts, metrics: Some(catalog), labels, left }
    }

    /// The next page, perhaps an empty one; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Named>>, SqlError> {
        if let Some(metrics) = &mut self.metrics {
            match metrics.next().await.map_err(SqlError::unavailable)? {
                Some(rows) => {
                    let named = rows.into_iter().map(|row| Named::Metric(Box::new(row)));
                    return Ok(Some(named.filter(|named| self.is_wanted(named)).collect()));
                }
                None => self.metrics = None,
            }
        }
        let (Some(labels), Some((project, matchers, from))) = (self.labels, self.left.pop_front()) else {
            return Ok(None);
        };
        let is_wanted = |series: SeriesId| has_series(self.wanted, series);
        let (found, next) = labels.find_page(&project, &matchers, is_wanted, from, LABELLED_AT_ONCE);
        if let Some(next) = next {
            self.left.push_front((project.clone(), matchers, next));
        }
        let named =
            found.into_iter().map(|(series, labels)| Named::Labelled { series, project: project.clone(), labels });
        Ok(Some(named.filter(|named| self.is_wanted(named)).collect()))
    }

    fn is_wanted(&self, named: &Named) -> bool {
        let has = |(column, texts): &(Column, Vec<String>)| {
            named.text(*column).is_some_and(|text| texts.binary_search_by(|one| one.as_str().cmp(text)).is_ok())
        };
        has_series(self.wanted, named.series()) && self.texts.iter().all(has)
    }
}

fn has_series(wanted: &Wanted, series: SeriesId) -> bool {
    wanted.series.as_ref().is_none_or(|all| i64::try_from(series.0).is_ok_and(|one| all.binary_search(&one).is_ok()))
}

/// Where to look for label sets: in each project, for each name.
fn places(labels: &LabelIndex, wanted: &Wanted) -> VecDeque<(Arc<str>, Vec<Matcher>, u32)> {
    let (owners, meters) = (wanted.texts_of(Column::ProjectId), wanted.texts_of(Column::Meter));
    let is_wanted = |project: &Arc<str>| {
        !project.contains(NOT_A_PROJECT)
            && owners.as_ref().is_none_or(|owners| owners.iter().any(|owner| **owner == **project))
    };
    let mut places = VecDeque::new();
    for project in labels.projects().into_iter().filter(is_wanted) {
        match &meters {
            None => places.push_back((project, Vec::new(), 0)),
            // Nothing is called nothing: such a label is not there.
            Some(meters) => places.extend(
                meters
                    .iter()
                    .filter(|meter| !meter.is_empty())
                    .map(|meter| (project.clone(), vec![Matcher::equal(NAME, meter.as_str())], 0)),
            ),
        }
    }
    places
}
