//! What Nova tells about servers: the unversioned notifications that Ceilometer's definitions read.
//!
//! Keys and spellings are those of Nova's `notifications.info_from_instance`; the payload is made by a pure function.

use orzo_database::{DatabaseError, Transaction};
use orzo_model::Timestamp;
use serde_json::{Map, Value, json};

use super::{Compute, Edit, ZONE, flavor::Flavor, server::Server};
use crate::notify::{self, Notification};

/// What the payload needs to know of the place.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Hypervisor's name.
    pub node: String,
    /// Image service's URL.
    pub image_url: String,
}

/// The payload that all `compute.instance.*` notifications share.
pub(super) fn payload(server: &Server, place: &Place) -> Value {
    let time = |time: Option<Timestamp>| time.map(strtime).unwrap_or_default();
    let image_ref_url = match server.image_id {
        Some(id) => format!("{}/images/{id}", place.image_url),
        None => String::new(),
    };
    let general = json!({
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "instance_id": server.id,
        "display_name": server.name,
        "reservation_id": server.reservation_id,
        "hostname": server.hostname,
        "architecture": Value::Null,
        "host": server.host,
        "node": server.host.as_ref().map(|_| &place.node),
        "availability_zone": server.host.as_ref().map(|_| ZONE),
        "cell_name": "",
        // Python's str() of an aware datetime.
        "created_at": server.created_at.to_chrono().format("%Y-%m-%d %H:%M:%S+00:00").to_string(),
        "terminated_at": time(server.terminated_at),
        "deleted_at": time(server.deleted_at),
        "launched_at": time(server.launched_at),
        "image_ref_url": image_ref_url,
        "os_type": Value::Null,
        "kernel_id": "",
        "ramdisk_id": "",
        "state": server.vm_state.as_str(),
        "state_description": server.task_state.map(|task| task.as_str()).unwrap_or_default(),
        "progress": "",
        "access_ip_v4": Value::Null,
        "access_ip_v6": Value::Null,
        "image_meta": server.image_meta,
        "metadata": server.metadata,
    });
    with(&general, &size(&server.flavor))
}

/// What a payload tells of the flavor.
pub(super) fn size(flavor: &Flavor) -> Value {
    json!({
        "instance_type": flavor.name,
        "instance_type_id": flavor.number,
        "instance_flavor_id": flavor.id,
        "memory_mb": flavor.memory_mib,
        "disk_gb": flavor.disk_gib.saturating_add(flavor.ephemeral_gib),
        "vcpus": flavor.vcpus,
        "root_gb": flavor.disk_gib,
        "ephemeral_gb": flavor.ephemeral_gib,
    })
}

/// Nova's `strtime`: `2026-11-21T20:04:19.088633`, no zone.
pub(super) fn strtime(time: Timestamp) -> String {
    time.to_chrono().format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

/// Puts keys into a payload.
pub(super) fn with(payload: &Value, extra: &Value) -> Value {
    let mut whole = payload.as_object().cloned().unwrap_or_else(Map::new);
    whole.extend(extra.as_object().cloned().unwrap_or_default());
    Value::Object(whole)
}

/// Keys of `compute.instance.update`, if the state changed.
fn state_change(before: Option<&Server>, after: &Server) -> Option<Value> {
    let task = |server: &Server| server.task_state.map(|task| task.as_str());
    let old = before.map(|server| server.vm_state.as_str());
    let old_task = before.and_then(task);
    if old == Some(after.vm_state.as_str()) && old_task == task(after) {
        return None;
    }
    Some(json!({
        "old_state": old,
        "state": after.vm_state.as_str(),
        "old_task_state": old_task,
        "new_task_state": task(after),
        "bandwidth": {},
    }))
}

impl Compute {
    pub(super) fn place(&self) -> Place {
        Place { node: self.node_name(), image_url: self.settings.image_url.clone() }
    }

    /// Records what is told about a change: the edit's own notes, and `compute.instance.update` if the state changed.
    pub(super) async fn tell(
        &self,
        tx: &mut Transaction<'_>,
        now: Timestamp,
        before: Option<&Server>,
        after: &Server,
        edit: Edit,
    ) -> Result<(), DatabaseError> {
        let shared = payload(after, &self.place());
        let mut notes = edit.notes;
        if let Some(change) = state_change(before, after) {
            notes.insert(0, ("update".to_owned(), "INFO", change));
        }
        for (event, priority, extra) in notes {
            let notification = Notification {
                exchange: "nova",
                publisher_id: format!("compute.{}", self.host()),
                event_type: format!("compute.instance.{event}"),
                priority,
                payload: with(&shared, &extra),
                context: edit.context.clone(),
            };
            notify::record(tx, now, &notification).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::server::{TaskState, VmState, tests::server},
        *,
    };

    #[test]
    fn a_payload_has_the_keys_that_ceilometer_reads() {
        let place = Place { node: "n".into(), image_url: "http://h/image".into() };
        let mut server = server(VmState::Active, Some(TaskState::PoweringOff));
        server.launched_at = Some(Timestamp::from_micros(1_795_291_459_088_633));
        server.created_at = Timestamp::from_secs(1_795_291_400);
        let payload = payload(&server, &place);
        assert_eq!(payload["state"], "active");
        assert_eq!(payload["state_description"], "powering-off");
        assert_eq!(payload["launched_at"], "2026-11-21T20:04:19.088633");
        assert_eq!(payload["created_at"], "2026-11-21 20:03:20+00:00");
        assert_eq!(payload["deleted_at"], "");
        for key in ["tenant_id", "user_id", "instance_id", "memory_mb", "vcpus", "disk_gb", "root_gb", "ephemeral_gb"] {
            assert!(payload.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn an_update_is_told_only_when_the_state_changes() {
        let before = server(VmState::Active, None);
        assert_eq!(state_change(Some(&before), &before), None);
        let after = server(VmState::Active, Some(TaskState::PoweringOff));
        let change = state_change(Some(&before), &after).expect("changed");
        assert_eq!(change["old_state"], "active");
        assert_eq!(change["new_task_state"], "powering-off");
    }
}
