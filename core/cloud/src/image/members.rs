//! Members of a shared image: projects that its owner lets use it, and that accept or reject it.

use std::sync::Arc;

use orzo_database::{Database, Row, Transaction};
use orzo_model::Timestamp;
use serde_json::{Value, json};

use super::{Asker, Image, ImageError, Images, changes::owned, parse_id};
use crate::notify;

/// Members of one image at most (Glance's `image_member_quota`).
const MEMBERS_MAX: i64 = 128;

/// A project that may use the image.
#[derive(Clone, Debug)]
pub(super) struct Member {
    image_id: String,
    member_id: String,
    status: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Member {
    fn from_row(row: &Row) -> Self {
        Self {
            image_id: row.string("image_id"),
            member_id: row.string("member_id"),
            status: row.string("status"),
            created_at: row.time("created_at").unwrap_or(Timestamp::EPOCH),
            updated_at: row.time("updated_at").unwrap_or(Timestamp::EPOCH),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "image_id": self.image_id,
            "member_id": self.member_id,
            "status": self.status,
            "created_at": self.created_at.zulu_secs(),
            "updated_at": self.updated_at.zulu_secs(),
            "schema": "/v2/schemas/member",
        })
    }

    fn to_payload(&self, deleted_at: Option<Timestamp>) -> Value {
        json!({
            "image_id": self.image_id,
            "member_id": self.member_id,
            "status": self.status,
            "created_at": self.created_at.zulu_secs(),
            "updated_at": self.updated_at.zulu_secs(),
            "deleted": deleted_at.is_some(),
            "deleted_at": deleted_at.map(Timestamp::zulu_secs),
        })
    }
}

const SELECT: &str =
    "SELECT image_id, member_id, status, created_at, updated_at FROM image_members WHERE image_id = $1";

pub(super) async fn find(database: &Database, image_id: &str, project: &str) -> Result<Option<Member>, ImageError> {
    let sql = format!("{SELECT} AND member_id = $2");
    let row = database.query_one(&sql, &[image_id.into(), project.into()]).await?;
    Ok(row.map(|row| Member::from_row(&row)))
}

impl Images {
    /// The owner sees all members, a member sees itself.
    pub(super) async fn members(&self, asker: &Asker, id: &str) -> Result<Vec<Member>, ImageError> {
        let image = self.get(&asker.caller, id).await?;
        if image.visibility != "shared" {
            return Err(ImageError::forbidden("Only shared images have members."));
        }
        let rows = self.database.query(&format!("{SELECT} ORDER BY member_id"), &[image.id.as_str().into()]).await?;
        let mut members: Vec<Member> = rows.iter().map(Member::from_row).collect();
        if !owns(asker, &image) {
            members.retain(|member| Some(member.member_id.as_str()) == asker.caller.project_id.as_deref());
        }
        Ok(members)
    }

    pub(super) async fn member(&self, asker: &Asker, id: &str, project: &str) -> Result<Member, ImageError> {
        let found = self.members(asker, id).await?.into_iter().find(|member| member.member_id == project);
        found.ok_or_else(|| no_member(id))
    }

