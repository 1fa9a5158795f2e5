//! The log's bytes: segment headers and records, to and from memory. Pure; `storage/FORMAT.md` has the tables.

use orzo_model::{Point, SeriesId, Timestamp};
use uuid::Uuid;

/// First bytes of a segment.
const SEGMENT_MAGIC: [u8; 8] = *b"ORZOWAL1";
/// Length of a segment's header; records begin here.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// The newest layout of segments and records that is known.
pub(crate) const WAL_VERSION: u32 = 1;
/// First bytes of a record.
const RECORD_MAGIC: [u8; 4] = *b"OZRC";
/// Length of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 48;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;

const POINTS: u16 = 1;
const DELETED_SERIES: u16 = 2;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The store that it belongs to.
    pub(crate) store_id: Uuid,
    /// Its number; names and numbers agree.
    pub(crate) number: u64,
    /// How many times the store had been opened when it was made.
    pub(crate) epoch: u64,
    /// The sequence of its first record; all before it are durable elsewhere.
    pub(crate) first_sequence: u64,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    /// Points of one append.
    Points(Vec<Point>),
    /// These series are gone, with everything written before.
    DeletedSeries(Vec<SeriesId>),
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// One more than the record's before it.
    pub(crate) sequence: u64,
    /// The segment's.
    pub(crate) epoch: u64,
    /// The last sequence that was known to be durable when this was written.
    pub(crate) synced: u64,
    /// What it says.
    pub(crate) entry: Entry,
}

/// Bytes that a record with this entry takes.
pub(crate) fn record_bytes(entry: &Entry) -> usize {
    RECORD_HEADER_BYTES
        + match entry {
            Entry::Points(points) => points.len() * 24,
            Entry::DeletedSeries(series) => series.len() * 8,
        }
}

pub(crate) fn encode_segment_header(header: &SegmentHeader) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&WAL_VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(header.store_id.as_bytes());
    bytes[32..40].copy_from_slice(&header.number.to_le_bytes());
    bytes[40..48].copy_from_slice(&header.epoch.to_le_bytes());
    bytes[48..56].copy_from_slice(&header.first_sequence.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a segment's header, or says what is wrong with it.
pub(crate) fn decode_segment_header(bytes: &[u8]) -> Result<SegmentHeader, String> {
    let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
        return Err("it is shorter than its header".to_owned());
    };
    if bytes[0..8] != SEGMENT_MAGIC {
        return Err("it does not begin as a log segment does".to_owned());
    }
    if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
        return Err("the header's checksum does not match".to_owned());
    }
    let version = u32_at(bytes, 8);
    if version != WAL_VERSION {
        return Err(format!("it has version {version}, known is {WAL_VERSION}"));
    }
    let mut store_id = [0; 16];
    store_id.copy_from_slice(&bytes[16..32]);
    Ok(SegmentHeader {
        store_id: Uuid::from_bytes(store_id),
        number: u64_at(bytes, 32),
        epoch: u64_at(bytes, 40),
        first_sequence: u64_at(bytes, 48),
    })
}

