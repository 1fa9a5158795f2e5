//! No answer holds anything of another project.

use orzo_index::Filter;
use orzo_model::{SampleSink, Scope};
use proptest::prelude::*;

use super::*;
use crate::{AggregatesAnswer, AggregatesQuery, MeasuredSeries, Search, operations::Operation};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn an_aggregate_sums_what_its_project_owns(owners in prop::collection::vec(0..2u8, 1..8), viewer in 0..2u8) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let f = fixture().await;
            let samples = owners.iter().enumerate().map(|(n, owner)| {
                sample_of(&format!("p{owner}"), &format!("vm{n}"), "cpu_util", 0, f64::from(1u32 << n))
            });
            f.engine.accept(batch(samples.collect(), vec![])).await.expect("accepted");
            let mut expected = 0.0;
            for (n, owner) in owners.iter().enumerate() {
                if *owner == viewer {
                    expected += f64::from(1u32 << n);
                }
            }
            for search in [json!({}), json!({"like": {"original_resource_id": "vm%"}}), json!({"or": [{"=": {"project_id": "p0"}}, {"=": {"project_id": "p1"}}]})] {
                let query = AggregatesQuery {
                    scope: Scope::Project(format!("p{viewer}")),
                    creator: None,
                    operation: Operation::parse(&json!("(aggregate sum (metric cpu_util mean))")).expect("valid"),
                    search: Some(Search { resource_type: "instance".into(), filter: Filter::parse(&search).expect("valid") }),
                    groupby: vec!["project_id".into()],
                    granularity: Some(std::time::Duration::from_secs(60)),
                    ..AggregatesQuery::default()
                };
                match f.engine.aggregates(&query).await {
                    Ok(AggregatesAnswer::Groups(groups)) => {
                        prop_assert_eq!(groups.len(), 1);
                        prop_assert_eq!(&groups[0].0["project_id"], &json!(format!("p{viewer}")));
                        let MeasuredSeries::Aggregated(measures) = &groups[0].1.measures else { panic!("aggregated") };
                        prop_assert_eq!(measures[0].value, expected);
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => prop_assert!(expected == 0.0, "{}", error),
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_metric_of_another_project_looks_as_if_it_were_not_there() {
    let f = fixture().await;
    f.engine.accept(batch(vec![sample_of("p1", "vm1", "cpu_util", 0, 1.0)], vec![])).await.expect("accepted");
    let vm = f.engine.index().find_resource(&Scope::All, "instance", "orzo", "vm1").await.expect("there");
    let query = |scope: Scope, id: String| AggregatesQuery {
        scope,
        creator: None,
        operation: Operation::parse(&json!(["metric", id, "mean"])).expect("valid"),
        ..AggregatesQuery::default()
    };
    let id = vm.metrics["cpu_util"].to_string();
    let own = f.engine.aggregates(&query(Scope::Project("p1".into()), id.clone())).await;
    assert!(matches!(own, Ok(AggregatesAnswer::Single(_))));
    for scope in [Scope::Project("p2".into()), Scope::Nothing] {
        let hidden = f.engine.aggregates(&query(scope.clone(), id.clone())).await.expect_err("hidden").to_string();
        let missing =
            f.engine.aggregates(&query(scope, Uuid::nil().to_string())).await.expect_err("missing").to_string();
        assert_eq!(hidden.replace(&id, "X"), missing.replace(&Uuid::nil().to_string(), "X"));
    }
}
