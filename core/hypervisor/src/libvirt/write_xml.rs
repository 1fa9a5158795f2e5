//! The XML description of a guest that is to be made. Pure: [`GuestSpec`] in, text out.
//!
//! All text goes through the XML writer, which escapes it; what XML cannot carry at all (control characters) is
//! replaced. Disk formats are written explicitly, so that QEMU never guesses one from a guest's bytes.

use std::io;

use quick_xml::{
    Writer,
    events::{BytesText, Event},
};

use crate::GuestSpec;

/// How often the balloon driver refreshes the guest's memory statistics: as often as the default polling asks.
const BALLOON_PERIOD_S: &str = "10";

type Xml = Writer<Vec<u8>>;

/// The description. `virtualisation` is `kvm` or `qemu`.
pub(super) fn domain_xml(spec: &GuestSpec, virtualisation: &str) -> String {
    let mut xml = Writer::new(Vec::new());
    write_domain(&mut xml, spec, virtualisation).expect("writing to memory does not fail");
    String::from_utf8(xml.into_inner()).expect("the writer writes what it was given, which is text")
}

fn write_domain(xml: &mut Xml, spec: &GuestSpec, virtualisation: &str) -> io::Result<()> {
    let flavor = &spec.nova.flavor;
    inside(xml, "domain", &[("type", virtualisation)], |xml| {
        leaf(xml, "name", &[], &spec.name)?;
        leaf(xml, "uuid", &[], &spec.uuid.to_string())?;
        inside(xml, "metadata", &[], |xml| write_nova(xml, spec))?;
        leaf(xml, "memory", &[("unit", "MiB")], &flavor.memory_mib.to_string())?;
        leaf(xml, "vcpu", &[], &flavor.vcpus.max(1).to_string())?;
        inside(xml, "os", &[], |xml| {
            leaf(xml, "type", &[("arch", std::env::consts::ARCH)], "hvm")?;
            empty(xml, "boot", &[("dev", "hd")])
        })?;
        inside(xml, "features", &[], |xml| {
            empty(xml, "acpi", &[])?;
            empty(xml, "apic", &[])
        })?;
        empty(xml, "clock", &[("offset", "utc")])?;
        leaf(xml, "on_poweroff", &[], "destroy")?;
        leaf(xml, "on_reboot", &[], "restart")?;
        leaf(xml, "on_crash", &[], "destroy")?;
        inside(xml, "devices", &[], |xml| write_devices(xml, spec))
    })
}

/// What Nova writes, so that Ceilometer's own agent reads our guests as well.
fn write_nova(xml: &mut Xml, spec: &GuestSpec) -> io::Result<()> {
    let (nova, flavor) = (&spec.nova, &spec.nova.flavor);
    let namespace = ("xmlns:nova", "http://openstack.org/xmlns/libvirt/nova/1.1");
    inside(xml, "nova:instance", &[namespace], |xml| {
        empty(xml, "nova:package", &[("version", concat!("orzo-", env!("CARGO_PKG_VERSION")))])?;
        leaf(xml, "nova:name", &[], &nova.display_name)?;
        inside(xml, "nova:flavor", &[("name", &flavor.name), ("id", &flavor.id)], |xml| {
            leaf(xml, "nova:memory", &[], &flavor.memory_mib.to_string())?;
            leaf(xml, "nova:disk", &[], &flavor.disk_gib.to_string())?;
            leaf(xml, "nova:swap", &[], &flavor.swap_mib.to_string())?;
            leaf(xml, "nova:ephemeral", &[], &flavor.ephemeral_gib.to_string())?;
            leaf(xml, "nova:vcpus", &[], &flavor.vcpus.to_string())
        })?;
        inside(xml, "nova:owner", &[], |xml| {
            leaf(xml, "nova:user", &[("uuid", &nova.user_id)], &nova.user_name)?;
            leaf(xml, "nova:project", &[("uuid", &nova.project_id)], &nova.project_name)
        })?;
        match nova.image_id {
            Some(image) => empty(xml, "nova:root", &[("type", "image"), ("uuid", &image.to_string())]),
            None => Ok(()),
        }
    })
}

