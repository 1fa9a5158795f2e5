//! Prices lines of JSON from standard input: `{"rules": ..., "tenant": ..., "usages": [{"service", "quantity", "description"}]}`
//! gives a list of prices as texts, or `error: ...` for a usage without one. `tests/differential/rating` feeds it.
//!
//!     cargo run -p orzo-rating --example price < cases.jsonl

use std::io::{BufRead, Write};

use orzo_rating::{HashMap, Usage, decimal};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let prices = match HashMap::from_json(&case["rules"]) {
            Ok(rules) => {
                let list = rules.for_tenant(case["tenant"].as_str());
                let usages = case["usages"].as_array().ok_or("a case has no usages")?;
                usages
                    .iter()
                    .map(|usage| price(&list, usage))
                    .collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?
            }
            Err(error) => vec![format!("error: {error}")],
        };
        writeln!(out, "{}", json!(prices))?;
    }
    Ok(())
}

fn price(list: &orzo_rating::PriceList, usage: &Value) -> Result<String, Box<dyn std::error::Error>> {
    let usage = Usage {
        service: usage["service"].as_str().ok_or("a usage has no service")?.to_owned(),
        quantity: decimal(usage["quantity"].as_str().ok_or("a quantity is a text")?)?,
        description: serde_json::from_value(usage["description"].clone())?,
    };
    Ok(match list.price(&usage) {
        Ok(price) => price.to_string(),
        Err(error) => format!("error: {error}"),
    })
}
