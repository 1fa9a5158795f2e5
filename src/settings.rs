//! Settings: one TOML file, strict. What is not said has the default that `orzo config example` shows.
//!
//! A wrong or unknown key is an error with file and line, and the nearest key that is known.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail};
use ipnet::IpNet;
use orzo_store::BucketSettings;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};
use url::Url;

mod keys;
pub(crate) mod labels;
pub(crate) mod rating;
pub(crate) mod retention;
pub(crate) mod scrape;
pub(crate) mod sql;

pub(crate) use keys::{KEYS, example, nearest};

/// A duration as people write it: `250ms`, `30s`, `5m`, `2h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A try must end before its lease does (2 minutes), or two are under way.
const WEBHOOK_TIMEOUT_MAX: Span = Span::secs(60);
/// A request that had looked a metric up may still write to it for a moment.
const PURGE_AFTER_MIN: Span = Span::secs(1);
/// A loop that never waits helps nobody and takes a whole core.
const INTERVAL_MIN: Span = Span(Duration::from_millis(50));
/// A token that ends before it can be used locks everybody out, this service too.
const TOKEN_LIFE_MIN: Span = Span::secs(60);
/// Audits are counted in whole periods.
const EXISTS_PERIOD_MIN: Span = Span::secs(1);
/// Each flush makes files; faster than this is only work.
const FLUSH_AFTER_MIN: Span = Span(Duration::from_millis(100));
/// More often nobody reads a table of names.
const SERIES_TABLE_EVERY_MIN: Span = Span::secs(1);
/// With less than this not even one batch fits, and nothing would ever be accepted.
const HEAD_BYTES_MIN: u64 = 64 << 10;

/// First segments of the other services' paths.
const TAKEN_PATHS: [&str; 17] = [
    "identity",
    "image",
    "compute",
    "alarming",
    "metering",
    "event",
    "rating",
    "collector",
    "watch",
    "store",
    "v1",
    "prometheus",
    "otlp",
    "healthcheck",
    "healthz",
    "readyz",
    "metrics",
];

/// Everything that can be set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) server: ServerSettings,
    pub(crate) log: LogSettings,
    pub(crate) database: DatabaseSettings,
    pub(crate) bus: BusSettings,
    pub(crate) cloud: CloudSettings,
    pub(crate) identity: IdentitySettings,
    pub(crate) metrics: MetricSettings,
    pub(crate) agents: AgentSettings,
    pub(crate) collector: CollectorSettings,
    pub(crate) store: StoreSettings,
    pub(crate) labels: labels::LabelSettings,
    pub(crate) scrape: scrape::ScrapeSettings,
    pub(crate) alarms: AlarmSettings,
    pub(crate) rating: rating::RatingSettings,
    pub(crate) sql: sql::SqlSettings,
}

/// Where this process is reached and where it keeps things.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) public_url: Option<Url>,
    pub(crate) data_directory: PathBuf,
    pub(crate) roles: Vec<Role>,
    pub(crate) drain: Span,
    pub(crate) threads: Option<usize>,
    pub(crate) metrics_public: bool,
}

/// Threads that take requests, at most.
const THREADS_MAX: usize = 1024;

impl ServerSettings {
    /// Threads that take requests. Without a number one core is left to the log's thread and to long work, which have
    /// threads of their own: with two cores and as many threads that wake each other, remote write took an eighth more
    /// of the processor's time.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        self.threads.unwrap_or_else(|| cores().saturating_sub(1)).clamp(1, THREADS_MAX)
    }
}

/// What a process does. All of them together by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// The embedded identity, image and compute services.
    Cloud,
    /// The compute, host and central agents and the notification listener.
    Agents,
    /// Takes batches from the bus into the store.
    Collector,
    /// Evaluates alarms and delivers notices.
    Alarms,
    /// The metric, alarming and event APIs.
    Api,
    /// Rates usage into the ledger; in the process with the api.
    Rating,
}

/// How it tells what happens.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where index, alarms and the embedded cloud keep their state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DatabaseSettings {
    /// `None`: SQLite in the data directory.
    pub(crate) url: Option<SecretString>,
}

/// How samples and notifications travel.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BusSettings {
    /// `None`: within this process.
    pub(crate) url: Option<SecretString>,
}

/// The embedded cloud.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CloudSettings {
    pub(crate) enabled: bool,
    pub(crate) hypervisor: HypervisorChoice,
    pub(crate) libvirt_uri: String,
    pub(crate) demo_servers: bool,
    pub(crate) admin_password: Option<SecretString>,
    pub(crate) region: String,
    pub(crate) token_life: Span,
    pub(crate) exists_period: Span,
    pub(crate) simulated_seed: u64,
}

