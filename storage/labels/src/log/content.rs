//! What stands in records: new pairs and series of a project, deletions. To and from bytes; pure.

use std::{collections::HashSet, io};

use orzo_model::{SeriesId, Timestamp};

use crate::{
    LabelSets,
    book::PairId,
    set::{labels_of, read_number, read_text, write_number},
};

/// New series of one project, with the pairs that they are the first to have.
pub(crate) struct SeriesBody {
    pairs: Vec<u8>,
    pair_count: u64,
    series: Vec<u8>,
    series_count: u64,
    last: u64,
}

impl SeriesBody {
    pub(crate) fn new() -> Self {
        Self { pairs: Vec::new(), pair_count: 0, series: Vec::new(), series_count: 0, last: 0 }
    }

    /// The pair with the next number.
    pub(crate) fn pair(&mut self, name: &[u8], value: &[u8]) {
        for text in [name, value] {
            write_number(&mut self.pairs, text.len() as u64);
            self.pairs.extend_from_slice(text);
        }
        self.pair_count += 1;
    }

    /// A series and its pairs.
    pub(crate) fn series(&mut self, series: SeriesId, members: &[PairId]) {
        // Numbers mostly ascend by one.
        write_number(&mut self.series, series.0.wrapping_sub(self.last));
        self.last = series.0;
        write_number(&mut self.series, members.len() as u64);
        for pair in members {
            write_number(&mut self.series, u64::from(pair.0));
        }
        self.series_count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.series_count == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pairs.len() + self.series.len()
    }

    /// The record's body.
    pub(crate) fn encode(&self, project: &str) -> Vec<u8> {
        let mut body = Vec::with_capacity(project.len() + self.bytes() + 30);
        write_number(&mut body, project.len() as u64);
        body.extend_from_slice(project.as_bytes());
        write_number(&mut body, self.pair_count);
        body.extend_from_slice(&self.pairs);
        write_number(&mut body, self.series_count);
        body.extend_from_slice(&self.series);
        body
    }
}

/// Bodies of new series say much twice; packed they take a fraction of the room.
pub(crate) struct Packer(zstd::bulk::Compressor<'static>);

/// Bodies this short are not worth it.
const PACKED_FROM_BYTES: usize = 256;
/// Longer ones are not packed, and nothing unpacks to more.
const PACKED_BYTES_MAX: usize = 64 << 20;
/// Higher levels take much longer for little: names repeat near to each other.
const PACKED_LEVEL: i32 = 1;

impl Packer {
    pub(crate) fn new() -> io::Result<Self> {
        zstd::bulk::Compressor::new(PACKED_LEVEL).map(Self)
    }

    /// The body packed, if that is shorter.
    pub(crate) fn pack(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        if !(PACKED_FROM_BYTES..=PACKED_BYTES_MAX).contains(&body.len()) {
            return None;
        }
        let frame = self.0.compress(body).ok()?;
        let mut packed = Vec::with_capacity(frame.len() + 5);
        write_number(&mut packed, body.len() as u64);
        packed.extend_from_slice(&frame);
        (packed.len() < body.len()).then_some(packed)
    }
}

/// Reads what [`Packer::pack`] wrote.
pub(crate) fn unpack(mut packed: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(read_number(&mut packed)?).ok().filter(|length| *length <= PACKED_BYTES_MAX)?;
    zstd::bulk::decompress(packed, length).ok().filter(|body| body.len() == length)
}

/// No less than the body of new series with these sets takes. Room for it is allocated before it is made, so of many sets
/// a pair that several have is counted once.
pub(crate) fn series_body_bytes_max(project: &str, sets: &LabelSets) -> usize {
    let (mut pairs, mut labels) = (0, 0);
    let mut seen = HashSet::new();
    for (name, value) in sets.iter().flat_map(labels_of) {
        labels += 1;
        if sets.bytes() < COUNTED_FROM_BYTES || seen.insert((name, value)) {
            pairs += name.len() + value.len() + 2 * LENGTH_BYTES_MAX;
        }
    }
    // A pair's number, a series' own number, and how many pairs it has.
    project.len() + 30 + pairs + 5 * labels + 15 * sets.len()
}

/// Fewer bytes of sets are not worth looking at twice.
const COUNTED_FROM_BYTES: usize = 32 << 10;
/// A text's length is below 2^21.
const LENGTH_BYTES_MAX: usize = 3;

/// Takes what [`read_series`] reads; `false` if it cannot be.
pub(crate) trait TakeSeries {
    /// The pair with the next number.
    fn pair(&mut self, name: &[u8], value: &[u8]) -> bool;
    /// A series and its pairs.
    fn series(&mut self, series: SeriesId, members: &[PairId]) -> bool;
}

/// The project of new series; what follows is for [`read_series`].
pub(crate) fn read_project<'a>(body: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(read_text(body)?).ok()
}

