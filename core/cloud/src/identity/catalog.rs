//! The catalog: which services there are and where, made from the settings alone, so that it is the same in every
//! process and cannot be spoilt by a request. Pure.

use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

/// Type (what clients ask for), name, path below the base URL (that of the metrics can be set).
const SERVICES: &[(&str, &str, &str)] = &[
    ("identity", "keystone", "/identity/v3"),
    ("image", "glance", "/image"),
    ("compute", "nova", "/compute/v2.1"),
    ("metric", "gnocchi", "/metric"),
    ("alarming", "aodh", "/alarming"),
    ("metering", "ceilometer", "/metering"),
    ("event", "panko", "/event"),
    ("rating", "cloudkitty", "/rating"),
    ("prometheus", "prometheus", "/prometheus"),
];

const INTERFACES: &[&str] = &["public", "internal", "admin"];

/// The services of this cloud.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    base: String,
    region: String,
    metric_path: String,
}

impl Catalog {
    pub(crate) fn new(base_url: &Url, region: &str, metric_path: &str) -> Self {
        Self {
            base: base_url.as_str().trim_end_matches('/').to_owned(),
            region: region.to_owned(),
            metric_path: metric_path.to_owned(),
        }
    }

    fn url_of(&self, kind: &str, path: &str) -> String {
        format!("{}{}", self.base, if kind == "metric" { &self.metric_path } else { path })
    }

    /// URL of identity's own things.
    pub(crate) fn identity_url(&self, path: &str) -> String {
        format!("{}/identity/v3{path}", self.base)
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// As in a token.
    pub(crate) fn in_token(&self) -> Value {
        let service = |(kind, name, path): &(&str, &str, &str)| {
            let endpoint = |interface: &&str| {
                json!({"id": id_of(kind, interface), "interface": interface, "region": self.region,
                       "region_id": self.region, "url": self.url_of(kind, path)})
            };
            let endpoints: Vec<Value> = INTERFACES.iter().map(endpoint).collect();
            json!({"id": id_of(kind, ""), "type": kind, "name": name, "endpoints": endpoints})
        };
        SERVICES.iter().map(service).collect()
    }

    /// As `GET /v3/services` lists them.
    pub(crate) fn services(&self) -> Vec<Value> {
        let service = |(kind, name, _): &(&str, &str, &str)| {
            let id = id_of(kind, "");
            let link = self.identity_url(&format!("/services/{id}"));
            json!({"id": id, "type": kind, "name": name, "enabled": true, "description": "", "links": {"self": link}})
        };
        SERVICES.iter().map(service).collect()
    }

    /// As `GET /v3/endpoints` lists them.
    pub(crate) fn endpoints(&self) -> Vec<Value> {
        let of_service = |(kind, _, path): &'static (&str, &str, &str)| {
            INTERFACES.iter().map(move |interface| {
                let id = id_of(kind, interface);
                let link = self.identity_url(&format!("/endpoints/{id}"));
                json!({"id": id, "service_id": id_of(kind, ""), "interface": interface, "region": self.region,
                       "region_id": self.region, "url": self.url_of(kind, path), "enabled": true,
                       "links": {"self": link}})
            })
        };
        SERVICES.iter().flat_map(of_service).collect()
    }
}

/// The same in every process and after every restart.
fn id_of(kind: &str, interface: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("orzo:catalog:{kind}:{interface}").as_bytes()).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_three_interfaces_below_the_base_url() {
        let catalog = Catalog::new(&Url::parse("http://h:8041/").expect("a URL"), "RegionOne", "/gnocchi");
        let services = catalog.in_token();
        let types: Vec<_> = services.as_array().expect("a list").iter().map(|s| s["type"].clone()).collect();
        let expected =
            ["identity", "image", "compute", "metric", "alarming", "metering", "event", "rating", "prometheus"];
        assert_eq!(types, expected);
        assert_eq!(services[3]["name"], "gnocchi");
        assert_eq!(services[3]["endpoints"][0]["url"], "http://h:8041/gnocchi");
        assert_eq!(services[2]["endpoints"][0]["url"], "http://h:8041/compute/v2.1");
        assert_eq!(catalog.endpoints().len(), 27);
        assert_eq!(catalog.services()[0]["id"], catalog.endpoints()[0]["service_id"]);
    }
}
