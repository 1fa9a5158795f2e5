//! From what someone shows (password, token, application credential) to a new token, or one and the same refusal.

use std::time::Duration;

use axum::http::StatusCode;
use orzo_database::Row;
use secrecy::SecretString;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    Identity, Named, Principal,
    notices::Actor,
    tables::{self, DOMAIN_ID, DOMAIN_NAME},
    text,
    token::{Methods, TokenPayload, TokenScope},
};
use crate::http::{ApiError, RequestContext};

/// The body of `POST /v3/auth/tokens`.
#[derive(Debug, Deserialize)]
pub(crate) struct AuthBody {
    auth: Auth,
}

#[derive(Debug, Deserialize)]
struct Auth {
    identity: Shown,
    scope: Option<ScopeAsked>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    methods: Vec<String>,
    password: Option<PasswordShown>,
    token: Option<TokenShown>,
    application_credential: Option<CredentialShown>,
}

#[derive(Debug, Deserialize)]
struct PasswordShown {
    user: UserShown,
}

#[derive(Debug, Deserialize)]
struct UserShown {
    id: Option<String>,
    name: Option<String>,
    domain: Option<Reference>,
    password: Option<SecretString>,
}

#[derive(Debug, Deserialize)]
struct TokenShown {
    id: SecretString,
}

#[derive(Debug, Deserialize)]
struct CredentialShown {
    id: Option<String>,
    name: Option<String>,
    user: Option<UserShown>,
    secret: SecretString,
}

/// Something by id, or by name.
#[derive(Debug, Deserialize)]
struct Reference {
    id: Option<String>,
    name: Option<String>,
    domain: Option<Box<Reference>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ScopeAsked {
    Unscoped(String),
    Named(ScopeNamed),
}

#[derive(Debug, Deserialize)]
struct ScopeNamed {
    project: Option<Reference>,
    domain: Option<Reference>,
    system: Option<serde_json::Value>,
    #[serde(rename = "OS-TRUST:trust")]
    trust: Option<serde_json::Value>,
}

/// Somebody whose proof was good.
struct Proven {
    user: Row,
    credential: Option<Row>,
    parent: Option<TokenPayload>,
    methods: Methods,
}

impl Identity {
    /// Checks what is shown and seals a token for it. Every refusal for a reason that an attacker would like to know
    /// is the same 401.
    pub(super) async fn authenticate(
        &self,
        body: AuthBody,
        context: &RequestContext,
    ) -> Result<(String, Principal), ApiError> {
        self.room.received(1);
        let outcome = self.authenticate_counted(body, context).await;
        match &outcome {
            Ok(_) => self.room.stored(1),
            Err(error) if error.status == StatusCode::UNAUTHORIZED => self.room.refused("unauthorized", 1),
            Err(error) if error.status.is_client_error() => self.room.refused("bad request", 1),
            Err(_) => self.room.dropped("not available", 1),
        }
        outcome
    }

    async fn authenticate_counted(
        &self,
        body: AuthBody,
        context: &RequestContext,
    ) -> Result<(String, Principal), ApiError> {
        let Auth { identity: shown, scope } = body.auth;
        let scope = ask(scope)?;
        let proven = match one_method(&shown.methods)? {
            "password" => self.prove_password(required(shown.password, "password")?.user, context).await?,
            "token" => self.prove_token(required(shown.token, "token")?).await?,
            _ => {
                let credential = required(shown.application_credential, "application_credential")?;
                self.prove_credential(credential, context).await?
            }
        };
        let (token, mut principal) = self.issue(proven, scope).await?;
        principal.context = context.clone();
        let told = self.notices.authenticated(self.clock.now(), &principal.actor(), true);
        self.tell_alone(told).await?;
        Ok((token, principal))
    }

    async fn prove_password(&self, shown: UserShown, context: &RequestContext) -> Result<Proven, ApiError> {
        let password = required(shown.password.clone(), "password.user.password")?;
        let account = account_of(&shown)?;
        let user = self.user_shown(&shown).await?;
        let hash = user.as_ref().and_then(|user| user.text("password_hash"));
        self.compare(&account, &password, hash, user.as_ref(), context).await?;
        let user = user.ok_or_else(ApiError::unauthorized)?;
        Ok(Proven { user, credential: None, parent: None, methods: Methods::PASSWORD })
    }

