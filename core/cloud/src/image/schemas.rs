//! Documents that clients read to find out what the service can do: versions and JSON schemas.

use serde_json::{Value, json};

use super::{
    format::{CONTAINER_FORMATS, DISK_FORMATS},
    record::VISIBILITIES,
};

/// What this service implements of Glance v2, newest first. 2.16 is the last minor version before the cache API.
const VERSIONS: &[(&str, &str)] = &[
    ("v2.16", "CURRENT"),
    ("v2.15", "SUPPORTED"),
    ("v2.9", "SUPPORTED"),
    ("v2.7", "SUPPORTED"),
    ("v2.6", "SUPPORTED"),
    ("v2.5", "SUPPORTED"),
    ("v2.4", "SUPPORTED"),
    ("v2.3", "SUPPORTED"),
    ("v2.2", "SUPPORTED"),
    ("v2.1", "SUPPORTED"),
    ("v2.0", "SUPPORTED"),
];

/// The answer at `/` and `/versions`.
pub(super) fn versions(url: &str) -> Value {
    let versions: Vec<Value> = VERSIONS
        .iter()
        .map(|(id, status)| {
            json!({"id": id, "status": status, "links": [{"rel": "self", "href": format!("{url}/v2/")}]})
        })
        .collect();
    json!({"versions": versions})
}

/// `image`, `images`, `member` or `members`.
pub(super) fn schema(name: &str) -> Option<Value> {
    match name {
        "image" => Some(image()),
        "images" => Some(list("images", image())),
        "member" => Some(member()),
        "members" => Some(list("members", member())),
        _ => None,
    }
}

fn list(name: &str, schema: Value) -> Value {
    json!({
        "name": name,
        "properties": {
            name: {"type": "array", "items": schema},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}],
    })
}

fn image() -> Value {
    let text = |description: &str| json!({"type": ["null", "string"], "maxLength": 255, "description": description});
    let read_only =
        |kind: Value, description: &str| json!({"type": kind, "readOnly": true, "description": description});
    json!({
        "name": "image",
        "additionalProperties": {"type": "string"},
        "properties": {
            "id": {"type": "string", "description": "An identifier for the image", "pattern":
                "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"},
            "name": text("Descriptive name for the image"),
            "status": {"type": "string", "readOnly": true, "enum": ["queued", "saving", "active", "deactivated"],
                "description": "Status of the image"},
            "visibility": {"type": "string", "enum": VISIBILITIES, "description": "Scope of image accessibility"},
            "owner": text("Owner of the image"),
            "protected": {"type": "boolean", "description": "If true, image will not be deletable."},
            "os_hidden": {"type": "boolean", "description": "If true, image will not appear in default image list response."},
            "disk_format": {"type": ["null", "string"], "enum": with_null(DISK_FORMATS), "description": "Format of the disk"},
            "container_format": {"type": ["null", "string"], "enum": with_null(CONTAINER_FORMATS), "description": "Format of the container"},
            "min_disk": {"type": "integer", "description": "Amount of disk space (in GB) required to boot image."},
            "min_ram": {"type": "integer", "description": "Amount of ram (in MB) required to boot image."},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 255}, "description": "List of strings related to the image"},
            "size": read_only(json!(["null", "integer"]), "Size of image file in bytes"),
            "virtual_size": read_only(json!(["null", "integer"]), "Virtual size of image in bytes"),
            "checksum": read_only(json!(["null", "string"]), "md5 hash of image contents."),
            "os_hash_algo": read_only(json!(["null", "string"]), "Algorithm to calculate the os_hash_value"),
            "os_hash_value": read_only(json!(["null", "string"]), "Hexdigest of the image contents using the algorithm specified by the os_hash_algo"),
            "created_at": read_only(json!("string"), "Date and time of image registration"),
            "updated_at": read_only(json!("string"), "Date and time of the last image modification"),
            "self": read_only(json!("string"), "An image self url"),
            "file": read_only(json!("string"), "An image file url"),
            "schema": read_only(json!("string"), "An image schema url"),
        },
        "links": [{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"}],
    })
}

fn with_null(words: &[&str]) -> Value {
    let mut list: Vec<Value> = words.iter().map(|word| json!(word)).collect();
    list.push(Value::Null);
    Value::Array(list)
}

fn member() -> Value {
    json!({
        "name": "member",
        "properties": {
            "image_id": {"type": "string", "description": "An identifier for the image"},
            "member_id": {"type": "string", "description": "An identifier for the image member (tenantId)"},
            "status": {"type": "string", "enum": ["pending", "accepted", "rejected"], "description": "The status of this image member"},
            "created_at": {"type": "string", "description": "Date and time of image member creation"},
            "updated_at": {"type": "string", "description": "Date and time of last modification of image member"},
            "schema": {"type": "string", "readOnly": true},
        },
    })
}
