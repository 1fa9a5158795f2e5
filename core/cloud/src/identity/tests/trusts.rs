//! Trusts: who may make them, what they are worth, and everything that ends them.

use super::*;

struct Story {
    world: World,
    admin: String,
    trustor: String,
    trustee: String,
    project: String,
    token: String,
}

/// Ann is a manager of her project; the robot has a project of its own.
async fn stories() -> Vec<Story> {
    let mut stories = Vec::new();
    for world in worlds().await {
        let admin = world.admin().await;
        let (trustor, project) = world.member(&admin, "ann", "manager").await;
        let (trustee, _) = world.member(&admin, "robot", "member").await;
        let token = world.login("ann", PASSWORD, Value::Null).await.expect(201).token();
        stories.push(Story { world, admin, trustor, trustee, project, token });
    }
    stories
}

impl Story {
    fn body(&self, more: Value) -> Value {
        let mut trust = json!({"trustor_user_id": self.trustor, "trustee_user_id": self.trustee,
                               "project_id": self.project, "impersonation": true, "roles": [{"name": "member"}]});
        for (key, value) in more.as_object().into_iter().flatten() {
            trust[key] = value.clone();
        }
        json!({"trust": trust})
    }

    async fn make(&self, more: Value) -> Answer {
        self.world.as_token(&self.token, "POST", "/v3/OS-TRUST/trusts", self.body(more)).await
    }

    async fn trust(&self, more: Value) -> String {
        self.make(more).await.expect(201).id("trust")
    }

    async fn use_it(&self, user: &str, trust: &str) -> Answer {
        self.world.login(user, PASSWORD, json!({"OS-TRUST:trust": {"id": trust}})).await
    }
}

#[tokio::test]
async fn the_trustee_gets_a_short_token_in_the_trustors_name_with_the_trusts_roles() {
    for story in stories().await {
        let trust = story.trust(Value::Null).await;
        let answer = story.use_it("robot", &trust).await.expect(201);
        let token = answer.token();
        assert!(token.len() <= 255, "{} bytes", token.len());
        let body = &answer.body["token"];
        assert_eq!((&body["user"]["id"], &body["project"]["id"]), (&json!(story.trustor), &json!(story.project)));
        let names: Vec<_> = body["roles"].as_array().expect("roles").iter().map(|role| &role["name"]).collect();
        assert_eq!(names, ["member", "reader"], "not the manager's own");
        assert_eq!(
            body["OS-TRUST:trust"],
            json!({"id": trust, "impersonation": true, "trustor_user": {"id": story.trustor},
                   "trustee_user": {"id": story.trustee}})
        );
        assert_eq!(story.world.validity(&token).await, 200);
        let headers = [("x-auth-token", story.admin.as_str()), ("x-subject-token", token.as_str())];
        let shown = story.world.call("GET", "/v3/auth/tokens", &headers, Value::Null).await.expect(200);
        assert_eq!(shown.body, answer.body);
        // Without impersonation it is the robot itself, but there.
        let own = story.trust(json!({"impersonation": false})).await;
        let body = story.use_it("robot", &own).await.expect(201).body["token"].clone();
        assert_eq!((&body["user"]["id"], &body["project"]["id"]), (&json!(story.trustee), &json!(story.project)));
        // The robot's token is a proof as good as its password.
        let robot = story.world.login("robot", PASSWORD, Value::Null).await.expect(201).token();
        let identity = json!({"methods": ["token"], "token": {"id": robot}});
        story.world.auth(identity, json!({"OS-TRUST:trust": {"id": trust}})).await.expect(201);
    }
}

