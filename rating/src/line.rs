//! One rated line: what was used, by which rule, for how much. Made by the processor, kept by a [`crate::Ledger`],
//! never changed: what turns out to be wrong is taken back and replaced by later lines that name it.

use std::{collections::BTreeMap, sync::Arc};

use bigdecimal::{BigDecimal, RoundingMode};
use orzo_model::Timestamp;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use uuid::Uuid;

/// Digits after the point of a cost: a ten-thousandth of a micro-unit, and what the ledger's decimals hold.
pub const COST_SCALE: i64 = 10;
/// Digits before the point of a quantity or a cost: what the ledger's decimals hold.
pub const WHOLE_DIGITS_MAX: i64 = 28;
/// What ids of lines are made within.
const LINES: Uuid = Uuid::from_u128(0x6f72_7a6f_6c69_4e65_8a3d_5d1c_7be0_4f21);

/// Why something is charged: FOCUS's ChargeCategory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LineKind {
    /// For what was used.
    Usage,
    /// For what was bought in advance, used or not: a package that covers later usage.
    Purchase,
    /// For the state.
    Tax,
    /// Given to the customer.
    Credit,
    /// Made right by hand, or by a minimum.
    Adjustment,
}

impl LineKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Usage, Self::Purchase, Self::Tax, Self::Credit, Self::Adjustment];

    /// As FOCUS writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "Usage",
            Self::Purchase => "Purchase",
            Self::Tax => "Tax",
            Self::Credit => "Credit",
            Self::Adjustment => "Adjustment",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Names and values, shared by the lines of one resource.
pub type Facts = Arc<BTreeMap<String, String>>;

/// One rated line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatedLine {
    /// [`Self::identity`].
    pub id: Uuid,
    /// Project id.
    pub scope: String,
    /// Metric type, such as `instance` (`alt_name` of `metrics.yml`).
    pub service: String,
    /// Resource id; empty where it is grouped away.
    pub resource: String,
    /// From when it was used.
    pub begin: Timestamp,
    /// Until when it was used; at most the end of the rating period that it was used in.
    pub end: Timestamp,
    /// Begin of the rating period that it belongs to. Corrections of a closed period belong to a later one.
    pub period: Timestamp,
    /// Of the quantity.
    pub unit: String,
    /// How much, after factor, offset and mutation; pro-rated.
    pub quantity: BigDecimal,
    /// What one unit costs, before thresholds; for people.
    pub unit_price: BigDecimal,
    /// Before tax, rounded half-even to [`COST_SCALE`] digits ([`cost_of`]) here and nowhere else.
    pub cost: BigDecimal,
    /// ISO 4217.
    pub currency: String,
    /// Why it is charged.
    pub kind: LineKind,
    /// The line that this one takes back or replaces.
    pub corrects: Option<Uuid>,
    /// Whether it takes `corrects` back: the same with quantity and cost negated.
    pub reverses: bool,
    /// Id of the rule that priced it.
    pub rule: String,
    /// Version of the rules.
    pub rule_version: u64,
    /// Tells lines apart that have all else of the id in common: the steps of a tier.
    pub sequence: u32,
    /// What the metric is grouped by: `id`, `project_id`, `user_id` ...
    pub groupby: Facts,
    /// What else rules and people look at: `flavor_name` ...
    pub metadata: Facts,
    /// How many samples or events it rests on.
    pub samples: u64,
    /// When it was made.
    pub rated_at: Timestamp,
}

/// A cost as it is charged: rounded half-even to [`COST_SCALE`] digits.
pub fn cost_of(exact: &BigDecimal) -> BigDecimal {
    exact.with_scale_round(COST_SCALE, RoundingMode::HalfEven)
}

/// A sum as it is paid: rounded half-even to so many digits.
pub fn rounded(exact: &BigDecimal, digits: i64) -> BigDecimal {
    exact.with_scale_round(digits, RoundingMode::HalfEven)
}

impl RatedLine {
    /// The id that this line has: UUIDv5 of what makes it this line. Rating the same again makes the same id.
    pub fn identity(&self) -> Uuid {
        let mut name = Vec::with_capacity(256);
        name.extend_from_slice(LINES.as_bytes());
        // Lengths, so that no two lists of texts look the same.
        for text in [&self.scope, &self.resource, &self.service, &self.rule] {
            name.extend_from_slice(&(text.len() as u64).to_le_bytes());
            name.extend_from_slice(text.as_bytes());
        }
        name.extend_from_slice(&self.begin.micros().to_le_bytes());
        name.extend_from_slice(&self.rule_version.to_le_bytes());
        name.extend_from_slice(&self.sequence.to_le_bytes());
        name.push(self.kind as u8);
        name.push(u8::from(self.reverses));
        if let Some(corrects) = self.corrects {
            name.extend_from_slice(corrects.as_bytes());
        }
        // As `Uuid::new_v5`, by the processor's own instructions where it has them: every line is hashed twice.
        let digest = Sha1::digest(&name);
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        uuid::Builder::from_sha1_bytes(first).into_uuid()
    }

