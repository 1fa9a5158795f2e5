//! Receivers as strict as what the vendors' documentation says of theirs: they refuse a request that has too much, too little, or the
//! wrong form, know keys, are busy, break, and lose answers. What they got in the end is what the ledger says, each line once.
//!
//! Stripe: API references of meter events and their adjustments (first and second API), the guide on recording usage, the change of
//! 2026-04-22 on digits. Lago: API reference of events and batches. OpenMeter: API reference of ingestion, CloudEvents 1.0.1.

use std::collections::BTreeMap;

use axum::http::header;
use orzo_export::{Catalogue, Request as Export, export};
use orzo_rating::{BigDecimal, Ledger, LineKind, MemoryLedger, RatedLine};

use super::*;

const KEY: &str = "sk_test_1";
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Stripe,
    Lago,
    OpenMeter,
}

/// What happens to the next requests, the last one first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    /// 429, and when to come again; nothing is taken.
    Busy,
    /// 500; nothing is taken.
    Broken,
    /// It is taken, and then 500.
    Forgetful,
}

struct Vendor {
    kind: Kind,
    clock: Arc<ManualClock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    moods: Vec<Mood>,
    /// Value and time of arrival by key.
    taken: BTreeMap<String, (String, Timestamp)>,
    cancelled: Vec<String>,
    repeats: u64,
    requests: u64,
    /// Why requests were refused.
    refused: Vec<String>,
    /// Stripe's answers by `Idempotency-Key`.
    remembered: BTreeMap<String, (u16, Value)>,
}

/// Status and body of an answer.
type Said = (u16, Value);

fn invalid(message: impl ToString) -> Said {
    (400, json!({"error": {"type": "invalid_request_error", "message": message.to_string()}}))
}

/// The text under a name that must be there, of at most so many characters.
fn text<'v>(fields: &'v serde_json::Map<String, Value>, name: &str, characters_max: usize) -> Result<&'v str, Said> {
    let text = fields.get(name).and_then(Value::as_str).ok_or_else(|| invalid(format!("{name} is no text")))?;
    match text.is_empty() || text.chars().count() > characters_max {
        true => Err(invalid(format!("{name} has 1 to {characters_max} characters"))),
        false => Ok(text),
    }
}

fn only(fields: &serde_json::Map<String, Value>, known: &[&str]) -> Result<(), Said> {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(invalid(format!("Received unknown parameter: {name}"))),
        None => Ok(()),
    }
}

fn object<'v>(value: Option<&'v Value>, what: &str) -> Result<&'v serde_json::Map<String, Value>, Said> {
    value.and_then(Value::as_object).ok_or_else(|| invalid(format!("{what} is no object")))
}

