//! A few servers to look at, made once on a first start when guests are only simulated.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use serde_json::json;

use super::{Compute, NewServer, error::ComputeError, server::SELECT, server::Server};
use crate::image::Asker;

/// Name of the durable flag.
const FLAG: &str = "demo servers";
/// The demonstration's image: small, empty, and named for what it is.
const IMAGE_NAME: &str = "demo-simulated";
/// Bytes of it; enough for `image.size` to be visible.
const IMAGE_BYTES: usize = 1 << 20;
/// (name, default flavor): different sizes, within Nova's default quota.
const SERVERS: &[(&str, &str)] = &[
    ("demo-web-1", "m1.small"),
    ("demo-web-2", "m1.small"),
    ("demo-database", "m1.medium"),
    ("demo-cache", "m1.tiny"),
    ("demo-worker", "m1.medium"),
    ("demo-build", "m1.large"),
];

impl Compute {
    /// Makes the demonstration's image and servers as `asker`, a member of the project they shall belong to, through
    /// the same functions as the API. Only with simulated guests, and never again once it has succeeded: what a user
    /// deletes stays deleted. True if it was done now.
    pub async fn ensure_demo_servers(self: &Arc<Self>, asker: &Asker) -> Result<bool, ComputeError> {
        let done = self.database.query_one("SELECT name FROM compute_done WHERE name = $1", &[FLAG.into()]).await?;
        if !self.simulated() || done.is_some() {
            return Ok(false);
        }
        let image_id = self.ensure_demo_image(asker).await?;
        let flavors = self.flavors(&asker.caller, None).await?;
        let project = asker.caller.project_id.clone().unwrap_or_default();
        // A start that was interrupted here goes on where it stopped.
        let sql = format!("{SELECT} WHERE s.project_id = $1 AND s.deleted_at IS NULL");
        let rows = self.database.query(&sql, &[project.into()]).await?;
        let present: Vec<Server> = rows.iter().map(Server::from_row).collect::<Result<_, _>>()?;
        for (name, flavor) in SERVERS {
            let Some(flavor) = flavors.iter().find(|found| found.name == *flavor) else { continue };
            if present.iter().any(|server| server.name == *name) {
                continue;
            }
            let new = NewServer {
                name: (*name).to_owned(),
                flavor_id: flavor.id.clone(),
                image_id: image_id.clone(),
                networked: true,
                metadata: [("guest".to_owned(), "simulated".to_owned())].into(),
                tags: Vec::new(),
                description: Some("a simulated guest, made for demonstration".to_owned()),
                counts: (1, 1),
            };
            self.create_servers(asker, new).await?;
        }
        self.database.transact(|tx| Box::pin(async move { super::once(tx, FLAG).await })).await
    }

    async fn ensure_demo_image(&self, asker: &Asker) -> Result<String, ComputeError> {
        let wanted = [("name".to_owned(), IMAGE_NAME.to_owned()), ("status".to_owned(), "active".to_owned())];
        if let Some(image) = self.images.list(&asker.caller, &wanted).await?.0.first() {
            return Ok(image.id.clone());
        }
        let body = json!({"name": IMAGE_NAME, "disk_format": "raw", "container_format": "bare",
            "description": "an empty disk for simulated guests"});
        let image = self.images.create(asker, &body).await?;
        let bytes = futures::stream::iter([Ok::<_, Infallible>(Bytes::from(vec![0u8; IMAGE_BYTES]))]);
        self.images.clone().upload(asker.clone(), image.id.clone(), bytes).await?;
        Ok(image.id)
    }
}
