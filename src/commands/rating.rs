//! `orzo rating quote`: what usages would cost under rules, before anybody is charged by them. `orzo rating bench`: how fast
//! this machine rates.

mod bench;

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use orzo_rating::{BigDecimal, HashMap, Usage, decimal};
use serde_json::{Value, json};

use super::output::{Format, Rows};

/// Largest file that is read: a hundred thousand entries fit well.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Price usages by CloudKitty's hashmap rules, both from files, in exact decimals.
    Quote(Quote),
    /// Rate a made-up month into a ledger on this disk, and tell how long it takes.
    Bench(bench::Bench),
}

#[derive(clap::Args)]
#[command(after_help = "Rules (YAML or JSON):
  services:
    - name: instance
      mappings: [{type: flat, cost: \"0.01\"}]
      thresholds: [{level: 100, type: rate, cost: \"0.9\"}]
      fields:
        - name: flavor_name
          mappings: [{value: m1.tiny, type: flat, cost: \"0.02\", group: base, tenant_id: PROJECT}]
Usages:
  - {service: instance, quantity: \"2\", description: {flavor_name: m1.tiny}}")]
struct Quote {
    /// File with the rules.
    rules: std::path::PathBuf,
    /// File with the usages; `-` reads them from standard input.
    usages: std::path::PathBuf,
    /// For this project: its own entries go before those for all.
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let quote = match arguments.command {
        Command::Quote(quote) => quote,
        Command::Bench(chosen) => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
            return runtime.block_on(bench::run(chosen));
        }
    };
    let rules = quote.rules.display().to_string();
    let rules = HashMap::from_json(&read(&quote.rules)?).with_context(|| rules)?;
    let prices = rules.for_tenant(quote.project.as_deref());
    let file = quote.usages.display().to_string();
    let Value::Array(usages) = read(&quote.usages)? else { bail!("{file}: a list of usages is expected") };
    let mut rows = Vec::with_capacity(usages.len() + 1);
    let mut total = BigDecimal::from(0);
    for (place, usage) in usages.iter().enumerate() {
        let usage = usage_of(usage).with_context(|| format!("{file}: usages[{place}]"))?;
        let price = prices.price(&usage).with_context(|| format!("{file}: usages[{place}]"))?;
        let known = usage.description.iter().map(|(name, value)| format!("{name}={value}"));
        rows.push(vec![
            json!(usage.service),
            json!(known.collect::<Vec<_>>().join(" ")),
            json!(usage.quantity.to_plain_string()),
            json!(price.normalized().to_plain_string()),
        ]);
        total += price;
    }
    rows.push(vec![json!("total"), Value::Null, Value::Null, json!(total.normalized().to_plain_string())]);
    Rows { columns: vec!["service", "description", "quantity", "price"], rows }.print(quote.format)
}

fn read(path: &std::path::Path) -> anyhow::Result<Value> {
    let name = path.display();
    let mut source: Box<dyn std::io::Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?),
    };
    let mut text = String::new();
    let read = std::io::Read::read_to_string(&mut std::io::Read::take(&mut source, FILE_BYTES_MAX + 1), &mut text);
    read.with_context(|| format!("cannot read {name}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("{name} is larger than {FILE_BYTES_MAX} bytes");
    }
    // JSON is YAML, too.
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{name}: {error}"))
}

fn usage_of(value: &Value) -> anyhow::Result<Usage> {
    let Value::Object(fields) = value else { bail!("an object is expected") };
    if let Some(unknown) = fields.keys().find(|key| !matches!(key.as_str(), "service" | "quantity" | "description")) {
        bail!("`{unknown}` is unknown; there are service, quantity and description");
    }
    let quantity = match &value["quantity"] {
        Value::String(text) => decimal(text)?,
        Value::Number(number) => decimal(&number.to_string())?,
        _ => bail!("quantity: a number is expected"),
    };
    let description: BTreeMap<String, Value> = match &value["description"] {
        Value::Null => BTreeMap::new(),
        Value::Object(fields) => fields.clone().into_iter().collect(),
        _ => bail!("description: an object is expected"),
    };
    let service = value["service"].as_str().context("service: a text is expected")?;
    Ok(Usage { service: service.to_owned(), quantity, description })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_that_is_none_is_named() {
        let usage = usage_of(&json!({"service": "s", "quantity": 1.5, "description": {"a": 1}})).expect("a usage");
        assert_eq!(usage.quantity.to_string(), "1.5");
        let refused = |value: Value| usage_of(&value).expect_err("no usage").to_string();
        assert_eq!(refused(json!({"service": "s"})), "quantity: a number is expected");
        assert_eq!(refused(json!({"quantity": "1"})), "service: a text is expected");
        assert!(refused(json!({"service": "s", "quantity": "x"})).contains("`x` is no decimal number"));
        assert!(refused(json!({"service": "s", "qty": 1})).contains("`qty` is unknown"));
    }
}
