//! Read tokens: made once, kept as hashes, checked at every request, revoked at once.
//!
//! In: who makes a token and for which project, and later the text that a request shows. Out: what it is good for. This
//! room knows neither HTTP nor roles: who may make or revoke one, and which requests only read, the API decides.
#![forbid(unsafe_code)]

mod guesses;
mod secret;

use std::time::Duration;

use orzo_database::{AsConflict, Database, DatabaseError, Migration, Row};
use orzo_model::{Scope, SharedClock, Timestamp};
use secrecy::SecretString;
use subtle::ConstantTimeEq;

use guesses::Guesses;
pub use secret::{PREFIX, is_read_token};

/// Tokens of one project: one for each program that reads, and some to change them over.
pub const TOKENS_MAX: i64 = 100;
/// Longest name, as that of an application credential.
pub const NAME_CHARS_MAX: usize = 255;
/// Rows of one list.
const LIST_MAX: usize = 10_000;
/// The last use is written down this often: it shows which tokens nobody uses, not who asks when.
const LAST_USE_EVERY: Duration = Duration::from_secs(60);

const MIGRATIONS: &[Migration] = &[Migration {
    name: "read tokens",
    sql: "CREATE TABLE read_tokens (
            id TEXT PRIMARY KEY,
            hash BYTEA NOT NULL,
            name TEXT NOT NULL,
            project_id TEXT NOT NULL,
            all_projects BIGINT NOT NULL,
            user_id TEXT NOT NULL,
            user_name TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            expires_at BIGINT,
            last_used_at BIGINT);
          CREATE INDEX read_tokens_project ON read_tokens (project_id);
",
}];

/// What a token is good for. Not its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadToken {
    /// 32 hex digits.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Whose series it reads.
    pub project_id: String,
    /// Reads as an operator of that project does: the metrics of all projects.
    pub all_projects: bool,
    /// Who made it.
    pub user_id: String,
    /// The maker's name then.
    pub user_name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when it is worth nothing; `None`: until it is revoked.
    pub expires_at: Option<Timestamp>,
    /// When it was last good for something, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// What is said of a token that is to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// Whose series it reads.
    pub project_id: String,
    /// Reads as an operator of that project does.
    pub all_projects: bool,
    /// Who makes it.
    pub user_id: String,
    /// The maker's name.
    pub user_name: String,
    /// Until when it is good.
    pub expires_at: Option<Timestamp>,
}

/// What is wrong with a question about tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name cannot be one.
    #[error("the name of a token has 1 to {NAME_CHARS_MAX} characters")]
    Name,
    /// It would be worth nothing.
    #[error("the token would have expired at {expires_at}")]
    Expired {
        /// When.
        expires_at: Timestamp,
    },
    /// The project has enough.
    #[error("the project has {TOKENS_MAX} tokens already; revoke one")]
    TooMany,
    /// Too many wrong secrets for this token from there.
    #[error("too many wrong tries with this token")]
    Guessing {
        /// How long nothing is tried.
        wait: Duration,
    },
    /// The database does not answer.
    #[error("the tokens cannot be read or written now")]
    Database(#[from] DatabaseError),
}

impl AsConflict for TokenError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

/// All read tokens of an installation.
pub struct TokenBook {
    database: Database,
    clock: SharedClock,
    guesses: Guesses,
}

impl TokenBook {
    /// Makes the table if it is missing.
    pub async fn open(database: Database, clock: SharedClock) -> Result<Self, TokenError> {
        database.migrate("tokens", MIGRATIONS).await?;
        Ok(Self { database, guesses: Guesses::new(clock.clone()), clock })
    }

