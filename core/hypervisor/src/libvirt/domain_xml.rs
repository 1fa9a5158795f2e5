//! What a domain's XML description tells that its statistics do not: who owns it, what its parts are.
//!
//! In: the text of `virDomainGetXMLDesc`. Out: [`DomainDescription`]. Pure; limited in size, depth and number of
//! elements; no document types, no entities but XML's own five.

use std::collections::BTreeMap;

use quick_xml::{
    NsReader, XmlVersion,
    escape::resolve_predefined_entity,
    events::{BytesStart, Event},
    name::ResolveResult,
};

use crate::{Flavor, NovaMetadata};

/// A description is some KiB; one with hundreds of devices stays far below this.
const XML_BYTES_MAX: usize = 1 << 20;
/// Libvirt nests about ten deep.
const DEPTH_MAX: usize = 64;
/// Elements of one description; a guest with hundreds of devices has a few thousand.
const ELEMENTS_MAX: usize = 50_000;

/// Nova's namespaces: 1.0 until Wallaby, 1.1 since (with the image's properties and ports).
const NOVA_NAMESPACES: [&str; 2] =
    ["http://openstack.org/xmlns/libvirt/nova/1.0", "http://openstack.org/xmlns/libvirt/nova/1.1"];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DomainDescription {
    /// Owner, flavor and image; `None` if no cloud made the domain.
    pub nova: Option<NovaMetadata>,
    /// `<interface>` elements that have a host device.
    pub interfaces: Vec<InterfaceDescription>,
    /// `<disk>` elements.
    pub disks: Vec<DiskDescription>,
    /// `<os><type arch='x86_64'>`.
    pub architecture: Option<String>,
    /// `<os><type>hvm`.
    pub os_type: Option<String>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct InterfaceDescription {
    /// Host device.
    pub name: String,
    /// MAC address.
    pub mac: Option<String>,
    /// Filter reference.
    pub fref: Option<String>,
    /// The filter's parameters, in lower case, and `interfaceid` and `bridge` as Ceilometer adds them.
    pub parameters: BTreeMap<String, String>,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DiskDescription {
    /// Target device.
    pub device: String,
    /// Whether something is in it.
    pub has_source: bool,
}

/// Why a description could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum XmlError {
    /// Larger than anything libvirt writes.
    #[error("the description is larger than {XML_BYTES_MAX} bytes, {DEPTH_MAX} levels or {ELEMENTS_MAX} elements")]
    TooLarge,
    /// Document types and entities have no place in a domain.
    #[error("the description contains a {what}")]
    Forbidden {
        /// What it contains.
        what: &'static str,
    },
    /// Not XML.
    #[error("the description is not well-formed")]
    Malformed(#[from] quick_xml::Error),
}

/// Reads a domain's description.
pub(super) fn read(xml: &str) -> Result<DomainDescription, XmlError> {
    let domain = tree(xml)?;
    let devices = domain.child("devices");
    let os_type = domain.child("os").and_then(|os| os.child("type"));
    Ok(DomainDescription {
        nova: domain.child("metadata").and_then(|metadata| metadata.children.iter().find_map(nova)),
        interfaces: devices.map(|d| d.named("interface").filter_map(interface).collect()).unwrap_or_default(),
        disks: devices.map(|d| d.named("disk").filter_map(disk).collect()).unwrap_or_default(),
        architecture: os_type.and_then(|t| t.attribute("arch")).map(str::to_owned),
        os_type: os_type.map(|t| t.text.trim().to_owned()).filter(|text| !text.is_empty()),
    })
}

fn nova(element: &Element) -> Option<NovaMetadata> {
    if !element.is_nova || element.name != "instance" {
        return None;
    }
    let flavor = element.child("flavor");
    let number = |name: &str| flavor.and_then(|f| f.child(name)).and_then(|e| e.text.trim().parse().ok()).unwrap_or(0);
    let owner = |name: &str| element.child("owner").and_then(|o| o.child(name));
    let uuid = |e: Option<&Element>| e.and_then(|e| e.attribute("uuid")).unwrap_or_default().to_owned();
    let text = |e: Option<&Element>| e.map(|e| e.text.trim().to_owned()).unwrap_or_default();
    let root = element.child("root").filter(|root| root.attribute("type") == Some("image"));
    Some(NovaMetadata {
        display_name: text(element.child("name")),
        user_id: uuid(owner("user")),
        user_name: text(owner("user")),
        project_id: uuid(owner("project")),
        project_name: text(owner("project")),
        flavor: Flavor {
            id: flavor.and_then(|f| f.attribute("id")).unwrap_or_default().to_owned(),
            name: flavor.and_then(|f| f.attribute("name")).unwrap_or_default().to_owned(),
            vcpus: u32::try_from(number("vcpus")).unwrap_or(u32::MAX),
            memory_mib: number("memory"),
            disk_gib: number("disk"),
            ephemeral_gib: number("ephemeral"),
            swap_mib: number("swap"),
        },
        image_id: root.and_then(|root| root.attribute("uuid")).and_then(|text| text.parse().ok()),
    })
}

fn interface(element: &Element) -> Option<InterfaceDescription> {
    let name = element.child("target")?.attribute("dev")?.to_owned();
    let filter = element.child("filterref");
    let mut parameters: BTreeMap<String, String> = filter
        .into_iter()
        .flat_map(|filter| filter.named("parameter"))
        .filter_map(|p| Some((p.attribute("name")?.to_lowercase(), p.attribute("value")?.to_owned())))
        .collect();
    let port = element.child("virtualport").and_then(|port| port.child("parameters"));
    if let Some(id) = port.and_then(|parameters| parameters.attribute("interfaceid")) {
        parameters.insert("interfaceid".to_owned(), id.to_owned());
    }
    if let Some(bridge) = element.child("source").and_then(|source| source.attribute("bridge")) {
        parameters.insert("bridge".to_owned(), bridge.to_owned());
    }
    Some(InterfaceDescription {
        name,
        mac: element.child("mac").and_then(|mac| mac.attribute("address")).map(str::to_owned),
        fref: filter.and_then(|filter| filter.attribute("filter")).map(str::to_owned),
        parameters,
    })
}

fn disk(element: &Element) -> Option<DiskDescription> {
    Some(DiskDescription {
        device: element.child("target")?.attribute("dev")?.to_owned(),
        has_source: element.child("source").is_some(),
    })
}

/// An element by its local name. Prefixes do not matter but for Nova's.
#[derive(Debug, Default)]
struct Element {
    name: String,
    is_nova: bool,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    fn named(&self, name: &'static str) -> impl Iterator<Item = &Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The root element. What follows it is not looked at.
fn tree(xml: &str) -> Result<Element, XmlError> {
    if xml.len() > XML_BYTES_MAX {
        return Err(XmlError::TooLarge);
    }
    let mut reader = NsReader::from_str(xml);
    let mut open = vec![Element::default()];
    let mut elements = 0;
    loop {
        let (namespace, event) = reader.read_resolved_event()?;
        let top = open.last_mut().expect("the document itself is never closed");
        match event {
            Event::Start(start) => {
                elements += 1;
                if open.len() > DEPTH_MAX || elements > ELEMENTS_MAX {
                    return Err(XmlError::TooLarge);
                }
                open.push(element(&namespace, &start)?);
            }
            Event::Empty(start) => {
                elements += 1;
                if elements > ELEMENTS_MAX {
                    return Err(XmlError::TooLarge);
                }
                top.children.push(element(&namespace, &start)?);
            }
            Event::End(_) => {
                let closed = open.pop().expect("the reader refuses an end without a start");
                open.last_mut().expect("the document itself is never closed").children.push(closed);
            }
            Event::Text(text) => top.text.push_str(&text.xml10_content()),
            Event::CData(text) => top.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref()? {
                Some(character) => top.text.push(character),
                None => {
                    let name = reference.into_inner();
                    top.text.push_str(resolve_predefined_entity(&name).ok_or(XmlError::Forbidden { what: "entity" })?);
                }
            },
            Event::DocType(_) => return Err(XmlError::Forbidden { what: "document type" }),
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    let mut document = open.swap_remove(0);
    Ok(if document.children.is_empty() { document } else { document.children.swap_remove(0) })
}

fn element(namespace: &ResolveResult<'_>, start: &BytesStart<'_>) -> Result<Element, XmlError> {
    let is_nova = matches!(namespace, ResolveResult::Bound(namespace) if NOVA_NAMESPACES.contains(&namespace.0));
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(quick_xml::Error::from)?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0)?.into_owned();
        attributes.push((attribute.key.local_name().as_ref().to_owned(), value));
    }
    Ok(Element { name: start.local_name().as_ref().to_owned(), is_nova, attributes, ..Element::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A domain as Nova's libvirt driver describes it, shortened.
    const NOVA_DOMAIN: &str = include_str!("fixtures/nova-1.1.xml");

    #[test]
    fn a_nova_domain_is_read_whole() {
        let description = read(NOVA_DOMAIN).unwrap();
        let nova = description.nova.unwrap();
        assert_eq!(nova.display_name, "web <1> & \"co\"");
        assert_eq!(nova.user_id, "9b2cc7cbd5de4b4a8c4c0a3d6ad1a4f2");
        assert_eq!(nova.project_name, "demo");
        assert_eq!(
            nova.flavor,
            Flavor {
                id: "42".into(),
                name: "m1.tiny".into(),
                vcpus: 2,
                memory_mib: 512,
                disk_gib: 1,
                ephemeral_gib: 3,
                swap_mib: 64
            }
        );
        assert_eq!(nova.image_id.unwrap().to_string(), "7c6e8d0e-0000-4000-8000-000000000001");
        assert_eq!(description.architecture.as_deref(), Some("x86_64"));
        assert_eq!(description.os_type.as_deref(), Some("hvm"));
        assert_eq!(description.disks.len(), 2);
        assert!(description.disks[0].has_source && !description.disks[1].has_source);
        let interface = &description.interfaces[0];
        assert_eq!(description.interfaces.len(), 1, "an interface without a host device has no statistics");
        assert_eq!((interface.name.as_str(), interface.mac.as_deref()), ("tap1e8c7a01-2b", Some("fa:16:3e:aa:bb:cc")));
        assert_eq!(interface.fref.as_deref(), Some("nova-instance-00000001-fa163eaabbcc"));
        assert_eq!(interface.parameters["ip"], "10.0.0.5", "parameter names are lower case");
        assert_eq!(interface.parameters["interfaceid"], "1e8c7a01-2b00-4000-8000-000000000002");
        assert_eq!(interface.parameters["bridge"], "br-int");
    }

    #[test]
    fn the_older_format_and_a_foreign_namespace() {
        let older = NOVA_DOMAIN.replace("nova/1.1", "nova/1.0");
        assert!(read(&older).unwrap().nova.is_some());
        let foreign = NOVA_DOMAIN.replace("openstack.org", "example.org");
        assert_eq!(read(&foreign).unwrap().nova, None, "only Nova's namespace counts");
    }

    #[test]
    fn hostile_descriptions_are_refused() {
        assert!(matches!(read("<!DOCTYPE d [<!ENTITY a 'b'>]><domain/>"), Err(XmlError::Forbidden { .. })));
        assert!(matches!(read("<domain>&a;</domain>"), Err(XmlError::Forbidden { .. })));
        assert!(matches!(read(&"<a>".repeat(DEPTH_MAX + 2)), Err(XmlError::TooLarge)));
        assert!(matches!(read(&" ".repeat(XML_BYTES_MAX + 1)), Err(XmlError::TooLarge)));
        assert!(matches!(read("<domain><a></domain>"), Err(XmlError::Malformed(_))));
        assert_eq!(read("").unwrap(), DomainDescription::default());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>/a-z&;#'\"= !?\\[\\]-]{0,200}") {
            let _ = read(&text);
        }
    }
}
