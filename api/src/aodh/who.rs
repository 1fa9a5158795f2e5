//! Who asks the alarm API, and what Aodh's default policies let them do.

use axum::extract::FromRequestParts;
use http::{HeaderMap, request::Parts};
use orzo_model::{Caller, Standing};

use crate::{SharedApi, authenticate::Asker, problem::Problem};

/// Longer ids and role lists are none.
const HEADER_BYTES_MAX: usize = 4096;

/// Somebody who was verified; or believed, where an operator has set Aodh's `noauth` (a loopback address only).
pub(super) struct Who(pub(super) Caller);

impl FromRequestParts<SharedApi> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &SharedApi) -> Result<Self, Problem> {
        if api.settings.alarming_noauth {
            return believed(&parts.headers).map(Self).ok_or_else(Problem::unauthorized);
        }
        Asker::from_request_parts(parts, api).await.map(|Asker(caller)| Self(caller))
    }
}

/// What the headers say, as the client's `aodh-noauth` sends them.
fn believed(headers: &HeaderMap) -> Option<Caller> {
    let text = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?.trim();
        (!text.is_empty() && text.len() <= HEADER_BYTES_MAX).then(|| text.to_owned())
    };
    let user_id = text("x-user-id")?;
    let mut roles: Vec<String> =
        text("x-roles").unwrap_or_default().split(',').map(|role| role.trim().to_lowercase()).collect();
    // Keystone's implied roles, which nobody expands here.
    for pair in ["admin", "manager", "member", "reader"].windows(2) {
        if roles.iter().any(|role| role == pair[0]) {
            roles.push(pair[1].to_owned());
        }
    }
    roles.retain(|role| !role.is_empty());
    Some(Caller {
        user_name: user_id.clone(),
        user_id,
        project_id: text("x-project-id"),
        project_name: None,
        user_domain_id: None,
        roles,
        standing: Standing::Project,
    })
}

impl Who {
    /// `project_reader_or_admin`
    pub(super) fn must_read(&self) -> Result<(), Problem> {
        self.must(self.0.has_role("reader") && self.0.project_id.is_some())
    }

    /// `project_member_or_admin`
    pub(super) fn must_write(&self) -> Result<(), Problem> {
        self.must(self.0.has_role("member") && self.0.project_id.is_some())
    }

    /// `context_is_admin`
    pub(super) fn must_be_admin(&self) -> Result<(), Problem> {
        self.must(false)
    }

    fn must(&self, is_enough: bool) -> Result<(), Problem> {
        if is_enough || self.0.is_admin() { Ok(()) } else { Err(Problem::forbidden()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_believed_as_far_as_they_say_something() {
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs.iter().map(|(n, v)| (n.parse().expect("a name"), v.parse().expect("a value"))).collect()
        };
        assert!(believed(&headers(&[("x-project-id", "p"), ("x-roles", "admin")])).is_none());
        let caller = believed(&headers(&[("x-user-id", "u"), ("x-project-id", "p"), ("x-roles", "Member, other")]));
        let caller = caller.expect("somebody");
        assert_eq!((caller.user_id.as_str(), caller.project_id.as_deref()), ("u", Some("p")));
        assert_eq!(caller.roles, ["member", "other", "reader"]);
        assert!(Who(caller).must_write().is_ok());
        let nobody = believed(&headers(&[("x-user-id", "u")])).expect("somebody");
        assert!(Who(nobody).must_read().is_err());
    }
}
