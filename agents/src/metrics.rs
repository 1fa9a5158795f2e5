//! What `orzo-agent` tells about itself over HTTP: `GET /metrics` (every room's counts, in Prometheus' text format) and
//! `GET /healthz`. One request a connection, few connections at once, no web framework.
//!
//! Off unless `metrics.listen` is set. It holds no secret, but knows the names of guests' meters and how many there are:
//! listen where only the monitoring comes. It does not know what the rooms do.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use orzo_model::SharedClock;
use prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at once: a few monitors and a person. More wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8;
/// Request line and headers together; hyper takes no less.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// A scraper sends a handful.
const HEADERS_MAX: usize = 32;
/// From the first byte to the last; Prometheus gives up after ten by default.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// After a failed accept (out of descriptors) the next try waits this long, instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What can go wrong before anything is told.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (metrics.listen)")]
pub struct MetricsError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// The listener, ready to be served.
pub struct Metrics {
    listener: TcpListener,
    registry: Registry,
    clock: SharedClock,
}

impl Metrics {
    /// Listens; what `registry` gathers is told.
    pub async fn listen(address: SocketAddr, registry: Registry, clock: SharedClock) -> Result<Self, MetricsError> {
        let listener = TcpListener::bind(address).await.map_err(|source| MetricsError { address, source })?;
        Ok(Self { listener, registry, clock })
    }

    /// Where it listens: the port, if any was asked for.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listener, registry, clock } = self;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut http = http1::Builder::new();
        http.keep_alive(false).max_buf_size(HEADER_BYTES_MAX).max_headers(HEADERS_MAX);
        loop {
            let next = async {
                let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = stop.cancelled() => return,
                next = next => next,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let registry = registry.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.method(), request.uri().path(), &registry);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let (clock, stop) = (clock.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    ended = connection => if let Err(error) = ended {
                        // A client that went away, or sent no HTTP: its affair.
                        tracing::debug!(error = &error as &dyn std::error::Error, "a scrape ended early");
                    },
                    () = clock.sleep(CONNECTION_MAX) => tracing::debug!("a scrape took too long"),
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}

fn answer(method: &Method, path: &str, registry: &Registry) -> Response<Full<Bytes>> {
    if !matches!(path, "/metrics" | "/healthz") {
        return plain(StatusCode::NOT_FOUND, "Here are /metrics and /healthz.\n");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered.\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    if path == "/healthz" {
        return plain(StatusCode::OK, "ok\n");
    }
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => {
            let mut answer = Response::new(Full::from(text));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
            answer
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the metrics cannot be written");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written.\n")
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
mod tests;
