//! Who may do what: Gnocchi 4.7's default policies, or an operator's file in oslo.policy's YAML. Pure decisions.
//!
//! What a caller may not see is not found: a reading policy becomes a [`Scope`], which the index applies below every
//! query. What it may see but not change is 403.

use orzo_index::{Metric, Resource, created_by_project, created_by_user};
use orzo_model::{Caller, Scope, Standing};

use crate::problem::Problem;

mod actions;
mod check;
mod file;

pub(crate) use actions::Action;
use check::Rules;
pub use file::{Policies, PolicyError};

/// What a decision is about.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// No thing in particular.
    Nothing,
    /// A resource.
    Resource(&'a Resource),
    /// A metric; `resource.project_id` is the owner of its resource.
    Metric(&'a Metric),
    /// Some fields by name.
    Fields(&'a [(&'a str, &'a str)]),
}

impl Target<'_> {
    /// A field as text; `None` if there is none.
    fn field(&self, name: &str) -> Option<String> {
        let creator_of = |creator: &str| {
            Some(match name {
                "creator" => creator.to_owned(),
                "created_by_user_id" => created_by_user(creator).to_owned(),
                "created_by_project_id" => created_by_project(creator).to_owned(),
                _ => return None,
            })
        };
        match self {
            Self::Nothing => None,
            Self::Fields(fields) => {
                fields.iter().find(|(field, _)| *field == name).map(|(_, value)| (*value).to_owned())
            }
            Self::Resource(resource) => creator_of(&resource.creator).or_else(|| match name {
                "id" => Some(resource.id.to_string()),
                "type" | "resource_type" => Some(resource.resource_type.clone()),
                "original_resource_id" => Some(resource.original_resource_id.clone()),
                "project_id" => resource.project_id.clone(),
                "user_id" => resource.user_id.clone(),
                name => resource.attributes.get(name).map(check::text_of),
            }),
            Self::Metric(metric) => creator_of(&metric.creator).or_else(|| match name {
                "id" => Some(metric.id.to_string()),
                "name" => metric.name.clone(),
                "unit" => metric.unit.clone(),
                "archive_policy.name" | "archive_policy_name" => Some(metric.archive_policy.name.clone()),
                "resource_id" | "resource.id" => metric.resource_id.map(|id| id.to_string()),
                "resource.project_id" => metric.resource_project_id.clone(),
                _ => None,
            }),
        }
    }
}

impl Policies {
    /// 403 unless the policy lets the caller do this.
    pub(crate) fn allow(&self, action: Action, caller: &Caller, target: Target<'_>) -> Result<(), Problem> {
        allow(self.rules.decides(action, caller, target))
    }

    /// How far a reading (or collectively deleting) action may look.
    ///
    /// The policy is asked three times: about no thing in particular, about a thing that the caller's project owns, and
    /// about one that it has created. So a rule may speak of roles, owners and creators; a thing's other fields are not
    /// known before it is read, and a rule that asks for them finds nothing.
    pub(crate) fn scope(&self, action: Action, caller: &Caller) -> Scope {
        // Where everyone may read everything, not everyone may remove everything.
        let is_open = caller.standing == Standing::OpenName && action != Action::DeleteResources;
        if is_open || self.rules.decides(action, caller, Target::Nothing) {
            return Scope::All;
        }
        let creator = caller.creator();
        if !caller.has_projects() {
            let own = self.rules.decides(action, caller, Target::Fields(&[("creator", &creator)]));
            return if own { Scope::Creator(creator) } else { Scope::Nothing };
        }
        let Some(project) = &caller.project_id else { return Scope::Nothing };
        let owner = [("project_id", project.as_str()), ("resource.project_id", project.as_str())];
        let is_owner = self.rules.decides(action, caller, Target::Fields(&owner));
        let is_maker = self.rules.decides(action, caller, Target::Fields(&[("created_by_project_id", project)]));
        match (is_owner, is_maker) {
            (true, true) => Scope::Project(project.clone()),
            (true, false) => Scope::Owner(project.clone()),
            (false, true) => Scope::Maker(project.clone()),
            (false, false) => Scope::Nothing,
        }
    }
}

/// Admin, or another service; for faces that are not Gnocchi's.
pub(crate) fn operator(caller: &Caller) -> Result<(), Problem> {
    allow(caller.is_admin() || caller.is_service())
}

/// Admin only; for faces that are not Gnocchi's.
pub(crate) fn admin(caller: &Caller) -> Result<(), Problem> {
    allow(caller.is_admin())
}

/// Anybody with a project: what is made without one belongs to nobody, and nobody but an operator would see it again.
pub(crate) fn has_project(caller: &Caller) -> Result<(), Problem> {
    let is_someone = caller.project_id.is_some() || !caller.has_projects();
    allow(is_someone || caller.is_admin() || caller.is_service())
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
        let policies = Policies::default();
        let admin_user = caller("a", Some("p0"), &["admin"]);
        let service = caller("s", Some("ps"), &["service"]);
        let owner = caller("u", Some("p1"), &["member"]);
        let colleague = caller("v", Some("p1"), &["reader"]);
        let stranger = caller("w", Some("p2"), &["member"]);
        let unscoped = caller("x", None, &[]);
        let everyone = [&admin_user, &service, &owner, &colleague, &stranger, &unscoped];
        let table = |decide: &dyn Fn(&Caller) -> Result<(), Problem>| everyone.map(|c| decide(c).is_ok());
        let made_by = |action: Action, creator: &'static str| {
            table(&|c| {
                let fields = [("creator", creator), ("created_by_project_id", created_by_project(creator))];
                policies.allow(action, c, Target::Fields(&fields))
            })
        };
        assert_eq!(table(&operator), [true, true, false, false, false, false]);
        assert_eq!(table(&admin), [true, false, false, false, false, false]);
        assert_eq!(table(&has_project), [true, true, true, true, true, false]);
        assert_eq!(made_by(Action::DeleteMetric, "u:p1"), [true, false, true, true, false, false]);
        assert_eq!(made_by(Action::PostMeasures, "u:p1"), [true, true, true, true, false, false]);
        assert_eq!(made_by(Action::GetStatus, "u:p1"), [true, false, false, false, false, false]);
        // A creator without a project is not everyone else without one.
        assert_eq!(made_by(Action::DeleteMetric, "u:"), [true, false, false, false, false, false]);
        assert_eq!(policies.scope(Action::GetMetric, &service), Scope::All);
        assert_eq!(policies.scope(Action::GetResource, &service), Scope::Project("ps".to_owned()));
        assert_eq!(policies.scope(Action::GetMetric, &stranger), Scope::Project("p2".to_owned()));
        // Others' resources of a project may be read by it, not removed.
        assert_eq!(policies.scope(Action::DeleteResources, &stranger), Scope::Maker("p2".to_owned()));
        assert_eq!(policies.scope(Action::GetMetric, &unscoped), Scope::Nothing);
    }

    #[test]
    fn names_own_what_they_make() {
        let policies = Policies::default();
        let name = Caller::named("jd", Standing::Name);
        assert_eq!(policies.scope(Action::ListMetric, &name), Scope::Creator("jd".to_owned()));
        assert_eq!(policies.scope(Action::ListMetric, &Caller::named("jd", Standing::OpenName)), Scope::All);
        assert_eq!(policies.scope(Action::ListMetric, &Caller::named("admin", Standing::Name)), Scope::All);
        let made_by = |creator: &str| {
            policies.allow(Action::DeleteMetric, &name, Target::Fields(&[("creator", creator)])).is_ok()
        };
        assert!(made_by("jd") && !made_by("jd2") && !made_by("jd:p"));
    }
}