/// Who runs the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HypervisorChoice {
    /// libvirt if it answers, simulated guests otherwise.
    Auto,
    /// libvirt, or an error.
    Libvirt,
    /// Simulated guests.
    Simulated,
}

/// Who checks credentials: the embedded identity service, or a Keystone elsewhere.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IdentitySettings {
    /// `None`: the embedded one.
    pub(crate) url: Option<Url>,
    pub(crate) username: String,
    pub(crate) password: Option<SecretString>,
    pub(crate) user_domain: String,
    pub(crate) project: String,
    pub(crate) project_domain: String,
}

/// The metric API, which speaks Gnocchi's language.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricSettings {
    pub(crate) path: String,
    pub(crate) credentials: CredentialChoice,
    pub(crate) remote_user_header: String,
    pub(crate) remote_user_from: Vec<String>,
    pub(crate) limit_max: u32,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) proxy_headers: bool,
    pub(crate) make_defaults: bool,
    pub(crate) purge_after: Span,
    pub(crate) policy_file: Option<PathBuf>,
}

/// Which credentials the metric API takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CredentialChoice {
    /// Tokens, and users with their passwords; both checked.
    Identity,
    /// Tokens are checked, passwords are not. For running Gnocchi's own tests.
    AnyPassword,
    /// A proxy has checked who asks and says so in a header.
    RemoteUser,
}

/// What is measured, and how often.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AgentSettings {
    pub(crate) compute: bool,
    pub(crate) host: bool,
    pub(crate) central: bool,
    pub(crate) notifications: bool,
    pub(crate) polling_file: Option<PathBuf>,
    pub(crate) meters_files: Vec<PathBuf>,
    pub(crate) events_file: Option<PathBuf>,
    pub(crate) spool_bytes_max: u64,
    pub(crate) exchanges: Vec<String>,
    pub(crate) host_name: Option<String>,
}

/// What is taken in.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CollectorSettings {
    pub(crate) resources_file: Option<PathBuf>,
    pub(crate) future_max: Span,
    pub(crate) past_max: Span,
    pub(crate) quarantine_bytes_max: u64,
}

/// How it is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreSettings {
    pub(crate) head_bytes_max: u64,
    pub(crate) flush_after: Span,
    /// `None`: for ever.
    pub(crate) retention: Option<Span>,
    pub(crate) retention_rules: Vec<retention::RetentionRuleSettings>,
    pub(crate) rollups: bool,
    pub(crate) removed_grace: Span,
    pub(crate) series_table_every: Span,
    pub(crate) disk_reserve_bytes: u64,
    /// `None`: the table is on this machine.
    pub(crate) url: Option<String>,
    pub(crate) s3_endpoint: Option<String>,
    pub(crate) s3_region: Option<String>,
    pub(crate) s3_access_key: Option<String>,
    pub(crate) s3_secret_key_file: Option<PathBuf>,
    pub(crate) cache_bytes_max: u64,
    /// Below the data directory if unset.
    pub(crate) backup_directory: Option<PathBuf>,
}

/// Alarms and their notices.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AlarmSettings {
    pub(crate) interval: Span,
    pub(crate) lag: Span,
    pub(crate) lease: Span,
    pub(crate) reader_url: Option<Url>,
    pub(crate) prometheus_url: Option<Url>,
    pub(crate) prometheus_project_label: String,
    pub(crate) webhook_allow: Vec<String>,
    pub(crate) webhook_ca_file: Option<PathBuf>,
    pub(crate) webhook_timeout: Span,
    pub(crate) retry_first: Span,
    pub(crate) retry_max: Span,
    pub(crate) give_up_after: Span,
    pub(crate) signing_secret: Option<SecretString>,
    pub(crate) signing_secret_previous: Option<SecretString>,
    pub(crate) project_quota: i64,
    pub(crate) user_quota: i64,
    pub(crate) noauth: bool,
    pub(crate) evaluation_metrics: bool,
    pub(crate) announcements: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8041)),
            public_url: None,
            data_directory: "orzo-data".into(),
            roles: vec![Role::Cloud, Role::Agents, Role::Collector, Role::Alarms, Role::Api, Role::Rating],
            drain: Span::secs(30),
            threads: None,
            metrics_public: false,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for CloudSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            hypervisor: HypervisorChoice::Auto,
            libvirt_uri: "qemu:///system".into(),
            demo_servers: true,
            admin_password: None,
            region: "RegionOne".into(),
            token_life: Span::secs(3600),
            exists_period: Span::secs(3600),
            simulated_seed: 1,
        }
    }
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            url: None,
            username: "orzo".into(),
            password: None,
            user_domain: "Default".into(),
            project: "service".into(),
            project_domain: "Default".into(),
        }
    }
}

