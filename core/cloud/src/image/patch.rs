//! JSON patch (RFC 6902) on a JSON value; pure. Also reads Glance's older `openstack-images-v2.0-json-patch`.

use serde_json::{Map, Value};

use super::error::ImageError;

/// Operations in one patch at most; the largest sensible patch sets every property and tag once.
const OPERATIONS_MAX: usize = 1024;

/// Applies a patch. Paths whose first part is in `read_only` are refused with 403, as Glance does.
pub(super) fn apply(document: &mut Value, patch: &Value, read_only: impl Fn(&str) -> bool) -> Result<(), ImageError> {
    let operations =
        patch.as_array().ok_or_else(|| ImageError::bad_request("The patch must be a list of operations."))?;
    if operations.len() > OPERATIONS_MAX {
        return Err(ImageError::bad_request(format!("The patch has more than {OPERATIONS_MAX} operations.")));
    }
    for operation in operations {
        let fields =
            operation.as_object().ok_or_else(|| ImageError::bad_request("Each operation of a patch is an object."))?;
        apply_one(document, fields, &read_only)?;
    }
    Ok(())
}

fn apply_one(
    document: &mut Value,
    fields: &Map<String, Value>,
    read_only: &impl Fn(&str) -> bool,
) -> Result<(), ImageError> {
    let (verb, path) = verb_and_path(fields)?;
    if read_only(&path[0]) && verb != "test" {
        return Err(ImageError::forbidden(format!("Attribute '{}' is read-only.", path[0])));
    }
    let value = || {
        fields
            .get("value")
            .cloned()
            .ok_or_else(|| ImageError::bad_request(format!("Operation \"{verb}\" needs a value.")))
    };
    match verb {
        "add" => insert(document, &path, value()?),
        "replace" => {
            take(document, &path)?;
            insert(document, &path, value()?)
        }
        "remove" => take(document, &path).map(drop),
        "move" | "copy" => {
            let from = fields.get("from").and_then(Value::as_str).map(segments).transpose()?;
            let from = from.ok_or_else(|| ImageError::bad_request(format!("Operation \"{verb}\" needs \"from\".")))?;
            let moved = if verb == "move" {
                if read_only(&from[0]) {
                    return Err(ImageError::forbidden(format!("Attribute '{}' is read-only.", from[0])));
                }
                take(document, &from)?
            } else {
                find(document, &from).cloned().ok_or_else(|| missing(&from))?
            };
            insert(document, &path, moved)
        }
        "test" => {
            if find(document, &path) == Some(&value()?) {
                return Ok(());
            }
            Err(ImageError::conflict(format!("The test of /{} failed.", path.join("/"))))
        }
        other => Err(ImageError::bad_request(format!(
            "Operation \"{other:.20}\" is not one of add, replace, remove, move, copy, test."
        ))),
    }
}

/// `{"op": "add", "path": "/x"}`, or the older `{"add": "/x"}`.
fn verb_and_path(fields: &Map<String, Value>) -> Result<(&str, Vec<String>), ImageError> {
    if let Some(verb) = fields.get("op").and_then(Value::as_str) {
        let path = fields.get("path").and_then(Value::as_str);
        let path = path.ok_or_else(|| ImageError::bad_request("An operation needs a path."))?;
        return Ok((verb, segments(path)?));
    }
    for verb in ["add", "replace", "remove"] {
        if let Some(path) = fields.get(verb).and_then(Value::as_str) {
            return Ok((verb, segments(path)?));
        }
    }
    Err(ImageError::bad_request("An operation needs \"op\" and \"path\"."))
}

/// Parts of a JSON pointer, unescaped; at least one.
fn segments(path: &str) -> Result<Vec<String>, ImageError> {
    let rest = path
        .strip_prefix('/')
        .filter(|rest| !rest.is_empty())
        .ok_or_else(|| ImageError::bad_request(format!("Invalid path: '{path:.80}'.")))?;
    Ok(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'v>(document: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(document, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The container that holds the last part of the path.
fn container<'v>(document: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path[..path.len() - 1].iter().try_fold(document, |value, part| match value {
        Value::Object(map) => map.get_mut(part),
        Value::Array(list) => list.get_mut(part.parse::<usize>().ok()?),
        _ => None,
    })
}

