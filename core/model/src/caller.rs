//! Who asks, and how far they may look.

/// A verified credential: made only by what verified it, never from a request header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub user_id: String,
    /// User name, for messages to people.
    pub user_name: String,
    /// Project of the token; `None` if it has none.
    pub project_id: Option<String>,
    /// Name of that project.
    pub project_name: Option<String>,
    /// Domain of the user.
    pub user_domain_id: Option<String>,
    /// Role names, lower case, implied roles included.
    pub roles: Vec<String>,
}

/// How far a read may look. Enforced below the query, in the index and the scan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// An operator: everything.
    All,
    /// A tenant: what belongs to this project, or was created by it.
    Project(String),
    /// A credential without a project: nothing.
    Nothing,
}

impl Caller {
    /// May do everything.
    pub fn is_admin(&self) -> bool {
        self.has_role("admin")
    }

    /// Another service of the cloud (Ceilometer's publisher, Aodh).
    pub fn is_service(&self) -> bool {
        self.has_role("service")
    }

    /// Has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }

    /// Gnocchi's `creator` for things this caller makes in keystone mode: `<user>:<project>`.
    pub fn creator(&self) -> String {
        format!("{}:{}", self.user_id, self.project_id.as_deref().unwrap_or(""))
    }

    /// How far this caller's reads may look.
    pub fn scope(&self) -> Scope {
        match &self.project_id {
            _ if self.is_admin() => Scope::All,
            Some(project) => Scope::Project(project.clone()),
            None => Scope::Nothing,
        }
    }
}