#[tokio::test]
async fn nobody_else_makes_uses_sees_or_ends_it() {
    for story in stories().await {
        let world = &story.world;
        let (_, _) = world.member(&story.admin, "eve", "member").await;
        let eve = world.login("eve", PASSWORD, Value::Null).await.expect(201).token();
        let robot = world.login("robot", PASSWORD, Value::Null).await.expect(201).token();
        let body = story.body(Value::Null);
        for other in [&eve, &robot, &story.admin] {
            world.as_token(other, "POST", "/v3/OS-TRUST/trusts", body.clone()).await.expect(403);
        }
        let trust = story.trust(Value::Null).await;
        let path = format!("/v3/OS-TRUST/trusts/{trust}");
        let role = world.role(&story.admin, "member").await;
        let reads = [path.clone(), format!("{path}/roles"), format!("{path}/roles/{role}")];
        for read in &reads {
            for (token, status) in [(&story.token, 200), (&robot, 200), (&story.admin, 200), (&eve, 404)] {
                world.as_token(token, "GET", read, Value::Null).await.expect(status);
            }
            world.call("GET", read, &[], Value::Null).await.expect(401);
        }
        story.use_it("eve", &trust).await.expect(401);
        story.use_it("ann", &trust).await.expect(401);
        story.use_it("robot", &"0".repeat(32)).await.expect(401);
        story.use_it("robot", "../x").await.expect(401);
        // Lists: one's own, or an admin's.
        let list = "/v3/OS-TRUST/trusts";
        for (token, filter, status) in [
            (&story.token, format!("?trustor_user_id={}", story.trustor), 200),
            (&robot, format!("?trustee_user_id={}", story.trustee), 200),
            (&story.admin, String::new(), 200),
            (&story.token, String::new(), 403),
            (&eve, format!("?trustor_user_id={}", story.trustor), 403),
        ] {
            let answer = world.as_token(token, "GET", &format!("{list}{filter}"), Value::Null).await.expect(status);
            if status == 200 {
                assert_eq!(answer.body["trusts"][0]["id"], json!(trust), "{filter}");
            }
        }
        world.as_token(&eve, "DELETE", &path, Value::Null).await.expect(404);
        world.as_token(&robot, "DELETE", &path, Value::Null).await.expect(403);
        world.as_token(&story.token, "DELETE", &path, Value::Null).await.expect(204);
        world.as_token(&story.token, "GET", &path, Value::Null).await.expect(404);
    }
}

#[tokio::test]
async fn wrong_trusts_are_refused_and_nobody_passes_on_what_they_do_not_have() {
    for story in stories().await {
        let past = json!({"expires_at": "2020-01-01T00:00:00Z"});
        for (more, status) in [
            (json!({"impersonation": null}), 400),
            (json!({"impersonation": "True"}), 400),
            (json!({"roles": []}), 400),
            (json!({"roles": [{"name": "admin"}]}), 403),
            (json!({"roles": [{"id": "nothing"}]}), 403),
            (json!({"roles": [{}]}), 403),
            (json!({"project_id": null}), 400),
            (json!({"project_id": "nowhere"}), 404),
            (json!({"trustee_user_id": "nobody"}), 404),
            (past, 400),
            (json!({"expires_at": "soon"}), 400),
            (json!({"remaining_uses": 0}), 400),
            (json!({"remaining_uses": "3"}), 400),
            (json!({"allow_redelegation": true}), 400),
            (json!({"redelegation_count": 2}), 400),
        ] {
            let answer = story.make(more.clone()).await;
            assert_eq!(answer.status, status, "{more}: {}", answer.body);
        }
        // A project in which the trustor is nobody.
        let elsewhere = story.world.member(&story.admin, "eve", "member").await.1;
        story.make(json!({"project_id": elsewhere})).await.expect(403);
    }
}

#[tokio::test]
async fn what_was_delegated_is_not_delegated_further() {
    for story in stories().await {
        let world = &story.world;
        let trust = story.trust(Value::Null).await;
        let token = story.use_it("robot", &trust).await.expect(201).token();
        world.as_token(&token, "POST", "/v3/OS-TRUST/trusts", story.body(Value::Null)).await.expect(403);
        world.as_token(&token, "DELETE", &format!("/v3/OS-TRUST/trusts/{trust}"), Value::Null).await.expect(403);
        let credential = json!({"application_credential": {"name": "more"}});
        let path = format!("/v3/users/{}/application_credentials", story.trustor);
        world.as_token(&token, "POST", &path, credential).await.expect(403);
        let identity = json!({"methods": ["token"], "token": {"id": token}});
        world.auth(identity, Value::Null).await.expect(403);
    }
}

