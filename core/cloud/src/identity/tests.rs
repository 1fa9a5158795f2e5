//! Identity as its clients see it: on SQLite always, on PostgreSQL too when `ORZO_TEST_POSTGRES` names a database.

mod client;
mod lasting;
mod refusals;
mod revoking;
mod trusts;

use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use http_body_util::BodyExt;
use orzo_bus::InProcessBus;
use orzo_model::{ManualClock, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tower::ServiceExt;
use url::Url;

use super::*;

const ADMIN_PASSWORD: &str = "admin's password";
const PASSWORD: &str = "a good password";

struct World {
    identity: Arc<Identity>,
    router: Router,
    clock: Arc<ManualClock>,
    database: Database,
    _directory: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    fn token(&self) -> String {
        self.headers["x-subject-token"].to_str().expect("text").to_owned()
    }

    fn id(&self, what: &str) -> String {
        self.body[what]["id"].as_str().unwrap_or_else(|| panic!("no {what} in {}", self.body)).to_owned()
    }
}

async fn databases() -> Vec<(Database, Option<tempfile::TempDir>)> {
    let directory = tempfile::tempdir().expect("a directory");
    let sqlite = Database::open_file(&directory.path().join("cloud.db")).await.expect("sqlite opens");
    let mut found = vec![(sqlite, Some(directory))];
    if let Ok(url) = std::env::var("ORZO_TEST_POSTGRES") {
        let schema = format!("test_{}", Uuid::new_v4().simple());
        found.push((Database::open_in_schema(&url, &schema).await.expect("postgresql opens"), None));
    }
    found
}

fn settings() -> CloudSettings {
    let base_url = Url::parse("http://cloud.example:8041").expect("a URL");
    let mut settings = CloudSettings::new(base_url, "unused".into());
    settings.admin_password = Some(SecretString::from(ADMIN_PASSWORD));
    settings
}

async fn opened(settings: &CloudSettings, database: Database, clock: SharedClock) -> Arc<Identity> {
    let rooms = Rooms::new(&prometheus::Registry::new());
    let bus = Arc::new(InProcessBus::new(clock.clone()));
    let outbox = Outbox::open(database.clone(), bus, clock.clone(), &rooms).await.expect("an outbox");
    Identity::open(settings, database, clock, outbox, &rooms).await.expect("identity opens")
}

async fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for (database, directory) in databases().await {
        let clock = ManualClock::new(Timestamp::from_secs(1_795_291_459));
        let settings = settings();
        let identity = opened(&settings, database.clone(), clock.clone()).await;
        assert!(identity.bootstrap(settings.admin_password.as_ref()).await.expect("bootstraps").is_none());
        let router = identity.mounted();
        worlds.push(World { identity, router, clock, database, _directory: directory });
    }
    worlds
}

