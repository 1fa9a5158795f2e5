//! Images: Glance v2, as far as real clients use it, with the data in a local directory.
//!
//! In: requests of clients (`routes`), and the compute service that asks for a checked file to boot from. Out: answers
//! in Glance's shapes, files under their UUIDs, and Glance's notifications (`image.create`, `.update`, `.upload`,
//! `.send`, `.delete`) in the transaction of the change.
//!
//! ```text
//! queued → (upload) → saving → active ⇄ deactivated
//!             ↑_________| refused, broken off or restarted: the data is gone
//! ```
//!
//! It does not know servers or telemetry.

mod changes;
pub mod error;
pub mod files;
pub mod format;
mod members;
mod patch;
mod query;
pub mod record;
mod routes;
mod schemas;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

use std::{path::PathBuf, sync::Arc};

use orzo_database::{Database, Migration};
use orzo_model::{Caller, Room, Rooms, SharedClock, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

pub use error::ImageError;
pub use record::{Image, ImageStatus};
pub use routes::router;

use crate::notify::{self, Notification, NotificationContext, Outbox};
use changes::{check_publicity, write_marks};
use files::Files;
use query::ListQuery;
use record::{BASE_ATTRIBUTES, COLUMNS};

/// Uploads at once: each holds a socket and a file, and fsyncs compete.
const UPLOADS_MAX: usize = 16;

/// The image service's tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "images",
    sql: "CREATE TABLE image_images (
            id TEXT PRIMARY KEY, name TEXT, status TEXT NOT NULL, visibility TEXT NOT NULL, owner TEXT NOT NULL,
            protected BIGINT NOT NULL, os_hidden BIGINT NOT NULL, disk_format TEXT, container_format TEXT,
            min_disk BIGINT NOT NULL, min_ram BIGINT NOT NULL, size BIGINT, virtual_size BIGINT, checksum TEXT,
            hash TEXT, properties TEXT NOT NULL, tags TEXT NOT NULL,
            created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL);
          CREATE INDEX image_images_owner ON image_images (owner);
          CREATE INDEX image_images_created ON image_images (created_at, id);
          CREATE TABLE image_marks (image_id TEXT NOT NULL REFERENCES image_images (id) ON DELETE CASCADE,
            kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (image_id, kind, name));
          CREATE TABLE image_members (image_id TEXT NOT NULL REFERENCES image_images (id) ON DELETE CASCADE,
            member_id TEXT NOT NULL, status TEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
            PRIMARY KEY (image_id, member_id));
          CREATE INDEX image_members_member ON image_members (member_id);
         ",
}];

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct ImageSettings {
    /// Where the files are.
    pub directory: PathBuf,
    /// Largest image, in bytes.
    pub image_bytes_max: u64,
    /// All images of one project together, in bytes.
    pub project_bytes_max: u64,
    /// Name of this machine, for `publisher_id`.
    pub host: String,
    /// Where clients reach the service: `http://127.0.0.1:8041/image`.
    pub url: String,
}

/// The image service.
pub struct Images {
    settings: ImageSettings,
    database: Database,
    clock: SharedClock,
    outbox: Arc<Outbox>,
    files: Files,
    room: Room,
    uploads: Semaphore,
}

/// Who asks, and in which request.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Verified.
    pub caller: Caller,
    /// `req-<uuid>`.
    pub request_id: Option<String>,
}

impl Asker {
    /// For notifications.
    pub fn context(&self) -> NotificationContext {
        NotificationContext {
            request_id: self.request_id.clone(),
            project_id: self.caller.project_id.clone(),
            user_id: Some(self.caller.user_id.clone()),
        }
    }

    /// Project of the token; without one nothing can be owned.
    fn project(&self) -> Result<&str, ImageError> {
        self.caller.project_id.as_deref().ok_or_else(|| ImageError::forbidden("The token has no project."))
    }

    /// Readers look only.
    fn check_member(&self) -> Result<(), ImageError> {
        if self.caller.is_admin() || self.caller.has_role("member") || self.caller.has_role("manager") {
            return Ok(());
        }
        Err(ImageError::forbidden("You are not authorized to complete this action."))
    }
}

