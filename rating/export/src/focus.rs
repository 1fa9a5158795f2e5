//! A rated line in FOCUS's words. Pure.

use std::collections::BTreeMap;

use orzo_model::Timestamp;
use orzo_rating::{BigDecimal, LineKind, RatedLine, cost_of};
use uuid::Uuid;

use crate::{
    catalogue::{Catalogue, Category, Project},
    cell::Cell,
    run::month_of,
};

/// A line with what is around it.
pub(crate) struct Charge<'a> {
    line: &'a RatedLine,
    catalogue: &'a Catalogue,
    project: Option<&'a Project>,
    service: Option<&'a Category>,
    month: (Timestamp, Timestamp),
    run: Uuid,
}

/// Where a service is that nobody put into a category.
const OTHER: &str = "Other";
const OTHER_SUBCATEGORY: &str = "Other (Other)";

/// The number of a project's invoice for a month; the same in every export and on the invoice itself.
pub(crate) fn invoice_number(project: &str, begin: Timestamp) -> String {
    let month: String = begin.zulu_secs().chars().take(7).collect();
    format!("{month}-{project}")
}

/// Whether it changes what an earlier period has said: it names a line, or it is usage that came to light after its period
/// was closed. (What is settled over a whole bill begins with the bill and corrects nothing.)
pub(crate) fn is_correction(line: &RatedLine) -> bool {
    line.corrects.is_some() || (line.kind == LineKind::Usage && line.begin < line.period)
}

impl<'a> Charge<'a> {
    pub(crate) fn new(line: &'a RatedLine, catalogue: &'a Catalogue, run: Uuid) -> Self {
        let project = catalogue.project(&line.scope);
        let service = catalogue.services.get(&line.service);
        Self { line, catalogue, project, service, month: month_of(line.period), run }
    }

    /// Whether there is a price of something behind it: taxes and credits have none.
    fn is_priced(&self) -> bool {
        matches!(self.line.kind, LineKind::Usage | LineKind::Purchase)
    }

    fn fact(&self, names: &[&str]) -> Cell {
        let found =
            names.iter().find_map(|name| self.line.metadata.get(*name).or_else(|| self.line.groupby.get(*name)));
        found.map_or(Cell::Null, |text| Cell::text(text))
    }

    pub(crate) fn availability_zone(&self) -> Cell {
        self.fact(&["availability_zone"])
    }

    pub(crate) fn cost(&self) -> Cell {
        Cell::Decimal(self.line.cost.clone())
    }

    /// FOCUS wants zero of what was bought in advance; a package's fee is with what it covers, each part with its usage. (Of a fee
    /// that covers nothing the specification does not say so, but its validator does.)
    pub(crate) fn effective_cost(&self) -> Cell {
        let line = self.line;
        match line.kind {
            LineKind::Purchase => Cell::Decimal(BigDecimal::from(0)),
            LineKind::Adjustment => {
                let amortized = line.metadata.get("amortized").and_then(|text| text.parse::<BigDecimal>().ok());
                let amortized = amortized.unwrap_or_default();
                Cell::Decimal(if line.reverses { &line.cost - amortized } else { &line.cost + amortized })
            }
            _ => self.cost(),
        }
    }

    pub(crate) fn account_id(&self) -> Cell {
        let domain = self.project.map(|project| project.domain_id.as_str()).filter(|domain| !domain.is_empty());
        Cell::text(domain.unwrap_or(&self.catalogue.account_id))
    }

    pub(crate) fn account_name(&self) -> Cell {
        let domain = self.project.map(|project| project.domain_name.as_str()).filter(|domain| !domain.is_empty());
        Cell::text(domain.unwrap_or(&self.catalogue.account_name))
    }

    pub(crate) fn account_type(&self) -> Cell {
        Cell::text("Domain")
    }

    pub(crate) fn currency(&self) -> Cell {
        Cell::text(&self.line.currency)
    }

    pub(crate) fn billing_begin(&self) -> Cell {
        Cell::Time(self.month.0)
    }

    pub(crate) fn billing_end(&self) -> Cell {
        Cell::Time(self.month.1)
    }

    pub(crate) fn category(&self) -> Cell {
        Cell::text(self.line.kind.name())
    }

    pub(crate) fn class(&self) -> Cell {
        if is_correction(self.line) { Cell::text("Correction") } else { Cell::Null }
    }

