//! The ledger on a disk that breaks at every operation in turn, in every way a disk can break: what was acknowledged is
//! there exactly once, the rest whole or not at all.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::TryStreamExt;
use orzo_model::{ManualClock, Timestamp, rooms::Rooms};
use orzo_rating::{BigDecimal, Ledger, LedgerError, LineFilter, LineKind, RatedLine, cost_of};
use orzo_store::{
    faults::{Fault, Restart, SimulatedDisk},
    files::{Disk, real::RealDisk},
};
use uuid::Uuid;

use crate::LedgerTable;

const ROOT: &str = "/ledger";
/// 2026-11-01.
const START: i64 = 1_793_491_200;

fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<LedgerTable, LedgerError> {
    let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
    LedgerTable::open(disk, root, ManualClock::new(Timestamp::from_secs(START)), room)
}

/// With a checkpoint after every so many commits.
fn open_every(disk: Arc<dyn Disk>, root: &Path, commits: u64) -> Result<LedgerTable, LedgerError> {
    let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
    LedgerTable::open_with(disk, root, ManualClock::new(Timestamp::from_secs(START)), room, commits)
}

/// The lines of an hour: some resources of some projects.
fn lines(hour: i64, count: usize) -> Vec<RatedLine> {
    let begin = Timestamp::from_secs(START + hour * 3600);
    let line = |number: usize| {
        let resource = format!("r{number}");
        let fact = |name: &str, value: &str| Arc::new([(name.to_owned(), value.to_owned())].into());
        RatedLine {
            id: Uuid::nil(),
            scope: format!("p{}", number % 3),
            service: "instance".to_owned(),
            begin,
            end: Timestamp::from_secs(START + hour * 3600 + 3600),
            period: begin,
            unit: "instance".to_owned(),
            quantity: BigDecimal::from(1),
            unit_price: BigDecimal::from(2),
            cost: cost_of(&"0.0123456789".parse().expect("a number")),
            currency: "EUR".to_owned(),
            kind: LineKind::Usage,
            corrects: None,
            reverses: false,
            rule: "r".to_owned(),
            rule_version: 1,
            sequence: 0,
            groupby: fact("id", &resource),
            metadata: fact("flavor_name", "tiny"),
            samples: 6,
            rated_at: begin,
            resource,
        }
        .identified()
    };
    (0..count).map(line).collect()
}

async fn read(ledger: &LedgerTable, filter: LineFilter) -> Vec<RatedLine> {
    ledger.read(&filter).await.expect("read").try_collect().await.expect("whole lines")
}

fn ids(lines: &[RatedLine]) -> BTreeSet<Uuid> {
    lines.iter().map(|line| line.id).collect()
}

#[tokio::test]
async fn lines_come_back_in_order_once_each_also_after_merging_and_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("ledger");
    let ledger = open(Arc::new(RealDisk), &root).expect("made");
    let hours = [5, 1, 3, 800];
    let mut all = Vec::new();
    for hour in hours {
        let batch = lines(hour, 7);
        assert_eq!(ledger.append(batch.clone()).await.expect("kept"), 7);
        all.extend(batch);
    }
    assert_eq!(ledger.append(lines(3, 9)).await.expect("kept"), 2, "seven were there");
    all.extend(lines(3, 9).split_off(7));
    all.sort_by(|a, b| a.place().cmp(&b.place()));
    assert_eq!(read(&ledger, LineFilter::default()).await, all);
    // A reader beside it sees the same.
    let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
    let clock = ManualClock::new(Timestamp::from_secs(START));
    let beside = LedgerTable::open_to_read(Arc::new(RealDisk), &root, clock, room).expect("opened");
    assert_eq!(read(&beside, LineFilter::default()).await, all);
    assert!(beside.append(lines(9, 1)).await.is_err(), "it only reads");
    assert_eq!(ledger.compact_at(2).await.expect("merged"), 4, "the four of November");
    assert_eq!(ledger.stats().files, 2);
    assert_eq!(read(&ledger, LineFilter::default()).await, all);
    assert_eq!(read(&beside, LineFilter::default()).await, all);
    assert_eq!(ledger.append(lines(1, 7)).await.expect("kept"), 0, "also found in merged files");
    assert_eq!(ledger.verify().await.expect("verified"), Vec::<String>::new());
    assert!(open(Arc::new(RealDisk), &root).is_err(), "one process has it");
    drop(ledger);
    let ledger = open(Arc::new(RealDisk), &root).expect("opened again");
    assert_eq!(read(&ledger, LineFilter::default()).await, all);
    assert_eq!(ledger.append(lines(800, 7)).await.expect("kept"), 0);
}

