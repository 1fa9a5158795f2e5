//! The real command-line clients, run as a user runs them.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use super::orzo::{Orzo, PASSWORD};

/// Runs `openstack`, `gnocchi` and `aodh` with the admin's credentials, or another's.
pub struct Clients {
    directory: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Clients {
    pub fn admin(orzo: &Orzo) -> Self {
        Self::of(orzo, "admin", PASSWORD, "admin")
    }

    pub fn of(orzo: &Orzo, user: &str, password: &str, project: &str) -> Self {
        let directory = std::env::var_os("ORZO_TEST_CLIENTS").expect("tests/run sets it").into();
        let variables = vec![
            ("OS_AUTH_URL", orzo.url("/identity/v3")),
            ("OS_USERNAME", user.to_owned()),
            ("OS_PASSWORD", password.to_owned()),
            ("OS_PROJECT_NAME", project.to_owned()),
            ("OS_USER_DOMAIN_NAME", "Default".to_owned()),
            ("OS_PROJECT_DOMAIN_NAME", "Default".to_owned()),
            ("OS_IDENTITY_API_VERSION", "3".to_owned()),
            ("OS_AUTH_TYPE", "password".to_owned()),
        ];
        Self { directory, variables }
    }

    /// Runs a command line; (success, standard output, standard error).
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(self.directory.join(program));
        command.args(arguments).env_clear();
        // Enough for Python and the shell; nothing of this machine's own clouds.
        for name in ["PATH", "HOME", "LANG", "SSL_CERT_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// Runs a command line that must succeed; its standard output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let (success, output, errors) = self.try_run(program, arguments);
        assert!(success, "{program} {}\n{output}\n{errors}", arguments.join(" "));
        output
    }

    /// Runs a command line with `-f json`; its answer.
    pub fn json(&self, program: &str, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-f", "json"]);
        let output = self.run(program, &arguments);
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}\n{output}"))
    }
}
