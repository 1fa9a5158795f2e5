//! Servers that get another size, and what is told, claimed and kept meanwhile.

use futures::FutureExt;

use super::*;

async fn resized(world: &World, asker: &Asker, id: &str, flavor: &str) {
    let before = world.events().iter().filter(|event| *event == "finish_resize.end").count();
    world.act(asker, id, json!({"resize": {"flavorRef": flavor}})).await.expect(202);
    world.told("finish_resize.end", before + 1).await;
    assert_eq!(world.status(asker, id).await, "VERIFY_RESIZE");
}

async fn running(world: &World, asker: &Asker) -> String {
    let id = world.create(asker, "web").await;
    world.run();
    world.told("create.end", 1).await;
    id
}

async fn cores(world: &World, asker: &Asker) -> i64 {
    world.get(asker, "/v2.1/limits").await.expect(200)["limits"]["absolute"]["totalCoresUsed"]
        .as_i64()
        .expect("a number")
}

#[tokio::test]
async fn a_server_is_resized_confirmed_and_reverted_and_every_step_is_told() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = running(&world, &me).await;
        let uuid = Uuid::try_parse(&id).expect("a uuid");
        world.act(&me, &id, json!({"confirmResize": null})).await.expect(409);
        resized(&world, &me, &id, "3").await;
        assert_eq!(cores(&world, &me).await, 3, "both sizes count");
        assert_eq!(world.hypervisor.made.lock().last().expect("made").nova.flavor.vcpus, 2);
        assert_eq!(world.hypervisor.state(uuid).await.expect("an answer"), Some(PowerState::Running));
        let listed = world.get(&me, "/v2.1/servers?status=VERIFY_RESIZE").await.expect(200);
        assert_eq!(listed["servers"].as_array().map(Vec::len), Some(1));
        for action in [json!({"os-stop": null}), json!({"resize": {"flavorRef": "4"}})] {
            world.act(&me, &id, action).await.expect(409);
        }
        world.act(&me, &id, json!({"revertResize": null})).await.expect(202);
        world.told("resize.revert.end", 1).await;
        assert_eq!((world.status(&me, &id).await, cores(&world, &me).await), (json!("ACTIVE"), 1));
        assert_eq!(world.hypervisor.made.lock().last().expect("made").nova.flavor.name, "m1.tiny");
        resized(&world, &me, &id, "2").await;
        world.act(&me, &id, json!({"confirmResize": null})).await.expect(204);
        world.told("resize.confirm.end", 1).await;
        let shown = world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(200);
        assert_eq!((shown["server"]["status"].as_str(), cores(&world, &me).await), (Some("ACTIVE"), 1));
        assert_eq!(shown["server"]["flavor"]["original_name"], "m1.small");

        let events: Vec<String> = world.events().into_iter().filter(|event| event.contains("resize")).collect();
        let steps = ["resize.prep.start", "resize.prep.end", "resize.start", "resize.end"];
        let forth = [steps.as_slice(), &["finish_resize.start", "finish_resize.end"]].concat();
        let mut expected = forth.clone();
        expected.extend(["resize.revert.start", "resize.revert.end"]);
        expected.extend(forth);
        expected.extend(["resize.confirm.start", "resize.confirm.end"]);
        assert_eq!(events, expected);
        let prep = world.payload_of("resize.prep.start").await;
        assert_eq!((prep["new_instance_type"].as_str(), prep["vcpus"].as_i64()), (Some("m1.medium"), Some(1)));
        assert_eq!(world.payload_of("resize.end").await["vcpus"], 1);
        assert_eq!(world.payload_of("finish_resize.start").await["vcpus"], 2);
        let end = world.payload_of("finish_resize.end").await;
        assert_eq!((end["state"].as_str(), end["memory_mb"].as_i64()), (Some("resized"), Some(4096)));
        assert_eq!(world.payload_of("resize.revert.end").await["memory_mb"], 512);
        assert_eq!(world.payload_of("resize.confirm.end").await["memory_mb"], 2048);
        assert!(world.rooms.room("cloud.compute").balance().is_conserved());
    }
}

