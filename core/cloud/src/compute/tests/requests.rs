//! How requests are answered: rights, lists, flavors, hypervisors, mistakes.

use super::*;

#[tokio::test]
async fn who_may_do_what_is_as_in_nova() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let (me, other, reader) = (member("p"), member("q"), asker("r", "p", &["reader"]));
        let id = world.create(&me, "web").await;
        let path = format!("/v2.1/servers/{id}");
        world.get(&other, &path).await.expect(404);
        world.act(&other, &id, json!({"os-stop": null})).await.expect(404);
        world.get(&reader, &path).await.expect(200);
        world.act(&reader, &id, json!({"os-stop": null})).await.expect(403);
        world.post(&reader, "/v2.1/servers", world.request("x", "1")).await.expect(403);
        world.get(&me, "/v2.1/servers?all_tenants=1").await.expect(403);
        world.get(&me, "/v2.1/os-hypervisors").await.expect(403);
        world
            .post(&me, "/v2.1/flavors", json!({"flavor": {"name": "x", "ram": 1, "vcpus": 1, "disk": 1}}))
            .await
            .expect(403);
        world.get(&me, "/v2.1/os-quota-sets/q").await.expect(403);
        let shown = world.get(&me, &path).await.expect(200);
        assert!(shown["server"].get("OS-EXT-SRV-ATTR:host").is_none());
        let nobody = router(world.compute.clone());
        for (path, status) in [("/v2.1/servers", 401), ("/", 200), ("/v2.1", 200), ("/v2.1/", 200)] {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            assert_eq!(nobody.clone().oneshot(request).await.expect("infallible").status().as_u16(), status, "{path}");
        }
    }
}

#[tokio::test]
async fn flavors_are_kept_and_private_ones_are_seen_by_those_they_are_for() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let (boss, me) = (admin(), member("p"));
        let list = world.get(&me, "/v2.1/flavors/detail").await.expect(200);
        assert_eq!(list["flavors"].as_array().map(Vec::len), Some(5));
        let body = json!({"flavor": {"name": "secret", "ram": 64, "vcpus": 1, "disk": 0, "id": "auto", "swap": 0,
            "rxtx_factor": 1.0, "OS-FLV-EXT-DATA:ephemeral": 0, "os-flavor-access:is_public": false}});
        let flavor = world.post(&boss, "/v2.1/flavors", body.clone()).await.expect(200);
        let id = flavor["flavor"]["id"].as_str().expect("an id").to_owned();
        world.post(&boss, "/v2.1/flavors", body).await.expect(409);
        world.get(&me, &format!("/v2.1/flavors/{id}")).await.expect(404);
        let grant = json!({"addTenantAccess": {"tenant": "p"}});
        world.post(&boss, &format!("/v2.1/flavors/{id}/action"), grant).await.expect(200);
        world.get(&me, &format!("/v2.1/flavors/{id}")).await.expect(200);
        let specs = json!({"extra_specs": {"hw:cpu_policy": "shared"}});
        world.post(&boss, &format!("/v2.1/flavors/{id}/os-extra_specs"), specs).await.expect(200);
        let shown = world.get(&me, &format!("/v2.1/flavors/{id}")).await.expect(200);
        assert_eq!(shown["flavor"]["extra_specs"]["hw:cpu_policy"], "shared");
        world.ask(&boss, "DELETE", &format!("/v2.1/flavors/{id}"), "2.1", Value::Null).await.expect(202);
        world.get(&boss, &format!("/v2.1/flavors/{id}")).await.expect(404);
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged_and_bad_requests_are_told_in_novas_shape() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        for number in 0..5 {
            world.create(&me, &format!("web_{number}")).await;
        }
        let (mut next, mut names) = (Some("/v2.1/servers?limit=2".to_owned()), Vec::new());
        while let Some(path) = next {
            let page = world.get(&me, &path).await.expect(200);
            let servers = page["servers"].as_array().cloned().unwrap_or_default();
            names.extend(servers.iter().filter_map(|server| server["name"].as_str().map(str::to_owned)));
            let href = page["servers_links"][0]["href"].as_str();
            next = href.map(|href| href.replace("http://cloud.example/compute", ""));
        }
        names.sort();
        assert_eq!(names, ["web_0", "web_1", "web_2", "web_3", "web_4"]);
        let uuid = Uuid::new_v4();
        let uuid_query = format!("uuid={uuid}");
        for (query, count) in [
            ("name=web_3", 1),
            ("name=web", 5),
            ("name=^web$", 0),
            ("name=web%25", 0),
            ("status=BUILD", 5),
            ("status=active", 0),
            ("status=PAUSED", 0),
            ("flavor=1", 5),
            (uuid_query.as_str(), 0),
        ] {
            let body = world.get(&me, &format!("/v2.1/servers?{query}")).await.expect(200);
            assert_eq!(body["servers"].as_array().map(Vec::len), Some(count), "{query}");
        }
        let error = world.get(&me, &format!("/v2.1/servers/{uuid}")).await.expect(404);
        assert_eq!(error["itemNotFound"]["code"], 404);
        let error = world.post(&me, "/v2.1/servers", world.request("x", "none")).await.expect(400);
        assert!(error["badRequest"]["message"].as_str().is_some_and(|text| text.contains("Flavor none")), "{error}");
        let error = world.act(&me, &world.create(&me, "last").await, json!({"migrate": null})).await.expect(400);
        assert!(error["badRequest"]["message"].as_str().is_some_and(|text| text.contains("migrate")), "{error}");
        let old = world.ask(&me, "GET", "/v2.1/servers/detail", "2.1", Value::Null).await;
        assert_eq!(old.headers["x-openstack-nova-api-version"], "2.1");
        assert!(old.body["servers"][0]["flavor"]["id"].is_string());
        world.ask(&me, "GET", "/v2.1/servers", "2.999", Value::Null).await.expect(406);
    }
}

