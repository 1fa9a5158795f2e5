//! Keeps the Delta table `series` where the names are: a refresh now and then, none of which takes much of the machine.

use std::{sync::Arc, time::Duration};

use orzo_index::Index;
use orzo_labels::LabelIndex;
use orzo_names::{SeriesTable, TableSettings};
use orzo_store::files::real::RealDisk;

use super::{Ground, stages::Stages};

/// After a refresh that took a second the next one waits for so many, however short the setting is: of a core it takes a
/// twentieth at most.
const REST: u32 = 20;
/// A stop brings the table up to date once more, unless a refresh takes longer than this: the store has to be closed, too.
const LAST_MAX: Duration = Duration::from_secs(2);

/// Starts the task.
pub(super) fn start(ground: &Ground, index: &Arc<Index>, labels: &Arc<LabelIndex>, stages: &Stages) {
    let (store, clock) = (&ground.settings.store, ground.clock.clone());
    let settings = TableSettings {
        directory: ground.settings.server.data_directory.join("store").join("series"),
        removed_grace: store.removed_grace.0,
        disk_reserve_bytes: store.disk_reserve_bytes,
        ..TableSettings::default()
    };
    let mut table = SeriesTable::new(Arc::new(RealDisk), index.clone(), Some(labels.clone()), clock.clone(), settings);
    let (every, stop) = (store.series_table_every.0, stages.readers.stop.clone());
    stages.readers.tasks.spawn(async move {
        // The longest walk so far: an idle refresh says nothing about the next one.
        let mut longest = Duration::ZERO;
        loop {
            let is_last = stop.is_cancelled();
            let begun_at = clock.monotonic();
            let outcome = table.refresh().await;
            let took = clock.monotonic().saturating_sub(begun_at);
            longest = longest.max(took);
            match outcome {
                Ok(refreshed) if refreshed.added + refreshed.removed > 0 => {
                    tracing::debug!(?refreshed, took_ms = took.as_millis(), "the table series is where the names are");
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the table series is behind the names");
                }
            }
            if is_last {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => if longest > LAST_MAX { return },
                () = clock.sleep(every.max(took * REST)) => {}
            }
        }
    });
}