#[tokio::test]
async fn a_resize_that_cannot_be_is_refused_and_changes_nothing() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let (me, other, reader) = (member("p"), member("q"), asker("r", "p", &["reader"]));
        let body = world.post(&me, "/v2.1/servers", world.request("web", "2")).await.expect(202);
        let id = body["server"]["id"].as_str().expect("an id").to_owned();
        let to = |flavor: &str| json!({"resize": {"flavorRef": flavor}});
        world.act(&me, &id, to("3")).await.expect(409);
        world.run();
        world.told("create.end", 1).await;
        world.act(&other, &id, to("3")).await.expect(404);
        world.act(&reader, &id, to("3")).await.expect(403);
        for (flavor, words) in [("2", "must change flavor"), ("1", "smaller"), ("none", "Flavor none")] {
            let error = world.act(&me, &id, to(flavor)).await.expect(400);
            assert!(error["badRequest"]["message"].as_str().is_some_and(|text| text.contains(words)), "{error}");
        }
        world.act(&me, &id, json!({"resize": {}})).await.expect(400);
        // One core is used; together with two more it is one too many.
        let quota = json!({"quota_set": {"cores": 2}});
        world.ask(&admin(), "PUT", "/v2.1/os-quota-sets/p", "2.1", quota).await.expect(200);
        let error = world.act(&me, &id, to("3")).await.expect(403);
        assert!(error["forbidden"]["message"].as_str().is_some_and(|text| text.contains("cores")), "{error}");
        let quota = json!({"quota_set": {"cores": -1, "ram": -1}});
        world.ask(&admin(), "PUT", "/v2.1/os-quota-sets/p", "2.1", quota).await.expect(200);
        let huge = json!({"flavor": {"id": "huge", "name": "huge", "ram": 1 << 17, "vcpus": 1, "disk": 20}});
        world.post(&admin(), "/v2.1/flavors", huge).await.expect(200);
        let error = world.act(&me, &id, to("huge")).await.expect(400);
        assert!(error["badRequest"]["message"].as_str().is_some_and(|text| text.contains("No valid host")), "{error}");
        assert_eq!((world.status(&me, &id).await, cores(&world, &me).await), (json!("ACTIVE"), 1));
        assert!(!world.events().iter().any(|event| event.contains("resize")));
    }
}

#[tokio::test]
async fn resizes_at_once_in_two_processes_cannot_overbook() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let unlimited = json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}});
        world.ask(&admin(), "PUT", "/v2.1/os-quota-sets/p", "2.1", unlimited).await.expect(200);
        let me = member("p");
        // 128 GiB of memory: six of 8 GiB leave room for five of 16 GiB beside them.
        let mut ids = Vec::new();
        for number in 0..6 {
            let body = world.post(&me, "/v2.1/servers", world.request(&format!("s{number}"), "4")).await.expect(202);
            ids.push(body["server"]["id"].as_str().expect("an id").to_owned());
        }
        world.run();
        world.told("create.end", 6).await;
        let second = world.restarted(world.hypervisor.clone()).await;
        let many = ids.iter().enumerate().map(|(number, id)| {
            let compute = if number % 2 == 0 { &world.compute } else { &second };
            compute.resize(&me, id, "5").boxed_local()
        });
        let outcomes = futures::future::join_all(many).await;
        let refused: Vec<u16> =
            outcomes.iter().filter_map(|outcome| outcome.as_ref().err().map(|error| error.status().as_u16())).collect();
        assert_eq!(refused, [400]);
        world.told("finish_resize.end", 5).await;
        let free = || async {
            let statistics = world.get(&admin(), "/v2.1/os-hypervisors/statistics").await.expect(200);
            statistics["hypervisor_statistics"]["free_ram_mb"].clone()
        };
        assert_eq!(free().await, 0);
        world.post(&me, "/v2.1/servers", world.request("one-more", "1")).await.expect(202);
        world.told("create.error", 1).await;
        let at = outcomes.iter().position(Result::is_ok).expect("most were");
        world.act(&me, &ids[at], json!({"confirmResize": null})).await.expect(204);
        world.told("resize.confirm.end", 1).await;
        assert_eq!(free().await, 8192, "the old size is free again");
        // The same server twice at once: one of them comes too late.
        let refused = outcomes.iter().position(Result::is_err).expect("one was");
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{}", ids[at]), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        let id = &ids[refused];
        let (a, b) = tokio::join!(world.compute.resize(&me, id, "5"), second.resize(&me, id, "5"));
        let status = |outcome: &Result<(), ComputeError>| outcome.as_ref().err().map(|error| error.status().as_u16());
        assert!(matches!((status(&a), status(&b)), (None, Some(409)) | (Some(409), None)), "{a:?} {b:?}");
    }
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_resize_finishes_it_once() {
    for mut world in worlds("libvirt", SystemClock::shared()).await {
        let me = member("p");
        let flavor = json!({"flavor": {"id": "two", "name": "two", "ram": 1024, "vcpus": 2, "disk": 2}});
        world.post(&admin(), "/v2.1/flavors", flavor).await.expect(200);
        let id = world.create(&me, "web").await;
        let first = tokio::spawn(world.compute.clone().run_worker(world.stop.clone()));
        world.told("create.end", 1).await;
        let closed = world.hypervisor.gate.write().await;
        world.act(&me, &id, json!({"resize": {"flavorRef": "two"}})).await.expect(202);
        world.told("finish_resize.start", 1).await;
        let shown = world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(200);
        assert_eq!(
            (&shown["server"]["status"], &shown["server"]["OS-EXT-STS:task_state"]),
            (&json!("RESIZE"), &json!("resize_finish"))
        );
        // The disk is grown and the guest about to be made when the process dies.
        let disk = world.directory.path().join("instances").join(&id).join("disk");
        while std::fs::metadata(&disk).expect("the disk").len() != 2 << 30 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.expect_err("killed").is_cancelled());
        drop(closed);
        let made = world.hypervisor.made.lock().len();
        world.compute = world.restarted(world.hypervisor.clone()).await;
        world.run();
        world.told("finish_resize.end", 1).await;
        assert_eq!(world.status(&me, &id).await, "VERIFY_RESIZE");
        let spec = world.hypervisor.made.lock().last().expect("made").clone();
        assert_eq!((spec.nova.flavor.vcpus, spec.nova.flavor.memory_mib), (2, 1024));
        assert_eq!(world.hypervisor.made.lock().len(), made + 1);
        // What the guest writes on the larger disk is gone after a revert, as in Nova.
        let file = std::fs::File::options().write(true).open(&disk).expect("the disk");
        std::os::unix::fs::FileExt::write_at(&file, b"changed", 0).expect("written");
        world.act(&me, &id, json!({"revertResize": null})).await.expect(202);
        world.told("resize.revert.end", 1).await;
        assert_eq!(std::fs::metadata(&disk).expect("the disk").len(), 1 << 30);
        let mut start = [0; 4];
        let file = std::fs::File::open(&disk).expect("the disk");
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut start, 0).expect("readable");
        assert_eq!(&start, b"boot");
        resized(&world, &me, &id, "two").await;
        world.act(&me, &id, json!({"confirmResize": null})).await.expect(204);
        world.told("resize.confirm.end", 1).await;
        let left = std::fs::read_dir(disk.parent().expect("a directory")).expect("readable").count();
        assert_eq!(left, 1, "only the disk");
        assert_eq!(world.events().iter().filter(|event| *event == "finish_resize.start").count(), 2);
    }
}

