//! How many queries run at one time and what memory they hold, in all and for one project: one project's queries wait for each
//! other, and leave half to the others.

use std::{collections::HashMap, sync::Arc};

use orzo_promql::{QueryError, Room};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ingest::admission::{Admission, Place};

/// Queries that run at one time, over all projects.
const QUERIES_MAX: usize = 32;
/// Of them, those of one project: a page of Grafana asks for some twenty, and the rest of them waits.
const PROJECT_QUERIES_MAX: usize = 16;
/// Bytes of all queries together.
const BYTES_MAX: usize = 2 << 30;
/// Bytes of one project's queries.
const PROJECT_BYTES_MAX: usize = 1 << 30;

/// Queries that run.
pub(crate) struct Queries {
    all: Arc<Semaphore>,
    by_project: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    memory: Admission,
}

impl Default for Queries {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(QUERIES_MAX)),
            by_project: Mutex::default(),
            memory: Admission::new(BYTES_MAX, PROJECT_BYTES_MAX),
        }
    }
}

/// A query's turn, until it is dropped.
pub(crate) struct Turn<'q> {
    queries: &'q Queries,
    project: Arc<str>,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

impl Queries {
    /// Waits until a project's query may run. Whoever waits too long ends it by dropping the future.
    pub(crate) async fn turn(&self, project: &str) -> Result<Turn<'_>, QueryError> {
        let project: Arc<str> = project.into();
        let own = self.by_project.lock().entry(project.clone()).or_insert_with(new_project).clone();
        // From here on, the place in the map is tidied up even if nobody waits any longer.
        let mut turn = Turn { queries: self, project, permits: None };
        let ended = |_| QueryError::Cancelled;
        let own = own.acquire_owned().await.map_err(ended)?;
        let one = self.all.clone().acquire_owned().await.map_err(ended)?;
        turn.permits = Some([own, one]);
        Ok(turn)
    }

    /// Memory for one query of a project.
    pub(crate) fn room(&self, project: &str) -> Arc<dyn Room> {
        let project: Arc<str> = project.into();
        Arc::new(Memory { admission: self.memory.clone(), place: Mutex::new(None), project })
    }
}

fn busy() -> QueryError {
    let reason = "the queries that run hold the memory that there is for them; ask again in a moment";
    QueryError::Busy(reason.to_owned())
}

fn new_project() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PROJECT_QUERIES_MAX))
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permits = None;
        let mut projects = self.queries.by_project.lock();
        // The map's own: nobody runs or waits. A permit and whoever waits for one hold it too.
        if projects.get(&self.project).is_some_and(|own| Arc::strong_count(own) == 1) {
            projects.remove(&self.project);
        }
    }
}

/// What one query has taken.
struct Memory {
    admission: Admission,
    place: Mutex<Option<Place>>,
    project: Arc<str>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Room for Memory {
    fn take(&self, bytes: usize) -> Result<(), QueryError> {
        let mut place = self.place.lock();
        if place.is_none() {
            *place = self.admission.enter(&self.project, 0);
        }
        let Some(place) = place.as_mut() else { return Err(busy()) };
        if place.grow(bytes) {
            return Ok(());
        }
        match place.could_grow(bytes) {
            true => Err(busy()),
            false => Err(QueryError::TooMuch { what: "bytes of memory", limit: PROJECT_BYTES_MAX }),
        }
    }

    fn apart(&self) -> Arc<dyn Room> {
        let (admission, project) = (self.admission.clone(), self.project.clone());
        Arc::new(Self { admission, place: Mutex::new(None), project })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn queries_of_one_project_wait_for_each_other_and_not_for_others() {
        let queries = Queries::default();
        let mut turns = Vec::new();
        for _ in 0..PROJECT_QUERIES_MAX {
            turns.push(queries.turn("a").await.expect("a turn"));
        }
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, queries.turn("a")).await.is_err(), "one too many");
        let other = queries.turn("b").await.expect("another project's");
        turns.pop();
        turns.push(queries.turn("a").await.expect("there is one again"));
        drop((turns, other));
        assert!(queries.by_project.lock().is_empty(), "nobody is remembered for ever");
        assert_eq!(queries.all.available_permits(), QUERIES_MAX);
    }

    #[test]
    fn one_projects_queries_leave_memory_to_others_and_give_it_back() {
        let queries = Queries::default();
        let (one, two, other) = (queries.room("a"), queries.room("a"), queries.room("b"));
        let half = PROJECT_BYTES_MAX / 2;
        one.take(half).expect("half");
        let piece = one.apart();
        piece.take(half).expect("the other half");
        assert!(matches!(two.take(1), Err(QueryError::Busy(_))));
        assert!(matches!(two.take(PROJECT_BYTES_MAX + 1), Err(QueryError::TooMuch { .. })));
        other.take(half).expect("others have theirs");
        drop(piece);
        two.take(half).expect("what was given back");
        drop((one, two, other));
        queries.room("c").take(PROJECT_BYTES_MAX).expect("all is given back");
    }
}
