//! Tasks: ranges of the past that are to be rated again, with how far that has come.

use orzo_database::{Row, Value};
use orzo_model::Timestamp;
use uuid::Uuid;

use super::{BookError, RatingBook, scopes::among, time_of};

/// Tasks that wait at once; each means rating up to months again.
const WAITING_MAX: i64 = 10_000;

/// A range of a scope's past that is to be rated again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id, a UUID.
    pub task_id: String,
    /// Rises with each task.
    pub number: i64,
    /// Of which scope.
    pub scope_id: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// From when on.
    pub begin: Timestamp,
    /// Until before when.
    pub end: Timestamp,
    /// Done until here; `None`: not begun.
    pub done_until: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

impl Task {
    /// Whether all of it was rated again.
    pub fn is_done(&self) -> bool {
        self.done_until.is_some_and(|until| until >= self.end)
    }
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Of these scopes; none: of all.
    pub scope_ids: Vec<String>,
    /// Only those that are not done.
    pub waiting: bool,
    /// The newest first.
    pub descending: bool,
}

const WAITING: &str = "(done_until IS NULL OR done_until < end_at)";

fn task_of(row: &Row) -> Result<Task, BookError> {
    let id = "task_id";
    Ok(Task {
        task_id: row.string(id),
        number: row.int("number").unwrap_or(0),
        scope_id: row.string("scope_id"),
        reason: row.string("reason"),
        begin: time_of(row, id, "begin_at")?,
        end: time_of(row, id, "end_at")?,
        done_until: row.time("done_until"),
        created_at: time_of(row, id, "created_at")?,
        created_by: row.string("created_by"),
    })
}

impl RatingBook {
    /// Makes one task for each of the scopes, all or none. Refused where a waiting task overlaps.
    pub async fn create_tasks(
        &self,
        author: &str,
        scope_ids: &[String],
        reason: &str,
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<Vec<Task>, BookError> {
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, scope_ids, reason) = (author.to_owned(), scope_ids.to_vec(), reason.to_owned());
                Box::pin(async move {
                    let sql = format!("SELECT count(*) AS waiting FROM rating_tasks WHERE {WAITING}");
                    let waiting = tx.query_one(&sql, &[]).await?.and_then(|row| row.int("waiting")).unwrap_or(0);
                    if waiting + i64::try_from(scope_ids.len()).unwrap_or(i64::MAX) > WAITING_MAX {
                        return Err(BookError::refused(format!("more than {WAITING_MAX} reprocessings would wait")));
                    }
                    let last = tx.query_one("SELECT coalesce(max(number), 0) AS number FROM rating_tasks", &[]).await?;
                    let last = last.and_then(|row| row.int("number")).unwrap_or(0);
                    let mut tasks = Vec::with_capacity(scope_ids.len());
                    for (number, scope_id) in (last + 1..).zip(scope_ids) {
                        let sql = format!(
                            "SELECT * FROM rating_tasks WHERE {WAITING} AND scope_id = $1 AND begin_at < $2 \
                             AND end_at > $3 LIMIT 1"
                        );
                        let there = tx.query_one(&sql, &[scope_id.as_str().into(), end.into(), begin.into()]).await?;
                        if let Some(other) = there.as_ref().map(task_of).transpose()? {
                            return Err(BookError::refused(format!(
                                "Cannot schedule a reprocessing for scope [{scope_id}] for reprocessing time \
                                 [{begin} - {end}], because it already has a schedule for a similar time range \
                                 [{} - {}].",
                                other.begin, other.end
                            )));
                        }
                        let task = Task {
                            task_id: Uuid::new_v4().to_string(),
                            number,
                            scope_id,
                            reason: reason.clone(),
                            begin,
                            end,
                            done_until: None,
                            created_at: now,
                            created_by: author.clone(),
                        };
                        let sql = "INSERT INTO rating_tasks (task_id, number, scope_id, reason, begin_at, end_at, \
                                   created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
                        let values = [
                            task.task_id.as_str().into(),
                            task.number.into(),
                            task.scope_id.as_str().into(),
                            task.reason.as_str().into(),
                            begin.into(),
                            end.into(),
                            now.into(),
                            task.created_by.as_str().into(),
                        ];
                        tx.execute(sql, &values).await?;
                        tasks.push(task);
                    }
                    Ok(tasks)
                })
            })
            .await
    }

    /// Tasks by their number.
    pub async fn tasks(&self, filter: &TaskFilter, offset: u32, limit: u32) -> Result<Vec<Task>, BookError> {
        let mut values = Vec::new();
        let mut sql = "SELECT * FROM rating_tasks WHERE 1 = 1".to_owned();
        sql.push_str(&among("scope_id", filter.scope_ids.iter().map(Value::from), &mut values));
        if filter.waiting {
            sql.push_str(&format!(" AND {WAITING}"));
        }
        let order = if filter.descending { "DESC" } else { "ASC" };
        sql.push_str(&format!(" ORDER BY number {order} LIMIT {limit} OFFSET {offset}"));
        self.database.query(&sql, &values).await?.iter().map(task_of).collect()
    }

    /// Notes how far a task has come, if it is as it was read. `false`: somebody else works on it.
    pub async fn advance_task(&self, before: &Task, done_until: Timestamp) -> Result<bool, BookError> {
        let sql = "UPDATE rating_tasks SET done_until = $1 WHERE task_id = $2 AND coalesce(done_until, $4) = $3";
        let never = Timestamp::MIN;
        let values = [
            done_until.into(),
            before.task_id.as_str().into(),
            before.done_until.unwrap_or(never).into(),
            never.into(),
        ];
        Ok(self.database.execute(sql, &values).await? == 1)
    }
}
