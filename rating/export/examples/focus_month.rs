//! A month with every class of charge, exported in every profile: what `tests/conformance/focus` holds against the
//! specification's validator.
//!
//! `cargo run -p orzo-export --example focus_month -- DIRECTORY`

use std::{collections::BTreeMap, error::Error, path::PathBuf, sync::Arc, time::Duration};

use orzo_export::{Catalogue, Profile, Request, SigningKey, export, invoices};
use orzo_model::Timestamp;
use orzo_rating::{
    BigDecimal, Bill, Earlier, Ledger, LineKind, MemoryLedger, Prices, RatedLine, RuleDocument, cost_of, line::Facts,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// What is used: service, unit, name and values of its describing property, price, quantity of an hour.
type Sold = (&'static str, &'static str, &'static str, [&'static str; 2], &'static str, &'static str);
const SERVICES: &[Sold] = &[
    ("instance", "Hours", "flavor_name", ["m1.tiny", "m1.large"], "0.0213", "1"),
    ("volume.size", "GiB-Hours", "volume_type", ["ssd", "hdd"], "0.00012", "20"),
    ("ip.floating", "Hours", "", ["", ""], "0.004", "1"),
    ("network.outgoing.bytes", "GB", "", ["", ""], "0.01", "0.73125"),
    ("something.of.ours", "Requests", "", ["", ""], "0.0000001", "12345"),
];
const PROJECTS: [&str; 3] = ["shop", "research", "web"];
const HOURS: i64 = 24;
const CATALOGUE: &str = r#"
provider = "Example Cloud"
region_id = "eu-1"
region_name = "Europe 1"
[projects.shop]
name = "Shop"
domain_id = "retail"
domain_name = "Retail"
[projects.research]
name = "=1+1"
domain_id = "science"
domain_name = "Science"
"#;

fn facts(pairs: &[(&str, &str)]) -> Facts {
    let pairs = pairs.iter().filter(|(name, _)| !name.is_empty());
    Arc::new(pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>())
}

fn lines(start: Timestamp) -> Result<Vec<RatedLine>, Box<dyn Error>> {
    let at = |hour: i64| Timestamp::from_secs(start.secs() + hour * 3600);
    let mut lines = Vec::new();
    for (place, project) in PROJECTS.iter().enumerate() {
        for hour in 0..HOURS {
            for (service, unit, property, values, price, quantity) in SERVICES {
                let value = values[place % 2];
                let resource = format!("{service}-{place}");
                // The first hour was used in part.
                let share: BigDecimal = if hour == 0 { "0.25".parse()? } else { 1.into() };
                let (quantity, unit_price) = (quantity.parse::<BigDecimal>()? * share, price.parse::<BigDecimal>()?);
                let line = RatedLine {
                    id: Uuid::nil(),
                    scope: (*project).to_owned(),
                    service: (*service).to_owned(),
                    resource: resource.clone(),
                    begin: at(hour),
                    end: at(hour + 1),
                    period: at(hour),
                    unit: (*unit).to_owned(),
                    cost: cost_of(&(&unit_price * &quantity)),
                    quantity,
                    unit_price,
                    currency: "EUR".to_owned(),
                    kind: LineKind::Usage,
                    corrects: None,
                    reverses: false,
                    rule: format!("hashmap:{service}"),
                    rule_version: 1,
                    sequence: 0,
                    groupby: facts(&[("id", &resource), ("user_id", "u")]),
                    metadata: facts(&[(property, value), ("availability_zone", "nova"), ("display_name", "-web 1")]),
                    samples: 12,
                    rated_at: at(hour + 3),
                };
                lines.push(line.identified());
            }
        }
        let wrong = lines[lines.len() - 1].clone();
        let rated_at = at(100);
        lines.push(wrong.reversal(at(90), rated_at));
        let again =
            RatedLine { period: at(90), corrects: Some(wrong.id), rated_at, quantity: 5.into(), ..wrong.clone() };
        lines.push(RatedLine { cost: cost_of(&(&again.quantity * &again.unit_price)), ..again }.identified());
    }
    Ok(lines)
}