    async fn prove_credential(&self, shown: CredentialShown, context: &RequestContext) -> Result<Proven, ApiError> {
        let credential = match (&shown.id, &shown.name, &shown.user) {
            (Some(id), ..) => self.credential(id).await?,
            (None, Some(name), Some(user)) => match self.user_shown(user).await? {
                None => None,
                Some(user) => {
                    let found = self
                        .database
                        .query_one(
                            "SELECT id FROM identity_credentials WHERE user_id = $1 AND name = $2",
                            &[user.string("id").into(), name.into()],
                        )
                        .await?;
                    match found {
                        Some(found) => self.credential(&found.string("id")).await?,
                        None => None,
                    }
                }
            },
            _ => return Err(ApiError::bad_request("An application credential is shown by id, or by name and user.")),
        };
        let user = match &credential {
            Some(credential) => tables::user(&mut &self.database, &credential.string("user_id")).await?,
            None => None,
        };
        let account = match (&shown.id, &shown.name, &shown.user) {
            (Some(id), ..) => format!("credential {id}"),
            (None, name, Some(user)) => format!("credential {name:?} of {}", account_of(user)?),
            (None, ..) => return Err(ApiError::unauthorized()),
        };
        let hash = credential.as_ref().map(|credential| credential.string("secret_hash"));
        self.compare(&account, &shown.secret, hash, user.as_ref(), context).await?;
        match (user, credential) {
            (Some(user), Some(credential)) => {
                Ok(Proven { user, credential: Some(credential), parent: None, methods: Methods::CREDENTIAL })
            }
            _ => Err(ApiError::unauthorized()),
        }
    }

    async fn prove_token(&self, shown: TokenShown) -> Result<Proven, ApiError> {
        use secrecy::ExposeSecret;
        let parent =
            self.validate(shown.id.expose_secret(), Duration::ZERO).await?.ok_or_else(ApiError::unauthorized)?;
        if parent.credential.is_some() {
            // What an application credential may do ends at its project and roles.
            return Err(ApiError::forbidden("a token of an application credential cannot be exchanged"));
        }
        let user = tables::user(&mut &self.database, &parent.user.id).await?.ok_or_else(ApiError::unauthorized)?;
        let methods = parent.payload.methods.rescoped();
        Ok(Proven { user, credential: None, parent: Some(parent.payload), methods })
    }

    /// Compares a secret, slows down guessing, and tells of failures.
    pub(super) async fn compare(
        &self,
        account: &str,
        secret: &SecretString,
        hash: Option<String>,
        user: Option<&Row>,
        context: &RequestContext,
    ) -> Result<(), ApiError> {
        let address = context.address.as_deref().unwrap_or("");
        self.may_try(account, address)?;
        let turn = self.passwords.turn().await?;
        // Asked again inside: no more guesses run side by side than there are turns.
        self.may_try(account, address)?;
        if self.passwords.verify(&turn, secret, hash).await? {
            self.throttle.succeeded(account, address);
            return Ok(());
        }
        self.throttle.failed(account, address);
        drop(turn);
        let actor = Actor {
            user_id: user.map(|user| user.string("id")),
            user_name: user.map(|user| user.string("name")),
            project_id: None,
            context: context.clone(),
        };
        let told = self.notices.authenticated(self.clock.now(), &actor, false);
        self.tell_alone(told).await?;
        Err(ApiError::unauthorized())
    }

    fn may_try(&self, account: &str, address: &str) -> Result<(), ApiError> {
        let wait = self.throttle.wait(account, address);
        if wait.is_zero() {
            return Ok(());
        }
        Err(ApiError { retry_after_s: Some(wait.as_secs() + 1), ..ApiError::unauthorized() })
    }

    async fn user_shown(&self, shown: &UserShown) -> Result<Option<Row>, ApiError> {
        if !shown.domain.as_ref().is_none_or(is_our_domain) {
            return Ok(None);
        }
        Ok(match (&shown.id, &shown.name) {
            (Some(id), _) => tables::user(&mut &self.database, id).await?,
            (None, Some(name)) => tables::user_named(&mut &self.database, name).await?,
            (None, None) => None,
        })
    }

    async fn issue(&self, proven: Proven, asked: Asked) -> Result<(String, Principal), ApiError> {
        let Proven { user, credential, parent, methods } = proven;
        let scope = self.resolve(&user, credential.as_ref(), asked).await?;
        let standing = self.standing(&user, scope, credential.as_ref()).await?.ok_or_else(ApiError::unauthorized)?;
        let now = self.clock.now();
        let mut expires_at = now.plus(self.token_ttl);
        // A token never outlives what it was made from.
        let limits = [parent.as_ref().map(|p| p.expires_at), credential.as_ref().and_then(|c| c.time("expires_at"))];
        for limit in limits.into_iter().flatten() {
            expires_at = expires_at.min(limit);
        }
        let audit = Uuid::new_v4();
        let payload = TokenPayload {
            methods,
            user: uuid_of(&user.string("id"))?,
            scope,
            credential: credential.as_ref().map(|c| uuid_of(&c.string("id"))).transpose()?,
            issued_at: now,
            expires_at,
            audit,
            chain: parent.as_ref().map_or(audit, |parent| parent.chain),
            revisions: standing.revisions,
        };
        let principal = Principal {
            user: Named::of(&user),
            project: standing.project,
            credential: credential.as_ref().map(Named::of),
            roles: standing.roles,
            context: RequestContext::default(),
            payload,
        };
        Ok((self.keys.seal(&principal.payload), principal))
    }

