//! What another server has kept becomes ours bit for bit; an import that was stopped goes on; a difference is told.

use std::process::{Command, Output};

use crate::support::{orzo::Orzo, orzo::runtime};

const START: i64 = 1_767_225_600;

#[test]
fn samples_of_another_server_are_imported_and_compared() {
    runtime();
    let directory = tempfile::tempdir().unwrap();
    let home = |name: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let quiet = "[log]\nlevel = \"warn\"\n[cloud]\ndemo_servers = false\n";
    let (old, new) = (Orzo::start(&home("old"), quiet), Orzo::start(&home("new"), quiet));
    let mut lines = String::new();
    for minute in 0..600 {
        for host in 0..5 {
            let at = (START + minute * 60) * 1_000_000_000 + 7_000_000 * host;
            lines +=
                &format!("load,host=h{host} one={},five={} {at}\n", minute as f64 * 0.1 + host as f64, 1e300 / 3.0);
        }
    }
    let token = old.token();
    assert_eq!(old.try_post_bytes("/influxdb/write?db=x", &token, lines.into_bytes()), Some(204));
    let source = old.url("/prometheus");
    let bearer = directory.path().join("bearer");
    std::fs::write(&bearer, &token).unwrap();
    let journal = directory.path().join("journal");
    let import = || {
        let binary = std::env::var_os("ORZO_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_orzo").into());
        let mut command = Command::new(binary);
        command.args(["import", "prometheus", "--from", &source, "--names", "load_.*", "-f", "csv"]);
        command.args(["--start", "2026-01-01T00:00:00Z", "--end", "2026-01-02T00:00:00Z"]);
        command.arg("--bearer-file").arg(&bearer).arg("--journal").arg(&journal);
        command.arg("--openrc").arg(new.data().join("openrc")).output().unwrap()
    };
    let said = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let first = import();
    assert!(first.status.success(), "{}", said(&first));
    assert!(said(&first).contains("load_one,3000,3000,equal"), "{}", said(&first));
    assert!(said(&first).contains("6000 samples of 2 metrics; 0 metrics differ"), "{}", said(&first));
    // What was stopped after some windows goes on behind them.
    let text = std::fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() > 4, "{text}");
    std::fs::write(&journal, format!("{}\n{}\n{{\"na", lines[0], lines[1])).unwrap();
    let again = import();
    assert!(again.status.success(), "{}", said(&again));
    let gone_on = std::fs::read_to_string(&journal).unwrap();
    assert!(gone_on.starts_with(&format!("{}\n{}\n", lines[0], lines[1])) && !gone_on.contains("{\"na{"), "{gone_on}");
    assert!(said(&again).contains("6000 samples of 2 metrics; 0 metrics differ"), "{}", said(&again));
    // One sample that the source has not.
    let more = format!("load,host=h1 one=5 {}\n", (START + 61) * 1_000_000_000);
    assert_eq!(new.try_post_bytes("/influxdb/write?db=x", &new.token(), more.into_bytes()), Some(204));
    let different = import();
    assert!(!different.status.success());
    assert!(said(&different).contains("load_one,3000,3001,DIFFERENT"), "{}", said(&different));
    assert!(said(&different).contains("load_five,3000,3000,equal"), "{}", said(&different));
    // A credential that is not good is told, and nothing is tried for ever.
    std::fs::write(&bearer, "nobody").unwrap();
    std::fs::remove_file(&journal).unwrap();
    let refused = import();
    assert!(!refused.status.success() && said(&refused).contains("401"), "{}", said(&refused));
}
