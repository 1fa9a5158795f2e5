//! Whatever must end a token ends it at once, and nothing else does.

use super::*;

#[tokio::test]
async fn each_change_that_must_revoke_does_so_at_once_and_for_good() {
    for world in worlds().await {
        let admin = world.admin().await;
        let member = world.role(&admin, "member").await;
        let (bystander, _) = world.member(&admin, "bystander", "member").await;
        let still = world.login("bystander", PASSWORD, Value::Null).await.expect(201).token();
        // What is done to user U, project P and role R; what puts it back, if anything can.
        type Request = (&'static str, &'static str, Value);
        let changes: &[(&str, &str, Value, &[Request])] = &[
            ("PATCH", "/v3/users/U", json!({"user": {"password": "another password"}}), &[]),
            (
                "PATCH",
                "/v3/users/U",
                json!({"user": {"enabled": false}}),
                &[("PATCH", "/v3/users/U", json!({"user": {"enabled": true}}))],
            ),
            (
                "PATCH",
                "/v3/projects/P",
                json!({"project": {"enabled": false}}),
                &[("PATCH", "/v3/projects/P", json!({"project": {"enabled": true}}))],
            ),
            (
                "DELETE",
                "/v3/projects/P/users/U/roles/R",
                Value::Null,
                &[("PUT", "/v3/projects/P/users/U/roles/R", Value::Null)],
            ),
            ("DELETE", "/v3/users/U", Value::Null, &[]),
            ("DELETE", "/v3/projects/P", Value::Null, &[]),
        ];
        for (number, (method, path, body, undo)) in changes.iter().enumerate() {
            let name = format!("user{number}");
            let (user, project) = world.member(&admin, &name, "member").await;
            let token = world.login(&name, PASSWORD, Value::Null).await.expect(201).token();
            assert_eq!(world.validity(&token).await, 200, "{path} before");
            let filled = |path: &str| path.replace('U', &user).replace('P', &project).replace('R', &member);
            let done = world.as_token(&admin, method, &filled(path), body.clone()).await;
            assert!(done.status < 300, "{method} {path}: {}", done.body);
            assert_eq!(world.validity(&token).await, 401, "{method} {path} {body}");
            for (method, path, body) in *undo {
                let done = world.as_token(&admin, method, &filled(path), body.clone()).await;
                assert!(done.status < 300, "{method} {path}: {}", done.body);
                assert_eq!(world.validity(&token).await, 401, "{method} {path} must not bring it back");
            }
            if !undo.is_empty() {
                world.login(&name, PASSWORD, Value::Null).await.expect(201);
            }
        }
        assert_eq!(world.validity(&still).await, 200);
        for (method, path, body) in [
            ("PATCH", format!("/v3/users/{bystander}"), json!({"user": {"email": "b@example.org", "enabled": true}})),
            ("POST", "/v3/roles".to_owned(), json!({"role": {"name": "harmless"}})),
        ] {
            assert!(world.as_token(&admin, method, &path, body).await.status < 300);
            assert_eq!(world.validity(&still).await, 200, "{path} revokes nothing");
        }
    }
}

#[tokio::test]
async fn deleting_a_role_ends_the_tokens_of_all_who_had_it_and_built_in_ones_stay() {
    for world in worlds().await {
        let admin = world.admin().await;
        let role = json!({"role": {"name": "operator"}});
        let role = world.as_token(&admin, "POST", "/v3/roles", role).await.expect(201).id("role");
        let second = json!({"role": {"name": "Operator"}});
        world.as_token(&admin, "POST", "/v3/roles", second).await.expect(409);
        world.member(&admin, "ann", "operator").await;
        let token = world.login("ann", PASSWORD, Value::Null).await.expect(201).token();
        world.as_token(&admin, "DELETE", &format!("/v3/roles/{role}"), Value::Null).await.expect(204);
        assert_eq!(world.validity(&token).await, 401);
        let built_in = world.role(&admin, "admin").await;
        let path = format!("/v3/roles/{built_in}");
        world.as_token(&admin, "DELETE", &path, Value::Null).await.expect(403);
        world.as_token(&admin, "PATCH", &path, json!({"role": {"name": "boss"}})).await.expect(403);
    }
}

