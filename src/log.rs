//! Structured logs to standard error; standard output is for answers.

use anyhow::Context;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::{LogFormat, LogSettings};

/// Starts logging; once per process.
pub(crate) fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&settings.level)
        .with_context(|| format!("log.level `{}` is not a level or filter", settings.level))?
        // Chatty at the levels that people use for us.
        // Its warnings hold whole messages.
        .add_directive("lapin=error".parse()?)
        .add_directive("sqlx=warn".parse()?)
        .add_directive("hyper=warn".parse()?);
    let registry = tracing_subscriber::registry().with(filter);
    match settings.format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr)).try_init()?,
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()?,
    }
    Ok(())
}
