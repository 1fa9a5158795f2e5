//! Real clients against the identity service over a socket: Orzo's own session always, python-openstackclient when
//! `ORZO_TEST_OPENSTACK` names its `openstack` program.

use std::net::SocketAddr;

use orzo_model::SystemClock;
use orzo_session::{Credentials, Session};

use super::*;

/// Serves identity on a port of its own, with the machine's clock.
async fn served() -> (Arc<Identity>, Url, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::open_file(&directory.path().join("cloud.db")).await.expect("sqlite opens");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = Url::parse(&format!("http://{}", listener.local_addr().expect("an address"))).expect("a URL");
    let mut settings = settings();
    settings.base_url = base.clone();
    let identity = opened(&settings, database, SystemClock::shared()).await;
    identity.bootstrap(settings.admin_password.as_ref()).await.expect("bootstraps");
    let service = identity.mounted().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    (identity, base.join("/identity").expect("a URL"), directory)
}

/// The session of a service in the same process.
async fn session_of(identity: &Identity, auth_url: Url) -> Arc<Session> {
    let password = SecretString::from("service password");
    identity.ensure_user("orzo", &password, "service", &["admin", "service"]).await.expect("made");
    let credentials = Credentials {
        auth_url,
        username: "orzo".to_owned(),
        password,
        user_domain: "Default".to_owned(),
        project: "service".to_owned(),
        project_domain: "Default".to_owned(),
    };
    Session::with_revision(credentials, reqwest::Client::new(), SystemClock::shared(), identity.revision())
}

#[tokio::test]
async fn what_is_revoked_counts_at_once_in_the_same_process() {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (identity, auth_url, _directory) = served().await;
    let session = session_of(&identity, auth_url.clone()).await;
    let password = |text: &str| SecretString::from(text);
    let ann = identity.ensure_user("ann", &password(PASSWORD), "demo", &["member"]).await.expect("made");
    let client = reqwest::Client::new();
    let log_in = |secret: &'static str| {
        let request = client.post(format!("{auth_url}/v3/auth/tokens")).json(&json!({"auth": {"identity":
            {"methods": ["password"], "password": {"user": {"id": ann, "password": secret}}}}}));
        async move {
            let answer = request.send().await.expect("answered");
            answer.headers()["x-subject-token"].to_str().expect("text").to_owned()
        }
    };
    let [revoked, old] = [log_in(PASSWORD).await, log_in(PASSWORD).await];
    for token in [&revoked, &old] {
        assert!(session.validate(token).await.expect("asked").is_some());
    }
    let before = identity.revision().load(Ordering::Acquire);
    let request = client.delete(format!("{auth_url}/v3/auth/tokens"));
    let answer = request.header("x-auth-token", &revoked).header("x-subject-token", &revoked).send().await;
    assert_eq!(answer.expect("answered").status().as_u16(), 204);
    assert_eq!(session.validate(&revoked).await.expect("asked"), None, "its verdict was remembered a moment ago");
    assert!(session.validate(&old).await.expect("asked").is_some());

    assert!(session.check_password("ann", PASSWORD, Some("demo")).await.expect("asked").is_some());
    identity.ensure_user("ann", &password("another password"), "demo", &["member"]).await.expect("changed");
    assert_eq!(session.validate(&old).await.expect("asked"), None);
    assert_eq!(session.check_password("ann", PASSWORD, Some("demo")).await.expect("asked"), None);

    // What only logs in or looks leaves the verdicts as they are.
    let after = identity.revision().load(Ordering::Acquire);
    assert!(after > before);
    log_in("another password").await;
    assert_eq!(identity.revision().load(Ordering::Acquire), after);
}

#[tokio::test]
async fn our_own_session_logs_in_validates_and_checks_passwords() {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (identity, auth_url, _directory) = served().await;
    let session = session_of(&identity, auth_url).await;
    identity.ensure_user("ann", &SecretString::from(PASSWORD), "demo", &["member"]).await.expect("made");
    let metric = session.endpoint("metric").await.expect("in the catalog");
    assert!(metric.path().ends_with("/metric"));
    let token = session.token().await.expect("a token");
    let caller = session.validate(token.expose_secret()).await.expect("asked").expect("our own is good");
    assert!(caller.is_admin() && caller.is_service() && caller.has_role("reader"));
    assert_eq!(session.validate("gAAAAAnonsense").await.expect("asked"), None);
    let caller = session.check_password("ann", PASSWORD, None).await.expect("asked").expect("right");
    assert_eq!(caller.project_name.as_deref(), Some("demo"));
    assert_eq!(caller.roles, ["member", "reader"]);
    assert_eq!(session.check_password("ann", "a wrong password", None).await.expect("asked"), None);
    let projects = session.get("identity", "/v3/projects?domain_id=default").await.expect("allowed");
    assert_eq!(projects["projects"].as_array().map(Vec::len), Some(3));
}

/// A real client in a process of its own.
struct Openstack {
    program: String,
    auth_url: Url,
}

