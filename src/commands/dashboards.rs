//! `orzo dashboards`: writes Grafana's dashboards and the files that have it load them.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::dashboards::{DASHBOARDS, data_source, provider};

#[derive(clap::Args)]
#[command(
    after_help = "Writes dashboards/*.json and provisioning/{datasources,dashboards}/orzo.yaml.\nExample:\n  orzo dashboards /etc/grafana/orzo --url https://cloud.example.org/prometheus"
)]
pub(crate) struct Arguments {
    /// Where to; it is made if it is not there.
    directory: PathBuf,
    /// How Grafana reaches Orzo.
    #[arg(long, default_value = "http://127.0.0.1:8041/prometheus")]
    url: url::Url,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let root = std::path::absolute(&arguments.directory)?;
    let dashboards = root.join("dashboards");
    for dashboard in DASHBOARDS {
        let text = format!("{}\n", serde_json::to_string_pretty(&dashboard.json())?);
        write(&dashboards.join(format!("{}.json", dashboard.uid)), &text)?;
    }
    write(
        &root.join("provisioning/datasources/orzo.yaml"),
        &data_source(arguments.url.as_str().trim_end_matches('/')),
    )?;
    write(&root.join("provisioning/dashboards/orzo.yaml"), &provider(&dashboards.display().to_string()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}
