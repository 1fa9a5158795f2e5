//! Who may do what: Gnocchi 4.7's default policies. Pure decisions.
//!
//! What a caller may not see is not found (the [`Scope`] is applied in the index, below every query); what it may see but
//! not change is 403.

use orzo_index::created_by_project;
use orzo_model::{Caller, Scope, Standing};

use crate::problem::Problem;

/// Admin, or another service.
pub(crate) fn operator(caller: &Caller) -> Result<(), Problem> {
    allow(caller.is_admin() || caller.is_service())
}

/// Admin only.
pub(crate) fn admin(caller: &Caller) -> Result<(), Problem> {
    allow(caller.is_admin())
}

/// Admin, or who created it.
pub(crate) fn creator(caller: &Caller, created_by: &str) -> Result<(), Problem> {
    allow(caller.is_admin() || is_creator(caller, created_by))
}

/// Admin, another service, or who created it.
pub(crate) fn creator_or_service(caller: &Caller, created_by: &str) -> Result<(), Problem> {
    allow(caller.is_admin() || caller.is_service() || is_creator(caller, created_by))
}

/// Anybody with a project: what is made without one belongs to nobody, and nobody but an operator would see it again.
pub(crate) fn has_project(caller: &Caller) -> Result<(), Problem> {
    let is_someone = caller.project_id.is_some() || caller.standing != Standing::Project;
    allow(is_someone || caller.is_admin() || caller.is_service())
}

/// Created by this user in this project, or by someone else of this project.
pub(crate) fn is_creator(caller: &Caller, created_by: &str) -> bool {
    let project = created_by_project(created_by);
    caller.creator() == created_by || (!project.is_empty() && caller.project_id.as_deref() == Some(project))
}

/// How far reads may look where Gnocchi's policy lets services read everything (metrics and their measures, searches).
pub(crate) fn service_scope(caller: &Caller) -> Scope {
    if caller.is_service() { Scope::All } else { caller.scope() }
}

fn allow(allowed: bool) -> Result<(), Problem> {
    if allowed { Ok(()) } else { Err(Problem::forbidden()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(user: &str, project: Option<&str>, roles: &[&str]) -> Caller {
        Caller {
            user_id: user.to_owned(),
            user_name: user.to_owned(),
            project_id: project.map(str::to_owned),
            project_name: None,
            user_domain_id: None,
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            standing: Standing::Project,
        }
    }

    #[test]
    fn the_table_of_personas() {
        let admin_user = caller("a", Some("p0"), &["admin"]);
        let service = caller("s", Some("ps"), &["service"]);
        let owner = caller("u", Some("p1"), &["member"]);
        let colleague = caller("v", Some("p1"), &["reader"]);
        let stranger = caller("w", Some("p2"), &["member"]);
        let unscoped = caller("x", None, &[]);
        let everyone = [&admin_user, &service, &owner, &colleague, &stranger, &unscoped];
        let table = |decide: &dyn Fn(&Caller) -> Result<(), Problem>| everyone.map(|c| decide(c).is_ok());
        assert_eq!(table(&operator), [true, true, false, false, false, false]);
        assert_eq!(table(&admin), [true, false, false, false, false, false]);
        assert_eq!(table(&has_project), [true, true, true, true, true, false]);
        assert_eq!(table(&|c| creator(c, "u:p1")), [true, false, true, true, false, false]);
        assert_eq!(table(&|c| creator_or_service(c, "u:p1")), [true, true, true, true, false, false]);
        // A creator without a project is not everyone else without one.
        assert_eq!(table(&|c| creator(c, "u:")), [true, false, false, false, false, false]);
        assert_eq!(service_scope(&service), Scope::All);
        assert_eq!(service_scope(&stranger), Scope::Project("p2".to_owned()));
        assert_eq!(service_scope(&unscoped), Scope::Nothing);
    }
}
