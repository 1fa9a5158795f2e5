//! Where a month's cost will end, and under which names what was charged and what is expected can be watched. Pure.

use std::{collections::BTreeMap, time::Duration};

use bigdecimal::BigDecimal;
use orzo_model::Timestamp;
use uuid::Uuid;

/// Metric of what a project was charged since the month began.
pub const ACCRUED_METRIC: &str = "cost.accrued";
/// Metric of what it will have been charged when the month ends.
pub const FORECAST_METRIC: &str = "cost.forecast";
/// The metrics' archive policy, and
pub const COST_POLICY: &str = "orzo-costs";
/// its granularity, in seconds: an alarm on it is that late at most.
pub const COST_GRANULARITY_S: u64 = 300;
/// What ids of the metrics' resources are made within.
const RESOURCES: Uuid = Uuid::from_u128(0x6f72_7a6f_636f_5374_8c41_90de_7a12_55b6);
const DAY: Duration = Duration::from_secs(86_400);
/// The days whose mean says how it goes on: a week has every kind of day once.
const RECENT_DAYS: usize = 7;

/// A metric's name for costs of one currency. Without one it is written for months whose costs have a single currency.
pub fn cost_metric(metric: &str, currency: &str) -> String {
    format!("{metric}.{currency}")
}

/// The first moment (UTC) of the month of a time, or of one so much later.
pub fn month(time: Timestamp, later: u32) -> Timestamp {
    use chrono::{Datelike, Months, NaiveDate, NaiveTime};
    let day = time.to_chrono().date_naive();
    let first = NaiveDate::from_ymd_opt(day.year(), day.month(), 1).unwrap_or(day);
    let first = first.checked_add_months(Months::new(later)).unwrap_or(first);
    first.and_time(NaiveTime::MIN).and_utc().into()
}

/// The resource that a project's cost metrics are on.
pub fn cost_resource(project: &str) -> Uuid {
    Uuid::new_v5(&RESOURCES, project.as_bytes())
}

/// What will have been charged at the end of a time: what was charged on whole days, and for every other day the mean of the
/// last ones. `days` has the cost of each day (UTC) by its beginning; everything before `until` was rated.
pub fn forecast(
    begin: Timestamp,
    end: Timestamp,
    until: Timestamp,
    days: &BTreeMap<Timestamp, BigDecimal>,
) -> BigDecimal {
    let sum: BigDecimal = days.values().sum();
    if until >= end || until <= begin {
        return sum;
    }
    let mut whole: Vec<BigDecimal> = Vec::new();
    let mut day = begin;
    while day.plus(DAY) <= until {
        whole.push(days.get(&day).cloned().unwrap_or_default());
        day = day.plus(DAY);
    }
    let micros = |from: Timestamp, to: Timestamp| BigDecimal::from(to.micros() - from.micros());
    if whole.is_empty() {
        return &sum * micros(begin, end) / micros(begin, until);
    }
    let recent = &whole[whole.len().saturating_sub(RECENT_DAYS)..];
    let mean = recent.iter().sum::<BigDecimal>() / BigDecimal::from(recent.len() as u64);
    let day_micros = BigDecimal::from(DAY.as_micros() as u64);
    let expected = whole.iter().sum::<BigDecimal>() + mean * micros(day, end) / day_micros;
    // What was charged today already is not taken back by a mean.
    expected.max(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_goes_on_as_its_last_days_did() {
        let begin: Timestamp = "2026-11-01T00:00:00Z".parse().expect("a time");
        let day = |number: u32| begin.plus(DAY * number);
        let costs = |costs: &[i64]| -> BTreeMap<Timestamp, BigDecimal> {
            costs.iter().enumerate().map(|(place, cost)| (day(place as u32), BigDecimal::from(*cost))).collect()
        };
        let expect = |until: Timestamp, own: &[i64]| {
            let expected = forecast(begin, day(30), until, &costs(own));
            expected.with_scale_round(6, bigdecimal::RoundingMode::HalfEven).normalized()
        };
        assert_eq!(expect(day(10), &[24; 10]), BigDecimal::from(720));
        assert_eq!(expect(day(10).plus(DAY / 2), &[24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 12]), BigDecimal::from(720));
        // Only the last seven days say how it goes on.
        assert_eq!(expect(day(10), &[0, 0, 0, 10, 10, 10, 10, 10, 10, 10]), BigDecimal::from(270));
        assert_eq!(expect(begin.plus(DAY / 4), &[6]), BigDecimal::from(720), "before the first whole day: by the hour");
        assert_eq!(expect(day(29).plus(DAY / 2), &[[1; 29].as_slice(), &[100]].concat()), BigDecimal::from(129));
        assert_eq!(expect(day(30), &[1; 30]), BigDecimal::from(30), "it is over");
        assert_eq!(expect(begin, &[]), BigDecimal::from(0));
        assert_ne!(cost_resource("p"), cost_resource("q"));
    }
}
