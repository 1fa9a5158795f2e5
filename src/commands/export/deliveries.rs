//! `orzo export deliver|deliveries|replay`: the outbox of exports, from which the running server sends.

use std::path::Path;

use anyhow::{Context, bail};
use orzo_delivery::{Delivery, DeliveryState, NewDelivery, Outbox};
use orzo_export::check;
use orzo_model::SystemClock;
use serde_json::json;

use super::super::{
    bill,
    output::{Format, Rows},
};
use crate::settings::Settings;

async fn outbox(settings: &Settings) -> anyhow::Result<Outbox> {
    let database = bill::database(settings).await?;
    Outbox::open(database, SystemClock::shared()).await.context("cannot open the outbox of exports")
}

fn print(found: &[Delivery], format: Format) -> anyhow::Result<()> {
    let row = |own: &Delivery| {
        vec![
            json!(own.delivery_id),
            json!(own.target),
            json!(own.run_id),
            json!(own.state.as_str()),
            json!(own.taken),
            json!(own.parked),
            json!(own.attempts),
            json!(own.failure),
        ]
    };
    let columns = vec!["delivery", "target", "run", "state", "taken", "parked", "tries in a row", "failure"];
    Rows { columns, rows: found.iter().map(row).collect() }.print(format)
}

pub(super) async fn deliver(settings: &Settings, directory: &Path, target: &str, format: Format) -> anyhow::Result<()> {
    let manifest = check(directory, None)?;
    let targets = settings.rating.targets()?;
    let Some(to) = targets.iter().find(|own| own.name == target) else {
        bail!("the settings name no target `{target}` (rating.deliveries)");
    };
    if to.profile.name() != manifest.profile {
        bail!("{target} takes {}, and {} is {}", to.profile.name(), directory.display(), manifest.profile);
    }
    let directory = directory.canonicalize().context("cannot find the run")?;
    let new = NewDelivery {
        run: manifest.run,
        directory: directory.display().to_string(),
        profile: manifest.profile,
        target: target.to_owned(),
    };
    let outbox = outbox(settings).await?;
    let ids = outbox.ask(&[new], None).await?;
    let mut found = Vec::new();
    for id in ids {
        found.extend(outbox.find(&id).await?);
    }
    print(&found, format)
}

pub(super) async fn list(settings: &Settings, state: Option<&str>, format: Format) -> anyhow::Result<()> {
    let state = match state {
        Some(text) => {
            Some(DeliveryState::parse(text).with_context(|| format!("--state {text}: waiting, delivered or parked"))?)
        }
        None => None,
    };
    let outbox = outbox(settings).await?;
    let found = outbox.list(state, None).await?;
    print(&found, format)?;
    for own in found.iter().filter(|own| own.parked > 0) {
        for event in outbox.parked(&own.delivery_id).await? {
            eprintln!("{}: event {} is parked: {}", own.delivery_id, event.place, event.reason);
        }
    }
    Ok(())
}

pub(super) async fn replay(settings: &Settings, delivery: &str, format: Format) -> anyhow::Result<()> {
    let own = outbox(settings).await?.replay(delivery).await?;
    print(&[own], format)
}
