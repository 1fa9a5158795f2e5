//! Texts that were parsed lately, with their expressions: a dashboard asks the same texts at other times again and again, and
//! compiling the regular expressions of a short query costs more than reading its points. Pure memory, of texts only: who
//! asked is not in it, and whether a text is known changes no answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use promql_parser::parser::Expr;

use crate::{
    Limits, Plan, QueryError, Window,
    plan::{checked, plan_of},
};

/// Texts in each half of the memory: what some hundred dashboards ask.
const TEXTS_MAX: usize = 256;
/// Longer texts are not kept; an expression takes some ten times its text, and a hundred times with regular expressions.
const TEXT_BYTES_MAX: usize = 2048;

/// When the young half is full the old half goes, and what is asked for again becomes young.
#[derive(Default)]
struct Halves {
    young: HashMap<String, Arc<Expr>>,
    old: HashMap<String, Arc<Expr>>,
}

/// The memory.
#[derive(Default)]
pub struct Expressions(Mutex<Halves>);

impl Expressions {
    /// As [`Plan::new`].
    pub fn plan(&self, text: &str, window: Window, limits: &Limits) -> Result<Plan, QueryError> {
        let expression = match self.known(text) {
            Some(expression) => expression,
            None => {
                let expression = Arc::new(checked(text)?);
                self.keep(text, expression.clone());
                expression
            }
        };
        plan_of(&expression, window, limits)
    }

    fn known(&self, text: &str) -> Option<Arc<Expr>> {
        // Nothing can panic between two halves of a change.
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = halves.young.get(text) {
            return Some(known.clone());
        }
        let (text, known) = halves.old.remove_entry(text)?;
        halves.keep(text, known.clone());
        Some(known)
    }

    fn keep(&self, text: &str, expression: Arc<Expr>) {
        if text.len() <= TEXT_BYTES_MAX && is_small(text) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).keep(text.to_owned(), expression);
        }
    }
}

impl Halves {
    fn keep(&mut self, text: String, expression: Arc<Expr>) {
        if self.young.len() >= TEXTS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text, expression);
    }
}

/// Whether nothing in its quotes could be a regular expression that is much larger compiled than written: those have
/// repetitions that are counted, or classes.
fn is_small(text: &str) -> bool {
    let mut open = None;
    for c in text.chars() {
        match open {
            // A comment could have any quotes.
            None if c == '#' => return false,
            None => open = Some(c).filter(|c| matches!(c, '"' | '\'' | '`')),
            Some(_) if matches!(c, '{' | '[' | '\\') => return false,
            Some(quote) if c == quote => open = None,
            Some(_) => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_text_has_the_plan_of_a_new_one_and_what_is_wrong_stays_wrong() {
        let (expressions, limits) = (Expressions::default(), Limits::default());
        for round in 0..3 {
            // Times are the question's own.
            let window = Window { start_ms: round * 1000, end_ms: round * 1000 + 60_000, step_ms: 1000 };
            for text in ["rate(up{job=~\"a|b\"}[5m] @ end())", "sum by (job) (up offset 1m) + start()", "1"] {
                let (kept, new) = (expressions.plan(text, window, &limits), Plan::new(text, window, &limits));
                assert_eq!(format!("{:?}", kept.expect(text)), format!("{:?}", new.expect(text)), "{text}");
            }
            for text in ["rate(up)", "up[5m]", "{}", "up{a=~\"(\"}"] {
                let (kept, new) = (expressions.plan(text, window, &limits), Plan::new(text, window, &limits));
                assert_eq!(kept.expect_err(text).to_string(), new.expect_err(text).to_string());
            }
        }
        assert!(expressions.known("1").is_some() && expressions.known("rate(up)").is_none());
    }

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        let (expressions, limits) = (Expressions::default(), Limits::default());
        let window = Window { start_ms: 0, end_ms: 0, step_ms: 0 };
        for number in 0..3 * TEXTS_MAX {
            expressions.plan("up", window, &limits).expect("a plan");
            expressions.plan(&format!("up + {number}"), window, &limits).expect("a plan");
            assert!(expressions.known("up").is_some(), "it was asked for a moment ago");
        }
        expressions.plan(&format!("up + {}1", " ".repeat(TEXT_BYTES_MAX)), window, &limits).expect("a plan");
        // Small when written and large when compiled.
        for text in ["{a=~\"(x{100}){100}\"}", r#"{a=~"\\w\\w"}"#, "{a=~'[^b]'}"] {
            expressions.plan(text, window, &limits).expect(text);
            assert!(expressions.known(text).is_none(), "{text}");
        }
        let halves = expressions.0.lock().expect("nobody panicked");
        assert!(halves.young.len() <= TEXTS_MAX && halves.old.len() <= TEXTS_MAX);
        assert!(halves.young.keys().chain(halves.old.keys()).all(|text| text.len() <= TEXT_BYTES_MAX));
    }
}
