//! How servers and flavors look in Nova's answers, by microversion. Pure.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha224};

use super::{
    ZONE,
    flavor::Flavor,
    notice::strtime,
    server::{Server, VmState},
    version::Microversion,
};

/// What a view needs to know beside the thing itself.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// `http://host/compute/v2.1`
    pub url: String,
    /// Hypervisor's name; says when guests are simulated.
    pub node: String,
    /// The asker is an admin.
    pub admin: bool,
    /// Asked for.
    pub version: Microversion,
}

/// Nova's opaque host id: the same for two servers of a project on one host, telling nothing else.
pub(super) fn host_id(project: &str, host: &str) -> String {
    hex::encode(Sha224::digest(format!("{project}{host}")))
}

impl Frame {
    fn links(&self, kind: &str, id: &str) -> Value {
        let bookmark = self.url.trim_end_matches("/v2.1");
        json!([
            {"rel": "self", "href": format!("{}/{kind}/{id}", self.url)},
            {"rel": "bookmark", "href": format!("{bookmark}/{kind}/{id}")},
        ])
    }

    /// As in lists without details, and in the answer to a create.
    pub(super) fn server_reference(&self, server: &Server) -> Value {
        let id = server.id.to_string();
        json!({"id": id, "name": server.name, "links": self.links("servers", &id)})
    }

    /// In full.
    pub(super) fn server(&self, server: &Server) -> Value {
        let id = server.id.to_string();
        let version = self.version.0;
        let host = server.host.as_deref().unwrap_or_default();
        let image = match server.image_id {
            Some(image) => json!({"id": image, "links": [self.links("images", &image.to_string())[1]]}),
            None => json!(""),
        };
        let Value::Object(mut body) = json!({
            "id": id,
            "name": server.name,
            "status": server.status(),
            "tenant_id": server.project_id,
            "user_id": server.user_id,
            "metadata": server.metadata,
            "hostId": if host.is_empty() { String::new() } else { host_id(&server.project_id, host) },
            "image": image,
            "flavor": self.flavor_of(&server.flavor),
            "created": server.created_at.zulu_secs(),
            "updated": server.updated_at.zulu_secs(),
            // There is no network service that would give out addresses.
            "addresses": {},
            "accessIPv4": "",
            "accessIPv6": "",
            "links": self.links("servers", &id),
            "OS-DCF:diskConfig": "MANUAL",
            "OS-EXT-AZ:availability_zone": if host.is_empty() { "" } else { ZONE },
            "config_drive": "",
            "key_name": Value::Null,
            "OS-SRV-USG:launched_at": server.launched_at.map(strtime),
            "OS-SRV-USG:terminated_at": server.terminated_at.map(strtime),
            "OS-EXT-STS:task_state": server.task_state.map(|task| task.as_str()),
            "OS-EXT-STS:vm_state": server.vm_state.as_str(),
            "OS-EXT-STS:power_state": server.power_state,
            "os-extended-volumes:volumes_attached": [],
        }) else {
            unreachable!("the literal above is an object")
        };
        if matches!(server.vm_state, VmState::Active | VmState::Resized | VmState::Building) {
            body.insert("progress".to_owned(), json!(if server.vm_state == VmState::Building { 0 } else { 100 }));
        }
        if let Some(fault) = &server.fault
            && matches!(server.vm_state, VmState::Error | VmState::Deleted)
        {
            let created = fault.created_at.zulu_secs();
            body.insert("fault".to_owned(), json!({"code": fault.code, "created": created, "message": fault.message}));
        }
        self.add_by_version(server, version, &mut body);
        if self.admin {
            self.add_for_admins(server, version, &mut body);
        }
        Value::Object(body)
    }

    fn add_by_version(&self, server: &Server, version: u32, body: &mut Map<String, Value>) {
        let mut add = |least: u32, name: &str, value: Value| {
            if version >= least {
                body.insert(name.to_owned(), value);
            }
        };
        add(9, "locked", json!(false));
        add(19, "description", json!(server.description));
        add(26, "tags", json!(server.tags));
        add(63, "trusted_image_certificates", Value::Null);
        add(71, "server_groups", json!([]));
        add(73, "locked_reason", Value::Null);
        add(90, "OS-EXT-SRV-ATTR:hostname", json!(server.hostname));
        add(96, "pinned_availability_zone", Value::Null);
    }

