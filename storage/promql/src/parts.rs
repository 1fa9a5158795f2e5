//! Answers in parts: what a query gave at some of the times of its grid, cut and put together again.
//!
//! What a query gives at a time depends on that time and on the points of a span before it ([`Plan::reach_ms`]); so an
//! answer is the same in one piece or in several, and what is known of it need not be computed again. Pure; who remembers
//! parts, and for how long they are true, is decided elsewhere.

use std::cmp::Ordering;

use crate::{
    Answer, Labels, Plan, Value, Window,
    column::{ABSENT, Column, Series},
    plan::Node,
};

/// About what a label takes in memory, when its texts are shared with others.
const LABEL_BYTES: usize = 48;

impl Plan {
    /// How far before a time, in milliseconds, points matter for what the query gives at it; `None` if that depends on
    /// anything else: on the ends of the window, on a fixed time, on what comes later.
    pub fn reach_ms(&self) -> Option<i64> {
        if self.is_instant() || self.names_its_ends {
            return None;
        }
        reach(&self.root, self.lookback_ms)
    }

    /// The window that it was made for, up to the last time of its grid.
    pub fn window(&self) -> Window {
        let last = self.grid.time(self.grid.count.saturating_sub(1));
        Window { start_ms: self.grid.start, end_ms: last, step_ms: self.grid.step }
    }

    /// How far back a selector looks for a value, in milliseconds.
    pub fn lookback_ms(&self) -> i64 {
        self.lookback_ms
    }
}

fn reach(node: &Node, lookback: i64) -> Option<i64> {
    let of_all = |nodes: &[&Node]| nodes.iter().try_fold(0, |most: i64, node| Some(most.max(reach(node, lookback)?)));
    let shifted = |shift: &crate::plan::Shift, by: i64| {
        (shift.at.is_none() && shift.offset >= 0).then(|| by.saturating_add(shift.offset))
    };
    match node {
        Node::Number(_) | Node::Text(_) => Some(0),
        Node::Negate(inner) => reach(inner, lookback),
        Node::Select { shift, .. } => shifted(shift, lookback),
        Node::Range { range, shift, .. } => shifted(shift, *range),
        Node::Subquery { inner, range, shift, .. } => shifted(shift, range.saturating_add(reach(inner, lookback)?)),
        Node::Binary(binary) => of_all(&[&binary.left, &binary.right]),
        Node::Set { left, right, .. } => of_all(&[left, right]),
        Node::Aggregate(aggregate) => {
            let parameter = aggregate.parameter.as_ref().map_or(Some(0), |node| reach(node, lookback))?;
            Some(parameter.max(reach(&aggregate.inner, lookback)?))
        }
        Node::Call { arguments, .. } => of_all(&arguments.iter().collect::<Vec<_>>()),
        Node::Info { inner, .. } => Some(reach(inner, lookback)?.max(lookback)),
    }
}

/// What a query gave at the times of a window: series of numbers, and nothing to remark.
#[derive(Clone, Debug)]
pub struct Part {
    window: Window,
    /// By labels, none twice, none without a value.
    series: Vec<Series>,
}

impl Part {
    /// Of an answer to a query over a range; `None` if it is not only series of numbers without remarks.
    pub fn of(plan: &Plan, answer: &Answer) -> Option<Self> {
        let Value::Vector(series) = &answer.value else { return None };
        let is_plain = answer.warnings.is_empty() && answer.infos.is_empty() && answer.histograms.is_empty();
        let is_sorted = series.is_sorted_by(|one, next| one.labels < next.labels);
        (is_plain && is_sorted && !plan.is_instant()).then(|| Self { window: plan.window(), series: series.clone() })
    }

    /// As the answer that it is.
    pub fn into_answer(self) -> Answer {
        Answer { value: Value::Vector(self.series), warnings: Vec::new(), infos: Vec::new(), histograms: Vec::new() }
    }

    /// First time, last time and step.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How many times it has.
    pub fn steps(&self) -> usize {
        count(self.window)
    }

    /// What it has from one of its times to another.
    pub fn cut(&self, first_ms: i64, last_ms: i64) -> Option<Self> {
        let Window { start_ms, end_ms, step_ms } = self.window;
        let is_own = |time: i64| (start_ms..=end_ms).contains(&time) && (time - start_ms) % step_ms == 0;
        if !is_own(first_ms) || !is_own(last_ms) || first_ms > last_ms {
            return None;
        }
        let place = |time: i64| ((time - start_ms) / step_ms) as usize;
        let places = place(first_ms)..=place(last_ms);
        let series = self
            .series
            .iter()
            .map(|one| Series { labels: one.labels.clone(), column: Column(one.column.0[places.clone()].to_vec()) });
        Some(Self {
            window: Window { start_ms: first_ms, end_ms: last_ms, step_ms },
            series: series.filter(|one| !one.column.is_empty()).collect(),
        })
    }

