//! What of a query's conditions is about names, in the words of the walk over them.

use orzo_names::{Name, NamesWanted};

use crate::tables::{Column, Wanted};

/// What a column says of a series; `None`: it is no text of a series.
pub(super) fn name_of(column: Column) -> Option<Name> {
    match column {
        Column::MetricId => Some(Name::MetricId),
        Column::Meter => Some(Name::Meter),
        Column::Unit => Some(Name::Unit),
        Column::ArchivePolicy => Some(Name::ArchivePolicy),
        Column::ResourceId => Some(Name::ResourceId),
        Column::OriginalResourceId => Some(Name::OriginalResourceId),
        Column::ResourceType => Some(Name::ResourceType),
        Column::ProjectId => Some(Name::ProjectId),
        Column::UserId => Some(Name::UserId),
        _ => None,
    }
}

/// Which series are wanted.
pub(super) fn wanted_of(wanted: &Wanted) -> NamesWanted {
    let columns = wanted.texts.iter().map(|one| one.column);
    let texts = columns.filter_map(|column| Some((name_of(column)?, wanted.texts_of(column)?))).collect();
    NamesWanted { series: wanted.series.clone(), texts }
}
