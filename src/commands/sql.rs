//! `orzo sql`: SQL over everything that a running Orzo keeps, as a table, CSV or JSON.

use std::{io::Read, time::Duration};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use orzo_session::ServiceRequest;
use serde_json::{Value, json};

use super::output::{self, Format};
use crate::client::Target;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// Longer than the server takes; it says so by itself then.
const QUERY_BYTES_MAX: u64 = 1 << 20;

#[derive(clap::Args)]
#[command(after_help = "Tables:
  series    one row for each series: series, metric_id, meter, unit, archive_policy, resource_id,
            original_resource_id, resource_type, project_id, user_id, labels (a map of labels or attributes)
  samples   one row for each point: series, metric_id, timestamp, value
  measures  the points with all names of their series
  events    one row for each event: message_id, event_type, generated_at, resource_id, project_id, user_id,
            traits (a map)
  revisions one row for each resource as it was for a time: resource_id, original_resource_id, resource_type,
            project_id, user_id, started_at, ended_at, revision_start, revision_end, attributes (a map)
  rated_lines
            one row for each line of the rating's ledger: id, scope (the project), service, resource, begin, \"end\",
            period, unit, quantity, unit_price, cost, currency, kind, corrects, reverses, rule, rule_version, sequence,
            groupby and metadata (maps), samples, rated_at

Examples:
  orzo sql \"SELECT meter, count(*) FROM series GROUP BY meter ORDER BY 2 DESC\"
  orzo sql \"SELECT project_id, sum(value) FROM measures WHERE meter = 'cpu' AND timestamp >= now() - INTERVAL '1 day' GROUP BY project_id\"
  orzo sql \"SELECT scope, service, sum(cost) FROM rated_lines WHERE period >= '2026-11-01' GROUP BY scope, service\"
  orzo sql -f csv - < report.sql

For administrators. Conditions on times, series, meter, resource_id, project_id, scope and the other texts (=, IN) are
answered from index and ledger, so that a query reads no more than it asks for.")]
pub(crate) struct Arguments {
    /// The query; `-` reads it from standard input.
    query: String,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answer(&arguments))
}

async fn answer(arguments: &Arguments) -> anyhow::Result<()> {
    let query = match arguments.query.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().take(QUERY_BYTES_MAX).read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
        query => query.to_owned(),
    };
    let session = arguments.target.session()?;
    let bar = ProgressBar::new_spinner().with_message("asking");
    bar.enable_steady_tick(TICK);
    let request = ServiceRequest {
        // Catalogs know of no SQL; it is beside the Prometheus face, in the same process.
        service_type: "prometheus",
        method: "POST".parse().context("a method")?,
        path: "../v1/sql",
        headers: &[("Accept", "application/json")],
        body: Some(&json!({ "query": query })),
    };
    let answer = session.request(&request, None).await;
    bar.finish_and_clear();
    let answer = answer.context("the query was not answered")?;
    let (Some(columns), Some(rows)) = (answer["columns"].as_array(), answer["rows"].as_array()) else {
        bail!("the server's answer has no columns and rows");
    };
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap_or_default()).collect();
    let rows: Vec<Vec<Value>> = rows.iter().map(|row| row.as_array().cloned().unwrap_or_default()).collect();
    output::print(&names, &rows, arguments.format)
}
