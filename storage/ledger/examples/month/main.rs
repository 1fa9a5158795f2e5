//! Bills of a simulated month beside what is truly owed, through the real processor, book, rules and ledger: how many
//! micro-units they differ by, whether every slot that was not polled is told and no other, and whether any second of a server
//! is charged twice.
//!
//! Both halves are closed a few hours after their end, while events of them are still to come for two days, and exported when they
//! are closed: in the end no closed line has changed, what came late is booked in later periods, and the exports made again
//! have the same bytes.
//!
//! `cargo run -p orzo-ledger --example month -- [SERVERS] [DAYS] [SEEDS] [cuts|planted]`. Ends with a failure if anything
//! differs. With `cuts` the ledger's disk loses its power again and again, at any of its operations, while usage is rated,
//! corrected, closed and exported. With `planted` the rating is told something false on purpose, in several ways, each of which must be
//! found: an oracle that finds nothing says nothing.

mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bigdecimal::{BigDecimal, ToPrimitive};
use futures::TryStreamExt;
use orzo_database::Database;
use orzo_export::{Catalogue, Manifest, Profile, Request, SigningKey};
use orzo_ledger::LedgerTable;
use orzo_model::{Clock, ManualClock, Rooms, Timestamp};
use orzo_rating::{
    Kind, Ledger, LineFilter, Metrics, NewMapping, Processor, RatedLine, RatingBook, RatingSettings, RulesOf,
    doors::{Evidence, UsageReadError, UsageReader, Wanted},
    processor::Report,
};
use orzo_store::{
    faults::{Fault, Restart, SimulatedDisk},
    files::{Disk, real::RealDisk},
};
use world::{FLAVORS, STOPPED_PER_MILLE, World};

/// 2026-03-01: the month of Europe's change to summer time, and of America's.
const MARCH: i64 = 1_772_323_200;

/// Something false that the rating is told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plant {
    /// Events of changes say a second too late.
    Second,
    /// A server is there twice, under two names.
    Doubled,
    /// A slot that was not polled has a point.
    Hidden,
    /// A slot that was polled has none.
    Taken,
    /// An event that polling did not see either never comes.
    Silent,
}

/// The world as far as it is known at the clock's time.
struct Known {
    world: World,
    clock: Arc<ManualClock>,
    plant: Option<Plant>,
}

impl Plant {
    const ALL: [Self; 5] = [Self::Second, Self::Doubled, Self::Hidden, Self::Taken, Self::Silent];

    fn into_evidence(self, evidence: &mut Vec<Evidence>) {
        match self {
            Self::Second => {
                for event in evidence.iter_mut().flat_map(|own| &mut own.events) {
                    if event.event_type.contains("power_") {
                        event.generated_at = event.generated_at.plus(Duration::from_secs(1));
                    }
                }
            }
            Self::Doubled => {
                let first = evidence.iter().find(|own| own.resource == DOUBLED).cloned();
                evidence.extend(first.map(|own| Evidence { resource: format!("{DOUBLED}-again"), ..own }));
            }
            Self::Hidden => {
                for points in evidence.iter_mut().flat_map(|own| own.measures.values_mut()) {
                    let gap =
                        points.windows(2).position(|pair| pair[1].timestamp.secs() - pair[0].timestamp.secs() > 600);
                    if let Some(place) = gap {
                        let between = points[place].timestamp.floor(SLOT_WIDTH).plus(SLOT_WIDTH);
                        points.insert(place + 1, orzo_model::Measure { timestamp: between, value: 0.0 });
                    }
                }
            }
            Self::Taken => {
                for points in evidence.iter_mut().flat_map(|own| own.measures.values_mut()) {
                    points.retain(|point| point.timestamp.secs() % 86_400 != 43_200);
                }
            }
            Self::Silent => {
                for own in evidence.iter_mut() {
                    own.events.retain(|event| !event.event_type.contains("power_off"));
                }
            }
        }
    }
}

