//! A tree of JSON that is read field by field, each knowing its place: what is wrong is told with its path.
//!
//! The forms are those of proto3's JSON mapping: numbers as numbers or as texts, `NaN`, `Infinity` and `-Infinity`, a
//! field that is `null` as one that is absent; an element of a list is never `null`.

use serde_json::Value;

use crate::ingest::IngestError;

/// A value and the way to it.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    way: Option<(&'a Node<'a>, Step)>,
}

#[derive(Clone, Copy)]
enum Step {
    Field(&'static str),
    Element(usize),
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, way: None }
    }

    /// What `read` makes of a field; `None` if there is none.
    pub(super) fn field<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&Node<'_>) -> Result<T, IngestError>,
    ) -> Result<Option<T>, IngestError> {
        let value = self.value.get(name).filter(|value| !value.is_null());
        value.map(|value| read(&Node { value, way: Some((self, Step::Field(name))) })).transpose()
    }

    /// The same of a field that is an object.
    pub(super) fn object<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&Node<'_>) -> Result<T, IngestError>,
    ) -> Result<Option<T>, IngestError> {
        self.field(name, |field| if field.value.is_object() { read(field) } else { Err(field.wrong("not an object")) })
    }

    /// What `read` makes of each element of a list.
    pub(super) fn list<T>(
        &self,
        name: &'static str,
        mut read: impl FnMut(&Node<'_>) -> Result<T, IngestError>,
    ) -> Result<Vec<T>, IngestError> {
        let all = self.field(name, |field| {
            let list = field.value.as_array().ok_or_else(|| field.wrong("not a list"))?;
            let nodes = list.iter().enumerate();
            nodes.map(|(at, value)| read(&Node { value, way: Some((field, Step::Element(at))) })).collect()
        })?;
        Ok(all.unwrap_or_default())
    }

    /// The same of a list of objects.
    pub(super) fn objects<T>(
        &self,
        name: &'static str,
        mut read: impl FnMut(&Node<'_>) -> Result<T, IngestError>,
    ) -> Result<Vec<T>, IngestError> {
        self.list(name, |one| if one.value.is_object() { read(one) } else { Err(one.wrong("not an object")) })
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'a str>, IngestError> {
        self.field(name, |field| field.as_text().map(drop))?;
        Ok(self.value.get(name).and_then(Value::as_str))
    }

    pub(super) fn boolean(&self, name: &'static str) -> Result<Option<bool>, IngestError> {
        self.field(name, |node| node.as_boolean())
    }

    pub(super) fn double(&self, name: &'static str) -> Result<Option<f64>, IngestError> {
        self.field(name, |node| node.as_double())
    }

    /// A whole number; 0 if it is absent.
    pub(super) fn whole(&self, name: &'static str) -> Result<u64, IngestError> {
        Ok(self.field(name, |node| node.as_whole())?.unwrap_or(0))
    }

    pub(super) fn as_text(&self) -> Result<&'a str, IngestError> {
        self.value.as_str().ok_or_else(|| self.wrong("not a text"))
    }

    pub(super) fn as_boolean(&self) -> Result<bool, IngestError> {
        self.value.as_bool().ok_or_else(|| self.wrong("neither true nor false"))
    }

    /// A double; JSON's own numbers, or the names of those that JSON does not know.
    pub(super) fn as_double(&self) -> Result<f64, IngestError> {
        let value = match self.value {
            Value::String(text) => match text.as_str() {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                text => decimal(text),
            },
            other => other.as_f64(),
        };
        value.ok_or_else(|| self.wrong("not a number"))
    }

    pub(super) fn as_whole(&self) -> Result<u64, IngestError> {
        let number = self.as_wide("not a whole number from 0 to 2^64 - 1")?;
        u64::try_from(number).map_err(|_| self.wrong("not a whole number from 0 to 2^64 - 1"))
    }

    pub(super) fn as_integer(&self) -> Result<i64, IngestError> {
        let number = self.as_wide("not a whole number of 64 bits")?;
        i64::try_from(number).map_err(|_| self.wrong("not a whole number of 64 bits"))
    }

    pub(super) fn as_signed(&self) -> Result<i32, IngestError> {
        let number = self.as_wide("not a whole number of 32 bits")?;
        i32::try_from(number).map_err(|_| self.wrong("not a whole number of 32 bits"))
    }

    /// A whole number, however it is written: `3`, `"3"`, `3.0` and `3e2` are.
    fn as_wide(&self, what: &'static str) -> Result<i128, IngestError> {
        let from_double = |value: f64| (value.fract() == 0.0).then_some(value as i128);
        let number = match self.value {
            Value::String(text) if text.starts_with('+') => None,
            Value::String(text) => text.parse().ok().or_else(|| decimal(text).and_then(from_double)),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Some(number.into()),
                (None, Some(number)) => Some(number.into()),
                (None, None) => number.as_f64().and_then(from_double),
            },
            _ => None,
        };
        number.ok_or_else(|| self.wrong(what))
    }

    /// What is wrong here.
    pub(super) fn wrong(&self, what: &'static str) -> IngestError {
        IngestError::Misformed { place: self.place(), what }
    }

    /// Such as `resourceMetrics[0].scopeMetrics`.
    fn place(&self) -> String {
        let Some((above, step)) = self.way else { return String::new() };
        let mut place = above.place();
        match step {
            Step::Element(at) => place.push_str(&format!("[{at}]")),
            Step::Field(name) => {
                if !place.is_empty() {
                    place.push('.');
                }
                place.push_str(name);
            }
        }
        place
    }
}

/// A number of JSON's within a text. Rust would read `inf` and `nan` too, which are none.
fn decimal(text: &str) -> Option<f64> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    let value = text.parse::<f64>().ok()?;
    (text.bytes().all(is_plain) && !text.starts_with('+') && value.is_finite()).then_some(value)
}
