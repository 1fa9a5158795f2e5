//! What users do to servers that exist. Each request only writes down a task; the worker does it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use super::{
    Compute, Edit,
    create::{METADATA_MAX, check_member},
    error::ComputeError,
    server::{self, Action, Server, TaskState},
};
use crate::image::Asker;

impl Compute {
    /// Begins an action, or says why it cannot begin now.
    pub async fn act(self: &Arc<Self>, asker: &Asker, id: &str, action: Action) -> Result<(), ComputeError> {
        check_member(asker)?;
        let server = self.server(&asker.caller, id).await?;
        let who = asker.clone();
        self.change(server.id, move |server, _| {
            let task = server::begin(server, action)?;
            if server.task_state == Some(task) {
                // Deleting already: asking twice is no mistake.
                return Ok(None);
            }
            server.task_state = Some(task);
            let edit = Edit::by(&who).note(format!("{}.start", task.event()), json!({}));
            Ok(Some(match task {
                TaskState::Deleting => edit.note("shutdown.start", json!({})),
                _ => edit,
            }))
        })
        .await?;
        Ok(())
    }

    /// Changes name or description; `Some(None)` removes the description.
    pub async fn rename(
        self: &Arc<Self>,
        asker: &Asker,
        id: &str,
        name: Option<String>,
        description: Option<Option<String>>,
    ) -> Result<Server, ComputeError> {
        self.edit(asker, id, move |server| {
            if let Some(name) = &name {
                server.name.clone_from(name);
            }
            if let Some(description) = &description {
                server.description.clone_from(description);
            }
            Ok(())
        })
        .await
    }

    /// Changes the user's metadata.
    pub async fn set_metadata<F>(
        self: &Arc<Self>,
        asker: &Asker,
        id: &str,
        edit: F,
    ) -> Result<BTreeMap<String, String>, ComputeError>
    where
        F: Fn(&mut BTreeMap<String, String>) -> Result<(), ComputeError> + Send + Sync + 'static,
    {
        let server = self
            .edit(asker, id, move |server| {
                edit(&mut server.metadata)?;
                if server.metadata.len() > METADATA_MAX {
                    return Err(ComputeError::forbidden(format!(
                        "Maximum number of metadata items exceeds {METADATA_MAX}."
                    )));
                }
                Ok(())
            })
            .await?;
        Ok(server.metadata)
    }

    /// A change that needs no work on the host; told as `compute.instance.update`.
    async fn edit<F>(self: &Arc<Self>, asker: &Asker, id: &str, edit: F) -> Result<Server, ComputeError>
    where
        F: Fn(&mut Server) -> Result<(), ComputeError> + Send + Sync + 'static,
    {
        check_member(asker)?;
        let server = self.server(&asker.caller, id).await?;
        let who = asker.clone();
        let changed = self
            .change(server.id, move |server, _| {
                let old = server.name.clone();
                edit(server)?;
                let mut extra = json!({
                    "old_state": server.vm_state.as_str(),
                    "old_task_state": server.task_state.map(TaskState::as_str),
                    "new_task_state": server.task_state.map(TaskState::as_str),
                    "bandwidth": {},
                });
                if old != server.name {
                    extra["old_display_name"] = json!(old);
                }
                Ok(Some(Edit::by(&who).note("update", extra)))
            })
            .await?;
        Ok(changed.unwrap_or(server))
    }
}
