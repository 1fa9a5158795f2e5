//! An exporter of the test's own, scraped into a project, and Orzo's own counters beside it.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::support::{orzo::Orzo, wait_for};

fn result(orzo: &Orzo, token: &str, query: &str) -> Vec<Value> {
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let answer = orzo.request("GET", &format!("/prometheus/api/v1/query?query={query}"), token, None, 200);
    answer["data"]["result"].as_array().unwrap().clone()
}

#[test]
fn an_exporter_is_metered_and_its_series_end_when_it_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let has_fan = Arc::new(AtomicBool::new(true));
    let told = has_fan.clone();
    // It ends with the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked);
            let fan = if told.load(Ordering::SeqCst) { "fan_rpm{slot=\"1\"} 900\n" } else { "" };
            let page = format!("# TYPE temperature gauge\ntemperature{{job=\"inner\"}} 21.5\n{fan}");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{page}", page.len());
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let plain = "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n[agents]\nhost = false\n";
    let mut orzo = Orzo::start(directory.path(), plain);
    let projects = orzo.request("GET", "/identity/v3/auth/projects", &orzo.token(), None, 200);
    let project = projects["projects"].as_array().unwrap().iter().find(|one| one["name"] == "admin").unwrap();
    let project = project["id"].as_str().unwrap().to_owned();
    orzo.kill();
    let target = |name: &str, url: String, more: &str| {
        format!("{{ name = \"{name}\", url = \"{url}\", project = \"{project}\"{more} }}")
    };
    let targets = [
        target("room", format!("http://{address}/metrics"), ", labels = { rack = \"7\" }"),
        target("orzo", orzo.url("/metrics"), ""),
        target("nobody", "http://127.0.0.1:1/metrics".to_owned(), ""),
    ];
    let settings = format!("\n[scrape]\ninterval = \"1s\"\ntargets = [{}]\n", targets.join(", "));
    let mut file = std::fs::File::options().append(true).open(directory.path().join("orzo.toml")).unwrap();
    file.write_all(settings.as_bytes()).unwrap();
    orzo.restart();
    let token = orzo.token();

    let found = wait_for("the exporter's samples", Duration::from_secs(30), || {
        Some(result(&orzo, &token, "temperature and on (rack) fan_rpm")).filter(|rows| !rows.is_empty())
    });
    let labels = &found[0]["metric"];
    assert_eq!(
        (&labels["job"], &labels["exported_job"], &labels["rack"]),
        (&"room".into(), &"inner".into(), &"7".into())
    );
    assert_eq!(labels["instance"], address.to_string());
    assert_eq!(found[0]["value"][1], "21.5");
    wait_for("all three", Duration::from_secs(30), || (result(&orzo, &token, "up").len() == 3).then_some(()));
    assert_eq!(result(&orzo, &token, "up == 0")[0]["metric"]["job"], "nobody");
    wait_for("Orzo's own counters", Duration::from_secs(30), || {
        (!result(&orzo, &token, "orzo_stored_total{job=\"orzo\",room=\"scrape\"} > 0").is_empty()).then_some(())
    });
    // What is gone ends at once, not after five minutes.
    has_fan.store(false, Ordering::SeqCst);
    wait_for("the fan's end", Duration::from_secs(30), || result(&orzo, &token, "fan_rpm").is_empty().then_some(()));
    assert!(!result(&orzo, &token, "last_over_time(fan_rpm[5m])").is_empty());
    let shown = orzo.request("GET", "/prometheus/api/v1/targets", &token, None, 200);
    let health = |job: &str| {
        let all = shown["data"]["activeTargets"].as_array().unwrap();
        all.iter()
            .find(|one| one["scrapePool"] == job)
            .map(|one| (one["health"].clone(), one["lastError"].clone()))
            .unwrap()
    };
    assert_eq!(health("room"), ("up".into(), "".into()));
    assert!(
        health("nobody").0 == "down" && health("nobody").1.as_str().unwrap().contains("does not answer"),
        "{shown}"
    );
    orzo.assert_conserved();
}
