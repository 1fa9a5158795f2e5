//! Usage that has no price: an expression that divides by zero, a number that no line holds. Pure.
//!
//! A charge without a price makes no line and takes none back: what stands of it stays. It is told, and made up for when its
//! price is mended.

use std::collections::HashSet;

use orzo_model::Timestamp;

use crate::{line::RatedLine, segments::Finding};

/// Why a finding of a charge without a price is told.
pub(super) const NO_PRICE: &str = "no price";

/// What is priced as a whole: a resource's usage of a service in a period.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Charge {
    /// Resource.
    pub resource: String,
    /// Metric type.
    pub service: String,
    /// Begin of the period of use.
    pub period: Timestamp,
}

impl Charge {
    /// The one that a line is of.
    pub(super) fn of(line: &RatedLine, period: std::time::Duration) -> Self {
        let (resource, service) = (line.resource.clone(), line.service.clone());
        Self { resource, service, period: line.begin.floor(period) }
    }
}

/// A charge that has no price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpriced {
    /// Which.
    pub charge: Charge,
    /// End of the period.
    pub until: Timestamp,
    /// Why, in words.
    pub reason: String,
}

impl std::fmt::Display for Unpriced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Charge { resource, service, period } = &self.charge;
        write!(f, "{service} of {resource} from {}: {}", period.zulu_secs(), self.reason)
    }
}

/// One finding for periods that follow each other and have the same reason.
pub(super) fn findings(unpriced: &[Unpriced]) -> Vec<Finding> {
    let mut ordered: Vec<&Unpriced> = unpriced.iter().collect();
    let place = |own: &&Unpriced| (own.charge.resource.clone(), own.charge.service.clone(), own.charge.period);
    ordered.sort_by_cached_key(place);
    let follows = |last: &Unpriced, own: &Unpriced| {
        let is_same = (&last.charge.resource, &last.charge.service, &last.reason)
            == (&own.charge.resource, &own.charge.service, &own.reason);
        is_same && last.until == own.charge.period
    };
    let stretches = ordered.chunk_by(|last, own| follows(last, own));
    let told = stretches.filter_map(|some| {
        let (first, last) = (some.first()?, some.last()?);
        let Charge { resource, service, period } = &first.charge;
        let detail = format!("{service} until {}: {}", last.until.zulu_secs(), first.reason);
        Some(Finding { resource: resource.clone(), at: *period, reason: NO_PRICE, detail })
    });
    told.collect()
}

/// The first that has no line at all: what is missing in the ledger.
pub(super) fn first_missing<'u>(unpriced: &'u [Unpriced], standing: &HashSet<Charge>) -> Option<&'u Unpriced> {
    let missing = unpriced.iter().filter(|own| !standing.contains(&own.charge));
    missing.min_by(|a, b| (a.charge.period, &a.charge).cmp(&(b.charge.period, &b.charge)))
}