fn take(document: &mut Value, path: &[String]) -> Result<Value, ImageError> {
    let last = &path[path.len() - 1];
    let taken = match container(document, path) {
        Some(Value::Object(map)) => map.remove(last),
        Some(Value::Array(list)) => {
            last.parse::<usize>().ok().filter(|place| *place < list.len()).map(|place| list.remove(place))
        }
        _ => None,
    };
    taken.ok_or_else(|| missing(path))
}

fn insert(document: &mut Value, path: &[String], value: Value) -> Result<(), ImageError> {
    let last = &path[path.len() - 1];
    match container(document, path) {
        Some(Value::Object(map)) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            let place = if last == "-" { Some(list.len()) } else { last.parse().ok() };
            let place = place.filter(|place| *place <= list.len()).ok_or_else(|| missing(path))?;
            list.insert(place, value);
            Ok(())
        }
        _ => Err(missing(path)),
    }
}

fn missing(path: &[String]) -> ImageError {
    ImageError::conflict(format!("Property {} does not exist.", path.join("/")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(patch: Value) -> Result<Value, u16> {
        let mut document = json!({"name": "a", "tags": ["x", "y"], "k": "v"});
        apply(&mut document, &patch, |name| name == "id").map_err(|error| error.status().as_u16())?;
        Ok(document)
    }

    #[test]
    fn every_operation_does_what_the_rfc_says() {
        let cases = [
            (
                json!([{"op": "add", "path": "/n", "value": "1"}]),
                json!({"name": "a", "tags": ["x", "y"], "k": "v", "n": "1"}),
            ),
            (
                json!([{"op": "replace", "path": "/name", "value": "b"}]),
                json!({"name": "b", "tags": ["x", "y"], "k": "v"}),
            ),
            (json!([{"op": "remove", "path": "/k"}]), json!({"name": "a", "tags": ["x", "y"]})),
            (json!([{"op": "move", "from": "/k", "path": "/m"}]), json!({"name": "a", "tags": ["x", "y"], "m": "v"})),
            (
                json!([{"op": "copy", "from": "/k", "path": "/m"}]),
                json!({"name": "a", "tags": ["x", "y"], "k": "v", "m": "v"}),
            ),
            (
                json!([{"op": "add", "path": "/tags/-", "value": "z"}]),
                json!({"name": "a", "tags": ["x", "y", "z"], "k": "v"}),
            ),
            (json!([{"op": "remove", "path": "/tags/0"}]), json!({"name": "a", "tags": ["y"], "k": "v"})),
            (
                json!([{"op": "add", "path": "/a~1b", "value": "1"}]),
                json!({"name": "a", "tags": ["x", "y"], "k": "v", "a/b": "1"}),
            ),
            (json!([{"add": "/old", "value": "1"}]), json!({"name": "a", "tags": ["x", "y"], "k": "v", "old": "1"})),
            (json!([{"op": "test", "path": "/k", "value": "v"}]), json!({"name": "a", "tags": ["x", "y"], "k": "v"})),
        ];
        for (patch, expected) in cases {
            assert_eq!(patched(patch.clone()), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_glances_codes() {
        let cases = [
            (json!({}), 400),
            (json!([{"op": "replace", "path": "/none", "value": 1}]), 409),
            (json!([{"op": "remove", "path": "/none"}]), 409),
            (json!([{"op": "replace", "path": "/id", "value": "x"}]), 403),
            (json!([{"op": "move", "from": "/id", "path": "/x"}]), 403),
            (json!([{"op": "add", "path": "", "value": 1}]), 400),
            (json!([{"op": "add", "path": "/x"}]), 400),
            (json!([{"op": "explode", "path": "/x"}]), 400),
            (json!([{"op": "add", "path": "/tags/9", "value": "z"}]), 409),
            (json!([{"op": "test", "path": "/k", "value": "w"}]), 409),
        ];
        for (patch, status) in cases {
            assert_eq!(patched(patch.clone()), Err(status), "{patch}");
        }
    }
}
