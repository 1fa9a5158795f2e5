//! Settings of the small binary `orzo-agent`: one TOML file, strict.
//!
//! An unknown key is an error with file, line and the nearest key; durations are written as `"30s"`; secrets are not
//! printed.

mod destination;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};
use url::Url;

pub use destination::{Destination, DestinationError, PASSWORD_VARIABLE};

/// Every key with its default, in the form of a file. Tested to be what the code does.
pub const EXAMPLE: &str = include_str!("settings/example.toml");

/// How the agent runs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSettings {
    /// Name of this host; empty: the kernel's.
    pub host: String,
    /// Guests.
    pub compute: ComputeSettings,
    /// The machine itself.
    pub host_meters: HostMeterSettings,
    /// When to poll what.
    pub polling: PollingSettings,
    /// RabbitMQ, if samples go there.
    pub bus: BusSettings,
    /// Orzo's API, if samples go there.
    pub api: ApiSettings,
    /// How samples are handed over.
    pub publish: PublishSettings,
    /// What the agent tells about itself.
    pub metrics: MetricsSettings,
}

/// Guests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComputeSettings {
    /// `libvirt`, or `simulated` to try things out.
    pub hypervisor: HypervisorKind,
    /// libvirt's URI.
    pub uri: String,
    /// Ask guests that are off for all meters.
    pub report_stopped: bool,
    /// Poll guests that no cloud made.
    pub report_unowned: bool,
    /// How many guests to simulate.
    pub simulated_guests: u32,
}

/// Which hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HypervisorKind {
    /// Real guests.
    Libvirt,
    /// Guests that only look alive.
    Simulated,
}

/// The machine itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostMeterSettings {
    /// Whether to measure it.
    pub enabled: bool,
    /// Where its /proc and /sys are.
    pub root: PathBuf,
}

/// When to poll what.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PollingSettings {
    /// A polling.yaml as Ceilometer writes it; empty: everything, every ten seconds.
    pub file: PathBuf,
}

/// RabbitMQ.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusSettings {
    /// `amqp://user:password@host:5672/`; empty: samples do not go there.
    pub url: SecretString,
    /// Queues that samples are spread over; as the collector has it.
    pub shards: u16,
}

/// Orzo's API, and who the agent is there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSettings {
    /// Orzo; empty: samples do not go there.
    #[serde(deserialize_with = "web_address")]
    pub url: Option<Url>,
    /// The identity service; empty: the one that Orzo itself offers.
    #[serde(deserialize_with = "web_address")]
    pub auth_url: Option<Url>,
    /// User name.
    pub username: String,
    /// Password; empty: in the file or the environment.
    pub password: SecretString,
    /// File with the password on its first line; empty: none.
    pub password_file: PathBuf,
    /// Name of the user's domain.
    pub user_domain: String,
    /// Name of the project.
    pub project: String,
    /// Name of the project's domain.
    pub project_domain: String,
}

/// How samples are handed over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishSettings {
    /// Where samples wait while nobody takes them.
    pub spool: PathBuf,
    /// Disk space that they may take.
    pub spool_bytes_max: u64,
    /// How long the agent may take to hand over what it has when it is told to stop.
    #[serde(deserialize_with = "duration")]
    pub drain_wait: Duration,
}

/// What the agent tells about itself.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSettings {
    /// Address and port of `/metrics` and `/healthz`; empty: not told.
    #[serde(deserialize_with = "socket_address")]
    pub listen: Option<SocketAddr>,
}

impl Default for ComputeSettings {
    fn default() -> Self {
        Self {
            hypervisor: HypervisorKind::Libvirt,
            uri: "qemu:///system".to_owned(),
            report_stopped: false,
            report_unowned: false,
            simulated_guests: 10,
        }
    }
}

impl Default for HostMeterSettings {
    fn default() -> Self {
        Self { enabled: true, root: PathBuf::from("/") }
    }
}

impl Default for BusSettings {
    fn default() -> Self {
        Self { url: SecretString::default(), shards: 1 }
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            url: None,
            auth_url: None,
            username: String::new(),
            password: SecretString::default(),
            password_file: PathBuf::new(),
            user_domain: "Default".to_owned(),
            project: "service".to_owned(),
            project_domain: "Default".to_owned(),
        }
    }
}

impl Default for PublishSettings {
    fn default() -> Self {
        Self {
            spool: PathBuf::from("/var/spool/orzo-agent"),
            spool_bytes_max: crate::publish::SPOOL_BYTES_DEFAULT,
            drain_wait: Duration::from_secs(10),
        }
    }
}