#[tokio::test]
async fn uses_are_counted_and_time_ends_it() {
    for story in stories().await {
        let twice = story.trust(json!({"remaining_uses": 2})).await;
        let first = story.use_it("robot", &twice).await.expect(201).token();
        story.use_it("robot", &twice).await.expect(201);
        story.use_it("robot", &twice).await.expect(403);
        assert_eq!(story.world.validity(&first).await, 200, "a token that was given stays");
        let path = format!("/v3/OS-TRUST/trusts/{twice}");
        let shown = story.world.as_token(&story.token, "GET", &path, Value::Null).await.expect(200);
        assert_eq!(shown.body["trust"]["remaining_uses"], 0);
        // 2026-11-21T20:04:19 is now.
        let short = story.trust(json!({"expires_at": "2026-11-21T20:05:19Z"})).await;
        let answer = story.use_it("robot", &short).await.expect(201);
        assert_eq!(answer.body["token"]["expires_at"], "2026-11-21T20:05:19.000000Z");
        story.world.clock.advance(Duration::from_secs(61));
        assert_eq!(story.world.validity(&answer.token()).await, 401);
        story.use_it("robot", &short).await.expect(401);
        let path = format!("/v3/OS-TRUST/trusts/{short}");
        story.world.as_token(&story.token, "GET", &path, Value::Null).await.expect(404);
    }
}

#[tokio::test]
async fn it_is_worth_nothing_when_the_trustor_loses_the_role_or_either_is_gone() {
    let changes: [(&str, &str, Value); 8] = [
        ("DELETE", "/v3/projects/P/users/U/roles/R", Value::Null),
        ("PATCH", "/v3/users/U", json!({"user": {"enabled": false}})),
        ("PATCH", "/v3/users/T", json!({"user": {"enabled": false}})),
        ("PATCH", "/v3/projects/P", json!({"project": {"enabled": false}})),
        ("PATCH", "/v3/users/U", json!({"user": {"password": "another password"}})),
        ("DELETE", "/v3/users/U", Value::Null),
        ("DELETE", "/v3/users/T", Value::Null),
        ("DELETE", "/v3/projects/P", Value::Null),
    ];
    for (method, path, body) in changes {
        for story in stories().await {
            let world = &story.world;
            let trust = story.trust(Value::Null).await;
            let token = story.use_it("robot", &trust).await.expect(201).token();
            assert_eq!(world.validity(&token).await, 200);
            let manager = world.role(&story.admin, "manager").await;
            let filled = path
                .replace("/U", &format!("/{}", story.trustor))
                .replace("/T", &format!("/{}", story.trustee))
                .replace("/P", &format!("/{}", story.project))
                .replace("/R", &format!("/{manager}"));
            let done = world.as_token(&story.admin, method, &filled, body.clone()).await;
            assert!(done.status < 300, "{method} {path}: {}", done.body);
            assert_eq!(world.validity(&token).await, 401, "{method} {path} {body}");
            // A new password of the trustor ends tokens in its name, but not what it had promised.
            let status = if body["user"].get("password").is_some() { 201 } else { 401 };
            story.use_it("robot", &trust).await.expect(status);
        }
    }
}

#[tokio::test]
async fn making_and_ending_are_told() {
    for story in stories().await {
        let trust = story.trust(Value::Null).await;
        let path = format!("/v3/OS-TRUST/trusts/{trust}");
        story.world.as_token(&story.token, "DELETE", &path, Value::Null).await.expect(204);
        let told = story.world.told().await;
        assert!(told.contains(&"identity.OS-TRUST:trust.created".to_owned()), "{told:?}");
        assert!(told.contains(&"identity.OS-TRUST:trust.deleted".to_owned()));
    }
}
