//! What a query does and took, in the form of VictoriaMetrics' `trace`: a message, milliseconds, and the same of what is inside.

use std::time::Duration;

use orzo_promql::{Plan, Selected, Step};
use serde_json::{Value, json};

/// When a query came, had its turn, had read its points, and was evaluated.
pub(super) struct Times {
    pub(super) started: Duration,
    pub(super) begun: Duration,
    pub(super) read_at: Duration,
    pub(super) ended: Duration,
}

impl Times {
    /// The whole query.
    pub(super) fn trace(&self, times: usize, selectors: Vec<Value>, evaluated: &Step) -> Value {
        let whole = self.ended.saturating_sub(self.started);
        json!({
            "message": format!("the query at {times} times"),
            "duration_msec": millis(whole),
            "children": [
                {"message": "waiting for its turn", "duration_msec": millis(self.begun.saturating_sub(self.started))},
                {
                    "message": "reading",
                    "duration_msec": millis(self.read_at.saturating_sub(self.begun)),
                    "children": selectors,
                },
                told_of(evaluated),
            ],
        })
    }
}

/// What was read of each selector; they are read together, so that none has a time of its own.
pub(super) fn read_steps(plan: &Plan, found: &[Selected]) -> Vec<Value> {
    let step = |(place, selected): (usize, &Selected)| {
        let gave = Some((selected.series(), selected.points()));
        told_of(&Step { gave, ..plan.selection_explained(place) })
    };
    found.iter().enumerate().map(step).collect()
}

/// A step with those inside.
pub(super) fn told_of(step: &Step) -> Value {
    let mut told = json!({"message": step.what});
    if let Some(took) = step.took {
        told["duration_msec"] = millis(took).into();
    }
    if step.times > 0 {
        told["times"] = step.times.into();
    }
    if let Some((series, values)) = step.gave {
        told["series"] = series.into();
        told["values"] = values.into();
    }
    if let Some((after, until)) = step.reads_ms {
        told["reads"] = json!({"after": after as f64 / 1000.0, "until": until as f64 / 1000.0});
    }
    if let Some(how) = step.how {
        told["how"] = how.into();
    }
    if !step.inside.is_empty() {
        told["children"] = step.inside.iter().map(told_of).collect();
    }
    told
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}
