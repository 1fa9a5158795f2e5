//! What becomes of servers: their states, their guests, and what is told of them.

use futures::FutureExt;

use super::*;

#[tokio::test]
async fn a_server_goes_through_its_life_and_every_step_is_told() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        assert_eq!(world.status(&me, &id).await, "BUILD");
        world.act(&me, &id, json!({"os-stop": null})).await.expect(409);
        world.run();
        world.told("create.end", 1).await;
        assert_eq!(world.status(&me, &id).await, "ACTIVE");
        for (action, event, status) in [
            (json!({"os-stop": null}), "power_off.end", "SHUTOFF"),
            (json!({"os-start": null}), "power_on.end", "ACTIVE"),
            (json!({"reboot": {"type": "SOFT"}}), "reboot.end", "ACTIVE"),
        ] {
            world.act(&me, &id, action).await.expect(202);
            world.told(event, 1).await;
            assert_eq!(world.status(&me, &id).await, status, "{event}");
        }
        world.act(&me, &id, json!({"reboot": {"type": "HARD"}})).await.expect(202);
        world.told("reboot.end", 2).await;
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(404);
        let deleted = world.get(&admin(), "/v2.1/servers/detail?all_tenants=1&deleted=true").await.expect(200);
        assert_eq!(deleted["servers"][0]["status"], "DELETED");

        let mut events = world.events();
        events.retain(|event| event != "update");
        assert_eq!(
            events,
            [
                "create.start",
                "create.end",
                "power_off.start",
                "power_off.end",
                "power_on.start",
                "power_on.end",
                "reboot.start",
                "reboot.end",
                "reboot.start",
                "reboot.end",
                "delete.start",
                "shutdown.start",
                "shutdown.end",
                "exists",
                "delete.end",
            ]
        );
        let end = world.payload_of("create.end").await;
        assert_eq!(
            (end["state"].as_str(), end["memory_mb"].as_i64(), end["vcpus"].as_i64()),
            (Some("active"), Some(512), Some(1))
        );
        assert_eq!(end["node"], "simulated-host-1");
        assert_eq!(end["image_meta"]["base_image_ref"], world.image.as_str());
        assert!(world.payload_of("delete.end").await["deleted_at"].as_str().is_some_and(|at| !at.is_empty()));
        let balance = world.rooms.room("cloud.compute").balance();
        assert!(balance.is_conserved() && balance.refused == 0);
    }
}

#[tokio::test]
async fn requests_at_once_can_overbook_neither_the_machine_nor_a_quota() {
    for world in worlds("simulated", SystemClock::shared()).await {
        // 128 GiB of memory, 16 GiB each: eight fit. 32 vCPUs × 4 and 2000 GiB are enough for them.
        let unlimited = json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}});
        world.ask(&admin(), "PUT", "/v2.1/os-quota-sets/p", "2.1", unlimited).await.expect(200);
        world
            .ask(&admin(), "PUT", "/v2.1/os-quota-sets/q", "2.1", json!({"quota_set": {"instances": 3}}))
            .await
            .expect(200);
        let (me, other) = (member("p"), member("q"));
        let many = futures::future::join_all(
            (0..12).map(|n| world.post(&me, "/v2.1/servers", world.request(&format!("s{n}"), "5")).boxed_local()),
        );
        for answer in many.await {
            answer.expect(202);
        }
        let servers = world.get(&admin(), "/v2.1/servers/detail?all_tenants=1").await.expect(200);
        let servers = servers["servers"].as_array().expect("a list").clone();
        let failed: Vec<&Value> = servers.iter().filter(|server| server["status"] == "ERROR").collect();
        assert_eq!((servers.len(), failed.len()), (12, 4));
        assert!(failed[0]["fault"]["message"].as_str().is_some_and(|text| text.starts_with("No valid host")));
        world.told("create.error", 4).await;
        let statistics = world.get(&admin(), "/v2.1/os-hypervisors/statistics").await.expect(200);
        assert_eq!(statistics["hypervisor_statistics"]["free_ram_mb"], 0);
        // Room for small ones of another project, which may have three.
        let id = servers.iter().find(|server| server["status"] != "ERROR").and_then(|s| s["id"].as_str()).expect("one");
        world.run();
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        let many = futures::future::join_all(
            (0..8).map(|n| world.post(&other, "/v2.1/servers", world.request(&format!("t{n}"), "1")).boxed_local()),
        );
        let statuses: Vec<u16> = many.await.into_iter().map(|answer| answer.status).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 3, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 5, "{statuses:?}");
    }
}

