//! Scrapes exporters: `slot → page → samples → door`, for each target of a list, for ever.
//!
//! Each target has slots of its own within its interval, so that not all are asked at once and a restart asks at the same
//! times. A slot whose scrape is still under way is passed over. This room knows neither series nor the store.
#![forbid(unsafe_code)]

mod page;
pub mod text;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use orzo_model::{Exemplar, MetricMetadata, Room, SharedClock, SinkError, Timestamp};
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use url::Url;
use xxhash_rust::xxh3::xxh3_64;

use text::{Form, LineError};

/// Labels of a series, sorted by name.
pub type Labels = Vec<(String, String)>;

/// Targets of one process; each is a task and the names of its series.
pub const TARGETS_MAX: usize = 1_000;
/// Names of one target whose meaning is remembered; exporters have some hundreds.
pub const DESCRIBED_MAX: usize = 10_000;
/// Pages in memory at once.
const AT_ONCE: usize = 16;
/// What is asked for first.
const ACCEPTED: &str = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
/// Characters of a reason that is shown.
const REASON_CHARS_MAX: usize = 300;

/// What is scraped.
#[derive(Clone, Debug)]
pub struct Target {
    /// The label `job`.
    pub name: String,
    /// Its page; host and port are the label `instance`.
    pub url: Url,
    /// Whose series they become.
    pub project: String,
    /// How often.
    pub interval: Duration,
    /// Further labels.
    pub labels: Vec<(String, String)>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<SecretString>,
}

impl Target {
    /// The labels of all its series, sorted.
    pub fn own_labels(&self) -> Vec<(String, String)> {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        let mut labels = vec![("instance".to_owned(), format!("{host}:{port}")), ("job".to_owned(), self.name.clone())];
        labels.retain(|(name, _)| !self.labels.iter().any(|(own, _)| own == name));
        labels.extend(self.labels.iter().cloned());
        labels.sort();
        labels
    }
}

/// What holds for all targets.
#[derive(Clone, Copy, Debug)]
pub struct ScrapeSettings {
    /// How long a page may take.
    pub timeout: Duration,
    /// Samples of one page; a page with more is refused.
    pub samples_max: usize,
    /// Bytes of one page.
    pub body_bytes_max: usize,
}

/// A sample with its labels, which are sorted by name.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledPoint {
    /// `__name__` among them.
    pub labels: Vec<(String, String)>,
    /// When.
    pub at: Timestamp,
    /// What.
    pub value: f64,
    /// One observation behind it.
    pub exemplar: Option<Exemplar>,
}

/// What became of samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Durable, now or before.
    pub stored: u64,
    /// Not kept, with the reason of the first.
    pub refused: Vec<(&'static str, u64)>,
}

/// Where samples go. `Ok` means durable.
#[async_trait]
pub trait LabelledSink: Send + Sync {
    /// Keeps what can be kept; `metadata` is what the page says of names.
    async fn keep(
        &self,
        project: &str,
        points: Vec<LabelledPoint>,
        metadata: BTreeMap<String, MetricMetadata>,
    ) -> Result<Kept, SinkError>;
}

/// Why a scrape has no samples.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// No connection, or it broke.
    #[error("the target does not answer: {0}")]
    Unreachable(String),
    /// Another status than 200; redirects are not followed.
    #[error("the target answers {0}")]
    Status(u16),
    /// No whole page in time.
    #[error("no whole page within {0:?}")]
    Late(Duration),
    /// The page is too large.
    #[error("the page is larger than {body_bytes_max} bytes")]
    TooLarge {
        /// The limit.
        body_bytes_max: usize,
    },
    /// It has too many samples.
    #[error("the page has more than {samples_max} samples")]
    TooManySamples {
        /// The limit.
        samples_max: usize,
    },
    /// It is no text.
    #[error("the page is not UTF-8 text")]
    NoText,
    /// It is not in the format.
    #[error(transparent)]
    Line(#[from] LineError),
}