impl Images {
    /// Makes tables and directory, and tidies what an interrupted process left.
    pub async fn open(
        settings: ImageSettings,
        database: Database,
        clock: SharedClock,
        outbox: Arc<Outbox>,
        rooms: &Rooms,
    ) -> Result<Arc<Self>, ImageError> {
        database.migrate("cloud.image", MIGRATIONS).await?;
        let files = Files::open(settings.directory.clone()).await?;
        let room = rooms.room("cloud.image");
        let images = Self { settings, database, clock, outbox, files, room, uploads: Semaphore::new(UPLOADS_MAX) };
        images.tidy().await?;
        Ok(Arc::new(images))
    }

    /// An upload that was cut by a restart is queued again; a file that no image owns is removed.
    async fn tidy(&self) -> Result<(), ImageError> {
        self.database.execute("UPDATE image_images SET status = 'queued' WHERE status = 'saving'", &[]).await?;
        for id in self.files.list().await? {
            let sql = "SELECT id FROM image_images WHERE id = $1 AND status IN ('active', 'deactivated')";
            if self.database.query_one(sql, &[id.to_string().into()]).await?.is_none() {
                tracing::info!(image = %id, "removed a file that no image owns");
                self.files.delete(id).await?;
            }
        }
        Ok(())
    }

    /// A new image without data.
    pub async fn create(self: &Arc<Self>, asker: &Asker, body: &Value) -> Result<Image, ImageError> {
        asker.check_member()?;
        let given = body.as_object().ok_or_else(|| ImageError::bad_request("An image is a JSON object."))?;
        for (name, changeable) in BASE_ATTRIBUTES {
            if !changeable && given.contains_key(*name) && !matches!(*name, "id" | "owner") {
                return Err(ImageError::forbidden(format!("Attribute '{name}' is read-only.")));
            }
        }
        let id = match given.get("id") {
            None | Some(Value::Null) => Uuid::new_v4(),
            // A client may choose the id, but only a UUID, and we write it out ourselves.
            Some(id) => id
                .as_str()
                .and_then(|id| Uuid::try_parse(id).ok())
                .ok_or_else(|| ImageError::bad_request("Image ids are UUIDs."))?,
        };
        let owner = match given.get("owner").and_then(Value::as_str) {
            Some(owner) if asker.caller.is_admin() => owner,
            Some(owner) if Some(owner) != asker.caller.project_id.as_deref() => {
                return Err(ImageError::forbidden("You are not permitted to create images owned by others."));
            }
            _ => asker.project()?,
        };
        let now = self.clock.now();
        let mut image = Image {
            id: id.to_string(),
            name: None,
            status: ImageStatus::Queued,
            visibility: "shared".to_owned(),
            owner: owner.to_owned(),
            protected: false,
            os_hidden: false,
            disk_format: None,
            container_format: None,
            min_disk: 0,
            min_ram: 0,
            size: None,
            virtual_size: None,
            checksum: None,
            hash: None,
            properties: Default::default(),
            tags: Default::default(),
            created_at: now,
            updated_at: now,
        };
        image.apply(body)?;
        check_publicity(asker, "shared", &image)?;
        let note = self.note(asker, "image.create", image.to_payload(None));
        let written = image.clone();
        let outcome = self
            .database
            .transact(move |tx| {
                let (image, note) = (written.clone(), note.clone());
                Box::pin(async move {
                    let places: Vec<String> = (1..=image.cells().len()).map(|n| format!("${n}")).collect();
                    let sql = format!("INSERT INTO image_images ({COLUMNS}) VALUES ({})", places.join(", "));
                    tx.execute(&sql, &image.cells()).await?;
                    write_marks(tx, &image).await?;
                    Ok(notify::record(tx, now, &note).await?)
                })
            })
            .await;
        match outcome {
            Err(ImageError::Database(error)) if error.is_constraint() => {
                Err(ImageError::conflict(format!("Image ID {id} already exists!")))
            }
            outcome => {
                outcome?;
                self.outbox.wake();
                Ok(image)
            }
        }
    }