#[tokio::test]
async fn what_is_asked_for_is_found_and_projects_see_their_own() {
    let ledger = open(Arc::new(SimulatedDisk::default()), Path::new(ROOT)).expect("made");
    for hour in 0..4 {
        ledger.append(lines(hour, 6)).await.expect("kept");
    }
    let own = LineFilter { scopes: Some(vec!["p1".to_owned()]), ..LineFilter::default() };
    assert!(read(&ledger, own.clone()).await.iter().all(|line| line.scope == "p1"));
    assert_eq!(read(&ledger, own).await.len(), 8);
    let nobody = LineFilter { scopes: Some(Vec::new()), ..LineFilter::default() };
    assert_eq!(read(&ledger, nobody).await.len(), 0);
    let hour = |hour: i64| Some(Timestamp::from_secs(START + hour * 3600));
    let filter = LineFilter { begin: hour(1), end: hour(3), ..LineFilter::default() };
    assert_eq!(read(&ledger, filter).await.len(), 12);
    let filter = LineFilter { used_from: hour(3), used_before: hour(9), ..LineFilter::default() };
    assert_eq!(read(&ledger, filter).await.len(), 6);
    let filter = LineFilter { equals: [("id".to_owned(), "r2".to_owned())].into(), ..LineFilter::default() };
    assert_eq!(read(&ledger, filter).await.len(), 4);
}

#[tokio::test]
async fn a_correction_that_is_tried_again_in_a_later_period_is_not_kept_twice() {
    let ledger = open(Arc::new(SimulatedDisk::default()), Path::new(ROOT)).expect("made");
    let line = lines(1, 1).remove(0);
    ledger.append(vec![line.clone()]).await.expect("kept");
    let at = |hour: i64| Timestamp::from_secs(START + hour * 3600);
    assert_eq!(ledger.append(vec![line.reversal(at(50), at(51))]).await.expect("kept"), 1);
    assert_eq!(ledger.append(vec![line.reversal(at(900), at(901))]).await.expect("kept"), 0);
    let sum: BigDecimal = read(&ledger, LineFilter::default()).await.iter().map(|line| line.cost.clone()).sum();
    assert_eq!(sum, BigDecimal::from(0));
}

#[tokio::test]
async fn what_the_columns_cannot_say_exactly_is_refused_whole() {
    let ledger = open(Arc::new(SimulatedDisk::default()), Path::new(ROOT)).expect("made");
    let mut batch = lines(1, 2);
    batch[1].cost = "0.00000000001".parse().expect("a number");
    let error = ledger.append(batch).await.expect_err("too fine");
    assert!(error.to_string().contains("has more than 38 digits, 10 of them after the point"), "{error}");
    let mut batch = lines(1, 1);
    batch[0].quantity = "1e30".parse().expect("a number");
    assert!(matches!(ledger.append(batch).await, Err(LedgerError::Invalid { .. })));
    let mut batch = lines(1, 1);
    batch[0].scope = "another".to_owned();
    let error = ledger.append(batch).await.expect_err("a wrong id");
    assert!(error.to_string().contains("its id is not that of its contents"), "{error}");
    assert_eq!(read(&ledger, LineFilter::default()).await, Vec::new());
    let balance = ledger.balance();
    assert!(balance.is_conserved(), "{balance:?}");
    assert_eq!((balance.received, balance.refused), (4, 4));
}

#[tokio::test]
async fn a_flipped_bit_is_told() {
    let disk = SimulatedDisk::default();
    let ledger = open(Arc::new(disk.clone()), Path::new(ROOT)).expect("made");
    ledger.append(lines(1, 3)).await.expect("kept");
    let (path, mut bytes) =
        disk.files().into_iter().find(|(path, _)| path.to_string_lossy().ends_with(".parquet")).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk.put(&path, bytes);
    let read: Result<Vec<_>, _> = async { ledger.read(&LineFilter::default()).await?.try_collect().await }.await;
    assert!(matches!(read, Err(LedgerError::Damaged { .. })), "{read:?}");
    assert!(!ledger.verify().await.expect("verified").is_empty());
}

