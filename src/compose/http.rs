//! The HTTP listener: limits on headers, bodies, connections and waiting, and an orderly end.

mod patience;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderValue},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use patience::PatientBody;

/// Connections at once; each costs a file descriptor and some kilobytes.
const CONNECTIONS_MAX: usize = 4096;
/// A client that needs longer for its request line and headers holds a place for nothing.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Largest request line and headers together; a token has 255 bytes.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// A connection that has brought no request by then is closed: hyper has a limit for headers, but not for the first
/// bytes, which tell HTTP/1 from HTTP/2.
const FIRST_REQUEST_DEADLINE: Duration = Duration::from_secs(20);
/// A peer of an HTTP/2 connection that does not answer a ping within twice this time is gone.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Bodies up to this size are read before the request is judged. A refusal that leaves its body unread costs the client
/// the connection, often while it already sends its next request on it.
const READ_FIRST_BYTES_MAX: u64 = 32 * 1024;
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// After a failed accept (out of descriptors) the next try waits this long, instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long clients are waited for.
#[derive(Clone, Copy)]
struct Waits {
    headers: Duration,
    first_request: Duration,
    body: Duration,
}

const WAITS: Waits =
    Waits { headers: HEADER_DEADLINE, first_request: FIRST_REQUEST_DEADLINE, body: patience::PATIENCE };

/// Serves until `stop`, then lets requests under way finish for at most `drain`.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken, drain: Duration) {
    serve_with(listener, router, stop, drain, WAITS).await;
}

async fn serve_with(listener: TcpListener, router: Router, stop: CancellationToken, drain: Duration, waits: Waits) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(waits.headers).max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_header_list_size(HEADER_BYTES_MAX as u32);
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for more.
        let _ = stream.set_nodelay(true);
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_for(router.clone(), peer, asked.clone(), waits.body);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                // A client that went away, or sent no HTTP: its affair.
                ended = watched => if let Err(error) = ended {
                    tracing::debug!(error, "a connection ended early");
                },
                () = silent(&asked, waits.first_request) => tracing::debug!(%peer, "a connection brought no request"),
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

/// Returns when the connection has brought no request in time.
async fn silent(asked: &AtomicBool, limit: Duration) {
    tokio::time::sleep(limit).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// The router, with the peer's address for who asks for it, and with bodies that must come in time.
fn service_for(
    router: Router,
    peer: SocketAddr,
    asked: Arc<AtomicBool>,
    patience: Duration,
) -> impl hyper::service::Service<Request<Incoming>, Response = Response, Error = std::convert::Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move {
            let has_ended = Arc::new(AtomicBool::new(request.body().is_end_stream()));
            let body = |body| PatientBody::new(body, patience, has_ended.clone());
            match with_body(request.map(body)).await {
                Ok(request) => {
                    let may_close = request.version() < Version::HTTP_2;
                    let mut response = router.oneshot(request).await?;
                    // A body that nobody read ends the connection; a client that is told opens another one in time.
                    if may_close && !has_ended.load(Ordering::Relaxed) {
                        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok(response)
                }
                Err(status) => Ok((status, [(header::CONNECTION, "close")]).into_response()),
            }
        }
    })
}

/// Reads a small body at once.
async fn with_body(request: Request<PatientBody<Incoming>>) -> Result<Request<Body>, StatusCode> {
    // A refused stream of HTTP/2 costs nothing; its many streams could hold much.
    if request.version() >= Version::HTTP_2 || !is_small(request.headers()) {
        return Ok(request.map(Body::new));
    }
    let (parts, body) = request.into_parts();
    match body.collect().await {
        Ok(collected) => Ok(Request::from_parts(parts, Body::from(collected.to_bytes()))),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

fn is_small(headers: &HeaderMap) -> bool {
    // Who asks first whether a body is welcome shall hear it.
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    !headers.contains_key(header::EXPECT) && length.is_some_and(|length: u64| length <= READ_FIRST_BYTES_MAX)
}

#[cfg(test)]
mod tests;