    /// An image that the caller may see.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Image, ImageError> {
        let id = parse_id(id)?;
        let sql = format!("SELECT {COLUMNS} FROM image_images WHERE id = $1");
        let row = self.database.query_one(&sql, &[id.to_string().into()]).await?;
        let image = row.map(|row| Image::from_row(&row)).ok_or_else(|| ImageError::no_image(&id.to_string()))?;
        let project = caller.project_id.as_deref();
        if caller.is_admin()
            || project == Some(image.owner.as_str())
            || matches!(image.visibility.as_str(), "public" | "community")
        {
            return Ok(image);
        }
        if image.visibility == "shared"
            && let Some(project) = project
            && members::find(&self.database, &image.id, project).await?.is_some()
        {
            return Ok(image);
        }
        Err(ImageError::no_image(&id.to_string()))
    }

    /// A page of images, and the link to the next one.
    pub async fn list(
        &self,
        caller: &Caller,
        parameters: &[(String, String)],
    ) -> Result<(Vec<Image>, Option<String>), ImageError> {
        let query = ListQuery::parse(parameters, caller)?;
        let after = match &query.marker {
            None => None,
            Some(marker) => {
                self.get(caller, marker)
                    .await
                    .map_err(|_| ImageError::bad_request(format!("Invalid marker: {marker:.64}")))?;
                let sql = format!("SELECT {COLUMNS} FROM image_images WHERE id = $1");
                self.database.query_one(&sql, &[parse_id(marker)?.to_string().into()]).await?
            }
        };
        let (sql, values) = query.to_sql(after.as_ref());
        let rows = self.database.query(&sql, &values).await?;
        let images: Vec<Image> = rows.iter().map(Image::from_row).collect();
        let full = query.limit > 0 && images.len() as i64 == query.limit;
        let next = images.last().filter(|_| full).map(|last| {
            let mut link = url::form_urlencoded::Serializer::new(String::new());
            link.extend_pairs(&query.kept).append_pair("marker", &last.id);
            format!("/v2/images?{}", link.finish())
        });
        Ok((images, next))
    }

    /// Tells that data was sent; best effort after the fact, so a failure is logged and not returned.
    async fn tell_sent(&self, asker: &Asker, image: &Image, bytes_sent: u64) {
        let payload = json!({
            "bytes_sent": bytes_sent,
            "image_id": image.id,
            "owner_id": image.owner,
            "receiver_tenant_id": asker.caller.project_id,
            "receiver_user_id": asker.caller.user_id,
        });
        let (note, now) = (self.note(asker, "image.send", payload), self.clock.now());
        let outcome: Result<(), ImageError> = self
            .database
            .transact(move |tx| {
                let note = note.clone();
                Box::pin(async move { Ok(notify::record(tx, now, &note).await?) })
            })
            .await;
        match outcome {
            Ok(()) => self.outbox.wake(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a download could not be told of");
            }
        }
    }

    /// The checked file of an active image, for the compute service, which has asked [`Self::get`] on behalf of the
    /// user before.
    pub async fn file_for_boot(&self, id: &str) -> Result<PathBuf, ImageError> {
        let id = parse_id(id)?;
        let sql = "SELECT id FROM image_images WHERE id = $1 AND status = 'active'";
        match self.database.query_one(sql, &[id.to_string().into()]).await? {
            Some(_) => Ok(self.files.path(id)),
            None => Err(ImageError::no_image(&id.to_string())),
        }
    }

    fn note(&self, asker: &Asker, event_type: &str, payload: Value) -> Notification {
        Notification {
            exchange: "glance",
            publisher_id: format!("image.{}", self.settings.host),
            event_type: event_type.to_owned(),
            priority: "INFO",
            payload,
            context: asker.context(),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// What is no UUID is no image.
fn parse_id(id: &str) -> Result<Uuid, ImageError> {
    Uuid::try_parse(id).map_err(|_| ImageError::no_image(id))
}
