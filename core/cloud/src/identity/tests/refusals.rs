//! A refused login does the same work and has the same answer, whatever the reason. Work is counted, not timed:
//! questions to the database, hashes, failures remembered, notifications. `examples/login_times.rs` measures the time.

use super::*;

/// What one request has cost.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    statements: u64,
    hashes: u64,
    failures: u32,
    told: usize,
}

impl World {
    /// Sends a login that is refused, and counts. `account` is the name that failures are remembered under.
    async fn refused(&self, identity: Value, scope: Value, account: &str) -> (Answer, Work) {
        let (statements, hashes) = (self.database.statements(), self.identity.passwords.hashes());
        let told = self.failures_told().await;
        let before = self.database.statements() - statements;
        let failures = self.identity.throttle.count(account, "");
        let answer = self.auth(identity, scope).await.expect(401);
        let work = Work {
            statements: self.database.statements() - statements - before,
            hashes: self.identity.passwords.hashes() - hashes,
            failures: self.identity.throttle.count(account, "") - failures,
            told: self.failures_told().await - told,
        };
        (answer, work)
    }

    async fn failures_told(&self) -> usize {
        let sql = "SELECT body FROM cloud_outbox WHERE event_type = 'identity.authenticate'";
        let rows = self.database.query(sql, &[]).await.expect("the outbox");
        rows.iter().filter(|row| row.string("body").contains("failure")).count()
    }
}

fn shown(user: Value) -> Value {
    json!({"methods": ["password"], "password": {"user": user}})
}

/// Headers but the request's own id.
fn headers(answer: &Answer) -> HeaderMap {
    let mut headers = answer.headers.clone();
    let id = headers.remove("x-openstack-request-id").expect("every answer has an id");
    assert_eq!(id.len(), "req-".len() + 36);
    headers
}

fn assert_all_the_same(refusals: &[(&str, Answer, Work)], hashes: u64) {
    let (_, first, work) = &refusals[0];
    assert_eq!((work.hashes, work.failures, work.told), (hashes, 1, 1), "{}", refusals[0].0);
    for (reason, answer, own) in refusals {
        assert_eq!(own, work, "{reason}");
        assert_eq!((&answer.body, headers(answer)), (&first.body, headers(first)), "{reason}");
    }
}

/// Users that are refused for reasons of their own.
async fn refusable(world: &World) {
    let admin = world.admin().await;
    for name in ["bob", "carl", "dora", "ed", "fay"] {
        world.member(&admin, name, "member").await;
    }
    let disable = |path: String, what: &'static str| {
        let (world, admin) = (world, admin.clone());
        async move { world.as_token(&admin, "PATCH", &path, json!({what: {"enabled": false}})).await.expect(200).id(what) }
    };
    let users = world.as_token(&admin, "GET", "/v3/users?name=ed", Value::Null).await.expect(200);
    disable(format!("/v3/users/{}", users.body["users"][0]["id"].as_str().expect("ed")), "user").await;
    let projects = world.as_token(&admin, "GET", "/v3/projects?name=fay's", Value::Null).await.expect(200);
    disable(format!("/v3/projects/{}", projects.body["projects"][0]["id"].as_str().expect("fay's")), "project").await;
}

