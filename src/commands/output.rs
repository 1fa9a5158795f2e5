//! Tables, CSV and JSON: the same rows in three forms, by `-f`.

use std::io::Write;

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Map, Value};

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For spreadsheets.
    Csv,
    /// For programs.
    Json,
}

/// Rows under named columns.
pub(crate) struct Rows {
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Rows {
    /// Writes them to standard output. A reader that goes away early (`| head`) is no error.
    pub(crate) fn print(&self, format: Format) -> anyhow::Result<()> {
        print(&self.columns, &self.rows, format)
    }
}

/// Writes rows under columns that are known only now, as [`Rows::print`] does.
pub(crate) fn print(columns: &[&str], rows: &[Vec<Value>], format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => table(columns, rows),
        Format::Csv => csv(columns, rows)?,
        Format::Json => json(columns, rows)?,
    };
    write(&text)
}

/// Writes a text to standard output, as [`Rows::print`] does.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

fn table(columns: &[&str], rows: &[Vec<Value>]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns);
    for row in rows {
        table.add_row(row.iter().map(plain));
    }
    format!("{table}\n")
}

fn csv(columns: &[&str], rows: &[Vec<Value>]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(row.iter().map(|cell| harmless(plain(cell))))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn json(columns: &[&str], rows: &[Vec<Value>]) -> anyhow::Result<String> {
    let objects: Vec<Value> = rows
        .iter()
        .map(|row| {
            let pairs = columns.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), cell.clone()));
            Value::Object(pairs.collect::<Map<_, _>>())
        })
        .collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&objects)?))
}

fn plain(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A cell that a spreadsheet would run as a formula is defused; numbers stay numbers.
fn harmless(text: String) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    if is_formula { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_rows_in_every_form() {
        let (columns, rows) = (["name", "value"], [vec![json!("=1+1"), json!(-1.5)]]);
        assert_eq!(csv(&columns, &rows).expect("csv"), "name,value\n'=1+1,-1.5\n");
        assert!(table(&columns, &rows).contains("=1+1"));
        let parsed: Value = serde_json::from_str(&super::json(&columns, &rows).expect("json")).expect("valid");
        assert_eq!(parsed, json!([{"name": "=1+1", "value": -1.5}]));
    }
}
