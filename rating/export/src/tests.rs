//! Runs of every profile over a month with every kind of line.

use std::{collections::BTreeMap, sync::Arc};

use orzo_model::Timestamp;
use orzo_rating::{BigDecimal, Ledger, LineKind, MemoryLedger, RatedLine, cost_of, line::Facts};
use uuid::Uuid;

use super::*;

mod names;

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn number(text: &str) -> BigDecimal {
    text.parse().expect("a number")
}

fn facts(pairs: &[(&str, &str)]) -> Facts {
    Arc::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>())
}

fn line(begin: &str, quantity: &str, price: &str) -> RatedLine {
    let begin = time(begin);
    let (quantity, unit_price) = (number(quantity), number(price));
    RatedLine {
        id: Uuid::nil(),
        scope: "p1".to_owned(),
        service: "instance".to_owned(),
        resource: "r1".to_owned(),
        begin,
        end: Timestamp::from_secs(begin.secs() + 3600),
        period: begin,
        unit: "instance".to_owned(),
        cost: cost_of(&(&unit_price * &quantity)),
        quantity,
        unit_price,
        currency: "EUR".to_owned(),
        kind: LineKind::Usage,
        corrects: None,
        reverses: false,
        rule: "hashmap:instance".to_owned(),
        rule_version: 3,
        sequence: 0,
        groupby: facts(&[("id", "r1"), ("user_id", "u1")]),
        metadata: facts(&[("flavor_name", "m1.tiny"), ("display_name", "=HYPERLINK(\"http://x\")")]),
        samples: 12,
        rated_at: Timestamp::from_secs(begin.secs() + 7200),
    }
    .identified()
}

/// A month with every class of charge.
fn month() -> Vec<RatedLine> {
    let first = line("2026-10-01T00:00:00Z", "1", "0.02");
    let mut lines = vec![
        first.clone(),
        line("2026-10-01T01:00:00Z", "0.5", "0.02"),
        RatedLine { resource: "r2".to_owned(), ..line("2026-10-01T00:00:00Z", "1", "0.0000000001") }.identified(),
        RatedLine {
            service: "volume.size".to_owned(),
            unit: "GiB".to_owned(),
            scope: "p2".to_owned(),
            metadata: facts(&[("volume_type", "ssd")]),
            ..line("2026-10-02T00:00:00Z", "20", "0.001")
        }
        .identified(),
        first.reversal(time("2026-10-03T00:00:00Z"), time("2026-10-03T02:00:00Z")),
        RatedLine {
            period: time("2026-10-03T00:00:00Z"),
            corrects: Some(first.id),
            rated_at: time("2026-10-03T02:00:00Z"),
            ..line("2026-10-01T00:00:00Z", "2", "0.02")
        }
        .identified(),
    ];
    for (kind, cost) in [
        (LineKind::Tax, "0.01"),
        (LineKind::Credit, "-0.005"),
        (LineKind::Adjustment, "0.002"),
        (LineKind::Purchase, "10"),
    ] {
        let base = line("2026-10-04T00:00:00Z", "1", cost);
        lines.push(RatedLine { kind, resource: String::new(), metadata: facts(&[]), ..base }.identified());
    }
    lines
}

async fn ledger(lines: Vec<RatedLine>) -> MemoryLedger {
    let ledger = MemoryLedger::default();
    ledger.append(lines).await.expect("kept");
    ledger
}

fn october(profile: Profile) -> Request {
    Request {
        profile,
        begin: time("2026-10-01T00:00:00Z"),
        end: time("2026-11-01T00:00:00Z"),
        scopes: None,
        as_of: None,
        rated_after: None,
    }
}

fn key(directory: &std::path::Path) -> SigningKey {
    SigningKey::open(&directory.join("export.key")).expect("a key")
}

fn bytes_of(run: &Run) -> Vec<(String, Vec<u8>)> {
    let names = run.manifest.files.iter().map(|file| file.name.clone()).chain([MANIFEST.into(), SIGNATURE.into()]);
    names.map(|name| (name.clone(), std::fs::read(run.directory.join(&name)).expect("a file"))).collect()
}

