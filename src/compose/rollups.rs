//! Rollups in the background: one day after the other with pauses, so that they take a quarter of one core at most; and their
//! figures at `/metrics`.

use std::{sync::Arc, time::Duration};

use orzo_query::Engine;
use orzo_store::{Store, StoreStats};
use prometheus::{IntGaugeVec, Opts};

use super::{Ground, stages::Stages};

/// How often it is looked what is due: a day is over once a day.
const LOOK: Duration = Duration::from_secs(60);
/// The shortest pause between two days.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A pause is so many times as long as the day before it took.
const PAUSE_SHARE: u32 = 3;

/// Starts making them.
pub(super) fn start(
    engine: &Arc<Engine>,
    store: &Arc<Store>,
    ground: &Ground,
    stages: &Stages,
) -> Result<(), prometheus::Error> {
    let what =
        "Rollups: files, their rows and bytes, days that are up to date, days that are over and still to be made.";
    let figures = IntGaugeVec::new(Opts::new("orzo_rollups", what), &["figure"])?;
    ground.rooms.registry().register(Box::new(figures.clone()))?;
    ground.rooms.registry().register(Box::new(engine.rows_read().clone()))?;
    show(&figures, &store.stats());
    let (engine, store, clock) = (engine.clone(), store.clone(), ground.clock.clone());
    let stop = stages.readers.stop.clone();
    stages.readers.tasks.spawn(async move {
        let mut pause = LOOK;
        loop {
            let rolled = async {
                clock.sleep(pause).await;
                engine.roll_up().await
            };
            let rolled = tokio::select! {
                // What is under way ends when the store closes.
                () = stop.cancelled() => return,
                rolled = rolled => rolled,
            };
            pause = match rolled {
                Ok(None) => LOOK,
                Ok(Some(day)) => {
                    tracing::debug!(points = day.points, rows = day.rows, "rollups were made");
                    PAUSE_MIN.max(day.took * PAUSE_SHARE)
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "rollups wait; raw points answer");
                    LOOK
                }
            };
            show(&figures, &store.stats());
        }
    });
    Ok(())
}

fn show(figures: &IntGaugeVec, stats: &StoreStats) {
    for (figure, value) in [
        ("files", stats.rollup_files),
        ("rows", stats.rollup_rows),
        ("bytes", stats.rollup_bytes),
        ("days", stats.rollup_days),
        ("days_behind", stats.rollup_days_behind),
    ] {
        figures.with_label_values(&[figure]).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}