impl Default for MetricSettings {
    fn default() -> Self {
        Self {
            path: "/metric".into(),
            credentials: CredentialChoice::Identity,
            remote_user_header: "x-remote-user".into(),
            remote_user_from: Vec::new(),
            limit_max: 1000,
            cors_origins: Vec::new(),
            proxy_headers: false,
            make_defaults: true,
            purge_after: Span::secs(60),
            policy_file: None,
        }
    }
}

impl MetricSettings {
    /// The credentials, in the API's words.
    pub(crate) fn credentials(&self) -> anyhow::Result<orzo_api::Credentials> {
        Ok(match self.credentials {
            CredentialChoice::Identity => orzo_api::Credentials::Identity,
            CredentialChoice::AnyPassword => orzo_api::Credentials::AnyPassword,
            CredentialChoice::RemoteUser => {
                if self.remote_user_from.is_empty() {
                    bail!(
                        "metrics.remote_user_from is needed with credentials = \"remote-user\": who may say who asks?"
                    );
                }
                let name = self.remote_user_header.parse();
                let from = self.remote_user_from.iter().map(|text| network(text)).collect::<Result<_, _>>();
                orzo_api::Credentials::RemoteUser(orzo_api::TrustedHeader {
                    name: name.context("metrics.remote_user_header")?,
                    from: from.context("metrics.remote_user_from")?,
                })
            }
        })
    }

    /// Who may do what.
    pub(crate) fn policies(&self) -> anyhow::Result<orzo_api::Policies> {
        let Some(path) = &self.policy_file else { return Ok(orzo_api::Policies::default()) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read metrics.policy_file {}", path.display()))?;
        Ok(orzo_api::Policies::parse(&path.display().to_string(), &text)?)
    }

    fn check(&self) -> anyhow::Result<()> {
        let segments: Vec<&str> = self.path.split('/').skip(1).collect();
        let is_plain = |segment: &&str| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !self.path.starts_with('/') || !segments.iter().all(is_plain) {
            bail!("metrics.path is `{}`, must be like /metric", self.path);
        }
        if TAKEN_PATHS.contains(&segments[0]) {
            bail!("metrics.path is `{}`, but another service is there", self.path);
        }
        if self.limit_max == 0 {
            bail!("metrics.limit_max is 0: no list would ever show anything");
        }
        self.credentials().map(|_| ())
    }
}

fn network(text: &str) -> anyhow::Result<IpNet> {
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).with_context(|| format!("`{text}` is neither an address nor a network"))
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            compute: true,
            host: true,
            central: true,
            notifications: true,
            polling_file: None,
            meters_files: Vec::new(),
            events_file: None,
            spool_bytes_max: 256 << 20,
            exchanges: [
                "nova",
                "glance",
                "neutron",
                "cinder",
                "heat",
                "keystone",
                "trove",
                "zaqar",
                "swift",
                "ceilometer",
                "magnum",
                "dns",
                "ironic",
                "aodh",
            ]
            .map(str::to_owned)
            .to_vec(),
            host_name: None,
        }
    }
}

impl Default for CollectorSettings {
    fn default() -> Self {
        Self {
            resources_file: None,
            future_max: Span::secs(600),
            past_max: Span::secs(30 * 86_400),
            quarantine_bytes_max: 256 << 20,
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            head_bytes_max: 128 << 20,
            flush_after: Span::secs(600),
            retention: None,
            retention_rules: Vec::new(),
            rollups: true,
            removed_grace: Span::secs(3600),
            series_table_every: Span::secs(60),
            disk_reserve_bytes: 256 << 20,
            url: None,
            s3_endpoint: None,
            s3_region: None,
            s3_access_key: None,
            s3_secret_key_file: None,
            cache_bytes_max: 10 << 30,
            backup_directory: None,
        }
    }
}

impl StoreSettings {
    /// Where the table is, if not on this machine.
    fn bucket(&self) -> Option<BucketSettings> {
        Some(BucketSettings {
            url: self.url.clone()?,
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            access_key: self.s3_access_key.clone(),
            secret_key_file: self.s3_secret_key_file.clone(),
            cache_bytes_max: self.cache_bytes_max,
        })
    }
}

