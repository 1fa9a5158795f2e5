//! The log: what was written is read; a torn end is told apart from damage.

use std::{path::Path, sync::Arc};

use orzo_model::{Point, SeriesId, Timestamp};
use uuid::Uuid;

use super::{
    Writer,
    record::{Entry, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES},
    recovery::{self, Recovered, segment_name},
};
use crate::{StoreError, faults::SimulatedDisk, files::Disk};

const STORE: Uuid = Uuid::from_u128(42);
const SEGMENT_BYTES: u64 = 4096;
const POINT_RECORD_BYTES: usize = RECORD_HEADER_BYTES + 24;

fn entry(number: u64) -> Entry {
    Entry::Points(vec![Point { series: SeriesId(number), timestamp: Timestamp::from_secs(1), value: 1.0 }])
}

/// A log with these groups of one-point records.
fn written(groups: &[u64]) -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    disk.make_directory(Path::new("/wal")).expect("works");
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut writer, _) = Writer::begin(shared, Path::new("/wal"), STORE, 1, 1, 1, SEGMENT_BYTES).expect("works");
    let mut next = 0;
    for group in groups {
        let entries = (0..*group).map(|index| entry(next + index)).collect();
        next += group;
        writer.write(entries).expect("works");
    }
    disk
}

fn read(disk: &SimulatedDisk, covered: u64) -> Result<Recovered, StoreError> {
    recovery::read(disk, Path::new("/wal"), STORE, covered, None)
}

fn flip(disk: &SimulatedDisk, segment: u64, at: usize) {
    let path = Path::new("/wal").join(segment_name(segment));
    let (_, mut bytes) = disk.files().into_iter().find(|(name, _)| *name == path).expect("there");
    bytes[at] ^= 1;
    disk.put(&path, bytes);
}

fn offset(record: usize) -> usize {
    SEGMENT_HEADER_BYTES + record * POINT_RECORD_BYTES
}

#[test]
fn what_was_written_is_read_over_many_segments() {
    let disk = written(&[3; 100]);
    let recovered = read(&disk, 0).expect("whole");
    assert!(recovered.segments.len() > 3);
    assert_eq!(recovered.records.len(), 300);
    for (index, record) in recovered.records.iter().enumerate() {
        assert_eq!(record.sequence, index as u64 + 1);
        assert_eq!(record.entry, entry(index as u64));
    }
    let rest = read(&disk, 250).expect("whole");
    assert_eq!(rest.records.first().map(|record| record.sequence), Some(251));
}

#[test]
fn the_last_group_may_be_torn_in_any_place() {
    // The middle record of the last group is damaged and the one behind it is whole: it was written, never synced.
    let disk = written(&[2, 3]);
    flip(&disk, 1, offset(3) + 20);
    let recovered = read(&disk, 0).expect("a torn tail");
    assert_eq!(recovered.last_sequence, 3);
    assert!(recovered.torn_bytes > 0);
}

#[test]
fn damage_before_the_last_group_is_refused_and_named() {
    for record in 0..4 {
        for at in [0, 5, 17, RECORD_HEADER_BYTES + 3] {
            let disk = written(&[2, 2, 2]);
            flip(&disk, 1, offset(record) + at);
            let error = read(&disk, 0).expect_err("damaged");
            match &error {
                StoreError::Damaged { path, offset: named, .. } => {
                    assert!(path.ends_with(segment_name(1)), "{error}");
                    assert_eq!(*named, offset(record) as u64, "{error}");
                }
                _ => panic!("{error}"),
            }
        }
    }
}

#[test]
fn damage_at_the_end_of_a_segment_that_is_not_the_last_is_refused() {
    let disk = written(&[1; 100]);
    let in_first = (SEGMENT_BYTES as usize - SEGMENT_HEADER_BYTES) / POINT_RECORD_BYTES;
    flip(&disk, 1, offset(in_first - 1) + 50);
    assert!(matches!(read(&disk, 0), Err(StoreError::Damaged { .. })));
    read(&disk, in_first as u64).expect("the table covers that segment");
}

#[test]
fn damage_in_what_the_table_covers_does_not_hide_what_it_does_not() {
    let disk = written(&[1, 1, 1, 1]);
    flip(&disk, 1, offset(1) + 50);
    assert!(matches!(read(&disk, 3), Err(StoreError::Damaged { .. })), "record 4 stands behind the damage");
}

#[test]
fn a_missing_or_foreign_segment_is_refused() {
    let disk = written(&[1; 200]);
    disk.take_away(&Path::new("/wal").join(segment_name(2)));
    assert!(matches!(read(&disk, 0), Err(StoreError::Damaged { .. })));
    let other = recovery::read(&written(&[1]), Path::new("/wal"), Uuid::from_u128(1), 0, None);
    assert!(matches!(other, Err(StoreError::Damaged { .. })));
}

#[test]
fn a_damaged_segment_header_is_refused() {
    let disk = written(&[1]);
    flip(&disk, 1, 50);
    assert!(matches!(read(&disk, 0), Err(StoreError::Damaged { .. })));
}