/// The server that [`Plant::Doubled`] shows twice: it lives from before the month.
const DOUBLED: &str = "server-00001";
/// A rating period.
const HOUR: Duration = Duration::from_secs(3600);
/// Width of a slot.
const SLOT_WIDTH: Duration = Duration::from_secs(world::SLOT as u64);

#[async_trait]
impl UsageReader for Known {
    async fn scopes(&self, _: Timestamp, _: Timestamp) -> Result<Vec<String>, UsageReadError> {
        Ok((0..self.world.projects).map(|number| format!("project-{number:03}")).collect())
    }

    async fn evidence(
        &self,
        scope: &str,
        begin: Timestamp,
        end: Timestamp,
        _: &[Wanted],
    ) -> Result<Vec<Evidence>, UsageReadError> {
        let mut evidence = self.world.evidence(scope, begin.secs(), end.secs(), self.clock.now().secs());
        if let Some(plant) = self.plant {
            plant.into_evidence(&mut evidence);
        }
        Ok(evidence)
    }

    async fn first(&self, _: &str) -> Result<Option<Timestamp>, UsageReadError> {
        Ok(None)
    }

    async fn late(
        &self,
        after: Option<i64>,
        begin: Timestamp,
    ) -> Result<(Vec<(String, Timestamp)>, i64), UsageReadError> {
        let now = self.clock.now().secs();
        let came = self.world.came(after.unwrap_or(begin.secs()), now);
        Ok((came.into_iter().map(|(scope, at)| (scope, Timestamp::from_secs(at))).collect(), now))
    }
}

fn steps(number: &BigDecimal) -> i128 {
    number.with_scale(10).into_bigint_and_exponent().0.to_i128().unwrap_or(i128::MAX)
}

fn owed_by(lines: &[RatedLine]) -> BTreeMap<String, i128> {
    let mut sums = BTreeMap::new();
    for line in lines {
        *sums.entry(line.scope.clone()).or_insert(0) += steps(&line.cost);
    }
    sums
}

fn different(found: &BTreeMap<String, i128>, truth: &BTreeMap<String, i128>) -> (usize, i128) {
    let scopes: std::collections::BTreeSet<&String> = found.keys().chain(truth.keys()).collect();
    let difference =
        |scope: &&String| (found.get(*scope).copied().unwrap_or(0) - truth.get(*scope).copied().unwrap_or(0)).abs();
    let all: Vec<i128> = scopes.iter().map(difference).filter(|difference| *difference > 0).collect();
    (all.len(), all.iter().sum())
}

async fn price(book: &RatingBook, at: Timestamp) {
    let cost = |steps: i128| BigDecimal::new(steps.into(), 10);
    let service = book.create_service("simulation", "instance").await.expect("made").service_id;
    let flavors = book.create_field("simulation", &service, "flavor_name").await.expect("made").field_id;
    let states = book.create_field("simulation", &service, "state").await.expect("made").field_id;
    let mut mappings: Vec<(String, BigDecimal, Kind, String)> =
        FLAVORS.iter().map(|(name, steps)| ((*name).to_owned(), cost(*steps), Kind::Flat, flavors.clone())).collect();
    let stopped = BigDecimal::new(STOPPED_PER_MILLE.into(), 3);
    mappings.push(("stopped".to_owned(), stopped, Kind::Rate, states));
    for (value, cost, kind, field) in mappings {
        let mapping = NewMapping {
            value: Some(value),
            cost,
            kind,
            service_id: None,
            field_id: Some(field),
            group_id: None,
            tenant_id: None,
            start: Some(at),
            end: None,
            name: None,
            description: None,
            force: true,
        };
        book.create_mapping("simulation", &mapping).await.expect("made");
    }
}

