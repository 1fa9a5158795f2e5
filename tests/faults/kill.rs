//! kill -9 of the whole process under ingest, at random moments, recovery included.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::ledger::{Ledger, Sender, make_metrics};
use crate::support::{orzo::Orzo, orzo::runtime};

/// Kills in the test; more by `ORZO_TEST_KILLS`.
const KILLS_DEFAULT: usize = 100;

/// Small numbers, so that flushes, and kills in the middle of them, happen all the time.
const SETTINGS: &str = r#"
[store]
head_bytes_max = 65536
flush_after = "1s"
[log]
level = "warn"
"#;

#[test]
fn every_acknowledged_point_survives_kill_9() {
    runtime();
    let kills = std::env::var("ORZO_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS_DEFAULT);
    let directory = tempfile::tempdir().unwrap();
    let mut orzo = Orzo::start(directory.path(), SETTINGS);
    let token = orzo.token();
    let metrics = make_metrics(&orzo, &token, 8);
    let mut ledger = Ledger::default();
    let mut senders = [Sender::new(1_700_000_000), Sender::new(1_750_000_000)];
    for kill in 0..kills {
        let stop = AtomicBool::new(false);
        // From at once, which is still in recovery's aftermath, to well under way.
        let wait = Duration::from_millis(rand::random_range(0..500));
        std::thread::scope(|scope| {
            for sender in &mut senders {
                scope.spawn(|| {
                    let mut is_answered = true;
                    while is_answered && !stop.load(Ordering::Relaxed) {
                        is_answered = sender.send(&orzo, &token, &metrics);
                    }
                });
            }
            std::thread::sleep(wait);
            let pid = orzo.pid().to_string();
            let status = std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
            assert!(status.success());
            stop.store(true, Ordering::Relaxed);
        });
        orzo.kill();
        // Some are killed again while they recover.
        if kill % 10 == 9 {
            orzo.restart_and_kill(Duration::from_millis(rand::random_range(0..300)));
        }
        orzo.restart();
    }
    for sender in senders {
        ledger.merge(sender.ledger);
    }
    let token = orzo.token();
    ledger.judge(&orzo, &token, &metrics).assert_clean();
    assert!(ledger.len() > kills, "too little was acknowledged to show anything: {}", ledger.len());
    orzo.assert_conserved();
    // By another engine, once everything is in files; and by a scan of the store, which knows no index and no policy.
    orzo.request("POST", "/store/v1/settle", &token, None, 200);
    assert_eq!(orzo.stop(), Some(0), "SIGTERM drains and exits 0");
    if let Some(verdict) = ledger.judge_table(&orzo.data().join("store").join("samples")) {
        verdict.assert_clean();
    }
    ledger.judge_store(&orzo.data().join("store")).assert_clean();
    // And once more from a clean stop.
    orzo.restart();
    ledger.judge(&orzo, &token, &metrics).assert_clean();
}
