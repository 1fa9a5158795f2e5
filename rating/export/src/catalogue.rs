//! What the ledger does not know and an export must say: who issues bills, what projects are called, in which category of
//! FOCUS a service belongs, which customer of another billing system a project is. A TOML file, strict.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::ExportError;

/// Largest catalogue that is read: a hundred thousand projects fit.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Names and categories for exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Catalogue {
    /// FOCUS's ProviderName: who runs the cloud.
    pub provider: String,
    /// FOCUS's PublisherName: who makes the services; the provider if it is empty.
    pub publisher: String,
    /// FOCUS's InvoiceIssuerName; the provider if it is empty.
    pub issuer: String,
    /// FOCUS's BillingAccountId for projects without a domain.
    pub account_id: String,
    /// FOCUS's BillingAccountName for projects without a domain.
    pub account_name: String,
    /// FOCUS's RegionId; none if it is empty.
    pub region_id: String,
    /// FOCUS's RegionName.
    pub region_name: String,
    /// Properties of usage that tell what is sold apart: they are in FOCUS's SkuId. Those that the rules have fields for.
    pub sku_properties: Vec<String>,
    /// By the lines' service.
    pub services: BTreeMap<String, Category>,
    /// By project id.
    pub projects: BTreeMap<String, Project>,
}

/// Where a service belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// FOCUS's ServiceName.
    pub name: String,
    /// Its name on invoices in Chinese; the same if it is empty.
    #[serde(default)]
    pub name_zh: String,
    /// FOCUS's ServiceCategory, one of its list.
    pub category: String,
    /// FOCUS's ServiceSubcategory, one of its list.
    pub subcategory: String,
}

/// What a project is elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Project {
    /// FOCUS's SubAccountName.
    pub name: String,
    /// FOCUS's BillingAccountId.
    pub domain_id: String,
    /// FOCUS's BillingAccountName.
    pub domain_name: String,
    /// Customer in Stripe; the project's id if it is empty.
    pub stripe_customer: String,
    /// Subscription in Lago; the project's id if it is empty.
    pub lago_subscription: String,
    /// Address for invoices, in lines.
    pub address: Vec<String>,
}

/// What flavors and volume types are called in the attributes of resources.
const SKU_PROPERTIES: [&str; 3] = ["flavor_name", "flavor_id", "volume_type"];
/// Services as Orzo's shipped metrics and Ceilometer's meters name them: service, name, name in Chinese, category, subcategory. No
/// two that a project may have beside each other have one name.
const SERVICES: &[(&str, &str, &str, &str, &str)] = &[
    ("instance", "Instances", "云主机", "Compute", "Virtual Machines"),
    ("cpu", "Processor time", "处理器时间", "Compute", "Virtual Machines"),
    ("memory.usage", "Memory", "内存", "Compute", "Virtual Machines"),
    ("disk.device.read.bytes", "Disk reads", "磁盘读取量", "Storage", "Block Storage"),
    ("disk.device.write.bytes", "Disk writes", "磁盘写入量", "Storage", "Block Storage"),
    ("disk.device.read.requests", "Disk read requests", "磁盘读请求", "Storage", "Block Storage"),
    ("disk.device.write.requests", "Disk write requests", "磁盘写请求", "Storage", "Block Storage"),
    ("volume.size", "Volumes", "云硬盘", "Storage", "Block Storage"),
    ("volume.snapshot.size", "Volume snapshots", "云硬盘快照", "Storage", "Backup Storage"),
    ("volume.backup.size", "Volume backups", "云硬盘备份", "Storage", "Backup Storage"),
    ("image.size", "Images", "镜像", "Storage", "Other (Storage)"),
    ("ip.floating", "Floating addresses", "浮动 IP", "Networking", "Network Connectivity"),
    ("network.incoming.bytes", "Incoming traffic", "入站流量", "Networking", "Network Connectivity"),
    ("network.outgoing.bytes", "Outgoing traffic", "出站流量", "Networking", "Network Connectivity"),
    ("network.incoming.packets", "Incoming packets", "入站数据包", "Networking", "Network Connectivity"),
    ("network.outgoing.packets", "Outgoing packets", "出站数据包", "Networking", "Network Connectivity"),
    ("radosgw.objects.size", "Objects", "对象存储", "Storage", "Object Storage"),
    ("storage.objects.size", "Objects", "对象存储", "Storage", "Object Storage"),
    ("storage.objects.incoming.bytes", "Objects written", "对象写入量", "Storage", "Object Storage"),
    ("storage.objects.outgoing.bytes", "Objects read", "对象读取量", "Storage", "Object Storage"),
];

impl Default for Catalogue {
    fn default() -> Self {
        let services = SERVICES.iter().map(|(service, name, name_zh, category, subcategory)| {
            let category = Category {
                name: (*name).to_owned(),
                name_zh: (*name_zh).to_owned(),
                category: (*category).to_owned(),
                subcategory: (*subcategory).to_owned(),
            };
            ((*service).to_owned(), category)
        });
        Self {
            provider: "Orzo".to_owned(),
            publisher: String::new(),
            issuer: String::new(),
            account_id: "default".to_owned(),
            account_name: "Default".to_owned(),
            region_id: String::new(),
            region_name: String::new(),
            sku_properties: SKU_PROPERTIES.map(str::to_owned).to_vec(),
            services: services.collect(),
            projects: BTreeMap::new(),
        }
    }
}

impl Catalogue {
    /// Reads it from a file. Services that the file does not name keep their category.
    pub fn read(path: &Path) -> Result<Self, ExportError> {
        let length = std::fs::metadata(path).map_err(ExportError::file("read", path))?.len();
        let wrong = |reason: String| ExportError::Catalogue { path: path.to_owned(), reason };
        if length > FILE_BYTES_MAX {
            return Err(wrong(format!("it has {length} bytes, more than {FILE_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(path).map_err(ExportError::file("read", path))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Reads it from a text; says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let own: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut services = Self::default().services;
        services.extend(own.services);
        Ok(Self { services, ..own })
    }

    pub(crate) fn publisher(&self) -> &str {
        if self.publisher.is_empty() { &self.provider } else { &self.publisher }
    }

    pub(crate) fn issuer(&self) -> &str {
        if self.issuer.is_empty() { &self.provider } else { &self.issuer }
    }

    /// Chinese names of services, by their other ones.
    pub(crate) fn names_zh(&self) -> BTreeMap<String, String> {
        let named = self.services.values().filter(|service| !service.name_zh.is_empty());
        named.map(|service| (service.name.clone(), service.name_zh.clone())).collect()
    }

    pub(crate) fn project(&self, id: &str) -> Option<&Project> {
        self.projects.get(id)
    }
}
