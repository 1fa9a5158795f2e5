//! Which series of two sides belong together.

use std::collections::{HashMap, HashSet};

use crate::{Labels, Series, column::is_present, error::QueryError, labels::NAME};

/// How many of one side may meet one of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cardinality {
    #[default]
    OneToOne,
    /// `group_left`: the left side has many.
    ManyToOne,
    /// `group_right`
    OneToMany,
}

/// The labels by which two sides are matched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matching {
    /// Only these labels (`on`), or all but these (`ignoring`).
    pub(crate) is_on: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) cardinality: Cardinality,
    /// Labels that the side of one hands to the result.
    pub(crate) include: Vec<String>,
}

impl Matching {
    /// What must be equal for two series to meet.
    pub(crate) fn signature(&self, labels: &Labels) -> Labels {
        let listed = |name: &str| self.labels.iter().any(|own| own == name);
        match self.is_on {
            true => labels.filter(listed),
            false => labels.filter(|name| name != NAME && !listed(name)),
        }
    }

    /// The labels of a result, from the many's (or left) labels and the one's.
    pub(crate) fn result(&self, many: &Labels, one: &Labels, drops_name: bool) -> Labels {
        let mut labels = if drops_name { many.without_name() } else { many.clone() };
        if self.cardinality == Cardinality::OneToOne {
            let listed = |name: &str| self.labels.iter().any(|own| own == name);
            return match self.is_on {
                true => labels.filter(listed),
                false => labels.filter(|name| !listed(name)),
            };
        }
        for name in &self.include {
            labels = labels.with(name, one.get(name));
        }
        labels
    }

    /// Numbers of the series of each signature.
    pub(crate) fn groups(&self, series: &[Series]) -> HashMap<Labels, Vec<usize>> {
        let mut groups: HashMap<Labels, Vec<usize>> = HashMap::new();
        for (at, one) in series.iter().enumerate() {
            groups.entry(self.signature(&one.labels)).or_default().push(at);
        }
        groups
    }
}

/// Series as they are; two with the same labels are an error, even if they have no values at the same time. Labels that a
/// query writes itself must tell series apart.
pub(crate) fn each_once(series: Vec<Series>) -> Result<Vec<Series>, QueryError> {
    let mut seen = HashSet::with_capacity(series.len());
    match series.iter().all(|one| seen.insert(&one.labels)) {
        true => Ok(series),
        false => Err(QueryError::execution(SAME_LABELS)),
    }
}

/// What Prometheus says of two series with the same labels.
const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// Series with the same labels become one; values at the same time are an error.
pub(crate) fn merge_same(series: Vec<Series>) -> Result<Vec<Series>, QueryError> {
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(series.len());
    let mut merged: Vec<Series> = Vec::with_capacity(series.len());
    for one in series {
        match places.get(&one.labels) {
            None => {
                places.insert(one.labels.clone(), merged.len());
                merged.push(one);
            }
            Some(&at) => {
                for (own, new) in merged[at].column.0.iter_mut().zip(one.column.0) {
                    match (is_present(*own), is_present(new)) {
                        (true, true) => {
                            return Err(QueryError::execution(SAME_LABELS));
                        }
                        (false, true) => *own = new,
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(merged)
}
