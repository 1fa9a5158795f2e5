//! What a plan makes of each series of a selection alone: values at the times of its grid. A source can do that while it
//! reads, on the thread that read the points, so that only columns are kept of what was read.
//!
//! `Plan → Fold for each selection → Folding (one query's) → values of each series`. A selection is folded if every node that
//! looks at it is the last sample at each time, or a function of a window without parameters, at the times of the plan's own
//! grid; the others need the points. Histograms are not folded.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::{
    QueryError,
    column::is_present,
    plan::{BRIEF_STEPS_MAX, BRIEF_VALUES_MAX, Grid, Node, Shift},
    range,
    select::{self, Points},
    source::Selection,
};

/// What one node makes of a series' points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Piece {
    /// The last sample at each time.
    Last { shift: Shift },
    /// A function over time of the window at each time.
    Window { name: &'static str, range: i64, shift: Shift },
}

/// What all nodes make of the points of one selection's series.
#[derive(Debug, PartialEq)]
pub struct Fold {
    grid: Grid,
    lookback_ms: i64,
    pieces: Vec<Piece>,
    /// How many nodes look at it.
    uses: usize,
}

impl Fold {
    /// Of each selection, if it can be folded.
    pub(crate) fn of_plan(
        root: &Node,
        selections: &[Selection],
        grid: Grid,
        lookback_ms: i64,
    ) -> Vec<Option<Arc<Self>>> {
        // Of a selection of which the newest point is enough, the source reads no more than that.
        let fold =
            |one: &Selection| (!one.newest_only).then(|| Self { grid, lookback_ms, pieces: Vec::new(), uses: 0 });
        let mut folds: Vec<Option<Self>> = selections.iter().map(fold).collect();
        collect(root, &mut folds);
        folds.into_iter().map(|fold| fold.map(Arc::new)).collect()
    }

    /// Where in a series' values those of a piece are: its number; each has as many as the grid.
    pub(crate) fn place(&self, piece: Piece) -> Option<usize> {
        self.pieces.iter().position(|own| *own == piece)
    }

    /// Of so many series, how many points may be folded at most where nothing may take long.
    pub fn brief_points(&self, series: usize) -> usize {
        let steps = self.grid.count.saturating_mul(self.pieces.len()).max(1);
        match series.saturating_mul(steps) <= BRIEF_VALUES_MAX {
            true => BRIEF_VALUES_MAX.min(BRIEF_STEPS_MAX / steps),
            false => 0,
        }
    }

    /// Whether nobody looks at it twice.
    pub(crate) fn is_used_once(&self) -> bool {
        self.uses == 1
    }

    /// The values of all pieces, one after the other; nothing if there is no value at all.
    fn apply(&self, times: &[i64], values: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            let column = match *piece {
                Piece::Last { shift } => select::last(times, values, self.grid, shift, self.lookback_ms),
                Piece::Window { name, range, shift } => {
                    let function = range::over_time(name).unwrap_or(|_, _| None);
                    Points::of(times, values).windows(self.grid, range, shift, |window| function(&window, &[]))
                }
            };
            if self.pieces.len() == 1 {
                return if column.is_empty() { Vec::new() } else { column.0 };
            }
            out.extend_from_slice(&column.0);
        }
        if out.iter().any(|value| is_present(*value)) { out } else { Vec::new() }
    }
}

/// Adds what the nodes look at; a selection that one needs whole becomes `None`.
fn collect(node: &Node, folds: &mut [Option<Fold>]) {
    let mut add = |selection: usize, piece: Piece| {
        if let Some(Some(fold)) = folds.get_mut(selection) {
            fold.uses += 1;
            if fold.place(piece).is_none() {
                fold.pieces.push(piece);
            }
        }
    };
    match node {
        Node::Number(_) | Node::Text(_) => {}
        Node::Select { selection, shift } => add(*selection, Piece::Last { shift: *shift }),
        Node::Call { name, arguments } => match &arguments[..] {
            [Node::Range { selection, range, shift }] if range::over_time(name).is_some() => {
                add(*selection, Piece::Window { name, range: *range, shift: *shift });
            }
            [Node::Select { selection, .. }] if *name == "timestamp" => folds[*selection] = None,
            _ => arguments.iter().for_each(|argument| collect(argument, folds)),
        },
        Node::Range { selection, .. } => folds[*selection] = None,
        // It asks when samples were taken.
        Node::Info { inner, selection, .. } => {
            folds[*selection] = None;
            collect(inner, folds);
        }
        // It has a grid of its own.
        Node::Subquery { inner, .. } => need_points(inner, folds),
        Node::Negate(inner) => collect(inner, folds),
        Node::Binary(operation) => {
            collect(&operation.left, folds);
            collect(&operation.right, folds);
        }
        Node::Set { left, right, .. } => {
            collect(left, folds);
            collect(right, folds);
        }
        Node::Aggregate(aggregate) => {
            collect(&aggregate.inner, folds);
            if let Some(parameter) = &aggregate.parameter {
                collect(parameter, folds);
            }
        }
    }
}

fn need_points(node: &Node, folds: &mut [Option<Fold>]) {
    match node {
        Node::Number(_) | Node::Text(_) => {}
        Node::Select { selection, .. } | Node::Range { selection, .. } => folds[*selection] = None,
        Node::Subquery { inner, .. } | Node::Negate(inner) => need_points(inner, folds),
        Node::Binary(operation) => {
            need_points(&operation.left, folds);
            need_points(&operation.right, folds);
        }
        Node::Set { left, right, .. } => {
            need_points(left, folds);
            need_points(right, folds);
        }
        Node::Aggregate(aggregate) => {
            need_points(&aggregate.inner, folds);
            if let Some(parameter) = &aggregate.parameter {
                need_points(parameter, folds);
            }
        }
        Node::Call { arguments, .. } => arguments.iter().for_each(|argument| need_points(argument, folds)),
        Node::Info { inner, selection, .. } => {
            folds[*selection] = None;
            need_points(inner, folds);
        }
    }
}

/// A fold at work for one query, perhaps on several threads.
pub struct Folding {
    fold: Arc<Fold>,
    cells: AtomicUsize,
    cells_max: usize,
    cancelled: Arc<AtomicBool>,
}

impl Folding {
    /// For at most `cells_max` values; ends once `cancelled` is true.
    pub fn new(fold: Arc<Fold>, cells_max: usize, cancelled: Arc<AtomicBool>) -> Self {
        Self { fold, cells: AtomicUsize::new(0), cells_max, cancelled }
    }

    /// The values of a series from its points, with times in milliseconds; none if no time has one. `None` if the query
    /// must end, [`Self::problem`] says why.
    pub fn of(&self, times: &[i64], values: &[f64]) -> Option<Vec<f64>> {
        if self.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let folded = self.fold.apply(times, values);
        let before = self.cells.fetch_add(folded.len(), Ordering::Relaxed);
        (before + folded.len() <= self.cells_max).then_some(folded)
    }

    /// Why it must end.
    pub fn problem(&self) -> QueryError {
        match self.cancelled.load(Ordering::Relaxed) {
            true => QueryError::Cancelled,
            false => QueryError::TooMuch { what: "values", limit: self.cells_max },
        }
    }
}
