//! From what someone shows (password, token, application credential) to a new token, or one and the same refusal.
//!
//! Every refusal also takes the same work, so that time tells no more than words: whatever is found, the database is
//! asked the same questions, one hash is computed, one failure is remembered and told. So all is looked up first, and
//! judged at the end in one place ([`Identity::compare`]).

use std::time::Duration;

use axum::http::StatusCode;
use orzo_database::Row;
use secrecy::SecretString;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    Identity, Named, Place, Principal, Standing,
    notices::Actor,
    tables::{self, DOMAIN_ID, DOMAIN_NAME, NOBODY},
    token::{Methods, TokenPayload},
    trusts::{self, Entrusted, Trust},
    uuid_of,
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

/// Somebody whose proof was good, with what they are worth where they want to be.
struct Proven {
    user: Row,
    credential: Option<Row>,
    parent: Option<TokenPayload>,
    methods: Methods,
    standing: Standing,
    /// Acts by it; then `user` is whose name the token bears.
    trust: Option<Trust>,
}

/// Somebody whose proof is still to be judged.
struct Claim<'a> {
    /// The name under which failures are counted: what was shown, whether it exists or not.
    account: String,
    secret: &'a SecretString,
    /// The hash of the right secret, if there is one.
    hash: Option<String>,
    /// Who it seems to be.
    user: Option<&'a Row>,
    /// Whether the right secret would be enough.
    is_welcome: bool,
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
        let asked = ask(scope)?;
        let proven = match one_method(&shown.methods)? {
            "password" => self.prove_password(required(shown.password, "password")?.user, asked, context).await?,
            "token" => self.prove_token(required(shown.token, "token")?, asked).await?,
            _ => {
                let credential = required(shown.application_credential, "application_credential")?;
                self.prove_credential(credential, asked, context).await?
            }
        };
        let (token, mut principal) = self.issue(proven)?;
        principal.context = context.clone();
        let told = self.notices.authenticated(self.clock.now(), &principal.actor(), true);
        self.tell_alone(told).await?;
        Ok((token, principal))
    }

    async fn prove_password(
        &self,
        shown: UserShown,
        asked: Asked,
        context: &RequestContext,
    ) -> Result<Proven, ApiError> {
        let secret = &required(shown.password.clone(), "password.user.password")?;
        let account = account_of(&shown)?;
        self.may_try(&account, context)?;
        let user = self.user_shown(&shown).await?;
        let hash = user.as_ref().and_then(|user| user.text("password_hash"));
        if let Asked::Trust(id) = &asked {
            let entrusted = self.entrusted(user.as_ref(), id).await?;
            let claim = Claim { account, secret, hash, user: user.as_ref(), is_welcome: entrusted.is_some() };
            self.compare(claim, context).await?;
            return self.proven_by_trust(entrusted, None, Methods::PASSWORD).await;
        }
        let standing = self.standing_asked(user.as_ref(), asked).await?;
        let claim = Claim { account, secret, hash, user: user.as_ref(), is_welcome: standing.is_some() };
        self.compare(claim, context).await?;
        let (user, standing) = user.zip(standing).ok_or_else(ApiError::unauthorized)?;
        Ok(Proven { user, credential: None, parent: None, methods: Methods::PASSWORD, standing, trust: None })
    }

    async fn prove_credential(
        &self,
        shown: CredentialShown,
        asked: Asked,
        context: &RequestContext,
    ) -> Result<Proven, ApiError> {
        let account = match (&shown.id, &shown.name, &shown.user) {
            (Some(id), ..) => format!("credential {id}"),
            (None, Some(name), Some(user)) => format!("credential {name} of {}", account_of(user)?),
            _ => return Err(ApiError::bad_request("An application credential is shown by id, or by name and user.")),
        };
        self.may_try(&account, context)?;
        let (user, credential) = match (&shown.id, &shown.name, &shown.user) {
            (None, Some(name), Some(shown)) => {
                let user = self.user_shown(shown).await?;
                let credential = self.credential_named(&id_of(user.as_ref()), name).await?;
                (user, credential)
            }
            (id, ..) => {
                let credential = self.credential(id.as_deref().unwrap_or(NOBODY)).await?;
                let owner = credential.as_ref().map_or_else(|| NOBODY.to_owned(), |row| row.string("user_id"));
                (tables::user(&mut &self.database, &owner).await?, credential)
            }
        };
        // It is good in its own project and nowhere else.
        let own = credential.as_ref().map_or_else(|| NOBODY.to_owned(), |row| row.string("project_id"));
        let fits = match asked {
            Asked::Nothing => true,
            Asked::ProjectById(id) => id == own,
            _ => false,
        };
        let project = Place::Project(tables::project(&mut &self.database, &own).await?);
        let standing = self.standing(user.as_ref(), project, credential.as_ref()).await?;
        let standing = standing.filter(|_| fits && credential.is_some());
        let hash = credential.as_ref().map(|credential| credential.string("secret_hash"));
        let secret = &shown.secret;
        let claim = Claim { account, secret, hash, user: user.as_ref(), is_welcome: standing.is_some() };
        self.compare(claim, context).await?;
        let (user, standing) = user.zip(standing).ok_or_else(ApiError::unauthorized)?;
        Ok(Proven { user, credential, parent: None, methods: Methods::CREDENTIAL, standing, trust: None })
    }

    async fn prove_token(&self, shown: TokenShown, asked: Asked) -> Result<Proven, ApiError> {
        use secrecy::ExposeSecret;
        let parent =
            self.validate(shown.id.expose_secret(), Duration::ZERO).await?.ok_or_else(ApiError::unauthorized)?;
        if parent.is_delegated() {
            // What an application credential or a trust may do ends at its project and roles.
            let action = "a token of an application credential or a trust cannot be exchanged";
            return Err(ApiError::forbidden(action));
        }
        let user = tables::user(&mut &self.database, &parent.user.id).await?.ok_or_else(ApiError::unauthorized)?;
        let methods = parent.payload.methods.rescoped();
        if let Asked::Trust(id) = &asked {
            let entrusted = self.entrusted(Some(&user), id).await?;
            return self.proven_by_trust(entrusted, Some(parent.payload), methods).await;
        }
        let standing = self.standing_asked(Some(&user), asked).await?.ok_or_else(ApiError::unauthorized)?;
        Ok(Proven { user, credential: None, parent: Some(parent.payload), methods, standing, trust: None })
    }

    /// A trustee whose own proof was good.
    async fn proven_by_trust(
        &self,
        entrusted: Option<Entrusted>,
        parent: Option<TokenPayload>,
        methods: Methods,
    ) -> Result<Proven, ApiError> {
        let Entrusted { user, trust, standing } = entrusted.ok_or_else(ApiError::unauthorized)?;
        self.use_trust(&trust.id).await?;
        Ok(Proven { user, credential: None, parent, methods, standing, trust: Some(trust) })
    }

    /// The owner's old password, before a new one is taken.
    pub(super) async fn check_own(
        &self,
        user: &Row,
        secret: &SecretString,
        context: &RequestContext,
    ) -> Result<(), ApiError> {
        let account = format!("id {}", user.string("id"));
        self.may_try(&account, context)?;
        let hash = user.text("password_hash");
        self.compare(Claim { account, secret, hash, user: Some(user), is_welcome: true }, context).await
    }

    /// Compares a secret and judges, slows down guessing, and tells of failures. The right secret of someone who is not
    /// welcome is the same failure as a wrong one: otherwise a guesser would learn that it is right.
    async fn compare(&self, claim: Claim<'_>, context: &RequestContext) -> Result<(), ApiError> {
        let address = context.address.as_deref().unwrap_or("");
        let turn = self.passwords.turn().await?;
        // Asked again inside: no more guesses run side by side than there are turns.
        self.may_try(&claim.account, context)?;
        let is_right = self.passwords.verify(&turn, claim.secret, claim.hash).await?;
        if is_right && claim.is_welcome {
            self.throttle.succeeded(&claim.account, address);
            return Ok(());
        }
        self.throttle.failed(&claim.account, address);
        drop(turn);
        let actor = Actor {
            user_id: claim.user.map(|user| user.string("id")),
            user_name: claim.user.map(|user| user.string("name")),
            project_id: None,
            context: context.clone(),
        };
        let told = self.notices.authenticated(self.clock.now(), &actor, false);
        self.tell_alone(told).await?;
        Err(ApiError::unauthorized())
    }

    fn may_try(&self, account: &str, context: &RequestContext) -> Result<(), ApiError> {
        let wait = self.throttle.wait(account, context.address.as_deref().unwrap_or(""));
        if wait.is_zero() {
            return Ok(());
        }
        Err(ApiError { retry_after_s: Some(wait.as_secs() + 1), ..ApiError::unauthorized() })
    }

    async fn user_shown(&self, shown: &UserShown) -> Result<Option<Row>, ApiError> {
        let found = match (&shown.id, &shown.name) {
            (Some(id), _) => tables::user(&mut &self.database, id).await?,
            (None, Some(name)) => tables::user_named(&mut &self.database, name).await?,
            (None, None) => None,
        };
        // Only now: a domain that is not here must not take less time.
        Ok(found.filter(|_| shown.domain.as_ref().is_none_or(is_our_domain)))
    }

    async fn credential_named(&self, user_id: &str, name: &str) -> Result<Option<Row>, ApiError> {
        let sql = "SELECT * FROM identity_credentials WHERE user_id = $1 AND name = $2";
        let row = self.database.query_one(sql, &[user_id.into(), name.into()]).await?;
        Ok(row.filter(|row| self.is_current(row)))
    }

    fn issue(&self, proven: Proven) -> Result<(String, Principal), ApiError> {
        let Proven { user, credential, parent, methods, standing, trust } = proven;
        let now = self.clock.now();
        let mut expires_at = now.plus(self.token_ttl);
        // A token never outlives what it was made from.
        let limits = [
            parent.as_ref().map(|p| p.expires_at),
            credential.as_ref().and_then(|c| c.time("expires_at")),
            trust.as_ref().and_then(|trust| trust.expires_at),
        ];
        for limit in limits.into_iter().flatten() {
            expires_at = expires_at.min(limit);
        }
        let audit = Uuid::new_v4();
        let payload = TokenPayload {
            methods,
            user: uuid_of(&user.string("id"))?,
            scope: standing.scope,
            credential: credential.as_ref().map(|c| uuid_of(&c.string("id"))).transpose()?,
            trust: trust.as_ref().map(trusts::packed).transpose()?,
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
            trust,
            roles: standing.roles,
            context: RequestContext::default(),
            payload,
        };
        Ok((self.keys.seal(&principal.payload), principal))
    }

    /// What a user is worth where the token is to be good; `None`: nothing. Nothing asked: the user's default project,
    /// if there is something to be there. The questions to the database depend on what is asked only.
    async fn standing_asked(&self, user: Option<&Row>, asked: Asked) -> Result<Option<Standing>, ApiError> {
        let mut database = &self.database;
        let place = match asked {
            Asked::Unscoped => Place::Nowhere,
            // Judged by `entrusted`, before this.
            Asked::Trust(_) => return Ok(None),
            Asked::Domain { is_ours } => {
                let standing = self.standing(user, Place::Domain, None).await?;
                return Ok(standing.filter(|_| is_ours));
            }
            Asked::ProjectById(id) => Place::Project(tables::project(&mut database, &id).await?),
            Asked::ProjectByName { name, is_ours } => {
                let project = tables::project_named(&mut database, &name).await?;
                Place::Project(project.filter(|_| is_ours))
            }
            Asked::Nothing => {
                let project = user.and_then(|user| user.text("default_project_id"));
                let project = tables::project(&mut database, project.as_deref().unwrap_or(NOBODY)).await?;
                return match self.standing(user, Place::Project(project), None).await? {
                    Some(standing) => Ok(Some(standing)),
                    // Asks nothing more.
                    None => self.standing(user, Place::Nowhere, None).await,
                };
            }
        };
        self.standing(user, place, None).await
    }
}