impl World {
    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/identity{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.router.clone().oneshot(request.body(body).expect("a request")).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn as_token(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        self.call(method, path, &[("x-auth-token", token)], body).await
    }

    async fn login(&self, user: &str, password: &str, scope: Value) -> Answer {
        let user = json!({"name": user, "domain": {"name": "Default"}, "password": password});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        self.auth(identity, scope).await
    }

    async fn auth(&self, identity: Value, scope: Value) -> Answer {
        let mut body = json!({"auth": {"identity": identity}});
        if !scope.is_null() {
            body["auth"]["scope"] = scope;
        }
        self.call("POST", "/v3/auth/tokens", &[], body).await
    }

    async fn admin(&self) -> String {
        self.login("admin", ADMIN_PASSWORD, in_project("admin")).await.expect(201).token()
    }

    /// A user with a role in a project of their own; ids of user and project.
    async fn member(&self, admin: &str, name: &str, role: &str) -> (String, String) {
        let project = json!({"project": {"name": format!("{name}'s")}});
        let project = self.as_token(admin, "POST", "/v3/projects", project).await.expect(201).id("project");
        let user = json!({"user": {"name": name, "password": PASSWORD, "default_project_id": project}});
        let user = self.as_token(admin, "POST", "/v3/users", user).await.expect(201).id("user");
        let role = self.role(admin, role).await;
        let path = format!("/v3/projects/{project}/users/{user}/roles/{role}");
        self.as_token(admin, "PUT", &path, Value::Null).await.expect(204);
        (user, project)
    }

    async fn role(&self, admin: &str, name: &str) -> String {
        let found = self.as_token(admin, "GET", &format!("/v3/roles?name={name}"), Value::Null).await.expect(200);
        found.body["roles"][0]["id"].as_str().expect("the role exists").to_owned()
    }

    async fn validity(&self, token: &str) -> u16 {
        self.as_token(token, "GET", "/v3/auth/projects", Value::Null).await.status
    }

    async fn told(&self) -> Vec<String> {
        let rows = self.database.query("SELECT event_type FROM cloud_outbox ORDER BY position", &[]).await;
        rows.expect("the outbox").iter().map(|row| row.string("event_type")).collect()
    }
}

fn in_project(name: &str) -> Value {
    json!({"project": {"name": name, "domain": {"id": "default"}}})
}

#[tokio::test]
async fn the_first_start_makes_admin_once_and_tells_a_generated_password_once() {
    for (database, _guard) in databases().await {
        let clock = ManualClock::new(Timestamp::from_secs(1_795_291_459));
        let identity = opened(&settings(), database.clone(), clock.clone()).await;
        let password = identity.bootstrap(None).await.expect("bootstraps").expect("generated");
        let router = identity.mounted();
        let again = opened(&settings(), database.clone(), clock.clone()).await;
        assert!(again.bootstrap(None).await.expect("nothing to do").is_none());
        let world = World { identity, router, clock, database, _directory: None };
        let answer = world.login("admin", password.expose_secret(), in_project("admin")).await.expect(201);
        let names: Vec<_> =
            answer.body["token"]["roles"].as_array().expect("roles").iter().map(|r| &r["name"]).collect();
        assert_eq!(names, ["admin", "manager", "member", "reader"]);
    }
}

#[tokio::test]
async fn a_token_is_short_and_looks_as_keystones() {
    for world in worlds().await {
        let answer = world.login("admin", ADMIN_PASSWORD, in_project("admin")).await.expect(201);
        let token = answer.token();
        assert!(token.len() <= 255, "{} bytes", token.len());
        let body = &answer.body["token"];
        assert_eq!(body["methods"], json!(["password"]));
        assert_eq!(body["user"]["domain"], json!({"id": "default", "name": "Default"}));
        assert_eq!(body["project"]["name"], "admin");
        assert_eq!(body["issued_at"], "2026-11-21T20:04:19.000000Z");
        assert_eq!(body["expires_at"], "2026-11-21T21:04:19.000000Z");
        assert_eq!(body["audit_ids"][0].as_str().map(str::len), Some(22));
        let gnocchi = body["catalog"].as_array().expect("a catalog").iter().find(|s| s["type"] == "metric");
        assert_eq!(gnocchi.expect("metric")["endpoints"][0]["url"], "http://cloud.example:8041/metric");
        let headers = [("x-auth-token", token.as_str()), ("x-subject-token", token.as_str())];
        let shown = world.call("GET", "/v3/auth/tokens", &headers, Value::Null).await.expect(200);
        assert_eq!(shown.body, answer.body);
        world.call("HEAD", "/v3/auth/tokens", &headers, Value::Null).await.expect(200);
        let short = world.call("GET", "/v3/auth/tokens?nocatalog", &headers, Value::Null).await.expect(200);
        assert!(short.body["token"].get("catalog").is_none());
        assert_eq!(world.told().await, ["identity.authenticate"]);
    }
}

#[tokio::test]
async fn every_refused_login_reads_the_same() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (user, _) = world.member(&admin, "ann", "member").await;
        world.member(&admin, "bob", "member").await;
        let disable = json!({"user": {"enabled": false}});
        world.as_token(&admin, "PATCH", &format!("/v3/users/{user}"), disable).await.expect(200);
        let shown = |user: Value| json!({"methods": ["password"], "password": {"user": user}});
        let long = "x".repeat(5000);
        let credential = json!({"methods": ["application_credential"],
                                "application_credential": {"id": "0".repeat(32), "secret": "whatever"}});
        let refusals = [
            world.login("bob", "a wrong password", Value::Null).await,
            world.login("nobody", PASSWORD, Value::Null).await,
            world.login("ann", PASSWORD, Value::Null).await,
            world.login("bob", &long, Value::Null).await,
            world.login("bob", PASSWORD, in_project("admin")).await,
            world.login("bob", PASSWORD, in_project("nowhere")).await,
            world.login("bob", PASSWORD, json!({"project": {"id": "../admin"}})).await,
            world.login("bob", PASSWORD, json!({"domain": {"id": "default"}})).await,
            world.auth(shown(json!({"id": user, "password": PASSWORD})), Value::Null).await,
            world
                .auth(shown(json!({"name": "bob", "domain": {"id": "other"}, "password": PASSWORD})), Value::Null)
                .await,
            world.auth(json!({"methods": ["token"], "token": {"id": "gAAAA"}}), Value::Null).await,
            world.auth(json!({"methods": ["magic"]}), Value::Null).await,
            world.auth(credential, Value::Null).await,
        ];
        for (place, refusal) in refusals.iter().enumerate() {
            assert_eq!((refusal.status, &refusal.body), (401, &refusals[0].body), "number {place}");
            assert!(refusal.headers.contains_key("www-authenticate"));
        }
        for (identity, scope, status) in [
            (json!({"methods": []}), Value::Null, 400),
            (json!({"methods": ["password", "token"]}), Value::Null, 400),
            (json!({"methods": ["password"]}), Value::Null, 400),
            (shown(json!({"password": PASSWORD})), Value::Null, 400),
            (shown(json!({"name": "bob"})), json!({"system": {"all": true}}), 403),
            (shown(json!({"name": "bob"})), json!("everything"), 400),
        ] {
            world.auth(identity, scope).await.expect(status);
        }
    }
}

