//! Real python-openstackclient against the whole cloud over a socket, when `ORZO_TEST_OPENSTACK` names its `openstack`
//! program: what the client really sends is the specification.

use std::{net::SocketAddr, process::Stdio};

use orzo_model::SystemClock;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{CancellationToken, RecordingBus, databases, rooms};
use crate::{Cloud, CloudParts, CloudSettings};

const PASSWORD: &str = "a long password";

struct Client {
    program: String,
    auth_url: String,
}

impl Client {
    /// Runs the client; its answer as JSON, or null if it gives none. It must succeed exactly if `succeeds`.
    async fn run(&self, succeeds: bool, arguments: &[&str]) -> Value {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        for (name, value) in [
            ("OS_AUTH_URL", self.auth_url.as_str()),
            ("OS_USERNAME", "admin"),
            ("OS_PASSWORD", PASSWORD),
            ("OS_PROJECT_NAME", "admin"),
            ("OS_USER_DOMAIN_NAME", "Default"),
            ("OS_PROJECT_DOMAIN_NAME", "Default"),
            ("OS_IDENTITY_API_VERSION", "3"),
        ] {
            command.env(name, value);
        }
        let output = command.output().await.expect("the client starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), succeeds, "openstack {}: {text}{errors}", arguments.join(" "));
        // With --wait there is a progress line in front.
        let start = text.find(['{', '[']).unwrap_or(text.len());
        serde_json::from_str(&text[start..]).unwrap_or(Value::Null)
    }

    async fn ok(&self, arguments: &str) -> Value {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.run(true, &arguments).await
    }

    async fn refused(&self, arguments: &str) {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.run(false, &arguments).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_openstackclient_works_with_images_and_servers() {
    let Ok(program) = std::env::var("ORZO_TEST_OPENSTACK") else { return };
    for (database, _guard) in databases().await {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let directory = tempfile::tempdir().expect("a directory");
        let mut settings = CloudSettings::new(base.parse().expect("a URL"), directory.path().to_owned());
        settings.admin_password = Some(SecretString::from(PASSWORD));
        let clock = SystemClock::shared();
        let bus = RecordingBus::new();
        let parts = CloudParts {
            database,
            bus: bus.clone(),
            hypervisor: std::sync::Arc::new(orzo_hypervisor::Simulated::new("host-1", 1, clock.clone())),
            clock,
            rooms: rooms(),
        };
        let cloud = Cloud::open(settings, parts).await.expect("the cloud opens");
        let stop = CancellationToken::new();
        tokio::spawn(cloud.clone().run(stop.clone()));
        let service = cloud.router().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let client = Client { program: program.clone(), auth_url: format!("{base}/identity/v3") };
        images(&client, directory.path()).await;
        servers(&client, &bus).await;
        stop.cancel();
    }
}

async fn images(client: &Client, directory: &std::path::Path) {
    let (file, saved) = (directory.join("boot.img"), directory.join("saved.img"));
    let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    std::fs::write(&file, &data).expect("a file");
    let (file, saved) = (file.display().to_string(), saved.display().to_string());
    let image = client
        .ok(&format!(
            "image create --disk-format raw --container-format bare --file {file} --public --property a=b --tag t boot -f json"
        ))
        .await;
    assert_eq!(image["name"], "boot");
    let shown = client.ok("image show boot -f json").await;
    assert_eq!((shown["status"].as_str(), shown["size"].as_i64()), (Some("active"), Some(300_000)));
    client.ok(&format!("image save --file {saved} boot")).await;
    assert_eq!(std::fs::read(&saved).expect("saved"), data);
    client.ok("image set --property c=d --name renamed --protected boot").await;
    client.refused("image delete renamed").await;
    client.ok("image set --unprotected --name boot renamed").await;
    let list = client.ok("image list --long --property c=d -f json").await;
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    client.ok("image unset --property c boot").await;
    let disguised = directory.join("disguised");
    std::fs::write(&disguised, [b"QFI\xfb".as_slice(), &[0; 600]].concat()).expect("a file");
    client.refused(&format!("image create --disk-format raw --file {} disguised", disguised.display())).await;
    client.ok("image create --disk-format raw --shared mine").await;
    client.ok("image add project mine service").await;
    client.ok("image member list mine -f json").await;
    client.ok("image remove project mine service").await;
    client.ok("image delete mine").await;
}

async fn servers(client: &Client, bus: &RecordingBus) {
    client.ok("flavor create --ram 128 --vcpus 1 --disk 1 --property x:y=z nano").await;
    let flavors = client.ok("flavor list --long -f json").await;
    assert_eq!(flavors.as_array().map(Vec::len), Some(6), "{flavors}");
    client.ok("flavor show nano -f json").await;
    let server =
        client.ok("server create --flavor nano --image boot --no-network --property k=v --wait one -f json").await;
    assert_eq!(server["status"], "ACTIVE", "{server}");
    client.ok("server create --flavor m1.tiny --image boot --wait two").await;
    // In this client's words `--network` takes a name, and this cloud has no networks.
    client.refused("server create --flavor m1.tiny --image boot --network elsewhere no").await;
    client.ok("--os-compute-api-version 2.1 server create --flavor m1.tiny --image boot --wait three").await;
    client.ok("server create --flavor nano --image boot --nic auto --wait four").await;
    client.ok("server delete --wait four").await;
    let list = client.ok("server list -f json").await;
    assert_eq!(list.as_array().map(Vec::len), Some(3), "{list}");
    assert_eq!(list[0]["Image"], "boot", "{list}");
    let list = client.ok("server list --long --all-projects -f json").await;
    assert!(list[0]["Host"].as_str().is_some_and(|host| host.contains("simulated")), "{list}");
    client.ok("server list --name one --status ACTIVE --limit 1 -f json").await;
    let shown = client.ok("server show one -f json").await;
    assert_eq!(shown["OS-EXT-SRV-ATTR:hypervisor_hostname"], "simulated-host-1", "{shown}");
    client.ok("server stop one").await;
    bus.wait_for_event("compute.instance.power_off.end", 1).await;
    assert_eq!(client.ok("server show one -f json").await["status"], "SHUTOFF");
    client.ok("server start one").await;
    bus.wait_for_event("compute.instance.power_on.end", 1).await;
    client.ok("server reboot --wait one").await;
    client.ok("server reboot --hard --wait one").await;
    client.refused("server start one").await;
    client.ok("server resize --flavor m1.tiny --wait one").await;
    assert_eq!(client.ok("server show one -f json").await["status"], "VERIFY_RESIZE");
    client.ok("server resize confirm one").await;
    bus.wait_for_event("compute.instance.resize.confirm.end", 1).await;
    client.refused("server resize --flavor m1.tiny one").await;
    client.ok("server resize --flavor m1.small --wait one").await;
    client.ok("server resize revert one").await;
    bus.wait_for_event("compute.instance.resize.revert.end", 1).await;
    let shown = client.ok("server show one -f json").await;
    assert_eq!((&shown["status"], &shown["flavor"]["name"]), (&json!("ACTIVE"), &json!("m1.tiny")), "{shown}");
    client.refused("server pause one").await;
    client.ok("server set --name uno --property k2=v2 one").await;
    client.ok("server unset --property k2 uno").await;
    client.ok("server event list uno -f json").await;
    client.ok("server delete --wait uno two three").await;
    assert_eq!(client.ok("server list -f json").await, json!([]));
    let hypervisors = client.ok("hypervisor list -f json").await;
    assert_eq!(hypervisors[0]["Hypervisor Type"], "simulated", "{hypervisors}");
    client.ok("hypervisor list --long -f json").await;
    client.ok("hypervisor show simulated-host-1 -f json").await;
    client.ok("--os-compute-api-version 2.1 hypervisor show simulated-host-1 -f json").await;
    client.ok("--os-compute-api-version 2.1 hypervisor stats show -f json").await;
    client.ok("compute service list -f json").await;
    client.ok("availability zone list --compute -f json").await;
    client.ok("limits show --absolute -f json").await;
    client.ok("quota show --compute admin -f json").await;
    client.ok("quota set --instances 20 admin").await;
    client.ok("keypair list -f json").await;
    client.ok("flavor unset --property x:y nano").await;
    client.ok("flavor delete nano").await;
    client.ok("image delete boot").await;
}
