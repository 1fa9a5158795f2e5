//! Migrations: each room has numbered steps, applied in order, each in one transaction, never changed afterwards.

use crate::{Database, DatabaseError};

/// One step of a room's tables. Steps are numbered by their place in the list, from 1.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// What it does, for people.
    pub name: &'static str,
    /// Statements, separated by `;` at the end of a line.
    pub sql: &'static str,
}

pub(crate) async fn migrate(database: &Database, room: &str, migrations: &[Migration]) -> Result<(), DatabaseError> {
    // Two processes that start together may both create it; the loser sees a unique violation in the catalog.
    let create = "CREATE TABLE IF NOT EXISTS orzo_migrations (room TEXT NOT NULL, step BIGINT NOT NULL, \
                  name TEXT NOT NULL, PRIMARY KEY (room, step))";
    if let Err(error) = database.execute(create, &[]).await
        && !error.is_constraint()
    {
        return Err(error);
    }
    database
        .transact(|transaction| {
            let room = room.to_owned();
            let migrations = migrations.to_vec();
            Box::pin(async move {
                let known = migrations.len() as i64;
                let row = transaction
                    .query_one("SELECT max(step) AS step FROM orzo_migrations WHERE room = $1", &[room.as_str().into()])
                    .await?;
                let found = row.and_then(|row| row.int("step")).unwrap_or(0);
                if found > known {
                    return Err(DatabaseError::TooNew { room, found, known });
                }
                for (place, migration) in migrations.iter().enumerate().skip(found as usize) {
                    for statement in migration.sql.split(";\n").map(str::trim) {
                        let statement = statement.trim_end_matches(';');
                        if !statement.is_empty() {
                            transaction.execute(statement, &[]).await?;
                        }
                    }
                    transaction
                        .execute(
                            "INSERT INTO orzo_migrations (room, step, name) VALUES ($1, $2, $3)",
                            &[room.as_str().into(), (place as i64 + 1).into(), migration.name.into()],
                        )
                        .await?;
                    tracing::info!(room, step = place + 1, name = migration.name, "migrated");
                }
                Ok(())
            })
        })
        .await
}