#[tokio::test]
async fn scopes_are_what_was_asked_for_or_the_default_project() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (_, project) = world.member(&admin, "ann", "member").await;
        let scope_of = |answer: Answer| answer.expect(201).body["token"].clone();
        let token = scope_of(world.login("ann", PASSWORD, Value::Null).await);
        assert_eq!(token["project"]["id"], json!(project));
        let token = scope_of(world.login("ann", PASSWORD, json!("unscoped")).await);
        assert_eq!((token.get("project"), token.get("roles"), token.get("catalog")), (None, None, None));
        let token = scope_of(world.login("ann", PASSWORD, json!({"project": {"id": project}})).await);
        assert_eq!(token["project"]["name"], "ann's");
        let token = scope_of(world.login("admin", ADMIN_PASSWORD, json!({"domain": {"name": "default"}})).await);
        assert_eq!(token["domain"]["id"], "default");
        assert_eq!(token["roles"][0]["name"], "admin");
    }
}

#[tokio::test]
async fn a_rescoped_token_does_not_outlive_its_parent_and_dies_with_the_chain() {
    for world in worlds().await {
        let admin = world.admin().await;
        world.member(&admin, "ann", "member").await;
        let parent = world.login("ann", PASSWORD, json!("unscoped")).await.expect(201);
        world.clock.advance(Duration::from_secs(1800));
        let shown = json!({"methods": ["token"], "token": {"id": parent.token()}});
        let child = world.auth(shown, in_project("ann's")).await.expect(201);
        let (parent_token, child_token) = (&parent.body["token"], &child.body["token"]);
        assert_eq!(child_token["expires_at"], parent_token["expires_at"]);
        assert_eq!(child_token["methods"], json!(["password", "token"]));
        assert_eq!(child_token["audit_ids"][1], parent_token["audit_ids"][0]);
        assert_eq!(world.validity(&child.token()).await, 200);
        let parent = parent.token();
        let headers = [("x-auth-token", parent.as_str()), ("x-subject-token", parent.as_str())];
        world.call("DELETE", "/v3/auth/tokens", &headers, Value::Null).await.expect(204);
        assert_eq!((world.validity(&parent).await, world.validity(&child.token()).await), (401, 401));
        assert_eq!(world.validity(&admin).await, 200);
    }
}

