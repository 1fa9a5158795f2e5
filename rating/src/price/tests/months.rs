//! Months that are closed in pieces, and sums of several currencies.

use super::*;

/// A line of a day, of so many at so much.
fn used(day: &str, service: &str, quantity: i64, cost: i64) -> RatedLine {
    let begin = time(day);
    let (quantity, cost) = (BigDecimal::from(quantity), cost_of(&BigDecimal::from(cost)));
    RatedLine { service: service.to_owned(), begin, end: begin, period: begin, quantity, cost, ..example() }
        .identified()
}

/// What lines come to with all that is settled of them, in bills that end on these days, by currency; and the settled lines.
fn in_pieces(prices: &Prices, lines: &[RatedLine], begin: &str, ends: &[&str]) -> (crate::Totals, Vec<RatedLine>) {
    let (mut begin, mut settled, mut billed) = (time(begin), Vec::new(), Vec::new());
    for end in ends.iter().map(|end| time(end)) {
        let own: Vec<RatedLine> = lines.iter().filter(|own| begin <= own.period && own.period < end).cloned().collect();
        // As the processor reads it: the month's lines, and what earlier months have settled.
        let first = crate::forecast::month(begin, 0);
        let (of_month, before): (Vec<RatedLine>, Vec<RatedLine>) =
            billed.iter().cloned().partition(|own: &RatedLine| own.period >= first);
        let before = before.into_iter().filter(is_settled).collect();
        let earlier = Earlier { lines: of_month, settled: before };
        let bill = Bill { scope: "p", begin, end, period: HOUR, earlier: &earlier };
        let made = prices.settle(&bill, &own, (3, end));
        assert!(made.iter().all(|line| begin <= line.period && line.period < end), "{made:?}");
        billed.extend(own);
        billed.extend(made.iter().cloned());
        settled.extend(made);
        begin = end;
    }
    let ids: BTreeSet<Uuid> = settled.iter().map(|line| line.id).collect();
    assert_eq!(ids.len(), settled.len(), "each line has its own id");
    let mut totals = crate::Totals::new();
    for line in &billed {
        *totals.entry(line.currency.clone()).or_default() += &line.cost;
    }
    (totals, settled)
}

fn texts(totals: &crate::Totals) -> Vec<(&str, String)> {
    totals.iter().map(|(code, sum)| (code.as_str(), sum.normalized().to_plain_string())).collect()
}

#[test]
fn a_month_that_is_closed_in_pieces_comes_to_what_it_would_have_at_once() {
    let steps = json!([{"above": 0, "unit_price": "2"}, {"above": 12, "unit_price": "1.1"}]);
    let prices = euros(&[
        ("tiers", "volume", json!({"service": "volume", "steps": steps})),
        ("included", "free", json!({"service": "traffic", "quantity": "5"})),
        ("minimum", "least", json!({"service": "instance", "amount": 25})),
        ("minimum", "all", json!({"amount": "61.7"})),
        ("discount", "partner", json!({"service": "volume", "percent": "3.3333333"})),
        ("credit", "monthly", json!({"amount": "7"})),
        ("credit", "welcome", json!({"amount": 50, "frequency": "once"})),
        ("tax", "vat", json!({"percent": "19"})),
        ("purchase", "pack", monthly(json!({"service": "volume", "quantity": 3}))),
    ]);
    let mut lines = Vec::new();
    for day in ["2026-11-03", "2026-11-10", "2026-11-15", "2026-11-29", "2026-12-02", "2026-12-20", "2027-01-09"] {
        let seed = i64::from(day.as_bytes()[9] - b'0');
        lines.extend(
            [("traffic", 3 + seed, 7), ("volume", 7, 14), ("instance", seed, seed)]
                .map(|(service, quantity, cost)| used(day, service, quantity, cost)),
        );
    }
    let months = ["2026-12-01", "2027-01-01", "2027-02-01"];
    let (at_once, _) = in_pieces(&prices, &lines, "2026-11-01", &months);
    for ends in [
        &["2027-02-01"][..],
        &["2026-11-11", "2026-11-21", "2026-12-01", "2026-12-03", "2027-01-01", "2027-02-01"],
        &["2026-11-04", "2026-12-11", "2027-01-10", "2027-02-01"],
        &["2026-11-02", "2026-11-12", "2026-11-13", "2027-01-01", "2027-01-11", "2027-01-31", "2027-02-01"],
    ] {
        let (totals, settled) = in_pieces(&prices, &lines, "2026-11-01", ends);
        assert_eq!(texts(&totals), texts(&at_once), "{ends:?}");
        let once: BigDecimal =
            settled.iter().filter(|own| own.rule == "price/credit/welcome").map(|own| &own.cost).sum();
        assert_eq!(once, BigDecimal::from(-50), "{ends:?}");
    }
}

