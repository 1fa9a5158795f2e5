//! What tells charges apart: prices of what is sold, names of services, currencies.

use std::collections::BTreeMap;

use super::*;

/// The rows of a run in FOCUS's words.
async fn focus_rows(lines: Vec<RatedLine>) -> Vec<BTreeMap<String, String>> {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, catalogue, ledger) = (key(directory.path()), Catalogue::default(), ledger(lines).await);
    let run = export(&ledger, &october(Profile::FocusCsv), &catalogue, &key, directory.path(), &|_| ()).await;
    let run = run.expect("exported");
    let mut reader = csv::Reader::from_path(run.directory.join("part-00001.csv")).expect("a table");
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

#[tokio::test]
async fn one_sku_price_has_one_unit_price_in_each_currency() {
    let of = |flavor: &str, price: &str, currency: &str, hour: u32| {
        let base = line(&format!("2026-10-05T{hour:02}:00:00Z"), "1", price);
        let metadata = facts(&[("flavor_name", flavor)]);
        RatedLine { metadata, currency: currency.to_owned(), rule: "hashmap/instance/0".to_owned(), ..base }
            .identified()
    };
    let mut lines = month();
    lines.extend([
        of("m1.tiny", "0.02", "EUR", 0),
        of("m1.large", "0.08", "EUR", 1),
        // Another price of the same flavor: a mapping of its own for the project, or one that begins to hold.
        of("m1.tiny", "0.03", "EUR", 2),
        of("m1.tiny", "0.02", "JPY", 3),
        of("m1.tiny", "0.02", "EUR", 4),
    ]);
    let rows = focus_rows(lines).await;
    let (mut prices, mut skus) = (BTreeMap::new(), BTreeMap::new());
    for row in rows.iter().filter(|row| !row["SkuPriceId"].is_empty()) {
        let id = row["SkuPriceId"].clone();
        let key = (id.clone(), row["PricingCurrency"].clone());
        let price = prices.entry(key).or_insert_with(|| row["ListUnitPrice"].clone());
        assert_eq!(*price, row["ListUnitPrice"], "{id}");
        assert_eq!(*skus.entry(id.clone()).or_insert_with(|| row["SkuId"].clone()), row["SkuId"], "{id}");
    }
    let of_flavor = |flavor: &str| {
        let rows =
            rows.iter().filter(|row| row["x_RatingRuleId"] == "hashmap/instance/0" && row["SkuId"].ends_with(flavor));
        rows.map(|row| row["SkuPriceId"].clone()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!((of_flavor("m1.tiny"), of_flavor("m1.large")), (2, 1));
}

#[tokio::test]
async fn incoming_and_outgoing_traffic_are_two_names_on_an_invoice() {
    let of = |service: &str| {
        RatedLine { service: service.to_owned(), ..line("2026-10-05T00:00:00Z", "1", "0.02") }.identified()
    };
    let services = [
        "network.incoming.bytes",
        "network.outgoing.bytes",
        "disk.device.read.bytes",
        "disk.device.write.bytes",
        "volume.size",
        "volume.snapshot.size",
        "instance",
        "cpu",
    ];
    let (catalogue, ledger) = (Catalogue::default(), ledger(services.map(of).to_vec()).await);
    let (begin, end) = (time("2026-10-01T00:00:00Z"), time("2026-11-01T00:00:00Z"));
    let invoice = invoices(&ledger, begin, end, None, false, &catalogue).await.expect("made").remove(0);
    let names: std::collections::BTreeSet<&str> =
        invoice.currencies[0].usage.iter().map(|position| position.service.as_str()).collect();
    assert_eq!(names.len(), services.len(), "{names:?}");
    assert!(names.contains("Incoming traffic") && names.contains("Outgoing traffic"), "{names:?}");
    let page = invoice.html(Language::Chinese, None).expect("a page");
    assert!(page.contains("入站流量") && page.contains("出站流量") && !page.contains("traffic"), "{page}");
    let page = invoice.html(Language::English, None).expect("a page");
    assert!(page.contains("Incoming traffic") && !page.contains("流量"), "{page}");
    // Who names a service in one language only has that name in both.
    let own = "[services.'network.incoming.bytes']\nname = 'In'\ncategory = 'Networking'\nsubcategory = 'x'";
    let own = Catalogue::parse(own).expect("a catalogue");
    let invoice = invoices(&ledger, begin, end, None, false, &own).await.expect("made").remove(0);
    assert!(invoice.html(Language::Chinese, None).expect("a page").contains("<td>In <"), "its own name");
}

#[tokio::test]
async fn formats_without_a_currency_refuse_lines_of_several() {
    let directory = tempfile::tempdir().expect("a directory");
    let yen = RatedLine { currency: "JPY".to_owned(), ..line("2026-10-05T00:00:00Z", "1", "10000") }.identified();
    let lines = [month(), vec![yen]].concat();
    let (key, catalogue, ledger) = (key(directory.path()), Catalogue::default(), ledger(lines).await);
    for profile in Profile::ALL {
        let made = export(&ledger, &october(profile), &catalogue, &key, directory.path(), &|_| ()).await;
        if matches!(profile, Profile::CloudkittyCsv | Profile::CloudkittyDataframes) {
            let told = made.expect_err("refused").to_string();
            assert!(told.contains("EUR, JPY"), "{told}");
            continue;
        }
        let run = made.expect("made");
        assert_eq!(run.manifest.totals["JPY"], "10000", "{profile:?}");
        if profile == Profile::LagoEvents {
            let text = std::fs::read_to_string(run.directory.join("part-00001.ndjson")).expect("a file");
            assert!(text.contains(r#""precise_total_amount_cents":"10000""#), "a yen has no hundredths: {text}");
        }
        if let Some(read) = totals_of(&run.directory, &run.manifest).expect("read") {
            let said = run.manifest.totals.iter().map(|(code, sum)| (code.clone(), number(sum))).collect();
            assert_eq!(read, said, "{profile:?}");
        }
    }
}