/// A number without sign of plus and without exponent, of at most so many significant digits.
fn is_number(text: &str, digits_max: usize) -> bool {
    let bare = text.strip_prefix('-').unwrap_or(text);
    let (whole, rest) = bare.split_once('.').unwrap_or((bare, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let digits = format!("{whole}{}", bare.split_once('.').map_or("", |(_, rest)| rest));
    is_digits(whole) && is_digits(rest) && digits.trim_start_matches('0').len() <= digits_max
}

/// A form's fields, one level deep, as Stripe reads them.
fn form(body: &[u8]) -> Result<serde_json::Map<String, Value>, Said> {
    let mut fields = serde_json::Map::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        let before = match name.split_once('[') {
            None => fields.insert(name.to_string(), json!(value)),
            Some((outer, inner)) => {
                let inner = inner.strip_suffix(']').ok_or_else(|| invalid("Invalid brackets"))?;
                let own = fields.entry(outer).or_insert_with(|| json!({}));
                own.as_object_mut().ok_or_else(|| invalid("Invalid object"))?.insert(inner.to_owned(), json!(value))
            }
        };
        if before.is_some() {
            return Err(invalid(format!("{name} is there twice")));
        }
    }
    Ok(fields)
}

impl Vendor {
    fn handle(&self, method: &str, path: &str, headers: &HeaderMap, body: &[u8]) -> (Said, Option<u64>) {
        let mut state = self.state.lock();
        state.requests += 1;
        let mood = state.moods.pop().unwrap_or(Mood::Well);
        if mood == Mood::Busy {
            return ((429, json!({"error": {"code": "rate_limit"}})), Some(7));
        }
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        if let Some(said) = key.as_ref().and_then(|key| state.remembered.get(key)) {
            return (said.clone(), None);
        }
        let said = if mood == Mood::Broken {
            (500, Value::Null)
        } else {
            let said = self.judge(&mut state, method, path, headers, body).unwrap_or_else(|said| said);
            if mood == Mood::Forgetful { (500, Value::Null) } else { said }
        };
        if let Some(key) = key {
            state.remembered.insert(key, said.clone());
        }
        if said.0 / 100 == 4 && !said.1.to_string().contains("already") {
            state.refused.push(format!("{method} {path}: {} {}", said.0, said.1));
        }
        (said, None)
    }

    fn judge(
        &self,
        state: &mut State,
        method: &str,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Said, Said> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if method != "POST" {
            return Err((405, Value::Null));
        }
        if header("authorization") != format!("Bearer {KEY}") {
            return Err((401, Value::Null));
        }
        let kind = header("content-type");
        let json = || serde_json::from_slice::<Value>(body).map_err(invalid);
        match (self.kind, path) {
            (Kind::Stripe, "/v1/billing/meter_events" | "/v1/billing/meter_event_adjustments") => {
                if kind != "application/x-www-form-urlencoded" {
                    return Err(invalid(format!("content type {kind}")));
                }
                let fields = form(body)?;
                match path.ends_with("adjustments") {
                    true => self.adjusted(state, &fields),
                    false => {
                        let time = text(&fields, "timestamp", 20)?.parse().map(Timestamp::from_secs);
                        self.metered(state, &fields, time.map_err(|_| invalid("timestamp is no integer"))?)
                    }
                }
            }
            (Kind::Stripe, "/v2/billing/meter_events" | "/v2/billing/meter_event_adjustments") => {
                if kind != "application/json" || header("stripe-version").is_empty() {
                    return Err(invalid("a version and JSON are expected"));
                }
                let body = json()?;
                let fields = object(Some(&body), "the body")?;
                match path.ends_with("adjustments") {
                    true => self.adjusted(state, fields),
                    false => {
                        let time = text(fields, "timestamp", 40)?;
                        let is_zoned = time.contains('T') && time.ends_with('Z');
                        let time = time.parse().ok().filter(|_| is_zoned);
                        self.metered(state, fields, time.ok_or_else(|| invalid("timestamp is no date-time"))?)
                    }
                }
            }
            (Kind::Lago, "/api/v1/events" | "/api/v1/events/batch") => {
                if kind != "application/json" {
                    return Err(invalid(format!("content type {kind}")));
                }
                let body = json()?;
                let fields = object(Some(&body), "the body")?;
                match path.ends_with("batch") {
                    true => {
                        only(fields, &["events"])?;
                        let events = fields.get("events").and_then(Value::as_array);
                        let events = events.filter(|events| (1..=100).contains(&events.len()));
                        let events = events.ok_or_else(|| invalid("1 to 100 events"))?;
                        lago(state, events, self.clock.now())
                    }
                    false => {
                        only(fields, &["event"])?;
                        lago(state, &[Value::Object(object(fields.get("event"), "event")?.clone())], self.clock.now())
                    }
                }
            }
            (Kind::OpenMeter, "/api/v1/events") => {
                let body = json()?;
                let events = match (kind, &body) {
                    ("application/cloudevents+json", Value::Object(_)) => vec![body],
                    ("application/cloudevents-batch+json", Value::Array(events)) if !events.is_empty() => {
                        events.clone()
                    }
                    _ => return Err(invalid(format!("content type {kind} and such a body"))),
                };
                open_meter(state, &events, self.clock.now())
            }
            _ => Err((404, Value::Null)),
        }
    }

    fn metered(
        &self,
        state: &mut State,
        fields: &serde_json::Map<String, Value>,
        time: Timestamp,
    ) -> Result<Said, Said> {
        only(fields, &["event_name", "payload", "identifier", "timestamp"])?;
        if text(fields, "event_name", 100)? != "instance" {
            return Err(invalid("No active meter found for the corresponding event name"));
        }
        let key = text(fields, "identifier", 100)?;
        let payload = object(fields.get("payload"), "payload")?;
        only(payload, &["stripe_customer_id", "value"])?;
        if text(payload, "stripe_customer_id", 100)? != "cus_1" {
            return Err(invalid("No such customer"));
        }
        let value = text(payload, "value", 100)?;
        if !is_number(value, 15) {
            return Err(invalid(format!(
                "The value in the event payload can have at most 15 digits. Received {value}."
            )));
        }
        let now = self.clock.now();
        if time < now.minus(DAY * 35) || time > now.plus(Duration::from_secs(300)) {
            return Err(invalid("The timestamp must be within the past 35 days or up to 5 minutes in the future"));
        }
        if state.taken.get(key).is_some_and(|(_, at)| now.since(*at) <= DAY) {
            state.repeats += 1;
            return Err(invalid(format!("An event already exists with identifier {key}.")));
        }
        state.taken.insert(key.to_owned(), (value.to_owned(), now));
        Ok((200, json!({"object": "billing.meter_event", "identifier": key})))
    }

    fn adjusted(&self, state: &mut State, fields: &serde_json::Map<String, Value>) -> Result<Said, Said> {
        only(fields, &["event_name", "type", "cancel"])?;
        let cancel = object(fields.get("cancel"), "cancel")?;
        only(cancel, &["identifier"])?;
        if text(fields, "event_name", 100)? != "instance" || text(fields, "type", 10)? != "cancel" {
            return Err(invalid("Invalid type"));
        }
        let key = text(cancel, "identifier", 100)?;
        let is_fresh = state.taken.get(key).is_some_and(|(_, at)| self.clock.now().since(*at) <= DAY);
        if !is_fresh {
            return Err(invalid("events can be cancelled within 24 hours of receiving them"));
        }
        state.cancelled.push(key.to_owned());
        Ok((200, json!({"object": "billing.meter_event_adjustment", "status": "pending"})))
    }
}

/// All of a batch or nothing; a repeat is a fault.
fn lago(state: &mut State, events: &[Value], now: Timestamp) -> Result<Said, Said> {
    let unprocessable = |details: Value| {
        (
            422,
            json!({"status": 422, "error": "Unprocessable Entity", "code": "validation_errors", "error_details": details}),
        )
    };
    let mut new = Vec::new();
    for (place, event) in events.iter().enumerate() {
        let fields = object(Some(event), "event")?;
        let known = [
            "transaction_id",
            "external_subscription_id",
            "code",
            "timestamp",
            "properties",
            "precise_total_amount_cents",
        ];
        only(fields, &known)?;
        let key = text(fields, "transaction_id", 255)?;
        text(fields, "external_subscription_id", 255)?;
        text(fields, "code", 255)?;
        if !is_number(text(fields, "timestamp", 20)?, 20)
            || !is_number(text(fields, "precise_total_amount_cents", 50)?, 50)
        {
            return Err(unprocessable(json!({"timestamp": ["invalid_format"]})));
        }
        let value = text(object(fields.get("properties"), "properties")?, "value", 50)?;
        if !is_number(value, 50) {
            return Err(unprocessable(json!({"properties": ["value_is_not_valid_number"]})));
        }
        if state.taken.contains_key(key) {
            state.repeats += 1;
            let details = json!({"transaction_id": ["value_already_exist"]});
            let is_single = events.len() == 1;
            return Err(unprocessable(if is_single { details } else { json!({place.to_string(): details}) }));
        }
        new.push((key.to_owned(), (value.to_owned(), now)));
    }
    state.taken.extend(new);
    Ok((200, json!({"events": events})))
}

/// Repeats are left out without a word.
fn open_meter(state: &mut State, events: &[Value], now: Timestamp) -> Result<Said, Said> {
    let mut new = Vec::new();
    for event in events {
        let fields = object(Some(event), "event")?;
        only(fields, &["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"])?;
        let is_reference =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&byte));
        let source = text(fields, "source", 255)?;
        let time = text(fields, "time", 40)?.parse::<Timestamp>();
        let is_well = text(fields, "specversion", 3)? == "1.0"
            && is_reference(source)
            && text(fields, "datacontenttype", 100)? == "application/json"
            && time.is_ok()
            && !text(fields, "type", 255)?.is_empty()
            && !text(fields, "subject", 255)?.is_empty();
        if !is_well {
            return Err(invalid(format!("no CloudEvent: {event}")));
        }
        let value = text(object(fields.get("data"), "data")?, "quantity", 50)?;
        new.push((format!("{source} {}", text(fields, "id", 255)?), (value.to_owned(), now)));
    }
    for (key, value) in new {
        match state.taken.entry(key) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(value);
            }
            std::collections::btree_map::Entry::Occupied(entry) => {
                assert_eq!(entry.get().0, value.0, "one key, two contents");
                state.repeats += 1;
            }
        }
    }
    Ok((204, Value::Null))
}