    /// The same line with its id set.
    pub fn identified(mut self) -> Self {
        self.id = self.identity();
        self
    }

    /// The line that takes this one back, in a period.
    pub fn reversal(&self, period: Timestamp, rated_at: Timestamp) -> Self {
        let reversal = Self {
            quantity: -&self.quantity,
            cost: -&self.cost,
            corrects: Some(self.id),
            reverses: true,
            period,
            rated_at,
            ..self.clone()
        };
        reversal.identified()
    }

    /// Whether it says the same of the same usage: nothing has to be corrected. Ids, times of rating and rule versions may
    /// differ.
    pub fn says_same(&self, other: &Self) -> bool {
        self.scope == other.scope
            && self.service == other.service
            && self.resource == other.resource
            && (self.begin, self.end) == (other.begin, other.end)
            && self.quantity == other.quantity
            && self.cost == other.cost
            && self.currency == other.currency
            && self.kind == other.kind
            && self.unit == other.unit
            && self.rule == other.rule
            && self.sequence == other.sequence
            && self.groupby == other.groupby
            && self.metadata == other.metadata
    }

    /// The order of lines in the ledger's answers.
    pub fn place(&self) -> (Timestamp, &str, &str, &str, Timestamp, u32, Uuid) {
        (self.period, &self.scope, &self.service, &self.resource, self.begin, self.sequence, self.id)
    }
}

/// A line for tests.
#[cfg(test)]
pub(crate) fn example() -> RatedLine {
    let facts = |pairs: &[(&str, &str)]| {
        Arc::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    };
    RatedLine {
        id: Uuid::nil(),
        scope: "p".to_owned(),
        service: "instance".to_owned(),
        resource: "r".to_owned(),
        begin: Timestamp::from_secs(3600),
        end: Timestamp::from_secs(7200),
        period: Timestamp::from_secs(3600),
        unit: "instance".to_owned(),
        quantity: BigDecimal::from(1),
        unit_price: BigDecimal::from(2),
        cost: cost_of(&BigDecimal::from(2)),
        currency: "EUR".to_owned(),
        kind: LineKind::Usage,
        corrects: None,
        reverses: false,
        rule: "hashmap:instance".to_owned(),
        rule_version: 1,
        sequence: 0,
        groupby: facts(&[("id", "r")]),
        metadata: facts(&[("flavor_name", "tiny")]),
        samples: 6,
        rated_at: Timestamp::from_secs(9000),
    }
    .identified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_follows_from_what_the_line_is_and_from_nothing_else() {
        let line = example();
        assert_eq!(
            line.id,
            Uuid::parse_str("3f686272-d7f1-59b9-bf08-bc6e5b7dd82f").expect("an id"),
            "ids are for ever"
        );
        let later = RatedLine { rated_at: Timestamp::from_secs(1), samples: 9, ..line.clone() };
        assert_eq!(later.identity(), line.id);
        let others = [
            RatedLine { scope: "q".to_owned(), ..line.clone() },
            RatedLine { scope: "pr".to_owned(), resource: String::new(), ..line.clone() },
            RatedLine { service: "volume".to_owned(), ..line.clone() },
            RatedLine { begin: Timestamp::from_secs(3601), ..line.clone() },
            RatedLine { rule_version: 2, ..line.clone() },
            RatedLine { sequence: 1, ..line.clone() },
            RatedLine { kind: LineKind::Tax, ..line.clone() },
            RatedLine { corrects: Some(line.id), ..line.clone() },
            RatedLine { corrects: Some(line.id), reverses: true, ..line.clone() },
        ];
        let mut ids: Vec<Uuid> = others.iter().map(RatedLine::identity).chain([line.id]).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), others.len() + 1);
    }

    #[test]
    fn a_reversal_and_its_line_sum_to_nothing() {
        let line = example();
        let back = line.reversal(Timestamp::from_secs(10_800), Timestamp::from_secs(20_000));
        assert_eq!(&back.cost + &line.cost, BigDecimal::from(0));
        assert_eq!(&back.quantity + &line.quantity, BigDecimal::from(0));
        assert_eq!((back.corrects, back.reverses, back.begin), (Some(line.id), true, line.begin));
        assert_eq!(back.period, Timestamp::from_secs(10_800));
        assert!(!line.says_same(&back));
    }

    #[test]
    fn costs_are_rounded_half_even_once() {
        let number = |text: &str| text.parse::<BigDecimal>().expect("a number");
        assert_eq!(cost_of(&number("0.00000000005")), number("0"));
        assert_eq!(cost_of(&number("0.00000000015")), number("0.0000000002"));
        assert_eq!(cost_of(&number("-1.00000000025")), number("-1.0000000002"));
    }
}