#[tokio::test]
async fn a_guest_that_cannot_be_made_leaves_a_server_in_error_that_can_be_deleted() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        world.hypervisor.broken.store(true, Ordering::SeqCst);
        let id = world.create(&me, "web").await;
        world.run();
        let payload = world.payload_of("create.error").await;
        assert!(payload["message"].as_str().is_some_and(|text| text.contains("the test says so")), "{payload}");
        let server = world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(200);
        assert_eq!(
            (server["server"]["status"].as_str(), server["server"]["fault"]["code"].as_i64()),
            (Some("ERROR"), Some(500))
        );
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        // What passes is tried again.
        world.hypervisor.broken.store(false, Ordering::SeqCst);
        world.hypervisor.passing_failures.store(1, Ordering::SeqCst);
        let id = world.create(&me, "web").await;
        world.told("create.end", 1).await;
        assert_eq!(world.status(&me, &id).await, "ACTIVE");
        let limits = world.get(&me, "/v2.1/limits").await.expect(200);
        assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 1);
    }
}

#[tokio::test]
async fn a_restart_takes_up_unfinished_work_and_makes_lost_guests_again() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        // This process does nothing about it; the next one does.
        let second = world.restarted(world.hypervisor.clone()).await;
        let stop = CancellationToken::new();
        let running = tokio::spawn(second.run(stop.clone()));
        world.told("create.end", 1).await;
        stop.cancel();
        running.await.expect("no panic");
        // All guests are gone, as simulated ones are after a restart, and the machine has a new name.
        let fresh = Arc::new(Simulated::new("host-2", 1, world.clock.clone()));
        let third = world.restarted(fresh.clone()).await;
        third.restore().await.expect("restored");
        let uuid = Uuid::try_parse(&id).expect("a uuid");
        assert_eq!(fresh.state(uuid).await.expect("an answer"), Some(PowerState::Running));
        let server = third.server(&me.caller, &id).await.expect("there");
        assert_eq!((server.vm_state, server.host.as_deref()), (VmState::Active, Some("host-2")));
        assert_eq!(world.events().iter().filter(|event| *event == "create.end").count(), 1);
    }
}

#[tokio::test]
async fn a_guest_that_dies_is_noticed_and_one_that_rises_is_stopped() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        let worker = tokio::spawn(world.compute.clone().run_worker(world.stop.clone()));
        world.told("create.end", 1).await;
        let uuid = Uuid::try_parse(&id).expect("a uuid");
        world.compute.reconcile().await.expect("compared");
        assert_eq!(world.status(&me, &id).await, "ACTIVE");
        world.hypervisor.stop(uuid, true).await.expect("switched off behind our back");
        world.compute.reconcile().await.expect("compared");
        assert_eq!(world.status(&me, &id).await, "SHUTOFF");
        world.told("power_off.end", 1).await;
        world.hypervisor.start(uuid).await.expect("switched on behind our back");
        world.compute.reconcile().await.expect("compared");
        world.told("power_off.end", 2).await;
        assert_eq!(world.hypervisor.state(uuid).await.expect("an answer"), Some(PowerState::ShutOff));
        world.stop.cancel();
        worker.await.expect("no panic");
    }
}

