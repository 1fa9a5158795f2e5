//! What a policy decides about, under Gnocchi's names, each with the rule that Gnocchi 4.7 has for it.

/// One policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its name says, and the table below says the rest")]
pub(crate) enum Action {
    GetStatus,
    CreateResource,
    GetResource,
    UpdateResource,
    DeleteResource,
    DeleteResources,
    ListResource,
    SearchResource,
    CreateResourceType,
    GetResourceType,
    UpdateResourceType,
    DeleteResourceType,
    ListResourceType,
    CreateArchivePolicy,
    GetArchivePolicy,
    UpdateArchivePolicy,
    DeleteArchivePolicy,
    ListArchivePolicy,
    CreateArchivePolicyRule,
    GetArchivePolicyRule,
    UpdateArchivePolicyRule,
    DeleteArchivePolicyRule,
    ListArchivePolicyRule,
    CreateMetric,
    GetMetric,
    DeleteMetric,
    ListMetric,
    SearchMetric,
    PostMeasures,
    GetMeasures,
}

const ANYONE: &str = "";
const ADMIN: &str = "role:admin";
const ADMIN_OR_SERVICE: &str = "rule:admin_or_service";
const MAKER: &str = "rule:admin_or_creator";
const MAKER_OR_SERVICE: &str = "rule:admin_or_service or rule:creator";
const RESOURCE_READER: &str = "rule:admin_or_creator or rule:resource_owner";
const RESOURCE_READER_OR_SERVICE: &str = "rule:admin_or_service or rule:creator or rule:resource_owner";
const METRIC_READER: &str = "rule:admin_or_creator or rule:metric_owner";
const METRIC_READER_OR_SERVICE: &str = "rule:admin_or_service or rule:creator or rule:metric_owner";

/// Every policy with its name and default.
pub(super) const ACTIONS: [(Action, &str, &str); 30] = [
    (Action::GetStatus, "get status", ADMIN),
    (Action::CreateResource, "create resource", ANYONE),
    (Action::GetResource, "get resource", RESOURCE_READER),
    (Action::UpdateResource, "update resource", MAKER_OR_SERVICE),
    (Action::DeleteResource, "delete resource", MAKER),
    (Action::DeleteResources, "delete resources", MAKER),
    (Action::ListResource, "list resource", RESOURCE_READER),
    (Action::SearchResource, "search resource", RESOURCE_READER_OR_SERVICE),
    (Action::CreateResourceType, "create resource type", ADMIN_OR_SERVICE),
    (Action::GetResourceType, "get resource type", ANYONE),
    (Action::UpdateResourceType, "update resource type", ADMIN_OR_SERVICE),
    (Action::DeleteResourceType, "delete resource type", ADMIN),
    (Action::ListResourceType, "list resource type", ANYONE),
    (Action::CreateArchivePolicy, "create archive policy", ADMIN_OR_SERVICE),
    (Action::GetArchivePolicy, "get archive policy", ANYONE),
    (Action::UpdateArchivePolicy, "update archive policy", ADMIN),
    (Action::DeleteArchivePolicy, "delete archive policy", ADMIN),
    (Action::ListArchivePolicy, "list archive policy", ANYONE),
    (Action::CreateArchivePolicyRule, "create archive policy rule", ADMIN),
    (Action::GetArchivePolicyRule, "get archive policy rule", ANYONE),
    (Action::UpdateArchivePolicyRule, "update archive policy rule", ADMIN),
    (Action::DeleteArchivePolicyRule, "delete archive policy rule", ADMIN),
    (Action::ListArchivePolicyRule, "list archive policy rule", ANYONE),
    (Action::CreateMetric, "create metric", ANYONE),
    (Action::GetMetric, "get metric", METRIC_READER_OR_SERVICE),
    (Action::DeleteMetric, "delete metric", MAKER),
    (Action::ListMetric, "list metric", METRIC_READER),
    (Action::SearchMetric, "search metric", METRIC_READER),
    (Action::PostMeasures, "post measures", MAKER_OR_SERVICE),
    (Action::GetMeasures, "get measures", METRIC_READER_OR_SERVICE),
];

/// The rules that the defaults refer to; a file may change them too.
pub(super) const HELPERS: [(&str, &str); 6] = [
    ("context_is_admin", "role:admin"),
    ("admin_or_service", "role:admin or role:service"),
    ("creator", "user:%(creator)s or project_id:%(created_by_project_id)s"),
    ("admin_or_creator", "role:admin or rule:creator"),
    ("resource_owner", "project_id:%(project_id)s"),
    ("metric_owner", "project_id:%(resource.project_id)s"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_stands_at_its_place() {
        for (place, (action, name, _)) in ACTIONS.iter().enumerate() {
            assert_eq!(*action as usize, place, "{name}");
        }
    }
}