    pub(crate) fn description(&self) -> Cell {
        let what = self.service.map_or(self.line.service.as_str(), |service| service.name.as_str());
        let kind = match self.line.kind {
            LineKind::Usage => String::new(),
            other => format!("{}: ", other.name()),
        };
        let which = ["flavor_name", "volume_type", "name", "display_name"];
        let which = which.iter().find_map(|name| self.line.metadata.get(*name));
        let which = which.map_or(String::new(), |which| format!(" {which}"));
        let back = match (self.line.corrects, self.line.reverses) {
            (Some(line), true) => format!(", takes back {line}"),
            (Some(line), false) => format!(", instead of {line}"),
            (None, _) => String::new(),
        };
        Cell::text(&format!("{kind}{what}{which}{back}"))
    }

    pub(crate) fn frequency(&self) -> Cell {
        let is_monthly = self.line.metadata.get("frequency").is_some_and(|frequency| frequency == "monthly");
        Cell::text(match self.line.kind {
            LineKind::Usage => "Usage-Based",
            LineKind::Purchase if is_monthly => "Recurring",
            _ => "One-Time",
        })
    }

    pub(crate) fn begin(&self) -> Cell {
        Cell::Time(self.line.begin)
    }

    pub(crate) fn end(&self) -> Cell {
        Cell::Time(self.line.end)
    }

    pub(crate) fn consumed_quantity(&self) -> Cell {
        if self.line.kind == LineKind::Usage { Cell::Decimal(self.line.quantity.clone()) } else { Cell::Null }
    }

    pub(crate) fn consumed_unit(&self) -> Cell {
        if self.line.kind == LineKind::Usage { self.unit() } else { Cell::Null }
    }

    fn unit(&self) -> Cell {
        Cell::text(if self.line.unit.is_empty() { "Units" } else { &self.line.unit })
    }

    pub(crate) fn pricing_quantity(&self) -> Cell {
        if self.is_priced() { Cell::Decimal(self.line.quantity.clone()) } else { Cell::Null }
    }

    pub(crate) fn pricing_unit(&self) -> Cell {
        if self.is_priced() { self.unit() } else { Cell::Null }
    }

    pub(crate) fn list_unit_price(&self) -> Cell {
        if self.is_priced() { Cell::Decimal(self.line.unit_price.clone()) } else { Cell::Null }
    }

    /// What it would have cost without thresholds and discounts.
    pub(crate) fn list_cost(&self) -> Cell {
        let cost = if self.is_priced() {
            cost_of(&(&self.line.unit_price * &self.line.quantity))
        } else {
            self.line.cost.clone()
        };
        Cell::Decimal(cost)
    }

    /// What a unit came to.
    pub(crate) fn contracted_unit_price(&self) -> Cell {
        if !self.is_priced() {
            return Cell::Null;
        }
        let line = self.line;
        let zero = BigDecimal::from(0);
        let is_list_price = cost_of(&(&line.unit_price * &line.quantity)) == line.cost;
        let price = if is_list_price || line.quantity == zero {
            line.unit_price.clone()
        } else {
            cost_of(&(&line.cost / &line.quantity))
        };
        Cell::Decimal(price)
    }

    pub(crate) fn invoice(&self) -> Cell {
        Cell::text(&invoice_number(&self.line.scope, self.month.0))
    }

    pub(crate) fn issuer(&self) -> Cell {
        Cell::text(self.catalogue.issuer())
    }

    pub(crate) fn pricing_category(&self) -> Cell {
        if self.is_priced() { Cell::text("Standard") } else { Cell::Null }
    }

    pub(crate) fn pricing_currency(&self) -> Cell {
        self.currency()
    }

    pub(crate) fn provider(&self) -> Cell {
        Cell::text(&self.catalogue.provider)
    }

    pub(crate) fn publisher(&self) -> Cell {
        Cell::text(self.catalogue.publisher())
    }

    pub(crate) fn region_id(&self) -> Cell {
        Cell::text(&self.catalogue.region_id)
    }

    pub(crate) fn region_name(&self) -> Cell {
        let name = &self.catalogue.region_name;
        Cell::text(if name.is_empty() { &self.catalogue.region_id } else { name })
    }

    pub(crate) fn resource_id(&self) -> Cell {
        Cell::text(&self.line.resource)
    }

    pub(crate) fn resource_name(&self) -> Cell {
        if self.line.resource.is_empty() {
            return Cell::Null;
        }
        match self.fact(&["display_name", "name"]) {
            Cell::Null => Cell::Null,
            name => name,
        }
    }

