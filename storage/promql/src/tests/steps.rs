//! What a query does and holds: its steps before and after it ran, its memory, and functions of its own times.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::*;
use crate::{Room, Step, evaluate_traced, read};

fn shape(step: &Step) -> String {
    let inside: Vec<String> = step.inside.iter().map(shape).collect();
    let inside = if inside.is_empty() { String::new() } else { format!(" <{}>", inside.join("; ")) };
    format!("{}{inside}", step.what)
}

#[tokio::test]
async fn a_query_says_what_it_will_do_and_what_it_did() {
    let window = Window { start_ms: 0, end_ms: 20_000, step_ms: 10_000 };
    let limits = Limits::default();
    let text = "topk(2, sum by (host) (rate(load{host!=\"x\"}[30s] offset 10s)) / on (host) group_left (job) load) \
                + vector(1) > bool max_over_time(load[20s:10s])";
    let plan = Plan::new(text, window, &limits).expect("a plan");
    let selector = "{host!=\"x\", __name__=\"load\"}";
    let range = format!("{selector}[30s] offset 10s");
    let expected = |range_inside: &str| {
        format!(
            "> bool <+ <topk <2; / on (host) group_left (job) <sum by (host) <rate({range}){range_inside}>; \
             {{__name__=\"load\"}}>>; vector() <1>>; max_over_time() <[20s:10s] <{{__name__=\"load\"}}>>>"
        )
    };
    let explained = plan.explained();
    assert_eq!(shape(&explained), expected(&format!(" <{range}>")));
    let subquery = &explained.inside[1].inside[0];
    assert_eq!((subquery.times, subquery.inside[0].times), (3, 4), "a subquery has times of its own");
    assert!(explained.took.is_none() && explained.gave.is_none());
    let leaf = &explained.inside[0].inside[0].inside[1].inside[0].inside[0].inside[0];
    assert_eq!(leaf.reads_ms, Some((-40_000, 10_000)));

    let world = hosts();
    let cancelled = Arc::new(AtomicBool::new(false));
    let found = read(&plan, &world, &limits, &cancelled).await.expect("points");
    let ticks = AtomicUsize::new(0);
    let now = || std::time::Duration::from_secs(ticks.fetch_add(1, Ordering::Relaxed) as u64);
    let (answer, step) = evaluate_traced(&plan, found.clone(), &limits, &cancelled, &now).expect("an answer");
    // What was folded while it was read is not read again.
    assert_eq!(shape(&step), expected(""));
    let untraced = crate::evaluate(&plan, found, &limits, &cancelled).expect("the same");
    assert_eq!(format!("{:?}", answer.value), format!("{:?}", untraced.value), "looking changes nothing");
    let all = |step: &Step| -> Vec<Step> {
        let (mut all, mut at) = (vec![step.clone()], 0);
        while at < all.len() {
            all.extend(all[at].inside.clone());
            at += 1;
        }
        all
    };
    for one in all(&step) {
        let inside: std::time::Duration = one.inside.iter().filter_map(|inner| inner.took).sum();
        assert!(one.took.is_some_and(|took| took > inside) && one.gave.is_some(), "{one:?}");
    }
}

/// Room for so many bytes.
#[derive(Debug)]
struct Small {
    left: AtomicUsize,
}

impl Room for Small {
    fn take(&self, bytes: usize) -> Result<(), QueryError> {
        let took = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        took.map(|_| ()).map_err(|_| QueryError::Busy("full".into()))
    }

    fn apart(&self) -> Arc<dyn Room> {
        Arc::new(Self { left: AtomicUsize::new(0) })
    }
}

#[tokio::test]
async fn what_a_query_reads_and_holds_is_taken_from_the_room() {
    let world = hosts();
    let with = |bytes: usize, text: &'static str, world: World| async move {
        let room: Arc<dyn Room> = Arc::new(Small { left: AtomicUsize::new(bytes) });
        let limits = Limits { room: Some(room), ..Limits::default() };
        let plan = Plan::new(text, Window { start_ms: 0, end_ms: 0, step_ms: 0 }, &limits).expect("a plan");
        run(&plan, &world, &limits, Arc::new(AtomicBool::new(false))).await
    };
    let large = "count_over_time((vector(1) + vector(2))[1000s:1s])";
    assert!(matches!(with(30_000, large, World(world.0.clone())).await, Err(QueryError::Busy(_))));
    with(40_000, large, World(world.0.clone())).await.expect("there is room for a thousand times");
    assert!(matches!(with(10, "load[1m]", World(world.0.clone())).await, Err(QueryError::Busy(_))), "points as well");
}

#[tokio::test]
async fn several_quantiles_and_the_times_of_the_question() {
    let world =
        world(&["took_bucket job=x le=0.1 | 10", "took_bucket job=x le=1 | 30", "took_bucket job=x le=+Inf | 40"]);
    assert_eq!(
        at(&world, 0, "histogram_quantiles(took_bucket, \"q\", 0.5, 0, 1, 0.5)").await,
        "{job=\"x\", q=\"0.0\"} 0; {job=\"x\", q=\"0.5\"} 0.55; {job=\"x\", q=\"1.0\"} 1"
    );
    assert_eq!(over(&world, 10, 30, 10, "range() + step()").await, [Some(30.0); 3]);
    assert_eq!(at(&world, 5, "range()").await, "0");
}
