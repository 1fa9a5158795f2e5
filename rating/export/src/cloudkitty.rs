//! Lines as CloudKitty gives them: dataframes in JSON, and its client's CSV. Pure.

use std::fmt::Write;

use orzo_model::Timestamp;
use orzo_rating::{RatedLine, line::Facts};

use crate::cell::{Cell, json_number, json_text};

/// The columns that CloudKitty's client writes where nobody says others.
pub(crate) const CSV_COLUMNS: &[&str] =
    &["Begin", "End", "Metric Type", "Qty", "Cost", "Project ID", "Resource ID", "User ID"];

/// A line of that table.
pub(crate) fn csv_row(line: &RatedLine) -> Vec<Cell> {
    let fact = |name: &str| orzo_rating::doors::says(line, name).map_or(Cell::Null, Cell::text);
    vec![
        Cell::Time(line.begin),
        Cell::Time(line.end),
        Cell::text(&line.service),
        Cell::Decimal(line.quantity.clone()),
        Cell::Decimal(line.cost.clone()),
        Cell::text(&line.scope),
        Cell::text(&line.resource),
        fact("user_id"),
    ]
}

/// Lines of one (begin, end), by service: a dataframe. Numbers have all their digits.
#[derive(Default)]
pub(crate) struct Frame {
    period: Option<(Timestamp, Timestamp)>,
    /// Services in the order in which they first came.
    services: Vec<(String, String)>,
}

impl Frame {
    /// Whether a line belongs into it.
    pub(crate) fn takes(&self, line: &RatedLine) -> bool {
        self.period.is_none_or(|period| period == (line.begin, line.end))
    }

    pub(crate) fn add(&mut self, line: &RatedLine) {
        self.period = Some((line.begin, line.end));
        let point = format!(
            "{{\"vol\": {{\"unit\": {}, \"qty\": {}}}, \"rating\": {{\"price\": {}}}, \"groupby\": {}, \"metadata\": {}}}",
            json_text(&line.unit),
            json_number(&line.quantity),
            json_number(&line.cost),
            json_facts(&line.groupby),
            json_facts(&line.metadata),
        );
        match self.services.iter_mut().find(|(service, _)| *service == line.service) {
            Some((_, points)) => {
                points.push_str(", ");
                points.push_str(&point);
            }
            None => self.services.push((line.service.clone(), point)),
        }
    }

    /// As JSON; `None` where nothing was added. Empty afterwards.
    pub(crate) fn take(&mut self) -> Option<String> {
        let (begin, end) = self.period.take()?;
        let (begin, end) = (json_text(&begin.isoformat()), json_text(&end.isoformat()));
        let mut text = format!("{{\"period\": {{\"begin\": {begin}, \"end\": {end}}}, \"usage\": {{");
        for (place, (service, points)) in std::mem::take(&mut self.services).iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{}: [{points}]", json_text(service));
        }
        text.push_str("}}");
        Some(text)
    }
}

fn json_facts(facts: &Facts) -> String {
    serde_json::to_string(&**facts).expect("texts are JSON")
}
