//! The agent against a small HTTP server that plays identity, image and volume service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_model::{Batch, ManualClock, Receipt, Rooms, SampleSink, SinkError, Timestamp};
use orzo_session::{Credentials, Session};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::CentralAgent;
use crate::polling::Polling;

/// Longest any of these tests waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers by `METHOD path?query`; 404 for the rest. Remembers what it was asked.
#[derive(Default)]
struct Cloud {
    answers: Mutex<BTreeMap<String, Value>>,
    asked: Mutex<Vec<String>>,
}

impl Cloud {
    /// Serves on a free port; the catalog has these services.
    async fn start(services: &[&str]) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let catalog: Vec<Value> = services
            .iter()
            .map(|name| json!({"type": name, "endpoints": [{"interface": "public", "url": format!("{url}/{name}")}]}))
            .collect();
        let token = json!({"token": {
            "expires_at": "2036-01-01T00:00:00.000000Z", "user": {"id": "u", "name": "orzo"},
            "project": {"id": "p", "name": "service"}, "roles": [{"name": "admin"}], "catalog": catalog
        }});
        let cloud = Arc::new(Self::default());
        cloud.answer("POST /v3/auth/tokens", token);
        let served = cloud.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let cloud = served.clone();
                tokio::spawn(async move {
                    let mut received = Vec::new();
                    let mut buffer = [0; 4096];
                    let request = loop {
                        let count = stream.read(&mut buffer).await.unwrap_or(0);
                        received.extend_from_slice(&buffer[..count]);
                        let text = String::from_utf8_lossy(&received).into_owned();
                        if count == 0 || is_whole(&text) {
                            break text;
                        }
                    };
                    let line = request.lines().next().unwrap_or_default();
                    let line = line.strip_suffix(" HTTP/1.1").unwrap_or(line).to_owned();
                    let answer = cloud.answers.lock().get(&line).cloned();
                    cloud.asked.lock().push(line);
                    let status = if answer.is_some() { "200 OK" } else { "404 Not Found" };
                    let body = answer.unwrap_or_else(|| json!({"error": {"message": "no"}})).to_string();
                    let head = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-subject-token: secret\r\n\
                         content-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                });
            }
        });
        (cloud, url)
    }

    fn answer(&self, request: &str, body: Value) {
        self.answers.lock().insert(request.to_owned(), body);
    }

    fn asked(&self, part: &str) -> usize {
        self.asked.lock().iter().filter(|line| line.contains(part)).count()
    }
}

/// Head and as much body as it announces.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

struct Sink {
    taken: watch::Sender<Vec<Batch>>,
}

#[async_trait]
impl SampleSink for Sink {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        let stored = batch.len() as u64;
        self.taken.send_modify(|taken| taken.push(batch));
        Ok(Receipt { stored, ..Receipt::default() })
    }
}

struct Bench {
    agent: Arc<CentralAgent>,
    clock: Arc<ManualClock>,
    sink: Arc<Sink>,
    rooms: Rooms,
}

fn bench(url: &str) -> Bench {
    // Another test of this process may have done it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let clock = ManualClock::new(Timestamp::from_secs(1_795_000_000));
    let sink = Arc::new(Sink { taken: watch::Sender::new(Vec::new()) });
    let rooms = Rooms::new(&prometheus::Registry::new());
    let credentials = Credentials {
        auth_url: url.parse().expect("a URL"),
        username: "orzo".to_owned(),
        password: "secret".to_owned().into(),
        user_domain: "Default".to_owned(),
        project: "service".to_owned(),
        project_domain: "Default".to_owned(),
    };
    let session = Session::new(credentials, reqwest::Client::new(), clock.clone());
    let polling = Polling::parse("p.yaml", "sources: [{name: all, interval: 60, meters: ['*']}]").expect("fine");
    let agent = Arc::new(CentralAgent::new(session, polling, sink.clone(), clock.clone(), &rooms, "host1"));
    Bench { agent, clock, sink, rooms }
}

fn image(id: &str, size: Value) -> Value {
    json!({
        "id": id, "name": format!("name of {id}"), "size": size, "owner": "p1", "status": "active",
        "visibility": "private", "disk_format": "raw", "container_format": "bare", "checksum": null, "tags": [],
        "file": "/v2/images/x/file"
    })
}

const IMAGES: &str = "GET /image/v2/images?visibility=all&limit=500";

