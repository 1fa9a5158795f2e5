//! Notices reach what real clouds have: a queue of RabbitMQ, Alertmanager, and receivers with TLS, whose certificates are
//! looked at.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use orzo_bus::{Bus, QueueKind, QueueSpec, RabbitBus};
use orzo_model::SystemClock;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

use crate::support::{
    free_port,
    orzo::{Orzo, runtime},
    wait_for,
};

const LIMIT: Duration = Duration::from_secs(30);

const SETTINGS: &str = r#"
[cloud]
hypervisor = "simulated"
demo_servers = false
[agents]
compute = false
host = false
central = false
notifications = false
[alarms]
interval = "100ms"
webhook_allow = ["127.0.0.0/8"]
retry_first = "100ms"
retry_max = "200ms"
give_up_after = "1s"
"#;

/// An event alarm with an action for both states; gives its id and its project's.
fn make_alarm(orzo: &Orzo, token: &str, action: &str) -> (String, String) {
    let body = json!({
        "name": "a real receiver", "type": "event", "severity": "critical",
        "alarm_actions": [action], "ok_actions": [action],
        "event_rule": {"event_type": "receivers.up", "resolve_event_type": "receivers.down"}});
    let alarm = orzo.request("POST", "/alarming/v2/alarms", token, Some(&body), 201);
    let text = |key: &str| alarm[key].as_str().unwrap().to_owned();
    (text("alarm_id"), text("project_id"))
}

fn post_event(orzo: &Orzo, token: &str, project_id: &str, event_type: &str) {
    use orzo_model::{Batch, Clock, Event, Trait, TraitValue};
    let id = uuid::Uuid::new_v4();
    let event = Event {
        message_id: id.to_string(),
        event_type: event_type.to_owned(),
        generated_at: SystemClock::new().now(),
        traits: vec![Trait { name: "project_id".into(), value: TraitValue::Text(project_id.to_owned()) }],
        raw: None,
    };
    let batch = Batch { id, origin: "a test".to_owned(), samples: Vec::new(), events: vec![event] };
    let bytes = orzo_bus::batch::encode(&batch).unwrap();
    assert_eq!(orzo.try_post_bytes("/collector/v1/batches", token, bytes.to_vec()), Some(200));
}

#[test]
fn a_topic_is_read_from_the_broker() {
    let Ok(broker) = std::env::var("ORZO_TEST_AMQP") else {
        eprintln!("a topic: there is no broker here; run tests/run for it");
        return;
    };
    runtime();
    let directory = tempfile::tempdir().unwrap();
    let orzo = Orzo::start(directory.path(), &format!("{SETTINGS}[bus]\nurl = \"{broker}\"\n"));
    let token = orzo.token();
    // The broker may be shared with other runs.
    let topic = format!("t{}", uuid::Uuid::new_v4().simple());
    let (alarm_id, project_id) = make_alarm(&orzo, &token, &format!("topic://{topic}"));
    post_event(&orzo, &token, &project_id, "receivers.up");
    post_event(&orzo, &token, &project_id, "receivers.down");
    let queue = QueueSpec {
        name: format!("orzo.alarms.{topic}"),
        kind: QueueKind::Quorum,
        bindings: vec![("orzo".to_owned(), format!("alarms.{topic}"))],
        delivery_limit: 200,
        length_max: 100_000,
    };
    let told = runtime().block_on(async {
        let bus = RabbitBus::connect(&broker, "a consumer", SystemClock::shared()).unwrap();
        let mut notices = bus.subscribe(&queue, 1).await.unwrap();
        let mut told: Vec<(String, Value)> = Vec::new();
        while told.len() < 2 {
            let next = tokio::time::timeout(LIMIT, notices.next()).await.expect("a notice in time");
            let delivery = next.expect("the bus is open");
            let body = serde_json::from_slice(&delivery.message.body).unwrap();
            told.push((delivery.message.message_id.clone(), body));
            delivery.receipt.ack().await.unwrap();
        }
        bus.close().await;
        told
    });
    assert_ne!(told[0].0, told[1].0, "each notice has its own id");
    let states: Vec<&str> = told.iter().map(|(_, body)| body["current"].as_str().unwrap()).collect();
    assert!(states.contains(&"alarm") && states.contains(&"ok"), "{told:?}");
    assert!(told.iter().all(|(_, body)| body["alarm_id"] == alarm_id.as_str()), "{told:?}");
}

