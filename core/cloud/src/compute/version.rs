//! Microversions: which one a request wants, and the documents that tell what there is. Pure.

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::error::ComputeError;

/// The minor part of 2.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Microversion(pub u32);

/// What a client that says nothing gets.
pub(super) const LEAST: Microversion = Microversion(1);
/// The newest: 2.96 shows a server's pinned zone. Newer ones change only what this cloud does not have.
pub(super) const MOST: Microversion = Microversion(96);

impl Microversion {
    /// From `OpenStack-API-Version: compute 2.53`, or the older `X-OpenStack-Nova-API-Version: 2.53`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ComputeError> {
        let standard = headers.get_all("openstack-api-version").iter().find_map(|value| {
            // Several services may be named in one header.
            value.to_str().ok()?.split(',').find_map(|part| part.trim().strip_prefix("compute "))
        });
        let older = headers.get("x-openstack-nova-api-version").and_then(|value| value.to_str().ok());
        let Some(text) = standard.or(older).map(str::trim) else { return Ok(LEAST) };
        if text.eq_ignore_ascii_case("latest") {
            return Ok(MOST);
        }
        let (major, minor) = text
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)))
            .ok_or_else(|| {
                ComputeError::bad_request(format!(
                    "API Version String {text:.20} is of invalid format. Must be of format MajorNum.MinorNum."
                ))
            })?;
        if major != 2 || !(LEAST.0..=MOST.0).contains(&minor) {
            return Err(ComputeError::refused(
                StatusCode::NOT_ACCEPTABLE,
                format!(
                    "Version {major}.{minor} is not supported by the API. Minimum is 2.{} and maximum is 2.{}.",
                    LEAST.0, MOST.0
                ),
            ));
        }
        Ok(Self(minor))
    }

    /// Told on every answer.
    pub(super) fn announce(self, headers: &mut HeaderMap) {
        let text = format!("2.{}", self.0);
        let header = |text: &str| HeaderValue::from_str(text).expect("digits and a dot are valid in a header");
        headers.insert("openstack-api-version", header(&format!("compute {text}")));
        headers.insert("x-openstack-nova-api-version", header(&text));
        headers.append("vary", HeaderValue::from_static("OpenStack-API-Version, X-OpenStack-Nova-API-Version"));
    }
}

/// The document at the service's root.
pub(super) fn versions(url: &str) -> Value {
    json!({"versions": [version(url)]})
}

/// The document at `/v2.1`.
pub(super) fn version(url: &str) -> Value {
    json!({
        "id": "v2.1",
        "status": "CURRENT",
        "version": format!("2.{}", MOST.0),
        "min_version": format!("2.{}", LEAST.0),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": format!("{}/", url.trim_end_matches('/'))}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, value: &'static str) -> Result<u32, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        Microversion::of(&headers).map(|version| version.0).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn both_headers_are_read_and_the_range_is_held() {
        assert_eq!(Microversion::of(&HeaderMap::new()).expect("the least"), LEAST);
        assert_eq!(of("openstack-api-version", "compute 2.53"), Ok(53));
        assert_eq!(of("openstack-api-version", "volume 3.1, compute 2.88"), Ok(88));
        assert_eq!(of("openstack-api-version", "compute latest"), Ok(MOST.0));
        assert_eq!(of("x-openstack-nova-api-version", "2.37"), Ok(37));
        assert_eq!(of("x-openstack-nova-api-version", "2.999"), Err(406));
        assert_eq!(of("x-openstack-nova-api-version", "two"), Err(400));
    }
}