#[tokio::test]
async fn images_are_polled_page_by_page_at_the_slot_with_one_token() {
    let (cloud, url) = Cloud::start(&["image"]).await;
    cloud.answer(
        IMAGES,
        json!({"images": [image("a", json!(5)), image("b", json!(null))], "next": "/v2/images?marker=b"}),
    );
    cloud.answer(&format!("{IMAGES}&marker=b"), json!({"images": [image("c", json!(7))]}));
    let bench = bench(&url);
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (agent, stop) = (bench.agent.clone(), stop.clone());
        async move { agent.run(stop).await }
    });
    let mut taken = bench.sink.taken.subscribe();
    for count in 1..=2 {
        // Small steps, so that no slot is stepped over while the agent is busy.
        tokio::time::timeout(PATIENCE, async {
            while bench.sink.taken.borrow().len() < count {
                bench.clock.advance(Duration::from_secs(1));
                let _ = tokio::time::timeout(Duration::from_millis(5), taken.changed()).await;
            }
        })
        .await
        .expect("a poll in every slot");
    }
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("it does not panic");

    let taken = bench.sink.taken.borrow().clone();
    assert_eq!(taken[0].origin, "central@host1");
    let made: Vec<_> = taken[0].samples.iter().map(|s| (s.resource_id.as_str(), s.value, s.unit.as_str())).collect();
    assert_eq!(made, [("a", 5.0, "B"), ("c", 7.0, "B")]);
    let sample = &taken[0].samples[0];
    assert_eq!((sample.meter.as_str(), sample.project_id.as_deref()), ("image.size", Some("p1")));
    assert_eq!(sample.metadata["name"], "name of a");
    assert!(!sample.metadata.contains_key("file") && !sample.metadata.contains_key("checksum"));
    let apart = taken[1].samples[0].timestamp.since(sample.timestamp);
    // A busy machine may make the agent miss a slot of this fast clock; between slots it never polls.
    assert!(apart > Duration::ZERO && apart.as_secs().is_multiple_of(60), "timestamps are slots: {apart:?}");
    assert_ne!(taken[1].samples[0].id, sample.id);
    assert_eq!(cloud.asked("POST /v3/auth/tokens"), 1, "one token for all");
    assert_eq!(cloud.asked("volume"), 0, "a service that is not in the catalog is not asked");
    let balance = bench.rooms.room("central").balance();
    assert_eq!((balance.received, balance.stored, balance.waiting), (4, 4, 0));
    assert!(bench.rooms.room("central.slots").balance().is_conserved());
}

#[tokio::test]
async fn polling_a_slot_again_makes_the_same_samples() {
    let (cloud, url) = Cloud::start(&["image"]).await;
    cloud.answer(IMAGES, json!({"images": [image("a", json!(5))]}));
    let bench = bench(&url);
    let slot = Timestamp::from_secs(1_795_000_020);
    let pollsters: Vec<_> = super::POLLSTERS.iter().collect();
    let stop = CancellationToken::new();
    for _ in 0..2 {
        assert!(bench.agent.poll(&pollsters, slot, Duration::from_secs(60), &stop).await);
    }
    let taken = bench.sink.taken.borrow().clone();
    assert_eq!(taken[0], taken[1]);
}

#[tokio::test]
async fn volumes_snapshots_and_backups_are_polled_where_there_is_a_volume_service() {
    let (cloud, url) = Cloud::start(&["block-storage"]).await;
    let list = |name: &str| format!("GET /block-storage/{name}/detail?all_tenants=true&limit=500");
    cloud.answer(
        &list("volumes"),
        json!({"volumes": [{
            "id": "v", "name": "data", "size": 40, "status": "in-use", "volume_type": "ssd", "user_id": "u1",
            "os-vol-tenant-attr:tenant_id": "p1", "attachments": [{"server_id": "i1"}],
            "volume_image_metadata": {"image_id": "img"}
        }]}),
    );
    cloud.answer(
        &list("snapshots"),
        json!({"snapshots": [{"id": "s", "size": 40, "volume_id": "v", "os-extended-snapshot-attributes:project_id": "p1"}]}),
    );
    let bench = bench(&url);
    let pollsters: Vec<_> = super::POLLSTERS.iter().collect();
    let slot = Timestamp::from_secs(1_795_000_020);
    let complete = bench.agent.poll(&pollsters, slot, Duration::from_secs(60), &CancellationToken::new()).await;
    assert!(!complete, "backups answered 404");
    let taken = bench.sink.taken.borrow().clone();
    let samples: Vec<_> = taken.iter().flat_map(|batch| &batch.samples).collect();
    assert_eq!(samples.len(), 2);
    assert_eq!((samples[0].meter.as_str(), samples[0].value, samples[0].unit.as_str()), ("volume.size", 40.0, "GiB"));
    assert_eq!((samples[0].project_id.as_deref(), samples[0].user_id.as_deref()), (Some("p1"), Some("u1")));
    for (key, value) in [("display_name", "data"), ("instance_id", "i1"), ("image_id", "img"), ("volume_type", "ssd")] {
        assert_eq!(samples[0].metadata[key], value, "{key}");
    }
    assert_eq!((samples[1].meter.as_str(), samples[1].project_id.as_deref()), ("volume.snapshot.size", Some("p1")));
}
