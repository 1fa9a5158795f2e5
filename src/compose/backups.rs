//! Backups of this process, for the API: one at a time, in a task, and what became of each.

use std::sync::Arc;

use async_trait::async_trait;
use orzo_api::{BackupMaker, BackupState};
use parking_lot::Mutex;

use crate::backup::{self, Far, Source};

/// How many states are kept: those before are in the directory of backups all the same.
const STATES_MAX: usize = 100;

/// Makes them.
pub(super) struct Backups {
    source: Source,
    states: Arc<Mutex<Vec<BackupState>>>,
}

impl Backups {
    pub(super) fn new(source: Source) -> Self {
        Self { source, states: Arc::default() }
    }
}

#[async_trait]
impl BackupMaker for Backups {
    async fn begin(&self) -> Result<BackupState, Box<BackupState>> {
        let begun = {
            let mut states = self.states.lock();
            if let Some(running) = states.iter().find(|state| state.state == "running") {
                return Err(Box::new(running.clone()));
            }
            let mut name = backup::name_of(self.source.clock.now());
            if states.iter().any(|state| state.name == name) {
                name = format!("{name}-{}", states.len());
            }
            let begun =
                BackupState { name, state: "running".to_owned(), stage: "points".to_owned(), ..Default::default() };
            if states.len() == STATES_MAX {
                states.remove(0);
            }
            states.push(begun.clone());
            begun
        };
        let (source, states, name) = (self.source.clone(), self.states.clone(), begun.name.clone());
        tokio::spawn(async move {
            let change = {
                let (states, name) = (states.clone(), name.clone());
                move |change: &dyn Fn(&mut BackupState)| {
                    states.lock().iter_mut().filter(|state| state.name == name).for_each(change);
                }
            };
            let told = {
                let change = change.clone();
                move |far: Far| {
                    change(&|state| {
                        state.stage = far.stage.to_owned();
                        (state.bytes_done, state.bytes_total) = (far.bytes_done, far.bytes_total);
                    });
                }
            };
            match backup::make(&source, &name, told).await {
                Ok((path, manifest)) => {
                    tracing::info!(path = %path.display(), rows = manifest.points.rows, "a backup is whole");
                    change(&|state| {
                        state.state = "done".to_owned();
                        state.path = Some(path.display().to_string());
                        state.notes.clone_from(&manifest.notes);
                    });
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "a backup failed");
                    change(&|state| {
                        state.state = "failed".to_owned();
                        state.error = Some(format!("{error:#}"));
                    });
                }
            }
        });
        Ok(begun)
    }

    fn states(&self) -> Vec<BackupState> {
        self.states.lock().clone()
    }
}