#[tokio::test]
async fn the_same_lines_make_the_same_bytes_in_every_profile() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = key(directory.path());
    for profile in Profile::ALL {
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        let mut lines = month();
        let first = ledger(lines.clone()).await;
        lines.reverse();
        let second = ledger(lines).await;
        let catalogue = Catalogue::default();
        let a = export(&first, &october(profile), &catalogue, &key, &one, &|_| ()).await.expect("exported");
        let b = export(&second, &october(profile), &catalogue, &key, &other, &|_| ()).await.expect("exported");
        assert_eq!(a.manifest, b.manifest, "{profile:?}");
        assert_eq!(bytes_of(&a), bytes_of(&b), "{profile:?}");
        assert_eq!(a.manifest.lines, 10);
        assert_eq!(check(&a.directory, None).expect("sound"), a.manifest);
        // Again into the same place: the same run.
        let again = export(&first, &october(profile), &catalogue, &key, &one, &|_| ()).await.expect("exported");
        assert!(again.was_there && !a.was_there);
        assert_eq!(bytes_of(&again), bytes_of(&b), "{profile:?}");
    }
}

#[tokio::test]
async fn what_is_rated_later_makes_another_run_and_the_watermark_brings_the_first_one_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, catalogue) = (key(directory.path()), Catalogue::default());
    let ledger = ledger(month()).await;
    let into = directory.path().join("a");
    let first = export(&ledger, &october(Profile::FocusCsv), &catalogue, &key, &into, &|_| ()).await.expect("exported");
    let late =
        RatedLine { rated_at: time("2026-11-05T00:00:00Z"), ..line("2026-10-09T00:00:00Z", "7", "1") }.identified();
    ledger.append(vec![late]).await.expect("kept");
    let second =
        export(&ledger, &october(Profile::FocusCsv), &catalogue, &key, &into, &|_| ()).await.expect("exported");
    assert_ne!(first.manifest.run, second.manifest.run);
    assert_eq!(second.manifest.lines, 11);
    let request = Request { as_of: first.manifest.watermark, ..october(Profile::FocusCsv) };
    let other = directory.path().join("b");
    let back = export(&ledger, &request, &catalogue, &key, &other, &|_| ()).await.expect("exported");
    assert_eq!(bytes_of(&back), bytes_of(&first));
}

#[tokio::test]
async fn totals_are_the_ledgers_and_what_has_no_word_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, catalogue, ledger) = (key(directory.path()), Catalogue::default(), ledger(month()).await);
    let sum =
        |lines: &[RatedLine]| lines.iter().map(|line| &line.cost).sum::<BigDecimal>().normalized().to_plain_string();
    let usage: Vec<_> = month().into_iter().filter(|line| line.kind == LineKind::Usage).collect();
    for profile in Profile::ALL {
        let run =
            export(&ledger, &october(profile), &catalogue, &key, directory.path(), &|_| ()).await.expect("exported");
        let all = matches!(
            profile,
            Profile::FocusCsv | Profile::FocusParquet | Profile::CloudkittyCsv | Profile::CloudkittyDataframes
        );
        let (expected, left_out) = if all { (sum(&month()), 0) } else { (sum(&usage), 4) };
        assert_eq!(run.manifest.totals["EUR"], expected, "{profile:?}");
        assert_eq!(run.manifest.left_out, left_out, "{profile:?}");
        assert_eq!(run.manifest.files.iter().map(|file| file.lines).sum::<u64>() + left_out, 10, "{profile:?}");
    }
}

#[tokio::test]
async fn a_changed_byte_or_another_key_is_seen() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, catalogue, ledger) = (key(directory.path()), Catalogue::default(), ledger(month()).await);
    let run = export(&ledger, &october(Profile::FocusCsv), &catalogue, &key, directory.path(), &|_| ())
        .await
        .expect("exported");
    let stranger = SigningKey::open(&directory.path().join("other.key")).expect("a key");
    assert!(check(&run.directory, Some(&key.public())).is_ok());
    assert!(check(&run.directory, Some(&stranger.public())).is_err(), "another key");
    for name in ["part-00001.csv", MANIFEST, SIGNATURE] {
        let path = run.directory.join(name);
        let whole = std::fs::read(&path).expect("a file");
        for place in [0, whole.len() / 2] {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            std::fs::write(&path, changed).expect("written");
            assert!(check(&run.directory, None).is_err(), "{name}, byte {place}");
        }
        std::fs::write(&path, whole).expect("written");
    }
    assert!(check(&run.directory, None).is_ok());
}

