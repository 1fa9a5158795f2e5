//! The scraper beside the engine: its samples become series with labels, its targets are shown by the API.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orzo_api::{TargetView, Targets};
use orzo_labels::SetLimits;
use orzo_model::{MetricMetadata, SinkError};
use orzo_query::{Engine, LabelledPoints, LabelledTarget};
use orzo_scrape::{Kept, LabelledPoint, LabelledSink, Scraper};

use super::Ground;

/// The engine, as the scraper needs it.
struct EngineSink {
    engine: Arc<Engine>,
    limits: SetLimits,
}

#[async_trait]
impl LabelledSink for EngineSink {
    async fn keep(
        &self,
        project: &str,
        points: Vec<LabelledPoint>,
        metadata: BTreeMap<String, MetricMetadata>,
    ) -> Result<Kept, SinkError> {
        let labels = self.engine.labels().map_err(SinkError::unavailable)?.clone();
        let mut taken = LabelledPoints { metadata, ..LabelledPoints::default() };
        let mut refused = BTreeMap::<&'static str, u64>::new();
        {
            let own = labels.project(project);
            let known = own.known();
            for point in points {
                let mut pairs: Vec<(&str, &str)> =
                    point.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                if let Err(refusal) = taken.new.push(&mut pairs, &self.limits) {
                    *refused.entry(refusal.reason()).or_default() += 1;
                    continue;
                }
                let place = taken.new.len() - 1;
                let target = match known.look_up(taken.new.get(place)) {
                    Some(series) => {
                        taken.new.pop();
                        LabelledTarget::Known(series)
                    }
                    None => LabelledTarget::New(place),
                };
                taken.push(target, point.at, point.value);
                taken.exemplars.extend(point.exemplar.map(|exemplar| (target, exemplar)));
            }
        }
        let receipt = self.engine.write_labelled(project, taken).await.map_err(SinkError::unavailable)?;
        if let Some(refusal) = &receipt.refusal {
            *refused.entry(refusal.reason()).or_default() += receipt.refused;
        }
        Ok(Kept { stored: receipt.stored + receipt.repeated, refused: refused.into_iter().collect() })
    }
}

/// A scraper of the settings' targets; none without targets.
pub(super) fn open(ground: &Ground, engine: &Arc<Engine>) -> anyhow::Result<Option<Arc<Scraper>>> {
    let settings = &ground.settings.scrape;
    if settings.targets.is_empty() {
        return Ok(None);
    }
    let limits = SetLimits { labels_max: ground.settings.labels.labels_max, ..SetLimits::default() };
    // A redirect would lead where nobody has said that it may.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let rooms = (ground.rooms.room("scrape"), ground.rooms.room("scrape.slots"));
    let sink = Arc::new(EngineSink { engine: engine.clone(), limits });
    Ok(Some(Scraper::new(settings.targets(), settings.limits(), client, sink, ground.clock.clone(), rooms)))
}

/// The scraper, as the API shows it.
pub(super) struct ShownTargets(pub(super) Arc<Scraper>);

impl Targets for ShownTargets {
    fn targets(&self) -> Vec<TargetView> {
        let timeout = self.0.timeout();
        let view = |state: orzo_scrape::TargetState| TargetView {
            labels: state.target.own_labels(),
            has_token: state.target.token.is_some(),
            name: state.target.name,
            url: state.target.url.to_string(),
            project: state.target.project,
            interval: state.target.interval,
            // No page may take longer than until the next one.
            timeout: timeout.min(state.target.interval),
            is_up: state.is_up,
            last_error: state.last_error,
            last_at: state.last_at,
            last_duration: state.last_duration,
            metadata: state.metadata,
        };
        self.0.states().into_iter().map(view).collect()
    }
}