    fn add_for_admins(&self, server: &Server, version: u32, body: &mut Map<String, Value>) {
        let mut add = |least: u32, name: &str, value: Value| {
            if version >= least {
                body.insert(name.to_owned(), value);
            }
        };
        let node = server.host.as_ref().map(|_| self.node.as_str());
        add(1, "OS-EXT-SRV-ATTR:host", json!(server.host));
        add(1, "OS-EXT-SRV-ATTR:hypervisor_hostname", json!(node));
        add(1, "OS-EXT-SRV-ATTR:instance_name", json!(server.domain()));
        add(3, "OS-EXT-SRV-ATTR:hostname", json!(server.hostname));
        add(3, "OS-EXT-SRV-ATTR:reservation_id", json!(server.reservation_id));
        add(3, "OS-EXT-SRV-ATTR:launch_index", json!(server.launch_index));
        add(3, "OS-EXT-SRV-ATTR:kernel_id", json!(""));
        add(3, "OS-EXT-SRV-ATTR:ramdisk_id", json!(""));
        add(3, "OS-EXT-SRV-ATTR:root_device_name", json!("/dev/vda"));
        add(3, "OS-EXT-SRV-ATTR:user_data", Value::Null);
        add(16, "host_status", json!(if server.host.is_some() { "UP" } else { "" }));
    }

    /// Inside a server: a reference, or since 2.47 the flavor itself as it was.
    fn flavor_of(&self, flavor: &Flavor) -> Value {
        if self.version.0 < 47 {
            return json!({"id": flavor.id, "links": [self.links("flavors", &flavor.id)[1]]});
        }
        json!({
            "original_name": flavor.name,
            "vcpus": flavor.vcpus,
            "ram": flavor.memory_mib,
            "disk": flavor.disk_gib,
            "ephemeral": flavor.ephemeral_gib,
            "swap": flavor.swap_mib,
            "extra_specs": flavor.extra_specs,
        })
    }

    /// As in lists without details.
    pub(super) fn flavor_reference(&self, flavor: &Flavor) -> Value {
        let mut body = json!({"id": flavor.id, "name": flavor.name, "links": self.links("flavors", &flavor.id)});
        if self.version.0 >= 55 {
            body["description"] = json!(flavor.description);
        }
        body
    }

    /// In full.
    pub(super) fn flavor(&self, flavor: &Flavor) -> Value {
        // Nova wrote an empty text for no swap until 2.75.
        let swap = if flavor.swap_mib == 0 && self.version.0 < 75 { json!("") } else { json!(flavor.swap_mib) };
        let mut body = json!({
            "id": flavor.id,
            "name": flavor.name,
            "vcpus": flavor.vcpus,
            "ram": flavor.memory_mib,
            "disk": flavor.disk_gib,
            "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gib,
            "swap": swap,
            "rxtx_factor": flavor.rxtx_factor,
            "os-flavor-access:is_public": flavor.is_public,
            "OS-FLV-DISABLED:disabled": false,
            "links": self.links("flavors", &flavor.id),
        });
        if self.version.0 >= 55 {
            body["description"] = json!(flavor.description);
        }
        if self.version.0 >= 61 {
            body["extra_specs"] = json!(flavor.extra_specs);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::{super::server::tests::server, *};

    fn frame(version: u32, admin: bool) -> Frame {
        Frame { url: "http://h/compute/v2.1".into(), node: "simulated-h".into(), admin, version: Microversion(version) }
    }

    #[test]
    fn a_server_shows_what_its_microversion_has() {
        let server = server(VmState::Active, None);
        let old = frame(1, false).server(&server);
        assert_eq!(old["status"], "ACTIVE");
        assert!(old["flavor"].get("id").is_some() && old.get("tags").is_none());
        assert!(old.get("OS-EXT-SRV-ATTR:host").is_none(), "only admins see hosts");
        let new = frame(96, true).server(&server);
        assert!(new["flavor"].get("original_name").is_some() && new.get("pinned_availability_zone").is_some());
        assert_eq!(new["OS-EXT-SRV-ATTR:hypervisor_hostname"], "simulated-h");
        assert_eq!(new["OS-EXT-SRV-ATTR:instance_name"], "instance-0000001a");
        assert_eq!(new["hostId"].as_str().map(str::len), Some(56));
    }

    #[test]
    fn host_ids_do_not_tell_the_host() {
        assert_eq!(host_id("p", "h"), host_id("p", "h"));
        assert_ne!(host_id("p", "h"), host_id("q", "h"));
    }
}
