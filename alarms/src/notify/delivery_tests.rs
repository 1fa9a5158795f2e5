//! Delivery to receivers on real sockets that answer, fail and hang as a test tells them.

use std::collections::BTreeMap;

use orzo_database::Database;
use orzo_model::{Clock, ManualClock, Rooms, Scope, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    address::AllowList,
    alarm::{AlarmRequest, AlarmState},
    book::{NoticeFilter, NoticeState},
    signature::SigningKeys,
    verdict::Judgement,
    webhook::Webhook,
};

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Takes it and answers with this head.
    Answer(&'static str),
    /// Reads it and never answers.
    Hang,
    /// Closes the connection before it reads.
    Drop,
    /// Takes it, then closes the connection without an answer: the 2xx is lost.
    LoseAnswer,
}

const TAKEN: Does = Does::Answer("HTTP/1.1 204 No Content");

/// A request that was taken or refused: head and body.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.split_once(": ").filter(|(own, _)| *own == name)).map(|(_, value)| value)
    }
}

/// A receiver on a real socket.
pub(crate) struct Receiver {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Receiver {
    /// Does with the n-th request what the n-th entry says; the last entry is repeated.
    pub(crate) async fn start(plan: &[Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let (seen, plan) = (Arc::new(Mutex::new(Vec::new())), plan.to_vec());
        let kept = seen.clone();
        tokio::spawn(async move {
            let mut count = 0;
            while let Ok((socket, _)) = listener.accept().await {
                let does = plan[count.min(plan.len() - 1)];
                count += 1;
                tokio::spawn(serve(socket, does, kept.clone()));
            }
        });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

async fn serve(mut socket: TcpStream, does: Does, kept: Arc<Mutex<Vec<Seen>>>) {
    if matches!(does, Does::Drop) {
        return;
    }
    let mut text = String::new();
    let seen = loop {
        let mut buffer = [0u8; 4096];
        let Ok(read) = socket.read(&mut buffer).await else { return };
        if read == 0 {
            return;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|l| l.parse().ok()).expect("a length");
        if body.len() >= length {
            break Seen { head: head.to_owned(), body: body.to_owned() };
        }
    };
    kept.lock().push(seen);
    match does {
        Does::Answer(head) => {
            let head = format!("{head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = socket.write_all(head.as_bytes()).await;
        }
        Does::Hang => {
            // Until the other side gives up.
            let _ = socket.read(&mut [0u8; 1]).await;
        }
        Does::Drop | Does::LoseAnswer => {}
    }
}

/// Longer than a busy machine needs for an answer that comes.
const PATIENT: Duration = Duration::from_secs(30);
/// For receivers that hang: what they are waited for.
const IMPATIENT: Duration = Duration::from_millis(500);

pub(crate) fn webhook(allowed: &[&str], clock: SharedClock) -> Webhook {
    webhook_with(allowed, clock, PATIENT)
}

fn webhook_with(allowed: &[&str], clock: SharedClock, deadline: Duration) -> Webhook {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let allowed = AllowList::parse(&allowed.iter().map(|s| s.to_string()).collect::<Vec<_>>()).expect("ranges");
    let keys = SigningKeys::new("a-test-key".to_owned().into(), None);
    Webhook::new(allowed, keys, deadline, deadline, clock).expect("a client")
}

struct Bench {
    clock: Arc<ManualClock>,
    book: AlarmBook,
    room: Room,
    stop: CancellationToken,
    runner: tokio::task::JoinHandle<()>,
}

impl Bench {
    async fn start(allowed: &[&str]) -> Self {
        Self::start_with(allowed, PATIENT).await
    }

    async fn start_with(allowed: &[&str], deadline: Duration) -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let database = Database::open("sqlite::memory:").await.expect("sqlite");
        let book = AlarmBook::open(database, clock.clone()).await.expect("the book opens");
        let room = Rooms::new(&prometheus::Registry::new()).room("notices");
        let settings = NotifierSettings { poll_ms: 10, ..NotifierSettings::default() };
        let deliverer = Deliverer::new(webhook_with(allowed, clock.clone(), deadline), None, None, clock.clone());
        let notifier = Notifier::new(book.clone(), deliverer, settings, room.clone(), Arc::default());
        let stop = CancellationToken::new();
        let runner = tokio::spawn(notifier.run(stop.clone()));
        Self { clock, book, room, stop, runner }
    }

    async fn with(url: &str, allowed: &[&str]) -> Self {
        let bench = Self::start(allowed).await;
        bench.tell("p", url).await;
        bench
    }

    /// An alarm of a project makes a transition that is told to this URL.
    async fn tell(&self, project: &str, url: &str) {
        let body = json!({
            "name": "hot", "type": "gnocchi_resources_threshold", "alarm_actions": [url],
            "gnocchi_resources_threshold_rule": {"metric": "cpu_util", "resource_id": "r",
                "resource_type": "instance", "threshold": 80.0, "aggregation_method": "mean"}
        });
        let request = AlarmRequest::parse(&body, true).expect("a good request");
        let alarm = self.book.create(&request, "u", project, false).await.expect("created");
        let reason_data = json!({"type": "threshold", "disposition": "outside", "count": 1, "most_recent": 95.0});
        let judgement = Judgement { state: AlarmState::Alarm, reason: "because".into(), reason_data };
        self.book.transition(&alarm, &judgement, self.clock.now()).await.expect("a transition");
    }

    /// Moves the clock until the counts (waiting, delivered, parked) are as expected.
    async fn until(&self, expected: (u64, u64, u64)) {
        // Slowly: the receivers' time is the machine's, and a lease must not run out while one hangs.
        self.until_by(Duration::from_millis(100), expected).await;
    }

    async fn until_by(&self, step: Duration, expected: (u64, u64, u64)) {
        for _ in 0..20_000 {
            if self.book.notice_counts().await.expect("counts") == expected && self.room.balance().waiting == 0 {
                return;
            }
            self.clock.advance(step);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("counts stay {:?}, not {expected:?}", self.book.notice_counts().await);
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
    let receiver = Receiver::start(&[
        Does::Answer("HTTP/1.1 500 Internal Server Error"),
        Does::Answer("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/"),
        TAKEN,
    ])
    .await;
    let bench = Bench::with(&receiver.url, &["127.0.0.0/8"]).await;
    bench.until((0, 1, 0)).await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 3);
    let id = seen[0].header("webhook-id").expect("an id").to_owned();
    assert!(seen.iter().all(|one| one.header("webhook-id") == Some(&id) && one.body == seen[0].body));
    assert!(seen[0].header("webhook-signature").is_some_and(|value| value.starts_with("v1,")));
    assert!(seen[0].header("webhook-timestamp").is_some());
    let body: serde_json::Value = serde_json::from_str(&seen[0].body).expect("JSON");
    assert_eq!(body["current"], "alarm");
    assert_eq!(body["previous"], "insufficient data");
    assert_eq!(body["reason_data"]["most_recent"], 95.0);
    bench.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_parked_at_once_and_asked_no_more() {
    let receiver = Receiver::start(&[Does::Answer("HTTP/1.1 410 Gone"), TAKEN]).await;
    let bench = Bench::with(&receiver.url, &["127.0.0.0/8"]).await;
    bench.until((0, 0, 1)).await;
    // A later notice to the same receiver is parked without a request ...
    bench.tell("p", &receiver.url).await;
    bench.until((0, 0, 2)).await;
    assert_eq!(receiver.seen().len(), 1);
    // ... but another project's receiver is its own.
    bench.tell("q", &receiver.url).await;
    bench.until((0, 1, 2)).await;
    let parked = bench.book.notices(NoticeState::Parked, 9).await.expect("parked");
    assert!(parked.iter().all(|notice| notice.attempts == 1 && notice.failure == Some(Failure::Gone)));
    // Replayed, they are sent again with their ids.
    let filter = NoticeFilter::default();
    let replayed = bench.book.replay_notices(&Scope::Project("p".into()), &filter).await.expect("replayed");
    assert_eq!(replayed, 2);
    bench.until((0, 3, 0)).await;
    let ids: Vec<_> = receiver.seen().iter().map(|one| one.header("webhook-id").map(str::to_owned)).collect();
    assert!(parked.iter().all(|notice| ids.contains(&Some(notice.notice_id.clone()))));
    bench.end().await;
}

#[tokio::test]
async fn another_project_cannot_replay_and_does_not_see() {
    let receiver = Receiver::start(&[Does::Answer("HTTP/1.1 410 Gone")]).await;
    let bench = Bench::with(&receiver.url, &["127.0.0.0/8"]).await;
    bench.until((0, 0, 1)).await;
    let id = bench.book.notices(NoticeState::Parked, 1).await.expect("parked")[0].notice_id.clone();
    for scope in [Scope::Project("q".into()), Scope::Nothing] {
        for filter in [
            NoticeFilter::default(),
            NoticeFilter { notice_id: Some(id.clone()), ..NoticeFilter::default() },
            NoticeFilter { project_id: Some("p".into()), ..NoticeFilter::default() },
        ] {
            assert!(bench.book.find_notices(&scope, &filter).await.expect("a list").is_empty());
            assert_eq!(bench.book.replay_notices(&scope, &filter).await.expect("a count"), 0);
        }
    }
    bench.end().await;
}

#[tokio::test]
async fn an_inner_address_gets_no_request_neither_written_out_nor_by_name() {
    let receiver = Receiver::start(&[TAKEN]).await;
    let first = Bench::with(&receiver.url, &[]).await;
    first.until((0, 0, 1)).await;
    first.end().await;
    let second = Bench::with(&receiver.url.replace("127.0.0.1", "localhost"), &[]).await;
    let mut is_refused = false;
    for _ in 0..1000 {
        let waiting = second.book.notices(NoticeState::Waiting, 1).await.expect("waiting");
        if waiting.first().is_some_and(|notice| notice.attempts > 0) {
            let error = waiting[0].last_error.clone().expect("a reason");
            assert!(error.contains("is not allowed for webhooks"), "{error}");
            // The owner is not told what the name resolves to.
            assert_eq!(waiting[0].failure, Some(Failure::NoConnection));
            is_refused = true;
            break;
        }
        second.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    second.end().await;
    assert!(is_refused, "the notice was not tried");
    assert!(receiver.seen().is_empty(), "a request got through");
}

/// No notice is missed, and one that comes twice comes twice because its 2xx was lost, with the same id and body.
#[tokio::test]
async fn receivers_that_hang_drop_fail_and_lose_answers_miss_nothing() {
    const SERVER_ERROR: Does = Does::Answer("HTTP/1.1 500 Internal Server Error");
    const BUSY: Does = Does::Answer("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7");
    let plans: [(&str, Vec<Does>); 6] = [
        ("well", vec![TAKEN]),
        ("hangs", vec![Does::Hang, TAKEN, Does::Hang, Does::Hang, TAKEN]),
        ("drops", vec![Does::Drop, Does::Drop, TAKEN, Does::Drop, TAKEN]),
        ("fails", [vec![SERVER_ERROR; 7], vec![TAKEN]].concat()),
        ("busy", vec![BUSY, TAKEN, BUSY, TAKEN]),
        ("loses", vec![Does::LoseAnswer, TAKEN, Does::LoseAnswer, Does::LoseAnswer, TAKEN]),
    ];
    const NOTICES: usize = 10;
    let bench = Bench::start_with(&["127.0.0.0/8"], IMPATIENT).await;
    let mut receivers = BTreeMap::new();
    for (name, plan) in &plans {
        let receiver = Receiver::start(plan).await;
        for _ in 0..NOTICES {
            bench.tell("p", &receiver.url).await;
        }
        receivers.insert(*name, receiver);
    }
    let all = (plans.len() * NOTICES) as u64;
    bench.until((0, all, 0)).await;
    let sent = bench.book.notices(NoticeState::Delivered, 1000).await.expect("delivered");
    for (name, plan) in &plans {
        let receiver = &receivers[name];
        let mut bodies: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in receiver.seen() {
            bodies.entry(one.header("webhook-id").expect("an id").to_owned()).or_default().push(one.body);
        }
        let expected: Vec<_> = sent.iter().filter(|notice| notice.action == receiver.url).collect();
        assert_eq!(expected.len(), NOTICES, "{name}");
        for notice in expected {
            let got = bodies.remove(&notice.notice_id).unwrap_or_else(|| panic!("{name}: a notice is missed"));
            assert!(got.iter().all(|body| *body == notice.body), "{name}: another body");
        }
        assert!(bodies.is_empty(), "{name}: notices that nobody sent");
        // Requests that were read: one for each notice, and one for each that was not answered with a 2xx.
        let unanswered = plan.iter().filter(|does| !matches!(does, Does::Drop)).count()
            - plan.iter().filter(|does| matches!(does, Does::Answer(head) if head.contains("204"))).count();
        assert_eq!(receiver.seen().len(), NOTICES + unanswered, "{name}");
    }
    bench.end().await;
}

#[tokio::test]
async fn a_dead_receiver_is_left_alone_and_holds_nobody_up() {
    let dead = Receiver::start(&[Does::Hang]).await;
    let well = Receiver::start(&[TAKEN]).await;
    let bench = Bench::start_with(&["127.0.0.0/8"], IMPATIENT).await;
    for _ in 0..200 {
        bench.tell("p", &dead.url).await;
    }
    bench.tell("p", &well.url).await;
    bench.tell("q", &well.url).await;
    bench.until((200, 2, 0)).await;
    // Some were under way when the first failed, but not two hundred.
    assert!(dead.seen().len() <= 12, "{} tries", dead.seen().len());
    bench.end().await;
}

#[tokio::test]
async fn retry_after_is_honoured_for_all_notices_of_the_receiver() {
    let receiver =
        Receiver::start(&[Does::Answer("HTTP/1.1 503 Service Unavailable\r\nretry-after: 3600"), TAKEN]).await;
    let bench = Bench::with(&receiver.url, &["127.0.0.0/8"]).await;
    let started = bench.clock.now();
    for _ in 0..2000 {
        // Not only answered: a notice that goes out before the answer is written down would find the receiver well.
        let waiting = bench.book.notices(NoticeState::Waiting, 1).await.expect("waiting");
        if waiting.iter().any(|notice| notice.attempts > 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        bench.clock.advance(Duration::from_millis(10));
    }
    bench.tell("p", &receiver.url).await;
    bench.until_by(Duration::from_secs(5), (0, 2, 0)).await;
    assert!(bench.clock.now().since(started) >= Duration::from_secs(3600), "it was not waited for");
    bench.end().await;
}

#[tokio::test]
async fn a_notice_that_nobody_takes_is_parked_in_the_end() {
    let receiver = Receiver::start(&[Does::Answer("HTTP/1.1 404 Not Found")]).await;
    let bench = Bench::start(&["127.0.0.0/8"]).await;
    bench.tell("p", &receiver.url).await;
    for _ in 0..3000 {
        if bench.book.notice_counts().await.expect("counts") == (0, 0, 1) {
            break;
        }
        bench.clock.advance(Duration::from_secs(1800));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bench.until((0, 0, 1)).await;
    assert!(receiver.seen().len() > 3);
    let parked = bench.book.notices(NoticeState::Parked, 1).await.expect("parked").remove(0);
    assert_eq!(parked.failure, Some(Failure::NotAccepted));
    assert_eq!(parked.last_error.as_deref(), Some("the receiver answered 404"));
    bench.end().await;
}
