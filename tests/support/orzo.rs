//! A running Orzo: the real binary, with its own data directory, on its own port.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde_json::Value;

use super::{free_port, wait_for};

/// A debug build on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A process of `orzo serve`; killed when dropped.
pub struct Orzo {
    directory: PathBuf,
    pub port: u16,
    child: Option<Child>,
    client: reqwest::Client,
}

/// The password that tests give the admin.
pub const PASSWORD: &str = "a-test-password";

/// One runtime for all tests' HTTP requests.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

impl Orzo {
    /// Starts it with settings in addition to the tests' own: lines of TOML, with sections.
    pub fn start(directory: &Path, settings: &str) -> Self {
        runtime();
        let mut orzo = Self {
            directory: directory.to_owned(),
            port: free_port(),
            child: None,
            client: reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
        };
        let mut table: toml::Table = settings.parse().unwrap();
        for (section, key, value) in [
            ("server", "listen", format!("127.0.0.1:{}", orzo.port)),
            ("server", "data_directory", directory.join("data").display().to_string()),
            ("cloud", "admin_password", PASSWORD.to_owned()),
        ] {
            let section = table.entry(section).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
            section.entry(key).or_insert_with(|| value.into());
        }
        std::fs::write(directory.join("orzo.toml"), toml::to_string(&table).unwrap()).unwrap();
        orzo.restart();
        orzo
    }

    /// Starts the process again on the same data and waits until it is ready.
    pub fn restart(&mut self) {
        self.spawn();
        wait_for("orzo to be ready", START_LIMIT, || {
            if let Ok(Some(status)) = self.child.as_mut().unwrap().try_wait() {
                panic!("orzo ended with {status}:\n{}", self.log_tail());
            }
            (self.get_status("/readyz") == Some(200)).then_some(())
        });
    }

    /// Starts the process and kills it after a while, most likely while it recovers.
    pub fn restart_and_kill(&mut self, after: Duration) {
        self.spawn();
        std::thread::sleep(after);
        self.kill();
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        // A long run can be of a release build.
        let binary = std::env::var_os("ORZO_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_orzo").into());
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(self.directory.join("orzo.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Any signal, by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "{name}");
    }

    /// How many lines of its log have this in them.
    pub fn log_lines(&self, text: &str) -> usize {
        std::fs::read_to_string(self.log()).unwrap_or_default().lines().filter(|line| line.contains(text)).count()
    }

    /// SIGTERM; gives the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let status = wait_for("orzo to end", Duration::from_secs(60), || child.try_wait().unwrap());
        status.code()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Where it keeps everything.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("orzo.log")
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    pub fn get_status(&self, path: &str) -> Option<u16> {
        let request = self.client.get(self.url(path));
        runtime().block_on(async { request.send().await }).ok().map(|response| response.status().as_u16())
    }

    /// A token of the admin in project `admin`.
    pub fn token(&self) -> String {
        let body = serde_json::json!({"auth": {
            "identity": {"methods": ["password"],
                "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}});
        self.token_for(&body)
    }

    /// A token for a body of Keystone's `POST /v3/auth/tokens`.
    pub fn token_for(&self, body: &Value) -> String {
        let request = self.client.post(self.url("/identity/v3/auth/tokens")).json(body);
        let response = runtime().block_on(async { request.send().await }).unwrap();
        let status = response.status();
        let token = response.headers().get("x-subject-token").map(|value| value.to_str().unwrap().to_owned());
        token.unwrap_or_else(|| panic!("no token: {status}\n{}", self.log_tail()))
    }

    /// Changes one setting; it counts from the next start on.
    pub fn set(&self, section: &str, key: &str, value: &str) {
        let path = self.directory.join("orzo.toml");
        let mut table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let section = table.entry(section).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
        section.insert(key.to_owned(), value.into());
        std::fs::write(path, toml::to_string(&table).unwrap()).unwrap();
    }

    /// Posts bytes with a token; the status. `None`: no answer at all.
    pub fn try_post_bytes(&self, path: &str, token: &str, body: Vec<u8>) -> Option<u16> {
        let request = self.client.post(self.url(path)).header("x-auth-token", token).body(body);
        runtime().block_on(async { request.send().await }).ok().map(|response| response.status().as_u16())
    }

    /// A request with a token; the status and the JSON body (null if there is none). `None`: no answer at all.
    pub fn try_request(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self
            .client
            .request(method, self.url(path))
            .header("x-auth-token", token)
            .header("accept", "application/json");
        if let Some(body) = body {
            request = request.json(body);
        }
        runtime().block_on(async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            let text = response.text().await.ok()?;
            Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
        })
    }

    /// The same, and it must be answered with `expected`.
    pub fn request(&self, method: &str, path: &str, token: &str, body: Option<&Value>, expected: u16) -> Value {
        let (status, answer) = self.try_request(method, path, token, body).expect("an answer");
        assert_eq!(status, expected, "{method} {path}: {answer}\n{}", self.log_tail());
        answer
    }

    /// All counters of `/metrics`: name with labels → value.
    pub fn metrics(&self) -> std::collections::BTreeMap<String, f64> {
        let request = self.client.get(self.url("/metrics"));
        let text = runtime().block_on(async { request.send().await.unwrap().text().await.unwrap() });
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// received = stored + refused + dropped + waiting, in every room.
    pub fn assert_conserved(&self) {
        let mut last = String::new();
        // Counters of a busy room are read one after the other, so a moment of rest is waited for.
        wait_for("every room to be in balance", Duration::from_secs(30), || {
            let imbalance = imbalance(&self.metrics());
            let balanced = imbalance.is_empty();
            last = imbalance.join("\n");
            if !balanced {
                eprintln!("{last}");
            }
            balanced.then_some(())
        });
    }
}

fn imbalance(metrics: &std::collections::BTreeMap<String, f64>) -> Vec<String> {
    let sum = |name: &str, room: &str| -> f64 {
        let wanted = format!("room=\"{room}\"");
        metrics
            .iter()
            .filter(|(key, _)| key.starts_with(&format!("{name}{{")) && key.contains(&wanted))
            .map(|(_, value)| value)
            .sum()
    };
    let rooms = metrics.keys().filter_map(|key| key.strip_prefix("orzo_received_total{room=\"")?.split('"').next());
    let rooms: std::collections::BTreeSet<&str> = rooms.collect();
    assert!(!rooms.is_empty(), "no room counts anything");
    rooms
        .into_iter()
        .filter_map(|room| {
            let received = sum("orzo_received_total", room);
            let parts = ["orzo_stored_total", "orzo_refused_total", "orzo_dropped_total", "orzo_waiting"];
            let left: f64 = parts.iter().map(|name| sum(name, room)).sum();
            (received != left).then(|| format!("room {room}: received {received}, accounted for {left}"))
        })
        .collect()
}

impl Drop for Orzo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of orzo's log\n{}", self.log_tail());
        }
        self.kill();
    }
}