/// What one life of a ledger does; says what was acknowledged.
async fn life(disk: &SimulatedDisk, acknowledged: &mut Vec<Vec<RatedLine>>) {
    // Checkpoints come between.
    let Ok(ledger) = open_every(Arc::new(disk.booted()), Path::new(ROOT), 2) else { return };
    for hour in 0..3 {
        let batch = lines(hour, 3);
        if ledger.append(batch.clone()).await.is_ok() {
            acknowledged.push(batch);
        } else if ledger.append(batch.clone()).await.is_ok() {
            // As the processor does it.
            acknowledged.push(batch);
        }
        let _ = ledger.compact_at(2).await;
    }
}

#[tokio::test]
async fn broken_at_any_operation_what_was_acknowledged_is_there_once() {
    let whole = SimulatedDisk::default();
    life(&whole, &mut Vec::new()).await;
    let count = whole.operations();
    assert!(count > 40, "{count} operations");
    let kinds = [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull];
    let mut runs = 0;
    for operation in 0..count {
        let mut faults = vec![Fault::Stop { operation }];
        faults.extend(kinds.map(|kind| Fault::FailOnce { operation, kind, applied: operation % 2 == 0 }));
        for fault in faults {
            // A power cut leaves no more than a kill does; which names and sectors it leaves is the seed's choice.
            for restart in [Restart::PowerCut { seed: operation }, Restart::PowerCut { seed: !operation }] {
                let disk = SimulatedDisk::default();
                disk.set_fault(fault);
                let mut acknowledged = Vec::new();
                life(&disk, &mut acknowledged).await;
                disk.restart(restart);
                let what = format!("{fault:?} {restart:?}");
                let opened = open_every(Arc::new(disk.booted()), Path::new(ROOT), 2);
                let ledger = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
                let found = read(&ledger, LineFilter::default()).await;
                let found_ids = ids(&found);
                assert_eq!(found_ids.len(), found.len(), "{what}: a line is there twice");
                for batch in &acknowledged {
                    assert!(ids(batch).is_subset(&found_ids), "{what}: an acknowledged line is missing");
                }
                for hour in 0..3 {
                    let there = ids(&lines(hour, 3)).intersection(&found_ids).count();
                    assert!(there == 0 || there == 3, "{what}: a part of a batch");
                }
                // It goes on, and nothing is added to what is there.
                for hour in 0..3 {
                    ledger.append(lines(hour, 3)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                }
                assert_eq!(read(&ledger, LineFilter::default()).await.len(), 9, "{what}");
                runs += 1;
            }
        }
    }
    println!("{runs} runs of {count} operations");
}

#[tokio::test]
async fn a_file_of_many_row_groups_is_read_as_the_filter_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let ledger = open(Arc::new(RealDisk), &directory.path().join("ledger")).expect("made");
    // Three row groups, and corrections whose time of use lies before their period.
    let mut all: Vec<RatedLine> = (0..70).flat_map(|hour| lines(hour, 1000)).collect();
    let late = Timestamp::from_secs(START + 60 * 3600);
    let corrected: Vec<RatedLine> = all.iter().take(10).map(|line| line.reversal(late, late)).collect();
    all.extend(corrected);
    assert_eq!(ledger.append(all.clone()).await.expect("kept"), 70_010);
    assert_eq!(ledger.stats().files, 1);
    all.sort_by(|a, b| a.place().cmp(&b.place()));
    let at = |hour: i64| Some(Timestamp::from_secs(START + hour * 3600));
    let filters = [
        LineFilter { used_from: at(0), used_before: at(1), ..LineFilter::default() },
        LineFilter { used_from: at(33), used_before: at(34), ..LineFilter::default() },
        LineFilter { begin: at(60), end: at(61), ..LineFilter::default() },
        LineFilter { begin: at(69), ..LineFilter::default() },
        LineFilter { begin: at(70), ..LineFilter::default() },
    ];
    for filter in filters {
        let expected: Vec<RatedLine> = all.iter().filter(|line| filter.takes(line)).cloned().collect();
        assert_eq!(read(&ledger, filter.clone()).await.len(), expected.len(), "{filter:?}");
        assert_eq!(ids(&read(&ledger, filter).await), ids(&expected));
    }
}

/// A ledger of eleven batches with checkpoints after the fourth and the eighth commit; its lines.
async fn checkpointed(root: &Path) -> Vec<RatedLine> {
    let ledger = open_every(Arc::new(RealDisk), root, 4).expect("made");
    for hour in 0..11 {
        ledger.append(lines(hour, 3)).await.expect("kept");
    }
    assert_eq!(ledger.stats().version, 11);
    read(&ledger, LineFilter::default()).await
}

