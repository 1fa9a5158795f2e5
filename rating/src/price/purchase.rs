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

use super::{Bill, Charge, LineKind, RatedLine, Written, share};
use crate::{decimal::decimal, forecast::month, line::cost_of, processor::effective};

/// The service under which is shown what is bought for no service, and under which all fees are summed.
const PURCHASE_SERVICE: &str = "purchase";
/// Longest name.
const NAME_CHARACTERS_MAX: usize = 200;

/// How often a fee is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frequency {
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
    service: String,
    quantity: BigDecimal,
}

/// One term of a purchase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'p> {
    pub(super) id: &'p str,
    pub(super) purchase: &'p Purchase,
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
pub struct Taken(BTreeMap<(String, String), BigDecimal>);

impl Taken {
    /// As a project's lines say it: those of earlier bills.
    pub fn of(lines: &[RatedLine]) -> Self {
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

impl Purchase {
    pub(super) fn read(
        written: &Written,
        number: &impl Fn(&str, &Option<super::Number>) -> Result<BigDecimal, String>,
    ) -> Result<Self, String> {
        let name = written.name.clone().ok_or("name is missing")?;
        if name.is_empty() || name.chars().count() > NAME_CHARACTERS_MAX {
            return Err(format!("name has 1 to {NAME_CHARACTERS_MAX} characters"));
        }
        let frequency = match written.frequency.as_deref() {
            Some("once") => Frequency::Once,
            Some("monthly") => Frequency::Monthly,
            Some(_) => return Err("frequency is once or monthly".to_owned()),
            None => return Err("frequency is missing: once or monthly".to_owned()),
        };
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

    /// Its terms that a time touches, oldest first.
    pub(super) fn spans<'p>(&'p self, id: &'p str, begin: Timestamp, end: Timestamp) -> Vec<Span<'p>> {
        let span = |from, until| Span { id, purchase: self, from, until };
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

    fn is_due_in(&self, bill: &Bill<'_>) -> bool {
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
    fn fee(&self, bill: &Bill<'_>) -> Purchased {
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
            unit: purchase.frequency.unit().to_owned(),
            facts,
        };
        Purchased { charge, sum: PURCHASE_SERVICE.to_owned(), covered: BigDecimal::zero() }
    }

    /// What takes off usage that the term covers. It says the part of the fee that is used up with it, for who spreads fees over
    /// what they were paid for.
    fn cover(&self, package: &Package, covered: BigDecimal, cost: &BigDecimal, bill: &Bill<'_>) -> Purchased {
        let mut facts = self.facts();
        facts.insert("covered".to_owned(), covered.normalized().to_plain_string());
        let amortized = cost_of(&share(&self.purchase.amount, &covered, &package.quantity));
        facts.insert("amortized".to_owned(), amortized.normalized().to_plain_string());
        let charge = Charge {
            rule: rule_of(self.id),
            service: package.service.clone(),
            kind: LineKind::Adjustment,
            time: (self.from.max(bill.begin), self.until.min(bill.end)),
            cost: -cost,
            unit: "purchase".to_owned(),
            facts,
        };
        Purchased { charge, sum: package.service.clone(), covered }
    }
}

/// What a bill is charged for terms that it touches, in their order: fees that are due in it, and what they cover.
pub(super) fn charges(spans: &[Span<'_>], lines: &[RatedLine], bill: &Bill<'_>) -> Vec<Purchased> {
    let mut usages: BTreeMap<&str, Stretches> = BTreeMap::new();
    for span in spans {
        if let Some(package) = &span.purchase.package {
            usages.entry(&package.service).or_default().edges.extend([span.from, span.until]);
        }
    }
    for (service, usage) in &mut usages {
        usage.fill(lines.iter().filter(|line| line.kind == LineKind::Usage && line.service == *service));
    }
    let mut made = Vec::new();
    for span in spans {
        // What is given for nothing has no line of its own.
        if span.is_due_in(bill) && !cost_of(&span.purchase.amount).is_zero() {
            made.push(span.fee(bill));
        }
        let Some(package) = &span.purchase.package else { continue };
        let left = bill.taken.left(span, &package.quantity);
        let Some(usage) = usages.get_mut(package.service.as_str()) else { continue };
        let (covered, cost) = usage.take(span, left);
        if !cost_of(&cost).is_zero() {
            made.push(span.cover(package, covered, &cost_of(&cost), bill));
        }
    }
    made
}

/// A service's usage, cut where terms begin and end, so that several of different times share it without counting any twice.
#[derive(Default)]
struct Stretches {
    /// Begins and ends of terms, in order.
    edges: Vec<Timestamp>,
    /// What was used from each edge to the next one, and its cost; the first one is before all edges.
    uses: Vec<(BigDecimal, BigDecimal)>,
}

impl Stretches {
    fn fill<'l>(&mut self, lines: impl Iterator<Item = &'l RatedLine>) {
        self.edges.sort_unstable();
        self.edges.dedup();
        self.uses = vec![Default::default(); self.edges.len() + 1];
        for line in lines {
            let place = self.place(line.begin);
            self.uses[place].0 += &line.quantity;
            self.uses[place].1 += &line.cost;
        }
    }

    /// The stretch that a moment is in.
    fn place(&self, at: Timestamp) -> usize {
        self.edges.partition_point(|edge| *edge <= at)
    }

    /// Takes up to so much of a term's usage out; says how much, and what it cost. What costs nothing, and what corrections have
    /// left nothing of, takes nothing of a package.
    fn take(&mut self, span: &Span<'_>, mut left: BigDecimal) -> (BigDecimal, BigDecimal) {
        let (mut covered, mut taken) = (BigDecimal::zero(), BigDecimal::zero());
        let places = self.place(span.from)..self.place(span.until);
        for (quantity, cost) in &mut self.uses[places] {
            if left <= BigDecimal::zero() {
                break;
            }
            if *quantity <= BigDecimal::zero() || *cost <= BigDecimal::zero() {
                continue;
            }
            let part = left.clone().min(quantity.clone());
            let own = share(cost, &part, quantity);
            *quantity -= &part;
            *cost -= &own;
            left -= &part;
            covered += part;
            taken += own;
        }
        (covered, taken)
    }
}
