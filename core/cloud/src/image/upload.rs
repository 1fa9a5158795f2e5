//! Takes an image's data: queued → saving → active, or back to queued with nothing left behind.
//!
//! It decides who may upload and how much; bytes and files are [`super::files`]' part, looking into them
//! [`super::format`]'s.

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use orzo_database::Transaction;
use serde_json::json;
use uuid::Uuid;

use super::{
    Asker, ImageError, ImageStatus, Images,
    changes::{owned, write},
    files, parse_id,
};
use crate::notify;

impl Images {
    /// Takes the data. Runs to its end, clean, also when the client goes away: call it in a task of its own.
    pub async fn upload<S, E>(self: Arc<Self>, asker: Asker, id: String, stream: S) -> Result<(), ImageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        self.room.received(1);
        let started = self.clock.monotonic();
        let outcome = self.take_upload(&asker, &id, stream).await;
        self.room.took("upload", self.clock.monotonic().saturating_sub(started));
        match &outcome {
            Ok(()) => self.room.stored(1),
            Err(error) => self.room.refused(error.status().canonical_reason().unwrap_or("failed"), 1),
        }
        self.outbox.wake();
        outcome
    }

    async fn take_upload<S, E>(self: &Arc<Self>, asker: &Asker, id: &str, stream: S) -> Result<(), ImageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let _turn = self.uploads.try_acquire().map_err(|_| ImageError::busy("Too many uploads at once; try again."))?;
        let id = parse_id(id)?;
        self.get(&asker.caller, &id.to_string()).await?;
        let image = self
            .change(asker, &id.to_string(), |image| {
                if image.status != ImageStatus::Queued {
                    return Err(ImageError::conflict(format!(
                        "Image status transition from {} to saving is not allowed",
                        image.status.as_str()
                    )));
                }
                for (name, value) in
                    [("disk_format", &image.disk_format), ("container_format", &image.container_format)]
                {
                    if value.is_none() {
                        return Err(ImageError::bad_request(format!(
                            "Property {name} must be set prior to saving data."
                        )));
                    }
                }
                image.status = ImageStatus::Saving;
                Ok(())
            })
            .await?;
        let declared = image.disk_format.clone().unwrap_or_default();
        let received = async {
            let left = self.settings.project_bytes_max.saturating_sub(self.used(&image.owner).await?);
            self.files.receive(id, &declared, left.min(self.settings.image_bytes_max), stream).await
        };
        let outcome = match received.await {
            Ok(received) => self.activate(asker, id, received).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // Also when the image was deleted meanwhile: then there is a file and no row, or neither.
            let sql = "UPDATE image_images SET status = 'queued' WHERE id = $1 AND status = 'saving'";
            self.database.execute(sql, &[id.to_string().into()]).await?;
            self.files.delete(id).await?;
        }
        outcome
    }

    /// The data is whole and durable: the image can be used.
    async fn activate(self: &Arc<Self>, asker: &Asker, id: Uuid, received: files::Received) -> Result<(), ImageError> {
        let (this, who, now) = (self.clone(), asker.clone(), self.clock.now());
        self.database
            .transact(move |tx| {
                let (this, asker, received) = (this.clone(), who.clone(), received.clone());
                Box::pin(async move {
                    let mut image = match owned(tx, &asker, &id.to_string()).await {
                        Ok(image) if image.status == ImageStatus::Saving => image,
                        Ok(_) | Err(ImageError::Refused { .. }) => {
                            return Err(ImageError::gone(format!("Image {id} was deleted during the upload.")));
                        }
                        Err(error) => return Err(error),
                    };
                    // Uploads at the same time may together exceed what each alone did not.
                    let used = used_in(tx, &image.owner).await?;
                    if used.saturating_add(received.size) > this.settings.project_bytes_max {
                        return Err(ImageError::too_large("The project's image quota is exceeded."));
                    }
                    image.status = ImageStatus::Active;
                    image.size = i64::try_from(received.size).ok();
                    image.virtual_size = i64::try_from(received.virtual_size).ok();
                    image.checksum = Some(received.md5);
                    image.hash = Some(received.sha512);
                    image.updated_at = now;
                    write(tx, &image).await?;
                    let mut uploaded = image.to_payload(None);
                    uploaded["os_glance_importing_to_stores"] = json!([]);
                    uploaded["os_glance_failed_import"] = json!([]);
                    notify::record(tx, now, &this.note(&asker, "image.upload", uploaded)).await?;
                    Ok(notify::record(tx, now, &this.note(&asker, "image.update", image.to_payload(None))).await?)
                })
            })
            .await
    }

    /// Bytes of a project's images.
    async fn used(&self, owner: &str) -> Result<u64, ImageError> {
        let row = self.database.query_one(USED_SQL, &[owner.into()]).await?;
        Ok(row.and_then(|row| row.int("n")).and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
    }
}

const USED_SQL: &str = "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) AS n FROM image_images WHERE owner = $1";

async fn used_in(tx: &mut Transaction<'_>, owner: &str) -> Result<u64, ImageError> {
    let row = tx.query_one(USED_SQL, &[owner.into()]).await?;
    Ok(row.and_then(|row| row.int("n")).and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}