fn commit(root: &Path, number: u64) -> PathBuf {
    root.join(orzo_store::delta::LOG).join(orzo_store::delta::commit_name(number))
}

fn copy(root: &Path, number: u64) -> PathBuf {
    root.with_extension("snapshots").join(orzo_store::delta::commit_name(number))
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn opening_reads_the_newest_checkpoint_and_the_commits_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("ledger");
    let all = checkpointed(&root).await;
    assert_eq!(all.len(), 33);
    // What is before the checkpoint is not looked at.
    (0..8).for_each(|number| damage(&commit(&root, number)));
    let again = open_every(Arc::new(RealDisk), &root, 4).expect("opened");
    assert_eq!((again.stats().version, read(&again, LineFilter::default()).await), (11, all.clone()));
    assert_eq!(again.verify().await.expect("verified"), Vec::<String>::new());
    let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
    let clock = ManualClock::new(Timestamp::from_secs(START));
    let beside = LedgerTable::open_to_read(Arc::new(RealDisk), &root, clock, room).expect("opened");
    assert_eq!(read(&beside, LineFilter::default()).await, all);
    // It goes on: what is there is known, merging and the next checkpoint work.
    assert_eq!(again.append(lines(2, 3)).await.expect("kept"), 0);
    assert_eq!(again.compact_at(2).await.expect("merged"), 11);
    assert_eq!(again.append(lines(11, 3)).await.expect("kept"), 3);
    drop(again);
    let again = open_every(Arc::new(RealDisk), &root, 4).expect("opened");
    assert_eq!((again.stats().version, read(&again, LineFilter::default()).await.len()), (13, 36));
    assert!(copy(&root, 12).exists() && copy(&root, 8).exists() && !copy(&root, 4).exists(), "the newest two are kept");
    assert_eq!(read(&beside, LineFilter::default()).await.len(), 36);
    drop(again);
    // What is after it is: nothing opens as if it were not there.
    damage(&commit(&root, 13));
    assert!(matches!(open(Arc::new(RealDisk), &root), Err(LedgerError::Damaged { .. })));
}

#[tokio::test]
async fn a_copy_that_is_damaged_or_of_another_log_is_passed_over_and_never_believed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (root, other) = (directory.path().join("ledger"), directory.path().join("other"));
    let all = checkpointed(&root).await;
    let stranger = open_every(Arc::new(RealDisk), &other, 4).expect("made");
    for hour in 100..111 {
        stranger.append(lines(hour, 3)).await.expect("kept");
    }
    let says_all = async || {
        let ledger = open(Arc::new(RealDisk), &root).expect("opened");
        assert_eq!((ledger.stats().version, read(&ledger, LineFilter::default()).await), (11, all.clone()));
    };
    let (fourth, eighth) = (std::fs::read(copy(&root, 4)), std::fs::read(copy(&root, 8)));
    let (fourth, eighth) = (fourth.expect("a copy"), eighth.expect("a copy"));
    says_all().await;
    // Every byte, and every length.
    for place in (0..eighth.len()).step_by(97).chain([eighth.len() - 1]) {
        let mut bytes = eighth.clone();
        bytes[place] ^= 1;
        std::fs::write(copy(&root, 8), bytes).expect("written");
        says_all().await;
        std::fs::write(copy(&root, 8), &eighth[..place]).expect("written");
        says_all().await;
    }
    // Whole, but of an earlier version, or of another table.
    std::fs::write(copy(&root, 8), &fourth).expect("written");
    says_all().await;
    std::fs::copy(copy(&other, 8), copy(&root, 8)).expect("copied");
    says_all().await;
    // Without any that is whole the commits say it.
    damage(&copy(&root, 4));
    says_all().await;
    // And without those nothing does.
    damage(&commit(&root, 2));
    assert!(matches!(open(Arc::new(RealDisk), &root), Err(LedgerError::Damaged { .. })));
    // A log that ends before its checkpoint has lost what was acknowledged.
    std::fs::write(copy(&root, 8), &eighth).expect("written");
    (8..12).for_each(|number| std::fs::remove_file(commit(&root, number)).expect("removed"));
    let error = open(Arc::new(RealDisk), &root).err().expect("refused").to_string();
    assert!(error.contains("commit 8 is missing"), "{error}");
}
