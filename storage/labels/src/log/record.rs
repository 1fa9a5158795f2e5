//! The label log's bytes: segment headers and records, to and from memory. Pure; `storage/FORMAT.md` has the tables.

use uuid::Uuid;

const SEGMENT_MAGIC: [u8; 8] = *b"ORZOLBL1";
/// Length of a segment's header; records begin here.
pub(crate) const HEADER_BYTES: usize = 64;
/// The layout that is written. The first had no packed records; every one before is read.
pub(crate) const VERSION: u32 = 2;
const RECORD_MAGIC: [u8; 4] = *b"OZLR";
/// Length of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 40;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The log that it belongs to.
    pub(crate) log_id: Uuid,
    /// Its number; names and numbers agree.
    pub(crate) number: u64,
    /// How many times the log had been opened when it was made.
    pub(crate) epoch: u64,
    /// The sequence of its first record; of a base the first that is not in it.
    pub(crate) first_sequence: u64,
    /// It holds everything before `first_sequence`, and no segment with a lower number counts any more.
    pub(crate) is_base: bool,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pairs and series of a project.
    Series = 1,
    /// Series that are deleted.
    Deleted = 2,
    /// Deleted series whose points are gone.
    Purged = 3,
    /// The end of a base: how many records were before it.
    End = 4,
    /// As series, packed.
    Packed = 5,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    /// One more than the record's before it.
    pub(crate) sequence: u64,
    /// The segment's.
    pub(crate) epoch: u64,
    /// The last sequence that was known to be durable when this was written.
    pub(crate) synced: u64,
    pub(crate) body: &'a [u8],
}

/// Bytes that a record with a body of so many bytes takes.
pub(crate) fn record_bytes(body: usize) -> usize {
    (RECORD_HEADER_BYTES + body).next_multiple_of(ALIGNMENT)
}

pub(crate) fn encode_header(header: &SegmentHeader) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&u32::from(header.is_base).to_le_bytes());
    bytes[16..32].copy_from_slice(header.log_id.as_bytes());
    bytes[32..40].copy_from_slice(&header.number.to_le_bytes());
    bytes[40..48].copy_from_slice(&header.epoch.to_le_bytes());
    bytes[48..56].copy_from_slice(&header.first_sequence.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a segment's header, or says what is wrong with it.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<SegmentHeader, String> {
    let Some(bytes) = bytes.get(..HEADER_BYTES) else { return Err("it is shorter than its header".to_owned()) };
    if bytes[0..8] != SEGMENT_MAGIC {
        return Err("it does not begin as a label log does".to_owned());
    }
    if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
        return Err("the header's checksum does not match".to_owned());
    }
    let version = u32_at(bytes, 8);
    if !(1..=VERSION).contains(&version) {
        return Err(format!("it has version {version}, known are 1 to {VERSION}"));
    }
    let mut log_id = [0; 16];
    log_id.copy_from_slice(&bytes[16..32]);
    Ok(SegmentHeader {
        log_id: Uuid::from_bytes(log_id),
        number: u64_at(bytes, 32),
        epoch: u64_at(bytes, 40),
        first_sequence: u64_at(bytes, 48),
        is_base: u32_at(bytes, 12) == 1,
    })
}

/// Appends a record's bytes. `salt` is the log's id: what a client wrote as a label can then not be read as a record.
pub(crate) fn encode_record(record: &Record<'_>, salt: Uuid, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(record.body.len() as u32).to_le_bytes());
    out.extend_from_slice(&(record.kind as u32).to_le_bytes());
    out.extend_from_slice(&record.sequence.to_le_bytes());
    out.extend_from_slice(&record.epoch.to_le_bytes());
    out.extend_from_slice(&record.synced.to_le_bytes());
    out.extend_from_slice(record.body);
    let crc = checksum(&out[start + 8..], salt);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + record_bytes(record.body.len()), 0);
}

/// Length that the record beginning here claims to have, if one does.
pub(crate) fn claimed_bytes(header: &[u8]) -> Option<usize> {
    let header = header.get(..RECORD_HEADER_BYTES)?;
    (header[..4] == RECORD_MAGIC).then(|| record_bytes(u32_at(header, 8) as usize))
}

/// The record that begins here, if a whole and undamaged one does.
pub(crate) fn decode_record(bytes: &[u8], salt: Uuid) -> Option<Record<'_>> {
    let padded = claimed_bytes(bytes)?;
    let length = RECORD_HEADER_BYTES + u32_at(bytes, 8) as usize;
    let bytes = bytes.get(..padded)?;
    if checksum(&bytes[8..length], salt) != u32_at(bytes, 4) || bytes[length..].iter().any(|byte| *byte != 0) {
        return None;
    }
    let kind = match u32_at(bytes, 12) {
        1 => Kind::Series,
        2 => Kind::Deleted,
        3 => Kind::Purged,
        4 => Kind::End,
        5 => Kind::Packed,
        _ => return None,
    };
    let body = &bytes[RECORD_HEADER_BYTES..length];
    Some(Record { kind, sequence: u64_at(bytes, 16), epoch: u64_at(bytes, 24), synced: u64_at(bytes, 32), body })
}

fn checksum(bytes: &[u8], salt: Uuid) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(salt.as_bytes()), bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damaged_ones_do_not() {
        let salt = Uuid::from_u128(5);
        let record = Record { kind: Kind::Deleted, sequence: 7, epoch: 2, synced: 6, body: b"thirteen bytes" };
        let mut bytes = Vec::new();
        encode_record(&record, salt, &mut bytes);
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        assert_eq!(decode_record(&bytes, salt), Some(record));
        assert_eq!(decode_record(&bytes, Uuid::from_u128(6)), None);
        for at in 0..bytes.len() {
            assert_eq!(decode_record(&bytes[..at], salt), None, "cut at {at}");
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert_eq!(decode_record(&bytes, salt), None, "byte {at} bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn headers_come_back_and_damaged_ones_do_not() {
        let header =
            SegmentHeader { log_id: Uuid::from_u128(9), number: 3, epoch: 4, first_sequence: 5, is_base: true };
        let mut bytes = encode_header(&header);
        assert_eq!(decode_header(&bytes), Ok(header));
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(decode_header(&bytes).is_err(), "{at}");
            bytes[at] ^= 1;
        }
    }
}
