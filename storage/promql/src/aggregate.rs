//! Aggregations over series: groups by labels, one result for each group and time, or a choice of a group's series.

use std::collections::HashMap;

use crate::{
    Labels, QueryError, Series,
    column::{ABSENT, Column, is_present},
    labels::NAME,
    native::{Context, Histogram, Mismatch, Natives},
    number_text,
    plan::Node,
    range::{self, Compensated},
};

/// What is done with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Sum,
    Average,
    Count,
    Min,
    Max,
    Group,
    StandardDeviation,
    Variance,
    Top,
    Bottom,
    CountValues,
    Quantile,
    Limit,
    LimitRatio,
}

/// An aggregation of the plan.
#[derive(Debug)]
pub(crate) struct Aggregate {
    pub(crate) kind: Aggregation,
    pub(crate) inner: Node,
    pub(crate) parameter: Option<Node>,
    /// `without` these labels, or `by` them.
    pub(crate) is_without: bool,
    pub(crate) labels: Vec<String>,
}

/// The parameter's values.
pub(crate) enum Parameter {
    None,
    Numbers(Vec<f64>),
    Label(String),
}

impl Aggregate {
    fn group_of(&self, labels: &Labels) -> Labels {
        let listed = |name: &str| self.labels.iter().any(|own| own == name);
        match self.is_without {
            true => labels.filter(|name| name != NAME && !listed(name)),
            false => labels.filter(listed),
        }
    }

