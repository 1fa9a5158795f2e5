//! The role `rating`: rates what is over, again and again; what is asked for again; keeps the ledger's files few; makes exports
//! when they are due and sends them.

use std::{error::Error, sync::Arc, time::Duration};

use anyhow::Context;
use orzo_delivery::{Deliverer, Outcome, Poster, Target};
use orzo_export::{Profile, Request};
use orzo_model::{SharedClock, Timestamp};
use orzo_query::Engine;
use orzo_rating::{Report, forecast::month};

use super::{Ground, holder::Holder, stages::Stages};
use crate::rating::{CostMeters, Rating};

/// How often the outbox is looked at for each target: one small query.
const OUTBOX_INTERVAL: Duration = Duration::from_secs(5);

/// Starts the loops: one that rates, and one for each target of exports.
pub(super) fn start(
    rating: &Arc<Rating>,
    engine: &Arc<Engine>,
    ground: &Ground,
    stages: &Stages,
) -> anyhow::Result<()> {
    start_deliveries(rating, ground, stages)?;
    let costs = CostMeters::new(engine.clone(), Arc::new(rating.ledger.clone()), ground.clock.clone());
    let (rating, clock, stop) = (rating.clone(), ground.clock.clone(), stages.readers.stop.clone());
    let interval = ground.settings.rating.interval.0;
    // They were checked when the settings were read.
    let profiles = ground.settings.rating.profiles().unwrap_or_default();
    let mut exported = None;
    stages.readers.tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep(interval) => {}
            }
            // Dropped in the middle of a rating nothing is lost: an append is whole or not at all, and is made again.
            tokio::select! {
                () = stop.cancelled() => return,
                () = look(&rating, &costs, clock.now()) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = export(&rating, &profiles, clock.now(), &mut exported) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = export_scheduled(&rating, clock.now()) => {}
            }
        }
    });
    Ok(())
}

/// One loop for each target, so that none waits for another.
fn start_deliveries(rating: &Rating, ground: &Ground, stages: &Stages) -> anyhow::Result<()> {
    let (exports, targets) = (&rating.exports, rating.exports.targets().to_vec());
    let Some(outbox) = exports.outbox().filter(|_| !targets.is_empty()) else { return Ok(()) };
    let holder = Holder::take(&ground.settings.server.data_directory.join("exports.holder"), &ground.host)?;
    let poster = Poster::new().context("cannot send exports")?;
    let (clock, room, name) = (ground.clock.clone(), ground.rooms.room("deliveries"), holder.name().to_owned());
    let deliverer = Arc::new((Deliverer::new(outbox.clone(), poster, clock.clone(), room, name), holder));
    for target in targets {
        let (deliverer, clock, stop) = (deliverer.clone(), clock.clone(), stages.readers.stop.clone());
        stages.readers.tasks.spawn(async move {
            // Dropped in the middle, what had no answer is sent again under its own key.
            tokio::select! {
                () = stop.cancelled() => {}
                () = deliver(&deliverer.0, &target, &clock) => {}
            }
        });
    }
    Ok(())
}

async fn deliver(deliverer: &Deliverer, target: &Target, clock: &SharedClock) {
    loop {
        match deliverer.deliver_next(target).await {
            Ok(Outcome::Delivered(own)) => {
                let (delivery, target) = (own.delivery_id, own.target);
                tracing::info!(%delivery, %target, taken = own.taken, parked = own.parked, "an export was delivered");
                continue;
            }
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Later { delivery_id, reason }) => {
                tracing::warn!(delivery = %delivery_id, target = %target.name, %reason, "an export was not delivered, trying again");
            }
            Ok(Outcome::GivenUp { delivery_id, reason }) => {
                tracing::error!(delivery = %delivery_id, target = %target.name, %reason, "the delivery of an export was given up");
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, target = %target.name, "the outbox of exports could not be used, trying again");
            }
        }
        clock.sleep(OUTBOX_INTERVAL).await;
    }
}

