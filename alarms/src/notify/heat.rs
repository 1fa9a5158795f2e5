//! Members of a load balancer that are unhealthy, told to the orchestration service (Heat), as Aodh's `trust+heat` does:
//! the group's members are marked, then the stack is updated in place, which replaces them.

use serde_json::{Value, json};

use super::doors::{CloudDoor, CloudRequest, DoorError};
use crate::book::Notice;

/// How deep the stack's resources are searched for a member, as Aodh does.
const NESTED_DEPTH: u32 = 3;
/// Members of one pool told at once; a pool of more that is unhealthy as a whole is no matter of healing.
const MEMBERS_MAX: usize = 64;

/// Marks what the notice's `reason_data` names.
pub(crate) async fn mark_unhealthy(
    cloud: &dyn CloudDoor,
    trust_id: Option<&str>,
    notice: &Notice,
) -> Result<(), DoorError> {
    let body: Value = serde_json::from_str(&notice.body).unwrap_or_default();
    let data = &body["reason_data"];
    let (Some(stack), Some(group)) = (segment(&data["stack_id"]), segment(&data["asg_id"])) else {
        return Err(DoorError::Refused { reason: "stack_id and asg_id must be in the reason's data".to_owned() });
    };
    let request = |method, path, body| CloudRequest {
        service_type: "orchestration",
        method,
        path,
        trust_id,
        client_id: &notice.notice_id,
        body,
    };
    let members = data["unhealthy_members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut parents: Vec<String> = Vec::new();
    for id in members.iter().take(MEMBERS_MAX).filter_map(|member| segment(&member["id"])) {
        let path = format!("stacks/{stack}/resources?nested_depth={NESTED_DEPTH}&physical_resource_id={id}");
        let found = cloud.request(&request("GET", path, None)).await?;
        if let Some(parent) = segment(&found["resources"][0]["parent_resource"])
            && !parents.iter().any(|known| known == parent)
        {
            parents.push(parent.to_owned());
        }
    }
    if parents.is_empty() {
        // Nothing of this stack is concerned: there is nothing to heal, now or later.
        tracing::warn!(alarm = notice.alarm_id, "no unhealthy resource of the stack was found");
        return Ok(());
    }
    for parent in &parents {
        let mark = json!({"mark_unhealthy": true, "resource_status_reason": "unhealthy load balancer member"});
        cloud.request(&request("PATCH", format!("stacks/{group}/resources/{parent}"), Some(mark))).await?;
    }
    cloud.request(&request("PATCH", format!("stacks/{stack}"), Some(json!({})))).await?;
    Ok(())
}

/// A name that can stand in a path as it is.
fn segment(value: &Value) -> Option<&str> {
    let text = value.as_str()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_plain = !text.is_empty() && text.bytes().all(plain) && text.bytes().any(|byte| byte != b'.');
    is_plain.then_some(text)
}
