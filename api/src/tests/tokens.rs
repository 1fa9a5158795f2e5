//! Read tokens over HTTP: who makes and revokes them, what they open and what they do not.

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::{
    house::House,
    ingest::{Answer, post, send, write},
};

const TOKENS: &str = "/prometheus/tokens";

async fn make(house: &House, asker: &str, body: Value) -> (StatusCode, Value) {
    let answer = post(house, asker, TOKENS, "application/json", body.to_string()).await;
    (answer.status, serde_json::from_str(&answer.text).expect("JSON"))
}

/// The text of a new token.
async fn token(house: &House, asker: &str, body: Value) -> String {
    let (status, made) = make(house, asker, body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made["token"].as_str().expect("a token").to_owned()
}

async fn with(house: &House, method: &str, path: &str, authorization: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("authorization", authorization);
    send(house, request.header("accept", "application/json").body(Body::empty()).expect("a request")).await
}

fn basic(user: &str, password: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

async fn furnish(house: &House) {
    for (asker, value) in [("alice", 1.0), ("bob", 2.0)] {
        let labels: &[(&str, &str)] = &[("__name__", "up"), ("owner", asker)];
        let answer = write(house, asker, &[(labels, &[(1_795_291_200_000, value)])]).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    }
    let policy = json!({"name": "minutes", "definition": [{"granularity": 60, "points": 60}]});
    post(house, "admin", "/metric/v1/archive_policy", "application/json", policy.to_string()).await;
    for asker in ["alice", "bob"] {
        let metric = json!({"archive_policy_name": "minutes", "name": format!("of {asker}")});
        let made = post(house, asker, "/metric/v1/metric", "application/json", metric.to_string()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    }
}

#[tokio::test]
async fn a_token_reads_its_project_by_every_door_and_writes_nowhere() {
    for house in House::on_every_database(|_| {}).await {
        furnish(&house).await;
        let token = token(&house, "alice", json!({"name": "grafana"})).await;
        let bearer = format!("Bearer {token}");
        for authorization in [bearer.clone(), basic("token", &token)] {
            let answer = with(&house, "GET", "/prometheus/api/v1/series?match[]=up", &authorization).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            assert!(answer.text.contains("alice") && !answer.text.contains("bob"), "{}", answer.text);
            let answer = with(&house, "GET", "/metric/v1/metric", &authorization).await;
            assert!(answer.text.contains("of alice") && !answer.text.contains("of bob"), "{}", answer.text);
        }
        for (method, path, status) in [
            ("POST", "/prometheus/api/v1/query?query=up", 200),
            ("GET", "/prometheus/federate?match[]=up", 200),
            ("GET", "/prometheus/api/v1/rules", 200),
            ("GET", "/event/v2/events", 200),
            ("GET", "/metric/v1/resource/generic", 200),
            // What it does not open: writes, other people's secrets, further tokens, operators' counters.
            ("POST", "/prometheus/api/v1/write", 403),
            ("POST", "/prometheus/api/v1/admin/tsdb/delete_series?match[]=up", 403),
            ("GET", "/prometheus/tokens", 403),
            ("POST", "/prometheus/tokens", 403),
            ("DELETE", "/prometheus/tokens/x", 403),
            ("POST", "/influxdb/write", 403),
            ("POST", "/metric/v1/metric", 403),
            ("POST", "/metric/v1/batch/metrics/measures", 403),
            ("DELETE", "/metric/v1/resource/generic", 403),
            ("POST", "/metric/v1/resource/generic", 403),
            ("GET", "/alarming/v2/alarms", 403),
            ("GET", "/alarming/v2/notices/signing_keys", 403),
            ("POST", "/collector/v1/batches", 403),
            ("GET", "/metrics", 403),
        ] {
            let answer = with(&house, method, path, &bearer).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        }
        // As a user's own name it is a password like any other, and a wrong one.
        let answer = with(&house, "GET", "/prometheus/api/v1/labels", &basic("alice", &token)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        let searched = Request::post("/metric/v1/search/resource/generic").header("authorization", &bearer);
        let searched = searched.header("content-type", "application/json").body(Body::from("{\"=\": {\"id\": \"x\"}}"));
        assert_eq!(send(&house, searched.expect("a request")).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once() {
    let house = House::build().await;
    let token = token(&house, "alice", json!({"name": "grafana", "expires_at": "2030-01-01T00:00:00Z"})).await;
    let bearer = format!("Bearer {token}");
    assert_eq!(with(&house, "GET", "/prometheus/api/v1/labels", &bearer).await.status, StatusCode::OK);
    let list = |asker: &'static str, query: &'static str| {
        let house = &house;
        async move { super::ingest::ask(house, asker, &format!("{TOKENS}{query}")).await }
    };
    let (_, listed) = list("anna", "").await;
    let listed = &listed["tokens"][0];
    assert_eq!((&listed["name"], &listed["user_name"]), (&json!("grafana"), &json!("alice")));
    assert!(listed["last_used_at"].is_string() && listed.get("token").is_none(), "{listed}");
    assert_eq!(list("bob", "").await.1["tokens"], json!([]));
    assert_eq!(list("bob", "?all_projects=true").await.0, StatusCode::FORBIDDEN);
    assert_eq!(list("admin", "?all_projects=true").await.1["tokens"].as_array().map(Vec::len), Some(1));
    let path = format!("{TOKENS}/{}", listed["id"].as_str().expect("an id"));
    for (asker, status) in [("bob", 404), ("rita", 403), ("nobody", 401), ("anna", 204), ("anna", 404)] {
        let request = Request::delete(&path).header("x-auth-token", asker).body(Body::empty());
        assert_eq!(send(&house, request.expect("a request")).await.status.as_u16(), status, "{asker}");
    }
    let refused = with(&house, "GET", "/prometheus/api/v1/labels", &bearer).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{}", refused.text);
}

#[tokio::test]
async fn only_operators_make_tokens_beyond_their_project() {
    let house = House::build().await;
    furnish(&house).await;
    for (asker, body, status) in [
        ("alice", json!({"name": "x", "all_projects": true}), 403),
        ("alice", json!({"name": "x", "project_id": "p2"}), 403),
        ("rita", json!({"name": "x"}), 403),
        ("unscoped", json!({"name": "x"}), 403),
        ("nobody", json!({"name": "x"}), 401),
        ("alice", json!({"name": ""}), 400),
        ("alice", json!({"nom": "x"}), 400),
        ("alice", json!({"name": "x", "expires_at": "soon"}), 400),
        ("alice", json!({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}), 400),
    ] {
        let (answered, error) = make(&house, asker, body.clone()).await;
        assert_eq!(answered.as_u16(), status, "{asker} {body}: {error}");
        assert_eq!(error["status"], "error", "{error}");
    }
    assert_eq!(make(&house, "admin", json!({"name": "x", "project_id": "untold"})).await.0, StatusCode::CREATED);
    let of_bob = token(&house, "admin", json!({"name": "for bob", "project_id": "p2"})).await;
    let answer = with(&house, "GET", "/prometheus/api/v1/series?match[]=up", &format!("Bearer {of_bob}")).await;
    assert!(answer.text.contains("bob") && !answer.text.contains("alice"), "{}", answer.text);
    let all = format!("Bearer {}", token(&house, "admin", json!({"name": "all", "all_projects": true})).await);
    let answer = with(&house, "GET", "/metric/v1/metric", &all).await;
    assert!(answer.text.contains("of bob") && answer.text.contains("of alice"), "{}", answer.text);
    assert_eq!(with(&house, "GET", "/metrics", &all).await.status, StatusCode::OK);
    for (method, path) in
        [("POST", "/metric/v1/metric"), ("POST", "/prometheus/tokens"), ("GET", "/alarming/v2/alarms")]
    {
        assert_eq!(with(&house, method, path, &all).await.status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    // Of one project, that is what a member of it would see.
    let answer = with(&house, "GET", "/prometheus/project/p2/api/v1/series?match[]=up", &all).await;
    assert!(answer.text.contains("bob") && !answer.text.contains("alice"), "{}", answer.text);
}

#[tokio::test]
async fn a_path_names_a_project_for_whoever_may_see_it() {
    let house = House::build().await;
    furnish(&house).await;
    for (asker, path, status, found) in [
        ("alice", "/prometheus/project/p1/api/v1/series?match[]=up", 200, "alice"),
        ("admin", "/prometheus/project/p2/api/v1/series?match[]=up", 200, "bob"),
        ("alice", "/prometheus/project/p1/federate?match[]=up", 200, "owner=\"alice\""),
        ("alice", "/prometheus/project/p2/api/v1/series?match[]=up", 404, "the project p2 does not exist"),
        ("alice", "/prometheus/project/none/api/v1/query?query=1", 404, "the project none does not exist"),
        ("service", "/prometheus/project/p1/api/v1/labels", 404, "does not exist"),
        ("nobody", "/prometheus/project/p1/api/v1/labels", 401, ""),
        ("alice", "/prometheus/project/p1/project/p2/api/v1/labels", 404, ""),
        ("alice", "/prometheus/project/p1%2f/api/v1/labels", 404, ""),
    ] {
        let request = Request::get(path).header("x-auth-token", asker).body(Body::empty());
        let answer = send(&house, request.expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{asker} {path}: {}", answer.text);
        assert!(answer.text.contains(found), "{asker} {path}: {}", answer.text);
        assert!(asker == "admin" || !answer.text.contains("bob"), "{asker} {path}: {}", answer.text);
    }
    // An operator writes into a project by its path.
    let answer = post(
        &house,
        "admin",
        "/prometheus/project/p2/api/v1/write",
        "application/x-protobuf",
        super::ingest::written(&[(&[("__name__", "given")], &[(1_795_291_200_000, 1.0)])]),
    )
    .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    let (_, names) = super::ingest::ask(&house, "bob", "/prometheus/api/v1/label/__name__/values").await;
    assert!(names["data"].to_string().contains("given"), "{names}");
}

#[tokio::test]
async fn an_operators_token_sees_label_sets_of_all_projects_with_their_owners() {
    let house = House::build().await;
    furnish(&house).await;
    let forged = [(&[("__name__", "forged"), ("project_id", "p2")][..], &[(1_795_291_200_000, 1.0)][..])];
    assert_eq!(super::ingest::write(&house, "alice", &forged).await.status, StatusCode::NO_CONTENT);
    let all = format!("Bearer {}", token(&house, "admin", json!({"name": "all", "all_projects": true})).await);
    let asked = |path: &'static str| {
        let (house, all) = (&house, &all);
        async move {
            let answer = with(house, "GET", &format!("/prometheus{path}"), all).await;
            let body: Value = serde_json::from_str(&answer.text).expect("JSON");
            body["data"].clone()
        }
    };
    let owners = |found: &Value| -> Vec<String> {
        let rows = found.as_array().or_else(|| found["result"].as_array()).expect("rows");
        let owner = |row: &Value| {
            row["project_id"].as_str().or_else(|| row["metric"]["project_id"].as_str()).map(str::to_owned)
        };
        let mut owners: Vec<String> = rows.iter().filter_map(owner).collect();
        owners.sort();
        owners
    };
    assert_eq!(owners(&asked("/api/v1/series?match[]=up").await), ["p1", "p2"]);
    assert_eq!(owners(&asked("/api/v1/series?match[]=up{project_id=%22p2%22}").await), ["p2"]);
    assert_eq!(owners(&asked("/api/v1/series?match[]={project_id!~%22p1%22,__name__=%22up%22}").await), ["p2"]);
    assert_eq!(owners(&asked("/api/v1/query?query=sum%20by(project_id)(up)&time=1795291200").await), ["p1", "p2"]);
    // Nobody gives a series to somebody else by a label.
    let forged = asked("/api/v1/series?match[]=forged").await;
    assert_eq!((&forged[0]["project_id"], &forged[0]["exported_project_id"]), (&json!("p1"), &json!("p2")));
    assert_eq!(asked("/api/v1/label/project_id/values?match[]=forged").await, json!(["p1"]));
    assert_eq!(asked("/api/v1/label/exported_project_id/values").await, json!(["p2"]));
    let names = asked("/api/v1/labels?match[]=up").await;
    assert!(names.to_string().contains("project_id"), "{names}");
    // The operator's own credential sees what it saw: label sets of its own project.
    let (_, own) = super::ingest::ask(&house, "admin", "/prometheus/api/v1/series?match[]=up").await;
    assert_eq!(own["data"], json!([]));
}

#[tokio::test]
async fn what_is_refused_before_a_handler_is_asked_has_the_envelope_too() {
    let house = House::build().await;
    for (method, path, asker, status, kind) in [
        ("GET", "/prometheus/api/v1/query?query=1", "nobody", 401, "unauthorized"),
        ("POST", "/prometheus/api/v1/write", "nobody", 401, "unauthorized"),
        ("GET", "/prometheus/project/p2/api/v1/query?query=1", "alice", 404, "not_found"),
        ("GET", "/prometheus/api/v1/nothing", "alice", 404, "not_found"),
        ("DELETE", "/prometheus/api/v1/query", "alice", 405, "bad_data"),
        ("GET", "/prometheus/api/v1/labels", "unreachable", 503, "unavailable"),
    ] {
        let request = Request::builder().method(method).uri(path).header("x-auth-token", asker).body(Body::empty());
        let answer = send(&house, request.expect("a request")).await;
        let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        assert_eq!((&body["status"], &body["errorType"]), (&json!("error"), &json!(kind)), "{method} {path}: {body}");
        assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
    }
}

#[tokio::test]
async fn no_token_is_made_for_a_project_that_does_not_exist() {
    let house = House::build().await;
    for (project, status, part) in
        [("nosuch", 404, "the project nosuch does not exist"), ("unreachable", 503, "unreachable: away")]
    {
        for body in [
            json!({"name": "x", "project_id": project}),
            json!({"name": "x", "project_id": project, "all_projects": true}),
        ] {
            let (answered, error) = make(&house, "admin", body).await;
            assert_eq!(answered.as_u16(), status, "{error}");
            assert!(error["error"].as_str().is_some_and(|text| text.contains(part)), "{error}");
        }
    }
    let listed = send(
        &house,
        Request::get(format!("{TOKENS}?all_projects=true"))
            .header("x-auth-token", "admin")
            .body(Body::empty())
            .expect("a request"),
    )
    .await;
    assert_eq!(listed.text, "{\"tokens\":[]}");
}
