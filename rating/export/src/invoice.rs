//! Invoices: what a project owes for a time, as a person reads it. JSON for programs, HTML that prints well for people.
//!
//! Lines of the ledger become positions: the same service, flavor, price and kind together. Costs keep all their digits;
//! each currency's sum is rounded once, half to even, to its smallest coin, and that is what is to be paid.

use std::{collections::BTreeMap, path::Path};

use futures::StreamExt;
use minijinja::{Environment, context};
use orzo_model::Timestamp;
use orzo_rating::{BigDecimal, Ledger, LineFilter, LineKind, RatedLine, currency::coin_places};
use serde::Serialize;

use crate::{
    catalogue::Catalogue,
    error::ExportError,
    focus::{invoice_number, is_correction},
};

/// Positions of one invoice: beyond that a person reads nothing.
const POSITIONS_MAX: usize = 100_000;
/// Projects of one call.
const INVOICES_MAX: usize = 100_000;
/// The shipped page. An operator's own may be given instead; both get an [`Invoice`] as `invoice` and texts as `say`.
const TEMPLATE: &str = include_str!("invoice.html");
/// Largest template of an operator's own.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;
/// Steps that a template may take: an invoice of all its positions takes a few millions.
const TEMPLATE_STEPS: u64 = 10_000_000;

/// The language of an invoice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// By its code, `en` or `zh`.
    pub fn named(code: &str) -> Option<Self> {
        match code {
            "en" => Some(Self::English),
            "zh" => Some(Self::Chinese),
            _ => None,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    fn texts(self) -> BTreeMap<&'static str, &'static str> {
        let texts: &[(&str, &str, &str)] = &[
            ("invoice", "Invoice", "账单"),
            ("provisional", "Provisional: the period is not closed", "暂定：计费周期尚未结束"),
            ("number", "Number", "编号"),
            ("period", "Period", "计费周期"),
            ("until", "until before", "至（不含）"),
            ("issuer", "Issued by", "开具方"),
            ("customer", "For", "客户"),
            ("project", "Project", "项目"),
            ("position", "What was used", "使用项目"),
            ("quantity", "Quantity", "数量"),
            ("unit", "Unit", "单位"),
            ("price", "Unit price", "单价"),
            ("cost", "Cost", "费用"),
            ("corrections", "Corrections of earlier periods", "对以往周期的更正"),
            ("usage", "Usage", "使用量"),
            ("purchase", "Purchases", "购买"),
            ("credit", "Credits and discounts", "抵扣与折扣"),
            ("adjustment", "Adjustments", "调整"),
            ("tax", "Tax", "税"),
            ("net", "Net", "净额"),
            ("total", "Total", "总计"),
            ("exact", "before rounding", "舍入前"),
            (
                "rounding",
                "Costs are exact; each total is rounded once, half to even.",
                "费用为精确值；每个总计仅舍入一次（四舍六入五成双）。",
            ),
            ("nothing", "Nothing was used.", "没有使用记录。"),
        ];
        let pick = |(key, english, chinese): &(&'static str, &'static str, &'static str)| {
            (*key, if self == Self::English { *english } else { *chinese })
        };
        texts.iter().map(pick).collect()
    }
}

/// A line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The service, by the catalogue's name.
    pub service: String,
    /// Which: flavor, volume type.
    pub detail: String,
    /// How many resources.
    pub resources: u64,
    /// How much.
    pub quantity: String,
    /// Of what.
    pub unit: String,
    /// What a unit costs.
    pub unit_price: String,
    /// The sum of its lines' costs, exact.
    pub cost: String,
}

/// What is to be paid in one currency. Decimals as texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InvoiceTotals {
    /// ISO 4217.
    pub currency: String,
    /// Usage, in the ledger's order.
    pub usage: Vec<Position>,
    /// What was bought.
    pub purchases: Vec<Position>,
    /// Given to the customer.
    pub credits: Vec<Position>,
    /// Made right by hand, or by a minimum.
    pub adjustments: Vec<Position>,
    /// What corrects lines of earlier periods.
    pub corrections: Vec<Position>,
    /// For the state.
    pub taxes: Vec<Position>,
    /// All but taxes, exact.
    pub net: String,
    /// The taxes, exact.
    pub tax: String,
    /// Both, exact.
    pub exact: String,
    /// Both, rounded half to even to the smallest coin.
    pub total: String,
}

