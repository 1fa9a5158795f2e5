//! The tables that a query sees, and what it may ask of them. Pure; both sides of the socket read it.
//!
//! | table | a row is | columns |
//! |---|---|---|
//! | `series` | a series that is alive | its number and its names |
//! | `samples` | a point of one | `series`, `metric_id`, `timestamp`, `value` |
//! | `measures` | the same, with its names | all |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// The zone of all times.
pub(crate) const ZONE: &str = "+00:00";

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Table {
    /// Series and their names.
    Series,
    /// Points.
    Samples,
    /// Points with names.
    Measures,
}

/// A column of any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Column {
    /// Number of the series in the store.
    Series,
    /// UUID of the metric; none of label sets.
    MetricId,
    /// What is measured: the metric's name, or the label `__name__`.
    Meter,
    /// Unit of the metric.
    Unit,
    /// Name of the metric's archive policy.
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
    /// Labels of a label set, or attributes of a resource.
    Labels,
    /// When, of a point.
    Timestamp,
    /// Its value.
    Value,
}

use Column::{
    ArchivePolicy, Labels, Meter, MetricId, OriginalResourceId, ProjectId, ResourceId, ResourceType, Series, Timestamp,
    Unit, UserId, Value,
};

/// All columns, in the order in which `measures` has them.
pub(crate) const COLUMNS: [Column; 13] = [
    Series,
    MetricId,
    Meter,
    Unit,
    ArchivePolicy,
    ResourceId,
    OriginalResourceId,
    ResourceType,
    ProjectId,
    UserId,
    Labels,
    Timestamp,
    Value,
];

impl Column {
    /// As queries write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Series => "series",
            MetricId => "metric_id",
            Meter => "meter",
            Unit => "unit",
            ArchivePolicy => "archive_policy",
            ResourceId => "resource_id",
            OriginalResourceId => "original_resource_id",
            ResourceType => "resource_type",
            ProjectId => "project_id",
            UserId => "user_id",
            Labels => "labels",
            Timestamp => "timestamp",
            Value => "value",
        }
    }

    /// The column of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        COLUMNS.into_iter().find(|column| column.name() == name)
    }

    /// Whether it is said of a series, not of a point.
    pub(crate) fn is_name(self) -> bool {
        !matches!(self, Timestamp | Value)
    }

    /// Whether it is a text.
    pub(crate) fn is_text(self) -> bool {
        !matches!(self, Series | Labels | Timestamp | Value)
    }

    fn field(self) -> Field {
        match self {
            Series => Field::new(self.name(), DataType::Int64, false),
            Timestamp => Field::new(self.name(), DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into())), false),
            Value => Field::new(self.name(), DataType::Float64, false),
            Labels => Field::new(self.name(), DataType::Map(Arc::new(entries()), false), false),
            _ => Field::new(self.name(), DataType::Utf8View, true),
        }
    }
}

/// An entry of a map of texts, as `arrow`'s builder of maps makes it.
fn entries() -> Field {
    let key = Field::new("keys", DataType::Utf8, false);
    let value = Field::new("values", DataType::Utf8, true);
    Field::new("entries", DataType::Struct(Fields::from(vec![key, value])), false)
}

impl Table {
    /// Every table.
    pub(crate) const ALL: [Self; 3] = [Self::Series, Self::Samples, Self::Measures];

    /// As queries write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Samples => "samples",
            Self::Measures => "measures",
        }
    }

    /// Its columns.
    pub(crate) fn columns(self) -> Vec<Column> {
        match self {
            Self::Series => COLUMNS.into_iter().filter(|column| column.is_name()).collect(),
            Self::Samples => vec![Series, MetricId, Timestamp, Value],
            Self::Measures => COLUMNS.to_vec(),
        }
    }

    /// Whether its rows are points.
    pub(crate) fn has_points(self) -> bool {
        self != Self::Series
    }
}

/// The schema of some columns.
pub(crate) fn schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|column| column.field()).collect::<Vec<_>>()))
}

/// A column whose text must be one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OneOf {
    pub(crate) column: Column,
    pub(crate) texts: Vec<String>,
}

/// Which rows and columns of a table are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) table: Table,
    pub(crate) columns: Vec<Column>,
    /// Only these series, sorted; `None`: whichever.
    pub(crate) series: Option<Vec<i64>>,
    /// All of these must hold.
    pub(crate) texts: Vec<OneOf>,
    /// First and last microsecond, both inclusive.
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Wanted {
    /// Everything of a table.
    pub(crate) fn all(table: Table, columns: Vec<Column>) -> Self {
        Self { table, columns, series: None, texts: Vec::new(), first: i64::MIN, last: i64::MAX }
    }

    /// The texts that a column must be one of; of several lists what is in all. `None`: whichever.
    pub(crate) fn texts_of(&self, column: Column) -> Option<Vec<String>> {
        let mut lists = self.texts.iter().filter(|one| one.column == column);
        let mut texts = lists.next()?.texts.clone();
        for other in lists {
            texts.retain(|text| other.texts.contains(text));
        }
        texts.sort_unstable();
        texts.dedup();
        Some(texts)
    }
}