#[tokio::test]
async fn tokens_expire_and_only_services_may_look_at_them_a_little_longer() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (user, _) = world.member(&admin, "ann", "member").await;
        world.member(&admin, "bob", "reader").await;
        let password = SecretString::from("service password");
        world.identity.ensure_user("orzo", &password, "service", &["admin", "service"]).await.expect("made");
        let ann = world.login("ann", PASSWORD, Value::Null).await.expect(201).token();
        world.clock.advance(Duration::from_secs(3599));
        assert_eq!(world.validity(&ann).await, 200);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.validity(&ann).await, 401);
        let service = world.login("orzo", "service password", in_project("service")).await.expect(201).token();
        let bob = world.login("bob", PASSWORD, Value::Null).await.expect(201).token();
        let look = |token: String, query: &'static str| {
            let (world, ann) = (&world, ann.clone());
            async move {
                let headers = [("x-auth-token", token.as_str()), ("x-subject-token", ann.as_str())];
                world.call("GET", &format!("/v3/auth/tokens{query}"), &headers, Value::Null).await
            }
        };
        look(service.clone(), "").await.expect(404);
        let shown = look(service, "?allow_expired=1").await.expect(200);
        assert_eq!(shown.body["token"]["user"]["id"], json!(user));
        look(bob, "?allow_expired=1").await.expect(404);
        let headers = [("x-auth-token", ann.as_str()), ("x-subject-token", ann.as_str())];
        world.call("GET", "/v3/auth/tokens?allow_expired=1", &headers, Value::Null).await.expect(401);
    }
}

#[tokio::test]
async fn who_is_not_admin_sees_and_changes_only_themselves() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (ann, anns) = world.member(&admin, "ann", "member").await;
        let (bob, bobs) = world.member(&admin, "bob", "manager").await;
        let token = world.login("ann", PASSWORD, Value::Null).await.expect(201).token();
        let others = world.login("bob", PASSWORD, Value::Null).await.expect(201).token();
        let role = world.role(&admin, "admin").await;
        let grant = format!("/v3/projects/{anns}/users/{ann}/roles/{role}");
        let cases = [
            ("GET", "/v3/users".to_owned(), 403),
            ("POST", "/v3/users".to_owned(), 403),
            ("GET", format!("/v3/users/{ann}"), 200),
            ("GET", format!("/v3/users/{bob}"), 403),
            ("PATCH", format!("/v3/users/{ann}"), 403),
            ("DELETE", format!("/v3/users/{bob}"), 403),
            ("POST", format!("/v3/users/{bob}/password"), 403),
            ("GET", format!("/v3/users/{ann}/projects"), 200),
            ("GET", format!("/v3/users/{bob}/projects"), 403),
            ("GET", "/v3/projects".to_owned(), 403),
            ("POST", "/v3/projects".to_owned(), 403),
            ("GET", format!("/v3/projects/{anns}"), 200),
            ("GET", format!("/v3/projects/{bobs}"), 403),
            ("PATCH", format!("/v3/projects/{anns}"), 403),
            ("DELETE", format!("/v3/projects/{anns}"), 403),
            ("GET", "/v3/roles".to_owned(), 403),
            ("POST", "/v3/roles".to_owned(), 403),
            ("PATCH", format!("/v3/roles/{role}"), 403),
            ("DELETE", format!("/v3/roles/{role}"), 403),
            ("PUT", grant.clone(), 403),
            ("DELETE", grant.clone(), 403),
            ("GET", grant, 403),
            ("GET", "/v3/role_assignments".to_owned(), 403),
            ("GET", format!("/v3/role_assignments?user.id={ann}"), 200),
            ("GET", "/v3/domains".to_owned(), 403),
            ("GET", "/v3/domains/default".to_owned(), 200),
            ("GET", "/v3/services".to_owned(), 403),
            ("GET", "/v3/endpoints".to_owned(), 403),
            ("GET", "/v3/groups".to_owned(), 403),
            ("GET", "/v3/auth/catalog".to_owned(), 200),
            ("GET", format!("/v3/users/{ann}/application_credentials"), 200),
            ("GET", format!("/v3/users/{bob}/application_credentials"), 403),
            ("POST", format!("/v3/users/{bob}/application_credentials"), 403),
            ("GET", "/v3/nowhere".to_owned(), 404),
            ("DELETE", "/v3/users".to_owned(), 405),
        ];
        let body = json!({"user": {"name": "x", "original_password": "x", "password": "xxxxxxxx"},
                          "project": {"name": "x"}, "role": {"name": "x"}, "application_credential": {"name": "x"}});
        for (method, path, status) in cases {
            let answer = world.as_token(&token, method, &path, body.clone()).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
            if !path.starts_with("/v3/nowhere") && status != 405 {
                let nobody = world.call(method, &path, &[], body.clone()).await;
                assert_eq!(nobody.status, 401, "{method} {path} without a token");
            }
        }
        let headers = [("x-auth-token", token.as_str()), ("x-subject-token", others.as_str())];
        world.call("GET", "/v3/auth/tokens", &headers, Value::Null).await.expect(403);
        world.call("DELETE", "/v3/auth/tokens", &headers, Value::Null).await.expect(403);
    }
}