    /// Aggregates.
    pub(crate) fn apply(
        &self,
        series: Vec<Series>,
        parameter: &Parameter,
        count: usize,
        context: Option<Context<'_>>,
    ) -> Result<Vec<Series>, QueryError> {
        if let Parameter::Label(name) = parameter {
            return Ok(self.counted_values(&series, name, count, context));
        }
        let series = match context {
            Some(context) if !self.kind.takes_histograms() => without_histograms(series, self.kind, &context),
            _ => series,
        };
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut groups: Vec<(Labels, Vec<Series>)> = Vec::new();
        for one in series {
            let labels = self.group_of(&one.labels);
            let at = *places.entry(labels).or_insert_with_key(|labels| {
                groups.push((labels.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(one);
        }
        let mut out = Vec::with_capacity(groups.len());
        for (labels, members) in groups {
            match (self.kind, parameter) {
                (Aggregation::Top, Parameter::Numbers(k)) => out.extend(ranked(members, k, count, true)),
                (Aggregation::Bottom, Parameter::Numbers(k)) => out.extend(ranked(members, k, count, false)),
                (Aggregation::Limit, Parameter::Numbers(k)) => out.extend(limited(members, k)),
                (Aggregation::LimitRatio, Parameter::Numbers(ratio)) => out.extend(sampled(members, ratio)),
                (Aggregation::Quantile, Parameter::Numbers(q)) => {
                    let column = each_time(&members, count, |at, values| range::quantile(q[at], values));
                    out.push(Series { labels, column });
                }
                (Aggregation::Sum | Aggregation::Average, _) if context.is_some_and(|_| has_histograms(&members)) => {
                    let column =
                        context.map_or_else(Column::default, |context| added(self.kind, &members, count, &context));
                    out.push(Series { labels, column });
                }
                (kind, _) => out.push(Series { labels, column: reduced(kind, &members, count) }),
            }
        }
        Ok(out)
    }

    /// `count_values`: each value becomes a label of its series, and then the series of a group are counted. So the label
    /// may be one of those that the groups are made by.
    fn counted_values(&self, series: &[Series], name: &str, count: usize, context: Option<Context<'_>>) -> Vec<Series> {
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut out: Vec<Series> = Vec::new();
        for one in series {
            let mut of_value: HashMap<u64, usize> = HashMap::new();
            for (at, value) in one.column.iter() {
                // By what will be their text: every NaN is one value, the two zeros are not.
                let histogram = context.and_then(|context| context.natives.get(value));
                let bits = match histogram {
                    Some(_) => value.to_bits(),
                    None if value.is_nan() => f64::NAN.to_bits(),
                    None => value.to_bits(),
                };
                let place = *of_value.entry(bits).or_insert_with(|| {
                    let text = histogram.as_ref().map_or_else(|| number_text(value), |histogram| histogram.text());
                    let labels = one.labels.with(name, &text);
                    let listed = |label: &str| self.labels.iter().any(|own| own == label);
                    let group = match self.is_without {
                        true => self.group_of(&labels),
                        false => labels.filter(|label| label == name || listed(label)),
                    };
                    *places.entry(group).or_insert_with_key(|labels| {
                        out.push(Series { labels: labels.clone(), column: Column::absent(count) });
                        out.len() - 1
                    })
                });
                let slot = &mut out[place].column.0[at];
                *slot = if is_present(*slot) { *slot + 1.0 } else { 1.0 };
            }
        }
        out
    }
}

impl Aggregation {
    /// Whether histograms are values to it as numbers are, or can be added.
    fn takes_histograms(self) -> bool {
        !matches!(
            self,
            Self::Min
                | Self::Max
                | Self::StandardDeviation
                | Self::Variance
                | Self::Top
                | Self::Bottom
                | Self::Quantile
        )
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Average => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::StandardDeviation => "stddev",
            Self::Variance => "stdvar",
            Self::Top => "topk",
            Self::Bottom => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limit => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }
}

fn has_histograms(members: &[Series]) -> bool {
    members.iter().flat_map(|one| &one.column.0).any(|value| Natives::is_one(*value))
}

/// Series with numbers only; says so if a histogram was left out.
fn without_histograms(mut series: Vec<Series>, kind: Aggregation, context: &Context<'_>) -> Vec<Series> {
    let mut any = false;
    for value in series.iter_mut().flat_map(|one| &mut one.column.0).filter(|value| Natives::is_one(**value)) {
        (*value, any) = (ABSENT, true);
    }
    if any {
        context.notes.ignored_in_aggregation(kind.name());
    }
    series.retain(|one| !one.column.is_empty());
    series
}

/// Sums and means where some values are histograms: of histograms a histogram, of both together nothing.
fn added(kind: Aggregation, members: &[Series], count: usize, context: &Context<'_>) -> Column {
    // In the order of their labels, so that of several reasons why there is no sum the same one is told as by Prometheus.
    let mut members: Vec<&Series> = members.iter().collect();
    members.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut column = Column::absent(count);
    for (at, slot) in column.0.iter_mut().enumerate() {
        let present = || members.iter().copied().filter(|one| is_present(one.column.0[at]));
        let (histograms, numbers): (Vec<_>, Vec<_>) = present().partition(|one| Natives::is_one(one.column.0[at]));
        if histograms.is_empty() {
            let numbers = numbers.iter().map(|one| one.column.0[at]);
            if present().next().is_some() {
                let values: Vec<f64> = numbers.collect();
                *slot = match kind {
                    Aggregation::Sum => range::sum(values.into_iter()),
                    _ => range::average(&values),
                };
            }
            continue;
        }
        if !numbers.is_empty() {
            context.notes.mixed_floats_in_aggregation();
            continue;
        }
        let mut total: Option<Histogram> = None;
        let mut fits = true;
        for (before, one) in histograms.iter().enumerate() {
            let Some(histogram) = context.natives.get(one.column.0[at]) else { continue };
            let sum = match total.take() {
                None => Ok((*histogram).clone()),
                Some(total) if kind == Aggregation::Sum => total.plus(&histogram),
                Some(mean) => mean.towards(&histogram, before as f64 + 1.0),
            };
            match sum {
                Ok(sum) => total = Some(sum),
                Err(mismatch) => {
                    let name = one.labels.get(NAME);
                    match mismatch {
                        Mismatch::Schemas => context.notes.mixed_schemas(name),
                        Mismatch::Bounds => context.notes.other_bounds(name),
                    }
                    fits = false;
                    break;
                }
            }
        }
        if let Some(whole) = total.filter(|_| fits) {
            *slot = context.natives.keep(whole.compact());
        }
    }
    column
}

/// One value of all present ones, at each time.
fn each_time(members: &[Series], count: usize, mut judge: impl FnMut(usize, &mut [f64]) -> f64) -> Column {
    let mut column = Column::absent(count);
    let mut values = Vec::with_capacity(members.len());
    for (at, slot) in column.0.iter_mut().enumerate() {
        values.clear();
        values.extend(members.iter().map(|one| one.column.0[at]).filter(|value| is_present(*value)));
        if !values.is_empty() {
            *slot = judge(at, &mut values);
        }
    }
    column
}

fn reduced(kind: Aggregation, members: &[Series], count: usize) -> Column {
    match kind {
        Aggregation::Sum => {
            // Series by series, so that memory is walked over in order.
            let mut sums = vec![(Compensated::default(), false); count];
            for (at, value) in members.iter().flat_map(|one| one.column.iter()) {
                sums[at].0.add(value);
                sums[at].1 = true;
            }
            Column(sums.into_iter().map(|(sum, any)| if any { sum.value() } else { ABSENT }).collect())
        }
        Aggregation::Count | Aggregation::Group => {
            let mut column = Column::absent(count);
            for (at, _) in members.iter().flat_map(|one| one.column.iter()) {
                let slot = &mut column.0[at];
                *slot = if is_present(*slot) && kind == Aggregation::Count { *slot + 1.0 } else { 1.0 };
            }
            column
        }
        Aggregation::Min => folded(members, count, |new, old| new < old || old.is_nan()),
        Aggregation::Max => folded(members, count, |new, old| new > old || old.is_nan()),
        Aggregation::Average => each_time(members, count, |_, values| range::average(values)),
        Aggregation::StandardDeviation => each_time(members, count, |_, values| range::variance(values).sqrt()),
        Aggregation::Variance => each_time(members, count, |_, values| range::variance(values)),
        Aggregation::Top
        | Aggregation::Bottom
        | Aggregation::CountValues
        | Aggregation::Quantile
        | Aggregation::Limit
        | Aggregation::LimitRatio => Column::absent(count),
    }
}

fn folded(members: &[Series], count: usize, is_better: impl Fn(f64, f64) -> bool) -> Column {
    let mut column = Column::absent(count);
    for (at, value) in members.iter().flat_map(|one| one.column.iter()) {
        let slot = &mut column.0[at];
        if !is_present(*slot) || is_better(value, *slot) {
            *slot = value;
        }
    }
    column
}

/// `topk` and `bottomk`: of each time the k greatest or least; NaN only if nothing else is there.
fn ranked(members: Vec<Series>, k: &[f64], count: usize, greatest: bool) -> Vec<Series> {
    let mut out: Vec<Series> =
        members.iter().map(|one| Series { labels: one.labels.clone(), column: Column::absent(count) }).collect();
    let mut order: Vec<usize> = Vec::with_capacity(members.len());
    for (at, k) in k.iter().enumerate() {
        order.clear();
        order.extend((0..members.len()).filter(|one| is_present(members[*one].column.0[at])));
        // The sort keeps the order of equals, as a heap that is filled in order does.
        order.sort_by(|a, b| rank(members[*a].column.0[at], members[*b].column.0[at], greatest));
        // A saturating cast: what is below one chooses nothing.
        order.truncate(*k as usize);
        for one in &order {
            out[*one].column.0[at] = members[*one].column.0[at];
        }
    }
    out.retain(|one| !one.column.is_empty());
    if count == 1 {
        out.sort_by(|a, b| rank(a.column.0[0], b.column.0[0], greatest));
    }
    out
}

/// Greatest or least first, NaN last.
pub(crate) fn rank(a: f64, b: f64, greatest: bool) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Greater,
        (false, true) => std::cmp::Ordering::Less,
        (false, false) if greatest => b.total_cmp(&a),
        (false, false) => a.total_cmp(&b),
    }
}

/// `limitk`: the first k series that have a value.
fn limited(mut members: Vec<Series>, k: &[f64]) -> Vec<Series> {
    for (at, k) in k.iter().enumerate() {
        let mut left = *k as usize;
        for one in &mut members {
            let slot = &mut one.column.0[at];
            if is_present(*slot) {
                match left.checked_sub(1) {
                    Some(less) => left = less,
                    None => *slot = ABSENT,
                }
            }
        }
    }
    members.retain(|one| !one.column.is_empty());
    members
}

/// `limit_ratio`: the same series always, those that Prometheus chooses; a negative ratio chooses the others.
fn sampled(mut members: Vec<Series>, ratio: &[f64]) -> Vec<Series> {
    for one in &mut members {
        let place = one.labels.prometheus_hash() as f64 / u64::MAX as f64;
        for (slot, ratio) in one.column.0.iter_mut().zip(ratio) {
            let is_in = match *ratio >= 0.0 {
                true => place < *ratio,
                false => place >= 1.0 + *ratio,
            };
            if !is_in {
                *slot = ABSENT;
            }
        }
    }
    members.retain(|one| !one.column.is_empty());
    members
}