/// Stretches of a server that two lines charge, among those that count.
fn charged_twice(lines: &[RatedLine]) -> usize {
    let mut effective = orzo_rating::processor::effective(lines);
    effective.sort_by(|a, b| (&a.resource, a.begin).cmp(&(&b.resource, b.begin)));
    effective.windows(2).filter(|pair| pair[0].resource == pair[1].resource && pair[0].end > pair[1].begin).count()
}

/// Slots that are told as missing and were polled, or the other way round.
async fn wrong_gaps(processor: &Processor, usage: &Known, begin: i64, end: i64) -> (usize, usize) {
    let mut told = BTreeSet::new();
    for scope in usage.scopes(Timestamp::MIN, Timestamp::MAX).await.expect("scopes") {
        let (from, to) = (Timestamp::from_secs(begin), Timestamp::from_secs(end));
        for own in processor.completeness(&scope, from, to).await.expect("a table").0 {
            for (from, to) in own.missing {
                let slots = (from.secs()..to.secs()).step_by(world::SLOT as usize);
                told.extend(slots.map(|slot| (own.resource.clone(), slot)));
            }
        }
    }
    let truth = usage.world.unpolled_slots();
    (truth.len(), told.symmetric_difference(&truth).count())
}

/// A part of the month that was closed, and what it was then.
struct Closed {
    begin: i64,
    end: i64,
    lines: Vec<RatedLine>,
    exported: Vec<Manifest>,
}

/// Formats that closed parts are exported in.
const EXPORTED: [Profile; 3] = [Profile::FocusCsv, Profile::FocusParquet, Profile::CloudkittyDataframes];

/// Exports of a part; `before` are those that have to come out again, with their files' digests.
async fn exported(ledger: &dyn Ledger, key: &SigningKey, begin: i64, end: i64, before: &[Manifest]) -> Vec<Manifest> {
    let into = tempfile::tempdir().expect("a directory");
    let mut made = Vec::new();
    for (number, profile) in EXPORTED.into_iter().enumerate() {
        let as_of = before.get(number).and_then(|own| own.watermark);
        let (begin, end) = (Timestamp::from_secs(begin), Timestamp::from_secs(end));
        let request = Request { profile, begin, end, scopes: None, as_of, rated_after: None };
        let run = orzo_export::export(ledger, &request, &Catalogue::default(), key, into.path(), &|_| ()).await;
        made.push(run.expect("exported").manifest);
    }
    made
}

/// Closes a part of the month for everybody and exports it.
async fn close(
    processor: &Processor,
    ledger: &dyn Ledger,
    usage: &Known,
    key: &SigningKey,
    (begin, end): (i64, i64),
) -> Closed {
    let (from, to) = (Timestamp::from_secs(begin), Timestamp::from_secs(end));
    for scope in usage.scopes(Timestamp::MIN, Timestamp::MAX).await.expect("scopes") {
        processor.close(&scope, from, to, "simulation").await.expect("closed");
    }
    let exported = exported(ledger, key, begin, end, &[]).await;
    Closed { begin, end, lines: lines(ledger, begin, Some(end)).await, exported }
}

