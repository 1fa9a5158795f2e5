//! `orzo meters`: every meter that is known, in one table.

use orzo_agents::{host::HOST_METERS, pollsters::POLLSTERS};
use orzo_definitions::MeterDefinitions;
use orzo_model::SampleKind;
use serde_json::{Value, json};

use super::output::{Format, Rows};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only meters whose name contains this.
    filter: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut add = |name: &str, kind: &str, unit: &str, origin: &str| {
        rows.push([name, kind, unit, origin].map(Value::from).to_vec());
    };
    for meter in POLLSTERS {
        add(meter.meter, kind(meter.kind), meter.unit, "compute agent (hypervisor)");
    }
    for meter in HOST_METERS {
        add(meter.name, kind(meter.kind), meter.unit, "host agent (/proc, /sys)");
    }
    add("cpu_util", "gauge", "%", "derived by the collector from cpu");
    for (meter, unit) in orzo_collector::derive::RATES {
        add(&format!("{meter}.rate"), "gauge", unit, &format!("derived by the collector from {meter}"));
    }
    for (name, unit) in orzo_agents::central::METERS {
        add(name, "gauge", unit, "central agent (service APIs)");
    }
    for (name, kind, unit) in MeterDefinitions::shipped().listed() {
        add(name, kind, unit, "notifications");
    }
    if let Some(filter) = &arguments.filter {
        rows.retain(|row| row[0].as_str().is_some_and(|name| name.contains(filter.as_str())));
    }
    rows.sort_by(|a, b| a[0].as_str().cmp(&b[0].as_str()));
    if rows.is_empty() {
        rows.push(vec![json!("no such meter"), Value::Null, Value::Null, Value::Null]);
    }
    Rows { columns: vec!["meter", "kind", "unit", "origin"], rows }.print(arguments.format)
}

fn kind(kind: SampleKind) -> &'static str {
    match kind {
        SampleKind::Gauge => "gauge",
        SampleKind::Delta => "delta",
        SampleKind::Cumulative => "cumulative",
    }
}
