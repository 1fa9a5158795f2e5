//! An image as the database keeps it, as Glance v2 shows it, and as Glance's notifications tell of it.
//!
//! Pure: rows in, JSON out. It knows no files and no requests.

use std::collections::{BTreeMap, BTreeSet};

use orzo_database::{Row, Value as Cell};
use orzo_model::Timestamp;
use serde_json::{Map, Value, json};

use super::error::ImageError;

/// Where an image is in its life; Glance's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStatus {
    /// Known by name, without data.
    Queued,
    /// Data is coming in.
    Saving,
    /// Can be used.
    Active,
    /// An admin closed it: data cannot be downloaded.
    Deactivated,
}

impl ImageStatus {
    /// Glance's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Saving => "saving",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "saving" => Self::Saving,
            "active" => Self::Active,
            "deactivated" => Self::Deactivated,
            _ => Self::Queued,
        }
    }
}

/// Who may see it.
pub const VISIBILITIES: &[&str] = &["public", "private", "shared", "community"];

/// Attributes of an image that are not free properties, and whether a user may change them.
pub const BASE_ATTRIBUTES: &[(&str, bool)] = &[
    ("id", false),
    ("name", true),
    ("status", false),
    ("visibility", true),
    ("owner", false),
    ("protected", true),
    ("os_hidden", true),
    ("disk_format", true),
    ("container_format", true),
    ("min_disk", true),
    ("min_ram", true),
    ("tags", true),
    ("size", false),
    ("virtual_size", false),
    ("checksum", false),
    ("os_hash_algo", false),
    ("os_hash_value", false),
    ("created_at", false),
    ("updated_at", false),
    ("self", false),
    ("file", false),
    ("schema", false),
    ("direct_url", false),
    ("locations", false),
    ("stores", false),
];

/// Free properties per image at most (Glance's `image_property_quota`).
pub const PROPERTIES_MAX: usize = 128;
/// Tags per image at most (Glance's `image_tag_quota`).
pub const TAGS_MAX: usize = 128;
/// Characters of a name, a property or a tag at most (Glance's schema).
pub const TEXT_MAX: usize = 255;

/// One image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// UUID; also the name of its file.
    pub id: String,
    /// Given by the user, not unique.
    pub name: Option<String>,
    /// Where it is in its life.
    pub status: ImageStatus,
    /// One of [`VISIBILITIES`].
    pub visibility: String,
    /// Owning project.
    pub owner: String,
    /// May not be deleted.
    pub protected: bool,
    /// Not shown in lists unless asked for.
    pub os_hidden: bool,
    /// Of the disk; `None` until set.
    pub disk_format: Option<String>,
    /// Of the container; `None` until set.
    pub container_format: Option<String>,
    /// Smallest root disk for a server made from it, in GiB.
    pub min_disk: i64,
    /// Least memory for a server made from it, in MiB.
    pub min_ram: i64,
    /// Bytes of the file; `None` without data.
    pub size: Option<i64>,
    /// Bytes that a guest sees.
    pub virtual_size: Option<i64>,
    /// MD5, hexadecimal; kept for clients that still check it.
    pub checksum: Option<String>,
    /// SHA-512, hexadecimal.
    pub hash: Option<String>,
    /// Free properties.
    pub properties: BTreeMap<String, String>,
    /// Labels.
    pub tags: BTreeSet<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// Columns in the order of [`Image::cells`].
pub(super) const COLUMNS: &str = "id, name, status, visibility, owner, protected, os_hidden, disk_format, \
     container_format, min_disk, min_ram, size, virtual_size, checksum, hash, properties, tags, created_at, updated_at";

