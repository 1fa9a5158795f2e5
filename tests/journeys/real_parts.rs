//! The same way with the real parts: a QEMU guest under libvirt, RabbitMQ, PostgreSQL, and the real clients.

use std::time::Duration;

use serde_json::Value;

use super::embedded::{POLLING, assert_deleted};
use crate::support::{clients::Clients, has_real_parts, orzo::Orzo, receiver::Receiver, servers::Server, wait_for};

const LIMIT: Duration = Duration::from_secs(120);

/// Burns CPU for ever: `jmp $`, and the mark of a boot sector.
fn boot_sector() -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    image[..2].copy_from_slice(&[0xeb, 0xfe]);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image
}

fn virsh(arguments: &[&str]) -> String {
    let output = std::process::Command::new("virsh").args(["-q", "-c", "qemu:///system"]).args(arguments).output();
    String::from_utf8_lossy(&output.expect("virsh is installed").stdout).into_owned()
}

/// Sees to it that no guest of this test is left under libvirt, before it and after it, also when it fails.
struct Guests;

impl Guests {
    fn none_of_ours() -> Self {
        Self::clear();
        Self
    }

    fn clear() {
        for id in virsh(&["list", "--all", "--uuid"]).split_whitespace() {
            if virsh(&["dumpxml", id]).contains("burner1") {
                virsh(&["destroy", id]);
                virsh(&["undefine", id]);
            }
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        Self::clear();
    }
}

#[test]
fn a_real_guest_raises_a_real_alarm() {
    if !has_real_parts("real parts") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let polling = directory.path().join("polling.yaml");
    std::fs::write(&polling, POLLING).unwrap();
    let broker = Server::rabbitmq(directory.path());
    let database = Server::postgres(directory.path());
    let settings = format!(
        "[database]\nurl = \"{}\"\n[bus]\nurl = \"{}\"\n\
         [cloud]\nhypervisor = \"libvirt\"\nlibvirt_uri = \"qemu:///system\"\n\
         [agents]\npolling_file = \"{}\"\n\
         [alarms]\nlag = \"2s\"\nwebhook_allow = [\"127.0.0.0/8\"]\n",
        database.url(),
        broker.url(),
        polling.display()
    );
    let _guests = Guests::none_of_ours();
    let mut orzo = Orzo::start(directory.path(), &settings);
    let clients = Clients::admin(&orzo);
    let token = orzo.token();

    // A guest from an image.
    let image = directory.path().join("burn.raw");
    std::fs::write(&image, boot_sector()).unwrap();
    let image = image.display().to_string();
    let made = clients.json("openstack", &["image", "create", "--disk-format", "raw", "--file", &image, "burn"]);
    let image_id = made["id"].as_str().unwrap().to_owned();
    let saved = directory.path().join("saved.raw").display().to_string();
    clients.run("openstack", &["image", "save", "--file", &saved, "burn"]);
    assert_eq!(std::fs::read(&saved).unwrap(), boot_sector(), "what was uploaded comes back");
    clients.json("openstack", &["flavor", "create", "--ram", "64", "--disk", "1", "--vcpus", "1", "burner"]);
    let create = ["server", "create", "--flavor", "burner", "--image", "burn", "--no-network", "--wait", "burner1"];
    let server = clients.json("openstack", &create);
    let id = server["id"].as_str().unwrap().to_owned();
    assert_eq!(server["status"], "ACTIVE", "{server}");
    assert!(virsh(&["list", "--uuid"]).contains(&id), "libvirt runs the guest");
    let hypervisors = clients.json("openstack", &["hypervisor", "list"]);
    assert_eq!(hypervisors[0]["Hypervisor Type"], "QEMU", "{hypervisors}");

    // Its load comes back by the real client.
    let show = ["measures", "show", "--resource-id", &id, "--granularity", "1", "cpu_util"];
    let load = wait_for("cpu_util by the gnocchi client", LIMIT, || {
        let (success, output, _) = clients.try_run("gnocchi", &[&show[..], &["-f", "json"]].concat());
        let rows: Value = serde_json::from_str(&output).ok().filter(|_| success)?;
        let values: Vec<f64> = rows.as_array()?.iter().filter_map(|row| row["value"].as_f64()).collect();
        // The guest does nothing but burn; on a busy host it gets a good part of a core at least.
        values.iter().any(|value| *value > 10.0).then_some(values)
    });
    assert!(load.iter().all(|value| (0.0..=100.0).contains(value)), "{load:?}");
    let resource = clients.json("gnocchi", &["resource", "show", "--type", "instance", &id]);
    assert_eq!(resource["display_name"], "burner1", "{resource}");
    assert_eq!(resource["flavor_name"], "burner", "{resource}");
    // The image is metered by polling its API.
    wait_for("image.size", LIMIT, || {
        let arguments = ["measures", "show", "--resource-id", &image_id, "image.size", "-f", "json"];
        let (success, output, _) = clients.try_run("gnocchi", &arguments);
        let rows: Value = serde_json::from_str(&output).ok().filter(|_| success)?;
        rows.as_array()?.iter().any(|row| row["value"] == f64::from(1 << 20)).then_some(())
    });

    // The load raises an alarm that the webhook is told.
    let receiver = Receiver::start();
    let alarm = clients.json(
        "openstack",
        &[
            "alarm",
            "create",
            "--name",
            "hot",
            "--type",
            "gnocchi_resources_threshold",
            "--metric",
            "cpu_util",
            "--resource-id",
            &id,
            "--resource-type",
            "instance",
            "--aggregation-method",
            "mean",
            "--granularity",
            "5",
            "--evaluation-periods",
            "1",
            "--threshold",
            "10",
            "--comparison-operator",
            "gt",
            "--alarm-action",
            &receiver.url,
        ],
    );
    let alarm_id = alarm["alarm_id"].as_str().unwrap();
    let notices = wait_for("the webhook", LIMIT, || {
        let received = receiver.received();
        (!received.is_empty()).then_some(received)
    });
    assert_eq!(notices[0].body["alarm_id"], alarm_id);
    assert_eq!(notices[0].body["current"], "alarm");
    let state = clients.run("openstack", &["alarm", "state", "get", alarm_id]);
    assert!(state.contains("alarm"), "{state}");

    // The end of the server is seen as event and resource.
    clients.run("openstack", &["server", "delete", "--wait", "burner1"]);
    assert_deleted(&orzo, &token, &id);
    assert!(!virsh(&["list", "--all", "--uuid"]).contains(&id), "libvirt has forgotten the guest");

    orzo.assert_conserved();
    assert_eq!(orzo.stop(), Some(0));
}