impl ScrapeError {
    /// The reason under which it is counted.
    fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "bad status",
            Self::Late(_) => "late",
            Self::TooLarge { .. } | Self::TooManySamples { .. } => "too large",
            Self::NoText | Self::Line(_) => "malformed",
        }
    }
}

/// What is known of a target.
#[derive(Clone, Debug)]
pub struct TargetState {
    /// The target.
    pub target: Target,
    /// `None`: not asked yet.
    pub is_up: Option<bool>,
    /// Why the last scrape failed; empty if it did not.
    pub last_error: String,
    /// The slot of the last scrape.
    pub last_at: Option<Timestamp>,
    /// How long it took.
    pub last_duration: Duration,
    /// What the names on its last good page mean, of at most [`DESCRIBED_MAX`] names.
    pub metadata: Arc<BTreeMap<String, MetricMetadata>>,
}

/// Scrapes its targets while it runs.
pub struct Scraper {
    targets: Vec<Target>,
    states: Mutex<Vec<TargetState>>,
    settings: ScrapeSettings,
    client: reqwest::Client,
    sink: Arc<dyn LabelledSink>,
    clock: SharedClock,
    room: Room,
    /// Counts slots, of which each is stored or refused with a reason.
    slots: Room,
    places: Semaphore,
}

impl Scraper {
    /// A scraper; nothing is asked before [`Self::run`]. The client must not follow redirects. `room` counts samples, `slots`
    /// scrapes.
    pub fn new(
        targets: Vec<Target>,
        settings: ScrapeSettings,
        client: reqwest::Client,
        sink: Arc<dyn LabelledSink>,
        clock: SharedClock,
        (room, slots): (Room, Room),
    ) -> Arc<Self> {
        let state = |target: &Target| TargetState {
            target: target.clone(),
            is_up: None,
            last_error: String::new(),
            last_at: None,
            last_duration: Duration::ZERO,
            metadata: Arc::default(),
        };
        let states = Mutex::new(targets.iter().map(state).collect());
        Arc::new(Self { targets, states, settings, client, sink, clock, room, slots, places: Semaphore::new(AT_ONCE) })
    }

    /// What is known of each target.
    pub fn states(&self) -> Vec<TargetState> {
        self.states.lock().clone()
    }

