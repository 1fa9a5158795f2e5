//! How Grafana gets in: a token from the command line, or an application credential, over HTTP Basic.

use std::process::Command;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::orzo::{Orzo, runtime};

/// `orzo token ...` with the credentials that `orzo serve` has left; its standard output as JSON.
fn token_command(orzo: &Orzo, arguments: &[&str]) -> Value {
    let openrc = orzo.data().join("openrc");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orzo"));
    command.arg("token").args(arguments).arg("--openrc").arg(openrc);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// Status and answer of a query, as Grafana sends it with user and password.
fn query(orzo: &Orzo, user: &str, password: &str, path: &str) -> (u16, Value) {
    let request = reqwest::Client::new()
        .get(orzo.url(&format!("/prometheus{path}")))
        .header("authorization", format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    runtime().block_on(async {
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    })
}

#[test]
fn grafana_gets_in_by_a_read_token_and_by_an_application_credential() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n";
    let mut orzo = Orzo::start(directory.path(), settings);
    let health = "/api/v1/query?query=1%2B1&time=4";

    let made = token_command(&orzo, &["create", "grafana", "--expires", "1d", "-f", "json"]);
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!(query(&orzo, "token", token, health).1["data"]["result"], json!([4, "2"]));
    let listed = token_command(&orzo, &["list", "-f", "json"]);
    assert_eq!((&listed[0]["id"], &listed[0]["name"]), (&json!(id), &json!("grafana")));
    assert!(listed[0]["last_used_at"].is_string() && !listed.to_string().contains(token), "{listed}");
    // What is kept of it survives a restart and gives nobody the token.
    orzo.kill();
    orzo.restart();
    assert_eq!(query(&orzo, "token", token, health).0, 200);
    let database = std::fs::read(orzo.data().join("orzo.db")).unwrap();
    // The secret's own letters may hold a `_`: it is what follows the second one, whole.
    let secret = token.splitn(3, '_').nth(2).unwrap().as_bytes();
    assert_eq!(secret.len(), 43);
    assert!(!database.windows(secret.len()).any(|window| window == secret));
    token_command(&orzo, &["revoke", id]);
    assert_eq!(query(&orzo, "token", token, health).0, 401);

    let admin = orzo.token();
    let projects = orzo.request("GET", "/identity/v3/auth/projects", &admin, None, 200);
    let project = projects["projects"].as_array().unwrap().iter().find(|one| one["name"] == "admin").unwrap();
    let project = project["id"].as_str().unwrap();
    let users = orzo.request("GET", "/identity/v3/users?name=admin", &admin, None, 200);
    let path = format!("/identity/v3/users/{}/application_credentials", users["users"][0]["id"].as_str().unwrap());
    let body = json!({"application_credential": {"name": "grafana", "roles": [{"name": "reader"}]}});
    let made = orzo.request("POST", &path, &admin, Some(&body), 201);
    let made = &made["application_credential"];
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert_eq!(query(&orzo, id, secret, health).1["data"]["result"], json!([4, "2"]));
    assert_eq!(query(&orzo, id, "another secret", health).0, 401);
    assert_eq!(query(&orzo, id, secret, &format!("/project/{project}{health}")).0, 200);
    assert_eq!(query(&orzo, id, secret, &format!("/project/another{health}")).0, 404);
    // It only reads: it has no role that makes tokens.
    assert_eq!(query(&orzo, id, secret, "/tokens").0, 403);
    orzo.request("DELETE", &format!("{path}/{id}"), &admin, None, 204);
    assert_eq!(query(&orzo, id, secret, health).0, 401);
    orzo.assert_conserved();
}
