//! What changes or removes an image: each reads, checks, writes and tells in one transaction.

use std::sync::Arc;

use orzo_database::{Transaction, Value as Cell};
use serde_json::Value;

use super::{
    Asker, Image, ImageError, ImageStatus, Images, parse_id, patch,
    record::{self, BASE_ATTRIBUTES, COLUMNS},
};
use crate::notify;

impl Images {
    /// Applies a JSON patch.
    pub async fn patch(self: &Arc<Self>, asker: &Asker, id: &str, patch: Value) -> Result<Image, ImageError> {
        let owner = asker.clone();
        self.change(asker, id, move |image| {
            let before = image.visibility.clone();
            let mut document = image.to_changeable();
            let read_only = |name: &str| BASE_ATTRIBUTES.iter().any(|(base, changeable)| *base == name && !changeable);
            patch::apply(&mut document, &patch, read_only)?;
            let formats = (image.disk_format.clone(), image.container_format.clone());
            image.apply(&document)?;
            // The data was checked against the format it was declared with.
            if image.status != ImageStatus::Queued
                && formats != (image.disk_format.clone(), image.container_format.clone())
            {
                return Err(ImageError::forbidden("The format of an image with data cannot be changed."));
            }
            check_publicity(&owner, &before, image)
        })
        .await
    }

    /// Adds or removes a tag.
    pub async fn tag(self: &Arc<Self>, asker: &Asker, id: &str, tag: &str, present: bool) -> Result<(), ImageError> {
        if tag.chars().count() > record::TEXT_MAX {
            return Err(ImageError::bad_request("The tag is too long."));
        }
        let tag = tag.to_owned();
        self.change(asker, id, move |image| {
            if present {
                if image.tags.len() >= record::TAGS_MAX {
                    return Err(ImageError::too_large(format!("The limit of {} tags is reached.", record::TAGS_MAX)));
                }
                image.tags.insert(tag.clone());
                return Ok(());
            }
            if image.tags.remove(&tag) {
                return Ok(());
            }
            Err(ImageError::not_found("The tag does not exist."))
        })
        .await?;
        Ok(())
    }

    /// An admin closes or opens the data.
    pub async fn set_active(self: &Arc<Self>, asker: &Asker, id: &str, active: bool) -> Result<(), ImageError> {
        if !asker.caller.is_admin() {
            return Err(ImageError::forbidden("You are not authorized to complete this action."));
        }
        self.change(asker, id, move |image| {
            image.status = match (image.status, active) {
                (ImageStatus::Active | ImageStatus::Deactivated, true) => ImageStatus::Active,
                (ImageStatus::Active | ImageStatus::Deactivated, false) => ImageStatus::Deactivated,
                (status, _) => {
                    return Err(ImageError::forbidden(format!("An image in status {} has no data.", status.as_str())));
                }
            };
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Removes image and data.
    pub async fn delete(self: &Arc<Self>, asker: &Asker, id: &str) -> Result<(), ImageError> {
        let id = parse_id(id)?;
        self.get(&asker.caller, &id.to_string()).await?;
        let (this, who, now) = (self.clone(), asker.clone(), self.clock.now());
        self.database
            .transact(move |tx| {
                let (this, asker) = (this.clone(), who.clone());
                Box::pin(async move {
                    let mut image = owned(tx, &asker, &id.to_string()).await?;
                    if image.protected {
                        return Err(ImageError::forbidden(format!("Image {id} is protected and cannot be deleted.")));
                    }
                    image.updated_at = now;
                    for table in ["image_marks", "image_members"] {
                        tx.execute(&format!("DELETE FROM {table} WHERE image_id = $1"), &[id.to_string().into()])
                            .await?;
                    }
                    tx.execute("DELETE FROM image_images WHERE id = $1", &[id.to_string().into()]).await?;
                    let note = this.note(&asker, "image.delete", image.to_payload(Some(now)));
                    Ok(notify::record(tx, now, &note).await?)
                })
            })
            .await?;
        self.outbox.wake();
        // After the commit: a crash in between leaves a file that `tidy` removes.
        self.files.delete(id).await
    }

    /// Reads, lets `edit` change, writes and tells, in one transaction.
    pub(super) async fn change<F>(self: &Arc<Self>, asker: &Asker, id: &str, edit: F) -> Result<Image, ImageError>
    where
        F: Fn(&mut Image) -> Result<(), ImageError> + Send + Sync + 'static,
    {
        let id = parse_id(id)?.to_string();
        // Not there and not to be seen look the same; only then it matters whether it may be changed.
        self.get(&asker.caller, &id).await?;
        let (this, who, edit, now) = (self.clone(), asker.clone(), Arc::new(edit), self.clock.now());
        let image = self
            .database
            .transact(move |tx| {
                let (this, asker, edit, id) = (this.clone(), who.clone(), edit.clone(), id.clone());
                Box::pin(async move {
                    let mut image = owned(tx, &asker, &id).await?;
                    edit(&mut image)?;
                    image.updated_at = now;
                    write(tx, &image).await?;
                    write_marks(tx, &image).await?;
                    notify::record(tx, now, &this.note(&asker, "image.update", image.to_payload(None))).await?;
                    Ok::<_, ImageError>(image)
                })
            })
            .await?;
        self.outbox.wake();
        Ok(image)
    }
}

/// An image that the asker may change; seeing is decided before.
pub(super) async fn owned(tx: &mut Transaction<'_>, asker: &Asker, id: &str) -> Result<Image, ImageError> {
    let sql = format!("SELECT {COLUMNS} FROM image_images WHERE id = $1");
    let row = tx.query_one(&sql, &[id.into()]).await?;
    let image = row.map(|row| Image::from_row(&row)).ok_or_else(|| ImageError::no_image(id))?;
    if asker.caller.is_admin() {
        return Ok(image);
    }
    asker.check_member()?;
    if asker.caller.project_id.as_deref() != Some(image.owner.as_str()) {
        return Err(ImageError::forbidden("You are not permitted to modify this image."));
    }
    Ok(image)
}

pub(super) async fn write(tx: &mut Transaction<'_>, image: &Image) -> Result<(), ImageError> {
    let places: Vec<String> =
        COLUMNS.split(", ").enumerate().skip(1).map(|(n, column)| format!("{} = ${}", column.trim(), n + 1)).collect();
    let sql = format!("UPDATE image_images SET {} WHERE id = $1", places.join(", "));
    tx.execute(&sql, &image.cells()).await?;
    Ok(())
}

/// Properties and tags again, as rows that a list can search.
pub(super) async fn write_marks(tx: &mut Transaction<'_>, image: &Image) -> Result<(), ImageError> {
    tx.execute("DELETE FROM image_marks WHERE image_id = $1", &[image.id.as_str().into()]).await?;
    let properties = image.properties.iter().map(|(name, value)| ("property", name.as_str(), value.as_str()));
    let tags = image.tags.iter().map(|tag| ("tag", tag.as_str(), ""));
    for (kind, name, value) in properties.chain(tags) {
        let cells: [Cell; 4] = [image.id.as_str().into(), kind.into(), name.into(), value.into()];
        tx.execute("INSERT INTO image_marks (image_id, kind, name, value) VALUES ($1, $2, $3, $4)", &cells).await?;
    }
    Ok(())
}

/// Only an admin may show an image to everyone, or change one that everyone sees.
pub(super) fn check_publicity(asker: &Asker, before: &str, image: &Image) -> Result<(), ImageError> {
    if (image.visibility == "public") != (before == "public") && !asker.caller.is_admin() {
        return Err(ImageError::forbidden("You are not authorized to make images public."));
    }
    Ok(())
}
