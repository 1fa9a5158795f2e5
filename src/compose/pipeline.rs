//! What the API's page may know of the rooms before it: every meter with who makes it and how often, and the quarantine.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_agents::{host::HOST_METERS, polling::Polling, pollsters::POLLSTERS};
use orzo_api::{KnownMeter, Pipeline, Quarantined};
use orzo_collector::{Quarantine, derive::RATES};
use orzo_definitions::MeterDefinitions;

use crate::settings::{Role, Settings};

pub(super) struct Rooms {
    meters: Vec<KnownMeter>,
    quarantine: Arc<Quarantine>,
}

impl Rooms {
    pub(super) fn new(settings: &Settings, polling: &Polling, quarantine: Arc<Quarantine>) -> Self {
        Self { meters: known_meters(settings, polling), quarantine }
    }
}

#[async_trait]
impl Pipeline for Rooms {
    fn meters(&self) -> &[KnownMeter] {
        &self.meters
    }

    async fn quarantined(&self, limit: usize) -> (Vec<Quarantined>, usize) {
        let entries = match self.quarantine.list(None, limit).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the quarantine cannot be listed");
                Vec::new()
            }
        };
        let row = |entry: orzo_collector::QuarantineEntry| Quarantined {
            kept_at: entry.kept_at.map(|at| at.to_string()),
            origin: entry.origin,
            reason: entry.reason,
            bytes: entry.bytes,
        };
        (entries.into_iter().map(row).collect(), self.quarantine.len())
    }
}

fn known_meters(settings: &Settings, polling: &Polling) -> Vec<KnownMeter> {
    let agents = settings.has(Role::Agents);
    let every = |name: &str| -> Option<Duration> {
        let by_interval = polling.by_interval();
        by_interval.into_iter().find(|(_, chosen)| chosen.iter().any(|one| one.includes(name))).map(|(every, _)| every)
    };
    let polled = |name: &str, unit: &str, origin: &'static str, is_on: bool| {
        let is_made_here = agents && is_on;
        KnownMeter {
            name: name.to_owned(),
            unit: unit.to_owned(),
            origin,
            derived_from: None,
            every_s: every(name).filter(|_| is_made_here).map(|every| every.as_secs()),
            is_made_here,
        }
    };
    let derived = |name: String, unit: &str, from: &str| KnownMeter {
        name,
        unit: unit.to_owned(),
        origin: "derived",
        derived_from: Some(from.to_owned()),
        every_s: None,
        is_made_here: true,
    };
    let chosen = &settings.agents;
    let mut meters = Vec::new();
    meters.extend(POLLSTERS.iter().map(|one| polled(one.meter, one.unit, "compute", chosen.compute)));
    meters.extend(HOST_METERS.iter().map(|one| polled(one.name, one.unit, "host", chosen.host)));
    meters
        .extend(orzo_agents::central::METERS.iter().map(|(name, unit)| polled(name, unit, "central", chosen.central)));
    meters.push(derived("cpu_util".to_owned(), "%", "cpu"));
    meters.extend(RATES.iter().map(|(meter, unit)| derived(format!("{meter}.rate"), unit, meter)));
    meters.extend(MeterDefinitions::shipped().listed().map(|(name, _, unit)| KnownMeter {
        name: name.to_owned(),
        unit: unit.to_owned(),
        origin: "notifications",
        derived_from: None,
        every_s: None,
        is_made_here: agents && chosen.notifications,
    }));
    meters
}
