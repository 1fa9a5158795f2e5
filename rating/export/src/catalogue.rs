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

/// Services as Orzo's shipped metrics name them: service, name, category, subcategory.
const SERVICES: &[(&str, &str, &str, &str)] = &[
    ("instance", "Instances", "Compute", "Virtual Machines"),
    ("cpu", "Instances", "Compute", "Virtual Machines"),
    ("volume.size", "Volumes", "Storage", "Block Storage"),
    ("volume.snapshot.size", "Volumes", "Storage", "Backup Storage"),
    ("image.size", "Images", "Storage", "Other (Storage)"),
    ("ip.floating", "Floating addresses", "Networking", "Network Connectivity"),
    ("network.incoming.bytes", "Traffic", "Networking", "Network Connectivity"),
    ("network.outgoing.bytes", "Traffic", "Networking", "Network Connectivity"),
    ("radosgw.objects.size", "Objects", "Storage", "Object Storage"),
    ("storage.objects.size", "Objects", "Storage", "Object Storage"),
];

impl Default for Catalogue {
    fn default() -> Self {
        let services = SERVICES.iter().map(|(service, name, category, subcategory)| {
            let category = Category {
                name: (*name).to_owned(),
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

    pub(crate) fn project(&self, id: &str) -> Option<&Project> {
        self.projects.get(id)
    }
}
