//! What lasts: restarts, several processes on one database, key rotation, notifications with their change.

use super::*;

#[tokio::test]
async fn tokens_and_revocations_outlive_the_process_and_hold_in_every_process() {
    for world in worlds().await {
        let admin = world.admin().await;
        let revoked = world.admin().await;
        let other = opened(&settings(), world.database.clone(), world.clock.clone()).await;
        let other = World {
            router: other.mounted(),
            identity: other,
            clock: world.clock.clone(),
            database: world.database.clone(),
            _directory: None,
        };
        assert_eq!(other.validity(&revoked).await, 200);
        let headers = [("x-auth-token", admin.as_str()), ("x-subject-token", revoked.as_str())];
        world.call("DELETE", "/v3/auth/tokens", &headers, Value::Null).await.expect(204);
        assert_eq!((other.validity(&revoked).await, other.validity(&admin).await), (401, 200));
        // It is remembered for as long as the token could be shown, and not longer.
        world.identity.keep_house().await.expect("keeps house");
        assert_eq!(world.validity(&revoked).await, 401);
        world.clock.advance(Duration::from_secs(3600 + 1) + EXPIRED_WINDOW);
        world.identity.keep_house().await.expect("keeps house");
        let left = world.database.query("SELECT audit_id FROM identity_revoked", &[]).await.expect("a table");
        assert!(left.is_empty());
    }
}

#[tokio::test]
async fn keys_rotate_under_running_tokens_in_every_process() {
    for world in worlds().await {
        let other = opened(&settings(), world.database.clone(), world.clock.clone()).await;
        let first = world.admin().await;
        world.identity.rotate_keys().await.expect("rotates");
        let second = world.admin().await;
        let now = Duration::ZERO;
        // The new primary was staged when the other process read the keys.
        assert!(other.validate(&second, now).await.expect("asked").is_some());
        world.identity.rotate_keys().await.expect("rotates");
        let third = world.admin().await;
        assert!(other.validate(&third, now).await.expect("asked").is_none(), "keys were read a moment ago");
        world.clock.advance(Duration::from_secs(5));
        assert!(other.validate(&third, now).await.expect("asked").is_some(), "read again");
        assert_eq!((world.validity(&first).await, world.validity(&second).await), (401, 200));
        assert!(!world.identity.keys.rotate_if_due().await.expect("asked"));
        world.clock.advance(keys::ROTATION_PERIOD);
        assert!(world.identity.keys.rotate_if_due().await.expect("asked"));
        assert!(!other.keys.rotate_if_due().await.expect("asked"), "the other has done it");
    }
}

#[tokio::test]
async fn changes_are_told_with_the_change_and_refused_ones_are_not() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (user, project) = world.member(&admin, "ann", "member").await;
        let before = world.told().await.len();
        let twice = json!({"user": {"name": "ann", "password": PASSWORD}});
        world.as_token(&admin, "POST", "/v3/users", twice).await.expect(409);
        let rename = json!({"project": {"name": "admin"}});
        world.as_token(&admin, "PATCH", &format!("/v3/projects/{project}"), rename).await.expect(409);
        let wrong = json!({"user": {"enabled": "False"}});
        world.as_token(&admin, "PATCH", &format!("/v3/users/{user}"), wrong).await.expect(400);
        assert_eq!(world.told().await.len(), before);
        world.as_token(&admin, "DELETE", &format!("/v3/users/{user}"), Value::Null).await.expect(204);
        world.as_token(&admin, "DELETE", &format!("/v3/projects/{project}"), Value::Null).await.expect(204);
        assert_eq!(
            world.told().await,
            [
                "identity.authenticate",
                "identity.project.created",
                "identity.user.created",
                "identity.role_assignment.created",
                "identity.user.deleted",
                "identity.project.deleted"
            ]
        );
    }
}

#[tokio::test]
async fn own_properties_and_filters_come_back() {
    for world in worlds().await {
        let admin = world.admin().await;
        let (user, project) = world.member(&admin, "ann", "member").await;
        let change = json!({"user": {"email": "a@example.org", "name": "anne", "default_project_id": null}});
        let changed = world.as_token(&admin, "PATCH", &format!("/v3/users/{user}"), change).await.expect(200);
        assert_eq!(changed.body["user"]["email"], "a@example.org");
        assert!(changed.body["user"].get("default_project_id").is_none());
        assert!(!changed.body.to_string().contains("argon2"), "hashes stay inside");
        for (path, what, count) in [
            ("/v3/users?name=anne".to_owned(), "users", 1),
            ("/v3/users?name=ann".to_owned(), "users", 0),
            ("/v3/users?domain_id=other".to_owned(), "users", 0),
            ("/v3/users?enabled=false".to_owned(), "users", 0),
            ("/v3/projects?domain_id=default".to_owned(), "projects", 3),
            ("/v3/projects?domain_id=&name=service".to_owned(), "projects", 1),
            ("/v3/projects?name=service&domain_id=default".to_owned(), "projects", 1),
            ("/v3/domains?name=Default".to_owned(), "domains", 1),
            ("/v3/domains?name=other".to_owned(), "domains", 0),
            (format!("/v3/role_assignments?scope.project.id={project}&include_names"), "role_assignments", 1),
            (format!("/v3/role_assignments?user.id={user}"), "role_assignments", 1),
            ("/v3/role_assignments?scope.system=all".to_owned(), "role_assignments", 0),
            ("/v3/services?type=metric".to_owned(), "services", 1),
            ("/v3/endpoints?interface=public".to_owned(), "endpoints", 9),
            ("/v3/role_inferences".to_owned(), "role_inferences", 3),
        ] {
            let found = world.as_token(&admin, "GET", &path, Value::Null).await.expect(200);
            assert_eq!(found.body[what].as_array().map(Vec::len), Some(count), "{path}: {}", found.body);
            assert!(found.body["links"]["self"].is_string(), "{path}");
        }
    }
}

#[tokio::test]
async fn service_accounts_are_made_mended_and_keep_their_tokens_when_nothing_changes() {
    for world in worlds().await {
        let password = SecretString::from("service password");
        let ensure = |password: SecretString| {
            let identity = world.identity.clone();
            async move { identity.ensure_user("orzo", &password, "service", &["admin", "service"]).await.expect("made") }
        };
        let id = ensure(password.clone()).await;
        let login = world.login("orzo", "service password", in_project("service")).await.expect(201);
        assert!(login.body["token"]["roles"].as_array().expect("roles").iter().any(|role| role["name"] == "service"));
        assert_eq!(ensure(password).await, id);
        assert_eq!(world.validity(&login.token()).await, 200);
        assert_eq!(ensure(SecretString::from("another password")).await, id);
        assert_eq!(world.validity(&login.token()).await, 401);
        world.login("orzo", "another password", in_project("service")).await.expect(201);
        let project = world.identity.ensure_project("demo", "").await.expect("made");
        assert_eq!(world.identity.ensure_project("demo", "").await.expect("found"), project);
    }
}