/// Reads new series, their pairs first; `None` if something is not as it must be.
pub(crate) fn read_series(mut body: &[u8], taker: &mut impl TakeSeries) -> Option<()> {
    for _ in 0..read_number(&mut body)? {
        let (name, value) = (read_text(&mut body)?, read_text(&mut body)?);
        taker.pair(name, value).then_some(())?;
    }
    let (mut last, mut members) = (0u64, Vec::new());
    for _ in 0..read_number(&mut body)? {
        last = last.wrapping_add(read_number(&mut body)?);
        members.clear();
        for _ in 0..read_number(&mut body)? {
            members.push(PairId(u32::try_from(read_number(&mut body)?).ok()?));
        }
        taker.series(SeriesId(last), &members).then_some(())?;
    }
    body.is_empty().then_some(())
}

/// Deleted series of a project and when that was; or, without a project, series whose points are gone.
pub(crate) fn encode_gone(project: &str, at: Timestamp, series: &[SeriesId]) -> Vec<u8> {
    let mut body = Vec::new();
    write_number(&mut body, project.len() as u64);
    body.extend_from_slice(project.as_bytes());
    body.extend_from_slice(&at.micros().to_le_bytes());
    write_number(&mut body, series.len() as u64);
    let mut last = 0u64;
    for series in series {
        write_number(&mut body, series.0.wrapping_sub(last));
        last = series.0;
    }
    body
}

/// More than the body of so many deleted series takes.
pub(crate) fn gone_body_bytes_max(project: &str, series: usize) -> usize {
    project.len() + 30 + 10 * series
}

/// Reads what [`encode_gone`] wrote.
pub(crate) fn read_gone(mut body: &[u8]) -> Option<(&str, Timestamp, Vec<SeriesId>)> {
    let project = std::str::from_utf8(read_text(&mut body)?).ok()?;
    let (micros, rest) = body.split_first_chunk::<8>()?;
    body = rest;
    let (mut series, mut last) = (Vec::new(), 0u64);
    for _ in 0..read_number(&mut body)? {
        last = last.wrapping_add(read_number(&mut body)?);
        series.push(SeriesId(last));
    }
    body.is_empty().then(|| (project, Timestamp::from_micros(i64::from_le_bytes(*micros)), series))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_and_shorter_ones_do_not() {
        let mut body = SeriesBody::new();
        body.pair(b"__name__", b"up");
        body.pair(b"a", &[b'x'; 200]);
        body.series(SeriesId(500), &[PairId(0), PairId(1)]);
        body.series(SeriesId(499), &[PairId(70_000)]);
        let bytes = body.encode("p1");
        #[derive(Default)]
        struct Taken(usize, Vec<(u64, usize)>);
        impl TakeSeries for Taken {
            fn pair(&mut self, _: &[u8], _: &[u8]) -> bool {
                self.0 += 1;
                true
            }
            fn series(&mut self, series: SeriesId, members: &[PairId]) -> bool {
                self.1.push((series.0, members.len()));
                true
            }
        }
        let read = |mut bytes: &[u8]| {
            let mut taken = Taken::default();
            assert_eq!(read_project(&mut bytes), Some("p1"));
            read_series(bytes, &mut taken).map(|()| (taken.0, taken.1))
        };
        assert_eq!(read(&bytes), Some((2, vec![(500, 2), (499, 1)])));
        for end in 3..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end}");
        }
        let mut packer = Packer::new().expect("made");
        assert_eq!(packer.pack(&bytes[..100]), None, "it is short");
        let packed = packer.pack(&bytes.repeat(3)).expect("it is long enough");
        assert!(packed.len() < bytes.len());
        assert_eq!(unpack(&packed), Some(bytes.repeat(3)));
        assert!((0..packed.len()).all(|end| unpack(&packed[..end]).is_none()));
        // A length that is not the content's, and one that is too much to be tried.
        assert_eq!(unpack(&[&[packed[0] - 1], &packed[1..]].concat()), None);
        assert_eq!(unpack(&[&[packed[0] + 1], &packed[1..]].concat()), None);
        assert_eq!(unpack(&[&[0xff, 0xff, 0xff, 0x7f], &packed[2..]].concat()), None);
        let gone = encode_gone("p1", Timestamp::from_secs(9), &[SeriesId(3), SeriesId(2)]);
        assert_eq!(read_gone(&gone), Some(("p1", Timestamp::from_secs(9), vec![SeriesId(3), SeriesId(2)])));
        assert!((0..gone.len()).all(|end| read_gone(&gone[..end]).is_none()));
    }
}