/// The scope that a client asks for.
enum Asked {
    Nothing,
    Unscoped,
    Trust(String),
    ProjectById(String),
    ProjectByName { name: String, is_ours: bool },
    Domain { is_ours: bool },
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
        ScopeNamed { trust: Some(trust), project: None, domain: None, .. } => {
            Ok(Asked::Trust(trusts::id_asked(&trust)?))
        }
        ScopeNamed { project: Some(project), domain: None, .. } => {
            let is_ours = project.domain.as_deref().is_none_or(is_our_domain);
            match (project.id, project.name) {
                (Some(id), _) => Ok(Asked::ProjectById(id)),
                (None, Some(name)) => Ok(Asked::ProjectByName { name, is_ours }),
                (None, None) => Err(ApiError::bad_request("A project scope needs an id or a name.")),
            }
        }
        ScopeNamed { domain: Some(domain), project: None, .. } => Ok(Asked::Domain { is_ours: is_our_domain(&domain) }),
        _ => Err(ApiError::bad_request("A scope is one of `project`, `domain` and `OS-TRUST:trust`.")),
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

fn id_of(row: Option<&Row>) -> String {
    row.map_or_else(|| NOBODY.to_owned(), |row| row.string("id"))
}

fn required<T>(value: Option<T>, what: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::bad_request(format!("Expecting to find {what} in auth.identity.")))
}
