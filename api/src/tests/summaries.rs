//! What `GET /v2/summary` groups by, key by key, against answers counted by hand: CloudKitty 25.0.0's keys, its order and its
//! faults, in both formats.

use serde_json::{Value, json};

use super::{house::House, rating::expect};

/// Four hours that all keys tell apart. Their quantities are powers of two: each sum says which hours are in it.
async fn push(house: &House) {
    let frame = |begin: &str, end: &str, service: &str, quantity: i64, groupby: Value, metadata: Value| {
        json!({"period": {"begin": begin, "end": end}, "usage": {service: [
            {"vol": {"unit": "u", "qty": quantity}, "rating": {"price": quantity * 10}, "groupby": groupby, "metadata": metadata}]}})
    };
    let r1 = || json!({"project_id": "p1", "id": "r1", "user_id": "u1"});
    let small = || json!({"flavor_name": "small"});
    let frames = [
        // A Saturday before the year's first Sunday, and that Sunday.
        frame("2026-01-03T10:00:00+00:00", "2026-01-03T11:00:00+00:00", "instance", 1, r1(), small()),
        frame("2026-01-04T00:00:00+00:00", "2026-01-04T01:00:00+00:00", "instance", 2, r1(), small()),
        frame(
            "2026-11-20T10:00:00+00:00",
            "2026-11-20T11:00:00+00:00",
            "instance",
            4,
            json!({"project_id": "p1", "id": "r2", "user_id": "u2"}),
            json!({"flavor_name": "large"}),
        ),
        frame(
            "2025-12-31T23:00:00+00:00",
            "2026-01-01T00:00:00+00:00",
            "volume.size",
            8,
            json!({"project_id": "p3", "id": "v1"}),
            json!({}),
        ),
    ];
    expect(house, "admin", "POST", "/v2/dataframes", &json!({"dataframes": frames}), 204).await;
}

/// What was asked, and rows of group values and the quantity's sum, in order.
type Case = (&'static str, &'static [&'static str], &'static [(&'static [&'static str], i64)]);

const CASES: &[Case] = &[
    ("time-d", &["day_of_the_year"], &[(&["3"], 1), (&["324"], 4), (&["365"], 8), (&["4"], 2)]),
    ("time-w", &["week_of_the_year"], &[(&["00"], 1), (&["01"], 2), (&["46"], 4), (&["52"], 8)]),
    ("time-m", &["month"], &[(&["1"], 3), (&["11"], 4), (&["12"], 8)]),
    ("time-y", &["year"], &[(&["2025"], 8), (&["2026"], 7)]),
    // As CloudKitty stores them.
    ("month", &["month"], &[(&["1"], 3), (&["11"], 4), (&["12"], 8)]),
    ("type", &["type"], &[(&["instance"], 7), (&["volume.size"], 8)]),
    ("project_id", &["project_id"], &[(&["p1"], 7), (&["p3"], 8)]),
    ("scope_id", &["scope_id"], &[(&["p1"], 7), (&["p3"], 8)]),
    ("user_id", &["user_id"], &[(&[""], 8), (&["u1"], 3), (&["u2"], 4)]),
    ("id", &["id"], &[(&["r1"], 3), (&["r2"], 4), (&["v1"], 8)]),
    ("flavor_name", &["flavor_name"], &[(&[""], 8), (&["large"], 4), (&["small"], 3)]),
    // A key that nothing has is no fault there.
    ("colour", &["colour"], &[(&[""], 15)]),
    ("time-d-x", &["time-d-x"], &[(&[""], 15)]),
    // In the order in which they are named, each once.
    (
        "type,user_id",
        &["type", "user_id"],
        &[(&["instance", "u1"], 3), (&["instance", "u2"], 4), (&["volume.size", ""], 8)],
    ),
    (
        "user_id,type",
        &["user_id", "type"],
        &[(&["", "volume.size"], 8), (&["u1", "instance"], 3), (&["u2", "instance"], 4)],
    ),
    ("type&groupby=time-y", &["type", "year"], &[(&["instance", "2026"], 7), (&["volume.size", "2025"], 8)]),
    ("type,type", &["type"], &[(&["instance"], 7), (&["volume.size"], 8)]),
    ("time-m,time-y,month", &["month", "year"], &[(&["1", "2026"], 3), (&["11", "2026"], 4), (&["12", "2025"], 8)]),
];