    /// Makes a token and gives its text, which nobody can ever ask for again. Expired tokens of the project make room.
    pub async fn create(&self, new: &NewToken) -> Result<(ReadToken, SecretString), TokenError> {
        let name = new.name.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            return Err(TokenError::Name);
        }
        let now = self.clock.now();
        if let Some(expires_at) = new.expires_at.filter(|expires_at| *expires_at <= now) {
            return Err(TokenError::Expired { expires_at });
        }
        let (text, shown) = secret::generate();
        let token = ReadToken {
            id: shown.id,
            name: name.to_owned(),
            project_id: new.project_id.clone(),
            all_projects: new.all_projects,
            user_id: new.user_id.clone(),
            user_name: new.user_name.clone(),
            created_at: now,
            expires_at: new.expires_at,
            last_used_at: None,
        };
        self.database
            .transact(|tx| {
                let (token, hash) = (token.clone(), shown.hash.to_vec());
                Box::pin(async move {
                    let project = token.project_id.as_str();
                    let sql = "DELETE FROM read_tokens WHERE project_id = $1 AND expires_at <= $2";
                    tx.execute(sql, &[project.into(), now.into()]).await?;
                    let sql = "SELECT count(*) AS number FROM read_tokens WHERE project_id = $1";
                    let row = tx.query_one(sql, &[project.into()]).await?;
                    if row.and_then(|row| row.int("number")).unwrap_or(0) >= TOKENS_MAX {
                        return Err(TokenError::TooMany);
                    }
                    let sql = "INSERT INTO read_tokens (id, hash, name, project_id, all_projects, user_id, user_name, \
                               created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
                    let values = [
                        token.id.into(),
                        hash.into(),
                        token.name.into(),
                        token.project_id.as_str().into(),
                        token.all_projects.into(),
                        token.user_id.into(),
                        token.user_name.into(),
                        token.created_at.into(),
                        token.expires_at.into(),
                    ];
                    tx.execute(sql, &values).await?;
                    Ok(())
                })
            })
            .await?;
        Ok((token, text))
    }

    /// The tokens that this scope sees, oldest first. Tokens for all projects are seen by operators only.
    pub async fn list(&self, scope: &Scope) -> Result<Vec<ReadToken>, TokenError> {
        let order = format!("ORDER BY created_at, id LIMIT {LIST_MAX}");
        let rows = match scope {
            Scope::All => self.database.query(&format!("SELECT * FROM read_tokens {order}"), &[]).await?,
            Scope::Project(project) => {
                let sql = format!("SELECT * FROM read_tokens WHERE project_id = $1 AND all_projects = 0 {order}");
                self.database.query(&sql, &[project.into()]).await?
            }
            Scope::Owner(_) | Scope::Maker(_) | Scope::Creator(_) | Scope::Nothing => Vec::new(),
        };
        Ok(rows.iter().map(token_of).collect())
    }

    /// Ends a token at once; `false` if the scope sees none of this id.
    pub async fn revoke(&self, scope: &Scope, id: &str) -> Result<bool, TokenError> {
        let sql = "DELETE FROM read_tokens WHERE id = $1";
        let ended = match scope {
            Scope::All => self.database.execute(sql, &[id.into()]).await?,
            Scope::Project(project) => {
                let sql = format!("{sql} AND project_id = $2 AND all_projects = 0");
                self.database.execute(&sql, &[id.into(), project.into()]).await?
            }
            Scope::Owner(_) | Scope::Maker(_) | Scope::Creator(_) | Scope::Nothing => 0,
        };
        Ok(ended > 0)
    }

    /// What this text is good for, shown by someone at `address`; `None`: nothing. After some wrong tries an error.
    pub async fn check(&self, text: &str, address: &str) -> Result<Option<ReadToken>, TokenError> {
        let Some(shown) = secret::read(text) else { return Ok(None) };
        let wait = self.guesses.wait(&shown.id, address);
        if wait > Duration::ZERO {
            return Err(TokenError::Guessing { wait });
        }
        let sql = "SELECT * FROM read_tokens WHERE id = $1";
        let row = self.database.query_one(sql, &[shown.id.as_str().into()]).await?;
        let now = self.clock.now();
        let is_right = |row: &Row| {
            let kept = row.bytes("hash").unwrap_or_default();
            bool::from(kept.as_slice().ct_eq(&shown.hash))
        };
        let token = row.filter(is_right).map(|row| token_of(&row));
        let Some(token) = token.filter(|token| token.expires_at.is_none_or(|at| now < at)) else {
            self.guesses.failed(&shown.id, address);
            return Ok(None);
        };
        if token.last_used_at.is_none_or(|at| at.plus(LAST_USE_EVERY) <= now) {
            self.note_use(&token.id, now).await;
        }
        Ok(Some(token))
    }

    /// A read is not refused because its time could not be written down.
    async fn note_use(&self, id: &str, now: Timestamp) {
        let sql = "UPDATE read_tokens SET last_used_at = $2 WHERE id = $1";
        if let Err(error) = self.database.execute(sql, &[id.into(), now.into()]).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last use of a token is not written down");
        }
    }
}

fn token_of(row: &Row) -> ReadToken {
    ReadToken {
        id: row.string("id"),
        name: row.string("name"),
        project_id: row.string("project_id"),
        all_projects: row.flag("all_projects"),
        user_id: row.string("user_id"),
        user_name: row.string("user_name"),
        created_at: row.time("created_at").unwrap_or(Timestamp::EPOCH),
        expires_at: row.time("expires_at"),
        last_used_at: row.time("last_used_at"),
    }
}

#[cfg(test)]
mod tests;