impl Image {
    pub(super) fn from_row(row: &Row) -> Self {
        // Both are written by us alone, from these very types.
        let properties = serde_json::from_str(&row.string("properties")).unwrap_or_default();
        let tags = serde_json::from_str(&row.string("tags")).unwrap_or_default();
        Self {
            id: row.string("id"),
            name: row.text("name"),
            status: ImageStatus::parse(&row.string("status")),
            visibility: row.string("visibility"),
            owner: row.string("owner"),
            protected: row.flag("protected"),
            os_hidden: row.flag("os_hidden"),
            disk_format: row.text("disk_format"),
            container_format: row.text("container_format"),
            min_disk: row.int("min_disk").unwrap_or(0),
            min_ram: row.int("min_ram").unwrap_or(0),
            size: row.int("size"),
            virtual_size: row.int("virtual_size"),
            checksum: row.text("checksum"),
            hash: row.text("hash"),
            properties,
            tags,
            created_at: row.time("created_at").unwrap_or(Timestamp::EPOCH),
            updated_at: row.time("updated_at").unwrap_or(Timestamp::EPOCH),
        }
    }

    pub(super) fn cells(&self) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.name.clone().into(),
            self.status.as_str().into(),
            self.visibility.as_str().into(),
            self.owner.as_str().into(),
            self.protected.into(),
            self.os_hidden.into(),
            self.disk_format.clone().into(),
            self.container_format.clone().into(),
            self.min_disk.into(),
            self.min_ram.into(),
            self.size.into(),
            self.virtual_size.into(),
            self.checksum.clone().into(),
            self.hash.clone().into(),
            json!(self.properties).to_string().into(),
            json!(self.tags).to_string().into(),
            self.created_at.into(),
            self.updated_at.into(),
        ]
    }

    /// As `GET /v2/images/{id}` answers.
    pub fn to_json(&self) -> Value {
        let mut body: Map<String, Value> =
            self.properties.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let Value::Object(base) = json!({
            "id": self.id,
            "name": self.name,
            "status": self.status.as_str(),
            "visibility": self.visibility,
            "owner": self.owner,
            "protected": self.protected,
            "os_hidden": self.os_hidden,
            "disk_format": self.disk_format,
            "container_format": self.container_format,
            "min_disk": self.min_disk,
            "min_ram": self.min_ram,
            "size": self.size,
            "virtual_size": self.virtual_size,
            "checksum": self.checksum,
            "os_hash_algo": self.hash.as_ref().map(|_| "sha512"),
            "os_hash_value": self.hash,
            "tags": self.tags,
            "created_at": self.created_at.zulu_secs(),
            "updated_at": self.updated_at.zulu_secs(),
            "self": format!("/v2/images/{}", self.id),
            "file": format!("/v2/images/{}/file", self.id),
            "schema": "/v2/schemas/image",
        }) else {
            unreachable!("the literal above is an object")
        };
        body.extend(base);
        Value::Object(body)
    }

    /// The payload of `image.create`, `.update`, `.upload` and `.delete`, as Glance makes it.
    pub fn to_payload(&self, deleted_at: Option<Timestamp>) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "status": if deleted_at.is_some() { "deleted" } else { self.status.as_str() },
            "created_at": self.created_at.zulu_secs(),
            "updated_at": self.updated_at.zulu_secs(),
            "min_disk": self.min_disk,
            "min_ram": self.min_ram,
            "protected": self.protected,
            "checksum": self.checksum,
            "owner": self.owner,
            "disk_format": self.disk_format,
            "container_format": self.container_format,
            "size": self.size,
            "virtual_size": self.virtual_size,
            "is_public": self.visibility == "public",
            "visibility": self.visibility,
            "properties": self.properties,
            "tags": self.tags,
            "deleted": deleted_at.is_some(),
            "deleted_at": deleted_at.map(Timestamp::zulu_secs),
        })
    }

    /// What a user may change, as a JSON document: the base attributes and the free properties side by side.
    pub fn to_changeable(&self) -> Value {
        let Value::Object(mut body) = self.to_json() else { unreachable!("to_json makes an object") };
        body.retain(|name, _| !BASE_ATTRIBUTES.iter().any(|(base, changeable)| base == name && !changeable));
        Value::Object(body)
    }

    /// Takes over what the user may set; what is missing goes back to its default, so that `remove` works.
    ///
    /// Whether the caller may make it public is not decided here.
    pub fn apply(&mut self, changeable: &Value) -> Result<(), ImageError> {
        let body = changeable.as_object().ok_or_else(|| ImageError::bad_request("An image is a JSON object."))?;
        self.name = optional_text(body, "name")?;
        self.disk_format = optional_word(body, "disk_format", super::format::DISK_FORMATS)?;
        self.container_format = optional_word(body, "container_format", super::format::CONTAINER_FORMATS)?;
        if let Some(visibility) = optional_word(body, "visibility", VISIBILITIES)? {
            self.visibility = visibility;
        }
        self.protected = flag(body, "protected")?;
        self.os_hidden = flag(body, "os_hidden")?;
        self.min_disk = size(body, "min_disk")?;
        self.min_ram = size(body, "min_ram")?;
        self.tags = tags(body)?;
        self.properties = properties(body)?;
        Ok(())
    }
}

