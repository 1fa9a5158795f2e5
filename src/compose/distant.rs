//! Windows, events and PromQL of the process that has the store, for an evaluator in a process of its own.
//!
//! Each question is one `POST` at `/watch` of that process, as our own service user. What is not answered is `Unavailable`
//! and asked again by whoever asked; nothing is kept here.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use orzo_model::{
    Event, EventFeed, InstantQueries, Measure, NumberedEvent, ReadError, Scope, SeriesId, Target, Timestamp,
    WindowRead, WindowReader,
    watch::wire::{EventsAsked, InstantAsked, READS_MAX, Read, SeriesAsked, WindowsAsked, WindowsRead, unpacked},
};
use orzo_session::Session;
use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

/// Longer than the other side works on a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads at another process.
pub(super) struct DistantReader {
    url: Url,
    session: Arc<Session>,
    client: reqwest::Client,
}

impl DistantReader {
    /// A reader at the process that is reached under `url`.
    pub(super) fn new(url: Url, session: Arc<Session>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).connect_timeout(CONNECT_TIMEOUT).build()?;
        anyhow::ensure!(!url.cannot_be_a_base(), "alarms.reader_url is not a URL of a server");
        Ok(Self { url, session, client })
    }

    async fn ask<A: DeserializeOwned>(&self, question: &str, body: &impl Serialize) -> Result<A, ReadError> {
        let unavailable = |error: anyhow::Error| ReadError::Unavailable { reason: format!("{error:#}") };
        let body = serde_json::to_vec(body).context("a question that cannot be written").map_err(unavailable)?;
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["watch", "v1", question]);
        }
        let post = async || {
            let token = self.session.token().await?;
            let request = self.client.post(url.clone()).header("x-auth-token", token.expose_secret());
            let response = request.header("content-type", "application/json").body(body.clone()).send().await?;
            anyhow::Ok((token, response))
        };
        let (token, mut response) = post().await.map_err(unavailable)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // It may have been revoked, or the identity service may have been made anew.
            self.session.forget(&token);
            response = post().await.map_err(unavailable)?.1;
        }
        if response.status() != StatusCode::OK {
            let reason = format!("{url} answers {}", response.status().as_u16());
            return Err(ReadError::Unavailable { reason });
        }
        let bytes = response.bytes().await.context("the answer broke off").map_err(unavailable)?;
        serde_json::from_slice(&bytes).context("the answer cannot be read").map_err(unavailable)
    }
}

#[async_trait]
impl WindowReader for DistantReader {
    async fn find_series(&self, scope: &Scope, target: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        let asked = SeriesAsked { scope: scope.clone(), target: target.clone() };
        let found: Result<Vec<SeriesId>, ReadError> = self.ask("series", &asked).await?;
        found.map(Arc::from)
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        let mut answers = Vec::with_capacity(reads.len());
        for reads in reads.chunks(READS_MAX) {
            let asked = WindowsAsked { reads: reads.iter().map(Read::from).collect() };
            match self.ask::<WindowsRead>("windows", &asked).await {
                Ok(found) if found.len() == reads.len() => {
                    answers.extend(found.into_iter().map(|answer| answer.map(unpacked)));
                }
                other => {
                    let reason = match other {
                        Ok(_) => "there are not as many answers as questions".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    answers.extend(reads.iter().map(|_| Err(ReadError::Unavailable { reason: reason.clone() })));
                }
            }
        }
        answers
    }
}

#[async_trait]
impl EventFeed for DistantReader {
    async fn events_after(&self, number: i64, limit: usize) -> Result<Vec<NumberedEvent>, ReadError> {
        self.ask::<Result<_, _>>("events", &EventsAsked::After { number, limit }).await?
    }

    async fn newest_event(&self) -> Result<i64, ReadError> {
        self.ask::<Result<_, _>>("events", &EventsAsked::Newest).await?
    }

    async fn events_between(
        &self,
        project_id: &str,
        start: Timestamp,
        stop: Timestamp,
        limit: usize,
    ) -> Result<Vec<Event>, ReadError> {
        let asked = EventsAsked::Between { project_id: project_id.to_owned(), start, stop, limit };
        self.ask::<Result<_, _>>("events", &asked).await?
    }
}

#[async_trait]
impl InstantQueries for DistantReader {
    async fn instant(&self, scope: &Scope, query: &str, at: Timestamp) -> Result<Vec<f64>, ReadError> {
        let asked = InstantAsked { scope: scope.clone(), query: query.to_owned(), at_us: at.micros() };
        let bits = self.ask::<Result<Vec<u64>, ReadError>>("instant", &asked).await??;
        Ok(bits.into_iter().map(f64::from_bits).collect())
    }
}