    /// How long a page may take.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Scrapes until told to stop; a scrape under way is finished.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for place in 0..self.targets.len() {
            let (scraper, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move { scraper.follow(place, stop).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn follow(&self, place: usize, stop: CancellationToken) {
        let target = &self.targets[place];
        let mut before = HashSet::new();
        loop {
            let slot = next_slot(target, self.clock.now());
            let wait = slot.since(self.clock.now());
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(wait) => {}
            }
            let Ok(_place) = self.places.acquire().await else { return };
            before = self.scrape(place, slot, before).await;
        }
    }

    /// One scrape; gives the series that it has seen.
    pub async fn scrape(&self, place: usize, slot: Timestamp, before: HashSet<Labels>) -> HashSet<Labels> {
        let target = &self.targets[place];
        let own = target.own_labels();
        let started = self.clock.monotonic();
        self.slots.received(1);
        let outcome = self.page(target, &own, slot).await;
        let took = self.clock.monotonic().saturating_sub(started);
        let (page, error) = match outcome {
            Ok(page) => (page, None),
            Err(error) => (page::Page::default(), Some(error)),
        };
        let page::Page { mut points, series: now, metadata } = page;
        let report =
            page::report(&own, slot, error.is_none(), took.as_secs_f64(), points.len(), page::added(&before, &now));
        points.extend(page::vanished(&before, &now, slot));
        points.extend(report);
        if error.is_none() {
            self.remember(place, &metadata);
        }
        let kept = self.keep(&target.project, points, metadata).await;
        let mut reason = error.as_ref().map(ToString::to_string).unwrap_or_default();
        match (&error, &kept) {
            (Some(error), _) => self.slots.refused(error.reason(), 1),
            (None, Err(error)) => {
                reason = error.to_string();
                self.slots.refused("not kept", 1);
            }
            (None, Ok(())) => self.slots.stored(1),
        }
        let mut states = self.states.lock();
        let state = &mut states[place];
        if state.is_up != Some(error.is_none()) {
            let job = &target.name;
            match &error {
                None => tracing::info!(job, url = %target.url, "a target is up"),
                Some(error) => tracing::warn!(job, url = %target.url, %error, "a target is down"),
            }
        }
        state.is_up = Some(error.is_none());
        state.last_error = reason.chars().take(REASON_CHARS_MAX).collect();
        (state.last_at, state.last_duration) = (Some(slot), took);
        // What was not kept is not there, and gets no end.
        if kept.is_ok() { now } else { before }
    }

    /// A page seldom says something new.
    fn remember(&self, place: usize, metadata: &BTreeMap<String, MetricMetadata>) {
        let known = self.states.lock()[place].metadata.clone();
        if !known.iter().eq(metadata.iter().take(DESCRIBED_MAX)) {
            let new = metadata.iter().take(DESCRIBED_MAX).map(|(name, about)| (name.clone(), about.clone()));
            self.states.lock()[place].metadata = Arc::new(new.collect());
        }
    }

    async fn keep(
        &self,
        project: &str,
        points: Vec<LabelledPoint>,
        metadata: BTreeMap<String, MetricMetadata>,
    ) -> Result<(), SinkError> {
        let count = points.len() as u64;
        self.room.received(count);
        match self.sink.keep(project, points, metadata).await {
            Ok(Kept { stored, refused }) => {
                self.room.stored(stored);
                for (reason, count) in refused {
                    self.room.refused(reason, count);
                }
                Ok(())
            }
            Err(error) => {
                // The next page brings the next values: nobody keeps these.
                self.room.dropped("not kept", count);
                tracing::warn!(%error, count, "what was scraped is not kept");
                Err(error)
            }
        }
    }

    async fn page(
        &self,
        target: &Target,
        own: &[(String, String)],
        slot: Timestamp,
    ) -> Result<page::Page, ScrapeError> {
        let timeout = self.settings.timeout.min(target.interval);
        let fetched = tokio::time::timeout(timeout, self.fetch(target)).await;
        let (form, body) = fetched.map_err(|_| ScrapeError::Late(timeout))??;
        let (own, samples_max) = (own.to_vec(), self.settings.samples_max);
        let read = tokio::task::spawn_blocking(move || {
            let text = std::str::from_utf8(&body).map_err(|_| ScrapeError::NoText)?;
            page::read(text, form, &own, slot, samples_max)
        });
        read.await.unwrap_or(Err(ScrapeError::NoText))
    }

    async fn fetch(&self, target: &Target) -> Result<(Form, Vec<u8>), ScrapeError> {
        let unreachable = |error: reqwest::Error| {
            let mut text = error.without_url().to_string();
            text.truncate(text.char_indices().nth(REASON_CHARS_MAX).map_or(text.len(), |(at, _)| at));
            ScrapeError::Unreachable(text)
        };
        let mut request = self.client.get(target.url.clone()).header(ACCEPT, ACCEPTED);
        if let Some(token) = &target.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let mut response = request.send().await.map_err(unreachable)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(ScrapeError::Status(response.status().as_u16()));
        }
        let form = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let form = Form::of(form);
        let (mut body, body_bytes_max) = (Vec::new(), self.settings.body_bytes_max);
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > body_bytes_max {
                return Err(ScrapeError::TooLarge { body_bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((form, body))
    }
}

/// The first of a target's own times after `now`: its interval's multiples, moved by what follows from its name and URL.
fn next_slot(target: &Target, now: Timestamp) -> Timestamp {
    let interval = i64::try_from(target.interval.as_micros()).unwrap_or(i64::MAX).max(1);
    let named = xxh3_64(format!("{}\n{}", target.name, target.url).as_bytes());
    // Whole milliseconds, which is what Prometheus' times have.
    let offset = i64::try_from(named % (interval.unsigned_abs() / 1000).max(1)).unwrap_or(0) * 1000;
    let since = (now.micros() - offset).rem_euclid(interval);
    Timestamp::from_micros(now.micros() - since + interval)
}

#[cfg(test)]
mod tests;
