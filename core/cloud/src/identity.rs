//! Identity (Keystone v3): who is who, who may do what where, and where the services are.
//!
//! ```text
//! password | token | application credential → authenticate → Fernet token → validate → Principal → handler
//! ```
//!
//! A token carries counters ("revisions") of its user, project and assignment; whatever must revoke at once (password,
//! role, disabling, deletion) raises a counter, so that nothing has to be remembered about tokens but the few that
//! were revoked one by one. This room knows no other service; they ask it through [`crate::http::with_caller`].

mod assignments;
mod authenticate;
mod bootstrap;
mod catalog;
mod collection;
mod credentials;
mod discovery;
mod fields;
mod fixed;
mod keys;
mod notices;
mod password;
mod projects;
mod roles;
mod tables;
mod throttle;
mod token;
mod tokens;
mod trusts;
mod users;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use orzo_database::{Database, DatabaseError, Row, Transaction};
use orzo_model::{Caller, Room, Rooms, SharedClock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    catalog::Catalog,
    keys::KeyRing,
    notices::{Actor, Notices},
    password::Passwords,
    roles::{Role, effective},
    tables::{DOMAIN_ID, DOMAIN_NAME, NOBODY},
    throttle::Throttle,
    token::{Revisions, TokenPayload, TokenScope},
    trusts::{Entrusted, Trust},
};
use crate::{
    CloudError, CloudSettings,
    http::{ApiError, RequestContext, mounted, shell},
    notify::{Notification, Outbox, record},
};

/// An expired token may still be looked at by a service for so long, to finish a long request (Keystone's
/// `allow_expired_window`).
const EXPIRED_WINDOW: Duration = Duration::from_secs(48 * 3600);
/// Rows in a list at most; a longer list says `truncated`, as Keystone's `list_limit` does.
const LIST_MAX: usize = 10_000;
/// How often old revocations are forgotten and the age of the keys is looked at.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(600);

/// The identity service.
pub struct Identity {
    database: Database,
    clock: SharedClock,
    outbox: Arc<Outbox>,
    keys: KeyRing,
    passwords: Passwords,
    throttle: Throttle,
    catalog: Catalog,
    notices: Notices,
    token_ttl: Duration,
    room: Room,
    revision: Arc<AtomicU64>,
}

/// Raises the revision when it is dropped: also when the request that changes something is given up on its way.
struct Raise<'a>(&'a AtomicU64);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// A verified token: whose, where, and with which roles.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    payload: TokenPayload,
    user: Named,
    project: Option<Named>,
    credential: Option<Named>,
    trust: Option<Trust>,
    roles: Vec<Role>,
    context: RequestContext,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    id: String,
    name: String,
}

/// Where a user wants to be worth something.
enum Place {
    Nowhere,
    Domain,
    /// `None`: one that is not there.
    Project(Option<Row>),
}

/// What a user is worth in a scope, now.
struct Standing {
    scope: TokenScope,
    project: Option<Named>,
    roles: Vec<Role>,
    revisions: Revisions,
}

/// The body of a transaction: see [`Database::transact`].
type InTransaction<'t, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 't>>;

impl Identity {
    /// Makes the tables and keys if they are missing. The first users are made by [`Self::bootstrap`].
    pub async fn open(
        settings: &CloudSettings,
        database: Database,
        clock: SharedClock,
        outbox: Arc<Outbox>,
        rooms: &Rooms,
    ) -> Result<Arc<Self>, CloudError> {
        database.migrate("cloud.identity", tables::MIGRATIONS).await?;
        database.migrate("cloud.identity.trusts", trusts::MIGRATIONS).await?;
        Ok(Arc::new(Self {
            keys: KeyRing::open(database.clone(), clock.clone()).await?,
            passwords: Passwords::new().await.map_err(CloudError::of)?,
            throttle: Throttle::new(clock.clone()),
            catalog: Catalog::new(&settings.base_url, &settings.region, &settings.metric_path),
            notices: Notices::new(settings.base_url.host_str().unwrap_or("localhost")),
            token_ttl: Duration::from_secs(settings.token_ttl_s),
            room: rooms.room("cloud.identity"),
            revision: Arc::default(),
            database,
            clock,
            outbox,
        }))
    }

