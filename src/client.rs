//! How the command line reaches a running server: credentials from the environment (as OpenStack's clients read them)
//! or from the `openrc` that `orzo serve` leaves in its data directory, and a session with them.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use orzo_model::SystemClock;
use orzo_session::{Credentials, Session};

/// Longer than any single answer should take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where to find the server and who asks.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// File with OS_* variables; by default the environment, else ./orzo-data/openrc.
    #[arg(long, value_name = "FILE")]
    openrc: Option<PathBuf>,
}

impl Target {
    /// A session with the identity service.
    pub(crate) fn session(&self) -> anyhow::Result<Arc<Session>> {
        let variables = self.variables()?;
        let variable = |name: &str| variables.get(name).cloned().filter(|value| !value.is_empty());
        let needed =
            |name: &str| variable(name).with_context(|| format!("{name} is not set; source an openrc file first"));
        let credentials = Credentials {
            auth_url: needed("OS_AUTH_URL")?.parse().context("OS_AUTH_URL")?,
            username: needed("OS_USERNAME")?,
            password: needed("OS_PASSWORD")?.into(),
            user_domain: variable("OS_USER_DOMAIN_NAME").unwrap_or_else(|| "Default".into()),
            project: needed("OS_PROJECT_NAME")?,
            project_domain: variable("OS_PROJECT_DOMAIN_NAME").unwrap_or_else(|| "Default".into()),
        };
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Session::new(credentials, client, SystemClock::shared()))
    }

    fn variables(&self) -> anyhow::Result<HashMap<String, String>> {
        let default = PathBuf::from("orzo-data/openrc");
        let path = match &self.openrc {
            Some(path) => path.clone(),
            None if std::env::var_os("OS_AUTH_URL").is_some() => return Ok(std::env::vars().collect()),
            None if default.is_file() => default,
            None => bail!("no credentials: set OS_AUTH_URL and the like, or run where ./orzo-data/openrc is"),
        };
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(parse_openrc(&text))
    }
}

/// The `export NAME=VALUE` lines of an openrc file, as `orzo serve` writes them.
fn parse_openrc(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_openrc_is_read() {
        let variables = parse_openrc("# hello\nexport OS_USERNAME=admin\nexport OS_PASSWORD='s=3'\nelse\n");
        assert_eq!(variables.get("OS_USERNAME").map(String::as_str), Some("admin"));
        assert_eq!(variables.get("OS_PASSWORD").map(String::as_str), Some("s=3"));
        assert_eq!(variables.len(), 2);
    }
}
