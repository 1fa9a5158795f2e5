//! Where the settings say that samples go: RabbitMQ or Orzo's API, with all that is needed to get there.
//!
//! In: the settings, and what the environment has as password. Out: one [`Destination`], or a sentence on what is
//! missing or too much. It does not know how anything is sent.

use std::{fs, io, path::PathBuf};

use orzo_session::{Credentials, joined};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{AgentSettings, ApiSettings};

/// Variable of the environment that may hold the password, so that it is in no file.
pub const PASSWORD_VARIABLE: &str = "ORZO_AGENT_PASSWORD";

/// Where samples go.
#[derive(Debug)]
pub enum Destination {
    /// To the queues of RabbitMQ.
    Bus {
        /// With user and password.
        url: SecretString,
        /// Number of queues.
        shards: u16,
    },
    /// To Orzo's API.
    Api {
        /// Orzo.
        url: Url,
        /// Who the agent is there; in a box because it is large and there is one.
        credentials: Box<Credentials>,
    },
}

/// Why the settings name no destination.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// Neither.
    #[error("nothing says where samples go: set `url` in [bus] or in [api]")]
    NotSaid,
    /// Both.
    #[error("[bus] and [api] both have a `url`, but samples go to one of them: empty the other")]
    Both,
    /// The API needs it.
    #[error("[api] needs `{key}`")]
    Missing {
        /// Which.
        key: &'static str,
    },
    /// No password in any place.
    #[error("[api] needs a password: set `password` or `password_file`, or {PASSWORD_VARIABLE} in the environment")]
    NoPassword,
    /// Two passwords.
    #[error("[api] has both `password` and `password_file`: keep one")]
    TwoPasswords,
    /// The file does not give one.
    #[error("cannot read the password in {}", path.display())]
    PasswordFile {
        /// Which file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

impl AgentSettings {
    /// Where samples go. `environment` is what [`PASSWORD_VARIABLE`] holds; the settings' own password comes first.
    pub fn destination(&self, environment: Option<SecretString>) -> Result<Destination, DestinationError> {
        let bus = &self.bus;
        match (bus.url.expose_secret().is_empty(), &self.api.url) {
            (true, None) => Err(DestinationError::NotSaid),
            (false, Some(_)) => Err(DestinationError::Both),
            (false, None) => Ok(Destination::Bus { url: bus.url.clone(), shards: bus.shards }),
            (true, Some(url)) => {
                let credentials = credentials(&self.api, url, environment)?;
                Ok(Destination::Api { url: url.clone(), credentials: Box::new(credentials) })
            }
        }
    }
}

fn credentials(
    api: &ApiSettings,
    url: &Url,
    environment: Option<SecretString>,
) -> Result<Credentials, DestinationError> {
    for (key, value) in [("username", &api.username), ("project", &api.project)] {
        if value.is_empty() {
            return Err(DestinationError::Missing { key });
        }
    }
    Ok(Credentials {
        auth_url: api.auth_url.clone().unwrap_or_else(|| joined(url, "identity/v3")),
        username: api.username.clone(),
        password: password(api, environment)?,
        user_domain: api.user_domain.clone(),
        project: api.project.clone(),
        project_domain: api.project_domain.clone(),
    })
}

fn password(api: &ApiSettings, environment: Option<SecretString>) -> Result<SecretString, DestinationError> {
    let is_written = !api.password.expose_secret().is_empty();
    let has_file = !api.password_file.as_os_str().is_empty();
    let password = match (is_written, has_file) {
        (true, true) => return Err(DestinationError::TwoPasswords),
        (true, false) => api.password.clone(),
        (false, true) => {
            let path = api.password_file.clone();
            let text = fs::read_to_string(&path).map_err(|source| DestinationError::PasswordFile { path, source })?;
            // Editors and `echo` end a file with a new line, which is not meant.
            SecretString::from(text.lines().next().unwrap_or_default())
        }
        (false, false) => environment.unwrap_or_default(),
    };
    if password.expose_secret().is_empty() { Err(DestinationError::NoPassword) } else { Ok(password) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str, environment: Option<&str>) -> Result<Destination, String> {
        let settings = AgentSettings::parse("agent.toml", text).unwrap();
        settings.destination(environment.map(SecretString::from)).map_err(|error| error.to_string())
    }

    fn password(text: &str, environment: Option<&str>) -> Result<String, String> {
        let text = format!("[api]\nurl = 'http://orzo:8041'\nusername = 'agent'\n{text}");
        match destination(&text, environment)? {
            Destination::Api { credentials, .. } => Ok(credentials.password.expose_secret().to_owned()),
            Destination::Bus { .. } => Err("the bus".to_owned()),
        }
    }

    #[test]
    fn samples_go_to_the_one_that_is_named() {
        let bus = destination("[bus]\nurl = 'amqp://u:p@rabbit/'\nshards = 4\n", None).unwrap();
        assert!(matches!(&bus, Destination::Bus { url, shards: 4 } if url.expose_secret() == "amqp://u:p@rabbit/"));
        let text = "[api]\nurl = 'http://orzo:8041/telemetry'\nusername = 'agent'\npassword = 'hush'\nproject = 'p'\n";
        let api = destination(text, None).unwrap();
        assert!(!format!("{api:?}").contains("hush"));
        let Destination::Api { url, credentials } = api else { panic!("{api:?}") };
        assert_eq!(url.as_str(), "http://orzo:8041/telemetry");
        assert_eq!(credentials.auth_url.as_str(), "http://orzo:8041/telemetry/identity/v3");
        assert_eq!((credentials.username.as_str(), credentials.project.as_str()), ("agent", "p"));
        let elsewhere = format!("{text}auth_url = 'https://keystone:5000/v3'\n");
        let Destination::Api { credentials, .. } = destination(&elsewhere, None).unwrap() else { panic!("the bus") };
        assert_eq!(credentials.auth_url.as_str(), "https://keystone:5000/v3");
    }

    #[test]
    fn none_and_both_are_told_apart() {
        let none = destination("", None).unwrap_err();
        assert_eq!(none, "nothing says where samples go: set `url` in [bus] or in [api]");
        let both = destination("[bus]\nurl = 'amqp://h/'\n[api]\nurl = 'http://h/'\n", None).unwrap_err();
        assert!(both.starts_with("[bus] and [api] both have a `url`"), "{both}");
        let nobody = destination("[api]\nurl = 'http://h/'\npassword = 'p'\n", None).unwrap_err();
        assert_eq!(nobody, "[api] needs `username`");
    }

    #[test]
    fn a_password_is_in_the_settings_a_file_or_the_environment() {
        assert_eq!(password("password = 'written'\n", Some("environment")).unwrap(), "written");
        assert_eq!(password("", Some("environment")).unwrap(), "environment");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "from the file\n").unwrap();
        let key = format!("password_file = '{}'\n", file.path().display());
        assert_eq!(password(&key, Some("environment")).unwrap(), "from the file");
        assert!(password(&format!("password = 'p'\n{key}"), None).unwrap_err().contains("keep one"));
        fs::write(file.path(), "\n").unwrap();
        for nothing in [password("", None), password("", Some("")), password(&key, None)] {
            assert!(nothing.unwrap_err().contains("needs a password"));
        }
        let gone = password("password_file = '/no/such/file'\n", None).unwrap_err();
        assert_eq!(gone, "cannot read the password in /no/such/file");
    }
}