#[tokio::test]
async fn a_resize_that_fails_leaves_the_old_size_behind_it() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = running(&world, &me).await;
        // What passes is tried again.
        world.hypervisor.passing_failures.store(1, Ordering::SeqCst);
        resized(&world, &me, &id, "3").await;
        world.hypervisor.broken.store(true, Ordering::SeqCst);
        world.act(&me, &id, json!({"revertResize": null})).await.expect(202);
        assert_eq!(world.payload_of("resize.revert.error").await["instance_type"], "m1.tiny");
        world.hypervisor.broken.store(false, Ordering::SeqCst);
        world.act(&me, &id, json!({"reboot": {"type": "HARD"}})).await.expect(202);
        world.told("reboot.end", 1).await;
        world.hypervisor.broken.store(true, Ordering::SeqCst);
        world.act(&me, &id, json!({"resize": {"flavorRef": "3"}})).await.expect(202);
        world.told("finish_resize.error", 1).await;
        let shown = world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(200);
        assert_eq!(shown["server"]["status"], "ERROR");
        assert_eq!((&shown["server"]["flavor"]["original_name"], cores(&world, &me).await), (&json!("m1.tiny"), 1));
        world.hypervisor.broken.store(false, Ordering::SeqCst);
        world.act(&me, &id, json!({"reboot": {"type": "HARD"}})).await.expect(202);
        world.told("reboot.end", 2).await;
        assert_eq!(world.status(&me, &id).await, "ACTIVE");
        assert_eq!(world.hypervisor.made.lock().last().expect("made").nova.flavor.vcpus, 1);
        // A server that waits for the decision can be deleted.
        resized(&world, &me, &id, "3").await;
        world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
        world.told("delete.end", 1).await;
        assert_eq!(cores(&world, &me).await, 0);
    }
}

