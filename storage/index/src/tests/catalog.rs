//! The catalog: every metric that is wanted comes once, whichever way it is found, also over many pages.

use serde_json::json;

use super::*;

/// Metrics as (name, resource), all pages together.
async fn walked(index: &Index, wanted: &CatalogWanted) -> Vec<(Option<String>, Option<String>)> {
    let mut catalog = index.catalog(wanted);
    let mut found = Vec::new();
    while let Some(rows) = catalog.next().await.expect("a page") {
        found.extend(rows.into_iter().map(|row| (row.name, row.original_resource_id)));
    }
    found.sort();
    found
}

#[tokio::test]
async fn every_way_through_the_catalog_finds_what_is_wanted_once() {
    for f in fixtures().await {
        let (mut series, mut all) = (Vec::new(), Vec::new());
        for number in 0..9 {
            let name = format!("r{number}");
            let owner = if number < 6 { "p1" } else { "p2" };
            let mut new = new_resource(&name, "generic", "u:p", json!({}));
            new.project_id = Some(owner.to_owned());
            let resource = f.index.create_resource(&new).await.expect("a resource");
            for meter in ["cpu", "disk", "net"] {
                let new = NewMetric {
                    creator: "u:p".into(),
                    name: Some(meter.to_owned()),
                    resource_id: Some(resource.id),
                    ..NewMetric::default()
                };
                series.push(f.index.create_metric(&new).await.expect("a metric").series.0.cast_signed());
                all.push((Some(meter.to_owned()), Some(name.clone()), owner));
            }
        }
        for _ in 0..7 {
            let new = NewMetric { creator: "u:p".into(), ..NewMetric::default() };
            f.index.create_metric(&new).await.expect("a metric");
            all.push((None, None, ""));
        }
        let gone = NewMetric { name: Some("cpu".into()), creator: "u:p".into(), ..NewMetric::default() };
        let gone = f.index.create_metric(&gone).await.expect("a metric").id;
        f.index.delete_metric(&Scope::All, gone).await.expect("deleted");
        let expected = |keep: &dyn Fn(&str, &str, &str) -> bool| {
            let kept = all.iter().filter(|(name, resource, owner)| {
                keep(name.as_deref().unwrap_or_default(), resource.as_deref().unwrap_or_default(), owner)
            });
            let mut kept: Vec<_> = kept.map(|(name, resource, _)| (name.clone(), resource.clone())).collect();
            kept.sort();
            kept
        };
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let every = CatalogWanted::default();
        assert_eq!(walked(&f.index, &every).await, expected(&|_, _, _| true));
        let named = CatalogWanted { names: texts(&["cpu", "net", "none"]), ..CatalogWanted::default() };
        assert_eq!(walked(&f.index, &named).await, expected(&|name, _, _| matches!(name, "cpu" | "net")));
        let owned = CatalogWanted { project_ids: texts(&["p1"]), ..CatalogWanted::default() };
        assert_eq!(walked(&f.index, &owned).await, expected(&|_, _, owner| owner == "p1"));
        let of_two = CatalogWanted { original_resource_ids: texts(&["r3", "r8"]), ..CatalogWanted::default() };
        assert_eq!(walked(&f.index, &of_two).await, expected(&|_, resource, _| matches!(resource, "r3" | "r8")));
        let listed = CatalogWanted { series: Some(series[..6].to_vec()), ..CatalogWanted::default() };
        assert_eq!(walked(&f.index, &listed).await, expected(&|_, resource, _| matches!(resource, "r0" | "r1")));
        let nothing = CatalogWanted { series: Some(Vec::new()), ..CatalogWanted::default() };
        assert_eq!(walked(&f.index, &nothing).await, []);
    }
}
