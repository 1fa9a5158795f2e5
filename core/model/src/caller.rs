//! Who asks, and how far they may look.

use serde::{Deserialize, Serialize};

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
    /// What owns the things it makes, and how far it may look.
    pub standing: Standing,
}

/// How a caller owns things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// A user of an identity service, working in a project: colleagues see the project's things.
    #[default]
    Project,
    /// A bare name without projects: owns what it makes, and sees nothing else.
    Name,
    /// A bare name where everyone may read everything (Gnocchi's basic mode).
    OpenName,
    /// An operator's read token for all projects: label sets of everybody are seen too, each with its owner.
    Everywhere,
}

/// How far a read may look. Enforced below the query, in the index and the scan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// An operator: everything.
    All,
    /// A tenant: what belongs to this project, or was created by it.
    Project(String),
    /// A tenant under a policy that shows only what belongs to this project.
    Owner(String),
    /// A tenant under a policy that shows only what this project has created.
    Maker(String),
    /// A bare name: what was created under it.
    Creator(String),
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

    /// Whether it is a user or a token of an identity service's project, not a bare name.
    pub fn has_projects(&self) -> bool {
        matches!(self.standing, Standing::Project | Standing::Everywhere)
    }

    /// Has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }

    /// A caller that is only a name, as Gnocchi's basic and remote-user modes know them; `admin` is the administrator.
    pub fn named(name: &str, standing: Standing) -> Self {
        Self {
            user_id: name.to_owned(),
            user_name: name.to_owned(),
            project_id: None,
            project_name: None,
            user_domain_id: None,
            roles: if name == "admin" { vec!["admin".to_owned()] } else { Vec::new() },
            standing,
        }
    }

    /// Gnocchi's `creator` for things this caller makes: `<user>:<project>`, or the bare name.
    pub fn creator(&self) -> String {
        match self.standing {
            Standing::Project | Standing::Everywhere => {
                format!("{}:{}", self.user_id, self.project_id.as_deref().unwrap_or(""))
            }
            Standing::Name | Standing::OpenName => self.user_id.clone(),
        }
    }

    /// How far this caller's reads may look.
    pub fn scope(&self) -> Scope {
        match (self.standing, &self.project_id) {
            _ if self.is_admin() => Scope::All,
            (Standing::OpenName, _) => Scope::All,
            (Standing::Name, _) => Scope::Creator(self.user_id.clone()),
            (Standing::Project | Standing::Everywhere, Some(project)) => Scope::Project(project.clone()),
            (Standing::Project | Standing::Everywhere, None) => Scope::Nothing,
        }
    }
}