/// What is wrong with a settings file, and where.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct SettingsError {
    /// File as it was named by who read it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl AgentSettings {
    /// Reads a file's text; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, SettingsError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            let words = error.message();
            let reason = match nearest_key(words) {
                Some(key) => format!("{words} (did you mean `{key}`?)"),
                None => words.to_owned(),
            };
            SettingsError { file: file.to_owned(), line, reason }
        })
    }
}

/// From serde's words on an unknown field, the expected one that is nearest to it.
pub(crate) fn nearest_key(words: &str) -> Option<String> {
    let rest = words.split_once("unknown field `")?.1;
    let (unknown, rest) = rest.split_once('`')?;
    let expected = rest.split_once("expected ")?.1;
    // TOML's words put names in back-ticks, YAML's do not, and YAML's end with the place, which is told already.
    expected
        .strip_prefix("one of ")
        .unwrap_or(expected)
        .split([',', '`', ' '])
        .take_while(|word| *word != "at")
        .filter(|word| !word.is_empty())
        .map(|key| (strsim::damerau_levenshtein(unknown, key), key))
        .min()
        .filter(|(distance, key)| *distance <= key.len().max(3) / 2)
        .map(|(_, key)| key.to_owned())
}

/// `"500ms"`, `"30s"`, `"5m"`, `"2h"`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is not a duration such as \"30s\"")))
}

/// An http or https address without a password in it; `None` if empty.
fn web_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match url {
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(de::Error::custom("a url here has no user and no password: they have keys of their own"))
        }
        Some(url) => Ok(Some(url)),
        None => Err(de::Error::custom(format!("`{text}` is not an address such as \"https://orzo:8041\""))),
    }
}

/// `127.0.0.1:9741` or `[::1]:9741`; `None` if empty.
fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || de::Error::custom(format!("`{text}` is not an address and port such as \"127.0.0.1:9741\""));
    text.parse().map(Some).map_err(|_| wrong())
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_the_defaults() {
        let example = AgentSettings::parse("example.toml", EXAMPLE).unwrap();
        assert_eq!(format!("{example:?}"), format!("{:?}", AgentSettings::default()));
        let keys = EXAMPLE.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        assert_eq!(keys, 23, "a new setting belongs into the example");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_line_and_nearest_key() {
        let error = AgentSettings::parse("agent.toml", "host = 'a'\n[compute]\nreport_stoped = true\n").unwrap_err();
        assert_eq!((error.file.as_str(), error.line), ("agent.toml", 3));
        assert!(error.reason.ends_with("(did you mean `report_stopped`?)"), "{error}");
        let error = AgentSettings::parse("agent.toml", "[publish]\ndrain_wait = \"10\"\n").unwrap_err();
        assert_eq!(error.to_string(), "agent.toml:2: `10` is not a duration such as \"30s\"");
        let far = AgentSettings::parse("agent.toml", "zzzzzzzzzzzz = 1\n").unwrap_err();
        assert!(!far.reason.contains("did you mean"), "{far}");
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = "[bus]\nurl = 'amqp://u:hush@h/'\n[api]\npassword = 'hush'\n";
        let settings = AgentSettings::parse("a", text).unwrap();
        assert!(!format!("{settings:?}").contains("hush"));
        // Not even when they are where they do not belong.
        let error = AgentSettings::parse("a", "[api]\nurl = 'https://u:hush@h/'\n").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(!error.to_string().contains("hush"), "{error}");
    }

    #[test]
    fn an_address_is_of_the_web() {
        let error = AgentSettings::parse("a", "[api]\n\nurl = 'orzo:8041'\n").unwrap_err();
        assert_eq!(error.to_string(), "a:3: `orzo:8041` is not an address such as \"https://orzo:8041\"");
        for wrong in ["ftp://orzo", "orzo", "http://"] {
            assert!(AgentSettings::parse("a", &format!("[api]\nauth_url = '{wrong}'\n")).is_err(), "{wrong}");
        }
        let listen = |text: &str| AgentSettings::parse("a", &format!("[metrics]\nlisten = '{text}'\n"));
        assert_eq!(listen("[::1]:9741").unwrap().metrics.listen.map(|address| address.port()), Some(9741));
        let error = listen("9741").unwrap_err();
        assert_eq!(error.to_string(), "a:2: `9741` is not an address and port such as \"127.0.0.1:9741\"");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for wrong in ["", "s", "10", "10 s", "-1s", "99999999999999999999h", "18446744073709551615h"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
