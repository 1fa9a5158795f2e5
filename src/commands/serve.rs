//! `orzo serve`.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    compose, log,
    settings::{Role, Settings},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Settings file; `orzo config example` prints one.
    #[arg(short, long, env = "ORZO_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port of all HTTP services.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where everything is kept.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// What this process does; everything by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    roles: Vec<Role>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut settings = match &arguments.config {
        Some(path) => Settings::read(path)?,
        None => Settings::default(),
    };
    if let Some(listen) = arguments.listen {
        settings.server.listen = listen;
    }
    if let Some(data) = arguments.data {
        settings.server.data_directory = data;
    }
    if !arguments.roles.is_empty() {
        settings.server.roles = arguments.roles;
    }
    settings.check()?;
    log::start(&settings.log)?;
    let threads = settings.server.threads();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let outcome = runtime.block_on(compose::serve(settings));
    // A blocking call that hangs, such as one into libvirt, must not hold a stop that is over.
    runtime.shutdown_background();
    outcome
}