#[tokio::test]
async fn every_refused_password_costs_the_same_whatever_is_asked_for() {
    for world in worlds().await {
        refusable(&world).await;
        let user = |name: &str, domain: &str, password: &str| {
            shown(json!({"name": name, "domain": {"name": domain}, "password": password}))
        };
        let long = "x".repeat(password::PASSWORD_BYTES_MAX + 1);
        // Whose project is asked for: the own one of each, so that only one thing is wrong at a time.
        let own = |name: &str| in_project(&format!("{name}'s"));
        let mut refusals = Vec::new();
        for (reason, identity, scope, account) in [
            ("wrong password", user("bob", "Default", "a wrong one"), own("bob"), "name bob"),
            ("unknown user", user("zoe", "Default", PASSWORD), own("bob"), "name zoe"),
            ("unknown user and project", user("yves", "Default", PASSWORD), own("yves"), "name yves"),
            ("disabled user", user("ed", "Default", PASSWORD), own("ed"), "name ed"),
            ("unknown domain", user("carl", "Nowhere", PASSWORD), own("carl"), "name carl"),
            ("no such project", user("dora", "Default", PASSWORD), in_project("nowhere"), "name dora"),
            ("no role in the project", user("dora", "Default", PASSWORD), own("bob"), "name dora"),
            (
                "project of no domain",
                user("dora", "Default", PASSWORD),
                json!({"project": {"name": "dora's", "domain": {"name": "Nowhere"}}}),
                "name dora",
            ),
            ("disabled project", user("fay", "Default", PASSWORD), own("fay"), "name fay"),
        ] {
            let (answer, work) = world.refused(identity, scope, account).await;
            refusals.push((reason, answer, work));
        }
        assert_all_the_same(&refusals, 1);

        // Nothing asked for, and the whole domain.
        for scope in [Value::Null, json!("unscoped"), json!({"domain": {"id": "default"}})] {
            let mut refusals = Vec::new();
            for (reason, identity, account) in [
                ("wrong password", user("bob", "Default", "a wrong one"), "name bob"),
                ("unknown user", user("zoe", "Default", PASSWORD), "name zoe"),
                ("disabled user", user("ed", "Default", PASSWORD), "name ed"),
                ("unknown domain", user("carl", "Nowhere", PASSWORD), "name carl"),
            ] {
                let (answer, work) = world.refused(identity, scope.clone(), account).await;
                refusals.push((reason, answer, work));
            }
            assert_all_the_same(&refusals, 1);
        }

        // By id; and too long to be anybody's, which is known without a hash and of everybody.
        let bob = world.database.query_one("SELECT id FROM identity_users WHERE name = 'bob'", &[]).await;
        let bob = bob.expect("read").expect("bob").string("id");
        let mut refusals = Vec::new();
        for (reason, id) in [("wrong password", bob.as_str()), ("unknown id", &"1".repeat(32)), ("no id", "../admin")] {
            let identity = shown(json!({"id": id, "password": "a wrong one"}));
            let (answer, work) = world.refused(identity, Value::Null, &format!("id {id}")).await;
            refusals.push((reason, answer, work));
        }
        assert_all_the_same(&refusals, 1);
        let mut refusals = Vec::new();
        for name in ["bob", "zoe"] {
            let account = format!("name {name}");
            let (answer, work) = world.refused(user(name, "Default", &long), Value::Null, &account).await;
            refusals.push((name, answer, work));
        }
        assert_all_the_same(&refusals, 0);
    }
}

#[tokio::test]
async fn every_refused_application_credential_costs_the_same() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (ann, _) = world.member(&admin, "ann", "member").await;
        let token = world.login("ann", PASSWORD, in_project("ann's")).await.expect(201).token();
        let path = format!("/v3/users/{ann}/application_credentials");
        let mut ids = Vec::new();
        for (name, expires_at) in [("good", Value::Null), ("old", json!("2026-11-21T20:05:00"))] {
            let body = json!({"application_credential": {"name": name, "secret": PASSWORD, "expires_at": expires_at}});
            ids.push(world.as_token(&token, "POST", &path, body).await.expect(201).id("application_credential"));
        }
        world.clock.advance(Duration::from_secs(600));
        let by_id = |id: &str, secret: &str| json!({"methods": ["application_credential"], "application_credential": {"id": id, "secret": secret}});
        let unknown = "1".repeat(32);
        let mut refusals = Vec::new();
        for (reason, id, secret, scope) in [
            ("wrong secret", &ids[0], "a wrong one", Value::Null),
            ("unknown", &unknown, PASSWORD, Value::Null),
            ("expired", &ids[1], PASSWORD, Value::Null),
            ("another project", &ids[0], PASSWORD, in_project("admin")),
        ] {
            let (answer, work) = world.refused(by_id(id, secret), scope, &format!("credential {id}")).await;
            refusals.push((reason, answer, work));
        }
        assert_all_the_same(&refusals, 1);
        let by_name = |user: &str, name: &str, secret: &str| {
            let user = json!({"name": user, "domain": {"id": "default"}});
            json!({"methods": ["application_credential"],
                   "application_credential": {"name": name, "user": user, "secret": secret}})
        };
        let mut refusals = Vec::new();
        for (reason, user, name, secret) in [
            ("wrong secret", "ann", "good", "a wrong one"),
            ("unknown name", "ann", "other", PASSWORD),
            ("unknown user", "zoe", "good", PASSWORD),
        ] {
            let account = format!("credential {name} of name {user}");
            let (answer, work) = world.refused(by_name(user, name, secret), Value::Null, &account).await;
            refusals.push((reason, answer, work));
        }
        assert_all_the_same(&refusals, 1);
        world.auth(by_id(&ids[0], PASSWORD), Value::Null).await.expect(201);
        world.auth(by_name("ann", "good", PASSWORD), Value::Null).await.expect(201);
    }
}
