//! The first things of a cloud, and accounts that its owner makes from inside the process.

use orzo_database::{DatabaseError, Transaction};
use secrecy::SecretString;

use super::{
    Identity, password,
    roles::BUILT_IN,
    tables::{self, DOMAIN_ID, new_id},
};
use crate::{CloudError, http::ApiError};

/// Projects of every cloud.
const PROJECTS: &[(&str, &str)] =
    &[("admin", "Bootstrap project for initializing the cloud."), ("service", "Project of the services.")];

impl Identity {
    /// Makes what is missing: built-in roles, the projects `admin` and `service`, and the user `admin`, with the given
    /// or a generated password. Returns the password only if it was generated and the user made just now.
    pub async fn bootstrap(&self, given: Option<&SecretString>) -> Result<Option<SecretString>, CloudError> {
        let generated = password::generated();
        let hash = match tables::user_named(&mut &self.database, "admin").await? {
            Some(_) => None,
            None => {
                let hash = self.passwords.hash(given.unwrap_or(&generated)).await;
                Some(hash.map_err(CloudError::of)?)
            }
        };
        let made = self
            .change(|tx| {
                let hash = hash.clone();
                Box::pin(async move {
                    for role in BUILT_IN {
                        tx.execute(
                            "INSERT INTO identity_roles (id, name, built_in) VALUES ($1, $2, 1) \
                             ON CONFLICT (name) DO NOTHING",
                            &[new_id().into(), (*role).into()],
                        )
                        .await?;
                    }
                    for (name, description) in PROJECTS {
                        make_project(tx, name, description).await?;
                    }
                    // Asked again inside: another process may have been faster.
                    let exists = tables::user_named(tx, "admin").await?.is_some();
                    let Some(hash) = hash.filter(|_| !exists) else { return Ok(false) };
                    let project = make_project(tx, "admin", "").await?;
                    let user = make_user(tx, "admin", &hash, &project).await?;
                    let admin = role_named(tx, "admin").await?;
                    tables::assign(tx, &user, &project, &admin).await?;
                    tables::assign(tx, &user, DOMAIN_ID, &admin).await?;
                    Ok(true)
                })
            })
            .await
            .map_err(CloudError::of)?;
        Ok((made && given.is_none()).then_some(generated))
    }

    /// A project, made if it is missing; its id.
    pub async fn ensure_project(&self, name: &str, description: &str) -> Result<String, CloudError> {
        self.change(|tx| {
            let (name, description) = (name.to_owned(), description.to_owned());
            Box::pin(async move { Ok(make_project(tx, &name, &description).await?) })
        })
        .await
        .map_err(CloudError::of)
    }

    /// A user with this password and these roles in a project, made or mended as needed; the user's id. If the
    /// password has to be changed, tokens made with the old one end.
    pub async fn ensure_user(
        &self,
        name: &str,
        password: &SecretString,
        project: &str,
        roles: &[&str],
    ) -> Result<String, CloudError> {
        self.ensure_user_of(name, password, project, roles).await.map_err(CloudError::of)
    }

    async fn ensure_user_of(
        &self,
        name: &str,
        password: &SecretString,
        project: &str,
        roles: &[&str],
    ) -> Result<String, ApiError> {
        let known = tables::user_named(&mut &self.database, name).await?;
        let is_right = match &known {
            Some(user) => {
                let turn = self.passwords.turn().await?;
                self.passwords.verify(&turn, password, user.text("password_hash")).await?
            }
            None => false,
        };
        let hash = if is_right { None } else { Some(self.passwords.hash(password).await?) };
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        self.change(|tx| {
            let (name, project, roles, hash) = (name.to_owned(), project.to_owned(), roles.clone(), hash.clone());
            Box::pin(async move {
                let project = make_project(tx, &project, "").await?;
                let user = match (tables::user_named(tx, &name).await?, hash) {
                    (Some(user), hash) => {
                        let id = user.string("id");
                        if let Some(hash) = hash {
                            tx.execute(
                                "UPDATE identity_users SET password_hash = $2, revision = revision + 1 WHERE id = $1",
                                &[id.as_str().into(), hash.into()],
                            )
                            .await?;
                        }
                        tx.execute("UPDATE identity_users SET enabled = 1 WHERE id = $1", &[id.as_str().into()])
                            .await?;
                        id
                    }
                    (None, Some(hash)) => make_user(tx, &name, &hash, &project).await?,
                    // It was there a moment ago and somebody deleted it.
                    (None, None) => return Err(ApiError::conflict(format!("User {name} is being deleted."))),
                };
                for role in &roles {
                    let role = role_named(tx, role).await?;
                    tables::assign(tx, &user, &project, &role).await?;
                }
                Ok(user)
            })
        })
        .await
    }
}

async fn make_project(tx: &mut Transaction<'_>, name: &str, description: &str) -> Result<String, DatabaseError> {
    if let Some(project) = tables::project_named(tx, name).await? {
        return Ok(project.string("id"));
    }
    let id = new_id();
    tx.execute(
        "INSERT INTO identity_projects (id, name, description, enabled, extra, revision) \
         VALUES ($1, $2, $3, 1, '{}', 0)",
        &[id.as_str().into(), name.into(), description.into()],
    )
    .await?;
    Ok(id)
}

async fn make_user(tx: &mut Transaction<'_>, name: &str, hash: &str, project: &str) -> Result<String, DatabaseError> {
    let id = new_id();
    tx.execute(
        "INSERT INTO identity_users (id, name, password_hash, enabled, default_project_id, extra, revision) \
         VALUES ($1, $2, $3, 1, $4, '{}', 0)",
        &[id.as_str().into(), name.into(), hash.into(), project.into()],
    )
    .await?;
    Ok(id)
}

async fn role_named(tx: &mut Transaction<'_>, name: &str) -> Result<String, ApiError> {
    let row = tx.query_one("SELECT id FROM identity_roles WHERE name = $1", &[name.into()]).await?;
    row.map(|row| row.string("id")).ok_or_else(|| ApiError::not_found("role", name))
}