    pub(crate) fn resource_type(&self) -> Cell {
        if self.line.resource.is_empty() { Cell::Null } else { Cell::text(&self.line.service) }
    }

    pub(crate) fn service_category(&self) -> Cell {
        Cell::text(self.service.map_or(OTHER, |service| &service.category))
    }

    pub(crate) fn service_name(&self) -> Cell {
        Cell::text(self.service.map_or(&self.line.service, |service| &service.name))
    }

    pub(crate) fn service_subcategory(&self) -> Cell {
        Cell::text(self.service.map_or(OTHER_SUBCATEGORY, |service| &service.subcategory))
    }

    /// The properties that tell what is sold apart, as far as the line has them.
    fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.catalogue.sku_properties.iter();
        all.filter_map(|name| Some((name.as_str(), self.line.metadata.get(name)?.as_str())))
    }

    /// What is sold: a service's usage of one kind (`instance/flavor_name=m1.tiny`), or a purchase by its rule.
    fn sku_id(&self) -> Option<String> {
        match self.line.kind {
            LineKind::Purchase => Some(self.line.rule.clone()),
            _ if self.is_priced() => {
                let properties: Vec<String> =
                    self.properties().map(|(name, value)| format!("{name}={value}")).collect();
                let parts = [self.line.service.clone(), properties.join(",")];
                Some(parts[..if properties.is_empty() { 1 } else { 2 }].join("/"))
            }
            _ => None,
        }
    }

    pub(crate) fn sku(&self) -> Cell {
        self.sku_id().map_or(Cell::Null, Cell::Text)
    }

    pub(crate) fn sku_meter(&self) -> Cell {
        if self.is_priced() { Cell::text(&self.line.service) } else { Cell::Null }
    }

    /// Only what the price depends on: the properties that the rules look at.
    pub(crate) fn sku_price_details(&self) -> Cell {
        if !self.is_priced() {
            return Cell::Null;
        }
        let details: BTreeMap<String, &str> =
            self.properties().map(|(name, value)| (format!("x_{name}"), value)).collect();
        if details.is_empty() { Cell::Null } else { json(&details) }
    }

    /// The price of what is sold: its rule and version, and for usage what is sold and for how much, since one version of the
    /// hashmap has a price for each value of a field, for single projects and for a time. So it has one unit price in a currency.
    pub(crate) fn sku_price(&self) -> Cell {
        let Some(sku) = self.sku_id() else { return Cell::Null };
        let rule = format!("{}@{}", self.line.rule, self.line.rule_version);
        match self.line.kind {
            LineKind::Purchase => Cell::Text(rule),
            _ => Cell::Text(format!("{rule}/{sku}@{}", self.line.unit_price.normalized().to_plain_string())),
        }
    }

    pub(crate) fn project(&self) -> Cell {
        Cell::text(&self.line.scope)
    }

    pub(crate) fn project_name(&self) -> Cell {
        let name = self.project.map(|project| project.name.as_str()).filter(|name| !name.is_empty());
        Cell::text(name.unwrap_or(&self.line.scope))
    }

    pub(crate) fn project_type(&self) -> Cell {
        if self.line.scope.is_empty() { Cell::Null } else { Cell::text("Project") }
    }

    pub(crate) fn tags(&self) -> Cell {
        json(&*self.line.metadata)
    }

    pub(crate) fn corrects(&self) -> Cell {
        self.line.corrects.map_or(Cell::Null, |line| Cell::Text(line.to_string()))
    }

    pub(crate) fn run(&self) -> Cell {
        Cell::Text(self.run.to_string())
    }

    pub(crate) fn line_id(&self) -> Cell {
        Cell::Text(self.line.id.to_string())
    }

    pub(crate) fn rule(&self) -> Cell {
        Cell::text(&self.line.rule)
    }

    pub(crate) fn rule_version(&self) -> Cell {
        Cell::Integer(i64::try_from(self.line.rule_version).unwrap_or(i64::MAX))
    }

    pub(crate) fn samples(&self) -> Cell {
        Cell::Integer(i64::try_from(self.line.samples).unwrap_or(i64::MAX))
    }
}

fn json(value: &impl serde::Serialize) -> Cell {
    Cell::Text(serde_json::to_string(value).expect("texts are JSON"))
}
