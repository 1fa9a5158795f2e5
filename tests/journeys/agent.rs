//! `orzo-agent` on a node of its own, over HTTP: its guests' measures arrive; while Orzo is dead it goes on measuring,
//! keeps what it has on disk, and hands it over afterwards: every slot once, also those in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::support::{
    orzo::{Orzo, PASSWORD},
    wait_for,
};

const LIMIT: Duration = Duration::from_secs(90);
/// Seconds between slots: a quarter of it is what a busy machine may be late without missing one.
const INTERVAL: i64 = 2;
const GUESTS: usize = 3;
const METERS: [&str; 2] = ["cpu", "memory.usage"];

/// Every second by itself, and how many points are in it.
const RESOURCES: &str = "
archive_policy_default: every-second
archive_policies:
  - name: every-second
    aggregation_methods: [count, mean]
    definition: [{granularity: 1 second, timespan: 1 day}]
resources:
  - resource_type: instance
    metrics: [cpu, memory.usage, vcpus]
    attributes: {host: resource_metadata.host, display_name: resource_metadata.display_name}
";

#[test]
fn an_agent_over_http_loses_and_doubles_nothing_while_orzo_is_dead() {
    let directory = tempfile::tempdir().unwrap();
    let resources = directory.path().join("resources.yaml");
    std::fs::write(&resources, RESOURCES).unwrap();
    let settings = format!(
        "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n[agents]\ncompute = false\nhost = false\n\
         [collector]\nresources_file = \"{}\"\n",
        resources.display()
    );
    let mut orzo = Orzo::start(directory.path(), &settings);
    let token = orzo.token();
    let mut agent = Agent::start(directory.path(), &orzo);

    let guests = wait_for("the agent's guests", LIMIT, || {
        let found = orzo.request("GET", "/metric/v1/resource/instance", &token, None, 200);
        let ids = found.as_array()?.iter().map(|one| one["id"].as_str().unwrap().to_owned());
        Some(ids.collect::<Vec<_>>()).filter(|ids| ids.len() == GUESTS)
    });
    let before =
        wait_for("measures", LIMIT, || Some(slots(&orzo, &token, &guests[0], "cpu")).filter(|slots| slots.len() >= 3));

    // Orzo dies; the agent goes on.
    orzo.kill();
    wait_for("four batches in the spool", LIMIT, || (agent.spooled() >= 4).then_some(()));
    orzo.restart();
    let token = orzo.token();
    wait_for("the spool to empty", LIMIT, || (agent.spooled() == 0).then_some(()));
    // Also afterwards: some slots have gone straight through again.
    let back = slots(&orzo, &token, &guests[0], "cpu");
    wait_for("slots after the outage", LIMIT, || {
        (slots(&orzo, &token, &guests[0], "cpu").len() >= back.len() + 2).then_some(())
    });
    assert_eq!(agent.stop(), Some(0), "SIGTERM hands over and exits 0:\n{}", agent.log());

    // What the agent says that it has done.
    let polled = agent.balance("compute.slots");
    let published = agent.balance("publisher");
    let spooled = agent.balance("spool");
    assert_eq!((polled["waiting"], polled["refused"]), (0, 0), "{}", agent.log());
    assert_eq!(published["received"], published["stored"], "{}", agent.log());
    assert!(spooled["received"] > 0 && spooled["received"] == spooled["stored"], "{}", agent.log());

    // Is what is there: all guests, all slots, once.
    for guest in &guests {
        for meter in METERS {
            let slots = slots(&orzo, &token, guest, meter);
            let doubled: Vec<_> = slots.iter().filter(|(_, count)| **count != 1.0).collect();
            assert!(doubled.is_empty(), "{guest} {meter}: more than one point at {doubled:?}");
            assert_eq!(slots.len() as i64, polled["stored"], "{guest} {meter}: slots there and slots polled");
            let seconds: BTreeSet<i64> = slots.keys().copied().collect();
            let (first, last) = (*seconds.first().unwrap(), *seconds.last().unwrap());
            let missing = (first..=last).step_by(INTERVAL as usize).filter(|slot| !seconds.contains(slot));
            // A machine that is too busy makes the agent miss a slot, and then it says so.
            assert!(missing.count() as i64 <= polled["dropped"], "{guest} {meter}: {seconds:?}\n{}", agent.log());
            assert!(before.keys().all(|second| seconds.contains(second)), "what was there before is still there");
        }
    }
    let status = orzo.request("GET", "/metric/v1/resource/instance", &token, None, 200);
    assert_eq!(status.as_array().unwrap().len(), GUESTS, "and nobody else's: {}", json!(status));
    orzo.assert_conserved();
}

