//! What is bought in advance, and charged whether it is used or not: a fee, once or each month, and with it, if it is a package,
//! so much of a service's usage as is covered by it. Pure.
//!
//! A purchase has terms: one bought once has one, from `valid_from` until `valid_until`; a monthly one has one for each month (UTC)
//! that its validity touches. A term's fee is due at its begin, in the bill that has this moment, and is charged whole, also
//! where the term is a part of a month: what is bought in advance is neither shared nor given back. What a package covers is
//! taken off at list price, from the usage of its term, the earliest first, until its quantity is used up; what bills before have
//! taken stands on their lines.

use std::collections::BTreeMap;

use bigdecimal::{BigDecimal, Zero};
use orzo_model::Timestamp;

use super::{
    settle::{Charge, Part, share},
    written::{Number, Written},
};
use crate::{
    decimal::decimal,
    forecast::month,
    line::{LineKind, RatedLine, cost_of},
    processor::effective,
};

/// The service under which is shown what is bought for no service, and under which all fees are summed.
pub(super) const PURCHASE_SERVICE: &str = "purchase";
/// Longest name.
const NAME_CHARACTERS_MAX: usize = 200;

/// How often a fee is charged, or a credit given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frequency {
    Once,
    Monthly,
}

impl Frequency {
    fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Monthly => "monthly",
        }
    }

    /// What one of it is, as FOCUS writes units.
    fn unit(self) -> &'static str {
        match self {
            Self::Once => "Units",
            Self::Monthly => "Months",
        }
    }
}

/// What is bought.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Purchase {
    name: String,
    /// What it is for, for people; a package's is what it covers.
    service: Option<String>,
    amount: BigDecimal,
    frequency: Frequency,
    from: Timestamp,
    until: Timestamp,
    /// What of the service's usage each term covers.
    pub(super) package: Option<Package>,
}

/// What a term covers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Package {
    pub(super) service: String,
    quantity: BigDecimal,
}

/// One term of a purchase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'p> {
    pub(super) id: &'p str,
    pub(super) purchase: &'p Purchase,
    /// Of the fee.
    pub(super) currency: &'p str,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// What a bill is charged for a term, and what that changes in its sums.
pub(super) struct Purchased {
    pub(super) charge: Charge,
    /// The sum that the cost is in.
    pub(super) sum: String,
    /// The usage that is covered.
    pub(super) covered: BigDecimal,
}

/// What earlier bills have taken of packages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Taken(BTreeMap<(String, String), BigDecimal>);

impl Taken {
    /// As a project's lines say it: those of earlier bills.
    pub(super) fn of(lines: &[RatedLine]) -> Self {
        let mut taken = Self::default();
        for line in effective(lines).into_iter().filter(|line| line.kind == LineKind::Adjustment) {
            let fact = |name: &str| line.metadata.get(name);
            if let (Some(id), Some(term), Some(covered)) = (fact("rule"), fact("term"), fact("covered"))
                && line.rule == rule_of(id)
                && let Ok(covered) = decimal(covered)
            {
                *taken.0.entry((id.clone(), term.clone())).or_default() += covered;
            }
        }
        taken
    }

    fn left(&self, span: &Span<'_>, quantity: &BigDecimal) -> BigDecimal {
        let key = (span.id.to_owned(), span.term());
        self.0.get(&key).map_or_else(|| quantity.clone(), |taken| quantity - taken)
    }
}

fn rule_of(id: &str) -> String {
    format!("price/purchase/{id}")
}

/// The usage that a purchase's line says is covered; given back by what takes that line back.
pub(super) fn covered(line: &RatedLine) -> BigDecimal {
    let covered = line.metadata.get("covered").filter(|_| line.kind == LineKind::Adjustment);
    let covered = covered.and_then(|text| decimal(text).ok()).unwrap_or_default();
    if line.reverses { -covered } else { covered }
}

