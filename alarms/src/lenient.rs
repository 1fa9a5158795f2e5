//! Numbers as Aodh takes them: its clients send what the command line gave them, as text.

use std::{fmt::Display, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged)]
enum Written<T> {
    Plain(T),
    Text(String),
    Other(serde_json::Value),
}

/// A number, or a text that is one.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    read(deserializer, "a number")
}

/// A whole number, or a text that is one.
pub(crate) fn whole<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + FromStr + Display,
{
    read(deserializer, "a whole number")
}

fn read<'de, T: Deserialize<'de> + FromStr, D: Deserializer<'de>>(deserializer: D, what: &str) -> Result<T, D::Error> {
    match Written::deserialize(deserializer)? {
        Written::Plain(value) => Ok(value),
        Written::Text(text) => text.trim().parse().map_err(|_| D::Error::custom(format!("`{text}` is not {what}"))),
        Written::Other(value) => Err(D::Error::custom(format!("`{value}` is not {what}"))),
    }
}