fn write_devices(xml: &mut Xml, spec: &GuestSpec) -> io::Result<()> {
    if let Some(disk) = &spec.root_disk {
        inside(xml, "disk", &[("type", "file"), ("device", "disk")], |xml| {
            empty(xml, "driver", &[("name", "qemu"), ("type", &disk.format)])?;
            empty(xml, "source", &[("file", &disk.path.to_string_lossy())])?;
            empty(xml, "target", &[("dev", "vda"), ("bus", "virtio")])
        })?;
    }
    if let Some(mac) = &spec.mac {
        // QEMU's user-mode network: it needs no bridge and no right on the host.
        inside(xml, "interface", &[("type", "user")], |xml| {
            empty(xml, "mac", &[("address", mac)])?;
            empty(xml, "model", &[("type", "virtio")])
        })?;
    }
    inside(xml, "memballoon", &[("model", "virtio")], |xml| empty(xml, "stats", &[("period", BALLOON_PERIOD_S)]))
}

fn inside(
    xml: &mut Xml,
    name: &str,
    attributes: &[(&str, &str)],
    content: impl FnOnce(&mut Xml) -> io::Result<()>,
) -> io::Result<()> {
    let mut start = quick_xml::events::BytesStart::new(name);
    for (key, value) in attributes {
        start.push_attribute((*key, clean(value).as_str()));
    }
    let end = start.to_end().into_owned();
    xml.write_event(Event::Start(start))?;
    content(xml)?;
    xml.write_event(Event::End(end))
}

fn leaf(xml: &mut Xml, name: &str, attributes: &[(&str, &str)], text: &str) -> io::Result<()> {
    inside(xml, name, attributes, |xml| xml.write_event(Event::Text(BytesText::new(&clean(text)))))
}

fn empty(xml: &mut Xml, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
    inside(xml, name, attributes, |_| Ok(()))
}

/// Replaces what XML 1.0 cannot carry, even escaped (its production `Char`).
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' => ' ',
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use uuid::Uuid;

    use super::*;
    use crate::{Disk, Flavor, NovaMetadata, libvirt::domain_xml};

    fn spec(display_name: &str) -> GuestSpec {
        GuestSpec {
            uuid: Uuid::from_u128(7),
            name: "instance-00000007".into(),
            nova: NovaMetadata {
                display_name: display_name.into(),
                user_id: "u".into(),
                user_name: "alice".into(),
                project_id: "p".into(),
                project_name: "demo".into(),
                flavor: Flavor {
                    id: "1".into(),
                    name: "m1.tiny".into(),
                    vcpus: 2,
                    memory_mib: 64,
                    disk_gib: 1,
                    ephemeral_gib: 2,
                    swap_mib: 3,
                },
                image_id: Some(Uuid::from_u128(9)),
            },
            root_disk: Some(Disk { path: PathBuf::from("/instances/a&b/disk"), format: "raw".into() }),
            mac: Some("fa:16:3e:00:00:07".into()),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let spec = spec("web <1>");
        let description = domain_xml::read(&domain_xml(&spec, "qemu")).unwrap();
        assert_eq!(description.nova, Some(spec.nova));
        assert_eq!(description.disks[0].device, "vda");
    }

    #[test]
    fn a_hostile_name_stays_a_name() {
        let name = "</nova:name><devices><disk/></devices>\u{0}\u{1b}]]>&lt;'\"";
        let text = domain_xml(&spec(name), "qemu");
        let description = domain_xml::read(&text).unwrap();
        assert_eq!(description.disks.len(), 1);
        let read = description.nova.unwrap().display_name;
        assert_eq!(read, name.replace(['\u{0}', '\u{1b}'], "\u{fffd}"));
        assert!(text.contains("/instances/a&amp;b/disk"));
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_well_formed_and_comes_back(name in "\\PC{0,40}") {
            let description = domain_xml::read(&domain_xml(&spec(&name), "qemu")).unwrap();
            proptest::prop_assert_eq!(description.nova.unwrap().display_name, name.trim());
        }
    }
}
