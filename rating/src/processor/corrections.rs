//! What has to be appended so that the ledger says what it should: nothing where it does, else a reversal of the line that
//! is wrong and its replacement. Pure. Nothing that is there is ever changed.

use std::collections::{HashMap, HashSet};

use bigdecimal::BigDecimal;
use orzo_model::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::line::{Facts, LineKind, RatedLine};

/// One difference, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Project.
    pub scope: String,
    /// Metric type.
    pub service: String,
    /// Resource.
    pub resource: String,
    /// Used from.
    pub begin: Timestamp,
    /// The line that was wrong.
    pub before: Option<Uuid>,
    /// What it cost.
    pub cost_before: Option<BigDecimal>,
    /// What is right.
    pub cost_after: Option<BigDecimal>,
}

/// The lines that count: those that were not taken back.
pub fn effective(lines: &[RatedLine]) -> Vec<&RatedLine> {
    let reversed: HashSet<Uuid> = lines.iter().filter(|line| line.reverses).filter_map(|line| line.corrects).collect();
    lines.iter().filter(|line| !line.reverses && !reversed.contains(&line.id)).collect()
}

/// What two ratings of the same usage have in common.
fn key(line: &RatedLine) -> (String, String, Timestamp, LineKind, u32, String, Facts) {
    let (service, resource, rule) = (line.service.clone(), line.resource.clone(), line.rule.clone());
    (service, resource, line.begin, line.kind, line.sequence, rule, line.groupby.clone())
}

/// What is to be appended to a ledger with `existing` lines (all of the scope, the time of use and the kinds that are rated)
/// so that the effective ones say what `wanted` says. `period_of` gives the period in which a correction of a line of a
/// period is booked: the same while that is open.
pub fn corrections(
    existing: &[RatedLine],
    mut wanted: Vec<RatedLine>,
    period_of: impl Fn(Timestamp) -> Timestamp,
    rated_at: Timestamp,
) -> (Vec<RatedLine>, Vec<Change>) {
    if existing.is_empty() {
        for line in &mut wanted {
            line.period = period_of(line.period);
        }
        return (wanted, Vec::new());
    }
    let known: HashSet<Uuid> = existing.iter().map(|line| line.id).collect();
    let reversals: HashMap<Uuid, Uuid> =
        existing.iter().filter(|line| line.reverses).filter_map(|line| Some((line.corrects?, line.id))).collect();
    let mut standing: HashMap<_, Vec<&RatedLine>> = HashMap::new();
    for line in effective(existing) {
        standing.entry(key(line)).or_default().push(line);
    }
    let (mut appended, mut changes) = (Vec::new(), Vec::new());
    let change = |line: &RatedLine, before: Option<&RatedLine>, after: Option<&BigDecimal>| Change {
        scope: line.scope.clone(),
        service: line.service.clone(),
        resource: line.resource.clone(),
        begin: line.begin,
        before: before.map(|line| line.id),
        cost_before: before.map(|line| line.cost.clone()),
        cost_after: after.cloned(),
    };
    for mut line in wanted {
        let of_key = standing.get_mut(&key(&line));
        let old = of_key.and_then(|lines| {
            let place = lines.iter().position(|own| own.says_same(&line)).unwrap_or(0);
            (!lines.is_empty()).then(|| lines.remove(place))
        });
        match old {
            Some(old) if old.says_same(&line) => continue,
            Some(old) => {
                changes.push(change(&line, Some(old), Some(&line.cost)));
                appended.push(old.reversal(period_of(old.period), rated_at));
                line.corrects = Some(old.id);
            }
            None => {
                changes.push(change(&line, None, Some(&line.cost)));
                // It was there once and was taken back: the new one follows on what took it back.
                while known.contains(&line.identity()) {
                    let Some(reversal) = reversals.get(&line.identity()) else { break };
                    line.corrects = Some(*reversal);
                }
            }
        }
        line.period = period_of(line.period);
        appended.push(line.identified());
    }
    let mut left: Vec<&RatedLine> = standing.into_values().flatten().collect();
    left.sort_by(|a, b| a.place().cmp(&b.place()));
    for old in left {
        changes.push(change(old, Some(old), None));
        appended.push(old.reversal(period_of(old.period), rated_at));
    }
    (appended, changes)
}