#[tokio::test]
async fn focus_says_what_was_charged() {
    let directory = tempfile::tempdir().expect("a directory");
    let catalogue = Catalogue::parse(
        "provider = 'Cloud & Co'\nregion_id = 'eu-1'\n[projects.p1]\nname = 'Shop'\ndomain_id = 'd1'\ndomain_name = 'Retail'",
    )
    .expect("a catalogue");
    let (key, ledger) = (key(directory.path()), ledger(month()).await);
    let run = export(&ledger, &october(Profile::FocusCsv), &catalogue, &key, directory.path(), &|_| ())
        .await
        .expect("exported");
    let mut reader = csv::Reader::from_path(run.directory.join("part-00001.csv")).expect("a table");
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 10);
    let first = rows.iter().find(|row| row["x_LineId"] == month()[0].id.to_string()).expect("there");
    for (column, value) in [
        ("BilledCost", "0.02"),
        ("BillingAccountId", "d1"),
        ("SubAccountName", "Shop"),
        ("ProviderName", "Cloud & Co"),
        ("BillingPeriodStart", "2026-10-01T00:00:00Z"),
        ("BillingPeriodEnd", "2026-11-01T00:00:00Z"),
        ("ChargePeriodEnd", "2026-10-01T01:00:00Z"),
        ("PricingQuantity", "1.0"),
        ("ChargeClass", ""),
        ("ServiceCategory", "Compute"),
        ("InvoiceId", "2026-10-p1"),
        ("ResourceName", "'=HYPERLINK(\"http://x\")"),
        ("x_RatingRuleVersion", "3"),
    ] {
        assert_eq!(first[column], value, "{column}");
    }
    let corrections: Vec<_> = rows.iter().filter(|row| row["ChargeClass"] == "Correction").collect();
    assert_eq!(corrections.len(), 2);
    assert!(corrections.iter().all(|row| row["x_CorrectsLineId"] == month()[0].id.to_string()));
    assert!(corrections.iter().any(|row| row["BilledCost"] == "-0.02"), "negative numbers stay numbers");
    let tax = rows.iter().find(|row| row["ChargeCategory"] == "Tax").expect("there");
    assert_eq!((tax["PricingQuantity"].as_str(), tax["ListCost"].as_str()), ("", "0.01"));
}

#[tokio::test]
async fn purchases_and_what_they_cover_are_said_as_focus_wants() {
    let documents = [
        (
            "ten",
            serde_json::json!({"name": "Ten hours", "service": "instance", "quantity": 10, "amount": "0.1",
            "frequency": "monthly", "valid_from": "2026-10-01T00:00:00Z"}),
        ),
        (
            "setup",
            serde_json::json!({"name": "Setup", "amount": 5, "frequency": "once", "valid_from": "2026-10-02T00:00:00Z"}),
        ),
    ];
    let document = |(id, body): (&str, serde_json::Value)| orzo_rating::RuleDocument {
        kind: "purchase".to_owned(),
        id: id.to_owned(),
        body,
    };
    let mut documents = documents.map(document).to_vec();
    let (kind, id, body) = ("currency".to_owned(), "euro".to_owned(), serde_json::json!({"code": "EUR"}));
    documents.push(orzo_rating::RuleDocument { kind, id, body });
    let prices = orzo_rating::Prices::from_documents(&documents).expect("rules");
    let (begin, end) = (time("2026-10-01T00:00:00Z"), time("2026-11-01T00:00:00Z"));
    let period = time("2026-10-31T23:00:00Z");
    let earlier = orzo_rating::Earlier::default();
    let hour = std::time::Duration::from_secs(3600);
    let bill = orzo_rating::Bill { scope: "p1", begin, end, period: hour, earlier: &earlier };
    let mut lines = vec![line("2026-10-03T00:00:00Z", "1", "0.02"), line("2026-10-04T00:00:00Z", "3", "0.02")];
    let settled = prices.settle(&bill, &lines, (7, end));
    lines.extend(settled);
    // A cover that is taken back.
    let cover = lines.iter().find(|line| line.kind == LineKind::Adjustment).expect("there").clone();
    lines.push(cover.reversal(period, end));
    let directory = tempfile::tempdir().expect("a directory");
    let (key, catalogue, ledger) = (key(directory.path()), Catalogue::default(), ledger(lines).await);
    let run = export(&ledger, &october(Profile::FocusCsv), &catalogue, &key, directory.path(), &|_| ())
        .await
        .expect("exported");
    let mut reader = csv::Reader::from_path(run.directory.join("part-00001.csv")).expect("a table");
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(|row| row.expect("a row")).collect();
    let said = |wanted: &dyn Fn(&BTreeMap<String, String>) -> bool, expected: &[(&str, &str)]| {
        let row = rows.iter().find(|row| wanted(row)).expect("there");
        for (column, value) in expected {
            assert_eq!(row[*column], *value, "{column}");
        }
    };
    said(
        &|row| row["SkuId"] == "price/purchase/ten",
        &[
            ("ChargeCategory", "Purchase"),
            ("ChargeClass", ""),
            ("ChargeFrequency", "Recurring"),
            ("ChargeDescription", "Purchase: Instances Ten hours"),
            ("ChargePeriodStart", "2026-10-01T00:00:00Z"),
            ("ChargePeriodEnd", "2026-11-01T00:00:00Z"),
            ("BilledCost", "0.1"),
            ("ListCost", "0.1"),
            ("EffectiveCost", "0.0"),
            ("PricingCurrencyEffectiveCost", "0.0"),
            ("ListUnitPrice", "0.1"),
            ("ContractedUnitPrice", "0.1"),
            ("PricingQuantity", "1.0"),
            ("PricingUnit", "Months"),
            ("PricingCategory", "Standard"),
            ("ConsumedQuantity", ""),
            ("ConsumedUnit", ""),
            ("SkuPriceId", "price/purchase/ten@7"),
            ("ServiceCategory", "Compute"),
            ("ResourceId", ""),
        ],
    );
    said(
        &|row| row["SkuId"] == "price/purchase/setup",
        &[
            ("ChargeFrequency", "One-Time"),
            ("ChargePeriodStart", "2026-10-02T00:00:00Z"),
            ("BilledCost", "5.0"),
            ("EffectiveCost", "0.0"),
            ("PricingUnit", "Units"),
            ("ServiceName", "purchase"),
        ],
    );
    // Four of ten hours are used: 0.04 of the fee with them.
    said(
        &|row| row["ChargeCategory"] == "Adjustment" && row["x_CorrectsLineId"].is_empty(),
        &[("BilledCost", "-0.08"), ("EffectiveCost", "-0.04"), ("PricingQuantity", ""), ("SkuId", "")],
    );
    said(
        &|row| row["ChargeCategory"] == "Adjustment" && !row["x_CorrectsLineId"].is_empty(),
        &[("BilledCost", "0.08"), ("EffectiveCost", "0.04")],
    );
}