    /// Everything below `/identity`, ready to be merged with other rooms' routers.
    pub fn mounted(self: &Arc<Self>) -> Router {
        let routes = Router::new()
            .merge(discovery::routes())
            .merge(tokens::routes())
            .merge(users::routes())
            .merge(credentials::routes())
            .merge(projects::routes())
            .merge(assignments::routes())
            .merge(trusts::routes())
            .merge(fixed::routes())
            .with_state(self.clone());
        mounted("/identity", shell(routes))
    }

    /// Who sends this request, by its `X-Auth-Token`; 401 if nobody valid.
    pub async fn authenticate_request(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        Ok(self.principal(headers).await?.caller())
    }

    /// Raised after every change that this process makes to users, projects, roles, credentials and revocations, before
    /// it is answered: who remembers what was true about a token asks again when it differs.
    pub fn revision(&self) -> Arc<AtomicU64> {
        self.revision.clone()
    }

    /// Seals new tokens with a new key from now on; tokens sealed before stay valid until the key after next.
    pub async fn rotate_keys(&self) -> Result<(), CloudError> {
        self.keys.rotate().await
    }

    /// Housekeeping until told to stop: keys rotate, revocations of tokens that have expired anyway are forgotten.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            if let Err(error) = self.keep_house().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "identity's housekeeping is put off");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(HOUSEKEEPING_PERIOD) => {}
            }
        }
    }

    async fn keep_house(&self) -> Result<(), CloudError> {
        self.database.execute("DELETE FROM identity_revoked WHERE kept_until < $1", &[self.clock.now().into()]).await?;
        // A token made by it can outlive it by this window, and is then looked at with it.
        let ended = self.clock.now().minus(EXPIRED_WINDOW);
        self.database.execute("DELETE FROM identity_trusts WHERE expires_at < $1", &[ended.into()]).await?;
        self.keys.rotate_if_due().await?;
        Ok(())
    }

    async fn principal(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let token = headers.get("x-auth-token").and_then(|value| value.to_str().ok());
        let token = token.ok_or_else(ApiError::unauthorized)?;
        self.validate(token, Duration::ZERO).await?.ok_or_else(ApiError::unauthorized)
    }

    /// Who shows this token, if it is good; up to `grace` after its expiry.
    async fn validate(&self, token: &str, grace: Duration) -> Result<Option<Principal>, ApiError> {
        let Some(payload) = self.keys.open_token(token).await? else { return Ok(None) };
        if payload.expires_at.plus(grace) <= self.clock.now() {
            return Ok(None);
        }
        let (user_id, [audit, chain]) = (text(payload.user), [payload.audit, payload.chain].map(text));
        let user = self
            .database
            .query_one(
                &format!(
                    "SELECT {}, (SELECT count(*) FROM identity_revoked WHERE audit_id IN ($2, $3)) AS revoked \
                     FROM identity_users WHERE id = $1",
                    tables::USER_COLUMNS
                ),
                &[user_id.into(), audit.into(), chain.into()],
            )
            .await?;
        let Some(user) = user.filter(|user| !user.flag("revoked")) else { return Ok(None) };
        let credential = match payload.credential {
            None => None,
            Some(id) => match self.credential(&text(id)).await? {
                Some(credential) => Some(credential),
                None => return Ok(None),
            },
        };
        if let Some(id) = payload.trust {
            let entrusted = self.entrusted_by(id).await?;
            let fits = |found: &Entrusted| {
                found.user.string("id") == user.string("id") && found.standing.revisions == payload.revisions
            };
            return Ok(entrusted.filter(fits).map(|found| Principal::entrusted(payload, found)));
        }
        let place = match payload.scope {
            TokenScope::Unscoped => Place::Nowhere,
            TokenScope::Domain => Place::Domain,
            TokenScope::Project(id) => Place::Project(tables::project(&mut &self.database, &text(id)).await?),
        };
        let Some(standing) = self.standing(Some(&user), place, credential.as_ref()).await? else { return Ok(None) };
        if standing.revisions != payload.revisions {
            return Ok(None);
        }
        Ok(Some(Principal {
            payload,
            user: Named::of(&user),
            project: standing.project,
            credential: credential.as_ref().map(Named::of),
            trust: None,
            roles: standing.roles,
            context: RequestContext::default(),
        }))
    }

    /// What this user may be in this place now, with an application credential's limits; `None`: nothing. The database
    /// is asked the same whether there is such a user and such a place or not, and only then it is judged.
    async fn standing(
        &self,
        user: Option<&Row>,
        place: Place,
        credential: Option<&Row>,
    ) -> Result<Option<Standing>, ApiError> {
        let (target, project) = match place {
            Place::Nowhere => (None, None),
            Place::Domain => (Some(DOMAIN_ID.to_owned()), None),
            Place::Project(None) => (Some(NOBODY.to_owned()), None),
            Place::Project(Some(project)) => (Some(project.string("id")), Some(project)),
        };
        let user_id = user.map_or_else(|| NOBODY.to_owned(), |user| user.string("id"));
        let (mut roles, assignment) = match &target {
            Some(target) => self.roles_of(&user_id, target).await?,
            None => (Vec::new(), 0),
        };
        let Some(user) = user.filter(|user| user.flag("enabled")) else { return Ok(None) };
        let mut revisions = Revisions { user: revision(user), assignment, ..Revisions::default() };
        let scope = match (target, &project) {
            (None, _) => {
                return Ok(Some(Standing { scope: TokenScope::Unscoped, project: None, roles, revisions }));
            }
            (Some(target), None) if target == DOMAIN_ID => TokenScope::Domain,
            (Some(_), Some(project)) if project.flag("enabled") => {
                revisions.project = revision(project);
                TokenScope::Project(uuid_of(&project.string("id"))?)
            }
            _ => return Ok(None),
        };
        if let Some(credential) = credential {
            let limits: Vec<String> = serde_json::from_str(&credential.string("role_ids")).unwrap_or_default();
            let allowed = effective(&roles, |role| limits.contains(&role.id));
            roles.retain(|role| allowed.contains(role));
        }
        let project = project.as_ref().map(Named::of);
        Ok((!roles.is_empty()).then_some(Standing { scope, project, roles, revisions }))
    }

    /// Roles of a user somewhere, implied ones included, and the revision of that assignment.
    async fn roles_of(&self, user_id: &str, target_id: &str) -> Result<(Vec<Role>, u32), DatabaseError> {
        let rows = self
            .database
            .query(
                "SELECT r.id AS id, r.name AS name, CASE WHEN a.user_id IS NULL THEN 0 ELSE 1 END AS assigned, \
                 (SELECT revision FROM identity_assignment_revisions WHERE user_id = $1 AND target_id = $2) AS revision \
                 FROM identity_roles r LEFT JOIN identity_assignments a \
                 ON a.role_id = r.id AND a.user_id = $1 AND a.target_id = $2 ORDER BY r.name",
                &[user_id.into(), target_id.into()],
            )
            .await?;
        let assigned: Vec<String> =
            rows.iter().filter(|row| row.flag("assigned")).map(|row| row.string("id")).collect();
        let all: Vec<Role> = rows.iter().map(|row| Role { id: row.string("id"), name: row.string("name") }).collect();
        let number = rows.first().map_or(0, revision);
        Ok((effective(&all, |role| assigned.contains(&role.id)), number))
    }

    /// An application credential that has not expired.
    async fn credential(&self, id: &str) -> Result<Option<Row>, DatabaseError> {
        let row = self.database.query_one("SELECT * FROM identity_credentials WHERE id = $1", &[id.into()]).await?;
        Ok(row.filter(|row| self.is_current(row)))
    }

    fn is_current(&self, credential: &Row) -> bool {
        credential.time("expires_at").is_none_or(|at| self.clock.now() < at)
    }

    /// Does something in a transaction, and has its notifications delivered afterwards.
    async fn change<T>(
        &self,
        body: impl for<'t> FnMut(&'t mut Transaction<'_>) -> InTransaction<'t, T>,
    ) -> Result<T, ApiError> {
        let _raise = Raise(&self.revision);
        self.record(body).await
    }

    /// As [`Self::change`], for what changes nothing but the outbox.
    async fn record<T>(
        &self,
        body: impl for<'t> FnMut(&'t mut Transaction<'_>) -> InTransaction<'t, T>,
    ) -> Result<T, ApiError> {
        let outcome = self.database.transact(body).await?;
        self.outbox.wake();
        Ok(outcome)
    }

    /// Records what Keystone tells when something was created, updated or deleted.
    async fn tell(
        &self,
        tx: &mut Transaction<'_>,
        principal: &Principal,
        operation: &str,
        kind: &str,
        id: &str,
    ) -> Result<(), DatabaseError> {
        let now = self.clock.now();
        record(tx, now, &self.notices.changed(now, &principal.actor(), operation, kind, id)).await
    }

    /// Records one notification on its own.
    async fn tell_alone(&self, notification: Notification) -> Result<(), ApiError> {
        let now = self.clock.now();
        self.record(|tx| {
            let notification = notification.clone();
            Box::pin(async move { Ok(record(tx, now, &notification).await?) })
        })
        .await
    }

    /// `{"users": [...], "links": {...}}`, cut at [`LIST_MAX`].
    fn list(&self, what: &str, path: &str, mut items: Vec<Value>) -> Value {
        let truncated = items.len() > LIST_MAX;
        items.truncate(LIST_MAX);
        let links = json!({"self": self.catalog.identity_url(path), "next": null, "previous": null});
        let mut body = json!({"links": links});
        body[what] = Value::Array(items);
        if truncated {
            body["truncated"] = json!(true);
        }
        body
    }
}

