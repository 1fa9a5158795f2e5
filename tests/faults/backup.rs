//! A backup that is made under ingest, restored elsewhere: everything that was acknowledged before it began is there,
//! nothing that was never sent, and every point has its name.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::ledger::{Ledger, Sender, make_metrics};
use crate::support::{orzo::Orzo, orzo::runtime};

const SETTINGS: &str = r#"
[store]
head_bytes_max = 65536
flush_after = "1s"
[log]
level = "warn"
"#;

/// What was sent until a moment: points of metrics, and new labelled series.
#[derive(Clone, Default)]
struct Sent {
    ledger: Ledger,
    hosts: usize,
}

#[test]
fn a_backup_under_ingest_is_restored_elsewhere_whole() {
    runtime();
    let directory = tempfile::tempdir().unwrap();
    let mut orzo = Orzo::start(directory.path(), SETTINGS);
    let token = orzo.token();
    let metrics = make_metrics(&orzo, &token, 4);
    let sent = Mutex::new(Sent::default());
    let stop = AtomicBool::new(false);
    let (mut rounds, mut went_on) = (Vec::new(), false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = Sender::new(1_700_000_000);
            while !stop.load(Ordering::Relaxed) {
                assert!(sender.send(&orzo, &token, &metrics), "no answer");
                let mut sent = sent.lock().unwrap();
                let line = format!("life,host=h{} value={} 1700000000000000000\n", sent.hosts, sent.hosts);
                let status = orzo.try_post_bytes("/influxdb/write?db=x", &token, line.into_bytes());
                assert_eq!(status, Some(204));
                sent.hosts += 1;
                sent.ledger = std::mem::take(&mut sent.ledger).and(&sender.ledger);
            }
        });
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(700));
            let before = sent.lock().unwrap().clone();
            let printed = said(command(&orzo, &["store", "backup", "--openrc", &openrc(&orzo)]));
            let after = sent.lock().unwrap().clone();
            went_on |= after.ledger.len() > before.ledger.len();
            let path = printed.split(" on the server").next().unwrap().to_owned();
            rounds.push((path, before, after));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(went_on, "no backup was made under ingest");
    // What the backups were made of is no more.
    orzo.kill();
    for (number, (path, before, after)) in rounds.into_iter().enumerate() {
        let home = directory.path().join(format!("restored{number}"));
        std::fs::create_dir(&home).unwrap();
        let data = home.join("data");
        let printed = said(command(&orzo, &["store", "restore", &path, "--to", &data.display().to_string()]));
        assert!(printed.contains("rows read again and verified"), "{printed}");
        let restored = Orzo::start(&home, SETTINGS);
        let token = restored.token();
        let (first, last) = (before.hosts, after.hosts);
        before.ledger.perhaps(&after.ledger).judge(&restored, &token, &metrics).assert_clean();
        let query = "/prometheus/api/v1/query?query=life_value&time=1700000010";
        let answer = restored.request("GET", query, &token, None, 200);
        let found: Vec<usize> = answer["data"]["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let host = row["metric"]["host"].as_str().unwrap();
                assert_eq!(host.strip_prefix('h'), row["value"][1].as_str());
                host[1..].parse().unwrap()
            })
            .collect();
        assert!(first > 0 && (0..first).all(|host| found.contains(&host)), "of {first}..{last} there are {found:?}");
        assert!(found.iter().all(|host| *host <= last), "{last}: {found:?}");
        restored.assert_conserved();
    }
}

fn openrc(orzo: &Orzo) -> String {
    orzo.data().join("openrc").display().to_string()
}

fn command(orzo: &Orzo, arguments: &[&str]) -> Output {
    let binary = std::env::var_os("ORZO_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_orzo").into());
    let here: &Path = &orzo.data();
    Command::new(binary).args(arguments).current_dir(here).output().unwrap()
}

fn said(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