/// Of a package a month and one of more than a month, a fee each month and one once, and all else that makes lines of bills.
fn prices() -> Result<Prices, Box<dyn Error>> {
    let documents = [
        ("currency", "euro", json!({"code": "EUR"})),
        (
            "purchase",
            "servers",
            json!({"name": "Ten hours of servers", "service": "instance", "quantity": 10, "amount": "0.2",
                   "frequency": "monthly", "valid_from": "2026-10-01T06:00:00Z"}),
        ),
        (
            "purchase",
            "traffic",
            json!({"name": "1000 GB", "service": "network.outgoing.bytes", "quantity": 1000, "amount": 9, "frequency": "once",
                   "valid_from": "2026-10-01T00:00:00Z", "valid_until": "2027-10-01T00:00:00Z"}),
        ),
        (
            "purchase",
            "care",
            json!({"name": "Care", "amount": 25, "frequency": "monthly", "valid_from": "2026-09-15T00:00:00Z"}),
        ),
        (
            "purchase",
            "setup",
            json!({"name": "Setup", "amount": "49.90", "frequency": "once", "valid_from": "2026-10-01T00:00:00Z"}),
        ),
        ("minimum", "requests", json!({"service": "something.of.ours", "amount": 1})),
        ("discount", "volumes", json!({"service": "volume.size", "percent": 10})),
        ("credit", "welcome", json!({"amount": "3.5"})),
        ("tax", "vat", json!({"percent": 19})),
    ];
    let document =
        |(kind, id, body): (&str, &str, Value)| RuleDocument { kind: kind.to_owned(), id: id.to_owned(), body };
    Ok(Prices::from_documents(&documents.map(document))?)
}

/// A month's lines, as they are when its bills were settled.
fn settled(mut lines: Vec<RatedLine>, begin: Timestamp, end: Timestamp) -> Result<Vec<RatedLine>, Box<dyn Error>> {
    let (prices, earlier, period) = (prices()?, Earlier::default(), Duration::from_secs(3600));
    for scope in PROJECTS {
        let own: Vec<RatedLine> = lines.iter().filter(|line| line.scope == scope).cloned().collect();
        let bill = Bill { scope, begin, end, period, earlier: &earlier };
        lines.extend(prices.settle(&bill, &own, (1, end)));
    }
    for kind in LineKind::ALL {
        if !lines.iter().any(|line| line.kind == kind) {
            return Err(format!("the month has no line of the category {}", kind.name()).into());
        }
    }
    Ok(lines)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let into = PathBuf::from(std::env::args().nth(1).ok_or("month DIRECTORY")?);
    std::fs::create_dir_all(&into)?;
    let (begin, end): (Timestamp, Timestamp) = ("2026-10-01T00:00:00Z".parse()?, "2026-11-01T00:00:00Z".parse()?);
    let ledger = MemoryLedger::default();
    ledger.append(settled(lines(begin)?, begin, end)?).await?;
    let catalogue = Catalogue::parse(CATALOGUE)?;
    let key = SigningKey::open(&into.join("export.key"))?;
    for profile in Profile::ALL {
        let request = Request { profile, begin, end, scopes: None, as_of: None, rated_after: None };
        let run = export(&ledger, &request, &catalogue, &key, &into, &|_| ()).await?;
        for file in &run.manifest.files {
            println!("{} {}", profile.name(), run.directory.join(&file.name).display());
        }
    }
    for invoice in invoices(&ledger, begin, end, None, false, &catalogue).await? {
        let path = into.join(format!("{}.html", invoice.number));
        std::fs::write(&path, invoice.html(orzo_export::Language::English, None)?)?;
        std::fs::write(
            into.join(format!("{}-zh.html", invoice.number)),
            invoice.html(orzo_export::Language::Chinese, None)?,
        )?;
        println!("invoice {}", path.display());
    }
    Ok(())
}