    pub(super) async fn add_member(
        self: &Arc<Self>,
        asker: &Asker,
        id: &str,
        project: &str,
    ) -> Result<Member, ImageError> {
        if project.is_empty() || project.len() > 255 {
            return Err(ImageError::bad_request("A member is the id of a project."));
        }
        let id = parse_id(id)?.to_string();
        self.get(&asker.caller, &id).await?;
        let now = self.now();
        let member = Member {
            image_id: id.clone(),
            member_id: project.to_owned(),
            status: "pending".to_owned(),
            created_at: now,
            updated_at: now,
        };
        let note = self.note(asker, "image.member.create", member.to_payload(None));
        let (who, written) = (asker.clone(), member.clone());
        let outcome = self
            .database
            .transact(move |tx| {
                let (asker, member, note) = (who.clone(), written.clone(), note.clone());
                Box::pin(async move {
                    let image = owned(tx, &asker, &member.image_id).await?;
                    if image.visibility != "shared" {
                        return Err(ImageError::forbidden("Only shared images have members."));
                    }
                    if count(tx, &member.image_id).await? >= MEMBERS_MAX {
                        return Err(ImageError::too_large(format!("The limit of {MEMBERS_MAX} members is reached.")));
                    }
                    tx.execute(
                        "INSERT INTO image_members (image_id, member_id, status, created_at, updated_at) \
                         VALUES ($1, $2, $3, $4, $4)",
                        &[
                            member.image_id.as_str().into(),
                            member.member_id.as_str().into(),
                            member.status.as_str().into(),
                            now.into(),
                        ],
                    )
                    .await?;
                    Ok(notify::record(tx, now, &note).await?)
                })
            })
            .await;
        match outcome {
            Err(ImageError::Database(error)) if error.is_constraint() => {
                Err(ImageError::conflict(format!("Image member {project:.64} already exists for image {id}.")))
            }
            outcome => {
                outcome?;
                self.outbox.wake();
                Ok(member)
            }
        }
    }

    /// The member itself says what it thinks of the offer.
    pub(super) async fn set_member(
        self: &Arc<Self>,
        asker: &Asker,
        id: &str,
        project: &str,
        status: &str,
    ) -> Result<Member, ImageError> {
        if !matches!(status, "pending" | "accepted" | "rejected") {
            return Err(ImageError::bad_request("Status must be one of: pending, accepted, rejected."));
        }
        let mut member = self.member(asker, id, project).await?;
        if asker.caller.project_id.as_deref() != Some(project) && !asker.caller.is_admin() {
            return Err(ImageError::forbidden("Only the member may change its status."));
        }
        asker.check_member()?;
        let now = self.now();
        member.status = status.to_owned();
        member.updated_at = now;
        let note = self.note(asker, "image.member.update", member.to_payload(None));
        let written = member.clone();
        self.database
            .transact(move |tx| {
                let (member, note) = (written.clone(), note.clone());
                Box::pin(async move {
                    let changed = tx
                        .execute(
                            "UPDATE image_members SET status = $3, updated_at = $4 WHERE image_id = $1 AND member_id = $2",
                            &[
                                member.image_id.as_str().into(),
                                member.member_id.as_str().into(),
                                member.status.as_str().into(),
                                now.into(),
                            ],
                        )
                        .await?;
                    if changed == 0 {
                        return Err(no_member(&member.image_id));
                    }
                    Ok(notify::record(tx, now, &note).await?)
                })
            })
            .await?;
        self.outbox.wake();
        Ok(member)
    }

    pub(super) async fn remove_member(
        self: &Arc<Self>,
        asker: &Asker,
        id: &str,
        project: &str,
    ) -> Result<(), ImageError> {
        let member = self.member(asker, id, project).await?;
        let now = self.now();
        let note = self.note(asker, "image.member.delete", member.to_payload(Some(now)));
        let who = asker.clone();
        self.database
            .transact(move |tx| {
                let (asker, member, note) = (who.clone(), member.clone(), note.clone());
                Box::pin(async move {
                    owned(tx, &asker, &member.image_id).await?;
                    tx.execute(
                        "DELETE FROM image_members WHERE image_id = $1 AND member_id = $2",
                        &[member.image_id.as_str().into(), member.member_id.as_str().into()],
                    )
                    .await?;
                    Ok::<_, ImageError>(notify::record(tx, now, &note).await?)
                })
            })
            .await?;
        self.outbox.wake();
        Ok(())
    }
}

async fn count(tx: &mut Transaction<'_>, image_id: &str) -> Result<i64, ImageError> {
    let row = tx.query_one("SELECT count(*) AS n FROM image_members WHERE image_id = $1", &[image_id.into()]).await?;
    Ok(row.and_then(|row| row.int("n")).unwrap_or(0))
}

fn owns(asker: &Asker, image: &Image) -> bool {
    asker.caller.is_admin() || asker.caller.project_id.as_deref() == Some(image.owner.as_str())
}

fn no_member(id: &str) -> ImageError {
    ImageError::not_found(format!("The member does not exist for image {id:.64}."))
}