#[tokio::test]
async fn hostile_lists_and_texts_are_refused_and_tell_nothing() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let (me, other) = (member("p"), member("q"));
        let id = world.create(&me, "web").await;
        world.get(&me, &format!("/v2.1/servers?marker={id}")).await.expect(200);
        // A foreign server's id answers as one that is not there.
        let absent = Uuid::new_v4();
        let foreign = world.get(&other, &format!("/v2.1/servers?marker={id}")).await.expect(400);
        let missing = world.get(&other, &format!("/v2.1/servers?marker={absent}")).await.expect(400);
        assert_eq!(
            foreign.to_string().replace(&id.to_string(), ""),
            missing.to_string().replace(&absent.to_string(), "")
        );
        // More conditions than a database takes.
        let many = vec!["name=x"; 2000].join("&");
        world.get(&me, &format!("/v2.1/servers?{many}")).await.expect(400);
        // NUL, which PostgreSQL cannot store.
        world.get(&me, "/v2.1/servers?name=%00").await.expect(400);
        let flavor = json!({"flavor": {"name": "a\u{0}b", "ram": 64, "vcpus": 1, "disk": 1}});
        let error = world.post(&admin(), "/v2.1/flavors", flavor).await.expect(400);
        assert!(error["badRequest"]["message"].as_str().is_some_and(|text| text.contains("NUL")), "{error}");
        // A body about something else takes no metadata away.
        let path = format!("/v2.1/servers/{id}/metadata");
        world.post(&me, &path, json!({"metadata": {"a": "1"}})).await.expect(200);
        world.ask(&me, "PUT", &path, "2.1", json!({"meta": {}})).await.expect(400);
        assert_eq!(world.get(&me, &path).await.expect(200)["metadata"], json!({"a": "1"}));
    }
}

#[tokio::test]
async fn metadata_can_be_set_and_a_server_renamed() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        let path = format!("/v2.1/servers/{id}");
        let added =
            world.post(&me, &format!("{path}/metadata"), json!({"metadata": {"a": "1", "b": "2"}})).await.expect(200);
        assert_eq!(added["metadata"], json!({"a": "1", "b": "2"}));
        world.ask(&me, "DELETE", &format!("{path}/metadata/a"), "2.1", Value::Null).await.expect(204);
        world.ask(&me, "DELETE", &format!("{path}/metadata/a"), "2.1", Value::Null).await.expect(404);
        let body = json!({"server": {"name": "renamed", "description": "new"}});
        let server = world.ask(&me, "PUT", &path, "2.96", body).await.expect(200);
        assert_eq!(
            (server["server"]["name"].as_str(), server["server"]["description"].as_str()),
            (Some("renamed"), Some("new"))
        );
        assert_eq!(world.get(&me, &format!("{path}/metadata")).await.expect(200)["metadata"], json!({"b": "2"}));
    }
}

#[tokio::test]
async fn hypervisors_say_when_they_are_simulated() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let detail = world.get(&admin(), "/v2.1/os-hypervisors/detail").await.expect(200);
        let hypervisor = &detail["hypervisors"][0];
        assert_eq!(hypervisor["hypervisor_type"], "simulated");
        assert_eq!(hypervisor["hypervisor_hostname"], "simulated-host-1");
        let id = hypervisor["id"].as_str().expect("a uuid since 2.53").to_owned();
        world.get(&admin(), &format!("/v2.1/os-hypervisors/{id}")).await.expect(200);
        let old = world.ask(&admin(), "GET", "/v2.1/os-hypervisors/detail", "2.1", Value::Null).await.expect(200);
        assert_eq!(
            (old["hypervisors"][0]["id"].as_i64(), old["hypervisors"][0]["vcpus"].as_i64()),
            (Some(1), Some(32))
        );
    }
}
