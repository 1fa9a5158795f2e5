//! Retention by rule in the background: now and then every metric is held against the rules. What is not rated yet stays.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use orzo_model::Timestamp;
use orzo_query::Engine;

use super::{Ground, stages::Stages};
use crate::{rating::Rating, settings::retention::rules};

/// How often; points leave the files within this time after their day is no longer kept, and the disk
/// `store.removed_grace` later.
const LOOK: Duration = Duration::from_secs(3600);
/// Rating looks at a time again when samples of it came late; so long before what is rated stays, too.
const RATED_AGAIN: Duration = Duration::from_secs(2 * 86_400);

/// Starts it, if there are rules.
pub(super) fn start(
    engine: &Arc<Engine>,
    rating: Option<&Arc<Rating>>,
    ground: &Ground,
    stages: &Stages,
) -> anyhow::Result<()> {
    let rules = rules(&ground.settings.store.retention_rules)?;
    if rules.is_empty() {
        return Ok(());
    }
    let (engine, rating, clock) = (engine.clone(), rating.cloned(), ground.clock.clone());
    let stop = stages.readers.stop.clone();
    stages.readers.tasks.spawn(async move {
        loop {
            let expired = async {
                clock.sleep(LOOK).await;
                let kept_from = match &rating {
                    Some(rating) => rated_until(rating).await?,
                    None => Timestamp::MAX,
                };
                engine.expire(&rules, kept_from).await.context("points that are kept no longer")
            };
            let expired = tokio::select! {
                () = stop.cancelled() => return,
                expired = expired => expired,
            };
            match expired {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "files were written without points that are kept no longer"),
                Err(error) => tracing::warn!("retention waits: {error:#}"),
            }
        }
    });
    Ok(())
}

/// Before this everything is rated, and will not be looked at again by itself. Without a scope nothing is rated yet.
async fn rated_until(rating: &Rating) -> anyhow::Result<Timestamp> {
    let scopes = rating.processor.scopes().await.context("what is rated is not known")?;
    let rated = scopes.iter().filter(|scope| scope.active).map(|scope| scope.rated_until).min();
    Ok(rated.map_or(Timestamp::MIN, |rated| rated.minus(RATED_AGAIN)))
}
