//! Two evaluators in processes of their own share the alarms of one PostgreSQL and read the samples of a third process.
//! Again and again one of them is stopped in the middle of whatever it does (SIGSTOP), the other takes over, and the
//! stopped one goes on, with everything in memory that it believed; or it is killed. No transition is missed and none
//! happens twice. `ORZO_TEST_STOPS=100` makes the long run of it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use orzo_database::Database;
use orzo_model::{Clock, SystemClock};

use super::alarms::{SETTINGS, plan::Plan, verdict::judge, wait_until_all_is_told};
use crate::support::{
    faulty_receiver::{FAULTS, FaultyReceiver},
    has_real_parts,
    orzo::{Orzo, runtime},
    servers::Server,
    wait_for,
};

/// Stops in the test; more by `ORZO_TEST_STOPS`.
const STOPS_DEFAULT: usize = 4;
/// `alarms.lag` in seconds: samples are acknowledged well before, on a machine that is busy with other tests, too.
const LAG: i64 = 12;
/// The same for long runs, which meet every hiccup of a machine.
const LONG_LAG: i64 = 30;
/// More stops than this are a long run.
const SHORT_STOPS_MAX: usize = 8;
/// A lease of 2 s runs out, and a transaction that was stopped with it gives its rows back after 10 s.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn of_two_evaluators_one_may_be_stopped_at_any_moment() {
    if !has_real_parts("evaluators") {
        return;
    }
    runtime();
    let stops = std::env::var("ORZO_TEST_STOPS").ok().and_then(|n| n.parse().ok()).unwrap_or(STOPS_DEFAULT);
    let lag = if stops > SHORT_STOPS_MAX { LONG_LAG } else { LAG };
    let directory = tempfile::tempdir().unwrap();
    let database = Server::postgres(directory.path());
    let at = |name: &str| {
        let own = directory.path().join(name);
        std::fs::create_dir(&own).unwrap();
        own
    };
    let shared = |roles: &str| {
        let mut settings: toml::Table = SETTINGS.parse().unwrap();
        let mut set = |section: &str, key: &str, value: toml::Value| {
            let section = settings.entry(section).or_insert_with(|| toml::Table::new().into());
            section.as_table_mut().unwrap().insert(key.to_owned(), value);
        };
        set("database", "url", database.url().into());
        set("identity", "password", "the password of services".into());
        set("alarms", "signing_secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        set("alarms", "lag", format!("{lag}s").into());
        set("log", "level", "info".into());
        let roles: Vec<toml::Value> = roles.split(' ').map(Into::into).collect();
        set("server", "roles", roles.into());
        settings
    };
    let store = Orzo::start(&at("store"), &toml::to_string(&shared("cloud collector api")).unwrap());
    let evaluator = |name: &str| {
        let mut settings = shared("alarms");
        settings["identity"].as_table_mut().unwrap().insert("url".into(), store.url("/identity/v3").into());
        settings["alarms"].as_table_mut().unwrap().insert("reader_url".into(), store.url("/").into());
        Orzo::start(&at(name), &toml::to_string(&settings).unwrap())
    };
    let mut evaluators = [evaluator("one"), evaluator("two")];
    let receivers: Vec<FaultyReceiver> = FAULTS.into_iter().map(FaultyReceiver::start).collect();
    let clock = SystemClock::new();
    let token = store.token();
    let book = runtime().block_on(Database::open(&database.url())).unwrap();
    let mut plan = Plan::make(&store, &token, &receivers, lag);
    let mut interruptions = Vec::new();
    let mut kills = 0;
    for stop in 0..stops {
        let is_over = AtomicBool::new(false);
        let wait = Duration::from_millis(rand::random_range(500..2500));
        let victim = &mut evaluators[stop % 2];
        let id = std::fs::read_to_string(victim.data().join("alarms.holder")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if !plan.post(&[&store], &token) {
                        break;
                    }
                }
            });
            let _over = Over(&is_over);
            std::thread::sleep(wait);
            wait_for("both to have a share", TAKE_OVER_LIMIT, || (partitions(&book, id.trim()) > 0).then_some(()));
            if stop % 4 == 3 {
                victim.kill();
                kills += 1;
            } else {
                victim.signal("STOP");
            }
            interruptions.push(clock.now());
            wait_for("the other to take over", TAKE_OVER_LIMIT, || (partitions(&book, id.trim()) == 0).then_some(()));
        });
        interruptions.push(clock.now());
        if stop % 4 == 3 {
            victim.restart();
        } else {
            victim.signal("CONT");
        }
    }
    plan.catch_up(&[&store], &token);
    receivers.iter().for_each(FaultyReceiver::heal);
    wait_until_all_is_told(&plan, &store, &token);
    let verdict = judge(&plan, &store, &token, &receivers, &interruptions);
    let refused: usize = evaluators.iter().map(|one| one.log_lines("another evaluator has taken this partition")).sum();
    eprintln!(
        "{} stops, {kills} kills of one of two evaluators, {refused} writes of a stopped one refused, {verdict:?}",
        stops - kills
    );
    verdict.assert_clean();
    evaluators.iter().for_each(Orzo::assert_conserved);
    store.assert_conserved();
}

/// Ends the posting of samples, also when something panics: the scope waits for it.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many partitions of the alarms an evaluator has by its own name.
fn partitions(book: &Database, holder: &str) -> i64 {
    let sql = "SELECT count(*) AS n FROM alarm_partitions WHERE owner LIKE $1";
    let row = runtime().block_on(book.query_one(sql, &[format!("{holder}@%").into()])).unwrap();
    row.and_then(|row| row.int("n")).unwrap()
}
