//! Delivery to a receiver on a real socket that answers as a test tells it.

use orzo_database::Database;
use orzo_model::{Clock, ManualClock, Rooms};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::*;
use crate::{
    address::AllowList,
    alarm::{AlarmRequest, AlarmState},
    book::NoticeState,
    judge::{Disposition, Judgement, ReasonData},
    webhook::SigningKey,
};

/// Answers each request with the next status line; the last one is repeated. Sends (head, body) of each request.
async fn receiver(answers: &'static [&'static str]) -> (String, mpsc::UnboundedReceiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut text = String::new();
            let (head, body) = loop {
                let mut buffer = [0u8; 4096];
                let read = socket.read(&mut buffer).await.expect("the request arrives");
                text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.and_then(|l| l.parse().ok()).expect("a length");
                if body.len() >= length {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let answer = answers[count.min(answers.len() - 1)];
            count += 1;
            let _ = socket.write_all(format!("{answer}\r\nconnection: close\r\n\r\n").as_bytes()).await;
            let _ = sender.send((head, body));
        }
    });
    (url, requests)
}

struct Bench {
    clock: Arc<ManualClock>,
    book: AlarmBook,
    room: Room,
    stop: CancellationToken,
    runner: tokio::task::JoinHandle<()>,
}

async fn bench(url: &str, allowed: &[&str]) -> Bench {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let book = AlarmBook::open(Database::open("sqlite::memory:").await.expect("sqlite"), clock.clone())
        .await
        .expect("the book opens");
    let body = json!({
        "name": "hot", "type": "gnocchi_resources_threshold", "alarm_actions": [url],
        "gnocchi_resources_threshold_rule": {"metric": "cpu_util", "resource_id": "r", "resource_type": "instance",
            "threshold": 80.0, "aggregation_method": "mean"}
    });
    let request = AlarmRequest::parse(&body, false).expect("a good request");
    let alarm = book.create(&request, "u", "p", false).await.expect("created");
    let reason_data =
        ReasonData { kind: "threshold".into(), disposition: Disposition::Outside, count: 1, most_recent: Some(95.0) };
    let judgement = Judgement { state: AlarmState::Alarm, reason: "because".into(), reason_data };
    book.transition(&alarm, &judgement, clock.now()).await.expect("a transition");
    let allowed = AllowList::parse(&allowed.iter().map(|s| s.to_string()).collect::<Vec<_>>()).expect("ranges");
    let deadline = Duration::from_secs(5);
    let key = SigningKey::new("a-test-key".to_owned().into());
    let webhook = Webhook::new(allowed, key, deadline, deadline, clock.clone()).expect("a client");
    let room = Rooms::new(&prometheus::Registry::new()).room("notices");
    let settings = NotifierSettings { poll_ms: 10, ..NotifierSettings::default() };
    let notifier = Notifier::new(book.clone(), webhook, settings, clock.clone(), room.clone(), Arc::default());
    let stop = CancellationToken::new();
    let runner = tokio::spawn(notifier.run(stop.clone()));
    Bench { clock, book, room, stop, runner }
}

impl Bench {
    /// Moves the clock until the counts are as expected.
    async fn until(&self, expected: (u64, u64, u64)) {
        for _ in 0..2000 {
            if self.book.notice_counts().await.expect("counts") == expected && self.room.balance().waiting == 0 {
                return;
            }
            self.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("counts stay {:?}", self.book.notice_counts().await);
    }

    async fn end(self) {
        self.stop.cancel();
        self.clock.advance(Duration::from_secs(60));
        self.runner.await.expect("the deliverer ends");
        assert!(self.room.balance().is_conserved(), "{:?}", self.room.balance());
    }
}

#[tokio::test]
async fn a_receiver_that_fails_twice_gets_the_same_notice_a_third_time() {
    let (url, mut requests) = receiver(&[
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0",
        "HTTP/1.1 204 No Content",
    ])
    .await;
    let bench = bench(&url, &["127.0.0.0/8"]).await;
    bench.until((0, 1, 0)).await;
    let mut seen = Vec::new();
    while let Ok(request) = requests.try_recv() {
        seen.push(request);
    }
    assert_eq!(seen.len(), 3);
    let id = |head: &str| head.lines().find(|line| line.starts_with("webhook-id: ")).map(str::to_owned);
    assert!(id(&seen[0].0).is_some());
    assert!(seen.iter().all(|(head, body)| id(head) == id(&seen[0].0) && *body == seen[0].1));
    assert!(seen[0].0.contains("webhook-signature: v1,") && seen[0].0.contains("webhook-timestamp: "));
    let body: serde_json::Value = serde_json::from_str(&seen[0].1).expect("JSON");
    assert_eq!(body["current"], "alarm");
    assert_eq!(body["previous"], "insufficient data");
    assert_eq!(body["reason_data"]["most_recent"], 95.0);
    bench.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_parked_at_once() {
    let (url, _requests) = receiver(&["HTTP/1.1 410 Gone\r\ncontent-length: 0"]).await;
    let bench = bench(&url, &["127.0.0.0/8"]).await;
    bench.until((0, 0, 1)).await;
    assert_eq!(bench.book.notices(NoticeState::Parked, 1).await.expect("parked")[0].attempts, 1);
    bench.end().await;
}

#[tokio::test]
async fn an_inner_address_gets_no_request_neither_written_out_nor_by_name() {
    let (url, mut requests) = receiver(&["HTTP/1.1 200 OK\r\ncontent-length: 0"]).await;
    let first = bench(&url, &[]).await;
    first.until((0, 0, 1)).await;
    first.end().await;
    let by_name = url.replace("127.0.0.1", "localhost");
    let second = bench(&by_name, &[]).await;
    let mut is_refused = false;
    for _ in 0..1000 {
        let waiting = second.book.notices(NoticeState::Waiting, 1).await.expect("waiting");
        if waiting.first().is_some_and(|notice| notice.attempts > 0) {
            let error = waiting[0].last_error.clone().expect("a reason");
            assert!(error.contains("is not allowed for webhooks"), "{error}");
            is_refused = true;
            break;
        }
        second.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    second.end().await;
    assert!(is_refused, "the notice was not tried");
    assert!(requests.try_recv().is_err(), "a request got through");
}