#[tokio::test]
async fn guessing_is_slowed_for_known_and_unknown_names_alike_and_ends_with_time() {
    for world in worlds().await {
        let admin = world.admin().await;
        world.member(&admin, "ann", "member").await;
        for name in ["ann", "nobody"] {
            for _ in 0..5 {
                let answer = world.login(name, "a wrong password", Value::Null).await.expect(401);
                assert!(!answer.headers.contains_key("retry-after"));
            }
            let refused = world.login(name, PASSWORD, Value::Null).await.expect(401);
            assert_eq!(refused.headers["retry-after"], "2", "{name}");
        }
        world.clock.advance(Duration::from_secs(1));
        world.login("ann", PASSWORD, Value::Null).await.expect(201);
        let balance = world.identity.room.balance();
        assert!(balance.is_conserved(), "{balance:?}");
        assert_eq!((balance.stored, balance.refused), (2, 12));
    }
}

#[tokio::test]
async fn twenty_at_once_make_one_project() {
    for world in worlds().await {
        let admin = world.admin().await;
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (router, admin) = (world.router.clone(), admin.clone());
                tokio::spawn(async move {
                    let request = Request::builder()
                        .method("POST")
                        .uri("/identity/v3/projects")
                        .header("x-auth-token", admin)
                        .body(Body::from(r#"{"project": {"name": "same"}}"#))
                        .expect("a request");
                    router.oneshot(request).await.expect("infallible").status()
                })
            })
            .collect();
        let mut made = 0;
        for task in tasks {
            match task.await.expect("no panic") {
                StatusCode::CREATED => made += 1,
                status => assert_eq!(status, StatusCode::CONFLICT),
            }
        }
        assert_eq!(made, 1);
        let told = world.told().await;
        assert_eq!(told.iter().filter(|event| *event == "identity.project.created").count(), 1, "{told:?}");
    }
}

#[tokio::test]
async fn versions_are_told_to_everyone() {
    for world in worlds().await {
        for path in ["", "/"] {
            let answer = world.call("GET", path, &[], Value::Null).await.expect(300);
            assert_eq!(answer.body["versions"]["values"][0]["id"], "v3.14");
        }
        for path in ["/v3", "/v3/"] {
            let answer = world.call("GET", path, &[], Value::Null).await.expect(200);
            assert_eq!(answer.body["version"]["links"][0]["href"], "http://cloud.example:8041/identity/v3/");
        }
    }
}
