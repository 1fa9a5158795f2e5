//! The tables that a query sees, and what it may ask of them. Pure; both sides of the socket read it.
//!
//! | table | a row is | columns |
//! |---|---|---|
//! | `series` | a series that is alive | its number and its names |
//! | `samples` | a point of one | `series`, `metric_id`, `timestamp`, `value` |
//! | `measures` | the same, with its names | all of both |
//! | `events` | an event | when, of what type, about what, its traits |
//! | `revisions` | a resource as it was for a time | its names, since when and until when, its attributes |
//! | `rated_lines` | a line of the rating's ledger | as the ledger's files have them |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// The zone of all times.
pub(crate) const ZONE: &str = "+00:00";
/// Digits of a decimal, as the ledger's files have them.
pub(crate) const PRECISION: u8 = 38;
/// Digits after the point.
pub(crate) const SCALE: i8 = orzo_rating::COST_SCALE as i8;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Table {
    /// Series and their names.
    Series,
    /// Points.
    Samples,
    /// Points with names.
    Measures,
    /// What happened.
    Events,
    /// Resources as they were.
    Revisions,
    /// What was charged.
    RatedLines,
}

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Names and values, both texts.
    Map,
    Long,
    Int,
    Double,
    Decimal,
    Flag,
    Time,
}

/// Declares the columns: each with its name in queries, what its values are, and whether every row has one.
macro_rules! columns {
    ($($(#[$doc:meta])* $column:ident $name:literal $kind:ident $is_given:literal,)*) => {
        /// A column of any table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub(crate) enum Column {
            $($(#[$doc])* $column,)*
        }

        /// All columns.
        #[cfg(test)]
        pub(crate) const COLUMNS: &[Column] = &[$(Column::$column),*];

        impl Column {
            /// As queries write it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$column => $name,)*
                }
            }

            /// What its values are.
            pub(crate) fn kind(self) -> Kind {
                match self {
                    $(Self::$column => Kind::$kind,)*
                }
            }

            /// Whether every row has a value.
            fn is_given(self) -> bool {
                match self {
                    $(Self::$column => $is_given,)*
                }
            }

            /// The column of this name. Tables that have a name in common have the column in common.
            pub(crate) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$column),)*
                    _ => None,
                }
            }
        }
    };
}

columns! {
    /// Number of the series in the store.
    Series "series" Long true,
    /// UUID of the metric; none of label sets.
    MetricId "metric_id" Text false,
    /// What is measured: the metric's name, or the label `__name__`.
    Meter "meter" Text false,
    /// Unit of the metric, or of a line's quantity.
    Unit "unit" Text false,
    /// Name of the metric's archive policy.
    ArchivePolicy "archive_policy" Text false,
    /// UUID of the resource; of an event the text in its trait of this name.
    ResourceId "resource_id" Text false,
    /// The text that the resource was created with.
    OriginalResourceId "original_resource_id" Text false,
    /// Its type.
    ResourceType "resource_type" Text false,
    /// Who owns it, or has written the label set.
    ProjectId "project_id" Text false,
    /// Whose it is within the project.
    UserId "user_id" Text false,
    /// Labels of a label set, or attributes of a resource.
    Labels "labels" Map true,
    /// When, of a point.
    Timestamp "timestamp" Time true,
    /// Its value.
    Value "value" Double true,
    /// The emitter's id of an event.
    MessageId "message_id" Text true,
    /// Such as `compute.instance.create.end`.
    EventType "event_type" Text true,
    /// When it happened.
    GeneratedAt "generated_at" Time true,
    /// What it says, by name; of a name that is there twice the first.
    Traits "traits" Map true,
    /// Since when a resource exists.
    StartedAt "started_at" Time true,
    /// Until when it existed.
    EndedAt "ended_at" Time false,
    /// Since when it was as the revision says.
    RevisionStart "revision_start" Time true,
    /// Until when it was so; none of the current revision.
    RevisionEnd "revision_end" Time false,
    /// What else is known of it.
    Attributes "attributes" Map true,
    /// Of a rated line: UUIDv5 of what makes it this line.
    Id "id" Text true,
    /// Project.
    Scope "scope" Text true,
    /// Metric type.
    Service "service" Text true,
    /// The text that services know the resource by.
    Resource "resource" Text true,
    /// Used from.
    Begin "begin" Time true,
    /// Used until.
    End "end" Time true,
    /// Begin of the rating period that it belongs to.
    Period "period" Time true,
    /// How much.
    Quantity "quantity" Decimal true,
    /// What one unit costs.
    UnitPrice "unit_price" Decimal true,
    /// What it costs.
    Cost "cost" Decimal true,
    /// ISO 4217.
    Currency "currency" Text true,
    /// `Usage`, `Purchase`, `Tax`, `Credit`, `Adjustment`.
    LineKind "kind" Text true,
    /// The line that it takes back or replaces.
    Corrects "corrects" Text false,
    /// Whether it takes that back.
    Reverses "reverses" Flag true,
    /// The rule that priced it.
    Rule "rule" Text true,
    /// Version of the rules.
    RuleVersion "rule_version" Long true,
    /// Tells steps of one rule apart.
    Sequence "sequence" Int true,
    /// What the metric is grouped by.
    Groupby "groupby" Map true,
    /// What else rules look at.
    Metadata "metadata" Map true,
    /// How many samples or events it rests on.
    Samples "samples" Long true,
    /// When it was made.
    RatedAt "rated_at" Time true,
}