impl Default for AlarmSettings {
    fn default() -> Self {
        Self {
            interval: Span::secs(1),
            lag: Span::secs(5),
            lease: Span::secs(15),
            reader_url: None,
            prometheus_url: None,
            prometheus_project_label: "project".into(),
            webhook_allow: Vec::new(),
            webhook_ca_file: None,
            webhook_timeout: Span::secs(15),
            retry_first: Span::secs(5),
            retry_max: Span::secs(7200),
            give_up_after: Span::secs(97_200),
            signing_secret: None,
            signing_secret_previous: None,
            project_quota: -1,
            user_quota: -1,
            noauth: false,
            evaluation_metrics: false,
            announcements: false,
        }
    }
}

impl Settings {
    /// Reads a settings file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read settings {}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads settings from text; `name` is used in errors.
    pub(crate) fn parse(text: &str, name: &str) -> anyhow::Result<Self> {
        let settings: Self = match toml::from_str(text) {
            Ok(settings) => settings,
            Err(error) => {
                let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
                let message = error.message();
                let hint = unknown_field(message)
                    .and_then(nearest)
                    .map(|key| format!("; did you mean `{}`?", key.name))
                    .unwrap_or_default();
                bail!("{name}:{line}: {message}{hint}");
            }
        };
        settings.check().with_context(|| format!("{name} is not usable"))?;
        Ok(settings)
    }

    /// What types cannot say.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.server.roles.is_empty() {
            bail!("server.roles is empty: this process would do nothing");
        }
        if let Some(threads) = self.server.threads.filter(|threads| !(1..=THREADS_MAX).contains(threads)) {
            bail!("server.threads is {threads}, must be 1 to {THREADS_MAX}");
        }
        if self.identity.url.is_some() && self.identity.password.is_none() {
            bail!("identity.password is needed with identity.url");
        }
        if !self.cloud.enabled && self.identity.url.is_none() {
            bail!("cloud.enabled = false needs identity.url: somebody must check credentials");
        }
        if let Some(password) = &self.cloud.admin_password {
            use secrecy::ExposeSecret;
            if password.expose_secret().chars().count() < 8 {
                bail!("cloud.admin_password must have at least 8 characters");
            }
        }
        let spans = [
            ("cloud.token_life", self.cloud.token_life, TOKEN_LIFE_MIN),
            ("cloud.exists_period", self.cloud.exists_period, EXISTS_PERIOD_MIN),
            ("store.flush_after", self.store.flush_after, FLUSH_AFTER_MIN),
            ("store.series_table_every", self.store.series_table_every, SERIES_TABLE_EVERY_MIN),
            ("metrics.purge_after", self.metrics.purge_after, PURGE_AFTER_MIN),
            ("alarms.interval", self.alarms.interval, INTERVAL_MIN),
            ("alarms.lease", self.alarms.lease, INTERVAL_MIN),
            ("alarms.webhook_timeout", self.alarms.webhook_timeout, INTERVAL_MIN),
            ("alarms.retry_first", self.alarms.retry_first, INTERVAL_MIN),
            ("alarms.retry_max", self.alarms.retry_max, INTERVAL_MIN),
        ];
        for (name, span, least) in spans {
            if span.0 < least.0 {
                bail!("{name} is {span}, must be at least {least}");
            }
        }
        if self.store.head_bytes_max < HEAD_BYTES_MIN {
            bail!("store.head_bytes_max is {}, must be at least {HEAD_BYTES_MIN}", self.store.head_bytes_max);
        }
        if let Some(problem) = self.store.bucket().and_then(|bucket| bucket.problem()) {
            bail!("store.url and what belongs to it: {problem}");
        }
        retention::rules(&self.store.retention_rules)?;
        self.scrape.check()?;
        self.rating.check()?;
        self.sql.check()?;
        self.metrics.check()?;
        if self.alarms.webhook_timeout.0 > WEBHOOK_TIMEOUT_MAX.0 {
            bail!("alarms.webhook_timeout is {}, must be at most {WEBHOOK_TIMEOUT_MAX}", self.alarms.webhook_timeout);
        }
        if self.alarms.noauth && !self.server.listen.ip().is_loopback() {
            bail!("alarms.noauth believes whoever asks, so server.listen must be an address of this machine only");
        }
        if self.alarms.announcements && self.bus.url.is_none() {
            bail!("alarms.announcements needs RabbitMQ (bus.url): nobody outside this process could hear them");
        }
        orzo_alarms::AllowList::parse(&self.alarms.webhook_allow).context("alarms.webhook_allow")?;
        Ok(())
    }

    /// The store as it is opened, by a server and by commands.
    pub(crate) fn store_settings(&self) -> anyhow::Result<orzo_store::StoreSettings> {
        Ok(orzo_store::StoreSettings {
            directory: self.server.data_directory.join("store"),
            head_bytes_max: usize::try_from(self.store.head_bytes_max).context("store.head_bytes_max")?,
            flush_after: self.store.flush_after.0,
            retention: self.store.retention.map(|span| span.0),
            removed_grace: self.store.removed_grace.0,
            disk_reserve_bytes: self.store.disk_reserve_bytes,
            bucket: self.store.bucket(),
            ..orzo_store::StoreSettings::default()
        })
    }

    /// Where backups go.
    pub(crate) fn backup_directory(&self) -> PathBuf {
        self.store.backup_directory.clone().unwrap_or_else(|| self.server.data_directory.join("backups"))
    }

    /// Whether this process has the role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.server.roles.contains(&role) && (role != Role::Cloud || self.cloud.enabled)
    }
}

