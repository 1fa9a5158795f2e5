//! The real command line client of Gnocchi against this server over TCP. Runs when `ORZO_TEST_GNOCCHI` names the
//! client's executable; without it the scenarios stand for it, which send what it sends.

use std::{net::SocketAddr, path::PathBuf};

use serde_json::Value;
use tokio::process::Command;

use super::house::House;

/// The client, with the server's address.
struct Client {
    executable: PathBuf,
    endpoint: String,
}

impl Client {
    /// Runs a command that must succeed; its answer as JSON, or null if it prints nothing.
    async fn run(&self, arguments: &str) -> Value {
        let (succeeded, out, errors) = self.try_run(arguments).await;
        assert!(succeeded, "gnocchi {arguments}\n{out}\n{errors}");
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }

    async fn try_run(&self, arguments: &str) -> (bool, String, String) {
        let output = Command::new(&self.executable)
            .env_clear()
            .args(["--os-auth-type", "http_basic", "--os-username", "admin", "--os-password", "secret"])
            .args(["--os-endpoint", &self.endpoint])
            .args(arguments.split_whitespace().map(|word| word.replace('~', " ")))
            .output()
            .await
            .expect("the client starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

#[tokio::test]
async fn the_real_client_makes_measures_and_reads_them_back() {
    let Some(executable) = std::env::var_os("ORZO_TEST_GNOCCHI").map(PathBuf::from) else { return };
    let house = House::build().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let service = house.router.clone().into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(async move { axum::serve(listener, service).await });
    let client = Client { executable, endpoint: format!("http://{address}/metric") };

    client
        .run("archive-policy create low -d granularity:1m,points:1000 -d granularity:1h,timespan:30~days -b 2 -f json")
        .await;
    let policies = client.run("archive-policy list -f json").await;
    assert_eq!(policies[0]["name"], "low");
    assert_eq!(client.run("archive-policy show low -f json").await["back_window"], 2);
    client
        .run("archive-policy update low -d granularity:1m,points:2000 -d granularity:1h,timespan:30~days -f json")
        .await;
    client.run("archive-policy-rule create all -a low -m * -f json").await;
    assert_eq!(client.run("archive-policy-rule list -f json").await[0]["metric_pattern"], "*");

    client.run("resource-type create server -a name:string:false:max_length=255 -a cores:number:false -f json").await;
    client.run("resource-type update server -a zone:string:false -f json").await;
    assert_eq!(client.run("resource-type list -f json").await.as_array().map(Vec::len), Some(2));
    assert!(client.run("resource-type show server -f json").await.get("attributes/zone").is_some());

    let resource =
        client.run("resource create vm-1 -t server -a name:web -a cores:4 -a project_id:p1 -n cpu:low -f json").await;
    assert_eq!((&resource["name"], &resource["original_resource_id"]), (&Value::from("web"), &Value::from("vm-1")));
    client.run("resource update vm-1 -t server -a name:web2 -f json").await;
    assert_eq!(client.run("resource show vm-1 -t server -f json").await["name"], "web2");
    assert_eq!(client.run("resource list -f json").await.as_array().map(Vec::len), Some(1));
    assert_eq!(client.run("resource history vm-1 -t server -f json").await.as_array().map(Vec::len), Some(2));
    assert_eq!(client.run("resource search name=web2 -t server -f json").await.as_array().map(Vec::len), Some(1));
    assert_eq!(client.run("resource search name=other -t server -f json").await.as_array().map(Vec::len), Some(0));

    let metric = client.run("metric create memory -r vm-1 -u MB -f json").await;
    assert_eq!((&metric["name"], &metric["unit"]), (&Value::from("memory"), &Value::from("MB")));
    assert_eq!(client.run("metric list -f json").await.as_array().map(Vec::len), Some(2));
    assert_eq!(client.run("metric show cpu -r vm-1 -f json").await["archive_policy/name"], "low");
    client.run("measures add cpu -r vm-1 -m 2020-01-01T00:00:00+00:00@1 -m 2020-01-01T00:00:30+00:00@3 -m 2020-01-01T01:00:00+00:00@8").await;
    let measures = client.run("measures show cpu -r vm-1 --granularity 60 --refresh --utc -f json").await;
    assert_eq!(measures[0]["timestamp"], "2020-01-01T00:00:00+00:00");
    assert_eq!((&measures[0]["value"], &measures[1]["value"]), (&Value::from(2.0), &Value::from(8.0)));
    let show = "measures show cpu -r vm-1 --start 2020-01-01T00:30:00+00:00 --aggregation max -f json";
    assert_eq!(client.run(show).await.as_array().map(Vec::len), Some(3));

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("batch.json");
    std::fs::write(&file, r#"{"vm-1": {"disk": [{"timestamp": "2020-01-01T00:00:00", "value": 7}]}}"#)
        .expect("written");
    client.run(&format!("measures batch-resources-metrics --create-metrics {}", file.display())).await;
    let disk = client.run("metric show disk -r vm-1 -f json").await;
    std::fs::write(
        &file,
        format!(r#"{{"{}": [{{"timestamp": 1577836860, "value": 9}}]}}"#, disk["id"].as_str().unwrap_or_default()),
    )
    .expect("written");
    client.run(&format!("measures batch-metrics {}", file.display())).await;
    assert_eq!(
        client.run("measures show disk -r vm-1 --granularity 60 -f json").await.as_array().map(Vec::len),
        Some(2)
    );

    let aggregates = client
        .run("aggregates (aggregate~max~(metric~cpu~mean)) name='web2' --resource-type server --granularity 60 -f json")
        .await;
    assert_eq!(aggregates[0]["value"], 2.0);
    let grouped = client.run("aggregates (aggregate~sum~(metric~*~mean)) name='web2' --resource-type server --groupby project_id --granularity 60 -f json").await;
    assert_eq!(grouped[0]["group"], "project_id: p1");
    let cpu = client.run("metric show cpu -r vm-1 -f json").await["id"].as_str().unwrap_or_default().to_owned();
    let older =
        client.run(&format!("measures aggregation -m {cpu} --granularity 3600 --aggregation mean -f json")).await;
    assert_eq!(older.as_array().map(Vec::len), Some(2));

    assert!(client.run("capabilities list -f json").await["aggregation_methods"].to_string().contains("rate:mean"));
    assert_eq!(client.run("status -f json").await["storage/total number of measures to process"], 0);
    assert!(client.run("server version -f json").await["version"].as_str().is_some_and(|v| v.starts_with("4.")));

    let (succeeded, out, errors) = client.try_run("resource show nope").await;
    assert!(
        !succeeded && format!("{out}{errors}").contains(" does not exist (HTTP 404) (Request-ID: req-"),
        "{out}{errors}"
    );
    client.run("metric delete memory -r vm-1").await;
    client.run("resource batch delete name=web2 -t server -f json").await;
    assert_eq!(client.run("resource list -f json").await.as_array().map(Vec::len), Some(0));
    client.run("resource-type delete server").await;
    client.run("archive-policy-rule delete all").await;
    server.abort();
    house.assert_conserved();
}