impl Column {
    /// Whether it is said once for all points of a series, or of a row without points.
    pub(crate) fn is_name(self) -> bool {
        !matches!(self, Self::Timestamp | Self::Value)
    }

    /// Whether it is a text.
    pub(crate) fn is_text(self) -> bool {
        self.kind() == Kind::Text
    }

    /// Whether it is a time.
    pub(crate) fn is_time(self) -> bool {
        self.kind() == Kind::Time
    }

    fn field(self) -> Field {
        let kind = match self.kind() {
            Kind::Text => DataType::Utf8View,
            Kind::Map => DataType::Map(Arc::new(entries()), false),
            Kind::Long => DataType::Int64,
            Kind::Int => DataType::Int32,
            Kind::Double => DataType::Float64,
            Kind::Decimal => DataType::Decimal128(PRECISION, SCALE),
            Kind::Flag => DataType::Boolean,
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into())),
        };
        Field::new(self.name(), kind, !self.is_given())
    }
}

/// An entry of a map of texts, as `arrow`'s builder of maps makes it.
fn entries() -> Field {
    let key = Field::new("keys", DataType::Utf8, false);
    let value = Field::new("values", DataType::Utf8, true);
    Field::new("entries", DataType::Struct(Fields::from(vec![key, value])), false)
}

/// What is said of a series.
const NAMES: [Column; 11] = [
    Column::Series,
    Column::MetricId,
    Column::Meter,
    Column::Unit,
    Column::ArchivePolicy,
    Column::ResourceId,
    Column::OriginalResourceId,
    Column::ResourceType,
    Column::ProjectId,
    Column::UserId,
    Column::Labels,
];

impl Table {
    /// Every table.
    pub(crate) const ALL: [Self; 6] =
        [Self::Series, Self::Samples, Self::Measures, Self::Events, Self::Revisions, Self::RatedLines];

    /// As queries write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Samples => "samples",
            Self::Measures => "measures",
            Self::Events => "events",
            Self::Revisions => "revisions",
            Self::RatedLines => "rated_lines",
        }
    }

    /// Its columns.
    pub(crate) fn columns(self) -> Vec<Column> {
        use Column::*;
        match self {
            Self::Series => NAMES.to_vec(),
            Self::Samples => vec![Series, MetricId, Timestamp, Value],
            Self::Measures => NAMES.into_iter().chain([Timestamp, Value]).collect(),
            Self::Events => vec![MessageId, EventType, GeneratedAt, ResourceId, ProjectId, UserId, Traits],
            Self::Revisions => vec![
                ResourceId,
                OriginalResourceId,
                ResourceType,
                ProjectId,
                UserId,
                StartedAt,
                EndedAt,
                RevisionStart,
                RevisionEnd,
                Attributes,
            ],
            Self::RatedLines => vec![
                Id,
                Scope,
                Service,
                Resource,
                Begin,
                End,
                Period,
                Unit,
                Quantity,
                UnitPrice,
                Cost,
                Currency,
                LineKind,
                Corrects,
                Reverses,
                Rule,
                RuleVersion,
                Sequence,
                Groupby,
                Metadata,
                Samples,
                RatedAt,
            ],
        }
    }

    /// Whether its rows are points.
    pub(crate) fn has_points(self) -> bool {
        matches!(self, Self::Samples | Self::Measures)
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

/// A column whose time must be between these microseconds, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Within {
    pub(crate) column: Column,
    pub(crate) first: i64,
    pub(crate) last: i64,
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
    /// And all of these.
    pub(crate) times: Vec<Within>,
}

impl Wanted {
    /// Everything of a table.
    pub(crate) fn all(table: Table, columns: Vec<Column>) -> Self {
        Self { table, columns, series: None, texts: Vec::new(), times: Vec::new() }
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

    /// First and last microsecond that a column may say, both inclusive.
    pub(crate) fn time_of(&self, column: Column) -> (i64, i64) {
        let own = self.times.iter().filter(|one| one.column == column);
        own.fold((i64::MIN, i64::MAX), |(first, last), one| (first.max(one.first), last.min(one.last)))
    }

    /// Whether no row can be wanted, because some time would have to end before it begins.
    pub(crate) fn is_nothing(&self) -> bool {
        self.times.iter().any(|one| {
            let (first, last) = self.time_of(one.column);
            first > last
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_one_column_and_a_table_has_each_once() {
        for column in COLUMNS {
            assert_eq!(Column::named(column.name()), Some(*column));
            assert!(Table::ALL.iter().any(|table| table.columns().contains(column)), "no table has {column:?}");
        }
        for table in Table::ALL {
            let mut columns = table.columns();
            columns.sort_unstable();
            columns.dedup();
            assert_eq!(columns.len(), table.columns().len(), "{table:?}");
        }
    }
}