impl Purchase {
    pub(super) fn read(
        written: &Written,
        number: &impl Fn(&str, &Option<Number>) -> Result<BigDecimal, String>,
    ) -> Result<Self, String> {
        let name = written.name.clone().ok_or("name is missing")?;
        if name.is_empty() || name.chars().count() > NAME_CHARACTERS_MAX {
            return Err(format!("name has 1 to {NAME_CHARACTERS_MAX} characters"));
        }
        let frequency = written.frequency()?.ok_or("frequency is missing: once or monthly")?;
        let from = written.valid_from.ok_or("valid_from is missing: when it is bought")?;
        let until = written.valid_until.unwrap_or(Timestamp::MAX);
        if from >= until {
            return Err("valid_until is not after valid_from".to_owned());
        }
        let package = match (&written.quantity, &written.service) {
            (None, _) => None,
            (Some(_), None) => return Err("service is missing: the quantity is one of a service".to_owned()),
            (Some(_), Some(service)) => {
                Some(Package { service: service.clone(), quantity: number("quantity", &written.quantity)? })
            }
        };
        let amount = number("amount", &written.amount)?;
        Ok(Self { name, service: written.service.clone(), amount, frequency, from, until, package })
    }

    /// Its terms that a time touches, oldest first; `currency_at` says the fee's currency at a term's begin.
    pub(super) fn spans<'p>(
        &'p self,
        id: &'p str,
        (begin, end): (Timestamp, Timestamp),
        currency_at: impl Fn(Timestamp) -> &'p str,
    ) -> Vec<Span<'p>> {
        let span = |from, until| Span { id, purchase: self, currency: currency_at(from), from, until };
        match self.frequency {
            Frequency::Once if self.from < end && self.until > begin => vec![span(self.from, self.until)],
            Frequency::Once => Vec::new(),
            Frequency::Monthly => {
                let (mut spans, mut first) = (Vec::new(), month(begin.max(self.from), 0));
                while first < end.min(self.until) {
                    let next = month(first, 1);
                    spans.push(span(first.max(self.from), next.min(self.until)));
                    first = next;
                }
                spans
            }
        }
    }
}