impl FromRequestParts<Arc<Identity>> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, identity: &Arc<Identity>) -> Result<Self, ApiError> {
        let mut principal = identity.principal(&parts.headers).await?;
        principal.context = RequestContext::from_request_parts(parts, identity).await?;
        Ok(principal)
    }
}

impl Principal {
    /// Somebody who acts by a trust.
    fn entrusted(payload: TokenPayload, found: Entrusted) -> Self {
        Self {
            payload,
            user: Named::of(&found.user),
            project: found.standing.project,
            credential: None,
            trust: Some(found.trust),
            roles: found.standing.roles,
            context: RequestContext::default(),
        }
    }

    /// Whether what it may do was lent: by an application credential or a trust. That is not lent further.
    fn is_delegated(&self) -> bool {
        self.credential.is_some() || self.trust.is_some()
    }

    fn caller(&self) -> Caller {
        Caller {
            user_id: self.user.id.clone(),
            user_name: self.user.name.clone(),
            project_id: self.project.as_ref().map(|project| project.id.clone()),
            project_name: self.project.as_ref().map(|project| project.name.clone()),
            user_domain_id: Some(DOMAIN_ID.to_owned()),
            roles: self.roles.iter().map(|role| role.name.to_lowercase()).collect(),
            standing: orzo_model::Standing::Project,
        }
    }

