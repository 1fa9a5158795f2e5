//! What a dashboard must be: panels that do not overlap, with units; variables that are there before they are used;
//! queries that can be read. That they are answered, a journey shows (`tests/journeys/dashboards.rs`).

use std::collections::BTreeSet;

use super::*;

#[test]
fn every_panel_has_its_place_its_unit_and_queries() {
    let mut uids = BTreeSet::new();
    for dashboard in DASHBOARDS {
        assert!(uids.insert(dashboard.uid) && !dashboard.description.is_empty(), "{}", dashboard.uid);
        let shown = dashboard.json();
        let panels = shown["panels"].as_array().expect("panels");
        assert_eq!(panels.len(), dashboard.panels.len());
        let mut taken = BTreeSet::new();
        for (panel, own) in panels.iter().zip(dashboard.panels) {
            let place = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(x < u64::from(COLUMNS) && taken.insert((x, y)), "{}: {}", dashboard.uid, own.title);
                }
            }
            if own.kind == Kind::Alarms {
                assert!(own.queries.is_empty());
                continue;
            }
            assert!(!own.unit.is_empty() && !own.queries.is_empty(), "{}: {}", dashboard.uid, own.title);
            assert_eq!(panel["fieldConfig"]["defaults"]["unit"], own.unit);
            assert_eq!(panel["targets"].as_array().map(Vec::len), Some(own.queries.len()));
            assert_eq!(panel["datasource"]["uid"], SOURCE);
        }
    }
    assert!(uids.len() == 5, "{uids:?}");
}

#[test]
fn variables_are_there_before_they_are_used() {
    let name = regex::Regex::new(r"\$\{?([a-z_]+)").expect("a pattern");
    let used = |text: &str| -> BTreeSet<String> { name.captures_iter(text).map(|found| found[1].to_owned()).collect() };
    for dashboard in DASHBOARDS {
        // Grafana's own.
        let mut known = BTreeSet::from(["source".to_owned(), "__range".to_owned(), "__rate_interval".to_owned()]);
        for variable in dashboard.variables {
            assert!(used(variable.series).is_subset(&known), "{}: {}", dashboard.uid, variable.name);
            known.insert(variable.name.to_owned());
        }
        for panel in dashboard.panels {
            for (query, _) in panel.queries {
                assert!(used(query).is_subset(&known), "{}: {query}", dashboard.uid);
            }
        }
        for variable in dashboard.variables {
            let all: Vec<&str> =
                dashboard.panels.iter().flat_map(|panel| panel.queries).map(|(query, _)| *query).collect();
            let later = dashboard.variables.iter().map(|variable| variable.series);
            let is_used = all.into_iter().chain(later).any(|text| used(text).contains(variable.name));
            assert!(is_used, "{}: nobody uses {}", dashboard.uid, variable.name);
        }
    }
}

#[test]
fn provisioning_files_are_yaml_that_grafana_knows() {
    let source: Value = serde_saphyr::from_str(&data_source("http://h:1/prometheus")).expect("YAML");
    let source = &source["datasources"][0];
    assert_eq!((&source["type"], &source["url"]), (&json!("prometheus"), &json!("http://h:1/prometheus")));
    assert_eq!(source["basicAuthUser"], "token");
    let provider: Value = serde_saphyr::from_str(&provider("/var/lib/grafana/dashboards")).expect("YAML");
    assert_eq!(provider["providers"][0]["options"]["path"], "/var/lib/grafana/dashboards");
}