async fn answered(Shared(vendor): Shared<Arc<Vendor>>, request: Request) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let ((status, said), wait) = vendor.handle(parts.method.as_str(), parts.uri.path(), &parts.headers, &body);
    let mut answer = (StatusCode::from_u16(status).unwrap(), axum::Json(said)).into_response();
    if let Some(wait) = wait {
        answer.headers_mut().insert(header::RETRY_AFTER, wait.into());
    }
    answer
}

/// A vendor beside a world, and the target that is it.
async fn vendor(world: &World, kind: Kind, path: &str, moods: &[Mood]) -> (Arc<Vendor>, Target) {
    let state = State { moods: moods.iter().rev().copied().collect(), ..State::default() };
    let vendor = Arc::new(Vendor { kind, clock: world.clock.clone(), state: Mutex::new(state) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{path}", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().fallback(answered).with_state(vendor.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let token = world.directory.path().join("token");
    std::fs::write(&token, KEY).unwrap();
    let access = target::Access { token_file: Some(token), ..target::Access::default() };
    (vendor, Target::new("t", profile(kind).name(), None, &url, access).unwrap())
}

fn profile(kind: Kind) -> Profile {
    match kind {
        Kind::Stripe => Profile::StripeMeterEvents,
        Kind::Lago => Profile::LagoEvents,
        Kind::OpenMeter => Profile::CloudEvents,
    }
}

/// An hour of a server, so long before 2026-11-10.
fn line(before: Duration, quantity: &str) -> RatedLine {
    let end: Timestamp = "2026-11-10T00:00:00Z".parse().unwrap();
    let begin = end.minus(before);
    let quantity: BigDecimal = quantity.parse().unwrap();
    let facts = |name: &str, value: &str| Arc::new(BTreeMap::from([(name.to_owned(), value.to_owned())]));
    RatedLine {
        id: Uuid::nil(),
        scope: "p1".to_owned(),
        service: "instance".to_owned(),
        resource: "r1".to_owned(),
        begin,
        end: begin.plus(Duration::from_secs(3600)),
        period: begin,
        unit: "instance".to_owned(),
        unit_price: BigDecimal::from(2),
        cost: &quantity * BigDecimal::from(2),
        quantity,
        currency: "EUR".to_owned(),
        kind: LineKind::Usage,
        corrects: None,
        reverses: false,
        rule: "hashmap/instance/0".to_owned(),
        rule_version: 1,
        sequence: 0,
        groupby: facts("id", "r1"),
        metadata: facts("flavor_name", "tiny & \"small\" = +1"),
        samples: 1,
        rated_at: end,
    }
    .identified()
}

/// The lines' events as the export writes them, in the outbox.
async fn asked(world: &World, kind: Kind, lines: &[RatedLine]) -> String {
    let ledger = MemoryLedger::default();
    ledger.append(lines.to_vec()).await.unwrap();
    let catalogue = Catalogue::parse(
        "provider = 'Wolke & Söhne'\n[projects.p1]\nstripe_customer = 'cus_1'\nlago_subscription = 'sub_1'",
    );
    let request = Export {
        profile: profile(kind),
        begin: "2026-01-01T00:00:00Z".parse().unwrap(),
        end: "2027-01-01T00:00:00Z".parse().unwrap(),
        scopes: None,
        as_of: None,
        rated_after: None,
    };
    let into = world.directory.path().join("exported");
    let key = SigningKey::open(&world.directory.path().join("key")).unwrap();
    let run = export(&ledger, &request, &catalogue.unwrap(), &key, &into, &|_| ()).await.unwrap();
    let mut events = Vec::new();
    for file in &run.manifest.files {
        let text = std::fs::read_to_string(run.directory.join(&file.name)).unwrap();
        events.extend(text.lines().map(str::to_owned));
    }
    world.ask(profile(kind), &events).await
}

/// Sends until it is delivered; says how long each failure made it wait.
async fn delivered(world: &World, target: &Target, id: &str) -> Vec<Duration> {
    let mut waits = Vec::new();
    for _ in 0..20 {
        match world.deliverer("a").deliver_next(target).await.unwrap() {
            Outcome::Delivered(_) => return waits,
            Outcome::Later { .. } => {
                let wait = world.now(id).await.next_at.since(world.clock.now());
                waits.push(wait);
                world.clock.advance(wait);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("not delivered after {waits:?}");
}

/// The values that a vendor has, by line.
fn values(vendor: &Vendor) -> BTreeMap<String, String> {
    let state = vendor.state.lock();
    state.taken.iter().map(|(key, (value, _))| (key.rsplit(' ').next().unwrap().to_owned(), value.clone())).collect()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn stripe_gets_what_it_documents_each_line_once_by_both_apis() {
    for path in ["/v1/billing/meter_events", "/v2/billing/meter_events"] {
        let world = World::new().await;
        let moods = [Mood::Busy, Mood::Well, Mood::Broken, Mood::Forgetful, Mood::Well];
        let (vendor, target) = vendor(&world, Kind::Stripe, path, &moods).await;
        let wrong = line(HOUR * 5, "1");
        let lines = [
            line(HOUR * 9, "1"),
            line(HOUR * 8, "0.8333333333"),
            line(HOUR * 7, "12345678.0123456789"),
            line(HOUR * 6, "200000000000"),
            wrong.clone(),
            wrong.reversal(wrong.period, wrong.rated_at),
            line(DAY * 34, "3"),
            line(DAY * 36, "4"),
        ];
        let id = asked(&world, Kind::Stripe, &lines).await;
        let waits = delivered(&world, &target, &id).await;
        assert_eq!(waits, [7, 5, 10].map(Duration::from_secs), "what it asked for, then what failures make it");
        let said = values(&vendor);
        let of = |line: &RatedLine| said.get(&line.id.to_string()).map(String::as_str);
        assert_eq!(
            lines.iter().map(of).collect::<Vec<_>>(),
            [
                Some("1"),
                Some("0.8333333333"),
                Some("12345678.0123457"),
                Some("200000000000"),
                Some("1"),
                None,
                Some("3"),
                None
            ],
            "the reversal is a cancellation, and the last one is too old"
        );
        let own = world.now(&id).await;
        assert_eq!((own.done, own.taken, own.parked), (8, 7, 1));
        assert!(world.outbox.parked(&id).await.unwrap()[0].reason.contains("35 days"));
        let state = vendor.state.lock();
        assert_eq!(state.cancelled, [wrong.id.to_string()]);
        assert_eq!(state.refused, [""; 0]);
        assert_eq!(state.repeats, 1, "the one whose answer was lost");
        assert_eq!(state.requests, 7 + 1 + 1 + 1, "one for each, and one more for each that failed");
        drop(state);
        world.assert_conserved();
    }
}

#[tokio::test]
async fn what_stripe_refuses_is_parked_and_the_rest_goes() {
    let world = World::new().await;
    let (vendor, target) = vendor(&world, Kind::Stripe, "/v1/billing/meter_events", &[]).await;
    let stranger = RatedLine { service: "nobody.meters.it".to_owned(), ..line(HOUR * 3, "1") }.identified();
    let to_come = line(Duration::ZERO, "2");
    let lines = [line(HOUR * 4, "1"), stranger, to_come, line(HOUR * 2, "3")];
    // An hour before the line is of.
    world.clock.set("2026-11-09T23:00:00Z".parse().unwrap());
    let id = asked(&world, Kind::Stripe, &lines).await;
    assert_eq!(delivered(&world, &target, &id).await, [Duration::ZERO; 0]);
    let own = world.now(&id).await;
    assert_eq!((own.done, own.taken, own.parked), (4, 2, 2));
    assert_eq!(vendor.state.lock().refused.len(), 2);
    assert_eq!(values(&vendor).into_values().collect::<Vec<_>>().len(), 2);
    world.assert_conserved();
}

#[tokio::test]
async fn lago_gets_batches_and_knows_what_it_had() {
    let world = World::new().await;
    let moods = [Mood::Busy, Mood::Forgetful, Mood::Well, Mood::Broken];
    let (vendor, target) = vendor(&world, Kind::Lago, "/api/v1/events", &moods).await;
    let mut lines: Vec<RatedLine> = (1..=120).map(|hour| line(HOUR * hour, "0.5")).collect();
    lines.push(lines[0].reversal(lines[0].period, lines[0].rated_at));
    let id = asked(&world, Kind::Lago, &lines).await;
    let waits = delivered(&world, &target, &id).await;
    assert_eq!(waits, [7, 10, 20].map(Duration::from_secs), "nothing of the batch had an answer of its own yet");
    let own = world.now(&id).await;
    assert_eq!((own.done, own.taken, own.parked), (121, 121, 0));
    let said = values(&vendor);
    let exact = |line: &RatedLine| (line.id.to_string(), line.quantity.normalized().to_plain_string());
    assert_eq!(said, lines.iter().map(exact).collect::<BTreeMap<_, _>>());
    let state = vendor.state.lock();
    assert_eq!(state.refused, [""; 0]);
    // The first batch four times, then the first of it alone, which failed; in the end each of it alone, and the second batch.
    assert_eq!((state.repeats, state.requests), (1 + 1 + 100, 4 + 1 + 100 + 1));
    drop(state);
    world.assert_conserved();
}

#[tokio::test]
async fn open_meter_gets_cloud_events() {
    let world = World::new().await;
    let moods = [Mood::Busy, Mood::Forgetful, Mood::Broken];
    let (vendor, target) = vendor(&world, Kind::OpenMeter, "/api/v1/events", &moods).await;
    // A hundred and one: a batch, and one alone.
    let lines: Vec<RatedLine> = (1..=101).map(|hour| line(HOUR * hour, "0.25")).collect();
    let id = asked(&world, Kind::OpenMeter, &lines).await;
    assert_eq!(delivered(&world, &target, &id).await, [7, 10, 20].map(Duration::from_secs));
    let own = world.now(&id).await;
    assert_eq!((own.done, own.taken, own.parked), (101, 101, 0));
    let exact = |line: &RatedLine| (line.id.to_string(), "0.25".to_owned());
    assert_eq!(values(&vendor), lines.iter().map(exact).collect::<BTreeMap<_, _>>());
    let state = vendor.state.lock();
    assert_eq!(state.refused, [""; 0]);
    assert_eq!((state.repeats, state.requests), (100, 5));
    drop(state);
    world.assert_conserved();
}

#[test]
fn the_receivers_refuse_what_is_wrong() {
    let clock = ManualClock::new("2026-11-10T00:00:00Z".parse().unwrap());
    let ask = |kind: Kind, path: &str, content: &str, more: &[(&'static str, &str)], body: &str| {
        let vendor = Vendor { kind, clock: clock.clone(), state: Mutex::default() };
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {KEY}").parse().unwrap());
        headers.insert("content-type", content.parse().unwrap());
        for (name, value) in more {
            headers.insert(*name, value.parse().unwrap());
        }
        vendor.handle("POST", path, &headers, body.as_bytes()).0.0
    };
    let stripe =
        |body: &str| ask(Kind::Stripe, "/v1/billing/meter_events", "application/x-www-form-urlencoded", &[], body);
    let right =
        "event_name=instance&identifier=i&timestamp=1794268800&payload[stripe_customer_id]=cus_1&payload[value]=0.5";
    assert_eq!(stripe(right), 200);
    for (from, to) in [
        ("identifier=i", "x=i"),
        ("identifier=i", format!("identifier={}", "i".repeat(101)).as_str()),
        ("=instance", "=other"),
        ("=0.5", "=1e3"),
        ("=0.5", "=0.1234567890123456"),
        ("1794268800", "2026-11-10T00:00:00Z"),
        ("1794268800", "1794269200"),
        ("1794268800", "1791158399"),
        ("cus_1", "p1"),
        ("=0.5", "=0.5&object=billing.meter_event"),
    ] {
        assert_eq!(stripe(&right.replace(from, to)), 400, "{from} {to}");
    }
    assert_eq!(ask(Kind::Stripe, "/v1/billing/meter_events", "application/json", &[], right), 400);
    let second = json!({"event_name": "instance", "identifier": "i", "timestamp": "2026-11-10T00:00:00Z",
        "payload": {"stripe_customer_id": "cus_1", "value": "0.5"}});
    let version = [("stripe-version", "2024-09-30.acacia")];
    let json_type = "application/json";
    assert_eq!(ask(Kind::Stripe, "/v2/billing/meter_events", json_type, &version, &second.to_string()), 200);
    assert_eq!(ask(Kind::Stripe, "/v2/billing/meter_events", json_type, &[], &second.to_string()), 400);
    let mut number = second.clone();
    number["payload"]["value"] = json!(0.5);
    assert_eq!(ask(Kind::Stripe, "/v2/billing/meter_events", json_type, &version, &number.to_string()), 400);
    let lago = json!({"event": {"transaction_id": "1", "external_subscription_id": "s", "code": "c", "timestamp": "1794268800",
        "precise_total_amount_cents": "1.5", "properties": {"value": "1"}}});
    assert_eq!(ask(Kind::Lago, "/api/v1/events", json_type, &[], &lago.to_string()), 200);
    assert_eq!(ask(Kind::Lago, "/api/v1/events/batch", json_type, &[], &lago.to_string()), 400);
    let event = json!({"specversion": "1.0", "id": "1", "source": "a b", "type": "t", "subject": "s",
        "time": "2026-11-10T00:00:00Z", "datacontenttype": "application/json", "data": {"quantity": "1"}});
    let cloud = "application/cloudevents+json";
    assert_eq!(ask(Kind::OpenMeter, "/api/v1/events", cloud, &[], &event.to_string()), 400, "a blank in the source");
    let event = event.to_string().replace("a b", "a%20b");
    assert_eq!(ask(Kind::OpenMeter, "/api/v1/events", cloud, &[], &event), 204);
    assert_eq!(ask(Kind::OpenMeter, "/api/v1/events", json_type, &[], &event), 400);
}
