//! kill -9 of the database server under load: every acknowledged point is there once, new metrics included.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::json;

use super::ledger::{Sender, make_metrics};
use crate::support::{has_real_parts, orzo::Orzo, servers::Server, wait_for};

const KILLS: usize = 10;

/// Stops the sender, however the scope is left.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn every_acknowledged_point_survives_kills_of_the_database() {
    if !has_real_parts("database") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut database = Server::postgres(directory.path());
    let settings = format!(
        "[database]\nurl = \"{}\"\n[agents]\nhost = false\n[log]\nlevel = \"error\"\n[store]\nflush_after = \"1s\"\n",
        database.url()
    );
    let mut orzo = Orzo::start(directory.path(), &settings);
    let token = orzo.token();
    let mut metrics = make_metrics(&orzo, &token, 4);
    let mut sender = Sender::new(1_700_000_000);
    for _ in 0..KILLS {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert!(sender.send(&orzo, &token, &metrics), "Orzo must answer, also without its database");
                    // New names need the database: an acknowledged metric must be there afterwards.
                    let body = json!({"archive_policy_name": "every-second"});
                    if let Some((201, metric)) = orzo.try_request("POST", "/metric/v1/metric", &token, Some(&body))
                        && metrics.len() < 40
                    {
                        metrics.push(metric["id"].as_str().unwrap().to_owned());
                    }
                }
            });
            // Also when the database does not start: a sender that goes on would never let the test fail.
            let _stop = StopOnDrop(&stop);
            std::thread::sleep(Duration::from_millis(rand::random_range(300..1200)));
            database.kill();
            std::thread::sleep(Duration::from_millis(rand::random_range(0..700)));
            database.start();
        });
        wait_for("points to be acknowledged again", Duration::from_secs(60), || {
            let before = sender.ledger.len();
            sender.send(&orzo, &token, &metrics);
            (sender.ledger.len() > before).then_some(())
        });
    }
    let token = orzo.token();
    sender.ledger.judge(&orzo, &token, &metrics).assert_clean();
    orzo.assert_conserved();
    assert_eq!(orzo.stop(), Some(0));
}