#[test]
fn credits_and_included_quantities_are_given_once_a_month_and_not_with_each_bill() {
    let rules = |credit: Value| {
        euros(&[("credit", "c", credit), ("included", "i", json!({"service": "volume", "quantity": 5}))])
    };
    let lines = [used("2026-11-10", "volume", 10, 100), used("2026-11-15", "volume", 10, 100)];
    let ends = ["2026-11-11", "2026-11-21", "2026-12-01"];
    let (totals, settled) = in_pieces(&rules(json!({"amount": 30})), &lines, "2026-11-01", &ends);
    assert_eq!(texts(&totals), [("EUR", "120".to_owned())], "200, less 50 for five, less 30");
    assert_eq!(shown(&settled), ["Credit -50 11-01 11-11", "Credit -30 11-01 11-11"]);
    // A credit once: what is left goes over to the next bills; a monthly one begins again.
    let lines = [used("2026-11-10", "instance", 1, 20), used("2026-12-10", "instance", 1, 20)];
    let of = |frequency: &str| {
        let prices = rules(json!({"amount": 30, "frequency": frequency}));
        shown(&in_pieces(&prices, &lines, "2026-11-01", &["2026-12-01", "2027-01-01", "2027-02-01"]).1)
    };
    assert_eq!(of("once"), ["Credit -20 11-01 12-01", "Credit -10 12-01 01-01"]);
    assert_eq!(of("monthly"), ["Credit -20 11-01 12-01", "Credit -20 12-01 01-01"]);
    let prices = rules(json!({"amount": 30, "frequency": "once"}));
    let since = prices.looks_back("p", time("2026-12-01"), time("2027-01-01"));
    assert_eq!(since, Some((time("1970-01-01"), vec!["bill".to_owned()])));
}

#[test]
fn a_tax_that_changes_between_two_bills_of_a_month_leaves_the_first_one_as_it_is() {
    let lines = [used("2026-11-10", "instance", 1, 100), used("2026-11-15", "instance", 1, 100)];
    let tax = |percent: i64| euros(&[("tax", "t", json!({"percent": percent}))]);
    let (_, first) = in_pieces(&tax(10), &lines[..1], "2026-11-01", &["2026-11-11"]);
    let earlier = Earlier { lines: [&lines[..1], &first[..]].concat(), settled: Vec::new() };
    let (begin, end) = (time("2026-11-11"), time("2026-12-01"));
    let bill = Bill { scope: "p", begin, end, period: HOUR, earlier: &earlier };
    let of = |prices: Prices| shown(&prices.settle(&bill, &lines[1..], (4, end)));
    assert_eq!(of(tax(20)), ["Tax 20 11-11 12-01"]);
    assert_eq!(of(euros(&[])), [""; 0], "there is no tax any more, and what was paid is paid");
}

#[test]
fn a_currency_of_one_project_is_not_everybodys() {
    let prices = Prices::from_documents(&documents(&[
        ("currency", "all", json!({"code": "EUR"})),
        ("currency", "later", json!({"code": "USD", "valid_from": "2028-01-01T00:00:00Z"})),
        ("currency", "only-admin", json!({"code": "JPY", "projects": ["admin"], "valid_from": "2030-01-01T00:00:00Z"})),
        ("currency", "sterling", json!({"code": "GBP", "domains": ["acme"], "valid_until": "2029-01-01T00:00:00Z"})),
        ("domain", "acme", json!({"projects": ["q"]})),
    ]))
    .expect("rules");
    let of = |scope: &str, day: &str| prices.currency(scope, time(day)).to_owned();
    assert_eq!([of("admin", "2029-12-31"), of("admin", "2030-01-01")], ["USD", "JPY"]);
    assert_eq!([of("p", "2027-12-31"), of("p", "2028-01-01"), of("p", "2031-01-01")], ["EUR", "USD", "USD"]);
    assert_eq!([of("q", "2028-06-01"), of("q", "2029-01-01")], ["GBP", "USD"], "the domain is before all");
    assert_eq!(Prices::default().currency("p", time("2026-01-01")), "USD");
}