impl Openstack {
    async fn run(&self, arguments: &str, wishes: &[(&str, &str)]) -> (bool, String) {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(arguments.split(' ')).env("OS_AUTH_URL", self.auth_url.as_str());
        command.env("OS_IDENTITY_API_VERSION", "3").env("OS_REGION_NAME", "RegionOne");
        let admin = [
            ("OS_USERNAME", "admin"),
            ("OS_PASSWORD", ADMIN_PASSWORD),
            ("OS_PROJECT_NAME", "admin"),
            ("OS_USER_DOMAIN_NAME", "Default"),
            ("OS_PROJECT_DOMAIN_NAME", "Default"),
        ];
        let wishes = if wishes.is_empty() { &admin } else { wishes };
        command.envs(wishes.iter().copied()).kill_on_drop(true);
        let output = command.output().await.expect("the client starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    /// Runs it, expects success, and finds `-f json` in the output if it was asked for.
    async fn json(&self, arguments: &str) -> Value {
        let (done, text) = self.run(&format!("{arguments} -f json"), &[]).await;
        assert!(done, "openstack {arguments}: {text}");
        let start = text.find(['{', '[']).unwrap_or_else(|| panic!("openstack {arguments}: {text}"));
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        values.next().expect("a value").expect("JSON")
    }

    async fn done(&self, arguments: &str) {
        let (done, text) = self.run(arguments, &[]).await;
        assert!(done, "openstack {arguments}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_openstackclient_works() {
    let Ok(program) = std::env::var("ORZO_TEST_OPENSTACK") else { return };
    let (_identity, auth_url, _directory) = served().await;
    let client = Openstack { program, auth_url };
    let token = client.json("token issue").await;
    assert!(token["id"].as_str().is_some_and(|id| id.len() <= 255), "{token}");
    let catalog = client.json("catalog list").await;
    assert_eq!(catalog.as_array().map(Vec::len), Some(8), "{catalog}");

    let project = client.json("project create --description words --property colour=blue --tag a blue").await;
    assert_eq!((&project["description"], &project["colour"]), (&json!("words"), &json!("blue")), "{project}");
    client.done("project set --disable --name green blue").await;
    client.done("project set --enable green").await;
    assert_eq!(client.json("project show green").await["enabled"], true);
    assert_eq!(client.json("project list").await.as_array().map(Vec::len), Some(3));

    let user = client.json("user create --project green --password first-password --email a@example.org ann").await;
    assert_eq!((&user["name"], &user["email"]), (&json!("ann"), &json!("a@example.org")), "{user}");
    client.done("user set --description person ann").await;
    assert_eq!(client.json("user show ann").await["description"], "person");
    assert_eq!(client.json("user list --long").await.as_array().map(Vec::len), Some(2));

    let role = client.json("role create operator").await;
    assert_eq!(role["name"], "operator");
    client.done("role set --name conductor operator").await;
    client.done("role add --user ann --project green conductor").await;
    client.done("role add --user ann --project green member").await;
    let given = client.json("role assignment list --user ann --names").await;
    assert_eq!(given.as_array().map(Vec::len), Some(2), "{given}");
    assert_eq!(given[0]["User"], "ann@Default", "{given}");
    client.done("role remove --user ann --project green conductor").await;
    client.done("role show conductor").await;
    client.done("role delete conductor").await;
    assert_eq!(client.json("role list").await.as_array().map(Vec::len), Some(5));

    let credential = client.json("application credential create --role reader robot").await;
    // The client's own column names.
    assert!(credential["Secret"].is_string(), "{credential}");
    assert_eq!(client.json("application credential list").await.as_array().map(Vec::len), Some(1));
    client.done("application credential show robot").await;
    let text = |key: &str| credential[key].as_str().expect("text").to_owned();
    let (id, secret) = (text("ID"), text("Secret"));
    let robot = [
        ("OS_AUTH_TYPE", "v3applicationcredential"),
        ("OS_APPLICATION_CREDENTIAL_ID", id.as_str()),
        ("OS_APPLICATION_CREDENTIAL_SECRET", secret.as_str()),
    ];
    let (done, text) = client.run("token issue", &robot).await;
    assert!(done, "{text}");
    let (done, text) = client.run("user list", &robot).await;
    assert!(!done && text.contains("403"), "{text}");
    client.done("application credential delete robot").await;

    assert_eq!(client.json("domain list").await.as_array().map(Vec::len), Some(1));
    assert_eq!(client.json("domain show Default").await["id"], "default");
    assert_eq!(client.json("service list").await.as_array().map(Vec::len), Some(8));
    assert_eq!(client.json("endpoint list --interface public").await.as_array().map(Vec::len), Some(8));
    assert_eq!(client.json("region list").await.as_array().map(Vec::len), Some(1));

    let ann = |password: &'static str| {
        [
            ("OS_USERNAME", "ann"),
            ("OS_PASSWORD", password),
            ("OS_PROJECT_NAME", "green"),
            ("OS_USER_DOMAIN_NAME", "Default"),
            ("OS_PROJECT_DOMAIN_NAME", "Default"),
        ]
    };
    let change = "user password set --original-password first-password --password second-password";
    let (done, text) = client.run(change, &ann("first-password")).await;
    assert!(done, "{text}");
    let (done, text) = client.run("token issue", &ann("first-password")).await;
    assert!(!done && text.contains("401"), "{text}");
    let (done, text) = client.run("token issue", &ann("second-password")).await;
    assert!(done, "{text}");
    let issued = client.json("token issue").await;
    client.done(&format!("token revoke {}", issued["id"].as_str().expect("an id"))).await;
    client.done("user delete ann").await;
    client.done("project delete green").await;
}
