//! Pushes to a receiver that fails, forgets and refuses.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, extract::State as Shared, routing::post};
use orzo_model::ManualClock;
use parking_lot::Mutex;

use super::*;

/// Takes events; answers with the next status of a list first.
#[derive(Default)]
struct Received {
    events: Mutex<Vec<String>>,
    statuses: Mutex<Vec<u16>>,
    /// What is said with each refusal.
    said: Mutex<String>,
    asked: AtomicUsize,
}

async fn receive(Shared(own): Shared<Arc<Received>>, body: String) -> (axum::http::StatusCode, String) {
    own.asked.fetch_add(1, Ordering::Relaxed);
    let status = own.statuses.lock().pop().unwrap_or(202);
    if status == 202 {
        own.events.lock().push(body);
    }
    (axum::http::StatusCode::from_u16(status).unwrap(), own.said.lock().clone())
}

async fn receiver() -> (Arc<Received>, Url) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let own = Arc::new(Received::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().route("/events", post(receive)).with_state(own.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (own, url)
}

fn pusher(receiver: Receiver, url: &Url) -> (Pusher, Arc<ManualClock>) {
    let clock = ManualClock::new("2026-11-10T00:00:00Z".parse().unwrap());
    let pusher =
        Pusher { poster: Poster::new().unwrap(), clock: clock.clone(), receiver, url: url.clone(), token: None };
    (pusher, clock)
}

fn numbered(count: u64) -> impl Iterator<Item = anyhow::Result<Value>> {
    (0..count).map(|number| Ok(json!({"id": number})))
}

#[tokio::test]
async fn what_was_taken_is_not_sent_again_and_what_was_refused_is_parked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (received, url) = receiver().await;
    let (pusher, _clock) = pusher(Receiver::OpenMeter, &url);
    // The last status first: the second event is refused.
    *received.statuses.lock() = vec![400, 202];
    let mut journal = Journal::open(&path).unwrap();
    let pushed = pusher.push(numbered(3), &mut journal).await.unwrap();
    assert_eq!((pushed.events, pushed.taken, pushed.taken_before), (3, 2, 0));
    assert_eq!(pushed.parked, [(1, "refused with status 400 Bad Request".to_owned())]);
    // A crash tore the last entry; the event goes once more, with its own key.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 5]).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    let again = pusher.push(numbered(4), &mut journal).await.unwrap();
    assert_eq!((again.taken, again.taken_before, again.parked.len()), (2, 1, 1));
    let events: Vec<String> = received.events.lock().clone();
    assert_eq!(events, [r#"{"id":0}"#, r#"{"id":2}"#, r#"{"id":2}"#, r#"{"id":3}"#]);
    // What lies there is whole again, and says that there is nothing to do.
    let pushed = pusher.push(numbered(4), &mut Journal::open(&path).unwrap()).await.unwrap();
    assert_eq!((pushed.taken, pushed.taken_before), (0, 3));
    std::fs::write(&path, "{}\n{}\n").unwrap();
    assert!(Journal::open(&path).is_err_and(|error| error.to_string().contains("damaged after 0 bytes")));
}

#[tokio::test]
async fn a_receiver_that_fails_is_asked_again_until_the_tries_are_over() {
    let directory = tempfile::tempdir().unwrap();
    let (received, url) = receiver().await;
    let (pusher, clock) = pusher(Receiver::Lago, &url);
    // Whoever sleeps is woken.
    tokio::spawn(async move {
        loop {
            clock.advance(Duration::from_secs(300));
            tokio::task::yield_now().await;
        }
    });
    *received.said.lock() =
        r#"{"status": 422, "error_details": {"transaction_id": ["value_already_exist"]}}"#.to_owned();
    *received.statuses.lock() = vec![422, 503, 429];
    let mut journal = Journal::open(&directory.path().join("journal")).unwrap();
    let pushed = pusher.push(numbered(2), &mut journal).await.unwrap();
    assert_eq!((pushed.taken, received.asked.load(Ordering::Relaxed)), (2, 4), "a repeat is taken for Lago");
    *received.statuses.lock() = vec![500; TRIES_MAX as usize];
    let error = pusher.push(numbered(3), &mut journal).await.unwrap_err().to_string();
    assert!(error.starts_with("event 2 has no answer after 12 tries"), "{error}");
    let pushed = pusher.push(numbered(3), &mut journal).await.unwrap();
    assert_eq!((pushed.taken, pushed.taken_before), (1, 2));
}

#[tokio::test]
async fn what_lago_finds_wrong_is_parked_and_no_repeat() {
    let directory = tempfile::tempdir().unwrap();
    let (received, url) = receiver().await;
    let (pusher, _clock) = pusher(Receiver::Lago, &url);
    for (number, said) in
        [r#"{"error_details": {"code": ["value_is_invalid"]}}"#, "no JSON", ""].into_iter().enumerate()
    {
        *received.said.lock() = said.to_owned();
        *received.statuses.lock() = vec![422];
        let mut journal = Journal::open(&directory.path().join(number.to_string())).unwrap();
        let pushed = pusher.push(numbered(1), &mut journal).await.unwrap();
        assert_eq!((pushed.taken, pushed.parked.len()), (0, 1), "{said}");
    }
}