#[tokio::test]
async fn usage_that_came_to_light_after_its_period_was_closed_is_a_correction() {
    let directory = tempfile::tempdir().expect("a directory");
    let late =
        RatedLine { period: time("2026-10-20T00:00:00Z"), ..line("2026-10-01T05:00:00Z", "1", "0.02") }.identified();
    let ledger = ledger(vec![late, line("2026-10-01T00:00:00Z", "1", "0.02")]).await;
    let (key, catalogue) = (key(directory.path()), Catalogue::default());
    let run = export(&ledger, &october(Profile::FocusCsv), &catalogue, &key, directory.path(), &|_| ())
        .await
        .expect("exported");
    let mut reader = csv::Reader::from_path(run.directory.join("part-00001.csv")).expect("a table");
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(|row| row.expect("a row")).collect();
    assert_eq!(rows.iter().map(|row| row["ChargeClass"].as_str()).collect::<Vec<_>>(), ["", "Correction"]);
    let (begin, end) = (time("2026-10-01T00:00:00Z"), time("2026-11-01T00:00:00Z"));
    let all = invoices(&ledger, begin, end, None, true, &catalogue).await.expect("made");
    assert_eq!((all[0].currencies[0].usage.len(), all[0].currencies[0].corrections.len()), (1, 1));
}

#[tokio::test]
async fn events_carry_the_lines_id_and_all_digits() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, catalogue, ledger) = (key(directory.path()), Catalogue::default(), ledger(month()).await);
    let mut read = BTreeMap::new();
    for profile in [Profile::CloudEvents, Profile::StripeMeterEvents, Profile::LagoEvents] {
        let run =
            export(&ledger, &october(profile), &catalogue, &key, directory.path(), &|_| ()).await.expect("exported");
        let text = std::fs::read_to_string(run.directory.join("part-00001.ndjson")).expect("a file");
        let events: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(events.len(), 6, "{profile:?}");
        read.insert(profile.name(), events);
    }
    let small = month()[2].clone();
    let id = serde_json::json!(small.id);
    let lago = read["lago-events"].iter().find(|event| event["event"]["transaction_id"] == id).expect("there");
    assert_eq!(lago["event"]["precise_total_amount_cents"], "0.00000001");
    let stripe = &read["stripe-meter-events"];
    let cancelled =
        stripe.iter().filter(|event| event["cancel"]["identifier"] == serde_json::json!(month()[0].id)).count();
    assert_eq!(cancelled, 1, "what takes a line back cancels its event");
    let open = read["openmeter-cloudevents"].iter().find(|event| event["id"] == id).expect("there");
    assert_eq!((&open["subject"], &open["data"]["quantity"]), (&"p1".into(), &"1".into()));
}