/// Second → number of points in it; empty while the metric is not there.
fn slots(orzo: &Orzo, token: &str, resource: &str, meter: &str) -> BTreeMap<i64, f64> {
    let path = format!(
        "/metric/v1/resource/instance/{resource}/metric/{meter}/measures?aggregation=count&granularity=1&refresh=true"
    );
    let (status, answer) = orzo.try_request("GET", &path, token, None).expect("an answer");
    if status == 404 {
        return BTreeMap::new();
    }
    assert_eq!(status, 200, "{answer}");
    let second = |text: &str| text.parse::<orzo_model::Timestamp>().unwrap().secs();
    let rows = answer.as_array().unwrap().iter();
    rows.map(|row| (second(row[0].as_str().unwrap()), row[2].as_f64().unwrap())).collect()
}

/// A process of `orzo-agent compute`; killed when dropped.
struct Agent {
    directory: PathBuf,
    child: Option<Child>,
}

impl Agent {
    fn start(directory: &Path, orzo: &Orzo) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_orzo")).with_file_name("orzo-agent");
        assert!(
            binary.is_file(),
            "{} is not there: this test needs `cargo build --workspace` first, as tests/run does",
            binary.display()
        );
        let directory = directory.join("agent");
        std::fs::create_dir(&directory).unwrap();
        let polling = directory.join("polling.yaml");
        let sources = format!("sources:\n  - name: everything\n    interval: {INTERVAL}\n    meters: ['*']\n");
        std::fs::write(&polling, sources).unwrap();
        let settings = format!(
            "host = \"node-7\"\n[compute]\nhypervisor = \"simulated\"\nsimulated_guests = {GUESTS}\n\
             [host_meters]\nenabled = false\n[polling]\nfile = \"{}\"\n\
             [api]\nurl = \"{}\"\nusername = \"admin\"\nproject = \"admin\"\n[publish]\nspool = \"{}\"\n",
            polling.display(),
            orzo.url(""),
            directory.join("spool").display()
        );
        std::fs::write(directory.join("agent.toml"), settings).unwrap();
        let log = std::fs::File::create(directory.join("agent.log")).unwrap();
        let child = Command::new(binary)
            .args(["compute", "--config"])
            .arg(directory.join("agent.toml"))
            .env("ORZO_AGENT_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { directory, child: Some(child) }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("agent.log")).unwrap_or_default()
    }

    /// Batches that wait on disk.
    fn spooled(&mut self) -> usize {
        if let Ok(Some(status)) = self.child.as_mut().expect("it runs").try_wait() {
            panic!("orzo-agent ended with {status}:\n{}", self.log());
        }
        let files = std::fs::read_dir(self.directory.join("spool")).unwrap().flatten();
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "record")).count()
    }

    /// SIGTERM; gives the exit code.
    fn stop(&mut self) -> Option<i32> {
        let child = self.child.as_mut().expect("it runs");
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let status = wait_for("orzo-agent to end", Duration::from_secs(60), || child.try_wait().unwrap());
        status.code()
    }

    /// What a room has counted, as the agent's last words tell it.
    fn balance(&self, room: &str) -> BTreeMap<String, i64> {
        let log = self.log();
        let line = log.lines().rev().find(|line| line.contains(&format!("room=\"{room}\"")));
        let line = line.unwrap_or_else(|| panic!("no balance of {room}:\n{log}"));
        let counts = regex::Regex::new(r"(received|stored|refused|dropped|waiting): (-?\d+)").unwrap();
        counts.captures_iter(line).map(|found| (found[1].to_owned(), found[2].parse().unwrap())).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- orzo-agent's log\n{}", self.log());
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