/// The field of serde's `unknown field` message.
fn unknown_field(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

impl Span {
    pub(crate) const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let wrong = || format!("`{text}` is not a duration; write 250ms, 30s, 5m, 2h or 7d");
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let millis = match &text[digits.len()..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(millis).map(|millis| Self(Duration::from_millis(millis))).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (unit, width) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if millis != 0 && millis.is_multiple_of(width) {
                return write!(f, "{}{unit}", millis / width);
            }
        }
        write!(f, "{millis}ms")
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        format!("{:#}", Settings::parse(text, "orzo.toml").expect_err("must be refused"))
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let settings = Settings::parse("", "orzo.toml").expect("defaults");
        assert!(settings.has(Role::Cloud) && settings.has(Role::Api));
    }

    #[test]
    fn requests_have_a_thread_on_any_machine_and_as_many_as_are_set() {
        let threads = |text| Settings::parse(text, "orzo.toml").expect("settings").server.threads();
        let cores = std::thread::available_parallelism().expect("cores").get();
        assert_eq!(threads(""), (cores - 1).max(1));
        assert_eq!(threads("[server]\nthreads = 3\n"), 3);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_the_nearest_one() {
        let error = refused("[server]\nlisten = \"127.0.0.1:1\"\nlissten = 1\n");
        assert!(error.starts_with("orzo.toml:3: unknown field `lissten`"), "{error}");
        assert!(error.ends_with("did you mean `server.listen`?"), "{error}");
        assert!(refused("[server]\nlisten = \"here\"\n").starts_with("orzo.toml:2: "));
        assert!(refused("[alarms]\nlag = \"soon\"\n").contains("`soon` is not a duration"));
        assert!(refused("[server]\nroles = []\n").contains("server.roles is empty"));
        assert!(refused("[server]\nthreads = 0\n").contains("server.threads is 0, must be 1 to 1024"));
        assert!(refused("[cloud]\nenabled = false\n").contains("identity.url"));
        assert!(refused("[alarms]\ninterval = \"0s\"\n").contains("alarms.interval is 0ms, must be at least 50ms"));
        assert!(refused("[cloud]\ntoken_life = \"0s\"\n").contains("cloud.token_life"));
        assert!(refused("[metrics]\npath = \"metric/\"\n").contains("must be like /metric"));
        assert!(refused("[metrics]\npath = \"/image\"\n").contains("another service"));
        assert!(refused("[metrics]\ncredentials = \"remote-user\"\n").contains("metrics.remote_user_from"));
        let from = "[metrics]\ncredentials = \"remote-user\"\nremote_user_from = [\"proxy\"]\n";
        assert!(refused(from).contains("`proxy` is neither an address nor a network"));
        assert!(refused("[store]\nhead_bytes_max = 0\n").contains("store.head_bytes_max"));
        assert!(refused("[store]\nurl = \"gs://bucket\"\n").contains("s3://bucket/prefix"));
        assert!(refused("[store]\nurl = \"s3://b\"\ns3_access_key = \"k\"\n").contains("go together"));
        assert!(refused("[alarms]\nwebhook_allow = [\"intranet\"]\n").contains("intranet"));
    }

    #[test]
    fn spans_are_read_and_written_as_people_do() {
        for text in ["250ms", "30s", "5m", "2h", "7d"] {
            assert_eq!(text.parse::<Span>().expect(text).to_string(), text);
        }
        for text in ["", "5", "s", "-1s", "1 s", "1y", "99999999999999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        let settings = Settings::parse("[cloud]\nadmin_password = \"canary-4711\"\n", "t").expect("good");
        assert!(!format!("{settings:?}").contains("canary-4711"));
    }
}
