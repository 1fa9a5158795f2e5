//! Which hypervisor the stored guests have. Another one than theirs knows none of them, and would make them anew.

use std::path::Path;

use orzo_database::Database;

use super::{ComputeError, MIGRATIONS};

/// The kinds there are, as hypervisors name themselves, and the durable flag of each.
const KINDS: [(&str, &str); 2] = [("simulated", "guests are simulated"), ("libvirt", "guests are of libvirt")];

/// The kind that the last start had. Where none was noted, what the guests look like: only real ones have disks in
/// `instances`. `None` without guests.
pub async fn hypervisor_of_guests(database: &Database, instances: &Path) -> Result<Option<&'static str>, ComputeError> {
    database.migrate("cloud.compute", MIGRATIONS).await?;
    for (kind, flag) in KINDS {
        let sql = "SELECT name FROM compute_done WHERE name = $1";
        if database.query_one(sql, &[flag.into()]).await?.is_some() {
            return Ok(Some(kind));
        }
    }
    let sql = "SELECT id FROM compute_servers WHERE deleted_at IS NULL AND host IS NOT NULL LIMIT 1";
    if database.query_one(sql, &[]).await?.is_none() {
        return Ok(None);
    }
    let has_disks = match tokio::fs::read_dir(instances).await {
        Ok(mut entries) => entries.next_entry().await.map(|entry| entry.is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    let has_disks = has_disks.map_err(|source| ComputeError::Disk { action: "look for the disks of", source })?;
    Ok(Some(if has_disks { "libvirt" } else { "simulated" }))
}

/// Notes the kind that this start has.
pub(super) async fn note(database: &Database, kind: &str) -> Result<(), ComputeError> {
    let Some((_, flag)) = KINDS.into_iter().find(|(known, _)| *known == kind) else { return Ok(()) };
    database
        .transact(move |tx| {
            Box::pin(async move {
                for (_, other) in KINDS.into_iter().filter(|(_, other)| *other != flag) {
                    tx.execute("DELETE FROM compute_done WHERE name = $1", &[other.into()]).await?;
                }
                let sql = "INSERT INTO compute_done (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
                tx.execute(sql, &[flag.into()]).await?;
                Ok::<_, ComputeError>(())
            })
        })
        .await
}