#[tokio::test]
async fn a_user_changes_the_own_password_by_the_old_one() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (user, _) = world.member(&admin, "ann", "member").await;
        let token = world.login("ann", PASSWORD, Value::Null).await.expect(201).token();
        let path = format!("/v3/users/{user}/password");
        let body = |old: &str, new: &str| json!({"user": {"original_password": old, "password": new}});
        world.as_token(&token, "POST", &path, body("wrong", "a new password")).await.expect(401);
        world.as_token(&token, "POST", &path, body(PASSWORD, "short")).await.expect(400);
        world.as_token(&admin, "POST", &path, body(PASSWORD, "a new password")).await.expect(403);
        world.as_token(&token, "POST", &path, body(PASSWORD, "a new password")).await.expect(204);
        assert_eq!(world.validity(&token).await, 401);
        world.login("ann", PASSWORD, Value::Null).await.expect(401);
        world.login("ann", "a new password", Value::Null).await.expect(201);
    }
}

#[tokio::test]
async fn an_application_credential_is_worth_its_roles_and_ends_with_them() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (user, project) = world.member(&admin, "ann", "member").await;
        let token = world.login("ann", PASSWORD, Value::Null).await.expect(201).token();
        let path = format!("/v3/users/{user}/application_credentials");
        let body = |fields: Value| json!({"application_credential": fields});
        for (wrong, status) in [
            (json!({"name": "a", "roles": [{"name": "admin"}]}), 400),
            (json!({"name": "a", "unrestricted": true}), 403),
            (json!({"name": "a", "expires_at": "2020-01-01T00:00:00"}), 400),
            (json!({"name": "a", "access_rules": [{"path": "/"}]}), 400),
            (json!({"name": "a", "secret": "short"}), 400),
            (json!({}), 400),
        ] {
            world.as_token(&token, "POST", &path, body(wrong)).await.expect(status);
        }
        let wish = json!({"name": "a", "roles": [{"name": "reader"}], "expires_at": "2026-11-21T20:30:00.000000"});
        let made = world.as_token(&token, "POST", &path, body(wish.clone())).await.expect(201);
        let (id, secret) = (made.id("application_credential"), made.body["application_credential"]["secret"].clone());
        world.as_token(&token, "POST", &path, body(wish)).await.expect(409);
        let shown = world.as_token(&token, "GET", &format!("{path}/{id}"), Value::Null).await.expect(200);
        assert!(shown.body["application_credential"].get("secret").is_none(), "told once");
        let identity = |proof: Value| json!({"methods": ["application_credential"], "application_credential": proof});
        let by_id = identity(json!({"id": id, "secret": secret}));
        let by_name = json!({"name": "a", "user": {"name": "ann", "domain": {"id": "default"}}, "secret": secret});
        world.auth(identity(by_name), Value::Null).await.expect(201);
        world.auth(by_id.clone(), in_project("admin")).await.expect(401);
        let issued = world.auth(by_id.clone(), Value::Null).await.expect(201);
        let limited = issued.token();
        assert!(limited.len() <= 255);
        let told = &issued.body["token"];
        assert_eq!(told["project"]["id"], json!(project));
        assert_eq!(told["roles"].as_array().map(Vec::len), Some(1));
        assert_eq!(told["application_credential"]["id"], json!(id));
        assert_eq!(told["expires_at"], "2026-11-21T20:30:00.000000Z", "never beyond the credential's own end");
        // It cannot make others, nor change the password, nor become another token.
        world.as_token(&limited, "POST", &path, body(json!({"name": "b"}))).await.expect(403);
        world.as_token(&limited, "DELETE", &format!("{path}/{id}"), Value::Null).await.expect(403);
        let change = json!({"user": {"original_password": PASSWORD, "password": "a new password"}});
        world.as_token(&limited, "POST", &format!("/v3/users/{user}/password"), change).await.expect(403);
        let exchange = json!({"methods": ["token"], "token": {"id": limited}});
        world.auth(exchange, json!("unscoped")).await.expect(403);

        world.as_token(&token, "DELETE", &format!("{path}/{id}"), Value::Null).await.expect(204);
        assert_eq!(world.validity(&limited).await, 401);
        world.auth(by_id, Value::Null).await.expect(401);

        let made = world.as_token(&token, "POST", &path, body(json!({"name": "c"}))).await.expect(201);
        let proof =
            json!({"id": made.id("application_credential"), "secret": made.body["application_credential"]["secret"]});
        let limited = world.auth(identity(proof.clone()), Value::Null).await.expect(201).token();
        let role = world.role(&admin, "member").await;
        let grant = format!("/v3/projects/{project}/users/{user}/roles/{role}");
        world.as_token(&admin, "DELETE", &grant, Value::Null).await.expect(204);
        world.as_token(&admin, "PUT", &grant, Value::Null).await.expect(204);
        assert_eq!(world.validity(&limited).await, 401);
        world.auth(identity(proof), Value::Null).await.expect(401);
    }
}
