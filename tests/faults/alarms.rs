//! No transition is missed and none happens twice, whatever dies: the process that judges and tells is killed again and
//! again while samples come, and its receivers hang, drop, fail and lose their answers.
//!
//! What must happen stands in a ledger outside (`plan`), made from what was acknowledged; the judge (`verdict`) reads
//! histories and receipts. `ORZO_TEST_KILLS=1000` makes the long run of it.

pub mod plan;
pub mod verdict;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use orzo_model::{Clock, SystemClock, Timestamp};

use self::{
    plan::Plan,
    verdict::{history, judge},
};
use crate::support::{
    faulty_receiver::{FAULTS, FaultyReceiver},
    orzo::{Orzo, runtime},
    wait_for,
};

/// Kills in the test; more by `ORZO_TEST_KILLS`.
const KILLS_DEFAULT: usize = 8;
/// `alarms.lag` in seconds: longer than a killed process is away, so that no window closes without its samples.
const LAG: i64 = 12;
/// The same for long runs, which meet every hiccup of a machine.
const LONG_LAG: i64 = 30;
/// More kills than this are a long run.
const SHORT_KILLS_MAX: usize = 20;

/// Everything as short as it goes, so that a kill meets all of it; a receiver's patience, too.
pub const SETTINGS: &str = r#"
[cloud]
hypervisor = "simulated"
demo_servers = false
token_life = "12h"
[agents]
compute = false
host = false
central = false
notifications = false
[store]
head_bytes_max = 65536
flush_after = "2s"
[alarms]
interval = "100ms"
lag = "12s"
lease = "2s"
webhook_allow = ["127.0.0.0/8"]
webhook_timeout = "1s"
retry_first = "100ms"
retry_max = "1s"
[log]
level = "error"
"#;

#[test]
fn every_transition_happens_once_however_often_the_process_is_killed() {
    runtime();
    let kills = std::env::var("ORZO_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS_DEFAULT);
    let directory = tempfile::tempdir().unwrap();
    let receivers: Vec<FaultyReceiver> = FAULTS.into_iter().map(FaultyReceiver::start).collect();
    let clock = SystemClock::new();
    let lag = if kills > SHORT_KILLS_MAX { LONG_LAG } else { LAG };
    let mut orzo = Orzo::start(directory.path(), &SETTINGS.replace("lag = \"12s\"", &format!("lag = \"{lag}s\"")));
    let token = orzo.token();
    let mut plan = Plan::make(&orzo, &token, &receivers, lag);
    let mut killed_at = Vec::new();
    for kill in 0..kills {
        let stop = AtomicBool::new(false);
        // From at once, which is still in the middle of taking its leases, to well under way.
        let wait = Duration::from_millis(rand::random_range(0..1200));
        std::thread::scope(|scope| {
            scope.spawn(|| while plan.post(&[&orzo], &token) && !stop.load(Ordering::Relaxed) {});
            std::thread::sleep(wait);
            let status = std::process::Command::new("kill").args(["-9", &orzo.pid().to_string()]).status().unwrap();
            assert!(status.success());
            stop.store(true, Ordering::Relaxed);
        });
        killed_at.push(clock.now());
        orzo.kill();
        if kill % 10 == 9 {
            orzo.restart_and_kill(Duration::from_millis(rand::random_range(0..600)));
            killed_at.push(clock.now());
        }
        orzo.restart();
        if kill % 100 == 99 {
            eprintln!("{} kills, {} windows, {} events", kill + 1, plan.windows, plan.events);
        }
    }
    finish(&mut plan, &mut orzo, &token, &receivers);
    let verdict = judge(&plan, &orzo, &token, &receivers, &killed_at);
    eprintln!("{} kills of the process, {} events, {verdict:?}", killed_at.len(), plan.events);
    verdict.assert_clean();
    orzo.assert_conserved();
}

/// The last samples come, receivers are well again, what is not judged yet is judged, what waits is delivered.
fn finish(plan: &mut Plan, orzo: &mut Orzo, token: &str, receivers: &[FaultyReceiver]) {
    plan.catch_up(&[orzo], token);
    receivers.iter().for_each(FaultyReceiver::heal);
    assert_eq!(orzo.stop(), Some(0), "SIGTERM drains and exits 0");
    // All samples are there: nobody has to wait for more of them.
    orzo.set("alarms", "lag", "200ms");
    orzo.restart();
    wait_until_all_is_told(plan, orzo, token);
}

/// Waits until there are as many transitions and notices as there must be; which ones is the judge's matter.
pub fn wait_until_all_is_told(plan: &Plan, orzo: &Orzo, token: &str) {
    for alarm in &plan.alarms {
        let mut count = 0;
        let is_done = patiently(|| {
            count = history(orzo, token, &alarm.alarm_id).len();
            count >= alarm.transitions.len()
        });
        if !is_done {
            eprintln!("{}: {count} transitions of {}", alarm.name, alarm.transitions.len());
        }
    }
    // A receiver that failed often is left alone for half a minute or more.
    let is_done = patiently(|| {
        let waiting = orzo.request("GET", "/alarming/v2/notices?state=waiting&all_projects=true", token, None, 200);
        waiting.as_array().is_some_and(Vec::is_empty)
    });
    if !is_done {
        eprintln!("some notices still wait");
    }
}

/// Whether it becomes true within two minutes; the judge says more than a panic here would.
fn patiently(mut probe: impl FnMut() -> bool) -> bool {
    let clock = SystemClock::new();
    let until: Timestamp = clock.now().plus(Duration::from_secs(120));
    wait_for("a probe", Duration::from_secs(180), || {
        let is_true = probe();
        (is_true || clock.now() > until).then_some(is_true)
    })
}