#[tokio::test]
async fn every_hour_is_told_exactly_once_for_each_server_also_over_restarts() {
    let hour = Duration::from_secs(3600);
    let clock = ManualClock::new(Timestamp::from_secs(1_795_291_200).floor(hour).plus(Duration::from_secs(60)));
    for world in worlds("simulated", clock.clone()).await {
        let me = member("p");
        assert!(!world.compute.audit_one().await.expect("the first look"));
        let first = world.create(&me, "first").await;
        clock.advance(hour);
        assert!(world.compute.audit_one().await.expect("an hour is over"));
        assert!(!world.compute.audit_one().await.expect("only once"));
        world.create(&me, "second").await;
        let again = world.restarted(world.hypervisor.clone()).await;
        assert!(!again.audit_one().await.expect("only once, also after a restart"));
        clock.advance(hour * 2);
        assert!(again.audit_one().await.expect("the next"));
        assert!(again.audit_one().await.expect("and the one after"));
        assert!(!again.audit_one().await.expect("done"));
        world.outbox.wake();
        // 1 + 2 + 2
        world.told("exists", 5).await;
        let exists: Vec<Value> =
            world.bus.events().into_iter().filter(|(e, _)| e.ends_with("exists")).map(|(_, p)| p).collect();
        assert_eq!(exists.len(), 5);
        let periods: std::collections::BTreeSet<String> = exists
            .iter()
            .filter(|payload| payload["instance_id"] == first.as_str())
            .map(|payload| payload["audit_period_beginning"].to_string())
            .collect();
        assert_eq!(periods.len(), 3);
    }
}

#[tokio::test]
async fn a_real_guest_gets_its_own_disk_from_the_checked_image() {
    for world in worlds("libvirt", SystemClock::shared()).await {
        let me = member("p");
        let id = world.create(&me, "web").await;
        world.run();
        world.told("create.end", 1).await;
        let spec = world.hypervisor.made.lock()[0].clone();
        let disk = spec.root_disk.clone().expect("a disk");
        assert_eq!(disk.format, "raw");
        assert!(disk.path.starts_with(world.directory.path().join("instances").join(&id)));
        let bytes = std::fs::metadata(&disk.path).expect("the disk").len();
        assert_eq!(bytes, 1 << 30, "as large as the flavor says");
        assert_eq!(&std::fs::read(&disk.path).expect("readable")[..5], b"boot\0");
        assert!(spec.mac.is_some_and(|mac| mac.starts_with("fa:16:3e:")));
        assert_eq!((spec.nova.project_name.as_str(), spec.nova.flavor.name.as_str()), ("p-name", "m1.tiny"));
        let shown = world.get(&admin(), &format!("/v2.1/servers/{id}")).await.expect(200);
        assert_eq!(shown["server"]["OS-EXT-SRV-ATTR:hypervisor_hostname"], "host-1");
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        assert!(!disk.path.exists());
    }
}

#[tokio::test]
async fn the_demonstration_is_made_once() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("demo");
        assert!(world.compute.ensure_demo_servers(&me).await.expect("made"));
        let count =
            || async { world.get(&me, "/v2.1/servers").await.expect(200)["servers"].as_array().map_or(0, Vec::len) };
        assert_eq!(count().await, 6);
        world.run();
        world.told("create.end", 6).await;
        let list = world.get(&me, "/v2.1/servers").await.expect(200);
        let id = list["servers"][0]["id"].as_str().expect("an id").to_owned();
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        assert!(!world.compute.ensure_demo_servers(&me).await.expect("never again"));
        assert_eq!(count().await, 5);
    }
    for world in worlds("libvirt", SystemClock::shared()).await {
        assert!(!world.compute.ensure_demo_servers(&member("demo")).await.expect("not with real guests"));
    }
}

#[tokio::test]
async fn a_delete_in_the_middle_of_the_making_wins() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let closed = world.hypervisor.gate.write().await;
        let id = world.create(&me, "web").await;
        world.run();
        // The worker has begun: the room counts it.
        let room = world.rooms.room("cloud.compute");
        while room.balance().received == 0 {
            tokio::task::yield_now().await;
        }
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        drop(closed);
        world.told("delete.end", 1).await;
        assert!(!world.events().contains(&"create.end".to_owned()), "{:?}", world.events());
        assert_eq!(world.hypervisor.state(Uuid::try_parse(&id).expect("a uuid")).await.expect("an answer"), None);
        world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(404);
    }
}
