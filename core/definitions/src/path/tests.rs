//! One table of paths against one message.

use serde_json::{Value, json};

use super::{Datum, Path};

fn message() -> Value {
    json!({
        "publisher_id": "compute.host-1.example",
        "payload": {
            "name_to_id": "host@lvm#pool",
            "size": 3, "share": 0.25, "zero": 0, "none": null, "text": "7",
            "image_meta": {"org.openstack__1__architecture": "x86_64"},
            "glance_metadata": [{"key": "kernel_id", "value": "k"}, {"key": "image_id", "value": "i"}],
            "metrics": [
                {"name": "cpu.percent", "value": 0.5, "ok": true},
                {"name": "cpu.frequency", "value": 2400, "ok": false}
            ],
            "list": [3, 1, 2],
            "flavor": {"id": "f1", "name": "small"},
            "host": "h", "nodename": "n"
        }
    })
}

fn found(path: &str) -> Value {
    let message = message();
    let path = Path::parse(path).expect(path);
    let found: Vec<Value> = path.find(&Datum::Json(&message)).into_iter().map(|f| f.value.into_owned()).collect();
    assert_eq!(path.first(&Datum::Json(&message)), found.first().cloned(), "first and find agree on {path}");
    Value::Array(found)
}

#[test]
fn paths_find_what_ceilometer_finds() {
    for (path, expected) in [
        ("$.payload.size", json!([3])),
        ("payload.size", json!([3])),
        ("payload.missing", json!([])),
        ("payload.none", json!([])),
        ("payload.(missing|size)", json!([3])),
        ("payload.missing|size", json!([3])),
        ("(payload.none)|(payload.size)|(payload.host)", json!([3, "h"])),
        ("payload.(flavor_id|(flavor.id)|host)", json!(["f1", "h"])),
        ("payload.image_meta.'org.openstack__1__architecture'", json!(["x86_64"])),
        ("payload['size','host']", json!([3, "h"])),
        ("payload.flavor.*", json!(["f1", "small"])),
        ("payload.metrics.[*].name", json!(["cpu.percent", "cpu.frequency"])),
        ("payload.metrics[*].value", json!([0.5, 2400])),
        ("payload.flavor.[*].id", json!(["f1"])),
        ("payload.list[0]", json!([3])),
        ("payload.list[-1]", json!([2])),
        ("payload.list[5]", json!([])),
        ("payload.size[0]", json!([])),
        ("payload.list[1:]", json!([1, 2])),
        ("payload.list[:-1]", json!([3, 1])),
        ("payload.list[0:2]", json!([3, 1])),
        ("payload.glance_metadata[?key=image_id].value", json!(["i"])),
        ("payload.metrics[?(@.name='cpu.percent')].value", json!([0.5])),
        ("payload.metrics[?(@.name = 'cpu.percent')].value * 100", json!([50.0])),
        ("payload.metrics[?(@.value > 1)].name", json!(["cpu.frequency"])),
        ("payload.metrics[?(@.value <= 1 & @.ok = true)].name", json!(["cpu.percent"])),
        ("payload.metrics[?(@.name ~ 'cpu.f.*')].value", json!([2400])),
        ("payload.metrics[?(@.name != 'cpu.percent')].value", json!([2400])),
        ("payload.metrics[?(@.nothing)].value", json!([])),
        ("payload..key", json!(["kernel_id", "image_id"])),
        ("payload.flavor where id", json!([{"id": "f1", "name": "small"}])),
        ("payload.host + \"_\" + payload.nodename", json!(["h_n"])),
        ("'meter.' + payload.host", json!(["meter.h"])),
        ("payload.size + 1", json!([4])),
        ("payload.size - 1 - 1", json!([1])),
        ("2 * payload.size", json!([6])),
        ("payload.size / 2", json!([1.5])),
        ("payload.size / payload.zero", json!([])),
        ("payload.list[*] * payload.size", json!([])),
        ("payload.list[*] * 2", json!([6, 2, 4])),
        ("payload.host * 2", json!([])),
        ("payload.list.`len`", json!([3])),
        ("payload.host.`len`", json!([1])),
        ("payload.list.`sorted`", json!([[1, 2, 3]])),
        ("payload.list.`sorted`[0]", json!([1])),
        ("payload.name_to_id.`split(#, 0, 1)`", json!(["host@lvm"])),
        ("publisher_id.`split(., 1, 1)`", json!(["host-1.example"])),
        ("publisher_id.`split(., 0, -1)`", json!(["compute"])),
        ("publisher_id.`split(., 9, -1)`", json!([])),
        ("payload.host.`sub(/h/, H)`", json!(["H"])),
        ("payload.host.`sub(/(h)/, \\1\\1)`", json!(["hh"])),
        ("payload.host.`sub(/x/, H)`", json!([])),
        ("payload.host.`sub(/.*/, )` + 'a.' + payload.host", json!(["a.h"])),
        ("payload.flavor.id.`parent`.name", json!(["small"])),
        ("payload.host.`this`", json!(["h"])),
        ("payload.metrics[?(@.name='cpu.percent')].`parent`[1].value", json!([2400])),
    ] {
        assert_eq!(found(path), expected, "{path}");
    }
}

#[test]
fn a_match_knows_where_it_was_found() {
    let message = message();
    let path = Path::parse("payload.metrics[1].value").expect("a path");
    let found = path.find(&Datum::Json(&message));
    assert_eq!(found[0].path, "payload.metrics.[1].value");
    let path = Path::parse("$.payload.host").expect("a path");
    assert_eq!(path.find(&Datum::Json(&message))[0].path, "payload.host");
}

#[test]
fn a_text_that_is_not_a_path_is_refused_with_its_position() {
    for (text, position, reason) in [
        ("", 1, "ends where a name"),
        ("payload.", 9, "ends where a name"),
        ("payload..", 10, "ends where a name"),
        ("payload.[", 10, "ends where a name"),
        ("payload[0", 10, "expected `]`"),
        ("payload.(a|b", 13, "expected `)`"),
        ("payload.`nothing`", 9, "unknown function"),
        ("payload.`split(a)`", 9, "expected split"),
        ("payload.`len", 9, "back-tick"),
        ("payload.'x", 11, "missing '"),
        ("payload)", 8, "unexpected `)`"),
        ("5", 2, "a number alone"),
        ("a[?(b =! 1)]", 9, "unknown comparison"),
        ("a.`sub(/(/, x)`", 3, "regex"),
    ] {
        let error = Path::parse(text).expect_err(text);
        assert_eq!(error.position, position, "{error}");
        assert!(error.reason.contains(reason), "{error}");
    }
    assert!(Path::parse(&"(".repeat(40)).expect_err("too deep").reason.contains("nested deeper"));
    assert!(Path::parse(&"[?(".repeat(4000)).is_err());
    assert!(Path::parse(&"a".repeat(5000)).expect_err("too long").reason.contains("longer than"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_or_the_walk_panic(text in "[$@a-z.|*`()\\[\\]?='\",:0-9 +/#-]{0,40}") {
        if let Ok(path) = Path::parse(&text) {
            let message = message();
            let found = path.find(&Datum::Json(&message));
            let first = path.first(&Datum::Json(&message));
            proptest::prop_assert_eq!(first, found.first().map(|f| f.value.clone().into_owned()));
        }
    }
}