#[test]
fn sums_of_two_currencies_are_never_added() {
    let in_yen = |line: RatedLine| RatedLine { currency: "JPY".to_owned(), ..line };
    let lines = [used("2026-11-03", "instance", 10, 100), in_yen(used("2026-11-20", "instance", 10, 10_000))];
    let prices = euros(&[
        ("included", "i", json!({"service": "instance", "quantity": 12})),
        ("minimum", "m", json!({"amount": 5})),
        ("minimum", "y", json!({"amount": 9000, "currency": "JPY"})),
        ("discount", "d", json!({"percent": 10})),
        ("credit", "c", json!({"amount": 1000, "currency": "JPY"})),
        ("tax", "t", json!({"percent": 19})),
        ("purchase", "p", monthly(json!({"currency": "CHF", "service": "instance", "quantity": 1}))),
    ]);
    let (totals, settled) = in_pieces(&prices, &lines, "2026-11-01", &["2026-12-01"]);
    let costs: Vec<String> = settled
        .iter()
        .map(|own| format!("{} {} {}", own.rule, own.cost.normalized().to_plain_string(), own.currency))
        .collect();
    assert_eq!(
        costs,
        [
            "price/purchase/p 20 CHF",
            "price/purchase/p -10 EUR",
            // Nine instances of the euros' time and three of the yens'.
            "price/included/i -90 EUR",
            "price/included/i -3000 JPY",
            "price/minimum/m 5 EUR",
            "price/minimum/y 2000 JPY",
            "price/discount/d -2 CHF",
            "price/discount/d -0.5 EUR",
            "price/discount/d -900 JPY",
            "price/credit/c -1000 JPY",
            "price/tax/t 3.42 CHF",
            "price/tax/t 0.855 EUR",
            "price/tax/t 1349 JPY",
        ]
    );
    let expected = [("CHF", "21.42"), ("EUR", "5.355"), ("JPY", "8449")].map(|(code, sum)| (code, sum.to_owned()));
    assert_eq!(texts(&totals), expected);
    assert!(settled[1].metadata.get("amortized").is_none(), "no francs are spread over euros");
    let pieces = ["2026-11-10", "2026-11-21", "2026-12-01"];
    assert_eq!(in_pieces(&prices, &lines, "2026-11-01", &pieces).0, totals);
}

#[test]
fn what_does_not_fit_the_ledger_is_refused_when_it_is_written_and_what_is_there_is_still_read() {
    let steps = |price: &str| json!({"service": "s", "steps": [{"above": 0, "unit_price": price}]});
    for (kind, body, told) in [
        ("credit", json!({"amount": "1e40"}), "credit `x`: amount has more than 16 digits before the point"),
        ("minimum", json!({"amount": 1e40}), "minimum `x`: amount has more than 16 digits before the point"),
        ("credit", json!({"amount": "0.00000000001"}), "credit `x`: amount has more than 10 digits after the point"),
        ("tax", json!({"percent": "1000"}), "tax `x`: percent has more than 3 digits before the point"),
        ("included", json!({"service": "s", "quantity": "1e16"}), "included `x`: quantity has more than 16 digits"),
        ("tiers", steps("1e10"), "tiers `x`: steps[0].unit_price has more than 10 digits before the point"),
        ("currency", json!({"code": "ZZZ"}), "currency `x`: code: `ZZZ` is no ISO 4217 code, such as EUR"),
        ("credit", json!({"amount": 1, "currency": "ZZZ"}), "credit `x`: currency: `ZZZ` is no ISO 4217 code"),
    ] {
        let document = documents(&[(kind, "x", body)]).remove(0);
        let error = Prices::check(&[], &document).expect_err(told).to_string();
        assert!(error.starts_with(told), "{error}");
        Prices::from_documents(&[document]).expect("written before, it still counts");
    }
    let tax = documents(&[("tax", "x", json!({"percent": 1, "currency": "EUR"}))]).remove(0);
    let error = Prices::check(&[], &tax).expect_err("a percentage has none").to_string();
    assert_eq!(error, "tax `x`: currency is for sums of money; this rule has none");
    let largest = documents(&[("credit", "x", json!({"amount": "9999999999999999.9999999999"}))]).remove(0);
    Prices::check(&[], &largest).expect("it fits");
    Prices::check(std::slice::from_ref(&largest), &largest).expect("instead of itself");
}
