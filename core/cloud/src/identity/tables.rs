//! Identity's tables, and the reads that several rooms share.

use orzo_database::{Database, DatabaseError, Migration, Row, Transaction, Value};
use uuid::Uuid;

/// Steps of identity's tables.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    name: "identity",
    sql: "CREATE TABLE identity_projects (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            description TEXT NOT NULL,
            enabled BIGINT NOT NULL,
            extra TEXT NOT NULL,
            revision BIGINT NOT NULL);
          CREATE TABLE identity_users (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            password_hash TEXT,
            enabled BIGINT NOT NULL,
            default_project_id TEXT,
            extra TEXT NOT NULL,
            revision BIGINT NOT NULL);
          CREATE TABLE identity_roles (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            description TEXT,
            built_in BIGINT NOT NULL);
          CREATE TABLE identity_assignments (
            user_id TEXT NOT NULL REFERENCES identity_users (id) ON DELETE CASCADE,
            target_id TEXT NOT NULL,
            role_id TEXT NOT NULL REFERENCES identity_roles (id) ON DELETE CASCADE,
            PRIMARY KEY (user_id, target_id, role_id));
          CREATE INDEX identity_assignments_by_target ON identity_assignments (target_id);
          CREATE TABLE identity_assignment_revisions (
            user_id TEXT NOT NULL REFERENCES identity_users (id) ON DELETE CASCADE,
            target_id TEXT NOT NULL,
            revision BIGINT NOT NULL,
            PRIMARY KEY (user_id, target_id));
          CREATE TABLE identity_credentials (
            id TEXT PRIMARY KEY,
            user_id TEXT NOT NULL REFERENCES identity_users (id) ON DELETE CASCADE,
            project_id TEXT NOT NULL REFERENCES identity_projects (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            description TEXT,
            secret_hash TEXT NOT NULL,
            role_ids TEXT NOT NULL,
            expires_at BIGINT,
            UNIQUE (user_id, name));
          CREATE TABLE identity_revoked (
            audit_id TEXT PRIMARY KEY,
            kept_until BIGINT NOT NULL);
          CREATE TABLE identity_keys (
            id BIGINT PRIMARY KEY,
            sealing_key TEXT NOT NULL,
            made_at BIGINT NOT NULL);
         ",
}];

/// The only domain's id ...
pub(crate) const DOMAIN_ID: &str = "default";
/// ... and name.
pub(crate) const DOMAIN_NAME: &str = "Default";

/// An id that nobody and nothing has: asked for where nothing was found, so that not finding takes the same work.
pub(crate) const NOBODY: &str = "00000000000000000000000000000000";

/// What a user's row is read with; named, because a join may add more.
pub(crate) const USER_COLUMNS: &str = "id, name, password_hash, enabled, default_project_id, extra, revision";

/// Either the pool or a transaction; both answer queries.
pub(crate) trait Reads {
    /// The first row of a query, if any.
    async fn first(&mut self, sql: &str, values: &[Value]) -> Result<Option<Row>, DatabaseError>;
}

impl Reads for &Database {
    async fn first(&mut self, sql: &str, values: &[Value]) -> Result<Option<Row>, DatabaseError> {
        self.query_one(sql, values).await
    }
}

impl Reads for Transaction<'_> {
    async fn first(&mut self, sql: &str, values: &[Value]) -> Result<Option<Row>, DatabaseError> {
        self.query_one(sql, values).await
    }
}

/// A new id, as Keystone writes them.
pub(crate) fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}

pub(crate) async fn user(reads: &mut impl Reads, id: &str) -> Result<Option<Row>, DatabaseError> {
    reads.first(&format!("SELECT {USER_COLUMNS} FROM identity_users WHERE id = $1"), &[id.into()]).await
}

pub(crate) async fn user_named(reads: &mut impl Reads, name: &str) -> Result<Option<Row>, DatabaseError> {
    reads.first(&format!("SELECT {USER_COLUMNS} FROM identity_users WHERE name = $1"), &[name.into()]).await
}

pub(crate) async fn project(reads: &mut impl Reads, id: &str) -> Result<Option<Row>, DatabaseError> {
    reads.first("SELECT * FROM identity_projects WHERE id = $1", &[id.into()]).await
}

pub(crate) async fn project_named(reads: &mut impl Reads, name: &str) -> Result<Option<Row>, DatabaseError> {
    reads.first("SELECT * FROM identity_projects WHERE name = $1", &[name.into()]).await
}

pub(crate) async fn role(reads: &mut impl Reads, id: &str) -> Result<Option<Row>, DatabaseError> {
    reads.first("SELECT * FROM identity_roles WHERE id = $1", &[id.into()]).await
}

/// Gives a role; true if the user did not have it.
pub(crate) async fn assign(
    tx: &mut Transaction<'_>,
    user_id: &str,
    target_id: &str,
    role_id: &str,
) -> Result<bool, DatabaseError> {
    let changed = tx
        .execute(
            "INSERT INTO identity_assignments (user_id, target_id, role_id) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id, target_id, role_id) DO NOTHING",
            &[user_id.into(), target_id.into(), role_id.into()],
        )
        .await?;
    Ok(changed > 0)
}

/// Ends all tokens of a user for a target: one of its roles there is gone.
pub(crate) async fn revoke_assignment(
    tx: &mut Transaction<'_>,
    user_id: &str,
    target_id: &str,
) -> Result<(), DatabaseError> {
    tx.execute(
        "INSERT INTO identity_assignment_revisions (user_id, target_id, revision) VALUES ($1, $2, 1) \
         ON CONFLICT (user_id, target_id) DO UPDATE SET revision = identity_assignment_revisions.revision + 1",
        &[user_id.into(), target_id.into()],
    )
    .await?;
    // Keystone as well: what was delegated with those roles ends with them.
    tx.execute(
        "DELETE FROM identity_credentials WHERE user_id = $1 AND project_id = $2",
        &[user_id.into(), target_id.into()],
    )
    .await?;
    Ok(())
}
