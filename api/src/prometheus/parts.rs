//! Queries over ranges, answered in parts: what is remembered and still true, what has changed since, and of what is long
//! one piece after the other, so that a month of a cloud is never in memory at once.
//!
//! `query → remembered? → windows that are left → pieces → one answer → remembered`. Which parts are true, the engine
//! knows ([`orzo_query::Remembered`]); how answers are cut and joined, [`orzo_promql::Part`].

use std::sync::{Arc, atomic::AtomicBool};

use orzo_promql::{Expressions, Limits, Part, Plan, QueryError, Selected, Window, evaluate, read};
use orzo_query::{NamedSeries, Remembered};

/// Series times minutes of a window that may have too many points for one read: a day of a thousand series has fewer. In
/// tests everything is long.
const LONG_MINUTES: usize = if cfg!(test) { 1_000 } else { 2_000_000 };
/// Points that are read for one piece, about: some tens of megabytes.
const PIECE_POINTS: usize = if cfg!(test) { 100 } else { 2_000_000 };
/// The first piece, which shows how dense points are, is this part of its window.
const FIRST_SHARE: usize = 8;

/// A query, who may see what of it, and what it may cost.
pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    pub(super) expressions: &'a Expressions,
    pub(super) source: &'a NamedSeries,
    pub(super) limits: Limits,
    pub(super) cancelled: Arc<AtomicBool>,
}

/// What became of a question that was tried in parts.
pub(super) enum InParts {
    /// This is the answer.
    Whole(Part),
    /// Nothing is known of it, and it is short: it is evaluated at once, and may be remembered then.
    AtOnce(Remembered),
    /// It has something that parts do not have, such as remarks or histograms.
    Not,
}

impl Question<'_> {
    /// Answers from what is remembered and the rest, or piece by piece; what it took some work to know is remembered.
    pub(super) async fn in_parts(&self, plan: &Plan, remembered: Remembered) -> Result<InParts, QueryError> {
        let mut windows = Vec::new();
        for window in remembered.left() {
            let is_long = can_be_split(plan, window) && self.is_long(plan, window).await?;
            windows.push((window, is_long));
        }
        if !remembered.is_any() && !windows.iter().any(|(_, is_long)| *is_long) {
            return Ok(InParts::AtOnce(remembered));
        }
        self.put_together(plan, remembered, windows).await
    }

    /// Piece by piece, because it was too much for one read.
    pub(super) async fn in_pieces(&self, plan: &Plan, remembered: Remembered) -> Result<InParts, QueryError> {
        let windows: Vec<_> = remembered.left().into_iter().map(|window| (window, true)).collect();
        match windows.iter().all(|(window, _)| can_be_split(plan, *window)) {
            true => self.put_together(plan, remembered, windows).await,
            false => Ok(InParts::Not),
        }
    }

    /// What is remembered, and windows that are evaluated at once or, if they are long, in pieces.
    async fn put_together(
        &self,
        plan: &Plan,
        remembered: Remembered,
        windows: Vec<(Window, bool)>,
    ) -> Result<InParts, QueryError> {
        let (mut parts, mut points_left) = (Vec::new(), self.limits.points_max);
        for (window, is_long) in windows {
            let first = if is_long { steps(window) / FIRST_SHARE } else { steps(window) };
            if !self.pieces(window, first, &mut points_left, &mut parts).await? {
                return Ok(InParts::Not);
            }
        }
        let is_new = !parts.is_empty();
        let Some(whole) = remembered.with(parts) else { return Ok(InParts::Not) };
        if is_new {
            self.source.remember(remembered, plan, &self.limits, whole.clone()).await?;
        }
        Ok(InParts::Whole(whole))
    }

    /// Whether a window may have more points than should be read at once.
    async fn is_long(&self, plan: &Plan, window: Window) -> Result<bool, QueryError> {
        let series = self.source.series_found(plan, &self.limits).await?;
        Ok(series.saturating_mul(((window.end_ms - window.start_ms) / 60_000) as usize) > LONG_MINUTES)
    }

    /// Appends the parts of a window, the last first, which has `size` steps; gives whether there are such parts.
    async fn pieces(
        &self,
        window: Window,
        mut size: usize,
        points_left: &mut usize,
        parts: &mut Vec<Part>,
    ) -> Result<bool, QueryError> {
        let mut left = steps(window);
        while left > 0 {
            let now = size.clamp(1, left);
            let at = |step: usize| window.start_ms + window.step_ms * step as i64;
            let piece = Window { start_ms: at(left - now), end_ms: at(left - 1), step_ms: window.step_ms };
            let Some((part, points)) = self.piece(piece).await? else { return Ok(false) };
            *points_left = points_left
                .checked_sub(points)
                .ok_or(QueryError::TooMuch { what: "points", limit: self.limits.points_max })?;
            parts.push(part);
            left -= now;
            size = PIECE_POINTS / (points / now).max(1);
        }
        Ok(true)
    }

    /// A window evaluated at once, and how many points were read for it.
    async fn piece(&self, window: Window) -> Result<Option<(Part, usize)>, QueryError> {
        let plan = self.expressions.plan(self.text, window, &self.limits)?;
        let limits = self.limits.of_piece();
        let found = read(&plan, self.source, &limits, &self.cancelled).await?;
        let points = found.iter().map(Selected::points).sum();
        let is_brief = plan.is_brief(&found);
        let cancelled = self.cancelled.clone();
        let evaluation = move || evaluate(&plan, found, &limits, &cancelled).map(|answer| Part::of(&plan, &answer));
        let part = if is_brief {
            evaluation()?
        } else {
            tokio::task::spawn_blocking(evaluation).await.unwrap_or(Err(QueryError::Cancelled))?
        };
        Ok(part.map(|part| (part, points)))
    }
}

/// Whether pieces of a window are less work than all of it: each reads what lies before it, too.
fn can_be_split(plan: &Plan, window: Window) -> bool {
    let share = (window.end_ms - window.start_ms) / FIRST_SHARE as i64;
    plan.reach_ms().is_some_and(|reach_ms| reach_ms <= share) && steps(window) >= 2 * FIRST_SHARE
}

fn steps(window: Window) -> usize {
    ((window.end_ms - window.start_ms) / window.step_ms.max(1)) as usize + 1
}