#[tokio::test]
async fn dataframes_are_cloudkittys() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, catalogue, ledger) = (key(directory.path()), Catalogue::default(), ledger(month()).await);
    let run = export(&ledger, &october(Profile::CloudkittyDataframes), &catalogue, &key, directory.path(), &|_| ())
        .await
        .expect("exported");
    let text = std::fs::read_to_string(run.directory.join("part-00001.json")).expect("a file");
    let frames: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let frame = &frames["dataframes"][0];
    assert_eq!(frame["period"]["begin"], "2026-10-01T00:00:00+00:00");
    assert_eq!(frame["usage"]["instance"][0]["vol"]["qty"], 1);
    assert_eq!(frame["usage"]["instance"][0]["metadata"]["flavor_name"], "m1.tiny");
    assert!(text.contains("\"price\": 0.0000000001"), "all digits: {text}");
}

#[tokio::test]
async fn an_invoice_adds_up_and_is_rounded_once() {
    let ledger = ledger(month()).await;
    let catalogue = Catalogue::parse("[projects.p1]\nname = '<script>alert(1)</script>'").expect("a catalogue");
    let (begin, end) = (time("2026-10-01T00:00:00Z"), time("2026-11-01T00:00:00Z"));
    let all = invoices(&ledger, begin, end, None, true, &catalogue).await.expect("made");
    assert_eq!(all.iter().map(|invoice| invoice.project.as_str()).collect::<Vec<_>>(), ["p1", "p2"]);
    let part = &all[0].currencies[0];
    let expected: BigDecimal = month().iter().filter(|line| line.scope == "p1").map(|line| &line.cost).sum();
    assert_eq!(number(&part.exact), expected);
    assert_eq!((part.total.as_str(), part.tax.as_str()), ("10.06", "0.01"));
    assert_eq!((part.usage.len(), part.corrections.len(), part.credits.len(), part.purchases.len()), (2, 1, 1, 1));
    // The lines taken back and put in its place are one position: 2 - 1.
    assert_eq!((part.corrections[0].quantity.as_str(), part.corrections[0].cost.as_str()), ("1.00", "0.02"));
    for language in [Language::English, Language::Chinese] {
        let page = all[0].html(language, None).expect("a page");
        assert!(page.contains("10.06 EUR") && !page.contains("<script>"), "{page}");
    }
    assert!(all[0].html(Language::Chinese, None).expect("a page").contains("账单"));
    let own = invoices(&ledger, begin, end, Some(vec!["p2".to_owned()]), false, &catalogue).await.expect("made");
    assert_eq!(own.len(), 1, "a tenant has its own only");
}

#[test]
fn a_template_that_never_ends_is_stopped_and_a_wrong_one_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let invoice = Invoice {
        number: "1".to_owned(),
        issuer: "i".to_owned(),
        project: "p".to_owned(),
        project_name: "p".to_owned(),
        address: Vec::new(),
        begin: time("2026-10-01T00:00:00Z"),
        end: time("2026-11-01T00:00:00Z"),
        is_provisional: false,
        lines: 0,
        currencies: Vec::new(),
        names_zh: BTreeMap::new(),
    };
    let path = directory.path().join("own.html");
    for (template, reason) in [
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
            "fuel",
        ),
        ("{{ invoice.number ", "template of invoices"),
    ] {
        std::fs::write(&path, template).expect("written");
        let error = invoice.html(Language::English, Some(&path)).expect_err("wrong").to_string();
        assert!(error.contains(reason), "{error}");
    }
    std::fs::write(&path, "{{ say.total }} {{ invoice.number }}").expect("written");
    assert_eq!(invoice.html(Language::English, Some(&path)).expect("a page"), "Total 1");
}

#[test]
fn a_wrong_catalogue_is_told_where() {
    let error = Catalogue::parse("provider = 'x'\nregionid = 'y'").expect_err("unknown");
    assert!(error.contains("regionid") && error.contains("line 2"), "{error}");
}

