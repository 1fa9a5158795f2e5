//! What goes into statements and comes out of rows.

use std::sync::Arc;

/// A parameter or a cell. `None` is NULL; on the way in its variant tells PostgreSQL the type of the NULL.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `TEXT`
    Text(Option<String>),
    /// `BIGINT`
    Int(Option<i64>),
    /// `DOUBLE PRECISION`
    Real(Option<f64>),
    /// `BYTEA` (PostgreSQL) or `BLOB` (SQLite); write the column type as `BYTEA`, SQLite accepts any name
    Bytes(Option<Vec<u8>>),
}

macro_rules! value_from {
    ($($type:ty => $variant:ident, |$name:ident| $convert:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($name: $type) -> Self { Self::$variant(Some($convert)) }
        }
        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self { Self::$variant(value.map(|$name| $convert)) }
        }
    )*};
}

value_from! {
    String => Text, |v| v;
    &str => Text, |v| v.to_owned();
    &String => Text, |v| v.clone();
    i64 => Int, |v| v;
    i32 => Int, |v| i64::from(v);
    u32 => Int, |v| i64::from(v);
    bool => Int, |v| i64::from(v);
    f64 => Real, |v| v;
    Vec<u8> => Bytes, |v| v;
    orzo_model::Timestamp => Int, |v| v.micros();
}

/// Names of an answer's columns, shared by its rows.
pub(crate) type Names = Arc<[Box<str>]>;

/// One row of an answer; cells by column name.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    names: Names,
    cells: Vec<Value>,
}

impl Row {
    pub(crate) fn new(names: Names, cells: Vec<Value>) -> Self {
        debug_assert_eq!(names.len(), cells.len(), "each cell has a name");
        Self { names, cells }
    }

    /// Text of a cell; `None` for NULL. Numbers are written out.
    pub fn text(&self, column: &str) -> Option<String> {
        match self.cell(column) {
            Value::Text(text) => text.clone(),
            Value::Int(int) => int.map(|v| v.to_string()),
            Value::Real(real) => real.map(|v| v.to_string()),
            Value::Bytes(_) => None,
        }
    }

    /// Text of a cell that is declared NOT NULL; empty if it is NULL after all.
    pub fn string(&self, column: &str) -> String {
        self.text(column).unwrap_or_default()
    }

    /// Integer of a cell; `None` for NULL and for what is not an integer.
    pub fn int(&self, column: &str) -> Option<i64> {
        match self.cell(column) {
            Value::Int(int) => *int,
            Value::Real(Some(real)) if real.fract() == 0.0 => Some(*real as i64),
            // sum() over BIGINT is NUMERIC in PostgreSQL, which arrives as text when cast
            Value::Text(Some(text)) => text.parse().ok(),
            _ => None,
        }
    }

    /// Boolean of a cell that holds 0 or 1; false for NULL.
    pub fn flag(&self, column: &str) -> bool {
        self.int(column).unwrap_or(0) != 0
    }

    /// Float of a cell; `None` for NULL.
    pub fn real(&self, column: &str) -> Option<f64> {
        match self.cell(column) {
            Value::Real(real) => *real,
            Value::Int(int) => int.map(|v| v as f64),
            _ => None,
        }
    }

    /// Bytes of a cell; `None` for NULL.
    pub fn bytes(&self, column: &str) -> Option<Vec<u8>> {
        match self.cell(column) {
            Value::Bytes(bytes) => bytes.clone(),
            _ => None,
        }
    }

    /// Time of a cell that holds microseconds; `None` for NULL.
    pub fn time(&self, column: &str) -> Option<orzo_model::Timestamp> {
        self.int(column).map(orzo_model::Timestamp::from_micros)
    }

    /// # Panics
    /// If the query has no such column: a mistake in our own SQL, found by the first test that runs it.
    fn cell(&self, column: &str) -> &Value {
        match self.names.iter().position(|name| **name == *column) {
            Some(place) => &self.cells[place],
            None => panic!("the query has no column `{column}`"),
        }
    }
}