/// One world; what is wrong in the end, in steps of money and pieces: nothing is zero.
async fn simulate(seed: u64, servers: usize, days: i64, has_cuts: bool, plant: Option<Plant>) -> i128 {
    let clock = ManualClock::new(Timestamp::from_secs(MARCH));
    let world = World::new(seed, servers, MARCH, days);
    let (begin, end) = (MARCH, MARCH + days * 86_400);
    let truth = world.owed(begin, end);
    let made = (world.late, world.twice, world.lost, world.unpolled);
    let usage = Arc::new(Known { world, clock: clock.clone(), plant });
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::open_file(&directory.path().join("db")).await.expect("a database");
    let book = Arc::new(RatingBook::open(database, clock.clone()).await.expect("a book"));
    price(&book, Timestamp::from_secs(MARCH - 86_400)).await;
    let simulated = SimulatedDisk::default();
    let root = if has_cuts { "/ledger".into() } else { directory.path().join("ledger") };
    let begin_anew = || {
        let disk: Arc<dyn Disk> = if has_cuts { Arc::new(simulated.booted()) } else { Arc::new(RealDisk) };
        let rooms = Rooms::new(&prometheus::Registry::new());
        let ledger = LedgerTable::open(disk, &root, clock.clone(), rooms.room("ledger")).expect("opened");
        let (door, settings) = (Arc::new(ledger.clone()), RatingSettings::default());
        let (book, usage, clock, room) = (book.clone(), usage.clone(), clock.clone(), rooms.room("rating"));
        (ledger, Processor::new(door, book, usage, Metrics::shipped(), clock, room, settings))
    };
    let (mut ledger, mut processor) = begin_anew();
    let mut cuts = 0;
    let mut dice = world::Dice(seed ^ 0xb111);
    let mut reports = Report::default();
    let key = SigningKey::open(&directory.path().join("key")).expect("a key");
    let half = begin + days / 2 * 86_400;
    let mut to_close = vec![(half, end), (begin, half)];
    let mut closed: Vec<Closed> = Vec::new();
    // Three more days for what is late.
    while clock.now().secs() < end + 3 * 86_400 {
        // The machine is busy or off for a while, and its clock makes a leap now and then.
        clock.advance(Duration::from_secs(3600 * (1 + dice.below(9) as u64)));
        // Each part is closed while events of it are still to come.
        let due = to_close.last().copied().filter(|(_, end)| clock.now().secs() > end + 6 * 3600);
        if has_cuts && (due.is_some() || dice.once_in(2)) {
            let operation = simulated.operations() + dice.below(60) as u64;
            simulated.set_fault(Fault::Stop { operation });
            let outcome = async {
                processor.advance(|_, _| ()).await?;
                processor.catch_up().await?;
                Ok::<_, orzo_rating::ProcessorError>(ledger.compact().await?)
            };
            cuts += u64::from(outcome.await.is_err());
            drop((ledger, processor));
            simulated.restart(Restart::PowerCut { seed: dice.below(i64::MAX) as u64 });
            (ledger, processor) = begin_anew();
        } else if dice.once_in(9) {
            drop((ledger, processor));
            (ledger, processor) = begin_anew();
        }
        reports.add(processor.advance(|_, _| ()).await.expect("rated"));
        reports.add(processor.catch_up().await.expect("looked"));
        ledger.compact().await.expect("merged");
        if let Some(part) = due {
            if has_cuts {
                // In the middle of closing or of exporting, which then has to be done again.
                let operation = simulated.operations() + dice.below(200) as u64;
                simulated.set_fault(Fault::Stop { operation });
                let scopes = usage.scopes(Timestamp::MIN, Timestamp::MAX).await.expect("scopes");
                let (from, to) = (Timestamp::from_secs(part.0), Timestamp::from_secs(part.1));
                let mut is_cut = false;
                for scope in scopes {
                    is_cut |= processor.close(&scope, from, to, "simulation").await.is_err();
                }
                let request = Request {
                    profile: EXPORTED[0],
                    begin: from,
                    end: to,
                    scopes: None,
                    as_of: None,
                    rated_after: None,
                };
                let into = directory.path().join("cut");
                let run = orzo_export::export(&ledger, &request, &Catalogue::default(), &key, &into, &|_| ()).await;
                // What a cut leaves is nothing or whole.
                let left = std::fs::read_dir(&into).map_or(0, Iterator::count);
                assert_eq!(left, usize::from(run.is_ok()), "a cut export left something");
                let _ = std::fs::remove_dir_all(&into);
                cuts += u64::from(is_cut || run.is_err());
                drop((ledger, processor));
                simulated.restart(Restart::PowerCut { seed: dice.below(i64::MAX) as u64 });
                (ledger, processor) = begin_anew();
            }
            closed.push(close(&processor, &ledger, &usage, &key, part).await);
            to_close.pop();
        }
    }
    let all = lines(&ledger, 0, None).await;
    let in_month: Vec<RatedLine> =
        all.iter().filter(|line| line.begin.secs() < end && line.begin.secs() >= begin).cloned().collect();
    let (scopes, wrong) = different(&owed_by(&in_month), &truth);
    let (mut changed, mut other_bytes) = (0, 0);
    for part in &closed {
        changed += usize::from(lines(&ledger, part.begin, Some(part.end)).await != part.lines);
        let again = exported(&ledger, &key, part.begin, part.end, &part.exported).await;
        other_bytes += again.iter().zip(&part.exported).filter(|(again, before)| again != before).count();
    }
    assert!(closed.len() == 2 && closed.iter().all(|part| part.exported.iter().all(|own| own.lines > 0)));
    let corrections = all.iter().filter(|line| line.corrects.is_some()).count();
    let in_later: Vec<&RatedLine> = all.iter().filter(|line| line.begin.floor(HOUR) < line.period).collect();
    // What is not the correction of a line is of usage that nobody had known of: no line of a closed part charges it.
    let unknown = in_later.iter().filter(|line| line.corrects.is_none()).count();
    // Rating all of it once more changes nothing.
    let mut again = 0;
    for scope in usage.scopes(Timestamp::MIN, Timestamp::MAX).await.expect("scopes") {
        let (from, to) = (Timestamp::from_secs(begin), Timestamp::from_secs(end));
        again += processor.rate(&scope, (from, to), RulesOf::Now, true).await.expect("rated again").appended;
    }
    let twice = charged_twice(&all);
    let (gaps, wrong_gaps) = wrong_gaps(&processor, &usage, begin, end).await;
    println!(
        "seed {seed}: {servers} servers, {days} days, {} lines ({corrections} corrections; booked in later periods {}, of them new usage \
         {unknown}); \
         events late {} twice {} lost {} (told as disagreements: {}); {} slots unpolled, of {gaps} that servers lived through \
         {wrong_gaps} told wrongly; {twice} stretches charged twice; power cuts in the middle {cuts}; owed {} micro-units; wrong in {scopes} projects by {} \
         micro-units ({wrong} steps of 1e-10); of {} closed parts {changed} changed, and of {} exports of them {other_bytes} have other bytes when \
         made again; rated again: {again} lines new",
        all.len(),
        in_later.len(),
        made.0,
        made.1,
        made.2,
        reports.findings.iter().filter(|own| own.detail.starts_with("an event was lost")).count(),
        made.3,
        truth.values().sum::<i128>() / 10_000,
        (wrong + 9_999) / 10_000,
        closed.len(),
        closed.len() * EXPORTED.len(),
    );
    let problems = ledger.verify().await.expect("verified");
    for problem in &problems {
        println!("{problem}");
    }
    wrong + i128::from(again) + (changed + other_bytes + problems.len() + twice + wrong_gaps) as i128
}

/// Lines of periods.
async fn lines(ledger: &dyn Ledger, from: i64, until: Option<i64>) -> Vec<RatedLine> {
    let (begin, end) = (Some(Timestamp::from_secs(from)), until.map(Timestamp::from_secs));
    let filter = LineFilter { begin, end, ..LineFilter::default() };
    ledger.read(&filter).await.expect("read").try_collect().await.expect("lines")
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (servers, days, seeds) = (number(1000) as usize, number(31) as i64, number(1));
    let has = |word: &str| std::env::args().any(|argument| argument == word);
    let mut wrong = 0;
    for seed in 1..=seeds {
        if !has("planted") {
            wrong += simulate(seed, servers, days, has("cuts"), None).await;
            continue;
        }
        for plant in Plant::ALL {
            let found = simulate(seed, servers, days, false, Some(plant)).await;
            println!("planted {plant:?}: {}", if found > 0 { "found" } else { "NOT FOUND" });
            wrong += i128::from(found == 0);
        }
    }
    if wrong == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