/// An invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invoice {
    /// The same as FOCUS's InvoiceId of its lines.
    pub number: String,
    /// Who wants the money.
    pub issuer: String,
    /// From whom: the project's id.
    pub project: String,
    /// Its name.
    pub project_name: String,
    /// Its address, in lines.
    pub address: Vec<String>,
    /// From when.
    pub begin: Timestamp,
    /// Until when.
    pub end: Timestamp,
    /// Whether lines of the period may still come.
    pub is_provisional: bool,
    /// How many lines of the ledger.
    pub lines: u64,
    /// By currency.
    pub currencies: Vec<InvoiceTotals>,
    /// Chinese names of services, by the English ones.
    #[serde(skip)]
    pub names_zh: BTreeMap<String, String>,
}

/// What lines are put together by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PositionKey {
    section: Section,
    service: String,
    detail: String,
    unit: String,
    unit_price: BigDecimal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Usage,
    Purchase,
    Credit,
    Adjustment,
    Correction,
    Tax,
}

#[derive(Default)]
struct Sum {
    resources: std::collections::BTreeSet<String>,
    quantity: BigDecimal,
    cost: BigDecimal,
}

#[derive(Default)]
struct Draft {
    lines: u64,
    currencies: BTreeMap<String, BTreeMap<PositionKey, Sum>>,
}

impl Draft {
    fn add(&mut self, line: &RatedLine) -> Result<(), ExportError> {
        let section = match line.kind {
            LineKind::Tax => Section::Tax,
            _ if is_correction(line) => Section::Correction,
            LineKind::Usage => Section::Usage,
            LineKind::Purchase => Section::Purchase,
            LineKind::Credit => Section::Credit,
            LineKind::Adjustment => Section::Adjustment,
        };
        let detail = ["flavor_name", "volume_type", "name"].iter().find_map(|name| line.metadata.get(*name));
        let key = PositionKey {
            section,
            service: line.service.clone(),
            detail: detail.cloned().unwrap_or_default(),
            unit: line.unit.clone(),
            unit_price: line.unit_price.normalized(),
        };
        self.lines += 1;
        let positions = self.currencies.entry(line.currency.clone()).or_default();
        if positions.len() >= POSITIONS_MAX && !positions.contains_key(&key) {
            return Err(ExportError::Request(format!(
                "the invoice of project {} has more than {POSITIONS_MAX} positions; ask for a shorter time",
                line.scope
            )));
        }
        let sum = positions.entry(key).or_default();
        sum.resources.insert(line.resource.clone());
        sum.quantity += &line.quantity;
        sum.cost += &line.cost;
        Ok(())
    }

    fn invoice(
        self,
        project: &str,
        begin: Timestamp,
        end: Timestamp,
        is_provisional: bool,
        catalogue: &Catalogue,
    ) -> Invoice {
        let known = catalogue.project(project);
        let name = known.map(|known| known.name.clone()).filter(|name| !name.is_empty());
        Invoice {
            number: invoice_number(project, begin),
            issuer: catalogue.issuer().to_owned(),
            project: project.to_owned(),
            project_name: name.unwrap_or_else(|| project.to_owned()),
            address: known.map(|known| known.address.clone()).unwrap_or_default(),
            begin,
            end,
            is_provisional,
            lines: self.lines,
            currencies: self.currencies.into_iter().map(|(currency, sums)| totals(currency, sums, catalogue)).collect(),
            names_zh: catalogue.names_zh(),
        }
    }
}

fn totals(currency: String, sums: BTreeMap<PositionKey, Sum>, catalogue: &Catalogue) -> InvoiceTotals {
    let mut sections: BTreeMap<Section, Vec<Position>> = BTreeMap::new();
    let (mut net, mut tax) = (BigDecimal::from(0), BigDecimal::from(0));
    for (key, sum) in sums {
        *if key.section == Section::Tax { &mut tax } else { &mut net } += &sum.cost;
        let service = catalogue.services.get(&key.service).map_or(&key.service, |service| &service.name);
        sections.entry(key.section).or_default().push(Position {
            service: service.clone(),
            detail: key.detail,
            resources: sum.resources.iter().filter(|resource| !resource.is_empty()).count() as u64,
            quantity: text(&sum.quantity),
            unit: key.unit,
            unit_price: text(&key.unit_price),
            cost: text(&sum.cost),
        });
    }
    let exact = &net + &tax;
    let mut take = |section| sections.remove(&section).unwrap_or_default();
    InvoiceTotals {
        usage: take(Section::Usage),
        purchases: take(Section::Purchase),
        credits: take(Section::Credit),
        adjustments: take(Section::Adjustment),
        corrections: take(Section::Correction),
        taxes: take(Section::Tax),
        net: text(&net),
        tax: text(&tax),
        total: coins(&exact, &currency),
        exact: text(&exact),
        currency,
    }
}

