//! `orzo meters`: every meter that is known, in one table.

use serde_json::{Value, json};

use super::output::{Format, Rows};
use crate::meters::{self, KnownMeter};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only meters whose name contains this.
    filter: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let row = |meter: KnownMeter| [meter.name, meter.kind, meter.unit, meter.origin].map(Value::from).to_vec();
    let mut rows: Vec<Vec<Value>> = meters::known().into_iter().map(row).collect();
    if let Some(filter) = &arguments.filter {
        rows.retain(|row| row[0].as_str().is_some_and(|name| name.contains(filter.as_str())));
    }
    rows.sort_by(|a, b| a[0].as_str().cmp(&b[0].as_str()));
    if rows.is_empty() {
        rows.push(vec![json!("no such meter"), Value::Null, Value::Null, Value::Null]);
    }
    Rows { columns: vec!["meter", "kind", "unit", "origin"], rows }.print(arguments.format)
}
