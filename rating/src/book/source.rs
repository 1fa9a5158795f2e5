//! The book as the rules' source: the newest version, at the moment that is asked about.

use async_trait::async_trait;
use orzo_model::Timestamp;

use super::{BookError, RatingBook};
use crate::doors::{RuleSource, RuleSourceError, Rules};

fn unreadable(error: &BookError) -> RuleSourceError {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    RuleSourceError { reason }
}

#[async_trait]
impl RuleSource for RatingBook {
    async fn rules(&self, at: Timestamp) -> Result<Rules, RuleSourceError> {
        let version = self.rule_version().await.map_err(|error| unreadable(&error))?;
        let rules = self.rules_of(version, at).await.map_err(|error| unreadable(&error))?;
        let prices = crate::price::Prices::from_documents(&rules.documents);
        let prices = prices.map_err(|error| RuleSourceError { reason: error.to_string() })?;
        Ok(Rules { version, hashmap: rules.hashmap, prices })
    }
}
