//! What the files of a run say that everything costs, read from their cells and not from what was known when they were written: for
//! who holds an export against the ledger. Tables and events; Stripe's have no cost, and dataframes write theirs as bare numbers, which
//! would have to be read as floats.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Decimal128Type;
use orzo_rating::BigDecimal;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::{error::ExportError, events::coins_of_one, profile::Profile, run::Manifest};

/// Sums by currency; the currency is empty where the format has none.
type Sums = BTreeMap<String, BigDecimal>;

/// The sums of all cells of a run with a cost; `None`: the format has none that can be read exactly.
pub fn totals_of(directory: &Path, manifest: &Manifest) -> Result<Option<Sums>, ExportError> {
    let profile = Profile::named(&manifest.profile)?;
    let mut sums = Sums::new();
    for file in &manifest.files {
        let path = directory.join(&file.name);
        let wrong = |what: String| ExportError::Changed(format!("{}: {what}", path.display()));
        let open = File::open(&path).map_err(ExportError::file("read", &path))?;
        let rows = match profile {
            Profile::FocusCsv => csv(open, "BilledCost", Some("BillingCurrency"), &mut sums).map_err(wrong)?,
            Profile::CloudkittyCsv => csv(open, "Cost", None, &mut sums).map_err(wrong)?,
            Profile::FocusParquet => parquet(open, &mut sums).map_err(wrong)?,
            Profile::CloudEvents | Profile::LagoEvents => events(open, profile, &mut sums).map_err(wrong)?,
            Profile::StripeMeterEvents | Profile::CloudkittyDataframes => return Ok(None),
        };
        if rows != file.lines {
            return Err(wrong(format!("it has {rows} rows, the manifest says {}", file.lines)));
        }
    }
    Ok(Some(sums))
}

fn number(text: &str) -> Result<BigDecimal, String> {
    text.parse().map_err(|_| format!("`{}` is no number", text.chars().take(40).collect::<String>()))
}

fn csv(file: File, cost: &str, currency: Option<&str>, sums: &mut Sums) -> Result<u64, String> {
    let mut reader = csv::Reader::from_reader(file);
    let names = reader.headers().map_err(|error| error.to_string())?.clone();
    let place = |name: &str| names.iter().position(|own| own == name).ok_or(format!("it has no column {name}"));
    let (cost, currency) = (place(cost)?, currency.map(place).transpose()?);
    let mut rows = 0;
    for row in reader.records() {
        let row = row.map_err(|error| error.to_string())?;
        let currency = currency.and_then(|place| row.get(place)).unwrap_or_default();
        *sums.entry(currency.to_owned()).or_default() += number(row.get(cost).unwrap_or_default())?;
        rows += 1;
    }
    Ok(rows)
}

fn parquet(file: File, sums: &mut Sums) -> Result<u64, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    let mut rows = 0;
    for batch in reader.map_err(|error| error.to_string())? {
        let batch = batch.map_err(|error| error.to_string())?;
        let column = |name: &str| batch.column_by_name(name).ok_or(format!("it has no column {name}"));
        let costs = column("BilledCost")?;
        let costs = costs.as_primitive_opt::<Decimal128Type>().ok_or("BilledCost is no decimal")?;
        let currencies = column("BillingCurrency")?.as_string_opt::<i32>().ok_or("BillingCurrency is no text")?;
        for row in 0..batch.num_rows() {
            if costs.is_null(row) || currencies.is_null(row) {
                return Err(format!("row {rows} has no cost or no currency"));
            }
            let cost = BigDecimal::new(costs.value(row).into(), i64::from(costs.scale()));
            *sums.entry(currencies.value(row).to_owned()).or_default() += cost;
            rows += 1;
        }
    }
    Ok(rows)
}

fn events(file: File, profile: Profile, sums: &mut Sums) -> Result<u64, String> {
    let mut rows = 0;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| error.to_string())?;
        let event: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let (cost, currency) = match profile {
            Profile::CloudEvents => (event["data"]["cost"].as_str(), event["data"]["currency"].as_str()),
            _ => {
                let event = &event["event"];
                (event["precise_total_amount_cents"].as_str(), event["properties"]["currency"].as_str())
            }
        };
        let cost = number(cost.ok_or("an event has no cost")?)?;
        let cost = match profile {
            Profile::LagoEvents => cost / coins_of_one(currency.unwrap_or_default()),
            _ => cost,
        };
        *sums.entry(currency.unwrap_or_default().to_owned()).or_default() += cost;
        rows += 1;
    }
    Ok(rows)
}