    /// Both, if the other begins one step after this one ends.
    pub fn followed_by(self, later: Self) -> Option<Self> {
        let (Window { start_ms, end_ms, step_ms }, other) = (self.window, later.window);
        if other.step_ms != step_ms || other.start_ms != end_ms + step_ms {
            return None;
        }
        let (before, after) = (count(self.window), count(other));
        let joined = |labels: Labels, early: Option<Column>, late: Option<Column>| {
            let mut values = early.map_or_else(|| vec![ABSENT; before], |column| column.0);
            match late {
                Some(column) => values.extend(column.0),
                None => values.resize(before + after, ABSENT),
            }
            Series { labels, column: Column(values) }
        };
        let mut series = Vec::with_capacity(self.series.len().max(later.series.len()));
        let (mut earlier, mut later) = (self.series.into_iter().peekable(), later.series.into_iter().peekable());
        loop {
            let order = match (earlier.peek(), later.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.labels.cmp(&other.labels),
            };
            let early = if order.is_le() { earlier.next() } else { None };
            let late = if order.is_ge() { later.next() } else { None };
            series.push(match (early, late) {
                (Some(early), late) => joined(early.labels, Some(early.column), late.map(|late| late.column)),
                (None, Some(late)) => joined(late.labels, None, Some(late.column)),
                (None, None) => break,
            });
        }
        Some(Self { window: Window { start_ms, end_ms: other.end_ms, step_ms }, series })
    }

    /// About what it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        let of_one =
            |one: &Series| size_of::<Series>() + 8 * one.column.0.len() + LABEL_BYTES * one.labels.iter().len();
        size_of::<Self>() + self.series.iter().map(of_one).sum::<usize>()
    }
}

fn count(window: Window) -> usize {
    ((window.end_ms - window.start_ms) / window.step_ms.max(1)) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    fn window(start_ms: i64, end_ms: i64) -> Window {
        Window { start_ms, end_ms, step_ms: 10 }
    }

    fn part(start_ms: i64, end_ms: i64, series: &[(&str, &[f64])]) -> Part {
        let of = |(name, values): &(&str, &[f64])| Series {
            labels: Labels::new([("__name__", *name)]),
            column: Column(values.to_vec()),
        };
        Part { window: window(start_ms, end_ms), series: series.iter().map(of).collect() }
    }

    fn told(part: &Part) -> Vec<(String, Vec<Option<f64>>)> {
        let values = |one: &Series| (0..one.column.0.len()).map(|at| one.column.get(at)).collect();
        part.series.iter().map(|one| (one.labels.get("__name__").to_owned(), values(one))).collect()
    }

    #[test]
    fn parts_are_put_together_as_they_were_cut() {
        let whole = part(
            100,
            140,
            &[
                ("a", &[1.0, 2.0, ABSENT, ABSENT, ABSENT]),
                ("b", &[1.0; 5]),
                ("c", &[ABSENT, ABSENT, ABSENT, 4.0, f64::NAN]),
            ],
        );
        let cut = |first, last| whole.cut(first, last).expect("a part");
        assert_eq!(told(&cut(120, 130)).len(), 2, "a has nothing there");
        let again = cut(100, 110).followed_by(cut(120, 120)).and_then(|both| both.followed_by(cut(130, 140)));
        let again = again.expect("neighbours");
        assert_eq!(again.window, whole.window);
        assert_eq!(format!("{:?}", told(&again)), format!("{:?}", told(&whole)));
        assert!(cut(100, 110).followed_by(cut(130, 140)).is_none(), "there is a gap");
        assert!(whole.cut(105, 120).is_none() && whole.cut(100, 150).is_none() && whole.cut(120, 110).is_none());
    }

    #[test]
    fn how_far_back_a_query_looks_is_known_unless_it_looks_elsewhere() {
        let limits = Limits { lookback_ms: 5_000, ..Limits::default() };
        let reach = |text: &str| {
            let window = Window { start_ms: 0, end_ms: 100_000, step_ms: 1000 };
            Plan::new(text, window, &limits).expect(text).reach_ms()
        };
        for (text, millis) in [
            ("up", 5_000),
            ("sum by (job) (rate(up[1m])) / 2", 60_000),
            ("up offset 1m or avg_over_time(up[30s])", 65_000),
            ("max_over_time(sum(rate(up[1m]))[10m:1m] offset 1h)", 3_600_000 + 600_000 + 60_000),
            ("topk(scalar(up offset 10s), up)", 15_000),
            ("vector(1)", 0),
        ] {
            assert_eq!(reach(text), Some(millis), "{text}");
        }
        for text in ["up @ 5", "up @ end()", "up offset -1m", "sum(rate(up[1m] @ start()))", "up * end()"] {
            assert_eq!(reach(text), None, "{text}");
        }
    }
}
