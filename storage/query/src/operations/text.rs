//! S-expressions → the JSON form. `(aggregate mean (metric cpu mean))`; words may be quoted.

use serde_json::{Value, json};

use crate::QueryError;

/// Longest text; a URL or a body field, written by hand or by Grafana.
const CHARACTERS_MAX: usize = 65_536;

fn invalid(what: &str, text: &str) -> QueryError {
    let shown: String = text.chars().take(200).collect();
    QueryError::invalid("Invalid operations", "Fail to parse the operations string", json!(format!("{what}: {shown}")))
}

pub(super) fn parse(text: &str, depth_max: usize) -> Result<Value, QueryError> {
    if text.len() > CHARACTERS_MAX {
        return Err(invalid("it is too long", text));
    }
    let mut open: Vec<Vec<Value>> = Vec::new();
    let mut done: Option<Value> = None;
    let mut rest = text.chars().peekable();
    let wrong = |what: &str| invalid(what, text);
    while let Some(c) = rest.next() {
        if c.is_whitespace() {
            continue;
        }
        let item = match c {
            '(' => {
                if open.len() > depth_max {
                    return Err(wrong("it is nested too deeply"));
                }
                open.push(Vec::new());
                continue;
            }
            ')' => Value::Array(open.pop().ok_or_else(|| wrong("a parenthesis closes nothing"))?),
            '"' | '\'' => {
                let mut word = String::new();
                loop {
                    match rest.next() {
                        None => return Err(wrong("a quote is not closed")),
                        Some(end) if end == c => break,
                        Some(inside) => word.push(inside),
                    }
                }
                Value::String(word)
            }
            first => {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|c| !c.is_whitespace() && !"()\"'".contains(*c)) {
                    word.push(next);
                }
                word_or_number(word)
            }
        };
        match open.last_mut() {
            Some(list) => list.push(item),
            // What follows is passed over, as in Gnocchi: people close one parenthesis too many.
            None if item.is_array() => {
                done = Some(item);
                break;
            }
            None => return Err(wrong("it does not start with a parenthesis")),
        }
    }
    match done {
        Some(list) => Ok(list),
        None => Err(wrong("a parenthesis is not closed")),
    }
}

fn word_or_number(word: String) -> Value {
    let is_number = word.trim_start_matches(['-', '+', '.']).starts_with(|c: char| c.is_ascii_digit());
    match word.parse::<f64>() {
        Ok(number) if is_number => serde_json::Number::from_f64(number).map_or(Value::String(word), Value::Number),
        _ => Value::String(word),
    }
}