/// Two digits after the point at least, all that are needed at most.
fn text(number: &BigDecimal) -> String {
    let plain = number.normalized().to_plain_string();
    let digits = plain.split_once('.').map_or(0, |(_, digits)| digits.len());
    match digits {
        0 => format!("{plain}.00"),
        1 => format!("{plain}0"),
        _ => plain,
    }
}

/// Rounded half to even to the currency's smallest coin.
fn coins(number: &BigDecimal, currency: &str) -> String {
    orzo_rating::line::rounded(number, coin_places(currency)).to_plain_string()
}

/// The invoices of all projects (or of these) that have lines in these periods, by project.
pub async fn invoices(
    ledger: &dyn Ledger,
    begin: Timestamp,
    end: Timestamp,
    scopes: Option<Vec<String>>,
    is_provisional: bool,
    catalogue: &Catalogue,
) -> Result<Vec<Invoice>, ExportError> {
    let invoice = |(project, draft): (String, Draft)| draft.invoice(&project, begin, end, is_provisional, catalogue);
    Ok(drafts(ledger, begin, end, scopes).await?.into_iter().map(invoice).collect())
}

/// The invoice of a project whose time is not closed yet, with the lines that closing it now would add. `None`: it has no line.
pub async fn preview(
    ledger: &dyn Ledger,
    begin: Timestamp,
    end: Timestamp,
    project: &str,
    expected: &[RatedLine],
    catalogue: &Catalogue,
) -> Result<Option<Invoice>, ExportError> {
    let mut draft =
        drafts(ledger, begin, end, Some(vec![project.to_owned()])).await?.remove(project).unwrap_or_default();
    for line in expected {
        draft.add(line)?;
    }
    Ok((draft.lines > 0).then(|| draft.invoice(project, begin, end, true, catalogue)))
}

async fn drafts(
    ledger: &dyn Ledger,
    begin: Timestamp,
    end: Timestamp,
    scopes: Option<Vec<String>>,
) -> Result<BTreeMap<String, Draft>, ExportError> {
    let filter = LineFilter { scopes, begin: Some(begin), end: Some(end), ..LineFilter::default() };
    let mut drafts: BTreeMap<String, Draft> = BTreeMap::new();
    let mut lines = ledger.read(&filter).await?;
    while let Some(line) = lines.next().await {
        let line = line?;
        if drafts.len() >= INVOICES_MAX && !drafts.contains_key(&line.scope) {
            return Err(ExportError::Request(format!("more than {INVOICES_MAX} projects; name some")));
        }
        drafts.entry(line.scope.clone()).or_default().add(&line)?;
    }
    Ok(drafts)
}

impl InvoiceTotals {
    fn positions(&mut self) -> impl Iterator<Item = &mut Position> {
        let Self { usage, purchases, credits, adjustments, corrections, taxes, .. } = self;
        [usage, purchases, credits, adjustments, corrections, taxes].into_iter().flatten()
    }
}

impl Invoice {
    /// The same with Chinese names of services, where there are any.
    fn in_chinese(&self) -> Self {
        let mut invoice = self.clone();
        for position in invoice.currencies.iter_mut().flat_map(InvoiceTotals::positions) {
            if let Some(name) = self.names_zh.get(&position.service) {
                position.service.clone_from(name);
            }
        }
        invoice
    }

    /// As a page, by the shipped template or by an operator's own (Jinja, its text escaped by itself).
    pub fn html(&self, language: Language, template: Option<&Path>) -> Result<String, ExportError> {
        let own = match template {
            None => None,
            Some(path) => {
                let length = std::fs::metadata(path).map_err(ExportError::file("read", path))?.len();
                if length > TEMPLATE_BYTES_MAX {
                    return Err(ExportError::Request(format!(
                        "{} is larger than {TEMPLATE_BYTES_MAX} bytes",
                        path.display()
                    )));
                }
                Some(std::fs::read_to_string(path).map_err(ExportError::file("read", path))?)
            }
        };
        let mut environment = Environment::new();
        environment.set_fuel(Some(TEMPLATE_STEPS));
        let wrong = |error: minijinja::Error| ExportError::Request(format!("the template of invoices: {error:#}"));
        // The name ends in .html: all values are escaped.
        environment.add_template("invoice.html", own.as_deref().unwrap_or(TEMPLATE)).map_err(wrong)?;
        let invoice = match language {
            Language::English => self.clone(),
            Language::Chinese => self.in_chinese(),
        };
        let values = context! { invoice, say => language.texts(), language => language.code() };
        environment.get_template("invoice.html").and_then(|page| page.render(values)).map_err(wrong)
    }
}
