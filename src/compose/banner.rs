//! What a person sees when `orzo serve` has started: where it is, the password (once), and what to type next.

use std::path::Path;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::secrets;

/// What there is to say.
pub(super) struct Banner<'a> {
    pub(super) url: &'a Url,
    /// Where the metric API is.
    pub(super) metric_path: &'a str,
    pub(super) data_directory: &'a Path,
    /// The generated admin password, if it was generated just now.
    pub(super) password: Option<SecretString>,
    /// `libvirt`, `simulated`, or none.
    pub(super) hypervisor: Option<&'static str>,
    /// A server to look at, if there is one.
    pub(super) server: Option<String>,
}

impl Banner<'_> {
    /// Prints it to standard output.
    pub(super) fn print(&self) {
        let url = self.url.as_str().trim_end_matches('/');
        let (openrc, path) = (self.data_directory.join("openrc"), self.metric_path);
        println!("\n  Orzo {} is running at {url}\n", env!("CARGO_PKG_VERSION"));
        println!("    identity {url}/identity/v3   metrics {url}{path}   alarms {url}/alarming");
        println!("    image    {url}/image         compute {url}/compute/v2.1   events {url}/event");
        println!("    health   {url}/readyz        counters {url}/metrics");
        println!("\n  To be looked at in a browser: {url}/");
        match self.hypervisor {
            Some("simulated") => {
                println!("\n  Guests are SIMULATED: libvirt does not answer on this machine, or was not asked for.")
            }
            Some(kind) => println!("\n  Guests run under {kind}."),
            None => {}
        }
        if let Some(password) = &self.password {
            println!("\n  User admin, password {}   (shown this once)", password.expose_secret());
        }
        let server = self.server.as_deref().unwrap_or("SERVER");
        let openrc = openrc.display();
        println!("\n  Try, in another terminal:\n");
        println!("    source {openrc} && openstack server list --all-projects");
        println!("    source {openrc} && gnocchi measures show --resource-id {server} cpu_util");
        println!("    source {openrc} && curl -u \"admin:$OS_PASSWORD\" {url}{path}/v1/resource/instance\n");
    }
}

/// Leaves the admin's variables in a file that only the owner can read.
pub(super) fn write_openrc(
    directory: &Path,
    url: &Url,
    password: &SecretString,
    server: Option<&str>,
) -> anyhow::Result<()> {
    let url = url.as_str().trim_end_matches('/');
    let mut text = format!(
        "# The administrator of this Orzo, for OpenStack's clients: source this file.\n\
         export OS_AUTH_URL={url}/identity/v3\nexport OS_IDENTITY_API_VERSION=3\nexport OS_AUTH_TYPE=password\n\
         export OS_USERNAME=admin\nexport OS_PASSWORD='{}'\nexport OS_PROJECT_NAME=admin\n\
         export OS_USER_DOMAIN_NAME=Default\nexport OS_PROJECT_DOMAIN_NAME=Default\n",
        password.expose_secret().replace('\'', "'\\''")
    );
    if let Some(server) = server {
        text.push_str(&format!("export ORZO_DEMO_SERVER={server}\n"));
    }
    secrets::write(&directory.join("openrc"), &text).context("cannot leave the admin's openrc")
}