impl Span<'_> {
    /// As lines name it.
    fn term(&self) -> String {
        self.from.zulu_micros()
    }

    fn is_due_in(&self, bill: &Part<'_>) -> bool {
        bill.begin <= self.from && self.from < bill.end
    }

    fn facts(&self) -> BTreeMap<String, String> {
        let facts = [
            ("rule", self.id.to_owned()),
            ("name", self.purchase.name.clone()),
            ("frequency", self.purchase.frequency.name().to_owned()),
            ("term", self.term()),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What is charged for the term itself. One without end is shown until the bill's.
    fn fee(&self, bill: &Part<'_>) -> Purchased {
        let purchase = self.purchase;
        let mut facts = self.facts();
        if let Some(package) = &purchase.package {
            facts.insert("included".to_owned(), package.quantity.normalized().to_plain_string());
        }
        let until = if self.until == Timestamp::MAX { bill.end } else { self.until };
        let charge = Charge {
            rule: rule_of(self.id),
            service: purchase.service.clone().unwrap_or_else(|| PURCHASE_SERVICE.to_owned()),
            kind: LineKind::Purchase,
            time: (self.from, until),
            cost: cost_of(&purchase.amount),
            currency: self.currency.to_owned(),
            unit: purchase.frequency.unit().to_owned(),
            facts,
        };
        Purchased { charge, sum: PURCHASE_SERVICE.to_owned(), covered: BigDecimal::zero() }
    }

    /// What takes off usage that the term covers. It says the part of the fee that is used up with it, for who spreads fees over
    /// what they were paid for, if it was paid in the same currency.
    fn cover(&self, package: &Package, used: Use, currency: String, bill: &Part<'_>) -> Purchased {
        let Use { quantity: covered, cost, .. } = used;
        let mut facts = self.facts();
        facts.insert("covered".to_owned(), covered.normalized().to_plain_string());
        if currency == self.currency {
            let amortized = cost_of(&share(&self.purchase.amount, &covered, &package.quantity));
            facts.insert("amortized".to_owned(), amortized.normalized().to_plain_string());
        }
        let charge = Charge {
            rule: rule_of(self.id),
            service: package.service.clone(),
            kind: LineKind::Adjustment,
            time: (self.from.max(bill.begin), self.until.min(bill.end)),
            cost: -cost_of(&cost),
            currency,
            unit: "purchase".to_owned(),
            facts,
        };
        Purchased { charge, sum: package.service.clone(), covered }
    }
}

/// What a bill is charged for terms that it touches, in their order: fees that are due in it, and what they cover.
pub(super) fn charges(spans: &[Span<'_>], lines: &[&RatedLine], bill: &Part<'_>, taken: &Taken) -> Vec<Purchased> {
    let mut usages: BTreeMap<&str, Stretches> = BTreeMap::new();
    for span in spans {
        if let Some(package) = &span.purchase.package {
            usages.entry(&package.service).or_default().edges.extend([span.from, span.until]);
        }
    }
    for (service, usage) in &mut usages {
        let own = lines.iter().filter(|line| line.kind == LineKind::Usage && line.service == *service);
        usage.fill(own.copied());
    }
    let mut made = Vec::new();
    for span in spans {
        // What is given for nothing has no line of its own.
        if span.is_due_in(bill) && !cost_of(&span.purchase.amount).is_zero() {
            made.push(span.fee(bill));
        }
        let Some(package) = &span.purchase.package else { continue };
        let left = taken.left(span, &package.quantity);
        let Some(usage) = usages.get_mut(package.service.as_str()) else { continue };
        for (currency, used) in usage.take(span, left) {
            if !cost_of(&used.cost).is_zero() {
                made.push(span.cover(package, used, currency, bill));
            }
        }
    }
    made
}

/// So much, for so much, of one currency.
#[derive(Clone, Debug, Default)]
struct Use {
    /// When the earliest of it began.
    first: Option<Timestamp>,
    quantity: BigDecimal,
    cost: BigDecimal,
}

/// A service's usage, cut where terms begin and end, so that several of different times share it without counting any twice.
#[derive(Default)]
struct Stretches {
    /// Begins and ends of terms, in order.
    edges: Vec<Timestamp>,
    /// What was used from each edge to the next one, by currency; the first one is before all edges.
    uses: Vec<BTreeMap<String, Use>>,
}

impl Stretches {
    fn fill<'l>(&mut self, lines: impl Iterator<Item = &'l RatedLine>) {
        self.edges.sort_unstable();
        self.edges.dedup();
        self.uses = vec![BTreeMap::new(); self.edges.len() + 1];
        for line in lines {
            let place = self.place(line.begin);
            let own = self.uses[place].entry(line.currency.clone()).or_default();
            own.first = Some(own.first.map_or(line.begin, |first| first.min(line.begin)));
            own.quantity += &line.quantity;
            own.cost += &line.cost;
        }
    }

    /// The stretch that a moment is in.
    fn place(&self, at: Timestamp) -> usize {
        self.edges.partition_point(|edge| *edge <= at)
    }

    /// Takes up to so much of a term's usage out, the earliest first; says how much, and what it cost, by currency. What costs
    /// nothing, and what corrections have left nothing of, takes nothing of a package.
    fn take(&mut self, span: &Span<'_>, mut left: BigDecimal) -> BTreeMap<String, Use> {
        let mut taken: BTreeMap<String, Use> = BTreeMap::new();
        let places = self.place(span.from)..self.place(span.until);
        for stretch in &mut self.uses[places] {
            let mut uses: Vec<_> = stretch.iter_mut().collect();
            uses.sort_by_key(|(_, own)| own.first);
            for (currency, own) in uses {
                if left <= BigDecimal::zero() {
                    return taken;
                }
                if own.quantity <= BigDecimal::zero() || own.cost <= BigDecimal::zero() {
                    continue;
                }
                let part = left.clone().min(own.quantity.clone());
                let cost = share(&own.cost, &part, &own.quantity);
                own.quantity -= &part;
                own.cost -= &cost;
                left -= &part;
                let of = taken.entry(currency.clone()).or_default();
                of.quantity += part;
                of.cost += cost;
            }
        }
        taken
    }
}