#[tokio::test]
async fn cells_read_back_sum_to_what_the_manifest_says_and_a_changed_one_does_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ledger, key, catalogue) = (ledger(month()).await, key(directory.path()), Catalogue::default());
    for profile in Profile::ALL {
        let run = export(&ledger, &october(profile), &catalogue, &key, directory.path(), &|_| ()).await.expect("made");
        let said: BTreeMap<String, BigDecimal> =
            run.manifest.totals.iter().map(|(name, sum)| (name.clone(), sum.parse().expect("a number"))).collect();
        let read = totals_of(&run.directory, &run.manifest).expect("read");
        let Some(read) = read else {
            assert!(matches!(profile, Profile::StripeMeterEvents | Profile::CloudkittyDataframes), "{profile:?}");
            continue;
        };
        match read.get("") {
            Some(sum) => assert_eq!(*sum, said.values().sum::<BigDecimal>(), "{profile:?}"),
            None => assert_eq!(read, said, "{profile:?}"),
        }
    }
    let run = export(&ledger, &october(Profile::CloudkittyCsv), &catalogue, &key, directory.path(), &|_| ()).await;
    let run = run.expect("there already");
    let path = run.directory.join(&run.manifest.files[0].name);
    let text = std::fs::read_to_string(&path).expect("text");
    let before = totals_of(&run.directory, &run.manifest).expect("read");
    // A line removed, a line doubled: told by their number.
    let lines: Vec<&str> = text.lines().collect();
    for changed in [lines[..lines.len() - 1].join("\n"), [&lines[..], &lines[1..2]].concat().join("\n")] {
        std::fs::write(&path, changed + "\n").expect("written");
        let error = totals_of(&run.directory, &run.manifest).expect_err("another number of rows").to_string();
        assert!(error.contains("rows, the manifest says"), "{error}");
    }
    // A cell changed: told by the sum, also to who does not look at digests.
    let cells: Vec<&str> = lines[1].split(',').collect();
    let cost = cells[4];
    std::fs::write(&path, text.replacen(&format!(",{cost},"), ",1234.5,", 1)).expect("written");
    assert_ne!(totals_of(&run.directory, &run.manifest).expect("read"), before);
    assert!(check(&run.directory, None).is_err(), "and by its digest");
}

#[tokio::test]
async fn increments_have_each_line_once_and_nothing_new_makes_no_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ledger, key, catalogue) = (ledger(month()).await, key(directory.path()), Catalogue::default());
    let (all, into) = (october(Profile::CloudkittyCsv), directory.path().join("runs"));
    let first = export(&ledger, &all, &catalogue, &key, &into, &|_| ()).await.expect("made");
    let next = Request { rated_after: first.manifest.watermark, ..all };
    let nothing = export(&ledger, &next, &catalogue, &key, &into, &|_| ()).await;
    assert!(matches!(nothing, Err(ExportError::Nothing)));
    let rated_at = time("2026-11-06T00:00:00Z");
    let late = RatedLine { rated_at, ..line("2026-10-08T00:00:00Z", "7", "1") }.identified();
    ledger.append(vec![late]).await.expect("kept");
    let second = export(&ledger, &next, &catalogue, &key, &into, &|_| ()).await.expect("made");
    assert_eq!((second.manifest.lines, second.manifest.rated_after), (1, first.manifest.watermark));
    assert_ne!(second.manifest.run, first.manifest.run);
}

#[tokio::test]
async fn what_killed_exports_leave_is_removed_and_what_is_being_written_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let left = directory.path().join(".tmp-focus-1.2-csv-of-the-dead");
    let written = directory.path().join(".tmp-focus-1.2-csv-of-the-living");
    for own in [&left, &written] {
        std::fs::create_dir_all(own).expect("made");
        std::fs::write(own.join("part-00001.csv"), "torn").expect("written");
    }
    std::fs::create_dir(directory.path().join("focus-1.2-csv-whole")).expect("made");
    let lock = std::fs::File::open(&written).expect("open");
    lock.try_lock().expect("nobody has it");
    assert_eq!(sweep(directory.path()).expect("swept"), 1);
    assert!(!left.exists() && written.exists());
    drop(lock);
    assert_eq!(sweep(directory.path()).expect("swept"), 1);
    assert!(!written.exists() && directory.path().join("focus-1.2-csv-whole").exists());
    assert_eq!(sweep(&directory.path().join("nowhere")).expect("nothing"), 0);
}
