//! `loadbalancer_member_health`: on when a member of an Octavia pool is broken; Heat replaces it then.

use serde_json::{Value, json};

use crate::{alarm::AlarmError, fields::Fields};

/// A rule on the members of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberHealthRule {
    /// Octavia's pool.
    pub pool_id: String,
    /// Heat's stack, told in the notice.
    pub stack_id: String,
    /// Heat's group, told in the notice.
    pub autoscaling_group_id: String,
}

/// Ids are shorter.
const ID_BYTES_MAX: usize = 255;

impl MemberHealthRule {
    pub(super) fn parse(path: &str, json: &Value) -> Result<Self, AlarmError> {
        let fields = Fields::of(path, json, &["pool_id", "stack_id", "autoscaling_group_id"])?;
        let rule = Self {
            pool_id: fields.required_text("pool_id")?,
            stack_id: fields.required_text("stack_id")?,
            autoscaling_group_id: fields.required_text("autoscaling_group_id")?,
        };
        for id in [&rule.pool_id, &rule.stack_id, &rule.autoscaling_group_id] {
            if id.len() > ID_BYTES_MAX {
                return Err(AlarmError::Refused(format!("an id is longer than {ID_BYTES_MAX} bytes")));
            }
        }
        // It becomes a part of a path.
        if rule.pool_id.is_empty() || !rule.pool_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(AlarmError::invalid("pool_id", &json!(rule.pool_id), "Value should be an id"));
        }
        Ok(rule)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "pool_id": self.pool_id, "stack_id": self.stack_id, "autoscaling_group_id": self.autoscaling_group_id,
        })
    }
}