fn optional_text(body: &Map<String, Value>, name: &str) -> Result<Option<String>, ImageError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(short(name, text)?)),
        Some(_) => Err(ImageError::bad_request(format!("Attribute '{name}' must be text."))),
    }
}

fn optional_word(body: &Map<String, Value>, name: &str, words: &[&str]) -> Result<Option<String>, ImageError> {
    let Some(word) = optional_text(body, name)? else { return Ok(None) };
    if words.contains(&word.as_str()) {
        return Ok(Some(word));
    }
    Err(ImageError::bad_request(format!("Invalid {name} '{word}'; this cloud takes: {}.", words.join(", "))))
}

fn flag(body: &Map<String, Value>, name: &str) -> Result<bool, ImageError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(ImageError::bad_request(format!("Attribute '{name}' must be true or false."))),
    }
}

fn size(body: &Map<String, Value>, name: &str) -> Result<i64, ImageError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value
            .as_i64()
            // Nova's and Glance's columns are 32-bit.
            .filter(|number| (0..=i64::from(i32::MAX)).contains(number))
            .ok_or_else(|| ImageError::bad_request(format!("Attribute '{name}' must be a number from 0 up."))),
    }
}

fn tags(body: &Map<String, Value>) -> Result<BTreeSet<String>, ImageError> {
    let list = match body.get("tags") {
        None | Some(Value::Null) => return Ok(BTreeSet::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ImageError::bad_request("Attribute 'tags' must be a list.")),
    };
    if list.len() > TAGS_MAX {
        return Err(ImageError::too_large(format!("The limit of {TAGS_MAX} tags per image is exceeded.")));
    }
    list.iter()
        .map(|tag| match tag {
            Value::String(tag) => short("tags", tag),
            _ => Err(ImageError::bad_request("A tag must be text.")),
        })
        .collect()
}

fn properties(body: &Map<String, Value>) -> Result<BTreeMap<String, String>, ImageError> {
    let mut found = BTreeMap::new();
    for (name, value) in body {
        if BASE_ATTRIBUTES.iter().any(|(base, _)| base == name) {
            continue;
        }
        short("property name", name)?;
        match value {
            // Old clients send null for what they do not set.
            Value::Null => {}
            Value::String(text) => {
                // Values may be longer than names: Glance keeps them in a TEXT column.
                if text.len() > 65_535 {
                    return Err(ImageError::too_large(format!("Property '{name}' is longer than 65535 bytes.")));
                }
                found.insert(name.clone(), text.clone());
            }
            _ => return Err(ImageError::bad_request(format!("Property '{name}' must be text."))),
        }
    }
    if found.len() > PROPERTIES_MAX {
        return Err(ImageError::too_large(format!("The limit of {PROPERTIES_MAX} properties per image is exceeded.")));
    }
    Ok(found)
}

fn short(what: &str, text: &str) -> Result<String, ImageError> {
    if text.chars().count() > TEXT_MAX {
        return Err(ImageError::bad_request(format!("{what}: '{text:.40}…' is longer than {TEXT_MAX} characters.")));
    }
    Ok(text.to_owned())
}