    /// Where the token is to be good. Nothing asked: the user's default project, if there is something to be there.
    async fn resolve(&self, user: &Row, credential: Option<&Row>, asked: Asked) -> Result<TokenScope, ApiError> {
        if let Some(credential) = credential {
            let project = uuid_of(&credential.string("project_id"))?;
            return match asked {
                Asked::Nothing => Ok(TokenScope::Project(project)),
                Asked::Project { id: Some(id), .. } if id == text(project) => Ok(TokenScope::Project(project)),
                _ => Err(ApiError::unauthorized()),
            };
        }
        match asked {
            Asked::Unscoped => Ok(TokenScope::Unscoped),
            Asked::Domain => Ok(TokenScope::Domain),
            Asked::Project { id: Some(id), .. } => {
                Ok(TokenScope::Project(Uuid::try_parse(&id).map_err(|_| ApiError::unauthorized())?))
            }
            Asked::Project { name, .. } => {
                let project = match &name {
                    Some(name) => tables::project_named(&mut &self.database, name).await?,
                    None => None,
                };
                let project = project.ok_or_else(ApiError::unauthorized)?;
                Ok(TokenScope::Project(uuid_of(&project.string("id"))?))
            }
            Asked::Nothing => {
                let Some(project) = user.text("default_project_id") else { return Ok(TokenScope::Unscoped) };
                let Ok(project) = Uuid::try_parse(&project) else { return Ok(TokenScope::Unscoped) };
                let scope = TokenScope::Project(project);
                let standing = self.standing(user, scope, None).await?;
                Ok(standing.map_or(TokenScope::Unscoped, |_| scope))
            }
        }
    }
}

/// The scope that a client asks for.
enum Asked {
    Nothing,
    Unscoped,
    Project { id: Option<String>, name: Option<String> },
    Domain,
}

fn ask(scope: Option<ScopeAsked>) -> Result<Asked, ApiError> {
    let scope = match scope {
        None => return Ok(Asked::Nothing),
        Some(ScopeAsked::Unscoped(text)) if text == "unscoped" => return Ok(Asked::Unscoped),
        Some(ScopeAsked::Unscoped(_)) => {
            return Err(ApiError::bad_request("The only scope named by a text is `unscoped`."));
        }
        Some(ScopeAsked::Named(scope)) => scope,
    };
    match scope {
        ScopeNamed { system: Some(_), .. } => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "System scope is not part of this cloud; use a project, where `admin` may do everything.",
        )),
        ScopeNamed { trust: Some(_), .. } => Err(ApiError::bad_request("Trusts are not part of this cloud.")),
        ScopeNamed { project: Some(project), domain: None, .. } => {
            let ours = project.domain.as_deref().is_none_or(is_our_domain);
            match (project.id, project.name) {
                (Some(id), _) => Ok(Asked::Project { id: Some(id), name: None }),
                (None, Some(name)) if ours => Ok(Asked::Project { id: None, name: Some(name) }),
                (None, Some(_)) => Ok(Asked::Project { id: None, name: None }),
                (None, None) => Err(ApiError::bad_request("A project scope needs an id or a name.")),
            }
        }
        ScopeNamed { domain: Some(domain), project: None, .. } => match is_our_domain(&domain) {
            true => Ok(Asked::Domain),
            false => Err(ApiError::unauthorized()),
        },
        _ => Err(ApiError::bad_request("A scope is one of `project` and `domain`.")),
    }
}

/// Exactly one method: chains of them only make work for a server (CVE-2014-2828).
fn one_method(methods: &[String]) -> Result<&str, ApiError> {
    match methods {
        [method] if ["password", "token", "application_credential"].contains(&method.as_str()) => Ok(method),
        [method] => {
            tracing::debug!(method, "unknown authentication method");
            Err(ApiError::unauthorized())
        }
        _ => Err(ApiError::bad_request("Exactly one authentication method is expected.")),
    }
}

/// The name under which failures are counted: what was shown, whether it exists or not.
fn account_of(shown: &UserShown) -> Result<String, ApiError> {
    match (&shown.id, &shown.name) {
        (Some(id), _) => Ok(format!("id {id}")),
        (None, Some(name)) => Ok(format!("name {name}")),
        (None, None) => Err(ApiError::bad_request("A user is shown by id, or by name and domain.")),
    }
}

fn is_our_domain(domain: &Reference) -> bool {
    match (&domain.id, &domain.name) {
        (Some(id), _) => id == DOMAIN_ID,
        // Names of domains are not case sensitive in any deployment we know of.
        (None, Some(name)) => name.eq_ignore_ascii_case(DOMAIN_NAME),
        (None, None) => false,
    }
}

fn required<T>(value: Option<T>, what: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::bad_request(format!("Expecting to find {what} in auth.identity.")))
}

/// Ids are made by [`tables::new_id`]; a row with another one was not made by us.
fn uuid_of(id: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(id).map_err(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The database holds a strange id `{id}`."))
    })
}