    fn actor(&self) -> Actor {
        Actor {
            user_id: Some(self.user.id.clone()),
            user_name: Some(self.user.name.clone()),
            project_id: self.project.as_ref().map(|project| project.id.clone()),
            context: self.context.clone(),
        }
    }

    fn has_role(&self, name: &str) -> bool {
        self.roles.iter().any(|role| role.name == name)
    }

    /// 403 in the words of Keystone's policy, unless admin.
    fn must_be_admin(&self, action: &str) -> Result<(), ApiError> {
        if self.has_role("admin") { Ok(()) } else { Err(ApiError::forbidden(action)) }
    }

    /// Other services may look things up; they may not change them.
    fn must_be_admin_or_service(&self, action: &str) -> Result<(), ApiError> {
        if self.has_role("service") { Ok(()) } else { self.must_be_admin(action) }
    }

    fn must_be_user_or_admin(&self, user_id: &str, action: &str) -> Result<(), ApiError> {
        if self.user.id == user_id { Ok(()) } else { self.must_be_admin_or_service(action) }
    }
}

impl Named {
    fn of(row: &Row) -> Self {
        Self { id: row.string("id"), name: row.string("name") }
    }
}

/// The only domain, as it stands inside users, projects and tokens.
fn domain() -> Value {
    json!({"id": DOMAIN_ID, "name": DOMAIN_NAME})
}

fn text(id: Uuid) -> String {
    id.simple().to_string()
}

/// Ids are made by [`tables::new_id`]; a row with another one was not made by us.
fn uuid_of(id: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(id).map_err(|_| {
        ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, format!("The database holds a strange id `{id}`."))
    })
}

fn revision(row: &Row) -> u32 {
    row.int("revision").and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