/// Makes the runs that are due for targets.
async fn export_scheduled(rating: &Rating, now: Timestamp) {
    let ready = rating.processor.settings().ready(now);
    for target in rating.exports.targets() {
        match rating.exports.run_scheduled(target, now, ready).await {
            Ok(None) => {}
            Ok(Some(run)) => {
                tracing::info!(target = %target.name, run = %run.manifest.run, lines = run.manifest.lines, "exported");
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, target = %target.name, "an export failed, trying again");
            }
        }
    }
}

/// Tells what was appended, and what has no price: that nobody is charged for, and somebody has to mend it.
fn tell(report: &Report, is_news: bool, appended: impl FnOnce()) {
    if is_news {
        appended();
    }
    if report.unpriced > 0
        && let Some(first) = report.findings.first()
    {
        tracing::warn!(
            unpriced = report.unpriced,
            resource = %first.resource,
            from = %first.at,
            detail = %first.detail,
            "usage has no price, is not charged, and holds its scope until its price is mended"
        );
    }
}

async fn look(rating: &Rating, costs: &CostMeters, now: Timestamp) {
    let told = |scope: &str, until: Timestamp| tracing::debug!(scope, %until, "rated");
    match rating.processor.advance(told).await {
        Ok(report) => tell(&report, report.lines > 0, || {
            tracing::info!(
                lines = report.appended,
                corrected = report.reversed,
                disagreements = report.findings.len(),
                incomplete = report.incomplete.len(),
                "usage was rated"
            );
        }),
        Err(error) => tracing::warn!(error = &error as &dyn Error, "usage could not be rated, trying again"),
    }
    match rating.processor.catch_up().await {
        Ok(report) => tell(&report, report.appended > 0, || {
            tracing::info!(
                lines = report.appended,
                corrected = report.reversed,
                "late events corrected what was rated"
            );
        }),
        Err(error) => tracing::warn!(error = &error as &dyn Error, "late events could not be looked at, trying again"),
    }
    match rating.processor.second().await {
        Ok(report) => tell(&report, report.appended > 0, || {
            tracing::info!(lines = report.appended, "late samples corrected what was rated");
        }),
        Err(error) => tracing::warn!(error = &error as &dyn Error, "a day could not be rated again, trying again"),
    }
    match rating.processor.reprocess().await {
        Ok((tasks, report)) => tell(&report, tasks > 0, || {
            tracing::info!(tasks, lines = report.appended, "usage was rated again, as asked for");
        }),
        Err(error) => tracing::warn!(error = &error as &dyn Error, "usage could not be rated again, trying again"),
    }
    if let Err(error) = costs.publish(rating.ledger.stats().lines, rating.processor.settings().ready(now)).await {
        let error: &dyn Error = error.as_ref();
        tracing::warn!(error, "what projects cost could not be written, trying again");
    }
    match rating.ledger.compact().await {
        Ok(0) => {}
        Ok(files) => tracing::debug!(files, "files of the ledger were merged"),
        Err(error) => tracing::warn!(error = &error as &dyn Error, "the ledger's files could not be merged"),
    }
}

/// Exports the month before once all of it was rated; `exported` is the month that was. A run that is there already is the
/// same, so that nothing has to be remembered over a restart.
async fn export(rating: &Rating, profiles: &[Profile], now: Timestamp, exported: &mut Option<Timestamp>) {
    let end = month(rating.processor.settings().ready(now), 0);
    let begin = month(end.minus(Duration::from_secs(1)), 0);
    if *exported == Some(begin) {
        return;
    }
    for profile in profiles {
        let request = Request { profile: *profile, begin, end, scopes: None, as_of: None, rated_after: None };
        match rating.exports.run(&request).await {
            Ok(run) if run.was_there => {}
            Ok(run) => {
                tracing::info!(profile = profile.name(), run = %run.manifest.run, lines = run.manifest.lines, "exported");
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn Error,
                    profile = profile.name(),
                    "an export failed, trying again"
                );
                return;
            }
        }
    }
    *exported = Some(begin);
}