#[test]
fn changes_of_an_alarm_are_announced_on_the_exchange_of_aodh() {
    let Ok(broker) = std::env::var("ORZO_TEST_AMQP") else {
        eprintln!("announcements: there is no broker here; run tests/run for it");
        return;
    };
    runtime();
    // A queue of this test's own: whoever else listens on a shared broker takes nothing away.
    let queue = QueueSpec {
        name: format!("announced.{}", uuid::Uuid::new_v4().simple()),
        kind: QueueKind::OsloClassic,
        bindings: vec![("aodh".to_owned(), "notifications.info".to_owned())],
        delivery_limit: 200,
        length_max: 100_000,
    };
    let bus = runtime().block_on(async { RabbitBus::connect(&broker, "a listener", SystemClock::shared()).unwrap() });
    let mut messages = runtime().block_on(bus.subscribe(&queue, 1)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = SETTINGS.replace("[alarms]\n", "[alarms]\nannouncements = true\n");
    let orzo = Orzo::start(directory.path(), &format!("{settings}[bus]\nurl = \"{broker}\"\n"));
    let token = orzo.token();
    let (alarm_id, project_id) = make_alarm(&orzo, &token, "log://");
    post_event(&orzo, &token, &project_id, "receivers.up");
    // Each comes once it is made; in which order two of a moment arrive is not promised, as it is not by Aodh.
    let mut heard: Vec<Value> = Vec::new();
    let mut next = |event_type: &str| loop {
        if let Some(place) = heard.iter().position(|told| told["event_type"] == event_type) {
            return heard.swap_remove(place)["payload"].clone();
        }
        let delivery = runtime().block_on(async {
            let next = tokio::time::timeout(LIMIT, messages.next()).await.expect("an announcement in time");
            next.expect("the bus is open")
        });
        let outer: Value = serde_json::from_slice(&delivery.message.body).unwrap();
        let inner: Value = serde_json::from_str(outer["oslo.message"].as_str().unwrap()).unwrap();
        runtime().block_on(delivery.receipt.ack()).unwrap();
        if inner["payload"]["alarm_id"] == alarm_id.as_str() {
            heard.push(inner);
        }
    };
    assert_eq!(next("alarm.creation")["detail"]["name"], "a real receiver");
    let turned = next("alarm.state_transition");
    assert!(turned["detail"].as_str().unwrap().contains(r#""state":"alarm""#), "{turned}");
    orzo.request("DELETE", &format!("/alarming/v2/alarms/{alarm_id}"), &token, None, 204);
    assert_eq!(next("alarm.deletion")["detail"]["state"], "alarm");
    runtime().block_on(bus.close());
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn alertmanager_shows_an_alarm_until_it_is_over() {
    let binary =
        ["/usr/bin/prometheus-alertmanager", "/usr/bin/alertmanager"].into_iter().find(|p| Path::new(p).exists());
    let Some(binary) = binary else {
        assert!(std::env::var_os("ORZO_TEST_AMQP").is_none(), "tests/run sets the broker and installs Alertmanager");
        eprintln!("Alertmanager is not here; run tests/run for it");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let configuration = directory.path().join("alertmanager.yml");
    std::fs::write(&configuration, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
    let child = Command::new(binary)
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!("--storage.path={}", directory.path().join("alerts").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let client = reqwest::Client::new();
    let alerts = || -> Option<Vec<Value>> {
        let url = format!("http://127.0.0.1:{port}/api/v2/alerts");
        let text = runtime().block_on(async { client.get(url).send().await.ok()?.text().await.ok() })?;
        serde_json::from_str(&text).ok()
    };
    wait_for("Alertmanager", LIMIT, || alerts().filter(Vec::is_empty));

    let orzo = Orzo::start(directory.path(), SETTINGS);
    let token = orzo.token();
    let (alarm_id, project_id) = make_alarm(&orzo, &token, &format!("alertmanager+http://127.0.0.1:{port}"));
    post_event(&orzo, &token, &project_id, "receivers.up");
    let alert = wait_for("the alert", LIMIT, || alerts()?.into_iter().next());
    let labels = json!({"alertname": "a real receiver", "alarm_id": alarm_id, "severity": "critical",
                        "project_id": project_id});
    assert_eq!(alert["labels"], labels);
    assert_eq!(alert["status"]["state"], "active");
    assert!(alert["annotations"]["description"].as_str().unwrap().starts_with("Event <id="), "{alert}");
    // Its own tool sees it as well.
    if Path::new("/usr/bin/amtool").exists() {
        let url = format!("--alertmanager.url=http://127.0.0.1:{port}");
        let output = Command::new("/usr/bin/amtool").args(["alert", "query", &url]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("a real receiver"), "{output:?}");
    }
    post_event(&orzo, &token, &project_id, "receivers.down");
    // What is over is not listed any more.
    wait_for("the alert to be over", LIMIT, || alerts().filter(Vec::is_empty));
}

/// Certificates of a private authority and of nobody, by the tool that administrators use.
struct Certificates(PathBuf);

impl Certificates {
    fn make(directory: &Path) -> Self {
        let own = Self(directory.to_owned());
        own.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        for (name, address, valid) in [
            ("good", "IP:127.0.0.1", "-days 2"),
            ("another", "DNS:elsewhere.example.org", "-days 2"),
            ("expired", "IP:127.0.0.1", ""),
        ] {
            own.openssl(&format!(
                "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            std::fs::write(directory.join("extensions"), format!("subjectAltName={address}\n")).unwrap();
            match valid {
                // `x509` of OpenSSL 3.0 sets no dates; `ca` does.
                "" => own.sign_expired(name),
                valid => own.openssl(&format!(
                    "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions {valid} -out {name}.pem"
                )),
            }
        }
        own.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=self -addext subjectAltName=IP:127.0.0.1 -keyout self.key -out self.pem");
        own
    }

    fn sign_expired(&self, name: &str) {
        std::fs::write(self.0.join("index.txt"), "").unwrap();
        std::fs::write(self.0.join("serial"), "01\n").unwrap();
        let configuration = "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\n\
                             default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n";
        std::fs::write(self.0.join("ca.conf"), configuration).unwrap();
        self.openssl(&format!(
            "ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in {name}.csr -extfile extensions \
             -startdate 20200101000000Z -enddate 20200201000000Z -notext -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A receiver with one of the certificates; its URL, and how many requests it got to read.
    fn serve(&self, name: &str) -> (String, Arc<AtomicUsize>) {
        let chain = vec![CertificateDer::from_pem_file(self.0.join(format!("{name}.pem"))).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.0.join(format!("{name}.key"))).unwrap();
        let settings = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let settings = Arc::new(settings);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/hook", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let own = count.clone();
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let session = rustls::ServerConnection::new(settings.clone()).unwrap();
                let mut reader = BufReader::new(rustls::StreamOwned::new(session, stream));
                let mut length = 0;
                let mut line = String::new();
                // A handshake that fails is an error here.
                while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                    if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                        length = text.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if length > 0 && reader.read_exact(&mut body).is_ok() {
                    own.fetch_add(1, Ordering::SeqCst);
                    let _ = reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
                    let _ = reader.get_mut().flush();
                }
            }
        });
        (url, count)
    }
}

#[test]
fn only_a_receiver_with_a_good_certificate_is_told() {
    runtime();
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(directory.path());
    let authority = directory.path().join("ca.pem");
    let with_authority = SETTINGS.replace("[alarms]\n", &format!("[alarms]\nwebhook_ca_file = {authority:?}\n"));
    let stranger = tempfile::tempdir().unwrap();
    for (place, settings, cases) in [
        (
            directory.path(),
            with_authority.as_str(),
            // Whatever the URL asks for (Aodh's way to switch verification off).
            [
                ("good", ""),
                ("another", "certificate not valid for name"),
                ("expired", "certificate expired"),
                // Of nobody: OpenSSL makes it an authority, which no receiver may be.
                ("self", "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))"),
            ]
            .as_slice(),
        ),
        // Without the authority its certificates are nobody's.
        (stranger.path(), SETTINGS, [("good", "UnknownIssuer")].as_slice()),
    ] {
        let orzo = Orzo::start(place, settings);
        let token = orzo.token();
        for (name, wrong) in cases {
            let (url, count) = certificates.serve(name);
            let (alarm_id, project_id) = make_alarm(&orzo, &token, &format!("{url}?aodh-alarm-ssl-verify=0"));
            post_event(&orzo, &token, &project_id, "receivers.up");
            let wanted = if wrong.is_empty() { "delivered" } else { "parked" };
            let path = format!("/alarming/v2/notices?alarm_id={alarm_id}&state={wanted}&all_projects=true");
            let notices = wait_for(name, LIMIT, || {
                let notices = orzo.request("GET", &path, &token, None, 200);
                notices.as_array().filter(|list| !list.is_empty()).cloned()
            });
            let notice = &notices[0];
            if wrong.is_empty() {
                assert_eq!(count.load(Ordering::SeqCst), 1, "{name}");
            } else {
                assert_eq!(count.load(Ordering::SeqCst), 0, "{name}: a request got through");
                let failure = notice["failure"].as_str().unwrap_or_default();
                assert!(failure.starts_with("the receiver cannot be reached"), "{name}: {notice}");
                let told = notice.to_string();
                assert!(told.to_lowercase().contains(&wrong.to_lowercase()), "{name}: {told}");
            }
            orzo.request("DELETE", &format!("/alarming/v2/alarms/{alarm_id}"), &token, None, 204);
        }
    }
}