const FROM: &str = "2025-01-01T00:00:00+00:00";
const UNTIL: &str = "2027-01-01T00:00:00+00:00";

async fn get(house: &House, groupby: &str, format: &str, status: u16) -> Value {
    let path = format!(
        "/v2/summary?begin=2025-01-01T00:00:00&end=2027-01-01T00:00:00&groupby={groupby}&response_format={format}"
    );
    expect(house, "admin", "GET", &path, &Value::Null, status).await
}

#[tokio::test]
async fn every_key_groups_as_cloudkitty_says_in_both_formats() {
    for house in House::on_every_database(|_| {}).await {
        push(&house).await;
        for (groupby, names, rows) in CASES {
            let columns: Vec<&str> = ["begin", "end", "qty", "rate"].iter().chain(*names).copied().collect();
            let row = |(groups, quantity): &(&[&str], i64)| {
                let mut row = vec![json!(FROM), json!(UNTIL), json!(quantity), json!(quantity * 10)];
                row.extend(groups.iter().map(|group| json!(group)));
                row
            };
            let rows: Vec<Vec<Value>> = rows.iter().map(row).collect();
            let expected = json!({"total": rows.len(), "columns": columns, "results": rows, "format": "table"});
            assert_eq!(get(&house, groupby, "table", 200).await, expected, "{groupby}");
            let object =
                |row: &Vec<Value>| columns.iter().map(|name| (*name).to_owned()).zip(row.clone()).collect::<Value>();
            let objects: Vec<Value> = rows.iter().map(object).collect();
            let expected = json!({"total": objects.len(), "results": objects, "format": "object"});
            assert_eq!(get(&house, groupby, "object", 200).await, expected, "{groupby}");
        }
    }
}

#[tokio::test]
async fn periods_have_their_own_time_and_come_after_the_names() {
    let house = House::build().await;
    push(&house).await;
    let hours = [
        ("2025-12-31T23:00:00+00:00", "2026-01-01T00:00:00+00:00", 8, "volume.size"),
        ("2026-01-03T10:00:00+00:00", "2026-01-03T11:00:00+00:00", 1, "instance"),
        ("2026-01-04T00:00:00+00:00", "2026-01-04T01:00:00+00:00", 2, "instance"),
        ("2026-11-20T10:00:00+00:00", "2026-11-20T11:00:00+00:00", 4, "instance"),
    ];
    let alone: Vec<Value> = hours.iter().map(|(begin, end, qty, _)| json!([begin, end, qty, qty * 10])).collect();
    let table = get(&house, "time", "table", 200).await;
    assert_eq!((&table["columns"], &table["results"]), (&json!(["begin", "end", "qty", "rate"]), &json!(alone)));
    for groupby in ["time,type", "type,time"] {
        let row = |(begin, end, qty, kind): &(&str, &str, i64, &str)| json!({"begin": begin, "end": end, "qty": qty, "rate": qty * 10, "type": kind});
        let rows: Vec<Value> = hours[1..].iter().chain(&hours[..1]).map(row).collect();
        assert_eq!(get(&house, groupby, "object", 200).await["results"], json!(rows), "{groupby}");
    }
}

#[tokio::test]
async fn faults_of_times_are_cloudkittys() {
    let house = House::build().await;
    for key in ["time-x", "time-", "time-D", "time-day", "uptime-z"] {
        for format in ["table", "object"] {
            let told = get(&house, key, format, 400).await;
            let message = format!("Invalid groupby time option. There is no groupby processing for [{key}].");
            assert_eq!(told, json!({"message": message}), "{key}");
        }
    }
    let told = get(&house, "type", "csv", 400).await;
    assert_eq!(told, json!({"message": "Invalid response format [csv]. Valid format are [['table', 'object']]."}));
}