/// Appends a record's bytes. `salt` is the store's id: what a client wrote as values can then not be read as a record.
pub(crate) fn encode_record(record: &Record, salt: Uuid, out: &mut Vec<u8>) {
    let start = out.len();
    let (kind, count) = match &record.entry {
        Entry::Points(points) => (POINTS, points.len()),
        Entry::DeletedSeries(series) => (DELETED_SERIES, series.len()),
    };
    let body_bytes = record_bytes(&record.entry) - RECORD_HEADER_BYTES;
    out.reserve(RECORD_HEADER_BYTES + body_bytes);
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(body_bytes as u32).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&record.sequence.to_le_bytes());
    out.extend_from_slice(&record.epoch.to_le_bytes());
    out.extend_from_slice(&record.synced.to_le_bytes());
    out.extend_from_slice(&(count as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    match &record.entry {
        Entry::Points(points) => {
            for point in points {
                out.extend_from_slice(&point.series.0.to_le_bytes());
            }
            for point in points {
                out.extend_from_slice(&point.timestamp.micros().to_le_bytes());
            }
            for point in points {
                out.extend_from_slice(&point.value.to_bits().to_le_bytes());
            }
        }
        Entry::DeletedSeries(series) => {
            for series in series {
                out.extend_from_slice(&series.0.to_le_bytes());
            }
        }
    }
    let crc = checksum(&out[start + 8..], salt);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// The record that begins here and its length, if a whole and undamaged one does.
pub(crate) fn decode_record(bytes: &[u8], salt: Uuid) -> Option<(Record, usize)> {
    let header = bytes.get(..RECORD_HEADER_BYTES)?;
    if header[..4] != RECORD_MAGIC {
        return None;
    }
    let length = RECORD_HEADER_BYTES.checked_add(u32_at(header, 8) as usize)?;
    let bytes = bytes.get(..length)?;
    if checksum(&bytes[8..], salt) != u32_at(bytes, 4) {
        return None;
    }
    let (kind, count) = (u16::from_le_bytes([bytes[12], bytes[13]]), u32_at(bytes, 40) as usize);
    let body = &bytes[RECORD_HEADER_BYTES..];
    let entry = match kind {
        POINTS if body.len() == count.checked_mul(24)? => {
            let point = |index: usize| Point {
                series: SeriesId(u64_at(body, index * 8)),
                timestamp: Timestamp::from_micros(u64_at(body, (count + index) * 8) as i64),
                value: f64::from_bits(u64_at(body, (2 * count + index) * 8)),
            };
            Entry::Points((0..count).map(point).collect())
        }
        DELETED_SERIES if body.len() == count.checked_mul(8)? => {
            Entry::DeletedSeries((0..count).map(|index| SeriesId(u64_at(body, index * 8))).collect())
        }
        _ => return None,
    };
    let record = Record { sequence: u64_at(bytes, 16), epoch: u64_at(bytes, 24), synced: u64_at(bytes, 32), entry };
    Some((record, length))
}

fn checksum(bytes: &[u8], salt: Uuid) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(salt.as_bytes()), bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(entry: Entry) -> Record {
        Record { sequence: 7, epoch: 2, synced: 6, entry }
    }

    fn point(series: u64, micros: i64, value: f64) -> Point {
        Point { series: SeriesId(series), timestamp: Timestamp::from_micros(micros), value }
    }

    #[test]
    fn records_come_back_bit_by_bit() {
        let salt = Uuid::from_u128(5);
        let not_a_number = f64::from_bits(0x7ff8_dead_beef_0001);
        let points = vec![
            point(1, Timestamp::MIN.micros(), f64::INFINITY),
            point(i64::MAX as u64, Timestamp::MAX.micros(), -0.0),
            point(3, 0, not_a_number),
        ];
        let mut bytes = Vec::new();
        encode_record(&record(Entry::Points(points.clone())), salt, &mut bytes);
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let (read, length) = decode_record(&bytes, salt).expect("whole");
        assert_eq!(length, bytes.len());
        let Entry::Points(read) = read.entry else { panic!("points") };
        for (read, written) in read.iter().zip(&points) {
            assert_eq!((read.series, read.timestamp), (written.series, written.timestamp));
            assert_eq!(read.value.to_bits(), written.value.to_bits());
        }
        let deleted = record(Entry::DeletedSeries(vec![SeriesId(4), SeriesId(9)]));
        let mut bytes = Vec::new();
        encode_record(&deleted, salt, &mut bytes);
        assert_eq!(decode_record(&bytes, salt).expect("whole").0, deleted);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_record_is_noticed() {
        let salt = Uuid::from_u128(5);
        let mut bytes = Vec::new();
        encode_record(&record(Entry::Points(vec![point(1, 2, 3.0), point(4, 5, 6.0)])), salt, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_record(&damaged, salt), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(decode_record(&bytes[..length], salt), None, "{length} bytes");
        }
        assert_eq!(decode_record(&bytes, Uuid::from_u128(6)), None, "another store's");
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_noticed() {
        let header = SegmentHeader { store_id: Uuid::from_u128(1), number: 2, epoch: 3, first_sequence: 4 };
        let bytes = encode_segment_header(&header);
        assert_eq!(decode_segment_header(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_segment_header(&damaged).is_err(), "bit {bit}");
        }
    }
}