#[tokio::test]
async fn a_server_that_is_off_is_resized_and_stays_off() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let me = member("p");
        let id = running(&world, &me).await;
        world.act(&me, &id, json!({"os-stop": null})).await.expect(202);
        world.told("power_off.end", 1).await;
        resized(&world, &me, &id, "3").await;
        world.compute.reconcile().await.expect("compared");
        let shown = world.get(&me, &format!("/v2.1/servers/{id}")).await.expect(200);
        assert_eq!(shown["server"]["OS-EXT-STS:power_state"], 4);
        world.act(&me, &id, json!({"confirmResize": null})).await.expect(204);
        world.told("resize.confirm.end", 1).await;
        assert_eq!((world.status(&me, &id).await, world.hypervisor.made.lock().len()), (json!("SHUTOFF"), 1));
        world.act(&me, &id, json!({"os-start": null})).await.expect(202);
        world.told("power_on.end", 1).await;
        assert_eq!(world.hypervisor.made.lock().last().expect("made").nova.flavor.vcpus, 2);
        // Simulated guests are gone after a restart; one that waits for the decision is made again.
        resized(&world, &me, &id, "4").await;
        let fresh = Arc::new(Simulated::new("host-1", 1, world.clock.clone()));
        let third = world.restarted(fresh.clone()).await;
        third.restore().await.expect("restored");
        assert!(fresh.state(Uuid::try_parse(&id).expect("a uuid")).await.expect("an answer").is_some());
    }
}

#[tokio::test]
async fn a_failed_resize_gives_the_old_disk_back() {
    for world in worlds("libvirt", SystemClock::shared()).await {
        let me = member("p");
        let id = running(&world, &me).await;
        let disk = world.directory.path().join("instances").join(&id).join("disk");
        world.hypervisor.broken.store(true, Ordering::SeqCst);
        world.act(&me, &id, json!({"resize": {"flavorRef": "2"}})).await.expect(202);
        world.told("finish_resize.error", 1).await;
        assert_eq!(std::fs::metadata(&disk).expect("the disk").len(), 1 << 30);
        let left = std::fs::read_dir(disk.parent().expect("a directory")).expect("readable").count();
        assert_eq!(left, 1, "only the disk");
    }
}

/// Real QEMU under real libvirt, when `ORZO_TEST_LIBVIRT` names one: what it runs is what the flavor says.
#[tokio::test]
async fn a_real_guest_is_made_again_in_its_new_size() {
    let Ok(uri) = std::env::var("ORZO_TEST_LIBVIRT") else { return };
    let mut world = worlds("libvirt", SystemClock::shared()).await.remove(0);
    // A guest without a system does not hear that it is to shut down.
    let shutdown_grace = Duration::from_secs(1);
    let settings = orzo_hypervisor::LibvirtSettings { uri, shutdown_grace, ..Default::default() };
    let libvirt = orzo_hypervisor::Libvirt::connect(settings, SystemClock::shared()).await.expect("libvirt");
    let libvirt = Arc::new(libvirt);
    world.compute = world.restarted(libvirt.clone()).await;
    // Domain names come from this number, and other tests may run guests on the same libvirt.
    let number = i64::from(Uuid::new_v4().as_fields().0 >> 1);
    let sql = "INSERT INTO compute_counters (name, value) VALUES ('server', $1)";
    world.database.execute(sql, &[number.into()]).await.expect("written");
    let me = member("p");
    for (name, ram, vcpus, disk) in [("small", 64, 1, 1), ("large", 128, 2, 2)] {
        let flavor = json!({"flavor": {"id": name, "name": name, "ram": ram, "vcpus": vcpus, "disk": disk}});
        world.post(&admin(), "/v2.1/flavors", flavor).await.expect(200);
    }
    let body = world.post(&me, "/v2.1/servers", world.request("web", "small")).await.expect(202);
    let id = body["server"]["id"].as_str().expect("an id").to_owned();
    world.run();
    world.told("create.end", 1).await;
    let uuid = Uuid::try_parse(&id).expect("a uuid");
    let seen = || async {
        let guests = libvirt.stats().await.expect("statistics");
        let guest = guests.into_iter().find(|guest| guest.uuid == uuid).expect("the guest");
        (guest.state, guest.vcpus, guest.memory.actual_kib, guest.disks[0].capacity_bytes)
    };
    let running = Some(PowerState::Running);
    assert_eq!(seen().await, (running, Some(1), Some(64 << 10), Some(1 << 30)));
    world.act(&me, &id, json!({"resize": {"flavorRef": "large"}})).await.expect(202);
    world.told("finish_resize.end", 1).await;
    assert_eq!(seen().await, (running, Some(2), Some(128 << 10), Some(2 << 30)));
    world.act(&me, &id, json!({"revertResize": null})).await.expect(202);
    world.told("resize.revert.end", 1).await;
    assert_eq!(seen().await, (running, Some(1), Some(64 << 10), Some(1 << 30)));
    world.ask(&me, "DELETE", &format!("/v2.1/servers/{id}"), "2.1", Value::Null).await.expect(204);
    world.told("delete.end", 1).await;
    assert_eq!(libvirt.state(uuid).await.expect("an answer"), None);
}
