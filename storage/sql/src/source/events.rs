//! Events and revisions of resources, from the index, page by page.

use std::borrow::Cow;

use orzo_index::{EventsWanted, Index, Resource, RevisionsWanted};
use orzo_model::{Event, Timestamp};
use orzo_names::attribute_text;

use super::{
    Takes,
    rows::{Cell, Row, Rows},
};
use crate::{
    error::SqlError,
    tables::{Column, Wanted},
};

impl Row for Event {
    fn cell(&self, column: Column) -> Option<Cell<'_>> {
        match column {
            Column::MessageId => Some(self.message_id.as_str().into()),
            Column::EventType => Some(self.event_type.as_str().into()),
            Column::GeneratedAt => Some(Cell::Time(self.generated_at.micros())),
            Column::ResourceId => self.text("resource_id").map(Cell::from),
            Column::ProjectId => self.text("project_id").or_else(|| self.text("tenant_id")).map(Cell::from),
            Column::UserId => self.text("user_id").map(Cell::from),
            Column::Traits => {
                let mut pairs: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(self.traits.len());
                for own in &self.traits {
                    if !pairs.iter().any(|(name, _)| *name == own.name) {
                        pairs.push((&own.name, own.value.to_text().into()));
                    }
                }
                Some(Cell::Map(pairs))
            }
            _ => None,
        }
    }
}

impl Row for Resource {
    fn cell(&self, column: Column) -> Option<Cell<'_>> {
        let time = |time: Option<Timestamp>| time.map(|time| Cell::Time(time.micros()));
        match column {
            Column::ResourceId => Some(self.id.to_string().into()),
            Column::OriginalResourceId => Some(self.original_resource_id.as_str().into()),
            Column::ResourceType => Some(self.resource_type.as_str().into()),
            Column::ProjectId => self.project_id.as_deref().map(Cell::from),
            Column::UserId => self.user_id.as_deref().map(Cell::from),
            Column::StartedAt => time(Some(self.started_at)),
            Column::EndedAt => time(self.ended_at),
            Column::RevisionStart => time(Some(self.revision_start)),
            Column::RevisionEnd => time(self.revision_end),
            Column::Attributes => {
                let pairs = self.attributes.iter();
                Some(Cell::Map(
                    pairs.filter_map(|(name, value)| Some((name.as_str(), attribute_text(value)?))).collect(),
                ))
            }
            _ => None,
        }
    }
}

/// Reads the events that are wanted.
pub(super) async fn events<T: Takes>(index: &Index, wanted: &Wanted, rows: &mut Rows<'_, T>) -> Result<bool, SqlError> {
    let (first, last) = wanted.time_of(Column::GeneratedAt);
    let narrowed = EventsWanted {
        first: (first > i64::MIN).then(|| Timestamp::from_micros(first)),
        last: (last < i64::MAX).then(|| Timestamp::from_micros(last)),
        message_ids: wanted.texts_of(Column::MessageId),
        event_types: wanted.texts_of(Column::EventType),
        project_ids: wanted.texts_of(Column::ProjectId),
        resource_ids: wanted.texts_of(Column::ResourceId),
    };
    let mut after = None;
    loop {
        let (page, next) = index.events_page(&narrowed, after.as_ref()).await.map_err(SqlError::unavailable)?;
        for event in &page {
            if !rows.add(event).await? {
                return Ok(false);
            }
        }
        if next.is_none() {
            return Ok(true);
        }
        after = next;
    }
}

/// Reads the revisions that are wanted.
pub(super) async fn revisions<T: Takes>(
    index: &Index,
    wanted: &Wanted,
    rows: &mut Rows<'_, T>,
) -> Result<bool, SqlError> {
    let narrowed = RevisionsWanted {
        original_resource_ids: wanted.texts_of(Column::OriginalResourceId),
        project_ids: wanted.texts_of(Column::ProjectId),
    };
    let mut after: Option<String> = None;
    loop {
        let (page, next) = index.revisions_page(&narrowed, after.as_deref()).await.map_err(SqlError::unavailable)?;
        for revision in page.iter().flatten() {
            if !rows.add(revision).await? {
                return Ok(false);
            }
        }
        if next.is_none() {
            return Ok(true);
        }
        after = next;
    }
}
